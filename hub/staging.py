"""From landed files to chunk files: rows with their place, key and digest. Nothing here asks the database.

Reading goes on while two threads hash and write; DuckDB, pyarrow and numpy let go of the interpreter meanwhile.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.landing import LandedFile, Landing
from connectors.reading import Block, blocks
from connectors.source import FileOptions, Source
from hub import digests
from hub.clock import CHINA
from hub.workspace import Kind, Workspace
from mappings import dates, schemes

if TYPE_CHECKING:
    from connectors.channel import Partner

CHUNK_ROWS = 131_072  # larger ones cost memory, smaller ones a start of the gate each (decision 0008)
THREADS = 2
MALFORMED = "malformed"  # prefix of row keys of lines that have no columns
FAR_FUTURE = dt.timedelta(days=1)
KEYS = pa.schema(
    {
        "ordinal": pa.int64(),
        "chunk": pa.int32(),
        "row_key": pa.binary(16),
        "digest": pa.binary(16),
        "seen_at": pa.timestamp("us", "UTC"),
    }
)


@dataclass
class Staged:
    """What one batch holds before the diff. ``headers``: the raw columns seen, one entry per distinct header; JSON
    records name their own keys, so there all pages or files together make one."""

    fetched: int = 0
    malformed: int = 0
    keyless: int = 0  # rows whose key is empty, or ruined by a spreadsheet
    unread: int = 0  # of the latest delivery, or of no known time: lines and rows that may be any row
    open_ends: int = 0  # files whose last value may have been cut
    as_of: dt.datetime | None = None
    headers: set[tuple[str, ...]] = field(default_factory=set)


def stage(
    source: Source,
    batch: str,
    files: Iterable[tuple[int, LandedFile]],
    landing: Landing,
    stated: dt.datetime | None = None,
    *,
    now: dt.datetime | None = None,
    partner: Partner | None = None,
) -> Staged:
    """Read landed files into chunk files ``raw``, ``malformed`` and ``keys``. Anything staged for ``batch`` before is replaced.

    ``files``: (id of ``landed_file``, landed file). Row order within and across files does not matter later.
    ``stated``: the as_of of all of them, when a person says so. A file from a folder or bucket is a delivery of its own;
    the pages of one answer are one delivery, and gathered into chunks: each chunk costs a start of the gate. ``now``: when
    the batch was begun; what a row says lies well after that is not believed. ``partner``: as :func:`connectors.reading.blocks`.
    """
    workspace = Workspace(batch)
    workspace.clear()
    staged = Staged()
    deliveries: list[dict[str, Any]] = []
    unread: Counter[dt.datetime | None] = Counter()
    apart = isinstance(source.options, FileOptions)
    believed = (now or dt.datetime.now(dt.UTC)) + FAR_FUTURE
    with ThreadPoolExecutor(THREADS) as pool:
        chunk = _Chunk(workspace, pool)
        for file_id, landed in files:
            first, latest, before = chunk.number, None, staged.malformed + staged.keyless
            for prepared in _hashed(
                pool, source, blocks(source, landed, landing, CHUNK_ROWS, partner=partner), staged, believed
            ):
                latest = _later(latest, prepared.latest)
                staged.keyless += prepared.keyless
                chunk.add("raw", prepared.raw, file_id)
                chunk.add("malformed", prepared.malformed, file_id)
                if apart or chunk.rows >= CHUNK_ROWS:
                    chunk.write()
            torn = staged.malformed + staged.keyless - before
            deliveries.append(
                {"file": file_id, "first": first, "last": chunk.number - 1, "as_of": stated or latest, "unread": torn}
            )
            staged.as_of = _later(staged.as_of, stated or latest)
            unread[stated or latest] += torn
        chunk.write()
        chunk.written()
    staged.unread = sum(rows for as_of, rows in unread.items() if not apart or as_of in (None, staged.as_of))
    if deliveries and not apart:
        deliveries = [{"file": 0, "first": 0, "last": chunk.number, "as_of": staged.as_of, "unread": staged.unread}]
    workspace.note(
        deliveries=[
            {**delivery, "as_of": delivery["as_of"].isoformat() if delivery["as_of"] else None}
            for delivery in deliveries
        ]
    )
    return staged


class _Chunk:
    """Rows on their way into the chunk files ``number``; one chunk is written while the next is read."""

    def __init__(self, workspace: Workspace, pool: ThreadPoolExecutor) -> None:
        self.workspace, self.pool = workspace, pool
        self.number = self.rows = 0
        self.tables: dict[Kind, list[pa.Table]] = {"raw": [], "malformed": []}
        self.writing: Future[None] | None = None

    def add(self, kind: Kind, table: pa.Table, file_id: int) -> None:
        if table.num_rows:
            file = pa.repeat(pa.scalar(file_id, pa.int64()), table.num_rows)
            self.tables[kind].append(table.append_column("_file", file))
            self.rows += table.num_rows

    def write(self) -> None:
        """Begin to write what was added; the next rows are those of the next chunk."""
        if not self.rows:
            return
        self.written()
        self.writing = self.pool.submit(_written, self.workspace, self.number, self.tables)
        self.tables = {"raw": [], "malformed": []}
        self.number, self.rows = self.number + 1, 0

    def written(self) -> None:
        """Wait for the chunk that is being written; its error is raised here."""
        if self.writing is not None:
            self.writing.result()


def _written(workspace: Workspace, number: int, added: dict[Kind, list[pa.Table]]) -> None:
    keys = []
    for kind, tables in added.items():
        if tables:
            table = pa.concat_tables(tables, promote_options="default")
            workspace.write(kind, number, table)
            keys.append(keys_of(table, number))
    workspace.write("keys", number, pa.concat_tables(keys))


def keys_of(table: pa.Table, chunk: int) -> pa.Table:
    """What the diff needs of rows: :data:`KEYS`."""
    number = pa.repeat(pa.scalar(chunk, pa.int32()), table.num_rows)
    columns = [table["_ordinal"], number, table["_row_key"], table["_digest"], table["_seen_at"]]
    return pa.table(columns, KEYS.names).cast(KEYS)


@dataclass(frozen=True)
class _Prepared:
    """One block with keys and digests. ``latest``: its latest readable as_of."""

    raw: pa.Table
    malformed: pa.Table
    latest: dt.datetime | None
    keyless: int


def _later(one: dt.datetime | None, other: dt.datetime | None) -> dt.datetime | None:
    return max(one, other) if one and other else one or other


def _counted(source: Source, block: Block, staged: Staged) -> int:
    """Count the block in; returns the place of its first row in the batch."""
    found = tuple(name for name in block.table.column_names if name != "_row")
    records = source.connector == "rest" or getattr(source.options, "format", None) == "jsonl"
    if records and block.table.num_rows:
        staged.headers = {tuple(dict.fromkeys([*(name for names in staged.headers for name in names), *found]))}
    elif not records:
        staged.headers.add(found)
    place = staged.fetched
    staged.fetched += block.table.num_rows + block.malformed.num_rows
    staged.malformed += block.malformed.num_rows
    staged.open_ends += block.open_end
    return place


def _hashed(
    pool: ThreadPoolExecutor, source: Source, found: Iterable[Block], staged: Staged, limit: dt.datetime
) -> Iterator[_Prepared]:
    """The blocks in their order, a few of them at work at a time."""
    waiting: deque[Future[_Prepared]] = deque()
    for block in found:
        place = _counted(source, block, staged)
        waiting.append(pool.submit(_prepared, source, block, place, limit))
        if len(waiting) > THREADS:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _prepared(source: Source, block: Block, first: int, limit: dt.datetime) -> _Prepared:
    keyed, latest, keyless = _keyed(source, block.table, first, limit)
    return _Prepared(keyed, _malformed(block.malformed, first + keyed.num_rows), latest, keyless)


def _keyed(source: Source, table: pa.Table, first: int, limit: dt.datetime) -> tuple[pa.Table, dt.datetime | None, int]:
    """Raw columns plus ``_ordinal``, ``_row_key``, ``_digest``, ``_seen_at``; the latest readable ``as_of``; and how many
    rows have no readable key."""
    for name in source.options.columns:  # a key that no record of a page has; whole files are checked later
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
    raw = sorted(name for name in table.column_names if name != "_row")
    out = table.append_column("_ordinal", pa.array(np.arange(first, first + table.num_rows, dtype=np.int64)))
    digest = digests.of_columns([table[name] for name in raw], names=raw)
    keys = [digests.folded(table[name]) for name in source.row_key if name in raw]
    readable = len(keys) == len(source.row_key) and keys
    key = digests.of_columns(keys) if readable else digest
    keyless = 0 if readable else table.num_rows
    if readable:
        empty = np.zeros(table.num_rows, dtype=bool)
        for column in keys:
            empty |= pc.equal(pc.fill_null(column, ""), "").to_numpy(zero_copy_only=False)
            empty |= pc.match_substring_regex(pc.fill_null(column, ""), schemes.SCIENTIFIC).to_numpy(
                zero_copy_only=False
            )
        keyless = int(empty.sum())
        if keyless:  # a row without its key is told apart by all it says
            key = pc.if_else(pa.array(empty), digest, key)
    out = out.append_column("_row_key", key).append_column("_digest", digest)
    seen, latest = _seen_at(source, table, limit)
    return out.append_column("_seen_at", seen), latest, keyless


def _seen_at(source: Source, table: pa.Table, limit: dt.datetime) -> tuple[pa.Array, dt.datetime | None]:
    column = source.as_of.column
    if column is None or column not in table.column_names or not table.num_rows:
        constant = source.as_of.date
        stamp = dt.datetime(constant.year, constant.month, constant.day, tzinfo=CHINA) if constant else None
        return pa.nulls(table.num_rows, pa.timestamp("us", "UTC")), stamp if table.num_rows else None
    values = table[column].combine_chunks() if isinstance(table[column], pa.ChunkedArray) else table[column]
    stamps, _ = dates.timestamp(values, serial=getattr(source.options, "format", None) == "xlsx")
    stamps = pc.if_else(pc.less_equal(stamps, pa.scalar(limit, stamps.type)), stamps, pa.scalar(None, stamps.type))
    return stamps, pc.max(stamps).as_py()


def _malformed(table: pa.Table, first: int) -> pa.Table:
    """Lines that are no rows: their key and digest are those of their bytes."""
    digest = digests.of_bytes(table["raw"], MALFORMED)
    return pa.table(
        {
            "_row": table["_row"],
            "_ordinal": pa.array(np.arange(first, first + table.num_rows, dtype=np.int64)),
            "_row_key": digest,
            "_digest": digest,
            "_seen_at": pa.nulls(table.num_rows, pa.timestamp("us", "UTC")),
            "raw": table["raw"],
            "reason": table["reason"],
        }
    )


def restage(batch: str, rows: pa.Table) -> None:
    """Stage rows out of quarantine as chunk 0 of ``batch``, all of them to be mapped. ``rows``: raw columns with ``_row``,
    ``_file``, ``_row_key`` and ``_digest``."""
    ordinals = pa.array(np.arange(rows.num_rows, dtype=np.int64))
    rows = rows.append_column("_ordinal", ordinals)
    rows = rows.append_column("_seen_at", pa.nulls(rows.num_rows, pa.timestamp("us", "UTC")))
    workspace = Workspace(batch)
    workspace.clear()
    workspace.write("raw", 0, rows)
    needed = {
        "ordinal": ordinals,
        "row_key": rows["_row_key"],
        "conflicting": pa.repeat(False, rows.num_rows),
        "known": pa.repeat(True, rows.num_rows),
        "chunk": pa.repeat(pa.scalar(0, pa.int32()), rows.num_rows),
        "seen_at": rows["_seen_at"],
    }
    workspace.write("needed", 0, pa.table(needed))
    workspace.note(deliveries=[])
