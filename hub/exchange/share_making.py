"""One version of a shared table in the making: what differs from the version before, part by part.

Rows lie in parts by the first bits of their holding's key. Read are the holdings that the feed names since the last version,
or all; what is read is compared with what the last version says of the same keys, and a part is written anew where something
differs, with a pair of images for each row that does. Memory holds one part, old and new, and the changes of one file.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from hub import copying, partitions
from hub.exchange import share_parts, share_rows
from hub.exchange.share_folder import Folder, Written
from hub.exchange.share_parts import Changes
from hub.exchange.share_rows import CHANGED, KEY, Range, Rows
from hub.exchange.shares import Shared
from hub.schema_exchange import share_file

PART_ROWS = 1 << 15  # of a part, on average at most twice as many
MOST_BITS = 16
_file = share_file


class Progress(Protocol):
    """Told of each part as it begins: ``done`` of ``total``."""

    def __call__(self, material: str, done: int, total: int) -> None: ...


def quiet(material: str, done: int, total: int) -> None:
    """No progress shown."""


@dataclass
class Run:
    """One version in the making; ``last``: the one before under the same scope, None where it is made from nothing."""

    connection: sa.Connection
    shared: Shared
    folder: Folder
    last: sa.Row[Any] | None
    old: dict[int, sa.Row[Any]]  # its files by the first bits of their keys
    bits: int
    changes: Changes
    changed: int = 0
    rows: int = 0
    written: dict[int, tuple[Written, Written]] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    _known: tuple[int, Rows] | None = None

    def before(self, number: int) -> Rows:
        """What the last version says of the keys that begin with ``number``."""
        if self.last is None:
            return share_rows.none(self.shared)
        coarser = self.bits - self.last.bits
        if self._known is None or self._known[0] != number >> coarser:
            row = self.old.get(number >> coarser)
            whole = share_rows.none(self.shared) if row is None else self._read(row)
            self._known = number >> coarser, whole
        rows = self._known[1]
        if not coarser:
            return rows
        numbers = share_parts.leading(rows.keys, self.bits)
        first, last = np.searchsorted(numbers, number), np.searchsorted(numbers, number, "right")
        return Rows(rows.keys.slice(first, last - first), rows.table.slice(first, last - first))

    def _read(self, row: sa.Row[Any]) -> Rows:
        return share_parts.stored(self.folder, row.path, row.key_path, share_rows.schema(self.shared))

    def settle(self, number: int, old: Rows, new: Rows) -> None:
        """Keep the part ``number`` as it is, or write it anew with what changed."""
        difference = None
        if self.last is not None:
            difference = share_parts.between(old, new)
            self.changed += difference.num_rows
            self.changes.add(difference)
        else:
            self.changed += len(new)
        self.rows += len(new) - len(old)
        kept = self.last is not None and self.bits == self.last.bits
        if kept and difference is not None and not difference.num_rows:
            return
        if kept and number in self.old:
            self.gone.append(self.old[number].path)
        if len(new):
            keys = self.folder.write(pa.table({"key": new.keys}), "keys")
            self.written[number] = self.folder.write(new.table, "rows", f"{number:05d}-"), keys


def make(
    connection: sa.Connection, agreement: uuid.UUID, shared: Shared, folder: Folder, last: sa.Row[Any] | None, position: int,
    progress: Progress, *, anew: bool,
) -> Run:  # fmt: skip
    """What differs at ``position`` of the feed from ``last``, written. ``anew``: read all holdings."""
    touched = (
        None if anew or last is None or not _follows(connection, last) else _touched(connection, shared, last, position)
    )
    if touched is not None and last is not None and 4 * len(touched) > max(last.rows, 4 * PART_ROWS):
        touched = None  # reading everything costs less
    if last is not None and touched is not None:
        bits = _bits(last.rows + len(touched), last.bits)
    else:
        bits = _bits(_count(connection, shared), last.bits if last is not None else None)
    known = {} if last is None else _files(connection, agreement, shared)
    run = Run(connection, shared, folder, last, known, bits, Changes(folder), rows=0 if last is None else last.rows)
    if touched is None or (last is not None and bits != last.bits):
        _all(run, touched, progress)
    else:
        _some(run, touched, progress)
    run.changes.flush()
    return run


def _all(run: Run, touched: pa.Array | None, progress: Progress) -> None:
    """Every part; where ``touched`` is known only those keys are read from the store."""
    total = 1 << run.bits
    for number in range(total):
        progress(run.shared.name, number, total)
        old, within = run.before(number), Range(run.bits, number, number)
        fresh = share_rows.read(run.connection, run.shared, within, changed=touched is not None)
        run.settle(
            number, old, fresh if touched is None else share_parts.overlaid(old, _within(touched, within), fresh)
        )


def _some(run: Run, touched: pa.Array, progress: Progress) -> None:
    """The parts in which a key was touched, several read at once where few were touched in each."""
    numbers, counts = np.unique(share_parts.leading(touched, run.bits), return_counts=True)
    done = 0
    while done < len(numbers):
        progress(run.shared.name, done, len(numbers))
        more = int(np.searchsorted(np.cumsum(counts[done:]), 2 * PART_ROWS, "right"))
        group = numbers[done : done + max(more, 1)]
        within = Range(run.bits, int(group[0]), int(group[-1]))
        fresh = dict(share_parts.split(share_rows.read(run.connection, run.shared, within, changed=True), run.bits))
        for number in map(int, group):
            old, own = run.before(number), _within(touched, Range(run.bits, number, number))
            run.settle(number, old, share_parts.overlaid(old, own, fresh.get(number) or share_rows.none(run.shared)))
        done += len(group)


def _within(touched: pa.Array, within: Range) -> pa.Array:
    packed = share_parts.packed(touched)
    first, last = (
        np.searchsorted(packed, np.bytes_(within.low)),
        np.searchsorted(packed, np.bytes_(within.high), "right"),
    )
    return touched.slice(first, last - first)


def _touched(connection: sa.Connection, shared: Shared, last: sa.Row[Any], position: int) -> pa.Array:
    """Holdings of the material that the feed names since ``last``, also left in the temporary table; rising."""
    bind = {"material": shared.name, "after": last.position, "until": position}
    connection.execute(sa.text(f"CREATE TEMP TABLE {CHANGED} (holding bytea PRIMARY KEY) ON COMMIT DROP"))
    connection.execute(sa.text(_TOUCHED), bind)
    connection.execute(sa.text(f"ANALYZE {CHANGED}"))
    query = f"SELECT holding AS key FROM {CHANGED} ORDER BY holding"
    found = copying.out_of(connection, query, pa.schema([("key", KEY)]), {})["key"]
    return pa.concat_arrays(found.chunks) if found.num_chunks else pa.array([], KEY)


def _bits(rows: int, before: int | None) -> int:
    """Enough for parts of about :data:`PART_ROWS`; those of the last version while they are not more than twice as large."""
    wanted = min(MOST_BITS, max(0, (max(rows, 1) - 1) // PART_ROWS).bit_length())
    return wanted if before is None else before if rows <= 2 * PART_ROWS << before else max(wanted, before)


def _count(connection: sa.Connection, shared: Shared) -> int:
    query = sa.text("SELECT count(*) FROM holding WHERE material = :material")
    return int(connection.scalar(query, {"material": shared.name}) or 0)


def _files(connection: sa.Connection, agreement: uuid.UUID, shared: Shared) -> dict[int, sa.Row[Any]]:
    """The files of the latest version, by the first bits of their keys."""
    query = sa.select(_file).where(_file.c.agreement == agreement, _file.c.material == shared.name)
    return {
        row.bucket: row for row in connection.execute(query.where(_file.c.kind == "rows", _file.c.to_version.is_(None)))
    }


def _follows(connection: sa.Connection, last: sa.Row[Any]) -> bool:
    """Whether the feed still says all that happened since ``last``: of a month that was dropped what was withdrawn is gone."""
    dropped = partitions.since(connection, "feed")
    if dropped is not None and last.made_at.astimezone(dt.UTC).date() < dropped:
        return False
    if last.position == 0:
        return connection.scalar(sa.text("SELECT min(position) FROM feed")) in (None, 1)
    found = connection.scalar(sa.text("SELECT EXISTS (SELECT FROM feed WHERE position = :at)"), {"at": last.position})
    return bool(found)


_TOUCHED = f"""
INSERT INTO {CHANGED} SELECT DISTINCT holding FROM feed
WHERE position > :after AND position <= :until AND material = :material
"""
