"""``yici deposits`` as a clerk uses it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors.errors import UsageError
from hub import agreements, answers, deposits
from hub.answers import Question
from hub.cli import app
from hub.handed_in import Handed
from tests import papers
from tests.serving import LICENCE


@pytest.fixture
def waiting(store: sa.Engine, tmp_path: Path) -> str:
    agreements.add("hall-1", None, "Hall", ["demo-food-permit"], ["handle"], deposits=["food-safety-rules"])
    [answer] = answers.ask(store, Question(("demo-food-permit",), LICENCE, "hall-1", "handle"))
    with store.connect() as connection:
        agreement = agreements.of(connection, "hall-1")
    assert agreement is not None
    handed = Handed(answer["answer"], "food-safety-rules", {"holder": (LICENCE, None)}, {"certificate_number": "R-1"})
    given, new = deposits.receive(store, agreement, "key-00000001", handed, io.BytesIO(papers.PNG), "image/png")
    assert new
    return str(given["deposit"])


def yici(*arguments: str) -> list[dict[str, object]]:
    done = CliRunner().invoke(app, ["deposits", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    return said if isinstance(said, list) else [said]


def test_list_show_verify_reject(store: sa.Engine, waiting: str, tmp_path: Path) -> None:
    assert [one["deposit"] for one in yici("list")] == [waiting]
    scan = tmp_path / "scan.png"
    [shown] = yici("show", waiting, "--file", str(scan))
    assert shown["holders"] == {"holder": {"scheme": "cn.uscc", "value": LICENCE.split(":")[1], "name": None}}
    assert scan.read_bytes() == papers.PNG and scan.stat().st_mode & 0o777 == 0o600
    refused = CliRunner().invoke(app, ["deposits", "show", waiting, "--file", str(scan)])
    assert isinstance(refused.exception, UsageError) and refused.exception.code == "deposit-file-exists"
    [held] = yici("verify", waiting, "--actor", "market supervision", "--note", "original seen")
    assert held["state"] == "held"
    assert yici("list") == [] and [one["deposit"] for one in yici("list", "--state", "held")] == [waiting]
    assert yici("show", waiting)[0]["decided_by"] == "market supervision"
    [gone] = yici("reject", waiting, "--reason", "of another company")
    assert gone["state"] == "rejected" and gone["holding"] is None
    for people in (("list", "--state", "all"), ("show", waiting)):
        done = CliRunner().invoke(app, ["deposits", *people])
        assert done.exit_code == 0 and waiting in done.stdout
    unknown = CliRunner().invoke(app, ["deposits", "verify", "nothing"])
    assert isinstance(unknown.exception, UsageError) and unknown.exception.code == "deposit-unknown"
