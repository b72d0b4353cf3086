"""hub/exchange/shares.py: whose token opens what, and how long."""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections.abc import Iterator
from typing import Any

import delta_sharing
import pytest
import sqlalchemy as sa

from connectors.errors import UsageError
from hub.exchange import shares
from mappings import model
from tests.sharing import LICENCE, agree, as_zj, set_state

NOW = dt.datetime.now(dt.UTC)
ENDPOINT = "https://zj.example/delta/"


@pytest.fixture(autouse=True)
def zj() -> Iterator[None]:
    with as_zj():
        yield


def profile(engine: sa.Engine, named: uuid.UUID, **more: Any) -> dict[str, Any]:
    with engine.begin() as connection:
        return shares.profile(connection, named, ENDPOINT, now=NOW, **more)


def opened(engine: sa.Engine, token: str, now: dt.datetime = NOW) -> shares.Share:
    with engine.connect() as connection:
        return shares.opened(connection, shares.identified(connection, token, now), now)


def refused(code: str, *arguments: Any, **more: Any) -> UsageError:
    with pytest.raises(UsageError) as error:
        opened(*arguments, **more)
    assert error.value.code == code
    return error.value


def test_a_profile(store: sa.Engine) -> None:
    named = agree(store)
    made = profile(store, named)
    assert made == {
        "shareCredentialsVersion": 1, "endpoint": "https://zj.example/delta", "bearerToken": made["bearerToken"],
        "expirationTime": (NOW + dt.timedelta(days=90)).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    }  # fmt: skip
    known = delta_sharing.protocol.DeltaSharingProfile.from_json(made)
    assert known.endpoint == "https://zj.example/delta" and len(made["bearerToken"]) == 43
    with store.connect() as connection:
        kept = connection.execute(
            sa.text("SELECT bearer_hash, row_to_json(a)::text FROM exchange_agreement AS a")
        ).one()
        ledger = connection.execute(
            sa.text("SELECT kind, direction, peer, agreement, detail FROM exchange_record")
        ).one()
    assert kept[0] == hashlib.sha256(made["bearerToken"].encode()).digest() and made["bearerToken"] not in kept[1]
    assert ledger[:4] == ("share.profile", "noted", "sh", f"{named}/1") and made["bearerToken"] not in ledger.detail
    share = opened(store, made["bearerToken"])
    assert (share.name, share.agreement.reference, list(share.tables)) == (str(named), f"{named}/1", [LICENCE])


def test_a_token_ends(store: sa.Engine) -> None:
    made = profile(store, agree(store), days=1)
    day = (NOW + dt.timedelta(days=1)).replace(microsecond=0)
    opened(store, made["bearerToken"], day - dt.timedelta(seconds=1))
    refused("share-token-expired", store, made["bearerToken"], day)
    ends = NOW.replace(second=0, microsecond=0) + dt.timedelta(hours=5)
    short = profile(store, agree(store, valid_to=ends.isoformat()))
    assert short["expirationTime"] == ends.strftime("%Y-%m-%dT%H:%M:%S.000Z")  # with the agreement at the latest
    for days in (0, -1, 367):
        with pytest.raises(UsageError, match="1 to 366"):
            profile(store, agree(store), days=days)


def test_one_token_at_a_time(store: sa.Engine) -> None:
    named = agree(store)
    first, second = profile(store, named), profile(store, named)
    refused("token-invalid", store, first["bearerToken"])
    opened(store, second["bearerToken"])
    with store.begin() as connection:
        assert shares.token_until(connection, named)
        shares.revoke(connection, named, now=NOW)
        assert shares.token_until(connection, named) is None
    refused("token-invalid", store, second["bearerToken"])
    with store.begin() as connection, pytest.raises(UsageError, match="no token"):
        shares.revoke(connection, named, now=NOW)


@pytest.mark.parametrize("token", ["", " ", "x" * 43, "\0", "é", "%", "' OR true --"])
def test_what_is_no_token(store: sa.Engine, token: str) -> None:
    profile(store, agree(store))
    agree(store)  # one without a token is not opened by an empty one
    refused("token-invalid", store, token)


@pytest.mark.parametrize("endpoint", ["", "zj.example/delta", "ftp://zj.example", "https://" + "x" * 600])
def test_an_address_that_is_none(store: sa.Engine, endpoint: str) -> None:
    with store.begin() as connection, pytest.raises(UsageError, match="http"):
        shares.profile(connection, agree(store), endpoint, now=NOW)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"state": "suspended", "suspended_by": ["zj"]}, "agreement-suspended"),
        ({"state": "ended"}, "agreement-not-in-force"),
        ({"state": "superseded"}, "agreement-version-old"),
        ({"state": "proposed"}, "agreement-unknown"),
        ({"state": "declined"}, "agreement-unknown"),
        ({"peer_signature": None}, "agreement-not-in-force"),
        ({"valid_from": NOW + dt.timedelta(seconds=1)}, "agreement-not-in-force"),
        ({"valid_to": NOW}, "agreement-not-in-force"),
        ({"provider": False}, "token-invalid"),
        ({"replaced_at": NOW}, "agreement-version-old"),
    ],
)
def test_an_agreement_that_does_not_count(store: sa.Engine, values: dict[str, Any], code: str) -> None:
    named = agree(store)
    made = profile(store, named)
    set_state(store, named, **values)
    refused(code, store, made["bearerToken"])
    with store.connect() as connection, pytest.raises(UsageError):
        shares.of(connection, named, NOW)


def test_the_version_that_counts(store: sa.Engine) -> None:
    """A token is of the agreement: by the version that has begun, not one that is proposed or begins later."""
    named = agree(store, materials={LICENCE: ["name"]})
    made = profile(store, named)
    agree(store, named, 2, materials={LICENCE: ["name", "status"]})
    share = opened(store, made["bearerToken"])
    assert share.agreement.version == 2 and list(share.tables[LICENCE].columns) == ["name", "status"]
    agree(store, named, 3, materials={LICENCE: ["status"]}, valid_from="2998-01-01T00:00:00Z")
    with store.begin() as connection:
        connection.execute(sa.text("UPDATE exchange_agreement SET state = 'in_force' WHERE version = 2"))
    assert opened(store, made["bearerToken"]).agreement.version == 2
    with store.begin() as connection:
        connection.execute(sa.text("UPDATE exchange_agreement SET state = 'proposed' WHERE version = 3"))
    assert opened(store, made["bearerToken"]).agreement.version == 2


def test_columns_are_those_agreed(store: sa.Engine) -> None:
    material = model.load(LICENCE)

    def columns(*fields: str) -> list[str]:
        named = agree(store, materials={LICENCE: list(fields) if fields != ("*",) else "*"})
        with store.connect() as connection:
            return list(shares.of(connection, named, NOW).tables[LICENCE].columns)

    assert columns("status", "name") == ["name", "status"]
    assert columns("holder.holder") == ["holder.holder.scheme", "holder.holder.value", "holder.holder.name"]
    assert columns("attributes.province") == ["attributes.province"]
    assert columns("*") == [name for name in material.columns() if name != "updated_at"]
    assert not any(
        name.startswith("holder.")
        for name in columns(*[name for name in material.columns() if "." not in name and name != "updated_at"])
    )


def test_what_the_scope_is_made_of(store: sa.Engine) -> None:
    def scope(**said: Any) -> str:
        named = agree(store, **said)
        with store.connect() as connection:
            return shares.of(connection, named, NOW).tables[LICENCE].scope

    base = scope()
    assert scope() == base and scope(purposes=["another"]) == base and scope(valid_to="2998-01-01T00:00:00Z") == base
    assert (
        len({base, scope(materials={LICENCE: ["name"]}), scope(regions=["3301"]), scope(regions=["3301", "3302"])}) == 4
    )


def test_a_material_of_which_nothing_is_read_is_no_table(store: sa.Engine) -> None:
    named = agree(store, materials={LICENCE: ["name"], "household-register": []})
    with store.connect() as connection:
        assert list(shares.of(connection, named, NOW).tables) == [LICENCE]


def test_agreements_that_share_and_that_are_over(store: sa.Engine) -> None:
    both, index = agree(store, modes=["share", "evidence"]), agree(store, modes=["index"])
    with store.begin() as connection:
        assert shares.every(connection) == [both] and index
        row = {"agreement": both, "material": LICENCE, "version": 0, "position": 0, "store": "s", "made_at": NOW, "scope": "x",
               "whole": True, "bits": 0, "rows": 0}  # fmt: skip
        connection.execute(sa.insert(shares.share_version), [row])
        assert shares.over(connection, NOW) == []
        assert shares.over(connection, dt.datetime(2999, 1, 1, tzinfo=dt.UTC)) == [both]
    set_state(store, both, state="suspended")
    with store.connect() as connection:
        assert shares.over(connection, NOW) == []
    set_state(store, both, state="ended")
    with store.connect() as connection:
        assert shares.over(connection, NOW) == [both]
