"""``yici client`` as an operator runs it."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys

import pytest
import sqlalchemy as sa
from rich.console import Console
from typer.testing import CliRunner

from hub import agreements
from hub.cli import app, output


def yici(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hub", "client", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


ALLOWED = ("--item", "demo-food-permit", "--item", "demo-elder-card", "--purpose", "handle")


def test_add_list_remove(store: sa.Engine) -> None:
    added = yici("add", "hall-1", *ALLOWED, "--name", "一号大厅", "--valid-to", "2999-12-31", "--json")
    assert added.returncode == 0, added.stderr
    given = json.loads(added.stdout)
    assert given["client_id"] == "hall-1" and len(given["public_key"]) == 43
    assert agreements.authenticate(store, "hall-1", given["client_secret"])

    [listed] = json.loads(yici("list", "--json").stdout)
    assert listed["items"] == ["demo-food-permit", "demo-elder-card"]
    assert dt.datetime.fromisoformat(listed["valid_to"]) == dt.datetime.fromisoformat("3000-01-01T00:00:00+08:00")
    assert given["client_secret"] not in json.dumps(listed) + yici("list").stdout

    again = yici("add", "hall-1", *ALLOWED)
    assert (again.returncode, again.stdout) == (2, "")
    replaced = yici("add", "hall-1", *ALLOWED, "--replace")
    assert replaced.returncode == 0
    assert not agreements.authenticate(store, "hall-1", given["client_secret"])

    assert yici("remove", "hall-1").returncode == 0
    assert json.loads(yici("list", "--json").stdout) == []
    assert yici("remove", "hall-1").returncode == 2


def test_a_list_tells_ids_whole(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    client = "the-hall-of-a-district-with-a-long-name-1"
    agreements.add(client, None, "一号大厅", ["demo-food-permit", "demo-elder-card"], ["handle"])
    assert client in yici("list").stdout


def test_what_the_answer_may_be_used_for(store: sa.Engine) -> None:
    more = ("--field", "business-licence=name,holder.holder", "--field", "business-licence=valid_to", "--rate", "9")
    agreed = yici(
        "add", "hall-1", *ALLOWED, *more, "--evidence-minutes", "5", "--deposit", "premises-proof", "--own-view"
    )
    assert agreed.returncode == 0, agreed.stderr
    [listed] = json.loads(yici("list", "--json").stdout)
    assert listed["fields"] == {"business-licence": ["name", "holder.holder", "valid_to"]}
    assert (listed["evidence_minutes"], listed["deposits"], listed["own_view"], listed["rate"]) == (
        5, ["premises-proof"], True, 9,
    )  # fmt: skip
    refused = yici("add", "hall-2", *ALLOWED, "--field", "business-licence")
    assert refused.returncode == 2 and "--field" in refused.stderr


def test_items_must_exist(store: sa.Engine) -> None:
    refused = yici("add", "hall-1", "--item", "demo-none", "--purpose", "handle")
    assert refused.returncode == 2
    assert "demo-none" in refused.stderr


def test_the_list_shows_all_that_is_granted(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "console", lambda: Console(width=100, highlight=False))
    agreements.add("hall-0", None, "", ["demo-food-permit"], ["handle"])
    agreements.add(
        "hall-1", None, "一号大厅", ["demo-food-permit", "demo-elder-card", "demo-household-move", "demo-publication-retail"],
        ["handle-application"], dt.datetime(2999, 12, 31, tzinfo=dt.UTC), evidence_minutes=17, own_view=True, rate=23,
        fields={"business-licence": ["certificate_number", "holder.holder"]}, deposits=["premises-proof"],
    )  # fmt: skip
    shown = CliRunner().invoke(app, ["client", "list"]).stdout
    assert shown and all(len(line) <= 100 for line in shown.splitlines())
    nothing, _, all_ = shown.partition("hall-1")
    for text in ("demo-publication-retail", "handle-application", "17 minutes", "business-licence: certificate_number, holder.holder",
                 "premises-proof", "yes", "23 a second", "2999-12-31", "一号大厅"):  # fmt: skip
        assert text in all_ and text not in nothing, text
    assert "2000 a second" in nothing and "own view" in nothing and "minutes" not in nothing
    listed = json.loads(yici("list", "--json").stdout)[1]
    assert {"fields", "evidence_minutes", "deposits", "own_view", "rate", "valid_from", "valid_to"} <= set(listed)
