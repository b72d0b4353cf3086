"""Service items 政务服务事项 as data: requirements, options, conditions and legal bases, one YAML file an item.

Light on purpose (PyYAML, pydantic): the lookup API imports it. A file that names an unknown material, an undeclared fact
or role, or a value of the wrong type is refused with its name and every reason.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, StrictInt, StrictStr, StringConstraints, model_validator

from connectors.documents import Strict, Text
from connectors.documents import load as load_document
from connectors.errors import FatalError
from mappings import model, regions
from mappings.model import Code, Filled, Identifier

FOLDER = model.FOLDER / "items"
APPLICANT = "applicant"
# An unknown condition is decided by trying what the open facts could be; this bounds the tries.
COMBINATIONS = 4096

FactType = Literal["boolean", "integer", "string", "date"]
# A date is written as its ISO text and compared as such.
FactValue = bool | int | str


class Fact(Strict):
    """One scenario fact and the question that asks for it. A string fact lists its ``values``: no free text."""

    type: FactType
    question: Text
    values: tuple[Identifier, ...] = ()

    @model_validator(mode="after")
    def _listed(self) -> Self:
        if (self.type == "string") != bool(self.values):
            raise ValueError("`values` belong to a string fact, and only there")
        return self

    def accepts(self, value: object) -> bool:
        """Whether ``value`` is of this fact's type; booleans are no integers."""
        if self.type == "boolean":
            return isinstance(value, bool)
        if self.type == "integer":
            return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
        if self.type == "date":
            return isinstance(value, str) and _is_date(value)
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
                day, one = dt.date.fromisoformat(value), dt.timedelta(days=1)
                around |= {(day - one).isoformat(), value, (day + one).isoformat()}
        return tuple(sorted(around, key=str))


def _is_date(value: str) -> bool:
    try:
        return bool(re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII)) and bool(dt.date.fromisoformat(value))
    except ValueError:
        return False


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

    def combinations(self, facts: dict[str, Fact]) -> dict[str, tuple[FactValue, ...]]:
        """For every fact it speaks of, the values worth trying."""
        named: dict[str, set[FactValue]] = {}
        for test in self.tests():
            if test.fact is not None:
                named.setdefault(test.fact, set()).add(test.value)
        return {fact: facts[fact].domain(values) for fact, values in named.items()}


class Use(Strict):
    """One material that an option needs: whose it is, in which role of the certificate, and how long it must last.

    ``region``: only a certificate of this province (two digits of GB/T 2260) will do.
    """

    material: Code
    holder: Identifier = APPLICANT
    as_: Annotated[tuple[Identifier, ...], Field(alias="as")] = ()
    valid_left: dt.timedelta = dt.timedelta(0)
    region: Annotated[str, StringConstraints(pattern=r"^[1-9]\d$")] | None = None

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.valid_left < dt.timedelta(0):
            raise ValueError("`valid_left` cannot be negative")
        if self.region is not None and self.region not in regions.provinces():
            raise ValueError(f"`region`: no province begins with {self.region}")
        return self


class Option(Strict):
    """Materials that together satisfy a requirement."""

    materials: Annotated[tuple[Use, ...], Field(min_length=1)]

    def codes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(use.material for use in self.materials))


class Deferral(Strict):
    """What may stand in for a missing material for now.

    ``later`` 容缺受理: accepted without it, to be handed in ``within`` a time. ``promise`` 告知承诺: the applicant declares in
    writing that the facts are so, and the body verifies them before it completes the matter.
    """

    kind: Literal["later", "promise"]
    within: dt.timedelta | None = None
    basis: Text

    @model_validator(mode="after")
    def _timed(self) -> Self:
        if (self.kind == "later") != (self.within is not None):
            raise ValueError("`within` belongs to kind `later`, and only there")
        if self.within is not None and (self.within < dt.timedelta(days=1) or self.within % dt.timedelta(days=1)):
            raise ValueError("`within` is a number of whole days")
        return self


class Requirement(Strict):
    """What has to be shown. Any option satisfies it, the first is preferred; without ``legal_basis`` it binds nobody."""

    code: Code
    name: Text
    when: Condition | None = None
    legal_basis: Text | None = None
    deferral: Deferral | None = None
    options: Annotated[tuple[Option, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _binding(self) -> Self:
        if self.deferral is not None and self.legal_basis is None:
            raise ValueError("`deferral`: without a legal basis nothing is asked for, so nothing can be deferred")
        return self


class Party(Strict):
    """Who takes part: the applicant or a named role."""

    kind: Literal["person", "organisation"]
    name: Text

    @property
    def schemes(self) -> tuple[str, ...]:
        return model.PERSON_SCHEMES if self.kind == "person" else model.ORGANISATION_SCHEMES


class InForce(Strict):
    """Dates in force, both included; no end when ``to`` is absent."""

    from_: Annotated[dt.date, Field(alias="from")]
    to: dt.date | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.to is not None and self.to < self.from_:
            raise ValueError("`to` is before `from`")
        return self

    def covers(self, day: dt.date) -> bool:
        return self.from_ <= day and (self.to is None or day <= self.to)


class Item(Strict):
    """One service item 政务服务事项 with the requirements published for it."""

    code: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z-]*$", max_length=80)]
    basic_code: Annotated[str, StringConstraints(pattern=r"^[0-9A-Z]{12}$")]
    invented: bool
    name: Text
    type: Filled
    region: Annotated[str, StringConstraints(pattern=r"^\d{6}$")]
    level: Literal["national", "province", "prefecture", "county", "township", "village"]
    version: Annotated[int, Field(ge=1)]
    in_force: InForce
    legal_basis: Text
    applicant: Party
    roles: dict[Identifier, Party] = Field(default_factory=dict)
    facts: dict[Identifier, Fact] = Field(default_factory=dict)
    requirements: Annotated[tuple[Requirement, ...], Field(min_length=1)]
    note: Text | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        reasons = [*self._repeated(), *self._parties(), *self._conditions(), *self._materials()]
        if reasons:
            raise ValueError("; ".join(reasons))
        return self

    def party(self, role: str) -> Party:
        return self.applicant if role == APPLICANT else self.roles[role]

    def uses(self) -> Iterator[tuple[Requirement, Use]]:
        for requirement in self.requirements:
            for option in requirement.options:
                yield from ((requirement, use) for use in option.materials)

    def materials(self) -> tuple[str, ...]:
        """Every material any requirement could ask for, each once."""
        return tuple(dict.fromkeys(use.material for _, use in self.uses()))

    def _repeated(self) -> Iterator[str]:
        codes = [requirement.code for requirement in self.requirements]
        yield from (f"requirement {code}: given twice" for code in sorted({c for c in codes if codes.count(c) > 1}))
        asked = {fact for requirement in self.requirements if requirement.when for fact in requirement.when.facts()}
        yield from (f"facts: {fact}: no condition speaks of it" for fact in self.facts if fact not in asked)

    def _parties(self) -> Iterator[str]:
        if APPLICANT in self.roles:
            yield "roles: the applicant is described under `applicant`"
        used = {use.holder for _, use in self.uses()}
        yield from (f"roles: {role}: no requirement speaks of it" for role in self.roles if role not in used)

    def _conditions(self) -> Iterator[str]:
        for requirement in self.requirements:
            if requirement.when is None:
                continue
            place = f"requirement {requirement.code}"
            wrong = [f"{place}: {reason}" for test in requirement.when.tests() for reason in self._test(test)]
            yield from wrong
            if not wrong:
                sizes = [len(values) for values in requirement.when.combinations(self.facts).values()]
                if next(itertools.dropwhile(lambda n: n <= COMBINATIONS, itertools.accumulate(sizes, int.__mul__)), 0):
                    yield f"{place}: too many facts in one condition"

    def _test(self, test: Condition) -> Iterator[str]:
        fact = self.facts.get(test.fact or "")
        if fact is None:
            yield f"fact {test.fact} is not declared under `facts`"
        elif not fact.accepts(test.value):
            yield f"fact {test.fact} cannot be compared with {test.value!r}: it is of type {fact.type}"
        elif test.is_ is None and fact.type not in ("integer", "date"):
            yield f"fact {test.fact} has no order: use `is`"

    def _materials(self) -> Iterator[str]:
        for requirement, use in self.uses():
            place = f"requirement {requirement.code}"
            if use.holder != APPLICANT and use.holder not in self.roles:
                yield f"{place}: role {use.holder} is not declared under `roles`"
                continue
            try:
                material = model.load(use.material)
            except FatalError:
                yield f"{place}: there is no material {use.material}"
                continue
            if unknown := [role for role in use.as_ if role not in material.holders]:
                yield f"{place}: {use.material} has no holder {', '.join(unknown)}"
                continue
            kinds = {holder.kind for name, holder in material.holders.items() if not use.as_ or name in use.as_}
            if self.party(use.holder).kind not in kinds:
                yield f"{place}: {use.material} is not held by a {self.party(use.holder).kind}"


def read(path: Path) -> Item:
    """The item in one file. FatalError ``item-invalid`` names the file and every reason."""
    item = load_document(path, Item, "item-invalid")
    if item.code != path.stem:
        reason = f"`code` is {item.code}, the file is {path.stem}: they must be equal"
        raise FatalError("item-invalid", file=str(path), reason=reason)
    return item


def all_items(folder: Path = FOLDER) -> tuple[Item, ...]:
    """Every authored item, by code."""
    return tuple(read(path) for path in sorted(folder.glob("*.yml")))
