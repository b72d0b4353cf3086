"""``yici quarantine list`` and ``yici batch list`` as an operator reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
import typer
from typer.testing import CliRunner

from hub import pipeline
from hub.cli import batches, quarantine
from tests import licences

app = typer.Typer()
batches.register(app)
quarantine.register(app)


@pytest.mark.parametrize("list_", ["quarantine", "batch"])
def test_a_list_that_is_cut_says_how_many_more_there_are(store: sa.Engine, tmp_path: Path, list_: str) -> None:
    for number in range(3):
        path = licences.write(tmp_path / f"{number}.csv", [licences.row(number, name=""), licences.row(9)])
        pipeline.run("sh-amr-enterprises", input=path)
    shown = CliRunner().invoke(app, [list_, "list", "--limit", "2", "--json"])
    assert shown.exit_code == 0 and len(json.loads(shown.stdout)) == 2
    assert "1 more" in shown.stderr and "--limit 3" in shown.stderr
    assert "1 more" in CliRunner().invoke(app, [list_, "list", "--limit", "2"]).stderr
    for whole in (["--limit", "3"], [], ["--limit", "1", "--source", "nobody"]):
        assert CliRunner().invoke(app, [list_, "list", *whole]).stderr == ""
    only = {"quarantine": ["--state", "released"], "batch": ["--state", "halted"]}[list_]
    assert CliRunner().invoke(app, [list_, "list", "--limit", "1", *only]).stderr == ""
