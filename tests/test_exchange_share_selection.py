"""hub/exchange/share_selection.py: files as they are where all of them is wanted, else files made for the question."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import orjson
import pytest

from connectors.errors import RetriableError, UsageError
from connectors.zone import Zone
from hub.exchange import share_selection
from hub.exchange.agreements import Agreement
from hub.exchange.share_selection import Selection, columns, selected
from hub.exchange.share_versions import File
from hub.exchange.shares import Share, Shared
from mappings import model
from tests.terms import terms

NOW = dt.datetime(2026, 3, 1, 8, tzinfo=dt.UTC)
LICENCE = model.load("business-licence")
TABLE = Shared(LICENCE, {"name": "string", "status": "string"}, ("33",), "scope")
FILES = [File("t/rows/00000-a.parquet", 10, 5), File("t/rows/00001-b.parquet", 10, 7)]
NODE = ["=", "name", "a"]


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Share:
    monkeypatch.setenv("YICI_HOME", str(tmp_path))
    named = uuid.uuid4()
    return Share(Agreement(named, 1, "sh", True, terms(named), "in_force"), {"t": TABLE}, b"x")


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def run(job: bytes) -> bytes:
        found.append(orjson.loads(job))
        return orjson.dumps([{"path": "answers/x/00000-c.parquet", "size": 3, "rows": 2}])

    monkeypatch.setattr(share_selection, "_run", run)
    return found


@pytest.mark.parametrize("limit", [None, 12, 13])
def test_all_of_it_is_the_files_themselves(share: Share, jobs: list[dict[str, Any]], limit: int | None) -> None:
    assert selected(share, TABLE, FILES, Selection(("name", "status"), limit=limit), NOW) == (FILES, False)
    assert jobs == []


def test_nothing_needs_no_process(share: Share, jobs: list[dict[str, Any]]) -> None:
    assert selected(share, TABLE, FILES, Selection(("name", "status"), limit=0), NOW) == ([], False)
    assert selected(share, TABLE, [], Selection(("name",), NODE), NOW) == ([], False)
    assert jobs == []


@pytest.mark.parametrize(
    "wanted", [Selection(("name",)), Selection(("name", "status"), NODE), Selection(("name", "status"), limit=11)]
)
def test_less_is_made_for_the_question(share: Share, jobs: list[dict[str, Any]], wanted: Selection) -> None:
    found, cut = selected(share, TABLE, FILES, wanted, NOW)
    assert cut and found == [File("answers/x/00000-c.parquet", 3, 2)]
    (job,) = jobs
    assert (job["columns"], job["predicate"], job["limit"]) == (list(wanted.columns), wanted.predicate, wanted.limit)
    assert job["files"] == [one.path for one in FILES] and job["into"] == ["answers", "20260301T081600Z"]
    assert job["place"] == f"shares/{share.name}" and Zone(job["landing"]).names("shares") == []


def test_columns() -> None:
    assert columns(TABLE, None) == ("name", "status") and columns(TABLE, ["status"]) == ("status",)
    assert columns(TABLE, ["status", "name", "status"]) == ("name", "status")
    for wrong in ([], ["region"], ["name", ""], ["NAME"]):
        with pytest.raises(UsageError, match="name, status"):
            columns(TABLE, wrong)


def test_a_process_that_fails(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RetriableError) as refused:
        share_selection._run(b"913300000000000002")
    assert refused.value.code == "share-unavailable" and "9133" not in caplog.text and "share-cut" in caplog.text
    monkeypatch.setattr(share_selection, "SECONDS", 0.001)
    with pytest.raises(RetriableError) as refused:
        share_selection._run(b"{}")
    assert refused.value.code == "share-slow"
