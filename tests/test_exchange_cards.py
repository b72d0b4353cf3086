"""A hub's card: what it says, who signed it, and what is no card."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors import signature
from connectors.errors import FatalError, UsageError
from hub.exchange import cards, certificates, keys
from hub.home import Home
from tests import examplepage

HOUR = dt.timedelta(hours=1)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    for name, value in (("YICI_HOME", str(tmp_path / "home")), ("YICI_HUB", "zj"), ("YICI_REGION", "330000")):
        monkeypatch.setenv(name, value)
    yield Home(tmp_path / "home")


def written(told: dict[str, Any]) -> bytes:
    return json.dumps(told, ensure_ascii=False).encode()


def signed(key: Any = None, **changes: Any) -> bytes:
    """This hub's card with other members, signed as it should be."""
    told = {**cards.own(), **changes}
    told.pop("signature")
    key = key or keys.own().signing(dt.datetime.now(dt.UTC))
    return written({**told, "signature": signature.detached(cards._canonical(told), key, cards.TYPE)})


def test_it_says_who_the_hub_is(home: Home) -> None:
    cards.settle(title="浙江省数据局", exchange_addresses="https://a.example:8490 https://[::1]:8490")
    text = written(cards.own())
    card = cards.read(text)
    assert (card.hub, card.title, card.region) == ("zj", "浙江省数据局", "330000")
    assert card.addresses == ("https://a.example:8490", "https://[::1]:8490")
    own = keys.own()
    assert [key.kid for key in card.keys] == [own.keys[0].name]
    assert [entry.pem for entry in card.certificates] == [own.certificates[0].public]
    cards.verify(text, card, card.keys)
    assert cards.signer(card) == own.keys[0].name
    assert b"PRIVATE" not in text and not any(path.read_bytes() in text for path in home.keys.glob("*.key"))


def test_however_it_is_written_down() -> None:
    told = cards.own()
    text = json.dumps(dict(reversed(told.items())), indent=8).encode()
    cards.verify(text, cards.read(text), cards.read(text).keys)


def test_keys_that_ended_are_left_out() -> None:
    now = dt.datetime.now(dt.UTC)
    keys.rotate(HOUR, now)
    assert len(cards.own()["keys"]) == len(cards.own()["certificates"]) == 2
    card = cards.read(written(cards.own(now)))
    assert cards.signer(card) == keys.own().keys[0].name  # which peers know
    assert [key["kid"] for key in cards.own(now + HOUR)["keys"]] == [keys.own().keys[1].name]


def test_only_a_key_that_is_known_and_good_signs() -> None:
    text = signed()
    card = cards.read(text)
    strangers = cards.read(signed(key=examplepage.key()))
    with pytest.raises(FatalError) as refusal:
        cards.verify(signed(key=examplepage.key()), strangers, strangers.keys)
    assert refusal.value.code == "card-signature"
    for altered in (
        {**json.loads(text), "addresses": ["https://elsewhere.example"]},
        {**json.loads(text), "more": 1},
        {**json.loads(text), "signature": json.loads(signed(title="other"))["signature"]},
    ):
        with pytest.raises(FatalError):
            cards.verify(written(altered), cards.read(written(altered)), card.keys)
    ended = [cards.Key(key.kid, key.public_key, key.since, card.at) for key in card.keys]
    with pytest.raises(FatalError):
        cards.verify(text, card, ended)


def another_certificate(told: dict[str, Any]) -> None:
    told["certificates"][0]["pem"] = certificates.make("zj", dt.datetime.now(dt.UTC)).pem


LATER = (dt.datetime.now(dt.UTC) + 24 * HOUR).isoformat()
SPOILT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no name": lambda told: told.pop("hub"),
    "another kind of name": lambda told: told.update(hub="Zhejiang"),
    "no region": lambda told: told.update(region="33"),
    "a title of two lines": lambda told: told.update(title="a\nb"),
    "no address": lambda told: told.update(addresses=[]),
    "plain http": lambda told: told.update(addresses=["http://a.example"]),
    "a path": lambda told: told.update(addresses=["https://a.example/x"]),
    "a user": lambda told: told.update(addresses=["https://u:p@a.example"]),
    "a port that is none": lambda told: told.update(addresses=["https://a.example:99999"]),
    "a kid of another key": lambda told: told["keys"][0].update(kid=examplepage.key().thumbprint()),
    "a key that is none": lambda told: told["keys"][0].update(public_key="AAAA"),
    "no key": lambda told: told.update(keys=[]),
    "too many keys": lambda told: told.update(keys=told["keys"] * 9),
    "another certificate": another_certificate,
    "no zone": lambda told: told["keys"][0].update({"from": "2026-01-01T00:00:00"}),
    "of the future": lambda told: told.update(at=LATER),
}


@pytest.mark.parametrize("flaw", SPOILT)
def test_what_is_no_card(flaw: str) -> None:
    told = cards.own()
    cards.read(written(told))
    SPOILT[flaw](told)
    with pytest.raises(FatalError) as refusal:
        cards.read(written(told))
    assert refusal.value.code == "card-invalid"


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"null", b"\xff", b"[" * 50_000, b" " * 70_000], ids=range(7))
def test_what_is_not_even_json_of_one(text: bytes) -> None:
    with pytest.raises(FatalError) as refusal:
        cards.read(text)
    assert refusal.value.code == "card-invalid"


def test_a_change_is_known(home: Home) -> None:
    first = cards.changed_at()
    cards.settle(exchange_port="8491")
    assert cards.own()["addresses"] == ["https://127.0.0.1:8491"] and cards.changed_at() > first
    second = cards.changed_at()
    cards.settle(exchange_port="8491")
    assert cards.changed_at() == second
    keys.rotate(HOUR)
    assert cards.changed_at() > second
    for said, code in (({"exchange_addresses": "ftp://x"}, "card-address"), ({"title": "a\nb"}, "card-title")):
        with pytest.raises(UsageError) as refusal:
            cards.settle(**said)
        assert refusal.value.code == code
    home.remember(region="330000")
    assert home.identity("exchange_port") == "8491"
