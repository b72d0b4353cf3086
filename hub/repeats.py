"""Rows whose key stands several times in one batch: what is the same again, what contradicts, what only follows.

DuckDB over the keys of the batch, on disk where they are many. ``fates``: ``ordinal`` (sorted), ``fate``, ``ledger_key``.

repeated     the same version again: counted once
older        stands in a snapshot, and a later one in the batch lacks it
conflicting  other versions in the same delivery, unless the latest of them counts: each is kept under a key of its own, a hash of key and digest, so that the
             same batch again finds them unchanged and no version hides another
several      other versions that may follow each other: all are mapped, the merge weighs them
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hub.workspace import Workspace

MEMORY = "512MB"
BLOCK = 1 << 20  # keys compared at once
AT_ONCE = 1 << 22  # halves sorted together
KEY_BYTES = 32  # key and digest of a row: nothing makes them smaller
LONG_AGO = dt.datetime(1, 1, 2, tzinfo=dt.UTC)  # of a delivery that says no time
FATES = pa.schema({"ordinal": pa.int64(), "fate": pa.string(), "ledger_key": pa.binary(16)})


@dataclass(frozen=True)
class Delivery:
    """One delivery in the batch: chunks ``first`` to ``last`` of landed file ``file``; 0: all files together. ``unread``: lines
    and rows in it that may be any row."""

    file: int
    first: int
    last: int
    as_of: dt.datetime | None
    unread: int = 0


@dataclass(frozen=True)
class Compared:
    """The rows of one chunk that are compared with the ledger, under their ledger key."""

    keys: pa.Table
    conflicting: np.ndarray
    several: np.ndarray


def deliveries(workspace: Workspace) -> list[Delivery]:
    """The deliveries of a batch, as :func:`hub.staging.stage` noted them."""
    found = workspace.noted()["deliveries"]
    return [
        Delivery(
            one["file"],
            one["first"],
            one["last"],
            dt.datetime.fromisoformat(one["as_of"]) if one["as_of"] else None,
            one.get("unread", 0),
        )
        for one in found
    ]


def as_of(found: Sequence[Delivery], chunk: int) -> dt.datetime | None:
    """The as_of of the delivery that a chunk belongs to."""
    return next((one.as_of for one in found if one.first <= chunk <= one.last), None)


def fates(workspace: Workspace, found: Sequence[Delivery], *, snapshot: bool, latest: bool) -> pa.Table:
    """What becomes of rows whose key is repeated. ``snapshot``: the latest delivery names all there is; ``latest``: of
    conflicting rows the latest counts."""
    # Files of one as_of are parts of one delivery; one that says no time is not known to be older.
    times = {one.as_of for one in found if one.as_of} if snapshot else set()
    later = [len([time for time in times if one.as_of and time > one.as_of]) for one in found]
    chunks = workspace.chunks("keys")
    if not chunks or not (any(later) or _repeats(workspace)):
        return FATES.empty_table()
    spans = pa.Table.from_pylist(
        [
            {"first": one.first, "last": one.last, "as_of": one.as_of or LONG_AGO, "later": count}
            for one, count in zip(found, later, strict=True)
        ],
        pa.schema({"first": pa.int32(), "last": pa.int32(), "as_of": pa.timestamp("us", "UTC"), "later": pa.int32()}),
    )
    keys = (batch for chunk in chunks for batch in workspace.read("keys", chunk).to_batches())
    settings: dict[str, Any] = {"threads": 1, "memory_limit": MEMORY, "temp_directory": str(workspace.folder / "spill")}
    with duckdb.connect(config=settings) as engine:
        engine.execute("SET TimeZone = 'UTC'")
        engine.register("deliveries", spans)
        engine.register("keys", pa.RecordBatchReader.from_batches(workspace.read("keys", chunks[0]).schema, keys))
        engine.execute(_STAGED)
        engine.execute(_REPEATED)
        told = engine.sql(_FATES, params={"latest": latest}).to_arrow_table()
    ledger_key = pa.concat_arrays(told["ledger_key"].chunks) if told.num_rows else pa.array([], pa.binary())
    return pa.table([told["ordinal"], told["fate"], ledger_key.cast(pa.binary(16))], schema=FATES)


def compared(keys: pa.Table, told: pa.Table) -> Compared:
    """The rows of a chunk of keys that remain under ``told``."""
    nowhere = np.zeros(keys.num_rows, dtype=bool)
    if not told.num_rows:
        return Compared(keys, nowhere, nowhere)
    ordinals, fated = keys["ordinal"].to_numpy(), told["ordinal"].to_numpy()
    places = np.minimum(np.searchsorted(fated, ordinals), len(fated) - 1)
    hit = fated[places] == ordinals
    fate = told["fate"].take(pa.array(places))
    conflicting = hit & pc.equal(fate, "conflicting").to_numpy()
    several = hit & pc.equal(fate, "several").to_numpy()
    kept = ~hit | conflicting | several
    other = told["ledger_key"].take(pa.array(places)).combine_chunks()
    row_key = pc.if_else(pa.array(conflicting), other, keys["row_key"].combine_chunks())
    keys = keys.set_column(keys.column_names.index("row_key"), "row_key", row_key)
    return Compared(keys.filter(pa.array(kept)), conflicting[kept], several[kept])


def leading(keys: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """The first eight bytes of 16-byte keys as numbers that sort as the keys do; keys may not be null."""
    array = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.empty(0, dtype=np.uint64)
    whole = np.frombuffer(data, dtype=">u8", count=2 * (len(array) + array.offset))
    return whole[2 * array.offset :: 2].astype(np.uint64)


def repeated(keys: Callable[[], Iterable[pa.ChunkedArray | pa.Array]], most: int) -> np.ndarray:
    """The leading halves that stand several times among ``keys``, of which there are ``most`` at most.

    They are gone through once for each :data:`AT_ONCE` of them, so that memory stays the same however many there are.
    """
    passes = max(1, -(-most // AT_ONCE))
    bounds = [(1 << 64) * number // passes for number in range(1, passes)]
    found = []
    for number in range(passes):
        parts = [_between(leading(part), bounds[number - 1 : number], bounds[number : number + 1]) for part in keys()]
        halves = np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)
        parts.clear()
        halves.sort()
        found += [
            block[1:][block[1:] == block[:-1]]
            for start in range(0, len(halves), BLOCK)
            for block in (halves[start : start + BLOCK + 1],)
        ]
    return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.uint64)


def _between(halves: np.ndarray, low: list[int], high: list[int]) -> np.ndarray:
    """Those from ``low`` to below ``high``, where there is one."""
    if low:
        halves = halves[halves >= np.uint64(low[0])]
    return halves[halves < np.uint64(high[0])] if high else halves


def _repeats(workspace: Workspace) -> bool:
    """Whether any key may stand twice."""
    most = workspace.size("keys") // KEY_BYTES
    return bool(len(repeated(lambda: (keys["row_key"] for keys in workspace.each("keys", ["row_key"])), most)))


# ``later``: how many later snapshots the batch holds; a row is unlisted when any of them lacks its key.
_STAGED = """
CREATE TABLE staged AS SELECT k.ordinal, k.row_key, k.digest, d.as_of, d.later
FROM keys AS k JOIN deliveries AS d ON k.chunk BETWEEN d.first AND d.last
"""
_REPEATED = """
CREATE TABLE repeated AS
SELECT *, later > dense_rank() OVER (PARTITION BY row_key ORDER BY as_of DESC) - 1 AS unlisted FROM staged
WHERE later > 0 OR row_key IN (SELECT row_key FROM staged GROUP BY row_key HAVING count(*) > 1)
"""
_ONCE = """
WITH once AS (
  SELECT *, row_number() OVER (PARTITION BY row_key, digest ORDER BY as_of DESC, ordinal) > 1 AS again
  FROM repeated WHERE NOT unlisted
),
"""
_ALWAYS = """
SELECT ordinal, 'older' AS fate, NULL::BLOB AS ledger_key FROM repeated WHERE unlisted
UNION ALL SELECT ordinal, 'repeated', NULL FROM once WHERE again
"""
_TEXT = "regexp_replace(lower(hex({})), '(.{{8}})(.{{4}})(.{{4}})(.{{4}})(.{{12}})', '\\1-\\2-\\3-\\4-\\5')"
_FATES = f"""
{_ONCE}
counted AS (
  SELECT *, NOT $latest AND count(*) OVER (PARTITION BY row_key, as_of) > 1 AS conflicting,
    count(*) OVER (PARTITION BY row_key) > 1 AS several
  FROM once WHERE NOT again
)
{_ALWAYS}
UNION ALL
SELECT ordinal, CASE WHEN conflicting THEN 'conflicting' ELSE 'several' END,
  CASE WHEN conflicting THEN unhex(md5({_TEXT.format("row_key")} || {_TEXT.format("digest")})) END
FROM counted WHERE conflicting OR several
ORDER BY ordinal
"""
