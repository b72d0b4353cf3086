"""Files of the departments, written block by block, each with its share of dirt; and Parquet for the truth beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from demo.columns import Integers
from demo.dirt import Kind, Spoiler
from demo.forms import Form, Output
from demo.truth import DIRT


@dataclass(frozen=True)
class Written:
    """Where the rows of a block went: arrays as long as the block had rows."""

    file: str
    row: Integers  # the (first) row number, as a spreadsheet counts
    kind: pa.StringArray  # kind of dirt, null for a clean row
    verdict: pa.StringArray
    held: pa.BooleanArray  # whether the row can be accepted
    table: pa.Table  # values as written


class DirtyFile:
    """One file, or one after the other, with its share of dirt; every dirty row is noted in ``notes``.

    ``name`` holds ``{}`` where the number of the part stands; ``limit``: rows of a part. A block is never divided.
    """

    def __init__(
        self, folder: Path, name: str, form: Form, spoiler: Spoiler, notes: Parquet, limit: int | None = None
    ) -> None:
        self.form = form
        self.spoiler = spoiler
        self.notes = notes
        self.limit = limit
        self._folder = folder
        self._name = name
        self._part = 0
        self._open()

    def _open(self) -> None:
        self._part += 1
        self.name = self._name.format(f"{self._part:04d}")
        self.row = self.form.first_row
        path = self._folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._output: Output = self.form.open(path)

    def write(self, table: pa.Table, rng: np.random.Generator) -> Written:
        """Spoil and append a block of string columns."""
        before = self.row - self.form.first_row
        if self.limit is not None and before and before + table.num_rows > self.limit:
            self._output.close()
            self._open()
        plan = self.spoiler.plan(table, rng)
        edited = self.spoiler.table(table, plan, rng)
        origins = self.spoiler.origins(plan)
        rows = self.row + np.arange(len(origins), dtype=np.int64)
        self._output.write(edited, lambda lines: self.spoiler.lines(lines, plan, rng), origins, rows)
        self.row += len(origins)
        first = rows[np.searchsorted(origins, np.arange(table.num_rows))]
        self._note(rows, plan[origins], np.diff(origins, prepend=-1) == 0)
        kinds = _texts([kind.name for kind in self.spoiler.kinds], plan)
        verdicts = _texts([kind.verdict for kind in self.spoiler.kinds], plan)
        held = pc.invert(pc.is_in(verdicts, value_set=pa.array(["quarantined", "rejected"])))
        return Written(self.name, first, kinds, verdicts, held, edited)

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
        self._output.close()

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
