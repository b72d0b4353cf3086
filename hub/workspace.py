"""Chunk files of open batches under ``YICI_HOME/work``: what one stage leaves for the next.

They hold personal data (mode 0700 folder) and can all be made again from the landing zone, so a lost or half-written
one only costs time: a file appears under its name when it is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.errors import RetriableError
from hub import home

Kind = Literal["raw", "mapped", "malformed"]


class Workspace:
    """The chunk files of one batch."""

    def __init__(self, batch: str) -> None:
        self.batch = batch
        self.folder = home.current().work / batch

    def write(self, kind: Kind, chunk: int, table: pa.Table) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self.folder / f".{kind}-{chunk:06d}.{os.getpid()}"
        pq.write_table(table, draft, compression="zstd")
        draft.rename(self.path(kind, chunk))

    def read(self, kind: Kind, chunk: int, columns: list[str] | None = None) -> pa.Table:
        """RetriableError when the chunk is gone: the batch has to be fetched again."""
        try:
            return pq.read_table(self.path(kind, chunk), columns=columns, partitioning=None)
        except FileNotFoundError as error:
            raise RetriableError("chunk-missing", batch=self.batch, chunk=chunk) from error

    def each(self, kind: Kind, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Tables of one kind in order of chunks, one in memory at a time."""
        for path in sorted(self.folder.glob(f"{kind}-*.parquet")):
            yield pq.read_table(path, columns=columns, partitioning=None)

    def path(self, kind: Kind, chunk: int) -> Path:
        return self.folder / f"{kind}-{chunk:06d}.parquet"

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
