"""One suite for every source folder: read the sample, map it, judge it, and find what the folder says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from connectors import source as sources
from connectors.source import Source
from mappings import engine, model
from quality import suite
from tests import contract

FOLDERS = sorted(path.parent for path in sources.PACKAGED.glob("*/source.yml"))
# Words that would stand before a secret in a file of configuration.
SECRET = re.compile(r"(password|passwd|secret|token|api_?key)\s*[:=]\s*\S+", re.IGNORECASE)


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name)
def source(request: pytest.FixtureRequest) -> Source:
    return sources.read(request.param)


def test_all_folders_were_seen() -> None:
    assert {path.name for path in FOLDERS} == {path.name for path in sources.PACKAGED.iterdir() if path.is_dir()}
    assert len(FOLDERS) >= 8
    assert {sources.read(path).connector for path in FOLDERS} == {"rest", "database", "files"}


def test_the_sample_becomes_what_the_folder_says(source: Source, tmp_path: Path) -> None:
    accepted, kept = contract.outcome(source, tmp_path)
    assert accepted == contract.read(source.sample_path / "expected.csv")
    assert kept == contract.read(source.sample_path / "expected_rejects.csv")


def test_the_sample_shows_all_three_verdicts_and_a_flag(source: Source) -> None:
    kept = contract.read(source.sample_path / "expected_rejects.csv")
    accepted = contract.read(source.sample_path / "expected.csv")
    assert {row["verdict"] for row in kept} == {"quarantined", "rejected"}
    assert all(row["reasons"] for row in kept)
    assert any(row["_flags"] for row in accepted) and any(not row["_flags"] for row in accepted)
    numbers = [int(row["row"]) for row in (*accepted, *kept)]
    first = 2 if source.connector == "files" else 1
    assert sorted(numbers) == list(range(first, first + len(numbers))), "every row of the sample is accounted for once"


def test_every_column_is_mapped_or_ignored_by_name(source: Source) -> None:
    assert source.options.columns, "a source names its columns"
    assert set(engine.mapping_of(source).columns()) == set(source.options.columns)


def test_model_and_suite_fit_the_folder(source: Source) -> None:
    assert source.entity in {material.code for material in model.all_entities()}
    assert (suite.SUITES / f"{source.entity}.yml").is_file()
    assert source.checks_path.is_file()
    assert suite.load(source).checks


def test_secrets_stand_in_no_folder(source: Source) -> None:
    assert re.fullmatch(r"[a-z0-9-]+", source.connection), "a connection is a name, not an address"
    for path in source.contract_files():
        found = [m.group() for m in SECRET.finditer(path.read_text(encoding="utf-8")) if "token_path" not in m.group()]
        assert not found, f"{path} seems to hold a secret"
