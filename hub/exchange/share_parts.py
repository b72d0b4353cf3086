"""Parts of a shared table: the rows of some holding keys, and what changed between two states of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hub.exchange.share_folder import Folder, Written
from hub.exchange.share_rows import KEY, Rows
from mappings import cleaning

CHANGE_TYPE = "_change_type"
CHANGES_ROWS = 1 << 18  # of a file of changes


def stored(folder: Folder, path: str, key_path: str, wanted: pa.Schema) -> Rows:
    """The part in two files, its rows as ``wanted``."""
    keys = folder.read(key_path, pa.schema([("key", KEY)]))["key"]
    return Rows(cleaning.whole(keys), folder.read(path, wanted))


@dataclass
class Changes:
    """Changes of one version as they are found, written once there are enough of them for a file."""

    folder: Folder
    files: list[Written] = field(default_factory=list)
    _waiting: list[pa.Table] = field(default_factory=list)
    _rows: int = 0

    def add(self, found: pa.Table) -> None:
        if found.num_rows:
            self._waiting.append(found)
            self._rows += found.num_rows
        if self._rows >= CHANGES_ROWS:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            self.files.append(self.folder.write(pa.concat_tables(self._waiting), "changes", f"{len(self.files):05d}-"))
            self._waiting, self._rows = [], 0


def between(old: Rows, new: Rows) -> pa.Table:
    """What makes ``new`` of ``old``: rows with ``_change_type`` at the end, a pair of images for each that changed."""
    found = cleaning.whole(pc.index_in(new.keys, value_set=old.keys))
    gone = old.table.filter(pc.invert(pc.is_in(old.keys, value_set=new.keys)))
    known = pc.is_valid(found)
    after, before = new.table.filter(known), old.table.take(found.filter(known))
    changed = _distinct(before, after)
    return pa.concat_tables(
        [
            _marked(gone, "delete"),
            _marked(new.table.filter(pc.invert(known)), "insert"),
            _marked(before.filter(changed), "update_preimage"),
            _marked(after.filter(changed), "update_postimage"),
        ]
    )


def overlaid(old: Rows, touched: pa.Array, fresh: Rows) -> Rows:
    """``old`` with what is said of the keys ``touched`` replaced by ``fresh``, the rows of those that are there now."""
    kept = pc.invert(pc.is_in(old.keys, value_set=touched))
    keys = pa.concat_arrays([old.keys.filter(kept), fresh.keys])
    order = pa.array(np.argsort(packed(keys), kind="stable"))
    return Rows(keys.take(order), pa.concat_tables([old.table.filter(kept), fresh.table]).take(order))


def split(rows: Rows, bits: int) -> Iterator[tuple[int, Rows]]:
    """The rows by the first ``bits`` of their keys, those that have some."""
    numbers = leading(rows.keys, bits)
    for number in np.unique(numbers):
        first, last = np.searchsorted(numbers, number), np.searchsorted(numbers, number, "right")
        yield int(number), Rows(rows.keys.slice(first, last - first), rows.table.slice(first, last - first))


def leading(keys: pa.Array, bits: int) -> np.ndarray:
    """The first ``bits`` (at most 32) of each key as a number (n,)."""
    first = packed(keys).view(np.uint8).reshape(-1, KEY.byte_width)[:, :4]
    return np.ascontiguousarray(first).view(">u4")[:, 0].astype(np.int64) >> 32 - bits


def packed(keys: pa.Array) -> np.ndarray:
    """Keys (n,) as bytes that compare as PostgreSQL compares them."""
    return np.frombuffer(keys.buffers()[1], "S16", len(keys), keys.offset * KEY.byte_width)


def _marked(table: pa.Table, kind: str) -> pa.Table:
    return table.append_column(CHANGE_TYPE, pa.repeat(pa.scalar(kind, pa.string()), table.num_rows))


def _distinct(one: pa.Table, other: pa.Table) -> pa.Array:
    """Rows (n,) in which any column differs; two nulls do not."""
    found = pa.array(np.zeros(one.num_rows, bool))
    for before, after in zip(one.columns, other.columns, strict=True):
        found = pc.or_(found, _differ(cleaning.whole(before), cleaning.whole(after)))
    return found


def _differ(one: pa.Array, other: pa.Array) -> pa.Array:
    both = pc.and_(one.is_valid(), other.is_valid())
    if pa.types.is_struct(one.type):
        places = range(one.type.num_fields)
        inner = [_differ(pc.struct_field(one, place), pc.struct_field(other, place)) for place in places]
        unequal = inner[0]
        for more in inner[1:]:
            unequal = pc.or_(unequal, more)
    else:
        unequal = pc.fill_null(pc.not_equal(one, other), False)
    return pc.or_(pc.xor(one.is_valid(), other.is_valid()), pc.and_(both, unequal))
