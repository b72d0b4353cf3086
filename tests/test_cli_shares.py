"""``yici share`` as an operator runs it."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator
from unittest import mock

import pytest
import sqlalchemy as sa

from hub.cli import main
from tests.sharing import LICENCE, agree, as_zj, licence, set_state


@pytest.fixture
def yici(store: sa.Engine, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Runs ``yici share …`` in this process; what it wrote to standard output."""

    def run(*arguments: str, status: int = 0) -> str:
        with mock.patch.object(sys, "argv", ["yici", "share", *arguments]), pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        assert (done.value.code or 0) == status, err
        run.told = err  # type: ignore[attr-defined]
        return out

    with as_zj():
        yield run


@pytest.fixture
def named(store: sa.Engine) -> uuid.UUID:
    with as_zj():
        licence(store, 1)
        return agree(store)


def test_publish_list_profile_revoke(yici: Callable[..., str], store: sa.Engine, named: uuid.UUID) -> None:
    short = str(named)[:8]
    (before,) = json.loads(yici("list", "--json"))
    assert before == {
        "agreement": f"{named}/1",
        "peer": "sh",
        "state": "open",
        "token_until": None,
        "tables": {LICENCE: None},
    }
    (made,) = json.loads(yici("publish", "--json"))
    assert made == {"agreement": str(named), "material": LICENCE, "version": 0, "new": True, "position": 1, "rows": 1, "changed": 1,
                    "parts": 1}  # fmt: skip
    licence(store, 2)
    assert [one["version"] for one in json.loads(yici("publish", short, "--json"))] == [1]
    assert "1" in yici("publish", short, "--anew")
    made = json.loads(yici("profile", short, "--endpoint", "https://zj.example/delta", "--days", "7", "--json"))
    assert made["endpoint"] == "https://zj.example/delta" and made["shareCredentialsVersion"] == 1
    assert made["bearerToken"] not in yici.told  # type: ignore[attr-defined]
    assert json.loads(yici("profile", short))["endpoint"] == "http://127.0.0.1:8000/delta"
    (found,) = json.loads(yici("list", "--json"))
    assert (found["tables"][LICENCE]["version"], found["tables"][LICENCE]["rows"]) == (1, 2) and found["token_until"]
    assert short in yici("list")
    assert json.loads(yici("revoke", short, "--json")) == {"agreement": str(named), "token": None}
    assert json.loads(yici("revoke", short, "--json", status=2))["error"]["code"] == "share-none"


def test_what_is_refused(yici: Callable[..., str], store: sa.Engine, named: uuid.UUID) -> None:
    def code(*arguments: str) -> str:
        return str(json.loads(yici(*arguments, "--json", status=2))["error"]["code"])

    assert (
        code("publish", "ffffffff") == code("profile", "ffffffff") == code("revoke", "ffffffff") == "agreement-unknown"
    )
    assert code("profile", str(named), "--endpoint", "zj") == "share-endpoint-invalid"
    assert code("profile", str(named), "--days", "0") == "share-token-days"
    set_state(store, named, state="suspended", suspended_by=["sh"])
    assert code("publish", str(named)) == code("profile", str(named)) == "agreement-suspended"
    assert json.loads(yici("publish", "--json")) == []
    (found,) = json.loads(yici("list", "--json"))
    assert (found["state"], found["tables"]) == ("agreement-suspended", {}) and yici("list")
