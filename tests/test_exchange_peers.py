"""The hubs that are known: added, taken anew, removed; which keys and certificates count when."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import sqlalchemy as sa

from connectors.errors import FatalError, UsageError, YiciError
from hub.exchange import cards, keys, peers
from hub.home import Home

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def shanghai(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    monkeypatch.setenv("YICI_HUB", "sh")
    monkeypatch.setenv("YICI_REGION", "310000")
    return store


class Other:
    """Another hub's home, without a store."""

    def __init__(self, folder: Path, name: str = "zj", region: str = "330000") -> None:
        self.variables = {"YICI_HOME": str(folder / name), "YICI_HUB": name, "YICI_REGION": region}
        self.home = Home(folder / name)

    def card(self) -> bytes:
        with mock.patch.dict(os.environ, self.variables):
            return json.dumps(cards.own()).encode()

    def rotate(self, overlap: dt.timedelta = HOUR) -> keys.Keys:
        with mock.patch.dict(os.environ, self.variables):
            return keys.rotate(overlap)


@pytest.fixture
def zhejiang(tmp_path: Path) -> Iterator[Other]:
    yield Other(tmp_path)


def code(call: Any, *arguments: Any, **more: Any) -> str:
    with pytest.raises(YiciError) as refusal:
        call(*arguments, **more)
    return refusal.value.code


def test_added_found_removed_and_back(shanghai: sa.Engine, zhejiang: Other) -> None:
    with shanghai.begin() as connection:
        assert peers.find(connection, "zj") is None and code(peers.of, connection, "zj") == "peer-unknown"
        added = peers.add(connection, zhejiang.card())
        assert (added.name, added.region, added.removed, added.failures) == ("zj", "330000", False, 0)
        assert peers.of(connection, "zj") == added and peers.every(connection) == [added]
        assert code(peers.add, connection, zhejiang.card()) == "peer-known-already"
        [pin] = peers.pinned(connection, dt.datetime.now(dt.UTC))
        assert (pin.peer, pin.fingerprint) == ("zj", added.certificates[0].fingerprint)
        peers.remove(connection, "zj")
        assert code(peers.of, connection, "zj") == code(peers.remove, connection, "zj") == "peer-unknown"
        assert peers.every(connection) == [] and peers.pinned(connection, dt.datetime.now(dt.UTC)) == []
        gone = peers.find(connection, "zj")
        assert gone is not None and gone.removed and len(peers.keys_ever(gone)) == 1
        assert peers.every(connection, removed=True) == [gone]
        assert not peers.add(connection, zhejiang.card()).removed


def test_a_card_is_taken_for_the_key_that_was_told(shanghai: sa.Engine, zhejiang: Other, tmp_path: Path) -> None:
    """Whoever puts a hub's key beside their own does not become that hub."""
    kid = keys.own(zhejiang.home).keys[0].name
    thief = Other(tmp_path / "thief")
    stolen = json.loads(zhejiang.card())["keys"]
    with mock.patch.dict(os.environ, thief.variables):
        told = cards.own()
        told["keys"] += stolen
        told.pop("signature")
        key = keys.own().signing(dt.datetime.now(dt.UTC))
        told["signature"] = cards.signature.detached(cards._canonical(told), key, cards.TYPE)
    with shanghai.begin() as connection:
        assert code(peers.add, connection, json.dumps(told).encode(), kid) == "peer-kid"
        assert code(peers.add, connection, zhejiang.card()[:-4] + b'A"}', kid) in ("card-signature", "card-invalid")
        assert peers.add(connection, zhejiang.card(), kid).name == "zj"


def test_a_hub_is_no_peer_of_itself(shanghai: sa.Engine, tmp_path: Path) -> None:
    with shanghai.begin() as connection:
        assert code(peers.add, connection, Other(tmp_path, "sh", "310000").card()) == "peer-self"


def test_later_cards(shanghai: sa.Engine, zhejiang: Other, tmp_path: Path) -> None:
    first = zhejiang.card()
    with shanghai.begin() as connection:
        peer = peers.add(connection, first)
        assert not peers.take(connection, peer, first)
        made = zhejiang.rotate()
        second = zhejiang.card()
        assert peers.take(connection, peer, second)
        peer = peers.of(connection, "zj")
        now = dt.datetime.now(dt.UTC)
        assert [key.thumbprint() for key in peers.keys_at(peer, now)] == [key.name for key in made.keys]
        assert len(peers.keys_at(peer, now + 2 * HOUR)) == 1
        # A certificate is let in a little longer than it lasts, a key is not.
        assert len(peers.fingerprints(peer, now + HOUR + dt.timedelta(minutes=10))) == 2
        assert len(peers.fingerprints(peer, now + 2 * HOUR)) == len(peers.pems(peer, now + 2 * HOUR)) == 1
        assert peers.keys_at(peer, now - 48 * HOUR) == []
        assert code(peers.take, connection, peer, first) == "card-old"
        assert code(peers.take, connection, peer, Other(tmp_path, "ah", "340000").card()) == "card-foreign"
        assert code(peers.take, connection, peer, Other(tmp_path / "x").card()) == "card-signature"
        zhejiang.variables["YICI_REGION"] = "340000"
        assert code(peers.take, connection, peer, zhejiang.card()) == "card-foreign"


def test_an_older_card_is_not_taken_by_hand_either(shanghai: sa.Engine, zhejiang: Other) -> None:
    """Else a key that was given up, as after a leak, would be good again."""
    first = zhejiang.card()
    with shanghai.begin() as connection:
        peers.add(connection, first)
        made = zhejiang.rotate(dt.timedelta(0))
        second = zhejiang.card()
        new = peers.add(connection, second, replace=True)
        assert code(peers.add, connection, first, replace=True) == "card-old"
        now = dt.datetime.now(dt.UTC)
        assert peers.of(connection, "zj") == new
        assert [key.thumbprint() for key in peers.keys_at(new, now)] == [made.keys[-1].name]
        assert peers.add(connection, second, replace=True).card_at == new.card_at
        peers.remove(connection, "zj")
        assert code(peers.add, connection, first) == "card-old"
        assert not peers.add(connection, second).removed


def test_a_key_that_a_card_no_longer_names_has_ended(shanghai: sa.Engine, zhejiang: Other) -> None:
    with shanghai.begin() as connection:
        old = peers.add(connection, zhejiang.card())
        for path in zhejiang.home.keys.iterdir():  # all is lost
            path.unlink()
        keys._read.clear()
        assert code(peers.take, connection, old, zhejiang.card()) == "card-signature"
        peer = peers.add(connection, zhejiang.card(), replace=True)
        now = dt.datetime.now(dt.UTC)
        assert [key.thumbprint() for key in peers.keys_at(peer, now)] == [keys.own(zhejiang.home).keys[0].name]
        assert len(peers.keys_ever(peer)) == 2 and old.keys[0].kid == peer.keys[0].kid
        assert peers.keys_at(peer, old.card_at) == peers.keys_ever(peer)  # what it said then can be verified
        assert len(peers.pinned(connection, now + HOUR)) == 1


def test_when_it_took_our_card(shanghai: sa.Engine, zhejiang: Other) -> None:
    at = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    with shanghai.begin() as connection:
        assert peers.add(connection, zhejiang.card()).told_at is None
        peers.told(connection, "zj", at)
        assert peers.of(connection, "zj").told_at == at
        assert peers.add(connection, zhejiang.card(), replace=True).told_at is None  # it may have lost that too


def test_a_name_is_shown_only_where_it_is_one(shanghai: sa.Engine) -> None:
    with shanghai.begin() as connection, pytest.raises(UsageError) as refusal:
        peers.of(connection, "11010519491231002X")
    assert refusal.value.values == {"peer": "…"}


def test_what_a_card_may_not_do(shanghai: sa.Engine, zhejiang: Other) -> None:
    with shanghai.begin() as connection:
        for text in (b"", b"{}", b"x" * 100_000):
            with pytest.raises(FatalError):
                peers.add(connection, text)
