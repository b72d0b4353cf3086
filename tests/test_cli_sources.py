"""hub/cli/sources.py: `yici sources` and `yici check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from connectors.errors import UsageError
from hub.cli import sources

app = typer.Typer()
sources.register(app)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YICI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("YICI_LANG", "en")
    monkeypatch.delenv("YICI_SOURCES", raising=False)
    return tmp_path


def test_list(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = CliRunner().invoke(app, ["sources"])
    assert shown.exit_code == 0
    for words in ("sh-ga-residents", "Residents of Shanghai", "changes", "0 * * * *", "PT26H", "by hand"):
        assert words in shown.stdout
    monkeypatch.setenv("YICI_LANG", "zh")
    assert "上海市常住人口" in CliRunner().invoke(app, ["sources"]).stdout


def test_list_as_json() -> None:
    shown = CliRunner().invoke(app, ["sources", "--json"])
    entries = {entry["name"]: entry for entry in json.loads(shown.stdout)}
    assert entries["sh-amr-enterprises"]["promise"] == "P2D"
    assert entries["sh-amr-enterprises"]["entity"] == "business-licence"
    assert entries["sc-guangan-items"]["schedule"] is None


def test_check_that_passes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = "企业名称,统一社会信用代码,注册日期,企业类型,注册资金,所在省份,地区\n"
    (home / "2019.csv").write_text(header, encoding="gb18030")
    monkeypatch.setenv("YICI_CONN_SH_AMR", str(home))
    shown = CliRunner().invoke(app, ["check", "sh-amr-enterprises"])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.count("✓") == 4
    answer = json.loads(CliRunner().invoke(app, ["check", "sh-amr-enterprises", "--json"]).stdout)
    assert answer["ok"] is True
    assert [step["step"] for step in answer["steps"]] == ["connection", "folder", "files", "columns"]


def test_check_that_fails_says_what_to_do() -> None:
    shown = CliRunner().invoke(app, ["check", "sh-ga-residents"])
    assert shown.exit_code == 1
    assert "✗" in shown.stdout
    assert "YICI_CONN_SH_GA" in shown.stdout
    shown = CliRunner().invoke(app, ["check", "sh-ga-residents", "--json"])
    assert shown.exit_code == 1
    assert json.loads(shown.stdout)["ok"] is False


def test_unknown_source_is_a_usage_error() -> None:
    shown = CliRunner().invoke(app, ["check", "nope"])
    assert isinstance(shown.exception, UsageError)


def test_help_has_examples() -> None:
    for command in ("sources", "check"):
        assert f"yici {command}" in CliRunner().invoke(app, [command, "--help"]).stdout
