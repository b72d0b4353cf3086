"""What a service item asks for: requirements, their options, the materials of an option and what is wanted of each."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    model_validator,
)

from connectors.documents import Days, Strict, Text
from mappings import model, regions
from mappings.facts import Condition
from mappings.model import Code, Identifier

APPLICANT = "applicant"
Test = Literal["is", "at_least", "at_most", "one_of"]
# As JSON writes it: a date as ISO text, a fraction as text (no reader may round it), an integer as a number.
PredicateValue = bool | int | str
Compared = StrictBool | StrictInt | StrictFloat | StrictStr | dt.date


class Party(Strict):
    """Who takes part: the applicant or a named role."""

    kind: Literal["person", "organisation"]
    name: Text

    @property
    def schemes(self) -> tuple[str, ...]:
        return model.PERSON_SCHEMES if self.kind == "person" else model.ORGANISATION_SCHEMES


class Predicate(Strict):
    """What an attribute of the certificate has to be: exactly one of ``is``, ``at_least``, ``at_most``, ``one_of``.

    An amount of money is compared by its amount and must be in ``currency``; an attribute without a value satisfies nothing.
    Decimals and amounts are compared as decimal numbers, dates by their ISO text.
    """

    attribute: Identifier
    is_: Annotated[Compared | None, Field(alias="is")] = None
    at_least: StrictInt | StrictFloat | StrictStr | dt.date | None = None
    at_most: StrictInt | StrictFloat | StrictStr | dt.date | None = None
    one_of: Annotated[tuple[Compared, ...], Field(min_length=1)] | None = None
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] | None = None

    @model_validator(mode="after")
    def _one_test(self) -> Self:
        if sum(test is not None for test in (self.is_, self.at_least, self.at_most, self.one_of)) != 1:
            raise ValueError("`attribute` goes with exactly one of `is`, `at_least`, `at_most`, `one_of`")
        return self

    @property
    def test(self) -> Test:
        """How the attribute is compared."""
        if self.is_ is not None:
            return "is"
        if self.at_least is not None:
            return "at_least"
        return "at_most" if self.at_most is not None else "one_of"

    @property
    def values(self) -> tuple[PredicateValue, ...]:
        """What the attribute is compared with; more than one only for ``one_of``."""
        given = self.one_of or tuple(v for v in (self.is_, self.at_least, self.at_most) if v is not None)
        return tuple(_plain(value) for value in given)

    @property
    def value(self) -> PredicateValue | tuple[PredicateValue, ...]:
        """The one value compared with; the tuple of them for ``one_of``."""
        return self.values if self.one_of is not None else self.values[0]


def _plain(value: bool | int | float | str | dt.date) -> PredicateValue:
    if isinstance(value, dt.date):
        return value.isoformat()
    return format(Decimal(repr(value)), "f") if isinstance(value, float) else value


def _province(value: str) -> str:
    if value not in regions.provinces():
        raise ValueError(f"no province begins with {value}")
    return value


def _at_least_one(value: dt.timedelta) -> dt.timedelta:
    if not value:
        raise ValueError("must be one day or more")
    return value


SomeDays = Annotated[Days, AfterValidator(_at_least_one)]


class Use(Strict):
    """One material that an option needs: whose it is, in which role of the certificate, and what is wanted of it.

    ``valid_left``: how long it must still be valid. ``max_age``: it was issued no longer ago than that. Both whole days.
    ``region``: only a certificate of this province (two digits of GB/T 2260) will do. ``where``: what it must say.
    ``with``: roles of the question that the same certificate must name as well, each in a place of its own;
    ``with_named``: the same of roles that may have no identifier yet, where the question gives one.
    """

    material: Code
    holder: Identifier = APPLICANT
    as_: Annotated[tuple[Identifier, ...], Field(alias="as")] = ()
    valid_left: Days = dt.timedelta(0)
    max_age: SomeDays | None = None
    region: Annotated[str, StringConstraints(pattern=r"^[1-9]\d$"), AfterValidator(_province)] | None = None
    where: tuple[Predicate, ...] = ()
    with_: Annotated[tuple[Identifier, ...], Field(alias="with")] = ()
    with_named: tuple[Identifier, ...] = ()

    @property
    def beside(self) -> tuple[str, ...]:
        """Roles that the certificate has to name beside its holder, or has to if they are given."""
        return (*self.with_, *self.with_named)

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if len({self.holder, *self.beside}) <= len(self.beside):
            raise ValueError("`with`, `with_named`: each role once, and not the holder itself")
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
    within: SomeDays | None = None
    basis: Text

    @model_validator(mode="after")
    def _timed(self) -> Self:
        if (self.kind == "later") != (self.within is not None):
            raise ValueError("`within` belongs to kind `later`, and only there")
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
