"""Agreements: what is not written is not allowed."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.errors import UsageError
from hub import agreements
from mappings import model

NOW = dt.datetime.now(dt.UTC)
ITEMS = ["demo-food-permit", "demo-elder-card"]


def agreed(*purposes: str, valid_to: dt.datetime | None = None) -> agreements.Agreement:
    return agreements.Agreement("c", "C", tuple(ITEMS), purposes or ("handle",), NOW - dt.timedelta(1), valid_to)


@pytest.mark.parametrize(
    ("agreement", "items", "purpose", "code"),
    [
        (agreed(), ["demo-residence-permit"], "handle", "item-not-agreed"),
        (agreed(), [*ITEMS, "demo-residence-permit"], "handle", "item-not-agreed"),
        (agreed(), ITEMS, "curiosity", "purpose-not-agreed"),
        (agreed(), ITEMS, "", "purpose-not-agreed"),
        (agreed("a", "b"), ITEMS, None, "purpose-missing"),
        (agreed(valid_to=NOW), ITEMS, "handle", "agreement-ended"),
        (agreed("burden"), ITEMS, None, "purpose-not-agreed"),
        (agreed("burden"), ITEMS, "burden", "purpose-not-agreed"),
        (agreed("own-file", "burden"), ITEMS, "own-file", "purpose-not-agreed"),
        (agreed("own-file", "burden"), ITEMS, None, "purpose-not-agreed"),
    ],
)
def test_what_is_refused(agreement: agreements.Agreement, items: list[str], purpose: str | None, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        agreement.admit(items, purpose, NOW)
    assert caught.value.code == code


def test_what_is_admitted() -> None:
    assert agreed().admit(ITEMS, None, NOW) == "handle"
    assert agreed("a", "b").admit(ITEMS[:1], "b", NOW) == "b"
    assert agreed("burden", "handle").admit(ITEMS, None, NOW) == "handle"
    assert agreed("burden", "handle").admit((), "burden", NOW) == "burden"
    assert agreed(valid_to=NOW + dt.timedelta(seconds=1)).admit(ITEMS, "handle", NOW) == "handle"


def test_only_a_hash_of_the_secret_is_kept(store: sa.Engine) -> None:
    secret = agreements.add("hall-1", None, "Hall", ITEMS, ["handle"], NOW + dt.timedelta(days=1))
    with store.connect() as connection:
        kept = connection.scalar(sa.text("SELECT secret_hash FROM agreement"))
        assert kept.startswith("scrypt$")
        assert secret not in kept
        assert agreements.authenticate(store, "hall-1", secret)
        for client, tried in (
            ("hall-1", secret + "x"),
            ("hall-1", ""),
            ("hall-2", secret),
            ("", ""),
            ("a\0b", "\udcff"),
        ):
            assert not agreements.authenticate(store, client, tried)
        found = agreements.of(connection, "hall-1")
        assert found is not None
        assert (found.items, found.purposes) == (tuple(ITEMS), ("handle",))
        assert agreements.of(connection, "hall-2") is None


def test_a_secret_of_ones_own_and_replacing(store: sa.Engine) -> None:
    own = "0123456789abcdefghijklmn"
    assert agreements.add("hall-1", own, "Hall", ITEMS, ["handle"]) == own
    with pytest.raises(UsageError, match="already is a client"):
        agreements.add("hall-1", own, "Hall", ITEMS, ["handle"])
    agreements.add("hall-1", own, "Hall", ITEMS[:1], ["handle"], replace=True)
    assert [agreement.items for agreement in agreements.every()] == [("demo-food-permit",)]


IMPOSSIBLE: list[tuple[tuple[Any, ...], str]] = [
    (("Hall", None, "", ITEMS, ["a"]), "client-invalid-name"),
    (("hall-1", "short", "", ITEMS, ["a"]), "secret-short"),
    (("hall-1", None, "", [], ["a"]), "client-empty"),
    (("hall-1", None, "", ITEMS, []), "client-empty"),
    (("hall-1", None, "", ["demo-none"], ["a"]), "item-unknown"),
]
UNKNOWN: list[tuple[dict[str, Any], str]] = [
    ({"fields": {"deed": ["*"]}}, "material-unknown"),
    ({"fields": {"business-licence": ["colour"]}}, "field-unknown"),
    ({"fields": {"business-licence": ["registered_on"]}}, "field-unknown"),
    ({"deposits": ["deed"]}, "material-unknown"),
    ({"evidence_minutes": 0}, "agreement-number"),
    ({"evidence_minutes": 1441}, "agreement-number"),
    ({"rate": 0}, "agreement-number"),
]


def test_what_the_answer_may_be_used_for(store: sa.Engine, subtests: pytest.Subtests) -> None:
    for more, code in UNKNOWN:
        with subtests.test(msg=str(more)):
            with pytest.raises(UsageError) as caught:
                agreements.add("hall-1", None, "", ITEMS, ["a"], **more)
            assert caught.value.code == code
    agreements.add("hall-0", None, "", ITEMS, ["a"])
    agreements.add(
        "hall-1", None, "", ITEMS, ["a"], fields={"business-licence": ["holder.holder", "name"], "premises-proof": ["*"]},
        evidence_minutes=5, deposits=["premises-proof"], own_view=True, rate=7,
    )  # fmt: skip
    nothing, found = agreements.every()
    licence, premises, degree = (
        model.load(code) for code in ("business-licence", "premises-proof", "degree-certificate")
    )
    assert found.shows(licence) == ("name", "holder.holder")
    assert found.shows(premises) == agreements.columns(premises)
    assert found.shows(degree) == nothing.shows(licence) == ()
    assert (found.evidence_minutes, found.deposits, found.own_view, found.rate) == (5, ("premises-proof",), True, 7)
    assert (nothing.evidence_minutes, nothing.deposits, nothing.own_view, nothing.rate) == (30, (), False, 2000)
    assert nothing == agreements.Agreement(nothing.client, "", tuple(ITEMS), ("a",), nothing.valid_from, None)


def test_agreements_that_cannot_be(store: sa.Engine, subtests: pytest.Subtests) -> None:
    for arguments, code in IMPOSSIBLE:
        with subtests.test(msg=code):
            with pytest.raises(UsageError) as caught:
                agreements.add(*arguments)
            assert caught.value.code == code
    assert agreements.every() == []


def test_whose_is_what_was_given_under_a_name(store: sa.Engine) -> None:
    def now() -> agreements.Agreement:
        [found] = agreements.every()
        return found

    agreements.add("hall-1", None, "", ITEMS, ["a"])
    first = now()
    asked = dt.datetime.now(dt.UTC)
    agreements.add("hall-1", None, "", ITEMS, ["b"], replace=True)
    agreements.add("hall-1", None, "", ITEMS, ["c"], replace=True)
    assert now().valid_from > first.valid_from and now().since == first.valid_from
    assert now().given("hall-1", asked) and not now().given("hall-2", asked)
    assert not now().given("hall-1", first.valid_from - dt.timedelta(seconds=1))
    agreements.remove("hall-1")
    agreements.add("hall-1", None, "", ITEMS, ["a"])
    assert not now().given("hall-1", asked) and now().given("hall-1", dt.datetime.now(dt.UTC))
    assert not agreed().given("c", NOW - dt.timedelta(2)), "not known: from its own beginning"
