"""Chunk files: what is read is what was written, or it is made again."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from connectors.errors import RetriableError
from hub.workspace import Workspace

TABLE = pa.table({"ordinal": pa.array([1, 2, 3]), "raw": pa.array(["甲", None, ""])})


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Workspace:
    monkeypatch.setenv("YICI_HOME", str(tmp_path))
    return Workspace("b-1")


def test_a_chunk_comes_back_whole_and_by_column(workspace: Workspace) -> None:
    workspace.write("raw", 7, TABLE)
    workspace.write("raw", 2, TABLE.slice(0, 0))
    assert workspace.read("raw", 7).equals(TABLE)
    assert workspace.read("raw", 7, ["raw"]).equals(TABLE.select(["raw"]))
    assert workspace.chunks("raw") == [2, 7] and workspace.chunks("keys") == []
    assert [table.num_rows for table in workspace.each("raw")] == [0, 3]
    assert workspace.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("place", [0, 40, -1, -5, -60])
def test_a_flipped_byte_is_noticed(workspace: Workspace, place: int) -> None:
    workspace.write("mapped", 0, TABLE)
    path = workspace.path("mapped", 0)
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(RetriableError) as refused:
        workspace.read("mapped", 0)
    assert refused.value.code == "chunk-missing"


@pytest.mark.parametrize("size", [0, 3, 4, 100])
def test_a_cut_file_is_noticed_and_so_is_a_lost_one(workspace: Workspace, size: int) -> None:
    workspace.write("mapped", 0, TABLE)
    path = workspace.path("mapped", 0)
    path.write_bytes(path.read_bytes()[:size])
    for chunk in (0, 1):
        with pytest.raises(RetriableError):
            workspace.read("mapped", chunk)


def test_facts_add_up(workspace: Workspace) -> None:
    with pytest.raises(RetriableError):
        workspace.noted()
    workspace.note(deliveries=[])
    workspace.note(more={"a": 1})
    assert workspace.noted() == {"deliveries": [], "more": {"a": 1}}


def test_nothing_half_written_has_a_name(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    workspace.write("raw", 0, TABLE)
    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="space"):
        workspace.write("raw", 1, TABLE)
    assert [path.name for path in workspace.folder.iterdir()] == ["raw-000000.arrow"]
