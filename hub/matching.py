"""``yici identity match``: candidates for quarantined rows without a usable identifier, put into the review queue.

Only rows that wait without candidates are matched, again when more has become known since; each part is committed by
itself, so one that is killed is continued by the next, and one too many changes nothing. Nothing is attached here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from connectors.errors import RetriableError
from hub import copying, database, home, matching_model
from hub.matching_kernel import RECORDS, Finder, Found

ROWS = 2_000  # matched and committed at once
RECORD = ("entry", "role", "run", "position", "state", "candidates", "candidates_more", "crowded")
CANDIDATE = ("entry", "role", "rank", "identifier", "holding", "weight", "probability", "levels", "weights")


class Progress(Protocol):
    """Told of each step: ``done`` of ``total`` (total 0: not known)."""

    def __call__(self, step: str, done: int, total: int) -> None: ...


def quiet(step: str, done: int, total: int) -> None:
    """No progress shown."""


def propose(progress: Progress = quiet) -> dict[str, Any]:
    """Match what waits. Returns counts: ``rows``, ``records`` (persons in question), ``matched`` (with candidates),
    ``candidates``, ``crowded`` (records with a block too large to be searched), ``people`` known.

    RetriableError ``matching-busy`` while another run matches.
    """
    from hub import matching_subjects as subjects

    counts = dict.fromkeys(("rows", "records", "matched", "candidates", "crowded", "people"), 0)
    with _alone():
        with database.engine().connect() as connection:
            position = connection.scalar(sa.text("SELECT position FROM feed_head")) or 0
            waiting = subjects.waiting(connection, position)
        total = sum(map(len, waiting.values()))
        if not total:
            return counts
        folder = home.current().work / "matching"
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        try:
            with Finder(folder) as finder:
                progress("read known people", 0, 0)
                with database.engine().connect() as connection:
                    for part in subjects.people(connection, home.keyed_hash()):
                        finder.add(part)
                counts["people"] = finder.people
                with database.engine().begin() as connection:
                    run = connection.scalar(sa.text(_RUN), _run(finder.people))
                for source, entries in waiting.items():
                    for start in range(0, len(entries), ROWS):
                        progress("match", counts["rows"], total)
                        some = entries[start : start + ROWS]
                        with database.engine().begin() as connection:
                            records = subjects.records(connection, source, some)
                            found = finder.find(records.select(RECORDS.names))
                            _write(connection, records, found, run or 0, position)
                        counts["rows"] += len(some)
                        counts["records"] += records.num_rows
                        counts["matched"] += pc.sum(pc.greater(found.records["candidates"], 0)).as_py() or 0
                        counts["candidates"] += found.candidates.num_rows
                        counts["crowded"] += pc.sum(pc.not_equal(found.records["crowded"], "[]")).as_py() or 0
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return counts


def _write(connection: sa.Connection, records: pa.Table, found: Found, run: int, position: int) -> None:
    """In place of what an earlier run found in vain."""
    connection.execute(
        sa.text("DELETE FROM match_record WHERE entry = ANY(:entries) AND state = 'waiting'"),
        {"entries": records["entry"].to_pylist()},
    )
    summed = found.records  # in the order of the records
    rows = records.num_rows
    table = pa.table(
        [records["entry"], records["role"], pa.repeat(run, rows), pa.repeat(position, rows), pa.repeat("waiting", rows),
         pc.subtract(summed["candidates"], summed["more"]), summed["more"], summed["crowded"]],
        list(RECORD),
    )  # fmt: skip
    _copy(connection, "match_record", table)
    place = pc.index_in(found.candidates["record"], value_set=records["record"].combine_chunks())
    candidates = found.candidates
    levels, weights = (
        [candidates[f"{one.name}{end}"] for one in matching_model.COMPARISONS] for end in ("", "_weight")
    )
    listed = [
        pc.binary_join_element_wise(
            "{", pc.binary_join_element_wise(*[part.cast(pa.string()) for part in parts], ","), "}", ""
        )
        for parts in (levels, weights)
    ]
    table = pa.table(
        [records["entry"].take(place), records["role"].take(place), candidates["rank"], _hex(candidates["person"]),
         _hex(candidates["statement"]), candidates["weight"], candidates["probability"], *listed],
        list(CANDIDATE),
    )  # fmt: skip
    _copy(connection, "match_candidate", table)


def _hex(keys: pa.ChunkedArray) -> pa.ChunkedArray:
    """How CSV says bytea."""
    with duckdb.connect(config={"threads": 1}) as engine:
        engine.register("keys", pa.table({"key": keys}))
        return engine.sql(r"SELECT '\x' || lower(hex(key)) AS key FROM keys").to_arrow_table()["key"]


def _copy(connection: sa.Connection, name: str, table: pa.Table) -> None:
    with copying.into(connection, name, table.column_names) as copy:
        copy.write(table)


def _run(people: int) -> dict[str, Any]:
    weights = {
        one.name: {level.code: {"m": level.m, "u": level.u} for level in one.levels}
        for one in matching_model.COMPARISONS
    }
    return {"model": matching_model.digest(), "weights": json.dumps(weights), "people": people}


_RUN = "INSERT INTO match_run (model, weights, people) VALUES (:model, cast(:weights AS jsonb), :people) RETURNING id"


@contextmanager
def _alone() -> Iterator[None]:
    """One run at a time: a session lock, which ends with the process at the latest."""
    with database.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as guard:
        if not guard.scalar(sa.text("SELECT pg_try_advisory_lock(hashtextextended('yici-matching', 0))")):
            raise RetriableError("matching-busy")
        try:
            yield
        finally:
            guard.execute(sa.text("SELECT pg_advisory_unlock(hashtextextended('yici-matching', 0))"))
