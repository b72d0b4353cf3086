"""hub/contracts.py: every fault that a folder can have is found, named by file and line, and never by value."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors import source as sources
from connectors.errors import FatalError, UsageError
from hub import contracts

NAME = "zj-amr-enterprises"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copied = tmp_path / "sources" / NAME
    shutil.copytree(sources.PACKAGED / NAME, copied)
    return copied


def failed(folder: Path) -> dict[str, str]:
    return {finding.check: finding.detail for finding in contracts.check(folder) if not finding.ok}


def edited(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def test_a_good_folder_passes(folder: Path) -> None:
    assert failed(folder) == {}
    assert [finding.check for finding in contracts.check(folder)] == list(contracts.CHECKS)


FAULTS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "open point": (lambda f: edited(f / "source.yml", "浙江省企业登记信息", "TODO"), "description", "source.yml:4"),
    "unreadable": (lambda f: edited(f / "source.yml", "extent: partial", "extent: some"), "description", "extent"),
    "no columns": (lambda f: edited(f / "source.yml", "  columns: [企业名称", "  columns: []  # [企业名称"), "columns", "options.columns"),
    "left over": (lambda f: edited(f / "source.yml", ", 地区]", ", 地区, 电话]"), "columns", "电话"),
    "unknown check": (lambda f: edited(f / "checks.yml", "attributes.locality", "attributes.town"), "checks", "attributes.town"),
    "no checks": (lambda f: (f / "checks.yml").unlink(), "checks", "checks.yml"),
    "secret": (lambda f: edited(f / "source.yml", "options:", "# password: hunter2\noptions:"), "secrets", "source.yml:"),
    "address": (lambda f: edited(f / "mapping.csv", "told apart by form", "ftp://me:hunter2@host/"), "secrets", "mapping.csv:2"),
    "other outcome": (lambda f: edited(f / "mapping.csv", "注册日期,date,the file", "企业名称,date,the file"), "sample", "2 ("),
    "lost row": (lambda f: edited(f / "sample/input.csv", "浙江示例甲", "浙江示例乙"), "sample", "holder.holder.name"),
    "nothing expected": (lambda f: (f / "sample/expected.csv").unlink(), "sample", "yici sources expect"),
    "no sample": (lambda f: (f / "sample/input.csv").unlink(), "sample", "input.*"),
    "two samples": (lambda f: shutil.copy(f / "sample/input.csv", f / "sample/input.txt"), "sample", "input.*"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(folder: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YICI_LANG", "en")
    harm, check, words = FAULTS[fault]
    harm(folder)
    found = failed(folder)
    assert check in found and words in found[check]
    assert "hunter2" not in str(found) and "91330106" not in str(found), "places are named, not values"


def test_a_sample_that_shows_too_little_is_advice(folder: Path) -> None:
    path = folder / "sample" / "input.csv"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:3]), encoding="utf-8")
    assert contracts.expect(sources.read(folder)) == (2, 0)
    (finding,) = [one for one in contracts.check(folder) if not one.ok]
    assert finding.check == "coverage" and not finding.grave and "rejected" in finding.detail


def test_expecting_writes_what_is_there(folder: Path) -> None:
    before = [(folder / "sample" / name).read_bytes() for name in (contracts.EXPECTED, contracts.KEPT)]
    for name in (contracts.EXPECTED, contracts.KEPT):
        (folder / "sample" / name).unlink()
    contracts.expect(sources.read(folder))
    assert [(folder / "sample" / name).read_bytes() for name in (contracts.EXPECTED, contracts.KEPT)] == before


def test_folders_by_name_and_root(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("YICI_SOURCES", raising=False)
    assert contracts.folders([], folder.parent) == [folder] == [contracts.folder_of(NAME, folder.parent)]
    assert len(contracts.folders([])) >= 8
    monkeypatch.setenv("YICI_SOURCES", str(folder.parent))
    with pytest.raises(FatalError, match=NAME):
        contracts.folder_of(NAME)
    with pytest.raises(UsageError, match="zj-amr"):
        contracts.folder_of("absent", folder.parent)
    with pytest.raises(UsageError):
        contracts.folder_of("../sources/" + NAME, folder.parent)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FatalError, match="empty"):
        contracts.folders([], tmp_path / "empty")


def test_an_index_of_a_partner_needs_no_sample(tmp_path: Path) -> None:
    copied = tmp_path / "sources" / "zj-hub-index"
    shutil.copytree(sources.PACKAGED / "zj-hub-index", copied, ignore=shutil.ignore_patterns("sample"))
    assert failed(copied) == {}
