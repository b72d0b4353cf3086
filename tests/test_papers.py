"""Papers: what is one and the same over all items, and what is not."""

from __future__ import annotations

import itertools

from hub import papers
from hub.papers import Paper
from mappings.items import Use

CARD, RECORD = "resident-id-card", "social-insurance-record"
PEOPLE = {"applicant": "a", "spouse": "b", "founder": "a"}


def use(material: str = CARD, holder: str = "applicant", **more: str) -> Use:
    return Use.model_validate({"material": material, "holder": holder, **more})


def new(*uses: Use, before: list[Paper] | None = None) -> list[Paper]:
    return list(papers.new(uses, PEOPLE, before or []))


def test_the_same_paper_is_asked_for_once() -> None:
    assert new(use(), use(), use(holder="founder")) == [Paper(CARD, "a", None)], "one person in two roles"
    assert new(use(), before=new(use(holder="founder"))) == []


def test_papers_of_two_people_are_two() -> None:
    assert new(use(), use(holder="spouse")) == [Paper(CARD, "a", None), Paper(CARD, "b", None)]
    assert papers.codes(new(use(), use(holder="spouse"))) == [CARD]
    assert new(use(holder="spouse"), before=new(use())) == [Paper(CARD, "b", None)]


def test_papers_of_two_provinces_are_two_and_either_is_one_of_whichever() -> None:
    here, there = use(RECORD, region="31"), use(RECORD, region="32")
    assert new(here, there) == [Paper(RECORD, "a", "31"), Paper(RECORD, "a", "32")]
    assert new(use(RECORD), before=new(here)) == [] == new(here, use(RECORD))[1:]
    assert new(here, before=new(use(RECORD))) == [Paper(RECORD, "a", "31")], "another province's might be brought"


def test_one_of_a_certain_province_stands_in_the_place_of_one_of_whichever() -> None:
    """In whatever order they are wanted, here or by another item."""
    here, there, any_, card = use(RECORD, region="31"), use(RECORD, region="32"), use(RECORD), use()
    for order in itertools.permutations((here, there, any_, card)):
        found = papers.new(order, PEOPLE, ())
        assert set(found) == {Paper(RECORD, "a", "31"), Paper(RECORD, "a", "32"), Paper(CARD, "a", None)}
        assert found[Paper(RECORD, "a", "31")] is here, "and for the reasons of its own"
        assert papers.codes(found) == list(dict.fromkeys(one.material for one in order)), "where the first stood"
    assert new(any_, use(RECORD, holder="spouse"), here) == [Paper(RECORD, "a", "31"), Paper(RECORD, "b", None)]
    others = [[use(RECORD, holder="founder", region="31"), there], [here, use(RECORD, holder="spouse", region="33")]]
    assert papers.instead([any_, card], PEOPLE, others) == [Paper(RECORD, "a", "31"), Paper(RECORD, "a", "32")]
    assert papers.instead([here, card], PEOPLE, others) == []
    assert new(any_, card, before=papers.instead([any_, card], PEOPLE, others)) == [Paper(CARD, "a", None)]


def test_what_is_kept_is_read_again_by_role() -> None:
    asked = new(use(), use(RECORD, holder="spouse", region="32"))
    kept = papers.written(asked, PEOPLE)
    assert kept == ["resident-id-card applicant", "social-insurance-record spouse 32"]
    assert papers.read(kept, PEOPLE) == asked
    assert papers.read(kept, {"applicant": "a"}) == [Paper(CARD, "a", None), Paper(RECORD, "spouse", "32")]
    assert papers.read([CARD], PEOPLE) == [], "of before papers were told apart"
