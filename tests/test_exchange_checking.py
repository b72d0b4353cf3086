"""``yici peer check``, and ``yici peer`` as an operator uses it, between two hubs that serve."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import io
import json
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import sqlalchemy as sa

from connectors.errors import FatalError
from hub.cli import main
from hub.exchange import certificates, checking, keys, peers, tls, wire
from hub.exchange.caller import ask
from hub.home import Home
from tests import exchange_server
from tests.exchanging import Hub, two_hubs

Hubs = tuple[Hub, Hub]
ALL = ["name", "port", "certificate", "accepted", "clock", "key", "message", "card", "agreement"]


@pytest.fixture(scope="module")
def hubs(server_home: Home, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hubs]:
    with two_hubs(server_home, template, tmp_path_factory.mktemp("hubs")) as both, both[1].serving():
        yield both


@pytest.fixture(autouse=True)
def acquainted(hubs: Hubs) -> Iterator[None]:
    hubs[0].knows(hubs[1])
    hubs[1].knows(hubs[0])
    with hubs[0].acting():
        yield


@pytest.fixture
def yici(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs ``yici peer …`` in this process; what it wrote to standard output."""

    def run(*arguments: str, status: int = 0) -> str:
        with mock.patch.object(sys, "argv", ["yici", "peer", *arguments]), pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        assert (done.value.code or 0) == status, (out, err)
        return out

    return run


def steps(**how: Any) -> dict[str, Any]:
    found = list(checking.steps("zj", **how))
    assert all(step.ok or step.advice for step in found)  # every failure says what to do
    return {step.step: step for step in found}


def addressed(sh: Hub, address: str) -> None:
    with sh.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("UPDATE exchange_peer SET addresses = :addresses"), {"addresses": [address]})


def test_all_is_well_but_for_an_agreement(hubs: Hubs, yici: Callable[..., str]) -> None:
    sh, zj = hubs
    found = steps()
    assert list(found) == ALL
    assert all(found[step].ok for step in ALL)
    assert [step for step in ALL if found[step].advice] == ["agreement"]
    assert "yici agreement propose" in found["agreement"].advice
    assert found["certificate"].detail == keys.own(zj.home).certificates[0].name
    assert found["accepted"].detail == keys.own(sh.home).certificates[0].name
    assert abs(float(found["clock"].detail.removesuffix(" s"))) < 2
    told = json.loads(yici("check", "zj", "--json"))
    assert told["ok"] is True and [step["step"] for step in told["steps"]] == ALL
    shown = yici("check", "zj")
    assert "! agreement" in shown and "→" in shown and "✗" not in shown
    for hub, direction in ((sh, "asked"), (zj, "answered")):
        kinds = {row.kind for row in hub.rows("SELECT kind FROM exchange_record WHERE direction = :d", d=direction)}
        assert kinds == {"peer.check"}
    with mock.patch.dict(os.environ, {"YICI_LANG": "zh"}):
        assert "没有协议" in yici("check", "zj")


def agreed(
    hub: Hub, peer: str, number: int, days: int, state: str = "in_force", begun: int = 9, replaced: int = 0
) -> None:
    """An agreement as ``hub`` keeps it: ``begun`` days ago, over in ``days``, replaced by another so many days ago."""
    with hub.acting() as engine, engine.begin() as connection:
        now = dt.datetime.now(dt.UTC)
        connection.execute(
            sa.text(
                """INSERT INTO exchange_agreement (id, version, peer, provider, document, state, valid_from, valid_to, replaced_at)
                VALUES (:id, 1, :peer, :provider, '', :state, :from, :to, :replaced)"""
            ),
            {"id": f"00000000-0000-7000-8000-00000000000{number}", "peer": peer, "provider": hub.name == "zj", "state": state,
             "from": now - dt.timedelta(days=begun), "to": now + dt.timedelta(days=days, hours=1),
             "replaced": now - dt.timedelta(days=replaced) if replaced else None},
        )  # fmt: skip


@pytest.fixture
def both(hubs: Hubs) -> Iterator[Callable[..., None]]:
    """Makes an agreement that both sides keep alike."""

    def make(*given: Any, **how: Any) -> None:
        for hub, peer in zip(hubs, ("zj", "sh"), strict=True):
            agreed(hub, peer, *given, **how)

    yield make
    for hub in hubs:
        with hub.acting() as engine, engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM exchange_agreement"))


def agreements_of() -> list[Any]:
    return [step for step in checking.steps("zj") if step.step == "agreement"]


def test_agreements_and_the_days_they_have_left(hubs: Hubs, both: Callable[..., None]) -> None:
    sh, zj = hubs
    both(0, 30)
    agreed(sh, "zj", 1, 30, "in_force")
    agreed(zj, "sh", 1, 30, "suspended")
    agreed(sh, "zj", 2, 30, "proposed")
    both(3, 30, "suspended")
    both(4, 30, begun=-2)
    both(5, 30, "proposed")
    found = agreements_of()
    assert [step.ok for step in found] == [True, False, False, False, True, True]
    assert "zj → sh: in_force, 30 d" in found[0].detail and not found[0].advice
    assert "in_force here and suspended at zj" in found[1].detail
    assert "proposed here and - at zj" in found[2].detail
    assert "yici agreement resume" in found[3].advice
    assert "in_force, from 20" in found[4].detail and not found[4].advice
    assert "not accepted yet" in found[5].detail and "yici agreement accept" in found[5].advice


def test_what_is_over_is_told_and_fails_nothing(
    hubs: Hubs, both: Callable[..., None], yici: Callable[..., str]
) -> None:
    sh, zj = hubs
    both(0, 30)
    both(1, -2)
    both(2, 30, "ended")
    both(3, 30, replaced=1)  # another version counts since
    agreed(sh, "zj", 4, -2, "ended")  # nobody minds who knows what of it
    agreed(zj, "sh", 4, -2, "suspended")
    agreed(zj, "sh", 5, 30, "ended")
    found = agreements_of()
    assert all(step.ok for step in found)
    assert [bool(step.advice) for step in found] == [False, True, False, True, False]
    assert "ended on" in found[1].detail and "yici agreement end" in found[1].advice
    assert "was ended" in found[2].detail
    shown = yici("check", "zj")
    assert shown.count("! agreement") == 2 and shown.count("✓ agreement") == 3 and "✗" not in shown


def test_where_nothing_is_in_force_any_more_that_is_said(hubs: Hubs, both: Callable[..., None]) -> None:
    both(0, -2)
    both(1, 30, "ended")
    found = agreements_of()
    assert [step.ok for step in found] == [True, True, True]
    assert "No agreement with zj is in force" in found[2].detail and "yici agreement propose" in found[2].advice


def test_a_name_nobody_has(hubs: Hubs) -> None:
    addressed(hubs[0], "https://nobody.invalid:8490")
    found = steps()
    assert list(found) == ["name"] and not found["name"].ok


def test_a_port_that_is_closed(hubs: Hubs) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        addressed(hubs[0], f"https://127.0.0.1:{probe.getsockname()[1]}")
        found = steps()
    assert list(found) == ["name", "port"] and not found["port"].ok and "firewall" in found["port"].advice


@contextlib.contextmanager
def listening(context: ssl.SSLContext | None) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def test_somebody_else_answers_there(hubs: Hubs, tmp_path: Path) -> None:
    made = certificates.make("zj", dt.datetime.now(dt.UTC))
    (tmp_path / "pem").write_text(made.private + made.pem)
    with listening(tls.server_context(tmp_path / "pem", [keys.own(hubs[0].home).certificates[0].public])) as address:
        addressed(hubs[0], address)
        found = steps()
    assert list(found) == ["name", "port", "certificate"] and not found["certificate"].ok
    assert made.fingerprint in found["certificate"].detail
    assert keys.own(hubs[1].home).certificates[0].name in found["certificate"].detail
    with listening(None) as address:
        addressed(hubs[0], address)
        assert "TLS" in steps()["certificate"].detail


def test_the_peer_does_not_know_this_hub(hubs: Hubs) -> None:
    sh, zj = hubs
    with zj.acting() as engine, engine.begin() as connection:
        peers.remove(connection, "sh")
    wire._pools.clear()
    found = steps()
    assert list(found) == ["name", "port", "certificate", "accepted"] and not found["accepted"].ok
    assert keys.own(sh.home).certificates[0].name in found["accepted"].detail
    assert "yici peer card" in found["accepted"].advice


def drip(line: ssl.SSLSocket) -> None:
    with contextlib.suppress(OSError):
        for byte in b"HTTP/1.1 200 OK" * 20:
            line.sendall(bytes([byte]))
            time.sleep(0.1)


OTHERS: dict[str, tuple[str, Callable[[ssl.SSLSocket], Any]]] = {
    "silence": ("within 1 s", lambda line: line.recv(65536)),
    "drops": ("within 1 s", drip),
    "a redirect": ("HTTP 307", lambda line: line.sendall(b"HTTP/1.1 307 X\r\nLocation: /\r\n\r\n")),
    "busy": ("HTTP 503", lambda line: line.sendall(b"HTTP/1.1 503 X\r\n\r\n")),
    "no HTTP": ("(-)", lambda line: line.sendall(b"\x00\xff" * 600)),
    "no word": ("ends the connection", lambda line: None),
}


@pytest.mark.parametrize("who", OTHERS)
def test_what_answers_with_the_certificate_of_the_peer(hubs: Hubs, who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sh, zj = hubs
    shown, says = OTHERS[who]
    context = tls.server_context(zj.certificate(), [keys.own(sh.home).certificates[0].public])

    def once() -> None:
        line, _ = server.accept()
        with contextlib.suppress(OSError), context.wrap_socket(line, server_side=True) as wrapped:
            wrapped.recv(65536)
            says(wrapped)

    monkeypatch.setattr(checking, "SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        addressed(sh, f"https://127.0.0.1:{server.getsockname()[1]}")
        thread = threading.Thread(target=once, daemon=True)
        thread.start()
        began = time.monotonic()
        found = steps()
        assert time.monotonic() - began < 5
        thread.join(10)
    assert list(found) == ["name", "port", "certificate", "accepted"] and not found["accepted"].ok
    assert shown in found["accepted"].detail


def test_the_peer_has_another_key_of_this_hub(hubs: Hubs) -> None:
    sh, zj = hubs
    with zj.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("UPDATE exchange_peer SET keys = '[]'"))
    found = steps()
    assert list(found)[-1] == "message" and not found["message"].ok
    assert "message-signature" in found["message"].detail and "yici peer card" in found["message"].advice
    with sh.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("UPDATE exchange_peer SET keys = '[]'"))
    assert list(steps())[-1] == "key"  # nor do we know its


@pytest.mark.parametrize("minutes", [-20, 20])
def test_clocks_that_differ(hubs: Hubs, minutes: int) -> None:
    zj = hubs[1]
    zj.stop()
    zj.variables[exchange_server.CLOCK] = str(minutes)
    zj.start()
    try:
        found = steps()
        assert list(found)[-1] == "clock" and not found["clock"].ok and "timedatectl" in found["clock"].advice
        assert f"by {minutes * 60}"[:-1] in found["clock"].detail
        with pytest.raises(FatalError) as refusal:
            ask("zj", "test.echo", {}, seconds=5)
        assert refusal.value.code == "message-stale"
    finally:
        zj.stop()
        del zj.variables[exchange_server.CLOCK]
        zj.start()


def test_the_peer_has_an_older_card(hubs: Hubs, yici: Callable[..., str]) -> None:
    zj = hubs[1]
    made = keys.rotate(dt.timedelta(hours=2))
    found = steps()
    assert not found["card"].ok and made.keys[-1].name in found["card"].detail
    assert "--introduce" in found["card"].advice
    assert "✗ card" in yici("check", "zj", status=1)
    yici("check", "zj", "--introduce")
    assert steps()["card"].ok
    assert [key.kid for key in zj.peer("sh").keys][-1] == made.keys[-1].name


# -- commands ------------------------------------------------------------------------------------------------------------


def test_card_add_list_remove(
    hubs: Hubs, yici: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zj = hubs[1]
    assert yici("remove", "zj", "--yes", "--json") == '{\n  "peer": "zj",\n  "removed": true\n}\n'
    assert json.loads(yici("list", "--json")) == []
    with zj.acting():
        shown = yici("card", "--title", "浙江省数据局")
    file = tmp_path / "zj.json"
    file.write_text(shown)
    kid = keys.own(zj.home).keys[0].name
    assert json.loads(shown)["title"] == "浙江省数据局"

    def code(out: str) -> str:
        return str(json.loads(out)["error"]["code"])

    assert code(yici("add", str(file), "--kid", "another", "--json", status=2)) == "peer-kid"
    assert code(yici("add", str(tmp_path / "none"), "--json", status=2)) == "card-unreadable"
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    yici("add", str(file), status=1)
    assert json.loads(yici("list", "--json")) == []
    added = json.loads(yici("add", str(file), "--kid", kid, "--json"))
    assert (added["peer"], added["title"], [key["kid"] for key in added["keys"]]) == ("zj", "浙江省数据局", [kid])
    assert code(yici("add", str(file), "--yes", "--json", status=2)) == "peer-known-already"
    yici("add", str(file), "--yes", "--replace")
    assert [peer["peer"] for peer in json.loads(yici("list", "--json"))] == ["zj"]
    assert "浙江省数据局" in yici("list") and kid in yici("list")
    assert code(yici("remove", "ah", "--yes", "--json", status=2)) == "peer-unknown"
    assert code(yici("check", "ah", "--json", status=2)) == "peer-unknown"


@pytest.mark.slow
def test_rotate_key_tells_the_peers(hubs: Hubs, yici: Callable[..., str]) -> None:
    zj = hubs[1]
    told = json.loads(yici("rotate-key", "--overlap", "1", "--json"))
    assert told["told"] == {"zj": "ok"}
    assert told["kid"] in {key.kid for key in zj.peer("sh").keys}
    zj.stop()
    try:
        assert "not told yet" in yici("rotate-key")
    finally:
        zj.start()


def test_with_no_overlap_nobody_can_be_told_but_by_hand(hubs: Hubs, yici: Callable[..., str], tmp_path: Path) -> None:
    sh, zj = hubs
    told = json.loads(yici("rotate-key", "--overlap", "0", "--json"))
    assert told["told"] == {"zj": "card-by-hand"}, "it runs, and is not called away"
    wire._pools.clear()
    assert not steps()["accepted"].ok
    shown = yici("rotate-key", "--overlap", "0")
    kid = keys.own(sh.home).keys[-1].name
    assert "zj: by hand" in shown and f"yici peer add card.json --kid {kid} --replace" in shown
    (tmp_path / "card.json").write_bytes(sh.card())
    with zj.acting():
        yici("add", str(tmp_path / "card.json"), "--kid", kid, "--replace", "--json")
    wire._pools.clear()
    assert steps()["card"].ok
