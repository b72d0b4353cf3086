"""How well the review queue finds whom records without a usable identifier are about, against the generator's truth."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from connectors.errors import BatchHalted
from demo import anonymous
from hub import database, digests, home, matching, pipeline, review

SOURCES = {anonymous.RESIDENTS: "sh-ga-residents", anonymous.HOUSEHOLDS: "sh-ga-households"}
REGISTERS = {"sh-ga-residents": "ga/residents.jsonl", "sh-ga-households": "ga/households.jsonl"}
RECORDS = 4_000  # at most, and no more than one person in ten
PAGE = 20_000  # records of a register in one page


def measure(here: Path, folder: Path, *, seed: int = 1) -> tuple[float, float]:
    """(recall, precision) of the review queue over records without a usable identifier about the people of ``folder``.

    ``here``: the current home, with its database; ``folder``: of `yici synth`. The two registers and then the records come
    through the pipeline; the records are matched and wait in the queue. Recall: the share of all records whose true
    person is among the candidates in the queue. Precision: of the records that have candidates, the share whose first one
    is the true person.
    """
    _load(here, folder)
    people = pq.read_metadata(folder / "truth/people.parquet").num_rows
    with tempfile.TemporaryDirectory(prefix="yici-review-", dir=here) as made:
        truth = anonymous.write(folder, Path(made), min(RECORDS, people // 10), seed)
        for name, source in SOURCES.items():
            _deliver(source, Path(made) / name)
    matching.propose()
    found = _queue()
    keys = digests.keyed(_prefixed(truth["identifier"]), home.keyed_hash())
    truth = truth.append_column("key", keys)
    recall, precision = _compared(truth, found)
    return recall, precision


def _load(here: Path, folder: Path) -> None:
    """Both registers, in pages as their interface gives them; one that is held already costs a comparison."""
    for source, name in REGISTERS.items():
        with (folder / name).open("rb") as lines, tempfile.TemporaryDirectory(prefix="yici-review-", dir=here) as pages:
            for number in itertools.count():
                if not (part := list(itertools.islice(lines, PAGE))):
                    break
                Path(pages, f"{number:04d}.json").write_bytes(b'{"data": [' + b",".join(part) + b"]}")
            pipeline.run(source, input=Path(pages))


def _deliver(source: str, path: Path) -> None:
    """Rows that are all bad halt their batch: a person lets it through."""
    try:
        pipeline.run(source, input=path)
    except BatchHalted as halted:
        review.approve(str(halted.values["batch"]), actor="bench", note="records without identifiers")


def _prefixed(values: pa.ChunkedArray) -> pa.Array:
    return pc.binary_join_element_wise("cn.ric", values.combine_chunks(), ":")


def _queue() -> pa.Table:
    """``file``, ``row``, ``rank`` and ``key`` of every candidate in the queue."""
    with database.engine().connect() as connection:
        rows = connection.execute(sa.text(_QUEUE)).all()
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    types = (pa.string(), pa.int64(), pa.int64(), pa.binary())
    return pa.table(
        [pa.array(list(values), kind) for values, kind in zip(columns, types, strict=True)],
        ["file", "row", "rank", "key"],
    )


def _compared(truth: pa.Table, found: pa.Table) -> tuple[float, float]:
    with duckdb.connect() as engine:
        engine.register("truth", truth)
        engine.register("found", found)
        recall, precision = engine.execute(_MEASURED).fetchall()[0]
    return round(recall, 4), round(precision or 0.0, 4)


_QUEUE = """
SELECT f.name AS file, q."row", c.rank, c.identifier
FROM match_candidate AS c JOIN quarantine AS q ON q.id = c.entry JOIN landed_file AS f ON f.id = q.file
"""
_MEASURED = """
WITH judged AS (
  SELECT t.file, t.row, count(f.key) AS candidates, coalesce(bool_or(f.key = t.key), false) AS found,
    coalesce(bool_or(f.key = t.key AND f.rank = 1), false) AS first
  FROM truth AS t LEFT JOIN found AS f ON f.file = t.file AND f.row = t.row GROUP BY t.file, t.row)
SELECT avg(found::INT), avg(first::INT) FILTER (WHERE candidates > 0) FROM judged
"""
