"""The decision, rule by rule, without a store."""

from __future__ import annotations

import datetime as dt
import itertools
import random
from typing import Any, get_args

import pytest

from hub.clock import CHINA
from hub.findings import Party, province
from hub.holdings import Freshness, Holding, Known, Provenance
from hub.resolver import Decision, Disposition, Resolution, resolve
from mappings.items import Item, all_items

NOW = dt.datetime(2026, 11, 23, 1, 0, tzinfo=dt.UTC)
TODAY = dt.date(2026, 11, 23)
ME, OTHER = b"me" * 8, b"ot" * 8
APPLICANT = {"applicant": Party(ME, "31")}
BASIS = {"zh": "法", "en": "law"}
CARD, BOOK, MARRIAGE = "resident-id-card", "household-register", "marriage-certificate"


def item(*options: list[dict[str, Any]], **more: Any) -> Item:
    """An item for a person with one requirement."""
    requirement = {
        "code": "proof",
        "name": BASIS,
        "legal_basis": BASIS,
        "options": [{"materials": option} for option in options],
        **more,
    }
    roles = {"spouse": {"kind": "person", "name": BASIS}} if "'spouse'" in str(options) else {}
    return Item.model_validate(
        {
            "code": "x", "basic_code": "0000DEMO9999", "invented": True, "name": BASIS, "type": "公共服务", "region": "310000",
            "level": "province", "version": 1, "in_force": {"from": dt.date(2020, 1, 1)}, "legal_basis": BASIS,
            "applicant": {"kind": "person", "name": BASIS}, "roles": roles, "requirements": [requirement],
            "facts": {name: {"type": "boolean", "question": BASIS} for name in ("a", "b") if f"'{name}'" in str(more)},
        }
    )  # fmt: skip


def held(material: str = CARD, *, who: bytes = ME, key: str = "00", source: str = "s", **more: Any) -> Holding:
    values: dict[str, Any] = {
        "status": "in_force", "valid_from": None, "valid_to": None, "region": "310000", "conflicting": False, **more,
    }  # fmt: skip
    return Holding(
        key=key,
        material=material,
        source=source,
        holders={who: ("holder",)},
        provenance=(Provenance("s", "f", 2),),
        **values,
    )


def elsewhere(material: str = CARD, *, region: str | None = "330106", **more: Any) -> Holding:
    """The same, as a partner hub announces it."""
    values: dict[str, Any] = {"key": "ee", "source": "zj-hub", "hub": "zj", "epoch": "2026", "as_of": NOW, **more}
    return held(material, region=region, **values)


def fresh(
    material: str = CARD,
    *,
    region: str = "310000",
    days: float | None = 0,
    source: str = "s",
    hub: str | None = None,
) -> Freshness:
    at = None if days is None else NOW - dt.timedelta(days=days)
    return Freshness(source, material, region, at, dt.timedelta(days=2), hub)


def partner(material: str = CARD, *, region: str = "330000", days: float | None = 0) -> Freshness:
    return fresh(material, region=region, days=days, source="zj-hub", hub="zj")


def decide(
    asked: Item, *known: Holding | Freshness, parties: dict[str, Party] | None = None, **facts: bool
) -> Decision:
    holdings = tuple(entry for entry in known if isinstance(entry, Holding))
    sources = tuple(entry for entry in known if isinstance(entry, Freshness))
    found = resolve(asked, facts, parties or APPLICANT, Known(holdings, sources), {MARRIAGE}, NOW)
    assert len(found.decisions) == 1
    return found.decisions[0]


def said(decision: Decision) -> tuple[str, str]:
    return decision.disposition, decision.reason


ONE = item([{"material": CARD}])
EITHER = item([{"material": CARD}], [{"material": BOOK}])
BOTH = item([{"material": CARD}, {"material": BOOK}])
LASTING = item([{"material": CARD, "valid_left": "P30D"}])
DAY = dt.timedelta(days=1)


@pytest.mark.parametrize(
    ("asked", "known", "expected"),
    [
        (ONE, [held()], ("held", "held")),
        (ONE, [held(who=OTHER)], ("submit", "no-source")),
        (ONE, [held(BOOK)], ("submit", "no-source")),
        (ONE, [fresh()], ("submit", "absent")),
        (ONE, [], ("submit", "no-source")),
        (ONE, [fresh(days=None)], ("submit", "no-source")),
        (ONE, [fresh(days=3)], ("undetermined", "source-late")),
        (ONE, [fresh(days=2)], ("submit", "absent")),  # exactly at its promise
        (ONE, [fresh(days=3, region="330000")], ("submit", "no-source")),  # a silent neighbour
        (ONE, [fresh(days=3, region="000000")], ("undetermined", "source-late")),
        (ONE, [fresh(), fresh(days=3, source="t")], ("undetermined", "source-late")),
        (ONE, [fresh(days=3), held()], ("held", "held")),  # presence stands
        (ONE, [held(valid_to=TODAY)], ("held", "held")),
        (ONE, [held(valid_to=TODAY - DAY)], ("expired", "expired")),
        (ONE, [held(valid_to=TODAY - DAY), fresh(days=3)], ("undetermined", "source-late")),
        (ONE, [held(status="expired")], ("expired", "expired")),
        (ONE, [held(valid_from=TODAY + DAY)], ("submit", "not-yet-valid")),
        (ONE, [held(status="suspended")], ("submit", "suspended")),
        (ONE, [held(status="revoked")], ("submit", "revoked")),
        (ONE, [held(status="cancelled")], ("submit", "cancelled")),
        (ONE, [held(status="revoked"), held(key="01")], ("held", "held")),
        (ONE, [held(valid_to=TODAY - DAY), held(key="01", valid_to=TODAY)], ("held", "held")),
        (LASTING, [held(valid_to=TODAY + 30 * DAY)], ("held", "held")),
        (LASTING, [held(valid_to=TODAY + 29 * DAY)], ("expired", "validity-short")),
        (LASTING, [held(valid_to=None)], ("held", "held")),
        (EITHER, [held(), held(BOOK, key="01")], ("held", "held")),
        (EITHER, [held(BOOK)], ("alternative_held", "alternative-held")),
        (EITHER, [held(valid_to=TODAY - DAY), held(BOOK, key="01")], ("alternative_held", "alternative-held")),
        (EITHER, [fresh(BOOK, days=3)], ("undetermined", "source-late")),
        (BOTH, [held()], ("submit", "no-source")),
        (BOTH, [held(), held(BOOK, key="01")], ("held", "held")),
        (BOTH, [held(valid_to=TODAY - DAY), held(BOOK, key="01")], ("expired", "expired")),
        (BOTH, [held(valid_to=TODAY - DAY)], ("submit", "no-source")),
        (BOTH, [held(), fresh(BOOK, days=3)], ("undetermined", "source-late")),
        (BOTH, [fresh(BOOK, days=3)], ("submit", "no-source")),
    ],
)  # fmt: skip
def test_dispositions(asked: Item, known: list[Holding | Freshness], expected: tuple[str, str]) -> None:
    assert said(decide(asked, *known)) == expected


ZHEJIANG = {"applicant": Party(ME, "33")}
OF_ZHEJIANG = item([{"material": CARD, "region": "33"}])
STATUSES = item([{"material": MARRIAGE}])


@pytest.mark.parametrize(
    ("asked", "known", "expected"),
    [
        (ONE, [elsewhere()], ("held_elsewhere", "elsewhere")),
        (ONE, [elsewhere(who=OTHER)], ("submit", "no-source")),
        (ONE, [elsewhere(), held()], ("held", "held")),  # our own first
        (ONE, [elsewhere(valid_to=TODAY), partner()], ("held_elsewhere", "elsewhere")),
        (ONE, [elsewhere(valid_to=TODAY - DAY), partner()], ("expired", "expired")),
        (ONE, [elsewhere(valid_from=TODAY + DAY), partner()], ("submit", "not-yet-valid")),
        (LASTING, [elsewhere(valid_to=TODAY + 29 * DAY), partner()], ("expired", "validity-short")),
        (LASTING, [elsewhere(valid_to=TODAY + 30 * DAY), partner()], ("held_elsewhere", "elsewhere")),
        (ONE, [elsewhere(status="suspended")], ("submit", "suspended")),
        (ONE, [elsewhere(status="cancelled")], ("submit", "cancelled")),
        # Ours has ended or was taken away, the partner's is another one and in force.
        (ONE, [held(valid_to=TODAY - DAY), elsewhere()], ("held_elsewhere", "elsewhere")),
        (ONE, [held(status="revoked"), elsewhere()], ("held_elsewhere", "elsewhere")),
        (ONE, [held(valid_to=TODAY - DAY), elsewhere(status="revoked")], ("expired", "expired")),
        (EITHER, [held(BOOK), elsewhere()], ("alternative_held", "alternative-held")),
        (EITHER, [elsewhere(BOOK)], ("held_elsewhere", "elsewhere")),
        (EITHER, [elsewhere(BOOK), fresh(days=3)], ("held_elsewhere", "elsewhere")),
        (BOTH, [held(), elsewhere(BOOK, key="ef")], ("held_elsewhere", "elsewhere")),
        (BOTH, [elsewhere(), partner()], ("submit", "no-source")),
        (BOTH, [elsewhere(), fresh(BOOK, days=3)], ("undetermined", "source-late")),
        # A province is asked for: here as there only its certificates will do.
        (OF_ZHEJIANG, [held(), fresh()], ("submit", "no-source")),
        (OF_ZHEJIANG, [held(region="330000")], ("held", "held")),
        (OF_ZHEJIANG, [held(region=None), fresh(region="330000")], ("held", "held")),
        (OF_ZHEJIANG, [held(region=None), fresh()], ("submit", "no-source")),
        (OF_ZHEJIANG, [elsewhere(), held()], ("held_elsewhere", "elsewhere")),
        (OF_ZHEJIANG, [elsewhere(region="320100"), partner()], ("submit", "absent")),
        (OF_ZHEJIANG, [partner()], ("submit", "absent")),
        (OF_ZHEJIANG, [fresh(days=3), partner()], ("submit", "absent")),  # another province's register says nothing
        # The partner falls silent.
        (ONE, [elsewhere(), partner(days=30)], ("held_elsewhere", "elsewhere")),  # presence stands
        (ONE, [partner(days=3)], ("submit", "no-source")),  # a silent neighbour
        (ONE, [fresh(), partner(days=3)], ("submit", "absent")),
        (ONE, [elsewhere(valid_to=TODAY - DAY), partner(days=3)], ("undetermined", "hub-late")),  # it spoke of this person
        (ONE, [elsewhere(status="suspended"), partner(days=3)], ("undetermined", "hub-late")),
        (OF_ZHEJIANG, [partner(days=3)], ("undetermined", "hub-late")),
        (OF_ZHEJIANG, [held(), fresh(), partner(days=3)], ("undetermined", "hub-late")),
        (OF_ZHEJIANG, [partner(BOOK, days=3)], ("submit", "no-source")),  # of another material
        (OF_ZHEJIANG, [partner(days=None)], ("submit", "no-source")),  # never read: not connected
        (ONE, [partner(region="000000", days=3)], ("undetermined", "hub-late")),
        (STATUSES, [elsewhere(MARRIAGE), partner(MARRIAGE)], ("held_elsewhere", "elsewhere")),
        (STATUSES, [elsewhere(MARRIAGE), partner(MARRIAGE, days=3)], ("undetermined", "volatile-late")),
        (STATUSES, [elsewhere(MARRIAGE), partner(MARRIAGE, days=3), held(MARRIAGE), fresh(MARRIAGE)], ("held", "held")),
        (STATUSES, [held(MARRIAGE), fresh(MARRIAGE, days=3), elsewhere(MARRIAGE), partner(MARRIAGE)],
         ("held_elsewhere", "elsewhere")),  # ours may be out of date, theirs is not
    ],
)  # fmt: skip
def test_what_partner_hubs_hold(asked: Item, known: list[Holding | Freshness], expected: tuple[str, str]) -> None:
    assert said(decide(asked, *known)) == expected
    assert said(decide(asked, *reversed(known))) == expected


def test_a_silent_partner_opens_only_what_it_is_the_authority_on() -> None:
    assert said(decide(ONE, partner(days=3), parties=ZHEJIANG)) == ("undetermined", "hub-late")
    assert said(decide(ONE, partner(), parties=ZHEJIANG)) == ("submit", "absent")
    found = decide(ONE, partner(days=3), parties=ZHEJIANG)
    assert found.next_step == "wait-or-ask-hub" and found.next_values["hub"] == "zj"
    assert found.must_submit == ()


def test_where_it_is_held_is_said() -> None:
    found = decide(BOTH, held(), elsewhere(BOOK, as_of=NOW - DAY))
    assert found.values == {
        "materials": (BOOK,), "hub": "zj", "regions": ("330106",), "as_of": "2026-11-22T09:00+08:00",
    }  # fmt: skip
    assert found.materials == (CARD, BOOK) and found.must_submit == ()
    assert [holding.hub for _, holding in found.holdings] == [None, "zj"]
    [option] = found.trace["options"]
    assert option[1]["entries"] == [{"entry": "ee", "source": "zj-hub", "epoch": "2026", "status": "in_force"}]


LATER: dict[str, Any] = {"deferral": {"kind": "later", "within": "P20D", "basis": BASIS}}
PROMISE: dict[str, Any] = {"deferral": {"kind": "promise", "basis": BASIS}}


@pytest.mark.parametrize(("terms", "kind", "days"), [(LATER, "later", 20), (PROMISE, "promise", None)])
def test_what_may_wait_is_deferred(terms: dict[str, Any], kind: str, days: int | None) -> None:
    asked = item([{"material": CARD}, {"material": BOOK}], **terms)
    missing = decide(asked, held())
    assert said(missing) == ("deferred", f"deferred-{kind}")
    assert missing.must_submit == () and missing.deferred == (BOOK,)
    assert missing.values["materials"] == (BOOK,) and missing.values["days"] == days
    assert missing.values["basis"] == asked.requirements[0].deferral.basis  # type: ignore[union-attr]
    ended = decide(asked, held(), held(BOOK, key="01", valid_to=TODAY - DAY))
    assert said(ended) == ("deferred", f"deferred-{kind}") and len(ended.holdings) == 2
    assert said(decide(asked, held(), held(BOOK, key="01"))) == ("held", "held")
    assert said(decide(asked, held(), elsewhere(BOOK))) == ("held_elsewhere", "elsewhere")
    open_ = decide(asked, held(), fresh(BOOK, days=3))
    assert said(open_) == ("undetermined", "source-late")
    assert open_.next_step == f"wait-or-{kind}" and open_.next_values["days"] == days


def test_a_deferral_never_imposes_what_is_not_required() -> None:
    asked = item([{"material": CARD}], when={"fact": "a", "is": True}, **LATER)
    assert said(decide(asked, a=False)) == ("not_required", "not-applicable")
    assert said(decide(asked)) == ("undetermined", "fact-missing")
    assert said(decide(asked, elsewhere())) == ("held_elsewhere", "elsewhere")
    assert said(decide(asked, a=True)) == ("deferred", "deferred-later")


def test_a_role_that_is_missing_stays_the_next_step_of_what_is_deferred() -> None:
    asked = item([{"material": CARD}, {"material": BOOK, "holder": "spouse"}], **LATER)
    found = decide(asked)
    assert said(found) == ("deferred", "deferred-later")
    assert found.deferred == (CARD,) and found.next_step == "give-role"


def test_what_is_certainly_lacking_is_asked_for_and_the_rest_is_the_next_step() -> None:
    found = decide(BOTH, fresh(BOOK, days=3))
    assert found.must_submit == (CARD,)
    assert found.next_step == "wait-or-accept"
    assert found.next_values["source"] == "s"


def test_what_the_preferred_option_lacks_is_asked_for() -> None:
    asked = item([{"material": CARD}, {"material": BOOK}], [{"material": MARRIAGE}])
    assert decide(asked).must_submit == decide(asked).materials == (CARD, BOOK)
    assert decide(asked, held()).must_submit == (BOOK,), "a part of what is asked for without the card"
    other = item([{"material": MARRIAGE}], [{"material": CARD}, {"material": BOOK}])
    assert decide(other).must_submit == decide(other, held()).must_submit == (MARRIAGE,), (
        "never the book for the card's sake"
    )


def test_an_expired_certificate_is_to_be_renewed() -> None:
    found = decide(ONE, held(valid_to=TODAY - DAY))
    assert found.must_submit == (CARD,)
    assert [holding.key for _, holding in found.holdings] == ["00"]


def test_a_volatile_type_needs_a_source_in_time() -> None:
    asked = item([{"material": MARRIAGE}])
    assert said(decide(asked, held(MARRIAGE), fresh(MARRIAGE))) == ("held", "held")
    assert said(decide(asked, held(MARRIAGE), fresh(MARRIAGE, days=3))) == ("undetermined", "volatile-late")
    assert said(decide(asked, held(MARRIAGE), fresh(MARRIAGE, days=3, source="t"))) == ("held", "held")


@pytest.mark.parametrize(
    ("facts", "known", "expected"),
    [
        ({"a": False}, [held()], ("not_required", "not-applicable")),
        ({"a": True}, [], ("submit", "no-source")),
        ({}, [], ("undetermined", "fact-missing")),
        ({}, [held()], ("held", "held")),  # held whatever the fact is
        ({}, [fresh(days=3)], ("undetermined", "fact-missing")),
    ],
)
def test_conditions_decide(facts: dict[str, bool], known: list[Holding], expected: tuple[str, str]) -> None:
    found = decide(item([{"material": CARD}], when={"fact": "a", "is": True}), *known, **facts)
    assert said(found) == expected
    assert found.question == ("a" if expected[1] == "fact-missing" else None)


def test_what_cites_no_law_cannot_be_imposed() -> None:
    assert said(decide(item([{"material": CARD}], legal_basis=None))) == ("not_required", "no-legal-basis")


def test_a_role_that_was_not_given() -> None:
    asked = item([{"material": CARD, "holder": "spouse"}])
    found = decide(asked, held(), fresh())
    assert said(found) == ("undetermined", "role-missing")
    assert found.next_step == "give-role"
    assert found.must_submit == ()
    spouse = {**APPLICANT, "spouse": Party(OTHER, "31")}
    assert said(decide(asked, held(), fresh(), parties=spouse)) == ("submit", "absent")
    assert said(decide(asked, held(who=OTHER), parties=spouse)) == ("held", "held")


def test_the_role_in_the_certificate_counts() -> None:
    asked = item([{"material": MARRIAGE, "as": ["spouse_a"]}])
    assert said(decide(asked, held(MARRIAGE))) == ("submit", "no-source")


def test_today_is_chinas() -> None:
    midnight = dt.datetime(2026, 11, 23, 0, 0, tzinfo=CHINA)
    ends = Known((held(valid_to=dt.date(2026, 11, 22)),), ())
    before = resolve(ONE, {}, APPLICANT, ends, (), midnight - dt.timedelta(seconds=1))
    after = resolve(ONE, {}, APPLICANT, ends, (), midnight)
    assert [before.decisions[0].disposition, after.decisions[0].disposition] == ["held", "expired"]


@pytest.mark.parametrize(
    ("scheme", "value", "expected"),
    [
        ("cn.uscc", "91310117MA1J3AJ43G", "31"),
        ("cn.uscc", "911000007109310534", None),  # registered nationwide
        ("cn.ric", "11010519491231002X", "11"),
        ("cn.regno", "310228001016798", "31"),
        ("cn.regno", "企合苏镇分字第2005", None),
        ("cn.permit", "810000199408230021", None),
        ("cn.fpr", "911124198108030024", "11"),
        ("passport", "E12345678", None),
    ],
)
def test_provinces(scheme: str, value: str, expected: str | None) -> None:
    assert province(scheme, value) == expected


def plain(resolution: Resolution) -> list[Any]:
    return [
        (d.requirement.code, d.disposition, d.reason, dict(d.values), d.materials, d.must_submit, dict(d.trace))
        for d in sorted(resolution.decisions, key=lambda decision: decision.requirement.code)
    ]


def random_known(draw: random.Random, materials: list[str]) -> tuple[list[Holding], list[Freshness]]:
    holdings = [
        held(
            draw.choice(materials), key=f"{n:02x}", who=draw.choice([ME, OTHER]),
            status=draw.choice(["in_force", "in_force", "revoked", "expired"]),
            valid_to=draw.choice([None, TODAY - DAY, TODAY, TODAY + 20 * DAY]),
            **draw.choice([{}, {}, {"region": "330106", "source": "s9", "hub": "zj", "as_of": NOW}]),
        )
        for n in range(draw.randrange(8))
    ]  # fmt: skip
    sources = [
        fresh(material, days=draw.choice([0, 3]), source="s9", region="330000", hub="zj") for material in materials
    ]
    sources += [
        fresh(draw.choice(materials), days=draw.choice([None, 0, 3]), source=f"s{n}", region=draw.choice(["310000", "330000"]))
        for n in range(draw.randrange(5))
    ]  # fmt: skip
    return holdings, sources


def test_order_does_not_matter_and_more_held_is_never_more_to_submit() -> None:
    draw = random.Random(7)
    parties = {"applicant": Party(ME, "31"), "spouse": Party(OTHER, "31"), "legal_representative": Party(OTHER, "31")}
    dispositions = set()
    for asked, _ in itertools.product(all_items(), range(60)):
        materials = list(asked.materials())
        holdings, sources = random_known(draw, materials)
        facts = {name: True for name in asked.facts if asked.facts[name].type == "boolean" and draw.random() < 0.5}
        own = {role: party for role, party in parties.items() if role == "applicant" or role in asked.roles}
        found = resolve(asked, facts, own, Known(tuple(holdings), tuple(sources)), {MARRIAGE}, NOW)
        dispositions |= {decision.disposition for decision in found.decisions}
        draw.shuffle(holdings)
        draw.shuffle(sources)
        shuffled = asked.model_copy(
            update={"requirements": tuple(draw.sample(asked.requirements, len(asked.requirements)))}
        )
        assert plain(resolve(shuffled, facts, own, Known(tuple(holdings), tuple(sources)), {MARRIAGE}, NOW)) == plain(
            found
        )
        more = [*holdings, held(draw.choice(materials), key="ff", who=ME)]
        richer = resolve(asked, facts, own, Known(tuple(more), tuple(sources)), {MARRIAGE}, NOW)
        assert set(richer.must_submit) <= set(found.must_submit)
    assert dispositions == set(get_args(Disposition))
