"""``yici client`` as an operator runs it."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys

import sqlalchemy as sa

from hub import agreements


def yici(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hub", "client", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


ALLOWED = ("--item", "demo-food-permit", "--item", "demo-elder-card", "--purpose", "handle")


def test_add_list_remove(store: sa.Engine) -> None:
    added = yici("add", "hall-1", *ALLOWED, "--name", "一号大厅", "--valid-to", "2999-12-31", "--json")
    assert added.returncode == 0, added.stderr
    given = json.loads(added.stdout)
    assert given["client_id"] == "hall-1"
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


def test_items_must_exist(store: sa.Engine) -> None:
    refused = yici("add", "hall-1", "--item", "demo-none", "--purpose", "handle")
    assert refused.returncode == 2
    assert "demo-none" in refused.stderr
