"""``yici agreement`` as operators of two hubs run it."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from connectors.signature import public_key, verify_detached
from hub.cli import main
from hub.exchange import agreement_terms, agreements, keys
from hub.home import Home
from tests.twohubs import Hub, Pair, pair

COMMANDS = ("propose", "accept", "decline", "suspend", "resume", "end", "tell", "rotate", "show", "list")


@pytest.fixture(scope="module")
def made(server_home: Home, template: str) -> Iterator[Pair]:
    with pair(server_home, template, ("zj", "sh")) as hubs:
        yield hubs


@pytest.fixture
def hubs(made: Pair) -> Pair:
    made.forget()
    return made


Run = Callable[..., str]


@pytest.fixture
def yici(hubs: Pair, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``yici agreement …`` as a hub, in this process; what it wrote to standard output."""

    def run(hub: Hub, *arguments: str, status: int = 0) -> str:
        with (
            hub.acting(),
            mock.patch.dict(os.environ, {"YICI_LANG": "en", "YICI_ACTOR": "operator"}),
            mock.patch.object(sys, "argv", ["yici", "agreement", *arguments]),
            pytest.raises(SystemExit) as done,
        ):
            main()
        out, err = capsys.readouterr()
        assert (done.value.code or 0) == status, err
        run.err = err  # type: ignore[attr-defined]
        return out

    return run


def json_of(yici: Run, hub: Hub, *arguments: str, status: int = 0) -> Any:
    return json.loads(yici(hub, *arguments, "--json", status=status))


def test_from_the_template_to_the_end(hubs: Pair, yici: Run, tmp_path: Path) -> None:
    file = tmp_path / "agreement.yml"
    file.write_text(yici(hubs.zj, "propose", "sh", "--template"), encoding="utf-8")
    done = json_of(yici, hubs.zj, "propose", "sh", str(file))
    assert (done["state"], done["told"], done["problem"]) == ("proposed", True, None)
    named, _, version = done["agreement"].partition("/")
    assert version == "1"

    [listed] = json_of(yici, hubs.sh, "list")
    assert (listed["agreement"], listed["peer"], listed["provider"]) == (done["agreement"], "zj", False)
    assert (listed["signed_here"], listed["signed_there"], listed["modes"]) == (False, True, ["evidence", "index"])
    assert "waits for us" in yici(hubs.sh, "list")
    shown = json_of(yici, hubs.sh, "accept", named[:8], "--yes")
    assert (shown["state"], shown["told"]) == ("in_force", True)
    assert json_of(yici, hubs.zj, "list", "sh")[0]["state"] == "in_force"

    yici(hubs.zj, "suspend", named, "--reason", "outside the scenario")
    assert "suspended" in yici.err  # type: ignore[attr-defined]
    whole = yici(hubs.sh, "show", named)
    for part in (
        "suspended 已中止",
        "by zj",
        "outside the scenario",
        "zj → sh",
        "Arts. 15 and 20",
        "有条件",
        "household-register",
    ):
        assert part in whole, part
    assert json_of(yici, hubs.sh, "resume", named, status=2)["error"]["code"] == "agreement-not-suspended"
    assert json_of(yici, hubs.zj, "resume", named)["state"] == "in_force"
    assert json_of(yici, hubs.zj, "rotate", named)["epoch"].startswith("20")
    wanted = json_of(yici, hubs.zj, "end", named)
    assert (wanted["state"], wanted["ended_by"]) == ("in_force", ["zj"])
    yici(hubs.zj, "end", named)
    assert "end wanted by zj, waits for the other side" in yici.err  # type: ignore[attr-defined]
    assert "end wanted by zj" in yici(hubs.sh, "list")
    ended = json_of(yici, hubs.sh, "end", named)
    assert (ended["state"], ended["ended_by"]) == ("ended", ["sh", "zj"])
    assert json_of(yici, hubs.zj, "list") == []
    assert json_of(yici, hubs.zj, "list", "--all")[0]["state"] == "ended"


def test_one_whose_term_is_over_is_not_in_force(hubs: Pair, yici: Run) -> None:
    """Nor one whose term has not begun, nor one whose place another version has taken."""
    named = str(hubs.agree())

    def dates(values: str) -> None:
        for hub in (hubs.zj, hubs.sh):
            with hub.acting() as engine, engine.begin() as connection:
                connection.exec_driver_sql(f"UPDATE exchange_agreement SET {values}")

    over = "now() + interval '10 minutes'"
    with mock.patch.object(agreements, "opened", _as_kept(agreements.opened)):
        for values, state, words in (
            (f"valid_to = {over}", "in_force", "in force"),
            ("valid_to = now() - interval '3 minutes'", "expired", "expired 已到期"),
            ("state = 'suspended', suspended_by = '{zj}'", "expired", "expired 已到期"),
            (f"valid_to = {over}, state = 'in_force', suspended_by = '{{}}', valid_from = now() + interval '5 minutes'",
             "upcoming", "not begun"),
        ):  # fmt: skip
            dates(values)
            [listed] = json_of(yici, hubs.zj, "list")
            assert listed["state"] == state, values
            for command in (("list",), ("show", named)):
                shown = yici(hubs.sh, *command)
                assert words in shown and ("in force" in shown) == (state == "in_force"), values
        dates("replaced_at = now() - interval '1 minute'")
        assert json_of(yici, hubs.zj, "list") == []
        assert json_of(yici, hubs.zj, "list", "--all")[0]["state"] == "superseded"


def _as_kept(opened: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Its terms, whatever dates are kept beside them."""

    def read(row: Any) -> Any:
        terms = agreement_terms.parse(bytes(row.document))
        return opened(SimpleNamespace(**{**row._asdict(), "valid_from": terms.valid_from, "valid_to": terms.valid_to}))

    return read


def test_what_is_shown_can_be_verified_by_anybody(hubs: Pair, yici: Run) -> None:
    agreed = hubs.agree()
    told = json_of(yici, hubs.sh, "show", str(agreed))
    for hub, signature in ((hubs.sh, told["own_signature"]), (hubs.zj, told["peer_signature"])):
        with hub.acting():
            key = public_key(keys.own().keys[0].public)
        verify_detached(told["document"].encode(), signature, [key], agreement_terms.TYPE, "agreement")
    assert told["digest"] == agreement_terms.digest(told["document"].encode())
    assert list(told["conditions"]) == ["household-register"]
    assert [entry["kind"] for entry in told["history"]] == ["agreement.propose", "agreement.accept"]


def test_a_new_version_from_the_old_one(hubs: Pair, yici: Run, tmp_path: Path) -> None:
    agreed = hubs.agree()
    file = tmp_path / "next.yml"
    text = yici(hubs.sh, "show", str(agreed), "--yaml")
    file.write_text(text.replace("handle-application", "verify"), encoding="utf-8")
    assert json_of(yici, hubs.sh, "propose", "zj", str(file))["agreement"] == f"{agreed}/2"
    assert json_of(yici, hubs.zj, "accept", str(agreed), "--yes")["state"] == "in_force"
    assert [each["state"] for each in json_of(yici, hubs.sh, "list", "--all")] == ["in_force", "superseded"]
    assert json_of(yici, hubs.sh, "show", str(agreed), "--version", "1")["terms"]["purposes"] == ["handle-application"]


@pytest.mark.parametrize(("answer", "state"), [("n\n", "proposed"), ("", "proposed"), ("y\n", "in_force")])
def test_accepting_shows_what_is_signed_and_asks(
    hubs: Pair, yici: Run, monkeypatch: pytest.MonkeyPatch, answer: str, state: str
) -> None:
    agreed = hubs.propose(hubs.zj, hubs.sh).agreement
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    yici(hubs.sh, "accept", agreed, status=0 if state == "in_force" else 1)
    assert "handle-application" in yici.err  # type: ignore[attr-defined]
    [row] = json_of(yici, hubs.sh, "list")
    assert row["state"] == state


def test_a_file_with_faults_is_refused_with_their_lines(hubs: Pair, yici: Run, tmp_path: Path) -> None:
    file = tmp_path / "agreement.yml"
    text = yici(hubs.zj, "propose", "sh", "--template")
    file.write_text(text.replace('["33"]', '["31"]').replace("consent: none", "consent: never"), encoding="utf-8")
    refused = json_of(yici, hubs.zj, "propose", "sh", str(file), status=2)["error"]
    assert refused["code"] == "agreement-file" and f"{file}:" in refused["message"]
    assert json_of(yici, hubs.zj, "propose", "js", str(file), status=2)["error"]["code"] == "peer-unknown"
    assert json_of(yici, hubs.zj, "show", "0000", status=2)["error"]["code"] == "agreement-unknown"
    yici(hubs.zj, "propose", "sh", status=2)


def test_who_is_away_is_told_later(hubs: Pair, yici: Run) -> None:
    agreed = hubs.agree()
    hubs.zj.away = True
    done = json_of(yici, hubs.sh, "suspend", str(agreed))
    assert (done["state"], done["told"], done["problem"]) == ("suspended", False, "partner-away")
    yici(hubs.sh, "suspend", str(agreed))
    assert "told again" in yici.err  # type: ignore[attr-defined]
    assert "not confirmed by them yet" in yici(hubs.sh, "list")
    assert json_of(yici, hubs.sh, "tell")[0]["problem"] == "partner-away"
    hubs.zj.away = False
    hubs.rested()
    assert json_of(yici, hubs.sh, "tell", "zj") == [{"agreement": str(agreed), "told": True, "problem": None}]
    assert json_of(yici, hubs.zj, "list")[0]["suspended_by"] == ["sh"]
    assert json_of(yici, hubs.sh, "tell") == []


def test_what_is_refused_is_said(hubs: Pair, yici: Run) -> None:
    agreed = hubs.propose(hubs.zj, hubs.sh).agreement
    yici(hubs.sh, "decline", agreed, "--reason", "too wide")
    assert json_of(yici, hubs.sh, "decline", agreed)["state"] == "declined"
    assert json_of(yici, hubs.sh, "accept", agreed, "--yes", status=2)["error"]["code"] == "agreement-declined"
    named = json_of(yici, hubs.sh, "suspend", agreed, "--reason", "11010519491231002X", status=2)
    assert named["error"]["code"] == "agreement-not-in-force"


def test_one_altered_in_the_store_is_listed_as_such(hubs: Pair, yici: Run) -> None:
    hubs.agree()
    agreed = hubs.agree()
    with hubs.zj.acting() as engine, engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE exchange_agreement SET document = set_byte(document, 3, 65) WHERE id = %s", (agreed,)
        )
    assert sorted(each["state"] for each in json_of(yici, hubs.zj, "list", "--all")) == ["broken", "in_force"]
    assert "altered in the store" in yici(hubs.zj, "list", "--all")
    assert json_of(yici, hubs.zj, "show", str(agreed), status=1)["error"]["code"] == "agreement-broken"


def test_help_has_examples(yici: Run, hubs: Pair) -> None:
    for command in COMMANDS:
        assert f"yici agreement {command}" in yici(hubs.zj, command, "--help"), command
