"""``yici peer`` as an operator runs it."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from unittest import mock

import pytest
import sqlalchemy as sa

from hub import database, peers
from hub.cli import main
from hub.home import Home
from tests import stored
from tests.peering import PartnerHub, partner_hub


@pytest.fixture(scope="module")
def partner(server_home: Home) -> Iterator[PartnerHub]:
    with partner_hub(server_home, served=False) as hub:
        yield hub


@pytest.fixture
def yici(partner: PartnerHub, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Runs ``yici peer …`` in this process; what it wrote to standard output."""

    def run(*arguments: str, status: int = 0) -> str:
        with mock.patch.object(sys, "argv", ["yici", "peer", *arguments]), pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        assert (done.value.code or 0) == status, err
        return out

    with partner.acting(), mock.patch.dict(os.environ, {"YICI_LANG": "en"}):
        yield run


def test_forget(yici: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = database.engine()
    stored.source(engine, "ah-hub-index", "index-entry", region="340000")
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO index_key VALUES ('ah-hub-index', '2026', 'x')"))

    def keys() -> int:
        with engine.connect() as connection:
            return connection.scalar(sa.text("SELECT count(*) FROM index_key")) or 0

    for answer, left in (("n\n", 1), ("", 1)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        assert not yici("forget", "ah-hub-index", "--json", status=1).strip() and keys() == left
    assert json.loads(yici("forget", "ah-hub-index", "--yes", "--json")) == {"source": "ah-hub-index", "entries": 0}
    assert keys() == 0
    refused = json.loads(yici("forget", "nobody", "--yes", "--json", status=2))
    assert refused["error"]["code"] == "index-source-unknown"


def test_grant_list_rotate_revoke(yici: Callable[..., str]) -> None:
    granted = json.loads(yici("grant", "sh", "--material", "business-licence", "--region", "3301", "--json"))
    assert set(granted) == {"client_id", "client_secret", "index_key", "public_key", "hub", "region"}
    assert (granted["client_id"], granted["hub"], granted["region"]) == ("sh", "zj", "330000")
    assert {len(base64.urlsafe_b64decode(granted[name] + "==")) for name in ("index_key", "public_key")} == {32}
    assert peers.authenticate(database.engine(), "sh", granted["client_secret"])

    again = yici("grant", "sh", "--material", "business-licence", "--json", status=2)
    assert json.loads(again)["error"]["code"] == "peer-known"
    shown = yici("grant", "sh", "--material", "business-licence", "--until", "2999-12-31", "--replace")
    assert "client_secret" in shown and granted["client_secret"] not in shown

    [listed] = json.loads(yici("grants", "--json"))
    assert (listed["client_id"], listed["materials"], listed["in_force"]) == ("sh", ["business-licence"], True)
    assert listed["valid_to"].startswith("2999-12-31T16:00")  # the end of that day in Beijing
    assert not {"client_secret", "index_key", "secret_hash", "sealed_key"} & set(listed)
    assert json.loads(yici("rotate", "sh", "--json"))["epoch"] > listed["epoch"]
    assert json.loads(yici("revoke", "sh", "--json")) == {"client_id": "sh", "in_force": False}
    assert "ended" in yici("grants")
