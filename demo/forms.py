"""The forms that departments' files come in: JSON lines, CSV in several encodings, Parquet; and how each is written."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from demo.columns import Integers, join

Mend = Callable[[pa.StringArray], pa.StringArray]


class Output(Protocol):
    """A file that is being written."""

    def write(self, table: pa.Table, mend: Mend, origins: Integers, rows: Integers) -> None:
        """Append a block: ``mend`` edits its lines, where the form has lines; ``origins`` names the row of the block
        that each row of the file comes from, ``rows`` their numbers."""

    def close(self) -> None: ...


class Form(Protocol):
    @property
    def first_row(self) -> int:
        """The number of the first record."""

    def open(self, path: Path) -> Output: ...


class Lines:
    """Text, one record a line."""

    def __init__(self, file: BinaryIO, lines: Callable[[pa.Table], pa.StringArray], encoding: str, end: str) -> None:
        self._file = file
        self._lines = lines
        self._encoding = encoding
        self._end = end

    def write(self, table: pa.Table, mend: Mend, origins: Integers, rows: Integers) -> None:
        lines = mend(self._lines(table))
        if len(origins) != len(lines):
            lines = lines.take(pa.array(origins))
        block = joined(join(lines, self._end))
        self._file.write(block if self._encoding == "utf-8" else str(block, "utf-8").encode(self._encoding))

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class JsonLines:
    """One object a line. ``a.b`` is a member of a member; values of ``numbers`` stand without quotes, null as ``null``."""

    numbers: tuple[str, ...] = ()
    packed: bool = False
    first_row: int = field(default=1, init=False)

    def open(self, path: Path) -> Lines:
        file: BinaryIO = path.open("wb")
        if self.packed:
            # No name and no time inside: the same records are the same bytes.
            file = _Packed(file)  # type: ignore[assignment]
        return Lines(file, self.lines, "utf-8", "\n")

    def lines(self, table: pa.Table) -> pa.StringArray:
        parts: list[pa.StringArray | str] = []
        before: list[str] = []
        for name, column in zip(table.column_names, table.columns, strict=True):
            path = name.split(".")
            values = column.combine_chunks()
            if name not in self.numbers:
                escaped = pc.replace_substring(pc.replace_substring(values, "\\", "\\\\"), '"', '\\"')
                values = join('"', escaped, '"')
            if column.null_count:
                values = pc.if_else(column.combine_chunks().is_valid(), values, "null")
            parts += [_between(before, path), values]
            before = path
        return join(*parts, "}" * len(before))


def _between(before: list[str], path: list[str]) -> str:
    """What stands between the values of two members: ``"}, {"`` as deep as they differ, and the key."""
    shared = 0
    while shared < min(len(before), len(path)) - 1 and before[shared] == path[shared]:
        shared += 1
    opened = "".join(f'"{name}":{{' for name in path[shared:-1]) + f'"{path[-1]}":'
    return "{" + opened if not before else "}" * (len(before) - 1 - shared) + "," + opened


class _Packed(gzip.GzipFile):
    """Gzip that closes the file below."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(filename="", mode="wb", compresslevel=1, fileobj=file, mtime=0)
        self._below = file

    def close(self) -> None:
        super().close()
        self._below.close()


@dataclass(frozen=True)
class Csv:
    """RFC 4180 in one of the encodings met in practice."""

    columns: tuple[str, ...]
    encoding: str = "utf-8"
    marked: bool = False
    end: str = "\n"
    first_row: int = field(default=2, init=False)

    def open(self, path: Path) -> Lines:
        file = path.open("wb")
        header = ("\ufeff" if self.marked else "") + ",".join(self.columns) + self.end
        file.write(header.encode(self.encoding))
        return Lines(file, self.lines, self.encoding, self.end)

    def lines(self, table: pa.Table) -> pa.StringArray:
        parts: list[pa.StringArray | str] = []
        for column in table.columns:
            values = column.combine_chunks()
            quoted = pc.if_else(pc.match_substring(values, ","), join('"', values, '"'), values)
            parts += [*([","] if parts else []), quoted]
        return join(*parts)


@dataclass(frozen=True)
class Typed:
    """Parquet; dates and times are cast from the ISO form that they have in a block."""

    schema: pa.Schema
    first_row: int = field(default=1, init=False)

    def open(self, path: Path) -> Rows:
        return Rows(pq.ParquetWriter(path, self.schema, compression="snappy"))


class Rows:
    """Parquet that is being written."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer

    def write(self, table: pa.Table, mend: Mend, origins: Integers, rows: Integers) -> None:
        if len(origins):
            self._writer.write_table(table.take(pa.array(origins)).cast(self._writer.schema))

    def close(self) -> None:
        self._writer.close()


def joined(lines: pa.StringArray) -> memoryview:
    """All lines, one after the other, as UTF-8."""
    text = pa.concat_arrays([lines])
    _, offsets, data = text.buffers()
    if data is None or not len(text):
        return memoryview(b"")
    bounds = np.frombuffer(offsets, dtype=np.int32)[text.offset : text.offset + len(text) + 1]
    return memoryview(data)[bounds[0] : bounds[-1]]
