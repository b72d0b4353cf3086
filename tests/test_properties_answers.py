"""Properties of whole answers, over items of the catalogue and whatever may be held: without a store."""

from __future__ import annotations

import dataclasses
import datetime as dt
import random
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub import answers, catalogue, papers
from hub.answers import Question
from hub.home import KeyedHash
from hub.knowledge import Found, Shape, Snapshot, Subject
from hub.sketches import Moment
from mappings import model
from mappings.items import APPLICANT, Item, Use
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


def of_provinces(choose: random.Random, item: Item) -> Item:
    """The item as it would be if some of its papers had to come from a certain province."""

    def of(use: Use) -> Use:
        return use.model_copy(update={"region": choose.choice(["31", "33"])}) if choose.random() < 0.3 else use

    requirements = [
        requirement.model_copy(update={"options": tuple(
            option.model_copy(update={"materials": tuple(map(of, option.materials))}) for option in requirement.options
        )})
        for requirement in item.requirements
    ]  # fmt: skip
    return item.model_copy(update={"requirements": tuple(requirements)})


def ask(
    asked_about: Question, found: dict[str, list[Found]], sources: Snapshot, versions: Mapping[str, Item] | None = None
) -> list[dict[str, object]]:
    def find(code: str, on: dt.date) -> Item:
        item = versions[code] if versions else catalogue.in_force(code, on)
        assert item is not None
        return item

    asked = answers.prepare(asked_about, NOW, find, HASHING)
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
    versions = {item.code: of_provinces(choose, item) for item in items}
    found = {role: held(choose, items) for role in (APPLICANT, *whole.roles)}
    sources = Snapshot("1", [fresh(code, days=choose.choice([0, 9])) for item in items for code in item.materials()])
    given = ask(whole, found, sources, versions)
    together = submits(given)
    alone: set[str] = set()
    for item in items:
        facts = {name: value for name, value in whole.facts.items() if name in item.facts}
        roles = {role: value for role, value in whole.roles.items() if role in item.roles}
        alone |= set(
            submits(ask(Question((item.code,), whole.applicant, "t", "t", facts, roles), found, sources, versions))
        )
    assert set(together) == alone
    wanted = [lacking(answer, whole) for answer in given]
    certain = {paper[:2] for one in wanted for paper in one if paper[2]}
    before: set[tuple[str, str, str | None]] = set()
    for answer, these in zip(given, wanted, strict=True):
        asked = {paper[0] for paper in these - before if paper[2] or paper[:2] not in certain}
        must: list[str] = answer["must_submit"]  # type: ignore[assignment]
        assert set(must) == asked and len(asked) == len(must), "each person's paper once"
        before |= these


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 1 << 30))
def test_the_order_of_items_and_requirements_does_not_matter(seed: int) -> None:
    """The same papers are asked for, each once, and no one of whichever province beside one of a certain province."""
    choose = random.Random(seed)
    items = together_askable(choose.sample(ITEMS, choose.randrange(2, 6)))
    whole = question(choose, items)
    versions = {item.code: of_provinces(choose, item) for item in items}
    found = {role: held(choose, items) for role in (APPLICANT, *whole.roles)}
    sources = Snapshot("1", [fresh(code, days=choose.choice([0, 9])) for item in items for code in item.materials()])
    asked = []
    for _ in range(3):
        with pytest.MonkeyPatch.context() as patch:
            said: list[papers.Paper] = []
            new = papers.new

            def spied(*args: Any) -> dict[papers.Paper, Use]:
                once = new(*args)  # noqa: B023
                said.extend(once)  # noqa: B023
                return once

            patch.setattr(papers, "new", spied)
            given = ask(whole, found, sources, versions)
        assert len(said) == len(set(said)), "each once"
        assert not {one for one in said if one.region is None} & {
            one._replace(region=None) for one in said if one.region
        }
        assert {one.material for one in said} == set(submits(given))
        asked.append((set(said), {paper for answer in given for paper in lacking(answer, whole)}))
        whole = dataclasses.replace(whole, items=tuple(choose.sample(whole.items, len(whole.items))))
        versions = {
            code: item.model_copy(update={"requirements": tuple(choose.sample(item.requirements, len(item.requirements)))})
            for code, item in versions.items()
        }  # fmt: skip
    assert asked[0] == asked[1] == asked[2]


def lacking(answer: dict[str, object], asked: Question) -> set[tuple[str, str, str | None]]:
    """The papers that the requirements of an answer want now: material, of whom, province."""
    return {
        (one["material"], asked.roles.get(one["holder"], asked.applicant), one["region"])
        for entry in answer["requirements"] if entry["disposition"] != "deferred"  # type: ignore[attr-defined]
        for one in entry.get("lacking", ())
    }  # fmt: skip


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
