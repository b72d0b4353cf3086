"""Conditions in words say what is decided: read back by a reader that knows only words and parentheses."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors import messages
from connectors.documents import Text
from connectors.messages import Language
from hub import conditions
from mappings import items, wording
from mappings.items import Condition, Fact, FactValue

# Questions with words and brackets that a careless reader would take for the condition's own.
FACTS = {
    "married": Fact(type="boolean", question=Text(zh="已婚吗（或离异，且未再婚）？", en="Married (or divorced) and not single?")),
    "ground": Fact(type="string", values=("work", "study"), question=Text(zh="因何？", en="On what ground?")),
    "years": Fact(type="integer", question=Text(zh="几年？", en="How many years?")),
    "since": Fact(type="date", question=Text(zh="自何时？", en="Since when?")),
}  # fmt: skip

TESTS = st.one_of(
    st.builds(lambda value: {"fact": "married", "is": value}, st.booleans()),
    st.builds(lambda value: {"fact": "ground", "is": value}, st.sampled_from(["work", "study"])),
    st.builds(
        lambda test, value: {"fact": "years", test: value},
        st.sampled_from(["is", "at_least", "at_most"]),
        st.integers(0, 4),
    ),
    st.builds(
        lambda test, day: {"fact": "since", test: f"2020-01-0{day}"},
        st.sampled_from(["is", "at_least", "at_most"]),
        st.integers(2, 4),
    ),
)
TREES = st.recursive(
    TESTS,
    lambda inner: st.one_of(
        st.builds(lambda parts: {"all": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"any": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"not": part}, inner),
    ),
    max_leaves=10,
)
KNOWN = st.fixed_dictionaries(
    {
        "married": st.booleans(),
        "ground": st.sampled_from(["work", "study"]),
        "years": st.integers(0, 5),
        "since": st.integers(1, 5).map(lambda day: f"2020-01-0{day}"),
    }
)

VALUES = {"string": "(work|study)", "integer": r"(\d+)", "date": r"(\d{4}-\d\d-\d\d)"}
MEANS = {
    "yes": lambda known, _: known is True,
    "no": lambda known, _: known is False,
    "is": lambda known, value: str(known) == value,
    "is-not": lambda known, value: str(known) != value,
    "at-least": lambda known, value: known >= int(value),
    "less-than": lambda known, value: known < int(value),
    "at-most": lambda known, value: known <= int(value),
    "more-than": lambda known, value: known > int(value),
    "not-before": lambda known, value: known >= value,
    "before": lambda known, value: known < value,
    "not-after": lambda known, value: known <= value,
    "after": lambda known, value: known > value,
}


def read(text: str, known: dict[str, FactValue], lang: Language) -> bool:
    """What a person who reads ``text`` takes it to say of ``known``."""
    for name, fact in FACTS.items():
        for word in ("yes", "no") if fact.type == "boolean" else (word for word in MEANS if word not in ("yes", "no")):
            pattern = re.escape(
                messages.text(f"wording-{word}", lang, question=getattr(fact.question, lang), value="@")
            )

            def judged(found: re.Match[str], name: str = name, word: str = word) -> str:
                return "T" if MEANS[word](known[name], found[1] if found.re.groups else None) else "F"

            text = re.sub(pattern.replace("@", VALUES.get(fact.type, "")), judged, text)
    opening, closing = ("（", "）") if lang == "zh" else ("(", ")")
    while re.search(bracketed := f"{re.escape(opening)}([^{opening}{closing}]+){re.escape(closing)}", text):
        text = re.sub(bracketed, lambda found: joined(found[1], lang), text)
    return joined(text, lang) == "T"


def joined(text: str, lang: Language) -> str:
    """``T and F`` to ``F``; "and" beside "or" without parentheses would be ambiguous."""
    said = {word: messages.text(f"wording-{word}", lang) for word in ("and", "or")}
    used = [word for word in said if said[word] in text]
    assert len(used) <= 1, text
    parts = text.split(said[used[0]]) if used else [text]
    assert set(parts) <= {"T", "F"}, text
    return "T" if (any if used == ["or"] else all)(part == "T" for part in parts) else "F"


@pytest.mark.parametrize("lang", ["zh", "en"])
@given(tree=TREES, known=KNOWN)
def test_what_is_said_is_what_is_decided(lang: Language, tree: dict, known: dict[str, FactValue]) -> None:
    condition = Condition.model_validate(tree)
    decided = conditions.evaluate(condition, known, FACTS).value
    assert read(wording.sentence(condition, FACTS, lang), known, lang) is decided


def test_a_negation_is_carried_to_what_it_is_about() -> None:
    elder = next(item for item in items.all_items() if item.code == "demo-elder-card")
    when = elder.requirements[1].when
    assert when is not None
    assert (
        wording.sentence(when, elder.facts, "zh") == "“申请人是本市户籍吗？”：否，且“申请人在本市已居住几年？”：少于 5"
    )
    english = wording.sentence(when, elder.facts, "en")
    assert english.endswith("less than 5") and " and " in english and ": no" in english


def test_and_beside_or_stands_in_parentheses() -> None:
    a, b, c = ({"fact": "married", "is": True}, {"fact": "ground", "is": "work"}, {"fact": "years", "at_least": 3})
    said = wording.sentence(Condition.model_validate({"any": [a, {"not": {"any": [b, c]}}]}), FACTS, "en")
    assert said.endswith(" or (“On what ground?”: not work and “How many years?”: less than 3)")


def test_every_condition_of_every_item_can_be_said() -> None:
    said = [
        wording.sentence(requirement.when, item.facts, lang)
        for item, lang in itertools.product(items.all_items(), ("zh", "en"))
        for requirement in item.requirements
        if requirement.when
    ]
    assert len(said) > 20 and all(said)
