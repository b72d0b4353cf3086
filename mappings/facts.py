"""Scenario facts and conditions over them, as they stand in the files of service items."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, StrictInt, StrictStr, model_validator

from connectors.documents import Strict, Text
from mappings.model import Identifier

# An unknown condition is decided by trying what the open facts could be; this bounds the tries.
COMBINATIONS = 4096

FactType = Literal["boolean", "integer", "string", "date"]
# A date is written as its ISO text and compared as such.
FactValue = bool | int | str


class Fact(Strict):
    """One scenario fact and the question that asks for it. A string fact lists its ``values``: no free text; ``words``: how
    people read them.

    ``when``: the question is asked only then. Nothing may depend on a question that is not asked (:mod:`mappings.item_rules`).
    """

    type: FactType
    question: Text
    values: tuple[Identifier, ...] = ()
    words: Mapping[Identifier, Text] = {}
    when: Condition | None = None

    @model_validator(mode="after")
    def _listed(self) -> Self:
        if (self.type == "string") != bool(self.values):
            raise ValueError("`values` belong to a string fact, and only there")
        if self.words and set(self.words) != set(self.values):
            raise ValueError("`words` has one entry for each of `values`, and no other")
        return self

    def accepts(self, value: object) -> bool:
        """Whether ``value`` is of this fact's type; booleans are no integers."""
        if self.type == "boolean":
            return isinstance(value, bool)
        if self.type == "integer":
            return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
        if self.type == "date":
            return isinstance(value, str) and is_date(value)
        return isinstance(value, str) and value in self.values

    def domain(self, named: set[FactValue]) -> tuple[FactValue, ...]:
        """Values that tell apart every test against ``named``."""
        if self.type == "boolean":
            return (False, True)
        if self.type == "string":
            return self.values
        around: set[FactValue] = set()
        for value in named:
            if isinstance(value, int):
                around |= {value - 1, value, value + 1}
            elif isinstance(value, str):
                day = dt.date.fromisoformat(value).toordinal()
                near = range(max(day - 1, 1), min(day + 1, dt.date.max.toordinal()) + 1)
                around |= {dt.date.fromordinal(one).isoformat() for one in near}
        return tuple(sorted(around, key=str))


class Condition(Strict):
    """A condition over facts: one of ``{fact, is | at_least | at_most}``, ``{all}``, ``{any}``, ``{not}``."""

    fact: Identifier | None = None
    is_: Annotated[StrictBool | StrictInt | StrictStr | dt.date | None, Field(alias="is")] = None
    at_least: StrictInt | dt.date | None = None
    at_most: StrictInt | dt.date | None = None
    all: Annotated[tuple[Condition, ...], Field(min_length=1)] | None = None
    any: Annotated[tuple[Condition, ...], Field(min_length=1)] | None = None
    not_: Annotated[Condition | None, Field(alias="not")] = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if sum(form is not None for form in (self.fact, self.all, self.any, self.not_)) != 1:
            raise ValueError("a condition is exactly one of `fact`, `all`, `any`, `not`")
        if sum(test is not None for test in (self.is_, self.at_least, self.at_most)) != (self.fact is not None):
            raise ValueError("`fact` goes with exactly one of `is`, `at_least`, `at_most`")
        return self

    @property
    def value(self) -> FactValue:
        """What the fact is compared with; a date as its ISO text."""
        value = next(test for test in (self.is_, self.at_least, self.at_most) if test is not None)
        return value.isoformat() if isinstance(value, dt.date) else value

    def tests(self) -> Iterator[Condition]:
        """Every leaf of this condition."""
        if self.fact is not None:
            yield self
        for part in (*(self.all or ()), *(self.any or ()), *((self.not_,) if self.not_ else ())):
            yield from part.tests()

    def facts(self) -> tuple[str, ...]:
        """Names of the facts it speaks of, each once, in order of mention."""
        return tuple(dict.fromkeys(test.fact for test in self.tests() if test.fact is not None))

    def combinations(self, facts: Mapping[str, Fact]) -> dict[str, tuple[FactValue, ...]]:
        """For every fact it speaks of, the values worth trying."""
        return combinations((self,), facts)

    def holds(self, facts: Mapping[str, FactValue]) -> bool:
        """What it comes to; every fact it speaks of is among ``facts``, each of its type."""
        if self.all is not None:
            return all(part.holds(facts) for part in self.all)
        if self.any is not None:
            return any(part.holds(facts) for part in self.any)
        if self.not_ is not None:
            return not self.not_.holds(facts)
        assert self.fact is not None
        value, named = facts[self.fact], self.value
        if self.is_ is not None:
            return value == named
        # Integers by size, dates by their ISO text: the rules of items allow no other pair.
        return value >= named if self.at_least is not None else value <= named  # type: ignore[operator]


def combinations(conditions: tuple[Condition, ...], facts: Mapping[str, Fact]) -> dict[str, tuple[FactValue, ...]]:
    """For every fact that any of ``conditions`` speaks of, the values that tell all their tests apart."""
    named: dict[str, set[FactValue]] = {}
    for condition in conditions:
        for test in condition.tests():
            if test.fact is not None:
                named.setdefault(test.fact, set()).add(test.value)
    return {fact: facts[fact].domain(values) for fact, values in named.items()}


def is_date(value: str) -> bool:
    """Whether ``value`` is a date as ISO 8601 writes it, with hyphens."""
    try:
        return bool(re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII)) and bool(dt.date.fromisoformat(value))
    except ValueError:
        return False
