"""hub/exchange/checkpoints.py: what this hub signs goes out, what peers signed stays, and what cannot be is noted."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from joserfc.jwk import OKPKey

from connectors import signature
from hub.exchange import checkpoints, keys, ledger, peers
from hub.exchange.checkpoints import Checkpoint, made
from hub.exchange.peers import Peer
from tests import examplepage, ledgers

AT = dt.datetime.now(dt.UTC).replace(microsecond=5)


@pytest.fixture
def hub(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    monkeypatch.setenv("YICI_HUB", "sh")
    monkeypatch.setenv("YICI_REGION", "310000")
    monkeypatch.setattr(checkpoints, "FRESH", 0.0)
    monkeypatch.setattr(checkpoints, "_heard", {})
    yield store


@pytest.fixture
def zj(hub: sa.Engine, tmp_path: Path) -> Peer:
    with hub.begin() as connection:
        return ledgers.partner(connection, tmp_path / "zj")


@pytest.fixture
def key(zj: Peer, tmp_path: Path) -> OKPKey:
    return ledgers.key_of(tmp_path / "zj")


def after(seconds: float) -> dt.datetime:
    return AT + dt.timedelta(seconds=seconds)


def told(key: OKPKey, position: int, chain: int = 1, seconds: float | None = None) -> dict[str, Any]:
    at = after(position if seconds is None else seconds)
    return made("zj", position, bytes([chain]) * 32, at, key).told()


def signed(key: OKPKey, **said: Any) -> dict[str, Any]:
    """A head of whatever form, signed all the same."""
    payload = json.dumps({"protocol": "yici/1", "hub": "zj", **said}).encode()
    return {**said, "signature": signature.sign(payload, key, checkpoints.TYPE)}


def heard(hub: sa.Engine, peer: Peer, head: Any) -> bool:
    with hub.begin() as connection:
        return checkpoints.witness(connection, peer, head)


def kept(hub: sa.Engine) -> list[int]:
    with hub.connect() as connection:
        query = sa.text("SELECT position FROM exchange_checkpoint WHERE hub = 'zj' ORDER BY position")
        return list(connection.scalars(query))


def noted(hub: sa.Engine) -> list[str]:
    with hub.connect() as connection:
        query = sa.text("SELECT outcome FROM exchange_record WHERE direction = 'noted' AND peer = 'zj' ORDER BY id")
        return list(connection.scalars(query))


def test_the_head_is_the_latest_that_was_signed(hub: sa.Engine) -> None:
    assert checkpoints.head() is None
    for number in (1, 2):
        ledgers.plain(hub, 2)
        ledger.chain(hub)
        head = checkpoints.head()
        assert head is not None and head["position"] == 2 * number
        found = checkpoints.opened(head["signature"], "sh", keys.own().public())
        assert found is not None and found.told() == head
        with hub.connect() as connection:
            assert checkpoints.head(connection) == head
    assert checkpoints.opened(head["signature"], "zj", keys.own().public()) is None, "another hub's word"
    assert checkpoints.opened(head["signature"], "sh", [examplepage.key()]) is None
    assert checkpoints.opened("a.b.c", "sh", keys.own().public()) is None


def test_a_head_is_read_once_in_a_while_by_one(hub: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "FRESH", 60.0)
    read, go = [], threading.Event()
    latest = checkpoints._latest

    def slow(connection: sa.Connection) -> Any:
        read.append(1)
        go.wait(10)
        return latest(connection)

    ledgers.plain(hub, 1)
    ledger.chain(hub)
    first = checkpoints.head()
    ledgers.plain(hub, 1)
    ledger.chain(hub)
    assert checkpoints.head() == first, "still fresh"
    monkeypatch.setattr(checkpoints, "FRESH", 0.0)
    monkeypatch.setattr(checkpoints, "_latest", slow)
    thread = threading.Thread(target=checkpoints.head)
    thread.start()
    while not read:
        pass
    assert checkpoints.head() == first, "while another reads, what was known"
    go.set()
    thread.join()
    head = checkpoints.head()
    assert head is not None and head["position"] == 2


def test_what_is_signed_later_is_not_earlier_whatever_the_clock_does(hub: sa.Engine) -> None:
    ledgers.plain(hub, 1)
    ledger.chain(hub)
    ahead = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    with hub.begin() as connection:
        connection.execute(sa.text("UPDATE exchange_checkpoint SET signed_at = :ahead"), {"ahead": ahead})
    ledgers.plain(hub, 1)
    ledger.chain(hub)
    head = checkpoints.head()
    assert head is not None and dt.datetime.fromisoformat(head["at"]) == ahead


def test_it_is_signed_with_the_key_of_now(hub: sa.Engine) -> None:
    ledgers.plain(hub, 1)
    ledger.chain(hub)
    keys.rotate(dt.timedelta(0))
    ledgers.plain(hub, 1)
    ledger.chain(hub)
    old, new = keys.own().public()
    head = checkpoints.head()
    assert head is not None
    assert checkpoints.opened(head["signature"], "sh", [old]) is None
    assert checkpoints.opened(head["signature"], "sh", [new]) is not None


def test_checkpoints_of_a_peer_are_kept_whatever_order_they_come_in(hub: sa.Engine, zj: Peer, key: OKPKey) -> None:
    for position in (5, 9, 7, 9, 5):
        assert heard(hub, zj, told(key, position))
    assert heard(hub, zj, None)
    assert kept(hub) == [5, 7, 9] and noted(hub) == []


@pytest.mark.parametrize(("position", "chain", "seconds"), [
    (7, 2, 7),  # another chain at the same position
    (8, 1, 6.5),  # later in the chain, signed before what is kept of an earlier position
    (6, 1, 7.5),  # earlier in the chain, signed after: it went back
    (9, 2, 9),
])  # fmt: skip
def test_what_cannot_be_beside_what_is_kept_is_noted(
    hub: sa.Engine, zj: Peer, key: OKPKey, position: int, chain: int, seconds: float
) -> None:
    for known in (5, 7, 9):
        assert heard(hub, zj, told(key, known))
    lie = told(key, position, chain, seconds)
    assert not heard(hub, zj, lie) and not heard(hub, zj, lie)
    assert kept(hub) == [5, 7, 9]
    assert noted(hub) == ["checkpoint-contradicts"], "once in a while"
    with hub.connect() as connection:
        detail = connection.scalar(sa.text("SELECT detail::jsonb FROM exchange_record"))
    assert detail["told"] == lie
    proved = checkpoints.opened(detail["kept"]["signature"], "zj", peers.keys_ever(zj))
    assert proved is not None and proved.told() == detail["kept"], "both are signed: that is the proof"


def test_what_was_noted_in_vain_is_noted_again(hub: sa.Engine, zj: Peer, key: OKPKey) -> None:
    assert heard(hub, zj, told(key, 7))
    lie = told(key, 7, 2)
    with hub.connect() as connection:
        assert not checkpoints.witness(connection, zj, lie)
        connection.rollback()
    assert noted(hub) == []
    assert not heard(hub, zj, lie)
    assert noted(hub) == ["checkpoint-contradicts"]


def test_what_the_key_did_not_sign_is_noted(hub: sa.Engine, zj: Peer, key: OKPKey) -> None:
    right, other = told(key, 7), told(key, 8)
    false: list[Any] = [
        {**right, "position": 8},
        {**right, "chain": "00" * 32},
        {**right, "at": other["at"]},
        {**right, "signature": other["signature"]},
        {**right, "signature": right["signature"][:-9] + "AAAAAAAAA"},
        made("ah", 7, bytes(32), AT, key).told(),
        {**right, "signature": signature.sign(b"{}", key, checkpoints.TYPE)},
        {**right, "signature": signature.sign(b"[]", key, checkpoints.TYPE)},
        Checkpoint(0, bytes(32), AT, made("zj", 0, bytes(32), AT, key).signature).told(),
        {**right, "position": 10**30},
        made("zj", 10**18 * 10, bytes(32), AT, key).told(),
        signed(key, position=7, chain="00" * 32, at="0001-01-01T00:00:00+14:00"),
        signed(key, position=7, chain="00" * 32, at="2026-03-01T08:30:00"),
        signed(key, position="7", chain="00" * 32, at=right["at"]),
        signed(key, position=7, chain="00", at=right["at"]),
        {"signature": right["signature"]},
        {"signature": 7},
        {"signature": "\x00" * 10_000},
        {},
    ]
    for lie in false:
        assert not heard(hub, zj, lie), lie
    assert set(noted(hub)) == {"checkpoint-false"} and kept(hub) == []
    assert heard(hub, zj, right)


def test_a_peer_writes_no_words_of_its_own_into_the_ledger(hub: sa.Engine, zj: Peer, key: OKPKey) -> None:
    right = told(key, 7)
    words = "x" * 9000
    head, payload, end = right["signature"].split(".")
    for told_signature in (
        words,
        f"{words}.{words}.{words}",
        right["signature"] + words,
        f"{head}.{payload}.{'words' * 20}",
        f"{head}.{payload}=words.{end}",
        signed(key, position=7, chain="00" * 32, at=right["at"], words="words")["signature"][:-9] + "AAAAAAAAA",
        7,
    ):
        assert not heard(hub, zj, {**right, "signature": told_signature})
        with hub.connect() as connection:
            query = sa.text("SELECT detail FROM exchange_record ORDER BY recorded_at DESC LIMIT 1")
            detail = json.loads(connection.scalar(query) or "")
        text = str(told_signature)
        assert detail == {"digest": sha256(text.encode()).hexdigest(), "length": len(text)}
    form = right["signature"][:-9] + "AAAAAAAAA"
    assert not heard(hub, zj, {**right, "signature": form})
    with hub.connect() as connection:
        assert {"told": form} in [
            json.loads(one) for one in connection.scalars(sa.text("SELECT detail FROM exchange_record"))
        ]


def test_a_key_that_nobody_knows_proves_nothing_and_accuses_nobody(hub: sa.Engine, zj: Peer) -> None:
    assert not heard(hub, zj, told(examplepage.key(), 7))
    assert kept(hub) == [] and noted(hub) == []


def test_nobody_waits_for_who_keeps_the_same(hub: sa.Engine, zj: Peer, key: OKPKey) -> None:
    with hub.connect() as first, hub.begin() as second:
        assert checkpoints.witness(first, zj, told(key, 7))
        second.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
        assert checkpoints.witness(second, zj, told(key, 7))
        first.commit()
    assert kept(hub) == [7]
    with hub.connect() as first, hub.begin() as second:
        assert checkpoints.witness(first, zj, told(key, 8))
        assert checkpoints.witness(second, zj, told(key, 8))
        first.rollback()
    assert heard(hub, zj, told(key, 8))  # it comes with the next message
    assert kept(hub) == [7, 8]


def test_what_is_known_costs_no_statement(hub: sa.Engine, zj: Peer, key: OKPKey) -> None:
    asked: list[str] = []
    heard(hub, zj, told(key, 7))
    heard(hub, zj, told(key, 7))
    sa.event.listen(hub, "before_cursor_execute", lambda *args: asked.append(args[2]))
    assert heard(hub, zj, told(key, 7)) and asked == []


def test_old_ones_become_sparse(hub: sa.Engine, zj: Peer, key: OKPKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "SPARSE", 10)
    for position in (1, 3, 9, 10, 12, 25, 31, 33):
        heard(hub, zj, told(key, position))
    with hub.begin() as connection:
        assert checkpoints.thin(connection) == 0, "all of the last day stay"
        old = "CASE position WHEN 1 THEN '2020-03-10Z' ELSE '2021-03-10Z' END::timestamptz"
        connection.execute(sa.text(f"UPDATE exchange_checkpoint SET signed_at = {old}"))
        assert checkpoints.thin(connection) == 3
        assert checkpoints.thin(connection) == 0
    assert kept(hub) == [1, 9, 12, 25, 33], "the last of a month, and of ten positions"
