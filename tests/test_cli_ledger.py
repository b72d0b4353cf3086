"""``yici ledger`` as an operator and an auditor run it."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from hub.cli import main
from hub.exchange import checkpoints, witnesses
from hub.exchange.witnesses import Told
from hub.home import Home
from tests import examplepage, ledgers
from tests.ledgers import Kept

Yici = Callable[..., str]


@pytest.fixture(scope="module")
def kept(server_home: Home, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    with ledgers.kept(server_home, template, tmp_path_factory.mktemp("hubs"), 6) as found:
        yield found


@pytest.fixture
def yici(kept: Kept, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Yici:
    """Runs ``yici ledger …`` in this process; what it wrote to standard output."""
    kept.restore()
    monkeypatch.setattr(witnesses, "ask", lambda name, after=0: Told(name, why="partner-away", sentence="nobody there"))
    monkeypatch.setattr(checkpoints, "FRESH", 0.0)

    def run(*arguments: str, status: int = 0) -> str:
        with mock.patch.object(sys, "argv", ["yici", "ledger", *arguments]), pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        assert (done.value.code or 0) == status, err
        return out

    return run


def refused(yici: Yici, *arguments: str, status: int) -> str:
    return str(json.loads(yici(*arguments, "--json", status=status))["error"]["code"])


def test_list(yici: Yici, kept: Kept) -> None:
    found = json.loads(yici("list", "--json"))
    assert [one["record"] for one in found] == [str(named) for named in reversed(kept.made)]
    assert [one["position"] for one in found] == [6, 5, 4, 3, 2, 1]
    assert found[0]["detail"] == {"entries": 5, "purpose": "办理"} and found[0]["recorded_at"].endswith("Z")
    assert len(json.loads(yici("list", "--limit", "2", "--json"))) == 2
    assert len(json.loads(yici("list", "--peer", "zj", "--kind", "index.page", "--since", "2026-01-01", "--json"))) == 6
    for nothing in (
        ["--peer", "ah"],
        ["--kind", "peer.card"],
        ["--refused"],
        ["--outcome", "internal"],
        ["--since", "2999-01-01"],
    ):
        assert json.loads(yici("list", *nothing, "--json")) == []
    ledgers.changed(kept.engine, f"UPDATE exchange_record SET outcome = 'deadline-over' WHERE id = '{kept.made[0]}'")
    for one in (["--refused"], ["--outcome", "deadline-over"]):
        assert [found["record"] for found in json.loads(yici("list", *one, "--json"))] == [str(kept.made[0])]
    assert str(kept.made[5]) in yici("list")


def test_show(yici: Yici, kept: Kept) -> None:
    found = json.loads(yici("show", str(kept.made[1]), "--json"))
    assert (found["position"], found["outcome"], found["direction"]) == (2, "ok", "asked")
    assert found["request"]["from"] == "sh" and found["reply"]["status"] == "ok" and found["signed_at"]
    assert json.loads(yici("show", found["message"], "--json")) == found
    assert "index.page" in yici("show", str(kept.made[1]))
    ledgers.plain(kept.engine, 1)
    [latest] = json.loads(yici("list", "--limit", "1", "--json"))
    waiting = json.loads(yici("show", latest["record"], "--json"))
    assert (waiting["position"], waiting["signed_at"], waiting["request"]) == (None, None, None)
    assert refused(yici, "show", str(uuid.uuid4()), status=2) == "record-unknown"
    assert refused(yici, "show", "x", status=2) == "record-unknown"


def test_verify(yici: Yici, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    report = json.loads(yici("verify", "--json"))
    assert report["ok"] and (report["first"], report["last"], report["records"]) == (1, 6, 6)
    assert [(one["peer"], one["asked"], one["code"]) for one in report["witnesses"]] == [("zj", False, "partner-away")]
    assert json.loads(yici("verify", "--no-peers", "--json"))["witnesses"] == []
    assert not report["complete"]
    for arguments, away in (((), "no answer of 未答复 zj"), (("--no-peers",), "no peer was asked 未向伙伴节点求证")):
        shown = " ".join(yici("verify", *arguments).split())
        assert f"not fully checked 未能完全核验: {away} " in shown
        assert "nothing was changed" not in shown and "earlier signed checkpoint" in shown
    assert "nobody there" in yici("verify")
    monkeypatch.setattr(witnesses, "ask", lambda name, after=0: Told(name))
    shown = yici("verify")
    assert "nothing was changed" in shown and "not fully checked" not in shown and "told of no checkpoint yet" in shown
    assert json.loads(yici("verify", "--json"))["complete"]
    with kept.engine.connect() as connection:
        query = "SELECT position, chain FROM exchange_checkpoint WHERE hub = 'sh'"
        chains = {row.position: row.chain for row in connection.exec_driver_sql(query)}
    monkeypatch.setattr(witnesses, "ask", lambda name, after=0: Told(name, chains))
    shown = " ".join(yici("verify").split())
    assert "zj: knew before 此前已知 2 checkpoints 检查点, positions 位置 4-6" in shown
    assert "witnessed up to 已见证至 6" in shown
    monkeypatch.setattr(witnesses, "ask", lambda name, after=0: Told(name))
    monkeypatch.setattr(witnesses, "told_before", lambda *_: True)
    shown = " ".join(yici("verify").split())
    assert (
        "not fully checked 未能完全核验: nothing known to 毫不知情 zj" in shown and "nothing was changed" not in shown
    )
    assert "ask its operators" in shown
    [told] = json.loads(yici("verify", "--json"))["witnesses"]
    assert (told["asked"], told["code"], told["first"]) == (True, "witness-empty", None) and told["message"]
    ledgers.changed(kept.engine, f"DELETE FROM exchange_record WHERE id = '{kept.made[3]}'")
    report = json.loads(yici("verify", "--json", status=1))
    [difference] = report["differences"]
    assert (difference["code"], difference["found"]) == ("chain-record-removed", 1)
    assert difference["keys"] == [f"{kept.made[3]} at 4"] and "backup" in difference["advice"]
    shown = yici("verify", status=1)
    assert str(kept.made[3]) in shown and "→" in shown and "nothing was changed" not in shown


def test_export_and_check(yici: Yici, kept: Kept, tmp_path: Path) -> None:
    file, body, no_proof = tmp_path / "proof.json", tmp_path / "body", tmp_path / "none.json"
    assert json.loads(yici("export", str(kept.made[1]), "--to", str(file), "--json")) == {
        "record": str(kept.made[1]), "file": str(file)
    }  # fmt: skip
    proof = json.loads(yici("export", str(kept.made[1])))
    assert proof == json.loads(file.read_bytes())
    body.write_bytes(b'{"entries":1}')
    key = _public(kept, "zj")
    checked = json.loads(yici("check", str(file), "--key", key, "--body", str(body), "--json"))
    assert checked["ok"] and checked["signed_by"] == ["zj"] and checked["record"]["id"] == str(kept.made[1])
    assert {one["result"] for one in checked["checks"]} == {"good", "unchecked"}
    assert checked["needs"] == ["sh"] and not checked["complete"]
    alone = " ".join(yici("check", str(file), "--key", key).split())
    assert "– not checked, needs the key of sh: the record stands at position" in alone
    assert "✓ the record stands" not in alone and "made up" in alone and "Give `--key` also for: sh" in alone
    shown = yici("check", str(file), "--key", key, "--key", _public(kept, "sh"))
    assert shown.count("✓") == 6 and "sh, zj" in shown and "made up" not in shown
    assert json.loads(yici("check", str(file), "--key", key, "--key", _public(kept, "sh"), "--json"))["complete"]
    shown = yici("check", str(file), "--key", examplepage.public_key(), status=1)
    assert "✗" in shown and "nothing is proved" in shown
    proof["record"]["outcome"] = "internal"
    file.write_text(json.dumps(proof), encoding="utf-8")
    assert not json.loads(yici("check", str(file), "--key", key, "--json", status=1))["ok"]
    for content in (b"", b"[]", b"{}", b"\xff", b'{"protocol": "yici-proof/1"}'):
        no_proof.write_bytes(content)
        assert refused(yici, "check", str(no_proof), "--key", key, status=1) == "proof-form"
    assert refused(yici, "check", str(file), "--key", "x", status=2) == "proof-key-invalid"
    with body.open("wb") as large:
        large.truncate(65 * 1024 * 1024)
    assert refused(yici, "check", str(file), "--key", key, "--body", str(body), status=2) == "proof-too-large"
    yici("check", str(file), status=2)
    yici("check", str(tmp_path / "missing.json"), "--key", key, status=2)


def test_what_does_not_print_is_not_printed(yici: Yici, kept: Kept, tmp_path: Path) -> None:
    """A proof comes from elsewhere: what it says must not move the cursor of who checks it."""
    proof: dict[str, Any] = json.loads(yici("export", str(kept.made[1])))
    payload = json.dumps({
        "from": "zj\x1b[2J", "to": "sh", "at": "\x07", "kind": "a", "id": "", "digest": "", "size": 0,
    }).encode()  # fmt: skip
    proof["record"]["reply"] = None
    proof["record"]["request"] = f"e30.{examplepage.base64url(payload)}.e30"
    file = tmp_path / "proof.json"
    file.write_text(json.dumps(proof), encoding="utf-8")
    shown = yici("check", str(file), "--key", _public(kept, "zj"), status=1)
    assert "\x07" not in shown and "\x1b[2J" not in shown


def test_chain(yici: Yici, kept: Kept) -> None:
    ledgers.plain(kept.engine, 3)
    done = json.loads(yici("chain", "--json"))
    assert done["records"] == 3 and done["head"]["position"] == 9
    assert yici("chain") == ""
    assert json.loads(yici("verify", "--no-peers", "--json"))["records"] == 9


def test_every_command_shows_an_example(yici: Yici) -> None:
    for name in ("list", "show", "verify", "export", "check", "chain"):
        assert f"yici ledger {name}" in yici(name, "--help")


def _public(kept: Kept, name: str) -> str:
    return str(ledgers.key_of(kept.folder / name).as_dict(private=False)["x"])
