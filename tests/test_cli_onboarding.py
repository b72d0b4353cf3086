"""hub/cli/onboarding.py: `yici sources new | infer | expect | test`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from connectors.errors import UsageError
from hub.cli import sources
from tests import licences

NAME = "sh-tax-licences"
app = typer.Typer()
sources.register(app)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YICI_LANG", "en")
    monkeypatch.setenv("YICI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("YICI_SOURCES", str(tmp_path / "sources"))
    (tmp_path / "sources").mkdir()
    licences.write(tmp_path / "a.csv", licences.rows(12))
    return tmp_path / "sources"


def yici(*words: str) -> Result:
    return CliRunner().invoke(app, ["sources", *words])


def begin(*more: str) -> Result:
    return yici("new", NAME, "--connector", "files", "--entity", "business-licence", *more)


def test_from_new_to_test(root: Path) -> None:
    begun = begin()
    assert begun.exit_code == 0 and str(root / NAME) in begun.stdout
    assert f"yici sources infer {NAME}" in begun.stderr and "YICI_SOURCES" not in begun.stderr
    inferred = yici("infer", NAME, "--sample", str(root.parent / "a.csv"), "--rows", "5")
    assert inferred.exit_code == 0, inferred.output
    assert "+holder.holder,统一社会信用代码,organisation" in inferred.stdout
    assert "masked: 企业名称, 统一社会信用代码" in inferred.stdout and "source.yml:" in inferred.stdout
    assert licences.credit_code(0) not in inferred.output
    tested = yici("test", NAME)
    assert tested.exit_code == 1 and "✗ description" in tested.stdout and "yici sources expect" in tested.stdout
    for file in ("source.yml", "mapping.csv"):
        path = root / NAME / file
        path.write_text(re.sub("TODO:? ?", "", path.read_text(encoding="utf-8")), encoding="utf-8")
    assert "expected.csv: 5" in re.sub(r"\n", "", yici("expect", NAME).stdout)
    tested = yici("test", NAME)
    assert tested.exit_code == 0, tested.output
    assert "! coverage" in tested.stdout


def test_json_is_one_value(root: Path) -> None:
    begun = json.loads(begin("--json").stdout)
    assert begun["folder"] == str(root / NAME) and any(point.startswith("source.yml:") for point in begun["todo"])
    sample = str(root.parent / "a.csv")
    inferred = json.loads(yici("infer", NAME, "--sample", sample, "--json").stdout)
    assert inferred["files"]["mapping.csv"] == "written" and inferred["sample"]["rows"] == 12 and inferred["mask"]
    assert json.loads(yici("infer", NAME, "--sample", sample, "--json").stdout)["files"]["mapping.csv"] == "unchanged"
    assert json.loads(yici("expect", NAME, "--json").stdout) == {"name": NAME, "accepted": 12, "kept_back": 0}
    tested = json.loads(yici("test", NAME, "--json").stdout)
    assert tested["ok"] is False and tested["sources"][0]["checks"][0]["check"] == "description"


def test_another_root_is_told_how_to_be_found(root: Path, tmp_path: Path) -> None:
    begun = begin("--root", str(tmp_path / "else"))
    assert begun.exit_code == 0 and f"export YICI_SOURCES={tmp_path / 'else'}" in begun.stderr
    assert yici("test", "--root", str(tmp_path / "else")).exit_code == 1
    assert isinstance(yici("test", NAME).exception, UsageError), "not in the roots that are known"


def test_rows_as_they_are_come_with_a_warning(root: Path) -> None:
    begin()
    inferred = yici("infer", NAME, "--sample", str(root.parent / "a.csv"), "--as-is", "--rows", "2")
    assert "exactly as delivered" in inferred.stdout
    assert licences.credit_code(1) in (root / NAME / "sample" / "input.csv").read_text(encoding="utf-8")


def test_no_copy_is_made_when_none_is_wanted(root: Path) -> None:
    begin()
    assert yici("infer", NAME, "--sample", str(root.parent / "a.csv"), "--no-sample").exit_code == 0
    assert not list((root / NAME / "sample").glob("input.*"))


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["new", NAME, "--connector", "files", "--format", "pdf"], "--format"),
        (["new", NAME], "--connector"),
        (["infer", "sh-ga-residents", "--sample", "absent.csv"], "--sample"),
    ],
)
def test_wrong_words_are_a_usage_error(words: list[str], what: str) -> None:
    shown = yici(*words)
    assert shown.exit_code == 2 and what in re.sub(r"\x1b\[[0-9;]*m", "", shown.output)


def test_help_has_examples() -> None:
    for command in ("new", "infer", "expect", "test"):
        assert f"yici sources {command} " in yici(command, "--help").stdout


def test_the_list_is_still_the_list() -> None:
    names = [entry["name"] for entry in json.loads(yici("--json").stdout)]
    assert "sh-ga-residents" in names
