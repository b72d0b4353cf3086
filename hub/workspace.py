"""Chunk files of open batches under ``YICI_HOME/work``: what one stage leaves for the next.

They hold personal data (mode 0700 folder) and can all be made again from the landing zone, so a lost or half-written
one only costs time: a file appears under its name when it is complete, and ends with a checksum of its bytes.

``raw`` and ``malformed`` rows and lines as they were read; ``keys`` of all of them; ``fates`` of repeated ones; ``needed``
rows of a chunk, those that are to be mapped; ``again`` known rows that a later delivery brought; ``mapped`` outcomes; ``fresh``
holdings that only this batch knows.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pyarrow import ipc

from connectors.errors import RetriableError
from hub import home

Kind = Literal["raw", "malformed", "keys", "fates", "needed", "again", "mapped", "fresh"]
CHECKSUM = 4  # bytes of CRC-32 at the end of a file
_WRITING = ipc.IpcWriteOptions(compression=pa.Codec("lz4"), use_threads=False)


class Workspace:
    """The chunk files of one batch."""

    def __init__(self, batch: str) -> None:
        self.batch = batch
        self.folder = home.current().work / batch

    def write(self, kind: Kind, chunk: int, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        with ipc.new_file(sink, table.schema, options=_WRITING) as writer:
            writer.write_table(table)
        content = sink.getvalue()
        self._publish(self.path(kind, chunk), content, zlib.crc32(content).to_bytes(CHECKSUM, "big"))

    def read(self, kind: Kind, chunk: int, columns: list[str] | None = None) -> pa.Table:
        """RetriableError ``chunk-missing`` when the chunk is gone or is not what was written: it has to be made again. What it
        has none of ``columns`` is left out: it may be of an earlier version."""
        try:
            return _read(self.path(kind, chunk), columns)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise RetriableError("chunk-missing", batch=self.batch, chunk=chunk) from error

    def each(self, kind: Kind, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Tables of one kind in order of chunks, one in memory at a time."""
        for chunk in self.chunks(kind):
            yield self.read(kind, chunk, columns)

    def chunks(self, kind: Kind) -> list[int]:
        """The numbers of the chunks of one kind that are there."""
        return sorted(int(path.stem.rpartition("-")[2]) for path in self.folder.glob(f"{kind}-*.arrow"))

    def size(self, kind: Kind) -> int:
        """Bytes of all chunks of one kind."""
        return sum(self.path(kind, chunk).stat().st_size for chunk in self.chunks(kind))

    def has(self, kind: Kind, chunk: int) -> bool:
        return self.path(kind, chunk).exists()

    def path(self, kind: Kind, chunk: int) -> Path:
        return self.folder / f"{kind}-{chunk:06d}.arrow"

    def note(self, **facts: Any) -> None:
        """Keep small facts about the batch (JSON) for the stages after; those known already stay."""
        content = json.dumps({**(self.noted() if self._facts.exists() else {}), **facts}).encode()
        self._publish(self._facts, content, b"")

    def noted(self) -> dict[str, Any]:
        """RetriableError ``chunk-missing`` when nothing was noted or it is not what was written."""
        try:
            return dict(json.loads(self._facts.read_bytes()))
        except (OSError, ValueError) as error:
            raise RetriableError("chunk-missing", batch=self.batch, chunk=0) from error

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _facts(self) -> Path:
        return self.folder / "batch.json"

    def _publish(self, path: Path, *parts: bytes | pa.Buffer) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with draft.open("wb") as file:
                for part in parts:
                    file.write(part)
            draft.rename(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise


def _read(path: Path, columns: list[str] | None) -> pa.Table:
    with pa.memory_map(str(path)) as file:
        content = file.read_buffer()
    body, checksum = content.slice(0, content.size - CHECKSUM), content.slice(content.size - CHECKSUM)
    if zlib.crc32(body) != int.from_bytes(checksum.to_pybytes(), "big"):
        raise ValueError("checksum")
    whole = ipc.open_file(body)
    options = None
    if columns is not None:
        places = [whole.schema.get_field_index(name) for name in columns]
        options = ipc.IpcReadOptions(included_fields=[place for place in places if place >= 0], use_threads=False)
    return ipc.open_file(body, options=options).read_all()
