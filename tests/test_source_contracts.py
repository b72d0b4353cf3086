"""One suite for every source folder: read the sample, map it, judge it, and find what the folder says."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors import source as sources
from connectors import template
from hub import contracts
from quality import suite

FOLDERS = sorted(path.parent for path in sources.PACKAGED.glob("*/source.yml"))


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name)
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_all_folders_were_seen() -> None:
    assert {path.name for path in FOLDERS} == {path.name for path in sources.PACKAGED.iterdir() if path.is_dir()}
    assert len(FOLDERS) >= 8


def test_every_connector_has_a_source() -> None:
    """A kind of source that none of ours uses would be tested by nobody."""
    kinds = {kind for kind in template.OPTIONS if (sources.PACKAGED.parent / f"{kind}.py").is_file()}
    assert kinds >= {"rest", "database", "files"}
    assert {sources.read(path).connector for path in FOLDERS} >= kinds


@pytest.mark.parametrize("check", contracts.CHECKS)
def test_the_contract_holds(folder: Path, check: str) -> None:
    """What is advice for a source elsewhere, such as a sample that shows every verdict, is duty here."""
    assert contracts.CHECKS[check](sources.read(folder)) == ""


def test_the_entity_has_a_suite_of_its_own(folder: Path) -> None:
    assert (suite.SUITES / f"{sources.read(folder).entity}.yml").is_file()


def test_the_folder_explains_itself(folder: Path) -> None:
    """A first comment says what the source is; connections are names."""
    assert (folder / sources.DESCRIPTION).read_text(encoding="utf-8").startswith("# ")
    assert "/" not in sources.read(folder).connection
