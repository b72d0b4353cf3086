"""From landed files to the rows that need mapping: digests, repeats, and the diff against the row ledger.

A row that the ledger knows under the same key, digest and contract costs a read, a hash and a comparison. Everything
here is set-based: DuckDB hashes, PostgreSQL compares.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from connectors.landing import LandedFile, Landing
from connectors.reading import Block, blocks
from connectors.source import FileOptions, Source
from hub import copying, digests
from hub.workspace import Kind, Workspace
from mappings import dates, schemes

CHUNK_ROWS = 65_536
MALFORMED = "malformed"  # prefix of row keys of lines that have no columns
UNPROVEN = "absence-unproven"  # finding of a snapshot that says nothing of the rows it lacks
CHINA = dt.timezone(dt.timedelta(hours=8))
FAR_FUTURE = dt.timedelta(days=1)


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


@dataclass(frozen=True)
class Diff:
    """Rows by fate. ``chunks``: those with rows to map."""

    unchanged: int  # repeated and older ones included
    repeated: int
    conflicting: int
    older: int
    chunks: list[int]


@dataclass(frozen=True)
class Absence:
    """Rows the ledger knows and a snapshot lacks, and all that it knows."""

    rows: int
    known: int


def stage(
    connection: sa.Connection,
    source: Source,
    batch: str,
    files: Iterable[tuple[int, LandedFile]],
    landing: Landing,
    stated: dt.datetime | None = None,
) -> Staged:
    """Read landed files into raw chunk files and ``stage_row``. Anything staged for ``batch`` before is replaced.

    ``files``: (id of ``landed_file``, landed file). Row order within and across files does not matter later.
    ``stated``: the as_of of all of them, when a person says so. A file from a folder or bucket is a delivery of its own;
    the pages of one answer are one delivery, and gathered into chunks: each chunk costs a start of the gate.
    """
    workspace = Workspace(batch)
    workspace.clear()
    for table in ("stage_row", "stage_file"):
        connection.execute(sa.text(f"DELETE FROM {table} WHERE batch = :batch"), {"batch": batch})
    staged = Staged()
    deliveries = []
    unread: Counter[dt.datetime | None] = Counter()
    apart = isinstance(source.options, FileOptions)
    with copying.into(connection, "stage_row", ("batch", "ordinal", "chunk", "row_key", "digest", "seen_at")) as copy:
        chunk = _Chunk(batch, workspace, copy)
        for file_id, landed in files:
            first, latest, before = chunk.number, None, staged.malformed + staged.keyless
            for block in blocks(source, landed, landing, block_rows=CHUNK_ROWS):
                latest = _later(latest, _add(source, file_id, block, staged, chunk))
                if apart or chunk.rows >= CHUNK_ROWS:
                    chunk.write()
            deliveries.append({"file": file_id, "first": first, "last": chunk.number - 1, "as_of": stated or latest})
            staged.as_of = _later(staged.as_of, stated or latest)
            unread[stated or latest] += staged.malformed + staged.keyless - before
        chunk.write()
    staged.unread = sum(rows for as_of, rows in unread.items() if not apart or as_of in (None, staged.as_of))
    if deliveries and not apart:
        deliveries = [{"file": 0, "first": 0, "last": chunk.number, "as_of": staged.as_of}]
    if deliveries:
        connection.execute(
            sa.text("INSERT INTO stage_file VALUES (:batch, :file, :first, :last, :as_of)"),
            [{"batch": batch, **delivery} for delivery in deliveries],
        )
    connection.execute(sa.text("ANALYZE stage_row"))
    return staged


class _Chunk:
    """Rows on their way into the chunk file ``number`` and into ``stage_row``."""

    def __init__(self, batch: str, workspace: Workspace, copy: copying.Writer) -> None:
        self.batch, self.workspace, self.copy = batch, workspace, copy
        self.number = self.rows = 0
        self.tables: dict[Kind, list[pa.Table]] = {"raw": [], "malformed": []}

    def add(self, kind: Kind, table: pa.Table, file_id: int) -> None:
        if table.num_rows:
            file = pa.repeat(pa.scalar(file_id, pa.int64()), table.num_rows)
            self.tables[kind].append(table.append_column("_file", file))
            self.rows += table.num_rows

    def write(self) -> None:
        """Write what was added; the next rows are those of the next chunk."""
        if not self.rows:
            return
        for kind, tables in self.tables.items():
            if tables:
                self._write(kind, pa.concat_tables(tables, promote_options="default"))
            tables.clear()
        self.number, self.rows = self.number + 1, 0

    def _write(self, kind: Kind, table: pa.Table) -> None:
        self.workspace.write(kind, self.number, table)
        rows = table.num_rows
        self.copy.write(
            pa.table(
                {
                    "batch": pa.repeat(self.batch, rows),
                    "ordinal": table["_ordinal"],
                    "chunk": pa.repeat(pa.scalar(self.number, pa.int32()), rows),
                    "row_key": table["_row_key"],
                    "digest": table["_digest"],
                    "seen_at": table["_seen_at"],
                }
            )
        )


def _later(one: dt.datetime | None, other: dt.datetime | None) -> dt.datetime | None:
    return max(one, other) if one and other else one or other


def _add(source: Source, file_id: int, block: Block, staged: Staged, chunk: _Chunk) -> dt.datetime | None:
    found = tuple(name for name in block.table.column_names if name != "_row")
    records = source.connector == "rest" or getattr(source.options, "format", None) == "jsonl"
    if records and block.table.num_rows:
        staged.headers = {tuple(dict.fromkeys([*(name for names in staged.headers for name in names), *found]))}
    elif not records:
        staged.headers.add(found)
    keyed, latest, keyless = _keyed(source, block.table, staged.fetched)
    bad = _malformed(block.malformed, staged.fetched + block.table.num_rows)
    chunk.add("raw", keyed, file_id)
    chunk.add("malformed", bad, file_id)
    staged.fetched += keyed.num_rows + bad.num_rows
    staged.malformed += bad.num_rows
    staged.keyless += keyless
    staged.open_ends += block.open_end
    return latest


def _keyed(source: Source, table: pa.Table, first: int) -> tuple[pa.Table, dt.datetime | None, int]:
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
    seen, latest = _seen_at(source, table)
    return out.append_column("_seen_at", seen), latest, keyless


def _seen_at(source: Source, table: pa.Table) -> tuple[pa.Array, dt.datetime | None]:
    column = source.as_of.column
    if column is None or column not in table.column_names or not table.num_rows:
        constant = source.as_of.date
        stamp = dt.datetime(constant.year, constant.month, constant.day, tzinfo=CHINA) if constant else None
        return pa.nulls(table.num_rows, pa.timestamp("us", "UTC")), stamp if table.num_rows else None
    values = table[column].combine_chunks() if isinstance(table[column], pa.ChunkedArray) else table[column]
    stamps, _ = dates.timestamp(values, serial=getattr(source.options, "format", None) == "xlsx")
    limit = pa.scalar(dt.datetime.now(dt.UTC) + FAR_FUTURE, stamps.type)
    stamps = pc.if_else(pc.less_equal(stamps, limit), stamps, pa.scalar(None, stamps.type))
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


def restage(connection: sa.Connection, batch: str, rows: pa.Table) -> None:
    """Stage rows out of quarantine as chunk 0 of ``batch``. ``rows``: raw columns with ``_row``, ``_file``, ``_row_key``
    and ``_digest`` (32 hex digits)."""
    rows = rows.append_column("_ordinal", pa.array(np.arange(rows.num_rows, dtype=np.int64)))
    rows = rows.append_column("_seen_at", pa.nulls(rows.num_rows, pa.timestamp("us", "UTC")))
    workspace = Workspace(batch)
    workspace.clear()
    workspace.write("raw", 0, rows)
    with copying.into(connection, "stage_row", ("batch", "ordinal", "chunk", "row_key", "digest")) as copy:
        chunk = pa.repeat(pa.scalar(0, pa.int32()), rows.num_rows)
        names = ["batch", "ordinal", "chunk", "row_key", "digest"]
        copy.write(
            pa.table(
                [pa.repeat(batch, rows.num_rows), rows["_ordinal"], chunk, rows["_row_key"], rows["_digest"]], names
            )
        )


def diff(connection: sa.Connection, source: Source, batch: str, contract: str, *, whole: bool = True) -> Diff:
    """Give repeated and conflicting rows their fate, and find the chunks in which rows remain to be mapped.

    ``whole``: the latest delivery can be read throughout. A whole snapshot replaces the older ones fetched with it; one
    that proves no absence is merged with them, as it would be after them.

    Conflicting repeats (one key, several versions) keep a ledger entry per version: their key becomes a hash of key
    and digest, so that the same batch again finds them unchanged and no version hides another.
    """
    bind = {"batch": batch, "source": source.name, "contract": contract}
    replaced = source.extent == "snapshot" and whole
    older = connection.execute(sa.text(_MARK_OF_OLDER_SNAPSHOT), bind).rowcount if replaced else 0
    connection.execute(sa.text(_REPEATS), bind)
    repeated = connection.execute(sa.text(_MARK_REPEATED), bind).rowcount
    older += connection.execute(sa.text(_MARK_OF_OLDER_FILE), bind).rowcount
    if source.duplicates == "latest":
        older += connection.execute(sa.text(_MARK_OLDER), bind).rowcount
    conflicting = connection.execute(sa.text(_MARK_CONFLICTING), bind).rowcount if source.duplicates != "latest" else 0
    connection.execute(sa.text("DROP TABLE repeat_key"))
    found = copying.out_of(connection, _TO_MAP, pa.schema({"chunk": pa.int64(), "rows": pa.int64()}), bind)
    total = connection.scalar(sa.text("SELECT count(*) FROM stage_row WHERE batch = :batch"), bind) or 0
    to_map = pc.sum(found["rows"]).as_py() or 0
    return Diff(total - to_map, repeated, conflicting, older, sorted(found["chunk"].to_numpy().tolist()))


def absent(connection: sa.Connection, batch: sa.Row) -> Absence:
    """What merging ``batch`` would withdraw; asked of the ledger before the merge, by the condition of the merge
    itself."""
    known = connection.scalar(sa.text(_KNOWN), {"source": batch.source}) or 0
    if not withdraws(batch):
        return Absence(0, known)
    bind = {"batch": batch.id, "source": batch.source, "as_of": batch.as_of}
    return Absence(connection.scalar(sa.text(_ABSENT), bind) or 0, known)


def withdraws(batch: sa.Row) -> bool:
    """Whether what the batch lacks is withdrawn: by a complete snapshot alone. A line that could not be read, or a row
    without its key, may be any row: then absence proves nothing."""
    proven = all(finding["code"] != UNPROVEN for finding in batch.findings)
    return bool(batch.extent == "snapshot" and batch.kind == "run" and proven)


def delivered(connection: sa.Connection, source: Source, batch: str) -> bool:
    """Whether a delivery came at all: a folder without a new file brought none, an answer without rows is one."""
    if not isinstance(source.options, FileOptions):
        return True
    found = sa.text("SELECT EXISTS (SELECT FROM stage_file WHERE batch = :batch)")
    return bool(connection.scalar(found, {"batch": batch}))


def ordinals(connection: sa.Connection, source: str, batch: str, chunk: int, contract: str) -> pa.Table:
    """The rows of one chunk that need mapping: ``ordinal`` (sorted), ``row_key``, ``conflicting``."""
    bind = {"batch": batch, "source": source, "contract": contract, "chunk": chunk}
    schema = pa.schema({"ordinal": pa.int64(), "row_key": pa.string(), "conflicting": pa.bool_()})
    return copying.out_of(connection, _ORDINALS, schema, bind)


# Files of one as_of are parts of one delivery; one that says no time is not known to be older.
_MARK_OF_OLDER_SNAPSHOT = """
UPDATE stage_row AS s SET fate = 'older' FROM stage_file AS f
WHERE s.batch = :batch AND f.batch = s.batch AND s.chunk BETWEEN f.first_chunk AND f.last_chunk
  AND f.as_of < (SELECT max(as_of) FROM stage_file WHERE batch = :batch)
"""
_REPEATS = """
CREATE TEMP TABLE repeat_key ON COMMIT DROP AS
SELECT row_key FROM stage_row WHERE batch = :batch AND fate IS NULL GROUP BY row_key HAVING count(*) > 1
"""
_DELIVERED = """
FROM stage_row AS s JOIN repeat_key USING (row_key)
  JOIN stage_file AS f ON f.batch = s.batch AND s.chunk BETWEEN f.first_chunk AND f.last_chunk
WHERE s.batch = :batch AND s.fate IS NULL
"""
_MARK_REPEATED = f"""
UPDATE stage_row SET fate = 'repeated'
FROM (
  SELECT s.ordinal AS place,
    row_number() OVER (PARTITION BY s.row_key, s.digest ORDER BY f.as_of DESC NULLS LAST, s.ordinal) AS turn
  {_DELIVERED}
) AS ranked
WHERE batch = :batch AND ordinal = place AND turn > 1
"""
_MARK_OF_OLDER_FILE = f"""
UPDATE stage_row SET fate = 'older'
FROM (
  SELECT s.ordinal AS place, coalesce(f.as_of, 'epoch') < max(coalesce(f.as_of, 'epoch')) OVER (PARTITION BY s.row_key) AS old
  {_DELIVERED}
) AS aged
WHERE batch = :batch AND ordinal = place AND old
"""
_MARK_OLDER = """
UPDATE stage_row SET fate = 'older'
FROM (
  SELECT ordinal AS place, row_number() OVER (PARTITION BY row_key ORDER BY seen_at DESC NULLS LAST, digest DESC) AS turn
  FROM stage_row JOIN repeat_key USING (row_key) WHERE batch = :batch AND fate IS NULL
) AS ranked
WHERE batch = :batch AND ordinal = place AND turn > 1
"""
_MARK_CONFLICTING = """
UPDATE stage_row SET fate = 'conflicting', original_key = stage_row.row_key, row_key = md5(stage_row.row_key::text || digest::text)::uuid
FROM (
  SELECT row_key FROM stage_row JOIN repeat_key USING (row_key) WHERE batch = :batch AND fate IS NULL
  GROUP BY row_key HAVING count(*) > 1
) AS several
WHERE batch = :batch AND stage_row.row_key = several.row_key AND fate IS NULL
"""
_UNKNOWN = """
FROM stage_row AS s LEFT JOIN row_ledger AS l
  ON l.source = {source} AND l.row_key = s.row_key AND l.digest = s.digest AND l.contract = {contract}
  AND l.verdict <> 'withdrawn'
  AND (l.in_force OR l.timed OR l.verdict <> 'accepted' OR NOT EXISTS (
    SELECT FROM stage_file AS f WHERE f.batch = s.batch AND s.chunk BETWEEN f.first_chunk AND f.last_chunk
      AND f.as_of > l.as_of))
WHERE s.batch = {batch} AND l.row_key IS NULL AND (s.fate IS NULL OR s.fate = 'conflicting')
"""
_TO_MAP = f"SELECT s.chunk, count(*) AS rows {_UNKNOWN} GROUP BY s.chunk ORDER BY s.chunk"
_ORDINALS = f"""
SELECT s.ordinal, s.row_key, s.fate IS NOT NULL {_UNKNOWN} AND s.chunk = {{chunk}} ORDER BY s.ordinal
"""
_KNOWN = "SELECT count(*) FROM row_ledger AS l WHERE l.source = :source AND l.verdict <> 'withdrawn'"
# The rows of ledger ``l`` that a snapshot does not list; what stands only in an older one is not listed.
UNLISTED = """l.as_of < :as_of
  AND NOT EXISTS (
    SELECT FROM stage_row AS s WHERE s.batch = :batch AND s.row_key = l.row_key AND s.fate IS DISTINCT FROM 'older')
  AND NOT EXISTS (SELECT FROM stage_row AS s WHERE s.batch = :batch AND s.original_key = l.row_key)
"""
# The rows that hub/merge.py withdraws; a test holds the two together.
_ABSENT = f"{_KNOWN} AND {UNLISTED}"
