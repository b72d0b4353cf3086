"""The Parquet files of one shared table in the landing zone.

A file is named by its content and appears whole or not at all, so that a run that was killed leaves at most files nobody
refers to; they go with the next run. Imports little: it is also part of a process that is started for one question.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from connectors.spooled import seekable
from connectors.zone import Zone

COMPRESSION = "zstd"


@dataclass(frozen=True)
class Written:
    """A file below the folder of an agreement, ``size`` in bytes."""

    path: str
    size: int
    rows: int


@dataclass
class Folder:
    """The files of one table. ``place``: the folder of the agreement in the zone; ``material``: that of the table in it."""

    zone: Zone
    place: str
    material: str

    def write(self, table: pa.Table, kind: str, name: str = "") -> Written:
        """``kind``: rows, keys, changes; ``name``: before the digest in the name of the file."""
        content = io.BytesIO()
        pq.write_table(table, content, compression=COMPRESSION, store_schema=False)
        data = content.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        path = f"{self.material}/{kind}/{name}{digest}.parquet"
        if self.zone.size(f"{self.place}/{path}") != len(data):
            self.zone.write(f"{self.place}/{path}", data)
        return Written(path, len(data), table.num_rows)

    def read(self, path: str, wanted: pa.Schema) -> pa.Table:
        """FileNotFoundError when it is gone."""
        with seekable(lambda: self.zone.open(f"{self.place}/{path}"), path) as stream:
            return pq.read_table(stream).select(wanted.names).cast(wanted)

    def sweep(self, kept: set[str]) -> int:
        """Remove the files of this table that are not ``kept``; how many went."""
        gone = 0
        for kind in ("rows", "keys", "changes"):
            for name in self.zone.names(f"{self.place}/{self.material}/{kind}"):
                if f"{self.material}/{kind}/{name}" not in kept:
                    self.zone.remove_file(f"{self.place}/{self.material}/{kind}/{name}")
                    gone += 1
        return gone
