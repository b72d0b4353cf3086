"""hub/index_keys.py: both sides derive the same ids, ids of two epochs have nothing in common, keys are kept sealed."""

from __future__ import annotations

import hmac
from hashlib import sha256
from pathlib import Path

import pytest

from connectors.errors import FatalError
from hub import index_keys
from hub.home import Home, KeyedHash, identifier_text
from hub.index_keys import SealedKey

AGREED = bytes(range(32))
USCC = ("cn.uscc", "91310117MA1J3AJ43G")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def hkdf(key: bytes, info: bytes) -> bytes:
    """RFC 5869 for 32 bytes, no salt: extract, then one block of expand."""
    return hmac.digest(hmac.digest(bytes(32), key, sha256), info + b"\x01", sha256)


def test_the_epoch_key_is_that_of_the_protocol() -> None:
    assert index_keys.epoch_key(AGREED, "2026-01") == hkdf(AGREED, b"yici-index epoch 2026-01")


def test_an_id_says_nothing_under_another_epoch() -> None:
    first, second = (index_keys.epoch_key(AGREED, epoch) for epoch in ("2026-01", "2026-02"))
    assert index_keys.subject_id(first, *USCC) == hmac.digest(first, identifier_text(*USCC).encode(), sha256)[:16]
    assert index_keys.subject_id(first, *USCC) != index_keys.subject_id(second, *USCC)
    assert index_keys.subject_id(first, "cn.tax", USCC[1]) != index_keys.subject_id(first, *USCC)
    assert index_keys.handle(first, "ab" * 16) != index_keys.handle(second, "ab" * 16)


def test_a_key_goes_with_a_cursor(home: Home, tmp_path: Path) -> None:
    cursor = {"epoch": "1", index_keys.CURSOR_KEY: index_keys.for_cursor(home, "js", "1", AGREED)}
    sealed = index_keys.of_cursor(cursor)
    assert index_keys.unseal(home, sealed, index_keys.sealed_for("js", "1")) == AGREED
    assert index_keys.readable(home, sealed, "js", "1")
    for other in (("js", "2"), ("ah", "1")):
        assert not index_keys.readable(home, sealed, *other)
    assert not index_keys.readable(Home(tmp_path / "other"), sealed, "js", "1")
    for strange in (None, [], {}, {"key": None}, {"key": 7}, {"key": "é"}, {"key": "AAA"}):
        assert index_keys.of_cursor(strange) is None
    assert not index_keys.readable(home, None, "js", "1") and not index_keys.readable(home, b"x", "js", "1")


def test_a_sealed_key_opens_here_for_its_purpose_alone(home: Home, tmp_path: Path) -> None:
    sealed = index_keys.seal(home, AGREED, "js 1")
    assert AGREED not in sealed and sealed != index_keys.seal(home, AGREED, "js 1")
    assert index_keys.unseal(home, sealed, "js 1") == AGREED
    elsewhere = Home(tmp_path / "other")
    with pytest.raises(FatalError) as caught:
        index_keys.unseal(elsewhere, sealed, "js 1")
    assert caught.value.code == "key-missing"
    elsewhere.secret(index_keys.SEALING_KEY)
    altered = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for place, content, about in (
        (home, sealed, "js 2"), (home, altered, "js 1"), (home, sealed[:10], "js 1"), (elsewhere, sealed, "js 1"),
    ):  # fmt: skip
        with pytest.raises(FatalError) as caught:
            index_keys.unseal(place, content, about)
        assert caught.value.code == "index-key-unreadable"


def test_everybody_asked_about_is_known_under_every_key(home: Home) -> None:
    hashing = KeyedHash(b"p" * 32)
    person = ("cn.ric", "11010519491231002X")
    holders = {hashing.of(identifier_text(*who)): who for who in (USCC, person)}
    keys = [
        SealedKey(source, epoch, index_keys.seal(home, index_keys.epoch_key(AGREED, epoch), f"{source} {epoch}"))
        for source, epoch in (("js-hub-index", "1"), ("js-hub-index", "2"))
    ]
    found = index_keys.asked_as(home, keys, holders, hashing)
    assert len(found) == 4 and set(found.values()) == set(holders)
    subject = index_keys.subject_id(index_keys.epoch_key(AGREED, "2"), *USCC).hex()
    assert found[hashing.of(f"index:js-hub-index:2:{subject}")] == hashing.of(identifier_text(*USCC))
