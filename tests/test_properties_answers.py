"""Properties of whole answers, over items of the catalogue and whatever may be held: without a store."""

from __future__ import annotations

import datetime as dt
import random

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from hub import answers, catalogue
from hub.answers import Question
from hub.home import KeyedHash
from hub.knowledge import Found, Shape, Snapshot, Subject
from hub.sketches import Moment
from mappings import model
from mappings.items import APPLICANT, Item
from tests import stored
from tests.test_resolver import fresh

NOW = dt.datetime(2026, 11, 23, 4, 0, tzinfo=dt.UTC)
HASHING = KeyedHash(b"k" * 32)
ITEMS = [
    item for code in catalogue.published()
    if (item := catalogue.in_force(code, NOW.date())) is not None and item.applicant.kind == "person"
]  # fmt: skip


def question(choose: random.Random, items: list[Item]) -> Question:
    facts = {name: choose.choice(fact.domain(set())) for item in items for name, fact in item.facts.items()
             if fact.type in ("boolean", "string") and choose.random() < 0.8}  # fmt: skip
    persons = [f"cn.ric:{stored.SPOUSE}", "cn.ric:310115199503078015"]
    roles = {
        role: choose.choice(persons) if party.kind == "person" else f"cn.uscc:{stored.LICENCE_CODE}"
        for item in items for role, party in item.roles.items() if choose.random() < 0.8
    }  # fmt: skip
    return Question(tuple(item.code for item in items), f"cn.ric:{stored.RESIDENT}", "t", "t", facts, roles)


def together_askable(items: list[Item]) -> list[Item]:
    """Those whose facts and roles mean the same, as in a bundle."""
    kept: list[Item] = []
    for item in items:
        facts = all(
            other.facts[name] == item.facts[name] for other in kept for name in other.facts.keys() & item.facts.keys()
        )
        roles = all(
            other.roles[name] == item.roles[name] for other in kept for name in other.roles.keys() & item.roles.keys()
        )
        if facts and roles:
            kept.append(item)
    return kept


def held(choose: random.Random, items: list[Item]) -> list[Found]:
    """Certificates in force of materials that the items want; one of several parties is the same certificate."""
    materials = sorted({code for item in items for code in item.materials()})
    return [
        Found(f"{number:032x}", Shape(
            material, "s", "in_force", None, None, "310000", False, None, None, None, NOW.date(), (),
            (choose.choice(list(model.load(material).holders)),),
        ), (("s", "f.csv", number),))
        for number, material in enumerate(materials) if choose.random() < 0.5
    ]  # fmt: skip


def ask(asked_about: Question, found: dict[str, list[Found]], sources: Snapshot) -> list[dict[str, object]]:
    asked = answers.prepare(asked_about, NOW, lambda code, on: catalogue.in_force(code, on), HASHING)  # type: ignore[arg-type,return-value]
    subjects = {role: Subject(tuple(found.get(role, ()))) for role in asked.digests}
    return [orjson.loads(one.body) for one in answers.complete(asked, subjects, Moment(sources, NOW), NOW, "t")]


def submits(given: list[dict[str, object]]) -> list[str]:
    return [code for one in given for code in one["must_submit"]]  # type: ignore[attr-defined]


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 1 << 30))
def test_asked_together_is_no_more_than_asked_one_by_one(seed: int) -> None:
    choose = random.Random(seed)
    items = together_askable(choose.sample(ITEMS, choose.randrange(2, 6)))
    whole = question(choose, items)
    found = {role: held(choose, items) for role in (APPLICANT, *whole.roles)}
    sources = Snapshot("1", [fresh(code, days=choose.choice([0, 9])) for item in items for code in item.materials()])
    given = ask(whole, found, sources)
    together = submits(given)
    alone: set[str] = set()
    for item in items:
        facts = {name: value for name, value in whole.facts.items() if name in item.facts}
        roles = {role: value for role, value in whole.roles.items() if role in item.roles}
        alone |= set(submits(ask(Question((item.code,), whole.applicant, "t", "t", facts, roles), found, sources)))
    assert set(together) == alone
    before: set[tuple[str, str, str | None]] = set()
    for answer in given:
        papers = [
            (one["material"], whole.roles.get(one["holder"], whole.applicant), one["region"])
            for entry in answer["requirements"] if entry["disposition"] != "deferred"  # type: ignore[attr-defined]
            for one in entry.get("lacking", ())
        ]  # fmt: skip
        asked = {paper[0] for paper in papers if paper not in before and not (
            paper[2] is None and any(old[:2] == paper[:2] for old in before))}  # fmt: skip
        assert set(answer["must_submit"]) == asked and len(asked) == len(answer["must_submit"]), (  # type: ignore[arg-type]
            "each person's paper once"
        )
        before |= set(papers)


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 1 << 30))
def test_more_held_is_never_more_to_submit(seed: int) -> None:
    choose = random.Random(seed)
    items = [choose.choice(ITEMS)]
    asked_about = question(choose, items)
    sources = Snapshot("1", [fresh(code) for code in items[0].materials()])
    found = {role: held(choose, items) for role in (APPLICANT, *asked_about.roles)}
    fewer = {role: [one for one in all_ if choose.random() < 0.6] for role, all_ in found.items()}
    assert set(submits(ask(asked_about, found, sources))) <= set(submits(ask(asked_about, fewer, sources)))
    shuffled = {role: choose.sample(all_, len(all_)) for role, all_ in found.items()}
    assert submits(ask(asked_about, shuffled, sources)) == submits(ask(asked_about, found, sources))
