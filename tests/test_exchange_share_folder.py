"""hub/exchange/share_folder.py: files named by what is in them, private, with nothing beside the columns."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.zone import Zone
from hub.exchange.share_folder import Folder

TABLE = pa.table({"name": ["a", None], "count": [1, 2]})


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(Zone(tmp_path), "shares/a", "t")


def test_files_are_named_by_their_content_and_private(folder: Folder, tmp_path: Path) -> None:
    written = folder.write(TABLE, "rows", "00000-")
    path = tmp_path / "shares/a" / written.path
    data = path.read_bytes()
    assert written.path == f"t/rows/00000-{hashlib.sha256(data).hexdigest()}.parquet"
    assert (written.size, written.rows, path.stat().st_mode & 0o777) == (len(data), 2, 0o600)
    assert all(parent.stat().st_mode & 0o077 == 0 for parent in list(path.parents)[:4])
    assert pq.read_schema(path).metadata is None and pq.read_schema(path).names == ["name", "count"]
    assert folder.read(written.path, TABLE.schema).equals(TABLE)
    assert folder.read(written.path, pa.schema([("count", pa.int32())])).schema.types == [pa.int32()]
    with pytest.raises(FileNotFoundError):
        folder.read("t/rows/other.parquet", TABLE.schema)


def test_the_same_content_is_written_once(folder: Folder, tmp_path: Path) -> None:
    written = folder.write(TABLE, "rows")
    path = tmp_path / "shares/a" / written.path
    os.utime(path, (1, 1))
    assert folder.write(TABLE, "rows") == written and path.stat().st_mtime == 1
    path.write_bytes(b"cut short by something else")
    assert folder.write(TABLE, "rows") == written and folder.read(written.path, TABLE.schema).equals(TABLE)


def test_what_nobody_refers_to_goes(folder: Folder, tmp_path: Path) -> None:
    kept, gone, other = folder.write(TABLE, "rows"), folder.write(TABLE, "changes"), folder.write(TABLE, "keys")
    Folder(folder.zone, folder.place, "u").write(TABLE, "rows")
    assert folder.sweep({kept.path, other.path}) == 1 and folder.sweep({kept.path, other.path}) == 0
    left = sorted(str(path.relative_to(tmp_path / "shares/a")) for path in tmp_path.rglob("*.parquet"))
    assert left == sorted([kept.path, other.path, kept.path.replace("t/", "u/")]) and gone.path not in left
