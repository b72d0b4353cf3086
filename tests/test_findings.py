"""hub/findings.py: one material of one party, judged without a store."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace

import pytest

from hub.clock import CHINA
from hub.findings import Evidence, Finding, Party, province
from hub.holdings import Freshness, Holding, Known
from hub.identity_lookup import People
from mappings.items import Use

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=CHINA)
PERSON = Party(b"p" * 16, "32")
USE = Use(material="degree")
OURS = Freshness("sh-moe-degrees", "degree", "310000", NOW - dt.timedelta(hours=1), dt.timedelta(days=2))
PARTNER = Freshness("js-hub-index", "degree", "320000", NOW - dt.timedelta(hours=1), dt.timedelta(hours=2), "js-hub")
LATE = {"last_success_at": NOW - dt.timedelta(days=30)}


def holding(source: str = OURS.source, status: str = "valid", key: str = "k", **more: object) -> Holding:
    made = Holding(key, "degree", source, status, None, None, None, False, {PERSON.digest: ("holder",)}, ())
    return replace(made, **more)  # type: ignore[arg-type]


def judged(
    *holdings: Holding, sources: Sequence[Freshness] = (OURS, PARTNER), volatile: Sequence[str] = (), use: Use = USE
) -> Finding:
    return Evidence(Known(holdings, tuple(sources)), volatile, NOW).of(use, {"applicant": PERSON})


@pytest.mark.parametrize(("scheme", "value", "expected"), [
    ("cn.uscc", "91310117MA1J3AJ43G", "31"), ("cn.ric", "11010519491231002X", "11"), ("cn.uscc", "91100000MA1J3AJ43G", None),
    ("cn.passport", "E12345678", None), ("cn.regno", "000000000000000", None), ("cn.tax", "91310117MA1J3AJ43G", "31"),
])  # fmt: skip
def test_the_province_of_an_identifier(scheme: str, value: str, expected: str | None) -> None:
    assert province(scheme, value) == expected


@pytest.mark.parametrize("region", ["3201", "3201 3202", "320106", "3200"])
def test_who_tells_of_a_part_of_a_province_is_heard_and_not_missed(region: str) -> None:
    """Its silence, and its lateness, say nothing of somebody of whom it has said nothing."""
    part = replace(PARTNER, region=region)
    assert judged(sources=[OURS, PARTNER]).values["source"] == PARTNER.source
    for at in (PARTNER.last_success_at, LATE["last_success_at"]):
        silent = judged(sources=[OURS, replace(part, last_success_at=at)])
        assert (silent.state, silent.reason) == ("missing", "no-source")
    said = holding(PARTNER.source, hub="js-hub", valid_to=dt.date(2025, 1, 1))
    assert judged(said, sources=[part]).reason == "expired"
    assert judged(said, sources=[replace(part, **LATE)]).reason == "hub-late"  # type: ignore[arg-type]
    assert judged(use=Use(material="degree", region="32"), sources=[part]).reason == "no-source"
    assert judged(use=Use(material="degree", region="32"), sources=[PARTNER]).reason == "absent"


def test_nobody_of_that_role() -> None:
    found = Evidence(Known((), ()), (), NOW).of(USE, {})
    assert (found.state, found.reason) == ("role", "role-missing")


@pytest.mark.parametrize(("more", "state", "reason"), [
    ({}, "held", "held"),
    ({"hub": "js-hub"}, "elsewhere", "elsewhere"),
    ({"status": "revoked"}, "missing", "revoked"),
    ({"status": "expired"}, "expired", "expired"),
    ({"valid_to": dt.date(2026, 3, 1)}, "held", "held"),
    ({"valid_to": dt.date(2026, 2, 28)}, "expired", "expired"),
    ({"valid_from": dt.date(2026, 3, 2)}, "missing", "not-yet-valid"),
])  # fmt: skip
def test_one_certificate(more: dict[str, object], state: str, reason: str) -> None:
    found = judged(holding(**more))  # type: ignore[arg-type]
    assert (found.state, found.reason) == (state, reason)


def test_validity_that_must_be_left() -> None:
    use = Use(material="degree", valid_left=dt.timedelta(days=30))
    assert judged(holding(valid_to=dt.date(2026, 3, 30)), use=use).reason == "validity-short"
    assert judged(holding(valid_to=dt.date(2026, 3, 31)), use=use).state == "held"


def test_the_day_is_chinas() -> None:
    evening = dt.datetime(2026, 2, 28, 16, 30, tzinfo=dt.UTC)  # half past midnight, 1 March, in China
    known = Known((holding(valid_to=dt.date(2026, 2, 28)),), (OURS,))
    assert Evidence(known, (), evening).of(USE, {"applicant": PERSON}).state == "expired"
    assert Evidence(known, (), evening - dt.timedelta(hours=1)).of(USE, {"applicant": PERSON}).state == "held"


def test_the_best_of_several_and_ours_first() -> None:
    ours, theirs = holding(status="cancelled"), holding(PARTNER.source, key="t", hub="js-hub")
    assert judged(ours, theirs).state == "elsewhere"
    assert judged(theirs, holding()).state == "held"
    short, longer = holding(valid_to=dt.date(2027, 1, 1)), holding(key="l", valid_to=dt.date(2030, 1, 1))
    assert judged(short, longer).holdings == (longer,)


def test_somebody_elses_is_not_theirs() -> None:
    other = holding(holders={b"o" * 16: ("holder",)})
    assert judged(other).reason == "absent"
    assert judged(holding(), use=Use(material="degree", **{"as": ("guardian",)})).reason == "absent"


SPOUSE = Party(b"w" * 16, "31")


def married(*theirs: str, own: tuple[str, ...] = ("spouse_a",), **more: object) -> Holding:
    holders = {PERSON.digest: own, **({SPOUSE.digest: theirs} if theirs else {})}
    return holding(holders=holders, **more)  # type: ignore[arg-type]


def with_spouse(*holdings: Holding, undecided: bool = False, **more: object) -> Finding:
    known = Known(holdings, (OURS, PARTNER), People(undecided=frozenset([SPOUSE.digest] if undecided else [])))
    parties = {"applicant": PERSON, "spouse": SPOUSE}
    return Evidence(known, (), NOW).of(Use(material="degree", **{"with": ("spouse",), **more}), parties)  # type: ignore[arg-type]


def test_a_certificate_that_has_to_name_two() -> None:
    assert with_spouse(married("spouse_b")).state == "held"
    assert with_spouse(married("spouse_b", hub="js-hub", source=PARTNER.source)).state == "elsewhere"
    assert with_spouse(married()).reason == "absent-with", "of the applicant and somebody else"
    theirs = holding(holders={SPOUSE.digest: ("spouse_b",)}, key="l")
    assert with_spouse(married(), theirs).reason == "absent-with", "two certificates are not one"
    assert with_spouse(married(), married("spouse_b", key="l")).holdings[0].key == "l"
    assert with_spouse(married("spouse_a")).reason == "absent-with", "nobody is their own spouse"
    both = ("spouse_a", "spouse_b")
    assert with_spouse(married("spouse_b", own=both), **{"as": ("spouse_b",)}).reason == "absent-with"
    assert with_spouse(married(*both, own=both)).state == "held"
    assert with_spouse(married("spouse_b"), undecided=True).values["role"] == "spouse"


def test_a_party_that_a_certificate_has_to_name_is_asked_for() -> None:
    known, wanted = Known((married(),), (OURS, PARTNER)), {"material": "degree", "with": ("spouse",)}
    found = Evidence(known, (), NOW).of(Use(**wanted), {"applicant": PERSON})  # type: ignore[arg-type]
    assert (found.state, found.reason, found.values) == ("role", "role-missing", {"role": "spouse"})
    named = Use(material="degree", with_named=("spouse",))
    assert Evidence(known, (), NOW).of(named, {"applicant": PERSON}).state == "held"
    parties = {"applicant": PERSON, "spouse": SPOUSE}
    assert Evidence(known, (), NOW).of(named, parties).reason == "absent-with"


def test_absent_only_where_somebody_would_know() -> None:
    assert judged(sources=[OURS]).reason == "no-source", "Shanghai does not speak for Jiangsu"
    assert judged(sources=[OURS, PARTNER]).reason == "absent"
    assert judged(sources=[replace(PARTNER, **LATE)]).reason == "hub-late"
    assert judged(sources=[replace(OURS, region="000000", **LATE)]).reason == "source-late"
    assert judged(sources=[replace(PARTNER, last_success_at=None)]).reason == "no-source"


def test_a_stale_copy_stands_beside_the_authoritys_cancelled() -> None:
    """As docs/decisions/0005 says: nothing tells that both are the same certificate. Volatile ones do not stand."""
    stale, said = replace(OURS, **LATE), holding(PARTNER.source, "cancelled", key="t", hub="js-hub")
    assert judged(holding(), said, sources=[stale, PARTNER]).state == "held"
    found = judged(holding(), said, sources=[stale, PARTNER], volatile=["degree"])
    assert (found.state, found.reason) == ("late", "volatile-late")
    fresh = holding(PARTNER.source, key="f", hub="js-hub")
    assert judged(holding(), fresh, sources=[stale, PARTNER], volatile=["degree"]).state == "elsewhere"


def test_what_a_provinces_own_register_keeps_is_of_that_province() -> None:
    """A division code that no list has may begin with another province's digits."""
    mistyped = holding(region="340999")
    assert judged(mistyped, use=USE.model_copy(update={"region": "31"})).state == "held"
    assert judged(mistyped, use=USE.model_copy(update={"region": "34"})).state == "missing"
    # A nationwide register says itself of which province a certificate is, and so does a partner hub.
    national = replace(OURS, region="000000")
    assert judged(mistyped, sources=(national,), use=USE.model_copy(update={"region": "34"})).state == "held"
    theirs = holding(PARTNER.source, hub="js-hub", region="320102")
    assert judged(theirs, use=USE.model_copy(update={"region": "32"})).state == "elsewhere"
