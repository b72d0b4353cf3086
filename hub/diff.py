"""The diff: which rows of a batch the row ledger does not know as they are, and which a snapshot lacks.

A row that the ledger knows under the same key, digest and contract costs a read, a hash and a comparison: keys and digests
go to PostgreSQL in binary, one join compares them, and only what differs comes back.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from connectors.source import Source
from hub import copying, joining, repeats
from hub.joining import Join
from hub.repeats import LONG_AGO, Compared, Delivery
from hub.workspace import Workspace

UNPROVEN = "absence-unproven"  # finding of a snapshot that says nothing of the rows it lacks
STAMP = pa.timestamp("us", "UTC")
NEEDED = pa.schema(
    {
        "ordinal": pa.int64(), "row_key": pa.binary(16), "conflicting": pa.bool_(), "known": pa.bool_(), "chunk": pa.int32(),
        "seen_at": STAMP,
    }
)  # fmt: skip
ENOUGH = 1 << 16  # rows to map that are worth a start of the gate
AGAIN = pa.schema({"row_key": pa.binary(16), "as_of": STAMP})
DIFFERING = pa.schema({"ordinal": pa.int64(), "state": pa.int16()})
NEW, CHANGED, LATER = range(3)  # unknown; another version or contract; as it is known, from a later delivery


@dataclass(frozen=True)
class Diff:
    """Rows by fate."""

    unchanged: int  # repeated and older ones included
    repeated: int
    conflicting: int
    older: int
    chunks: list[int]  # of rows to map


@dataclass(frozen=True)
class Absence:
    """Rows the ledger knows and a snapshot lacks, and all that it knows; nothing of a batch that proves no absence."""

    rows: int
    known: int


def diff(connection: sa.Connection, source: Source, batch: str, contract: str, *, whole: bool = True) -> Diff:
    """Write which rows remain to be mapped, under which ledger key: those of a chunk, or of several that have few, under the
    number of the first.

    Files fetched together count as if fetched one after the other. ``whole``: the latest delivery can be read throughout.
    """
    workspace = Workspace(batch)
    found = repeats.deliveries(workspace)
    snapshot = source.extent == "snapshot"
    fates = repeats.fates(workspace, found, snapshot=snapshot and whole, latest=source.duplicates == "latest")
    workspace.write("fates", 0, fates)
    counts = {code: pc.sum(pc.equal(fates["fate"], code)).as_py() or 0 for code in ("repeated", "older", "conflicting")}
    differing = _differing(connection, source, workspace, found, fates, contract, again=snapshot and not whole)
    total = to_map = 0
    chunks: list[int] = []
    few: list[pa.Table] = []
    for chunk in workspace.chunks("keys"):
        keys = workspace.read("keys", chunk)
        total += keys.num_rows
        needed = _needed(repeats.compared(keys, fates), differing, repeats.as_of(found, chunk), workspace, chunk)
        if needed.num_rows:
            few.append(needed)
            to_map += needed.num_rows
        if sum(map(len, few)) >= ENOUGH:
            chunks.append(_together(workspace, few))
            few = []
    if few:
        chunks.append(_together(workspace, few))
    return Diff(total - to_map, counts["repeated"], counts["conflicting"], counts["older"], chunks)


def absent(connection: sa.Connection, batch: sa.Row) -> Absence:
    """What merging ``batch`` would withdraw; asked of the ledger before the merge, by the condition of the merge
    itself."""
    if not withdraws(batch):
        return Absence(0, 0)
    known = connection.scalar(sa.text(_KNOWN), {"source": batch.source}) or 0
    listed(connection, batch.id)
    found = connection.scalar(sa.text(f"{_KNOWN} AND {UNLISTED}"), {"source": batch.source, "as_of": batch.as_of}) or 0
    connection.execute(sa.text("DROP TABLE listed"))
    return Absence(found, known)


def withdraws(batch: sa.Row) -> bool:
    """Whether what the batch lacks is withdrawn: by a complete snapshot alone. A line that could not be read, or a row
    without its key, may be any row, and one that says no time may be any month's: then absence proves nothing."""
    proven = all(finding["code"] != UNPROVEN for finding in batch.findings)
    return bool(batch.extent == "snapshot" and batch.kind == "run" and proven and batch.as_of)


def knows(connection: sa.Connection, source: str) -> bool:
    """Whether the ledger knows any row of the source."""
    some = sa.text("SELECT EXISTS (SELECT FROM row_ledger WHERE source = :source)")
    return bool(connection.scalar(some, {"source": source}))


def listed(connection: sa.Connection, batch: str) -> None:
    """Make the temporary table ``listed (row_key)``: the keys that a snapshot names, not those of older ones alone."""
    workspace = Workspace(batch)
    fates = workspace.read("fates", 0)
    older = fates.filter(pc.equal(fates["fate"], "older"))["ordinal"].combine_chunks()
    connection.execute(sa.text("CREATE TEMP TABLE listed (row_key uuid) ON COMMIT DROP"))
    with copying.into(connection, "listed", ["row_key"], ["uuid"]) as copy:
        for keys in workspace.each("keys"):
            copy.write(keys.filter(pc.invert(pc.is_in(keys["ordinal"], older))).select(["row_key"]))
        copy.write(fates.filter(pc.equal(fates["fate"], "conflicting")).select(["ledger_key"]))
    connection.execute(sa.text("ANALYZE listed"))


def earlier(batch: str) -> dict[dt.datetime, list[int]]:
    """The whole snapshots in a batch before its latest, the latest first: as_of, and the chunks of their rows. Files of one as_of
    are parts of one; a line of no known time may be any row of any of them."""
    workspace = Workspace(batch)
    found = repeats.deliveries(workspace)
    torn = {one.as_of for one in found if one.unread}
    times = sorted({one.as_of for one in found if one.as_of}, reverse=True)[1:]
    written = workspace.chunks("keys")
    return {
        as_of: [c for c in written if any(one.as_of == as_of and one.first <= c <= one.last for one in found)]
        for as_of in times
        if not torn & {as_of, None}
    }


def listed_in(connection: sa.Connection, batch: str, chunks: list[int]) -> None:
    """Make the table of :func:`listed` anew: the keys in ``chunks`` alone."""
    workspace = Workspace(batch)
    connection.execute(sa.text("TRUNCATE listed"))
    with copying.into(connection, "listed", ["row_key"], ["uuid"]) as copy:
        for chunk in chunks:
            copy.write(workspace.read("keys", chunk, ["row_key"]))
    connection.execute(sa.text("ANALYZE listed"))


def contract_key(contract: str) -> str:
    """The part of a contract's digest that the ledger keeps, as a uuid."""
    half = contract[:32].ljust(32, "0")
    return f"{half[:8]}-{half[8:12]}-{half[12:16]}-{half[16:20]}-{half[20:]}"


def _differing(
    connection: sa.Connection, source: Source, workspace: Workspace, found: list[Delivery], fates: pa.Table, contract: str,
    *, again: bool,
) -> pa.Table | None:  # fmt: skip
    """``ordinal`` (sorted) and ``state`` of the rows that are not simply unchanged; None where the ledger knows no row."""
    if not knows(connection, source.name):
        return None
    connection.execute(
        sa.text(
            "CREATE TEMP TABLE staged (ordinal bigint, row_key uuid, digest uuid, as_of timestamptz) ON COMMIT DROP"
        )
    )
    staged = copying.load(connection, "staged", STAGED, _staged(workspace, found, fates), {})
    connection.execute(sa.text("SET LOCAL work_mem = '256MB'"))
    bind = {"source": source.name, "contract": contract, "again": again, "snapshot": source.extent == "snapshot"}
    with joining.joined(connection, staged) as join:
        differing = copying.out_of(
            connection, _differing_rows(join), DIFFERING, {**bind, "contract": contract_key(contract)}
        ).sort_by("ordinal")
    connection.execute(sa.text("DROP TABLE staged"))
    return differing


def _staged(workspace: Workspace, found: list[Delivery], fates: pa.Table) -> Iterator[pa.Table]:
    for chunk in workspace.chunks("keys"):
        keys = repeats.compared(workspace.read("keys", chunk), fates).keys
        stamp = pa.repeat(pa.scalar(repeats.as_of(found, chunk) or LONG_AGO, STAMP), keys.num_rows)
        yield keys.select(["ordinal", "row_key", "digest"]).append_column("as_of", stamp)


def _together(workspace: Workspace, few: list[pa.Table]) -> int:
    rows = pa.concat_tables(few).sort_by("ordinal")
    first: int = pc.min(rows["chunk"]).as_py()
    workspace.write("needed", first, rows)
    return first


def _needed(
    rows: Compared, differing: pa.Table | None, as_of: dt.datetime | None, workspace: Workspace, chunk: int
) -> pa.Table:
    """The rows to map, with their ledger key; those that a later delivery brought again are kept beside."""
    keys = rows.keys
    state, hit = np.full(keys.num_rows, NEW), np.ones(keys.num_rows, dtype=bool)
    if differing is not None:
        hit = np.zeros(keys.num_rows, dtype=bool)
        if differing.num_rows:
            told, ordinals = differing["ordinal"].to_numpy(), keys["ordinal"].to_numpy()
            places = np.minimum(np.searchsorted(told, ordinals), len(told) - 1)
            hit, state = told[places] == ordinals, differing["state"].to_numpy()[places]
    later = hit & (state == LATER)
    if later.any():
        again = keys.filter(pa.array(later))["row_key"]
        stamp = pa.repeat(pa.scalar(as_of or LONG_AGO, STAMP), len(again))
        workspace.write("again", chunk, pa.table([again, stamp], AGAIN.names))
    mask = hit & ~later
    needed = keys.filter(pa.array(mask))
    known = (state[mask] != NEW) | rows.several[mask]
    columns = [needed["ordinal"], needed["row_key"], pa.array(rows.conflicting[mask]), pa.array(known), needed["chunk"]]
    return pa.table([*columns, needed["seen_at"]], schema=NEEDED)


STAGED = {"ordinal": "int8", "row_key": "uuid", "digest": "uuid", "as_of": "timestamptz"}
# A row is unchanged when its version was read under this contract and stands; of versions of one time the last delivered may not.
# Rows of a snapshot are as new as the snapshot, other rows are when they say themselves when they were updated.
_UNCHANGED = """l.digest = s.digest AND l.contract = {contract}::uuid AND l.verdict <> 'withdrawn'
    AND (l.in_force OR l.timed AND NOT {snapshot} OR l.verdict <> 'accepted' OR s.as_of <= l.as_of)"""
# A snapshot that cannot prove absence still proves presence.


def _differing_rows(join: Join) -> str:
    return f"""
SELECT s.ordinal, (CASE WHEN l.row_key IS NULL THEN {NEW} WHEN {_UNCHANGED} THEN {LATER} ELSE {CHANGED} END)::int2 AS state
FROM staged AS s {join("row_ledger", "l", "l.source = {source} AND l.row_key = s.row_key", left=True)}
WHERE l.row_key IS NULL OR NOT ({_UNCHANGED}) OR (NOT l.timed OR {{again}}) AND l.as_of < s.as_of
"""


_KNOWN = "SELECT count(*) FROM row_ledger AS l WHERE l.source = :source AND l.verdict <> 'withdrawn'"
# The rows of ledger ``l`` that a snapshot does not list and no later one did.
UNLISTED = """l.as_of < :as_of
  AND :as_of > coalesce((SELECT listed_as_of FROM source WHERE name = :source), '-infinity')
  AND NOT EXISTS (SELECT FROM listed AS s WHERE s.row_key = l.row_key)"""
