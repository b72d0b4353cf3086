"""``yici reconcile`` and ``yici correction`` as operators of two hubs run them."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest

from hub.cli import main
from hub.home import Home
from tests import stored
from tests.reconciling import MATERIAL, Exchange
from tests.twohubs import Hub, pair

Yici = Callable[..., str]


@pytest.fixture(scope="module")
def served(server_home: Home, template: str) -> Iterator[Exchange]:
    with pair(server_home, template, ("zj", "sh")) as made:
        yield Exchange(made)


@pytest.fixture
def exchange(served: Exchange) -> Exchange:
    served.begin()
    served.hold(3)
    served.read()
    return served


@pytest.fixture
def yici(capsys: pytest.CaptureFixture[str]) -> Yici:
    """Runs ``yici …`` as ``hub`` in this process; what it wrote to standard output."""

    def run(hub: Hub, *arguments: str, status: int = 0) -> str:
        capsys.readouterr()
        with hub.acting(), mock.patch.object(sys, "argv", ["yici", *arguments]), pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        assert (done.value.code or 0) == status, err
        return out

    return run


def test_reconcile_says_what_differs_and_heals(exchange: Exchange, yici: Yici) -> None:
    assert "3 records, the same on both sides" in yici(exchange.sh, "reconcile", "zj")
    handle = exchange.handles()[0]
    where = "holding = (SELECT holding FROM observation WHERE document ->> 'certificate_number' = :handle)"
    exchange.sql(exchange.sh, f"DELETE FROM row_ledger WHERE {where}", handle=handle)
    exchange.sql(
        exchange.sh, "UPDATE index_entry SET status = 'revoked' WHERE handle <> decode(:handle, 'hex')", handle=handle
    )
    shown = yici(exchange.sh, "reconcile", "zj", status=1)
    assert "1 records that zj announces are not here" in shown and handle in shown and "--heal" in shown
    assert "index entries of 2 other certificates" in shown
    told = yici(exchange.zj, "reconcile", "sh", status=1)
    assert "1 records that were announced are not at sh" in told and MATERIAL in told
    assert yici(exchange.sh, "reconcile", "zj", "--last", status=1).split("\n", 1)[1] == shown.split("\n", 1)[1]
    [healed] = json.loads(yici(exchange.sh, "reconcile", "zj", "--heal", "--json"))
    assert healed["equal"] and healed["left"] == 0 and healed["role"] == "receiver"
    assert healed["differences"] == {
        "missing_here": 1,
        "missing_there": 0,
        "differing": 0,
        "at_least": 1,
        "all_named": True,
    }
    assert (healed["healed"]["fetched"], healed["healed"]["counts"]["accepted"]) == (1, 1)
    assert healed["bytes"]["sent"] > 0 < healed["bytes"]["received"] and healed["entries_amiss"] == 2
    last = yici(exchange.sh, "reconcile", "zj", "--last")
    assert "1 records fetched, 1 taken in" in last
    assert json.loads(yici(exchange.sh, "reconcile", "zj", "--last", "--json")) == [healed]
    named = healed["agreement"].partition("-")[0]
    assert json.loads(yici(exchange.sh, "reconcile", "zj", "--agreement", named, "--json"))[0]["equal"]


def test_reconcile_says_how_far_behind_and_what_stops_it(exchange: Exchange, yici: Yici) -> None:
    exchange.hold(2)
    shown = yici(exchange.sh, "reconcile", "zj")
    assert "2 records were announced since" in shown and "position 3 of 5" in shown
    for arguments, code, status in (
        (["js"], "reconcile-nothing", 2), (["zj", "--agreement", "ffffffff"], "agreement-unknown", 2),
    ):  # fmt: skip
        error = json.loads(yici(exchange.sh, "reconcile", *arguments, "--json", status=status))["error"]
        assert error["code"] == code and error["advice"]
    assert yici(exchange.sh, "reconcile", "js", "--last") == ""


def test_reconcile_says_of_an_agreement_that_is_not_read_what_to_do(exchange: Exchange, yici: Yici) -> None:
    other = exchange.pair.agree(modes=["index"], materials={MATERIAL: []})
    shown = yici(exchange.sh, "reconcile", "zj")
    assert "3 records, the same on both sides" in shown and "No source here reads" in shown
    assert str(other) in shown and "connection: peer:zj" in shown and "next version" in shown
    assert "sh has read nothing yet" in yici(exchange.zj, "reconcile", "sh")
    told = json.loads(yici(exchange.sh, "reconcile", "zj", "--json"))
    assert {one["agreement"]: (one["equal"], one["unread"]) for one in told} == {
        f"{exchange.named}/1": (True, False), f"{other}/1": (None, True)
    }  # fmt: skip
    error = json.loads(yici(exchange.sh, "reconcile", "zj", "--agreement", str(other), "--json", status=2))["error"]
    assert error["code"] == "announced-unread"


def test_verify_mends_entries(exchange: Exchange, yici: Yici) -> None:
    exchange.sql(exchange.sh, "DELETE FROM index_entry")
    report = json.loads(yici(exchange.sh, "verify", "--json", status=1))
    assert "entry-missing" in {one["code"] for one in report["differences"]}
    assert "--mend" in next(one["advice"] for one in report["differences"] if one["code"] == "entry-missing")
    yici(exchange.sh, "verify", "--mend", "--json")
    assert json.loads(yici(exchange.sh, "reconcile", "zj", "--json"))[0]["equal"]


def test_a_correction_from_filing_to_its_answer(
    exchange: Exchange, yici: Yici, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = exchange.handles()[0]
    said = {"expected": "2031-01-31", "why": f"shown by {stored.RESIDENT}", "evidence": "case 7"}
    monkeypatch.setattr("sys.stdin", mock.Mock(buffer=io.BytesIO(json.dumps(said).encode())))
    arguments = ["correction", "file", "zj", "--handle", handle, "--field", "valid_to"]
    filed = json.loads(yici(exchange.sh, *arguments, "--from", "-", "--json"))
    assert (filed["state"], filed["told"], filed["overdue"], filed["owner"]) == ("filed", True, False, False)
    for hub in (exchange.sh, exchange.zj):
        listed = yici(hub, "correction", "list", "--open")
        assert filed["id"] in listed and "valid_to" in listed and stored.RESIDENT not in listed
    shown = json.loads(yici(exchange.zj, "correction", "show", filed["id"][-6:], "--json"))
    assert {name: shown[name] for name in said} == said and shown["owner"] and len(shown["holding"]) == 32
    assert "2031-01-31" in yici(exchange.zj, "correction", "show", filed["id"])
    exchange.sql(exchange.zj, "UPDATE correction SET due_on = due_on - 60")
    assert "OVERDUE" in yici(exchange.zj, "correction", "list", "--overdue")
    assert refused(yici, exchange.zj, "answer", filed["id"], "refused") == "correction-reason"
    assert refused(yici, exchange.zj, "answer", filed["id"], "done") == "correction-outcome"
    assert refused(yici, exchange.sh, "answer", filed["id"], "corrected") == "correction-not-ours"
    answered = json.loads(yici(exchange.zj, "correction", "answer", filed["id"], "corrected", "--json"))
    assert (answered["state"], answered["told"]) == ("corrected", True)
    assert "not seen yet" in yici(exchange.sh, "correction", "list")
    assert json.loads(yici(exchange.sh, "correction", "list", "--open", "--json")) == []


def test_what_is_said_may_come_from_options_and_has_to_be_said(exchange: Exchange, yici: Yici, tmp_path: Any) -> None:
    handle = exchange.handles()[1]
    file = ["file", "zj", "--handle", handle, "--field", "status"]
    assert refused(yici, exchange.sh, *file, "--expected", "revoked") == "correction-said"
    assert refused(yici, exchange.sh, *file, "--from", str(tmp_path / "none.json")) == "correction-file-missing"
    (tmp_path / "said.json").write_text("{}")
    assert refused(yici, exchange.sh, *file, "--from", str(tmp_path / "said.json")) == "correction-said"
    assert refused(yici, exchange.sh, "show", "ffffffff") == "correction-unknown"
    exchange.zj.away = True
    waiting = json.loads(
        yici(exchange.sh, "correction", *file, "--expected", "revoked", "--why", "seen in court", "--json")
    )
    assert not waiting["told"] and waiting["problem"]["code"] == "partner-away"
    assert "not told yet" in yici(exchange.sh, "correction", "list")


def refused(yici: Yici, hub: Hub, *arguments: str) -> str:
    return str(json.loads(yici(hub, "correction", *arguments, "--json", status=2))["error"]["code"])
