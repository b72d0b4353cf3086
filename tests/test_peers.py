"""Grants to other hubs: what is refused, what is kept, what a new epoch is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from connectors.errors import FatalError, UsageError, YiciError
from hub import database, peers, signing
from hub.home import Home
from tests.peering import PartnerHub, partner_hub

LICENCE = ["business-licence"]


@pytest.fixture(scope="module")
def partner(server_home: Home) -> Iterator[PartnerHub]:
    with partner_hub(server_home, served=False) as hub:
        yield hub


@pytest.fixture(autouse=True)
def engine(partner: PartnerHub) -> Iterator[sa.Engine]:
    partner.forget()
    with partner.acting() as engine:
        yield engine


def test_what_is_granted_is_kept_and_no_secret_of_it(engine: sa.Engine) -> None:
    end = dt.datetime(2999, 1, 1, tzinfo=dt.UTC)
    granted = peers.grant("sh", "Shanghai", [*LICENCE, *LICENCE], ["330100", "3302", "33"], end)
    [peer] = peers.every()
    assert (peer.client, peer.name, peer.materials, peer.regions) == (
        "sh", "Shanghai", ("business-licence",), ("3301", "3302", "33"),
    )  # fmt: skip
    assert (peer.valid_to, peer.read_at) == (end, None) and peer.in_force(dt.datetime.now(dt.UTC))
    assert peers.authenticate(engine, "sh", granted.secret)
    assert not peers.authenticate(engine, "sh", granted.secret[:-1])
    assert not peers.authenticate(engine, "js", granted.secret)
    assert not peers.authenticate(engine, "s\0h", "x")
    with engine.connect() as connection:
        row = connection.execute(sa.text("SELECT secret_hash, sealed_key FROM peer")).one()
        assert granted.secret not in row.secret_hash and granted.key not in bytes(row.sealed_key)
        assert peers.epoch_key(connection, peer) != granted.key
    assert len(granted.key) == 32 and len(granted.secret) >= 43


REFUSED = [
    ({"client": "S H"}, "client-invalid-name"),
    ({"materials": []}, "peer-empty"),
    ({"materials": ["nothing"]}, "material-unknown"),
    ({"materials": ["service-item"]}, "material-unknown"),
    ({"materials": ["index-entry"]}, "material-unknown"),
    ({"materials": ["marriage-certificate"]}, "material-not-indexed"),
    ({"regions": ["310000"]}, "region-foreign"),
    ({"regions": ["3"]}, "region-foreign"),
    ({"regions": ["33x"]}, "region-foreign"),
    ({"regions": [""]}, "region-foreign"),
    ({"regions": ["000000"]}, "region-foreign"),
]


@pytest.mark.parametrize(("changed", "code"), REFUSED, ids=[f"{change}" for change, _ in REFUSED])
def test_refused_grants(changed: dict[str, object], code: str) -> None:
    with pytest.raises(UsageError) as refused:
        peers.grant(**{"client": "sh", "name": "Shanghai", "materials": LICENCE, **changed})  # type: ignore[arg-type]
    assert refused.value.code == code and peers.every() == []


def test_a_hub_without_name_or_region_grants_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, code in (
        ("YICI_REGION", "", "hub-region-missing"),
        ("YICI_REGION", "33", "hub-region-missing"),
        ("YICI_HUB", "Zhe Jiang", "hub-name-invalid"),
    ):
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            with pytest.raises(FatalError) as refused:
                peers.grant("sh", "Shanghai", LICENCE)
            assert refused.value.code == code
    monkeypatch.delenv("YICI_HUB")
    assert signing.publisher() == signing.Publisher("hub", "330000")


def test_again_only_on_purpose_and_then_with_all_new(engine: sa.Engine) -> None:
    first = peers.grant("sh", "Shanghai", LICENCE)
    [before] = peers.every()
    with pytest.raises(UsageError) as refused:
        peers.grant("sh", "Shanghai", LICENCE)
    assert refused.value.code == "peer-known"
    second = peers.grant("sh", "Shanghai", LICENCE, replace=True)
    [after] = peers.every()
    assert after.epoch > before.epoch and second.key != first.key
    assert not peers.authenticate(engine, "sh", first.secret)


def test_rotate_and_revoke() -> None:
    granted = peers.grant("sh", "Shanghai", LICENCE)
    epochs = [peers.every()[0].epoch, peers.rotate("sh"), peers.rotate("sh"), peers.rotate("sh")]
    assert epochs == sorted(set(epochs)), "each sorts after the one before, also within one second"
    assert peers.every()[0].epoch == epochs[-1]
    peers.revoke("sh")
    [ended] = peers.every()
    assert not ended.in_force(dt.datetime.now(dt.UTC))
    peers.revoke("sh")
    assert peers.every() == [ended], "the moment it ended stays"
    with pytest.raises(UsageError) as refused:
        peers.rotate("sh")
    assert refused.value.code == "peer-ended"
    again = peers.grant("sh", "Shanghai", LICENCE, replace=True)
    assert again.key != granted.key and peers.every()[0].epoch > epochs[-1]
    for action in (peers.rotate, peers.revoke):
        with pytest.raises(UsageError) as refused:
            action("js")
        assert refused.value.code == "peer-unknown"


def test_the_epoch_follows_the_scope() -> None:
    peers.grant("sh", "Shanghai", LICENCE)
    with database.engine().begin() as connection:
        peer = peers.of(connection, "sh")
        assert peer
        scope = peers.scope(peer, signing.publisher())
        assert scope == peers.Scope(("business-licence",), ("33",))
        assert peers.up_to_date(connection, peer, scope) == peer
        narrower = peers.Scope(("business-licence",), ("3301",))
        changed = peers.up_to_date(connection, peer, narrower)
        assert changed.epoch > peer.epoch
        assert peers.up_to_date(connection, peer, narrower) == changed, "asked with what was read before the change"
        assert peers.of(connection, "sh") == changed


def test_the_key_of_another_home_does_not_open_it(
    partner: PartnerHub, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    peers.grant("sh", "Shanghai", LICENCE)
    with engine.connect() as connection:
        peer = peers.of(connection, "sh")
        assert peer
        monkeypatch.setenv("YICI_HOME", str(tmp_path))
        with pytest.raises(YiciError) as refused:
            peers.epoch_key(connection, peer)
    assert refused.value.code == "key-missing"
    assert (partner.home / "keys" / "index.key").stat().st_mode & 0o777 == 0o600


def test_a_region_is_what_the_codes_within_begin_with() -> None:
    given = ("330000", "330100", "330106", "33", "3301", "100000")
    assert [peers._prefix(region) for region in given] == ["33", "3301", "330106", "33", "3301", "10"]
