"""Files of the departments: JSON lines and CSV in the encodings they come in, and the truth beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from demo.columns import Integers, join
from demo.dirt import Kind, Spoiler
from demo.truth import DIRT


@dataclass(frozen=True)
class Written:
    """Where the rows of a block went: arrays as long as the block had rows."""

    row: Integers  # the (first) row number, as a spreadsheet counts
    kind: pa.StringArray  # kind of dirt, null for a clean row
    verdict: pa.StringArray
    held: pa.BooleanArray  # whether the row can be accepted
    table: pa.Table  # values as written


class Form:
    """How a table becomes lines; ``first_row`` is the number of the first record."""

    first_row = 1
    encoding = "utf-8"
    mark = b""

    def header(self) -> str:
        return ""

    def lines(self, table: pa.Table) -> pa.StringArray:
        raise NotImplementedError


class JsonLines(Form):
    """One object a line, every value a string."""

    def lines(self, table: pa.Table) -> pa.StringArray:
        parts: list[pa.StringArray | str] = []
        for name, column in zip(table.column_names, table.columns, strict=True):
            escaped = pc.replace_substring(column.combine_chunks(), "\\", "\\\\")
            parts += [('{"' if not parts else '","') + name + '":"', pc.replace_substring(escaped, '"', '\\"')]
        return join(*parts, '"}')


@dataclass(frozen=True)
class Csv(Form):
    """RFC 4180 in one of the encodings met in practice; line ends are given to :class:`DirtyFile`."""

    columns: tuple[str, ...] = ()
    encoding: str = "utf-8"
    marked: bool = False
    first_row: int = field(default=2, init=False)

    @property
    def mark(self) -> bytes:  # type: ignore[override]
        return "\ufeff".encode(self.encoding) if self.marked else b""

    def header(self) -> str:
        return ",".join(self.columns)

    def lines(self, table: pa.Table) -> pa.StringArray:
        parts: list[pa.StringArray | str] = []
        for column in table.columns:
            values = column.combine_chunks()
            quoted = pc.if_else(pc.match_substring(values, ","), join('"', values, '"'), values)
            parts += [*([","] if parts else []), quoted]
        return join(*parts)


class DirtyFile:
    """One file, written block by block, with its share of dirt; every dirty row is noted in ``notes``."""

    def __init__(self, folder: Path, name: str, form: Form, spoiler: Spoiler, notes: Parquet, end: str = "\n") -> None:
        self.name = name
        self.form = form
        self.spoiler = spoiler
        self.notes = notes
        self.end = end
        self.row = form.first_row
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("wb")
        self._file.write(form.mark)
        if form.header():
            self._file.write((form.header() + end).encode(form.encoding))

    def write(self, table: pa.Table, rng: np.random.Generator) -> Written:
        """Spoil and append a block of string columns."""
        plan = self.spoiler.plan(table, rng)
        edited = self.spoiler.table(table, plan, rng)
        lines, origins = self.spoiler.lines(self.form.lines(edited), plan, rng)
        self._append(join(lines, self.end))
        rows = self.row + np.arange(len(origins), dtype=np.int64)
        self.row += len(origins)
        first = rows[np.searchsorted(origins, np.arange(table.num_rows))]
        self._note(rows, plan[origins], np.diff(origins, prepend=-1) == 0)
        kinds = _texts([kind.name for kind in self.spoiler.kinds], plan)
        verdicts = _texts([kind.verdict for kind in self.spoiler.kinds], plan)
        held = pc.invert(pc.is_in(verdicts, value_set=pa.array(["quarantined", "rejected"])))
        return Written(first, kinds, verdicts, held, edited)

    def _append(self, lines: pa.StringArray) -> None:
        text = pa.concat_arrays([lines])
        _, offsets, data = text.buffers()
        if data is None or not len(text):
            return
        bounds = np.frombuffer(offsets, dtype=np.int32)[text.offset : text.offset + len(text) + 1]
        block = memoryview(data)[bounds[0] : bounds[-1]]
        same = self.form.encoding == "utf-8"
        self._file.write(block if same else str(block, "utf-8").encode(self.form.encoding))

    def _note(self, rows: Integers, plan: Integers, again: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
        kinds: Sequence[Kind] = self.spoiler.kinds
        # Of a repeated row, only the second line is noted: the first is like any other.
        repeats = np.array([kind.verdict == "repeated" for kind in kinds])
        dirty = (plan >= 0) & (~repeats[plan] | again)
        found = pa.array(plan[dirty])
        columns = [
            pa.array([self.name] * int(dirty.sum()), pa.string()),
            pa.array(rows[dirty]),
            pa.array([kind.name for kind in kinds]).take(found),
            pa.array([kind.column for kind in kinds], pa.string()).take(found),
            pa.array([kind.verdict for kind in kinds]).take(found),
        ]
        self.notes.write(pa.Table.from_arrays(columns, schema=DIRT))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Parquet:
    """One table of the truth, written block by block; there even when it has no rows."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        if table.num_rows:
            self._writer.write_table(table)

    def columns(self, **columns: Any) -> None:
        """Write columns by name, in the order and with the types of the schema."""
        arrays = [
            pa.array(columns[f.name], f.type)
            if not isinstance(columns[f.name], pa.Array | pa.ChunkedArray)
            else columns[f.name].cast(f.type)
            for f in self.schema
        ]
        self.write(pa.Table.from_arrays(arrays, schema=self.schema))

    def close(self) -> None:
        self._writer.close()


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _texts(texts: Sequence[str], plan: Integers) -> pa.StringArray:
    """``texts[plan]``, null where the plan is -1."""
    return pa.array([*texts, None], pa.string()).take(pa.array(np.where(plan < 0, len(texts), plan)))
