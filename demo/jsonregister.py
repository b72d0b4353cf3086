"""A register of a demo department: one JSON-lines file of ``yici synth``, its records in the order of their last update."""

from __future__ import annotations

import datetime as dt
import hashlib
import mmap
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from connectors.errors import FatalError

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
Mark = tuple[int, str | None, int]
"""Microseconds and identifier of the last record read, and how many of that very kind: true after the file changes too."""


class Register:
    """Sorted by (``moment``, ``identifier``) whatever the order of the file, read again when the file changes.

    Both are keys of a record; a dotted one lies inside an object of it. ``state``: SHA-256 of the file.
    """

    def __init__(self, path: Path, moment: str, identifier: str) -> None:
        self.path, self._keys = path, (moment, identifier)
        self._about: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Raises FatalError when the file is missing or cannot be read."""
        try:
            about = self.path.stat()
        except OSError as error:
            raise FatalError("demo-data-missing", file=self.path) from error
        with self._lock:
            if self._about != (about.st_mtime_ns, about.st_size):
                self._load()
                self._about = (about.st_mtime_ns, about.st_size)

    def _load(self) -> None:
        with self.path.open("rb") as file:
            self._bytes: mmap.mmap | bytes = (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self.path.stat().st_size else b""
            )
        ends = np.flatnonzero(np.frombuffer(self._bytes, dtype=np.uint8) == ord("\n"))
        keys = pa.schema([_field(key) for key in self._keys])
        parsing = pj.ParseOptions(explicit_schema=keys, unexpected_field_behavior="ignore")
        try:
            table = pj.read_json(self.path, parse_options=parsing) if len(ends) else keys.empty_table()
            moments, identifiers = (_column(table, key) for key in self._keys)
            moments = pc.cast(moments, pa.timestamp("us", tz="UTC"))
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            raise FatalError("demo-data-unreadable", file=self.path) from None  # the cause may quote a record
        if len(table) != len(ends) or moments.null_count:
            raise FatalError("demo-data-unreadable", file=self.path)
        order = pc.sort_indices(
            pa.table({"moment": moments, "id": identifiers}),
            sort_keys=[("moment", "ascending"), ("id", "ascending")],
        )
        self._order = order.to_numpy()
        self._moments = moments.take(order).cast(pa.int64()).to_numpy()
        self._identifiers = pa.concat_arrays([pa.array([], pa.string()), *identifiers.take(order).chunks])
        self._ends = ends
        self._starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64) if len(ends) else ends
        self.state = hashlib.sha256(self._bytes).hexdigest()

    def __len__(self) -> int:
        return len(self._order)

    def first(self, since: dt.datetime | None) -> int:
        """The place of the first record updated at ``since`` or later."""
        return 0 if since is None else int(np.searchsorted(self._moments, _micros(since), side="left"))

    def end(self, until: dt.datetime | None) -> int:
        """The place behind the last record updated at ``until`` or earlier."""
        return len(self) if until is None else int(np.searchsorted(self._moments, _micros(until), side="right"))

    def mark(self, place: int) -> Mark | None:
        """Names all that stands before ``place``; None where nothing does."""
        if not place:
            return None
        micros, identifier = int(self._moments[place - 1]), self._identifiers[place - 1].as_py()
        return micros, identifier, place - self._span(micros, identifier)[0]

    def behind(self, mark: Mark | None) -> int:
        """The place behind all that ``mark`` names."""
        if mark is None:
            return 0
        micros, identifier, count = mark
        begin, end = self._span(micros, identifier)
        return min(begin + count, end)

    def _span(self, micros: int, identifier: str | None) -> tuple[int, int]:
        """The places of the records with this moment and identifier; without one a record stands last."""
        left = int(np.searchsorted(self._moments, micros, side="left"))
        right = int(np.searchsorted(self._moments, micros, side="right"))
        there = self._identifiers.slice(left, right - left)
        if identifier is None:
            return right - there.null_count, right
        smaller, not_greater = pc.less(there, identifier), pc.less_equal(there, identifier)
        return left + (pc.sum(smaller).as_py() or 0), left + (pc.sum(not_greater).as_py() or 0)

    def records(self, begin: int, end: int) -> bytes:
        """The records in those places as they stand in the file, with commas in between."""
        rows = self._order[begin:end] if begin < end else self._order[:0]
        return b",".join(self._bytes[self._starts[row] : self._ends[row]] for row in rows)


def _field(key: str) -> pa.Field:
    name, _, inside = key.partition(".")
    return pa.field(name, pa.struct([_field(inside)]) if inside else pa.string())


def _column(table: pa.Table, key: str) -> pa.ChunkedArray:
    name, *inside = key.split(".")
    return pc.struct_field(table[name], inside) if inside else table[name]


def _micros(moment: dt.datetime) -> int:
    return (moment - EPOCH) // dt.timedelta(microseconds=1)
