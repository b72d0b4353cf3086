"""Conditions: three values, and only questions that can change the result."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from hub.conditions import Outcome, evaluate
from mappings.items import Condition, Fact
from mappings.model import Text

ASK = Text(zh="问", en="ask")
FACTS = {
    "a": Fact(type="boolean", question=ASK),
    "b": Fact(type="boolean", question=ASK),
    "age": Fact(type="integer", question=ASK),
    "day": Fact(type="date", question=ASK),
    "ground": Fact(type="string", question=ASK, values=("work", "study", "spouse")),
}
A, B = {"fact": "a", "is": True}, {"fact": "b", "is": True}


def outcome(condition: dict[str, Any], **facts: Any) -> Outcome:
    return evaluate(Condition.model_validate(condition), facts, FACTS)


@pytest.mark.parametrize(
    ("condition", "facts", "value", "deciding"),
    [
        (A, {"a": True}, True, ()),
        (A, {"a": False}, False, ()),
        (A, {}, None, ("a",)),
        ({"not": A}, {}, None, ("a",)),
        ({"any": [A, B]}, {"a": True}, True, ()),
        ({"any": [A, B]}, {"a": False}, None, ("b",)),
        ({"any": [A, B]}, {}, None, ("a", "b")),
        ({"all": [A, B]}, {"a": False}, False, ()),
        ({"all": [A, B]}, {"b": True}, None, ("a",)),
        ({"any": [A, {"not": A}]}, {}, True, ()),  # whatever a is
        ({"all": [A, {"not": A}]}, {}, False, ()),
        ({"any": [{"all": [A, B]}, {"all": [A, {"not": B}]}]}, {}, None, ("a",)),  # b cannot matter
        ({"fact": "age", "at_least": 60}, {"age": 60}, True, ()),
        ({"fact": "age", "at_least": 60}, {"age": 59}, False, ()),
        ({"fact": "age", "at_most": 60}, {"age": 61}, False, ()),
        ({"any": [{"fact": "age", "at_least": 60}, {"fact": "age", "at_most": 59}]}, {}, True, ()),
        ({"any": [{"fact": "age", "at_least": 61}, {"fact": "age", "at_most": 59}]}, {}, None, ("age",)),
        ({"fact": "day", "at_most": "2015-12-31"}, {"day": "2015-12-31"}, True, ()),
        ({"fact": "day", "at_most": "2015-12-31"}, {"day": "2016-01-01"}, False, ()),
        ({"fact": "day", "at_most": "2015-12-31"}, {}, None, ("day",)),
        ({"any": [{"fact": "ground", "is": g} for g in ("work", "study", "spouse")]}, {}, True, ()),
        ({"any": [{"fact": "ground", "is": g} for g in ("work", "study")]}, {}, None, ("ground",)),
    ],
)
def test_outcomes(
    condition: dict[str, Any], facts: dict[str, Any], value: bool | None, deciding: tuple[str, ...]
) -> None:
    assert outcome(condition, **facts) == Outcome(value, deciding)


def test_no_condition_is_true() -> None:
    assert evaluate(None, {}, FACTS) == Outcome(True)


def test_an_open_outcome_can_really_go_both_ways() -> None:
    """Over small conditions: open exactly when completions differ, and each deciding fact decides somewhere."""
    leaves = [A, B, {"not": A}, {"fact": "ground", "is": "work"}]
    values: dict[str, tuple[Any, ...]] = {"a": (False, True), "b": (False, True), "ground": ("work", "study", "spouse")}
    seen = set()
    for form, outer in itertools.product(("all", "any"), repeat=2):
        for one, two, three in itertools.product(leaves, repeat=3):
            condition = {outer: [{form: [one, two]}, three]}
            for known in ({}, {"a": True}, {"a": False, "b": True}):
                found = outcome(condition, **known)
                open_facts = [name for name in values if name not in known]
                completions = [
                    outcome(condition, **known, **dict(zip(open_facts, combination, strict=True))).value
                    for combination in itertools.product(*(values[name] for name in open_facts))
                ]
                expected = completions[0] if len(set(completions)) == 1 else None
                assert found.value is expected
                assert bool(found.deciding) == (expected is None)
                seen.add(expected)
    assert seen == {True, False, None}
