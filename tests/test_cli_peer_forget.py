"""``yici peer forget`` as an operator runs it."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from unittest import mock

import pytest
import sqlalchemy as sa

from hub import database
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
