"""What is asked for, over generated items: one more certificate in force never adds to it, in whatever order options stand."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hub.holdings import Freshness, Holding, Known
from hub.resolver import Resolution, resolve
from mappings.items import Item
from tests.test_resolver import APPLICANT, BASIS, NOW, fresh, held

MATERIALS = ["resident-id-card", "household-register", "degree-certificate", "retirement-certificate",
             "social-insurance-record", "home-purchase-contract"]  # fmt: skip
OPTIONS = st.lists(
    st.lists(st.sampled_from(MATERIALS), min_size=1, max_size=3, unique=True),
    min_size=1,
    max_size=3,
    unique_by=frozenset,
)
ITEMS = st.lists(OPTIONS, min_size=1, max_size=4)
PAPERS = st.lists(
    st.tuples(st.sampled_from(MATERIALS), st.sampled_from(["in_force", "revoked", "expired"])), max_size=6
)


def made(requirements: list[list[list[str]]]) -> Item:
    return Item.model_validate(
        {
            "code": "x", "basic_code": "0000DEMO9999", "invented": True, "name": BASIS, "type": "公共服务", "region": "310000",
            "level": "province", "version": 1, "in_force": {"from": "2020-01-01"}, "legal_basis": BASIS,
            "applicant": {"kind": "person", "name": BASIS},
            "requirements": [
                {"code": f"r{place}", "name": BASIS, "legal_basis": BASIS,
                 "options": [{"materials": [{"material": code} for code in option]} for option in options]}
                for place, options in enumerate(requirements)
            ],
        },
        strict=False,
    )  # fmt: skip


def resolved(item: Item, holdings: list[Holding], sources: list[Freshness]) -> Resolution:
    return resolve(item, {}, APPLICANT, Known(tuple(holdings), tuple(sources)), {"social-insurance-record"}, NOW)


@settings(max_examples=400, deadline=None)
@given(
    ITEMS, PAPERS, st.sampled_from(MATERIALS), st.sets(st.sampled_from(MATERIALS)), st.randoms(use_true_random=False)
)
def test_one_more_in_force_never_adds(
    requirements: list[list[list[str]]], papers: list[tuple[str, str]], more: str, late: set[str], choose: object
) -> None:
    sources = [fresh(code, days=9 if code in late else 0) for code in MATERIALS]
    before = [held(code, key=f"{place:02}", status=status) for place, (code, status) in enumerate(papers)]
    for options in requirements:
        choose.shuffle(options)  # type: ignore[attr-defined]
    item = made(requirements)
    fewer, then = (resolved(item, all_, sources) for all_ in (before, [*before, held(more, key="ff")]))
    assert set(then.must_submit) <= set(fewer.must_submit)
    for one, other in zip(fewer.decisions, then.decisions, strict=True):
        assert set(other.must_submit) <= set(one.must_submit)


def test_the_one_that_did() -> None:
    """One of another option's papers held: the requirements together asked for more than of somebody without it."""
    x, y, a, b = MATERIALS[:4]
    item = made([[[x, y], [a, b]], [[x]], [[y]]])
    assert set(resolved(item, [], []).must_submit) == set(resolved(item, [held(a)], []).must_submit) == {x, y}
    alone = made([[[x, y], [a, b]]])
    assert resolved(alone, [held(a)], []).must_submit == (x, y), "not b, of which nobody else would be asked"
    assert resolved(alone, [held(a), held(b, key="01")], []).must_submit == ()
