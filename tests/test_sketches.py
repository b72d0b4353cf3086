"""What is decided once and filled in again says the same as deciding anew."""

from __future__ import annotations

import datetime as dt
import random

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from hub import rendering, sketches
from hub.findings import Party
from hub.holdings import Freshness, Holding, Known, Provenance
from hub.identity_lookup import People
from hub.knowledge import Found, Shape, Snapshot, Subject
from hub.resolver import decide
from hub.sketches import Case, Moment, Person
from tests.test_resolver import BOOK, CARD, MARRIAGE, NOW, TODAY, fresh, item, partner

ASKED = [
    item([{"material": CARD}]),
    item([{"material": CARD, "valid_left": "P30D"}], [{"material": BOOK}]),
    item([{"material": CARD}, {"material": MARRIAGE, "holder": "spouse"}], [{"material": BOOK, "as": ["holder"]}]),
    item([{"material": CARD, "max_age": "P90D"}], when={"fact": "a", "is": True}),
    item([{"material": MARRIAGE, "holder": "spouse"}], [{"material": MARRIAGE}]),
    item(
        [{"material": MARRIAGE, "with": ["spouse"], "valid_left": "P30D"}, {"material": MARRIAGE, "holder": "spouse"}]
    ),
    item(
        [{"material": MARRIAGE, "with": ["spouse"]}],
        [{"material": MARRIAGE, "with_named": ["spouse"], "max_age": "P90D"}],
    ),
    item([{"material": MARRIAGE, "holder": "spouse", "with": ["applicant"]}, {"material": CARD, "holder": "spouse"}]),
    item(
        [{"material": CARD, "region": "31"}],
        deferral={"kind": "later", "within": "P5D", "basis": {"zh": "法", "en": "law"}},
    ),
]
PLACES = ["holder", "holder", "spouse_a", "spouse_b"]
DAYS = [None, TODAY - dt.timedelta(days=1), TODAY, TODAY + dt.timedelta(days=10), TODAY + dt.timedelta(days=400)]
SOURCES = [fresh(CARD), fresh(BOOK, days=3), fresh(MARRIAGE, source="t"), partner(CARD)]


def certificates(choose: random.Random) -> Found:
    hub = choose.choice([None, None, "zj"])
    shape = Shape(
        choose.choice([CARD, BOOK, MARRIAGE]), "zj-hub" if hub else choose.choice(["s", "t"]),
        choose.choice(["in_force", "in_force", "revoked"]), choose.choice([None, *DAYS[1:4]]), choose.choice(DAYS),
        choose.choice(["310000", "330106", None]),
        False, hub, "2026" if hub else None, NOW if hub else None, choose.choice(DAYS), (), (choose.choice(PLACES),),
    )  # fmt: skip
    key = f"{choose.randrange(1 << 32):032x}"
    return Found(key, shape, (("s", f"f{choose.randrange(3)}.csv", choose.randrange(1, 9)),))


def people(choose: random.Random) -> dict[str, Person]:
    roles = ["applicant", "spouse"][: choose.choice([1, 2])]
    shared = [certificates(choose) for _ in range(choose.randrange(3))]  # of a couple
    found = {}
    for role in roles:
        theirs = [one._replace(shape=one.shape._replace(roles=(choose.choice(PLACES),))) for one in shared]
        held = sorted(
            {one.key: one for one in [*theirs, *(certificates(choose) for _ in range(choose.randrange(4)))]}.values()
        )
        found[role] = Person(choose.choice(["31", "33", None]), Subject(tuple(held), choose.random() < 0.1))
    return found


def plain(case: Case, sources: list[Freshness], asked: dict[str, Person]) -> tuple[object, object]:
    """The same, decided without a sketch."""
    holders: dict[str, dict[bytes, tuple[str, ...]]] = {}
    for role, person in asked.items():
        for one in person.subject.found:
            holders.setdefault(one.key, {})[role.encode()] = one.shape.roles
    every = {one.key: one for person in asked.values() for one in person.subject.found}
    holdings = [
        Holding(
            one.key, one.shape.material, one.shape.source, one.shape.status, one.shape.valid_from, one.shape.valid_to,
            one.shape.region, one.shape.conflicting, holders[one.key], tuple(Provenance(*row) for row in one.rows),
            one.shape.hub, one.shape.epoch, one.shape.as_of, one.shape.issued_on, one.shape.tests,
        )
        for one in every.values()
    ]  # fmt: skip
    parties = {role: Party(role.encode(), person.province) for role, person in asked.items()}
    undecided = frozenset(role.encode() for role, person in asked.items() if person.subject.undecided)
    known = Known(tuple(holdings), tuple(sources), People(undecided=undecided))
    decision = decide(case.item, case.item.requirements[0], dict(case.facts), parties, known, {MARRIAGE}, NOW)
    return [
        orjson.loads(orjson.dumps(part)) for part in (rendering.requirement(case.item, decision, "en"), decision.trace)
    ]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30))
def test_filled_in_is_as_decided(seed: int) -> None:
    choose = random.Random(seed)
    sources = choose.sample(SOURCES, choose.randrange(len(SOURCES) + 1))
    moment = Moment(Snapshot("1", sources), NOW)
    wanted = choose.choice(ASKED)
    case = Case(wanted, choose.choice([(), (("a", True),), (("a", False),)]) if "a" in wanted.facts else ())
    first = people(choose)
    # The second asks the same with other keys and days: it is filled in from what the first came to.
    other = {
        role: Person(one.province, Subject(tuple(
            Found(f"{int(found.key, 16) + 1:032x}", moved(found.shape), (("s", "other.csv", 7),)) for found in one.subject.found
        ), one.subject.undecided))
        for role, one in first.items()
    }  # fmt: skip
    for asked in (first, other):
        sketch, found = moment.sketch(case, 0, sketches.wants(wanted.requirements[0]), asked)
        filled = [orjson.loads(sketches.filled(parts, found)) for parts in (sketch.text("en"), sketch.trace)]
        assert filled == plain(case, sources, asked)
    several = any(len(one.of(material)) > 1 for one in first.values() for material in (CARD, BOOK, MARRIAGE))
    assert len(moment.sketches) == 1 or several or wanted is ASKED[3], "days that decide nothing make no other case"


def moved(shape: Shape) -> Shape:
    """With other days that come to the same."""
    valid_to = shape.valid_to
    if valid_to is not None and not TODAY <= valid_to <= TODAY + dt.timedelta(days=30):
        valid_to += dt.timedelta(days=90 if valid_to > TODAY else -90)
    valid_from = shape.valid_from and shape.valid_from - dt.timedelta(days=0 if shape.valid_from > TODAY else 50)
    return shape._replace(valid_from=valid_from, valid_to=valid_to)


def test_a_moment_ends_when_a_source_falls_behind_and_at_midnight() -> None:
    known = Snapshot("1", [fresh(CARD)])
    moment = Moment(known, NOW)
    assert moment.holds(known, NOW + dt.timedelta(hours=1))
    assert not moment.holds(known, NOW + dt.timedelta(days=2, seconds=1)), "late since a second"
    assert not moment.holds(known, NOW + dt.timedelta(hours=16)), "the next day in China"
    assert not moment.holds(Snapshot("1", [fresh(CARD)]), NOW)


def test_cases_are_bounded(monkeypatch: object) -> None:
    moment = Moment(Snapshot("1", []), NOW)
    moment.sketches.update({(number,): None for number in range(sketches.MOST)})  # type: ignore[misc]
    case = Case(ASKED[0], ())
    moment.sketch(case, 0, sketches.wants(ASKED[0].requirements[0]), {"applicant": Person("31", Subject())})
    assert len(moment.sketches) == 1


def test_a_day_is_told_by_the_place_of_few() -> None:
    """Of somebody with many certificates the last one, alone of its kind, keeps its own last day."""
    wanted = item([{"material": BOOK}, {"material": CARD}])
    day = TODAY + dt.timedelta(days=400)

    def one(number: int, material: str, valid_to: dt.date) -> Found:
        roles = ("holder",)
        shape = Shape(material, "s", "in_force", None, valid_to, None, False, None, None, None, None, (), roles)
        return Found(f"{number:032x}", shape, (("s", "a.csv", number + 1),))

    for many in (sketches.STOOD_IN - 1, sketches.STOOD_IN, sketches.STOOD_IN + 1, 700):
        held = [*(one(number, BOOK, TODAY) for number in range(many)), one(many, CARD, day)]
        moment = Moment(Snapshot("1", SOURCES), NOW)
        for later in (0, 7):  # decided, then filled in
            moved = [*held[:-1], one(many, CARD, day + dt.timedelta(days=later))]
            asked = {"applicant": Person("31", Subject(tuple(moved)))}
            case = Case(wanted, ())
            sketch, found = moment.sketch(case, 0, sketches.wants(wanted.requirements[0]), asked)
            filled = [orjson.loads(sketches.filled(parts, found)) for parts in (sketch.text("en"), sketch.trace)]
            assert filled == plain(case, SOURCES, asked), many
