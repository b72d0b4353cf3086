"""What has to agree inside one item: facts, conditions, roles and materials. Shapes alone are checked by the models.

The rules are applied to whatever of a file has a good shape, so that everything wrong with it is found at once: a part
that has none is None here and nothing is said about what depends on it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from connectors.errors import FatalError
from mappings import model
from mappings.facts import COMBINATIONS, Condition, Fact, combinations, is_date
from mappings.model import Material
from mappings.requirements import APPLICANT, Option, Party, Predicate, PredicateValue, Requirement, Use

Place = tuple[str | int, ...]
Flaw = tuple[Place, str]


@dataclass(frozen=True)
class Parts:
    """What an item declares, each part as far as it has a good shape. Requirements by their place in the file."""

    applicant: Party | None
    roles: Mapping[str, Party | None]
    facts: Mapping[str, Fact | None]
    requirements: Mapping[int, Requirement | None]

    @property
    def whole(self) -> bool:
        """Whether nothing is missing: only then can be said what nobody speaks of."""
        return None not in (self.applicant, *self.roles.values(), *self.facts.values(), *self.requirements.values())


def flaws(parts: Parts) -> Iterator[Flaw]:
    """Everything that does not agree, with its place in the file."""
    yield from _repeated(parts)
    cycles = list(_cycles(parts))
    yield from cycles
    for place, condition in _conditions(parts):
        yield from _tests(place, condition, parts)
    if not cycles:
        yield from _unasked(parts)
    if APPLICANT in parts.roles:
        yield ("roles", APPLICANT), "the applicant is described under `applicant`"
    for place, requirement, use in _uses(parts):
        yield from (
            ((*place, *below), f"requirement {requirement.code}: {reason}") for below, reason in _use(use, parts)
        )
    if parts.whole:
        yield from _idle(parts)


def _repeated(parts: Parts) -> Iterator[Flaw]:
    seen: set[str] = set()
    for place, requirement in parts.requirements.items():
        if requirement is not None:
            if requirement.code in seen:
                yield ("requirements", place, "code"), f"requirement {requirement.code}: given twice"
            seen.add(requirement.code)
            yield from (
                (("requirements", place, *below), f"requirement {requirement.code}: {reason}")
                for below, reason in _twice(requirement)
            )


def _twice(requirement: Requirement) -> Iterator[Flaw]:
    """A material that an option wants twice of the same holder in the same words, and an option given twice."""
    for place, option in enumerate(requirement.options):
        for at, use in enumerate(option.materials):
            if use in option.materials[:at]:
                yield ("options", place, "materials", at), f"{use.material} is wanted twice"
        if any(_same(option, other) for other in requirement.options[:place]):
            yield ("options", place), "this option is given twice"


def _same(one: Option, other: Option) -> bool:
    return all(use in other.materials for use in one.materials) and all(use in one.materials for use in other.materials)


def _idle(parts: Parts) -> Iterator[Flaw]:
    asked = {fact for _, condition in _conditions(parts) for fact in condition.facts()}
    yield from ((("facts", fact), f"{fact}: no condition speaks of it") for fact in parts.facts if fact not in asked)
    used = {role for _, _, use in _uses(parts) for role in (use.holder, *use.beside)}
    yield from ((("roles", role), f"{role}: no requirement speaks of it") for role in parts.roles if role not in used)


def _conditions(parts: Parts) -> Iterator[tuple[Place, Condition]]:
    for name, fact in parts.facts.items():
        if fact is not None and fact.when is not None:
            yield ("facts", name, "when"), fact.when
    for place, requirement in parts.requirements.items():
        if requirement is not None and requirement.when is not None:
            yield ("requirements", place, "when"), requirement.when


def _uses(parts: Parts) -> Iterator[tuple[Place, Requirement, Use]]:
    for place, requirement in parts.requirements.items():
        for option_place, option in enumerate(requirement.options if requirement else ()):
            for use_place, use in enumerate(option.materials):
                assert requirement is not None
                yield ("requirements", place, "options", option_place, "materials", use_place), requirement, use


def _cycles(parts: Parts) -> Iterator[Flaw]:
    """Questions that wait for one another are never asked; those that wait for one line come after it."""
    waits = {
        name: [other for other in fact.when.facts() if other in parts.facts] if fact and fact.when else []
        for name, fact in parts.facts.items()
    }
    order = {name: place for place, name in enumerate(parts.facts)}
    told: set[str] = set()
    for start in waits:
        path = _cycle(start, waits)
        if path and not told & set(path):
            told |= set(path)
            yield ("facts", start, "when"), f"cyclic condition: {' → '.join([*path, start])}"
    for name, others in waits.items():
        late = [other for other in others if order[other] > order[name]]
        if late and name not in told:
            yield (
                ("facts", name, "when"),
                f"{name} is asked before {', '.join(late)}: declare what it depends on first",
            )


def _cycle(start: str, waits: Mapping[str, list[str]]) -> list[str]:
    """The facts on a way from ``start`` back to it; empty when there is none."""
    ways, seen = [[start]], set()
    while ways:
        way = ways.pop()
        for other in waits[way[-1]]:
            if other == start:
                return way
            if other not in seen:
                seen.add(other)
                ways.append([*way, other])
    return []


def _tests(place: Place, condition: Condition, parts: Parts) -> Iterator[Flaw]:
    """Tests of a condition against what is declared, and how many facts it takes at once."""
    subject = _subject(place, parts)
    wrong = [f"{subject}: {reason}" for test in condition.tests() for reason in _test(test, parts)]
    yield from ((place, reason) for reason in wrong)
    declared = {name: fact for name, fact in parts.facts.items() if fact is not None}
    if wrong or not set(condition.facts()) <= set(declared):
        return
    tried = condition.combinations(declared)
    if math.prod(len(values) for values in tried.values()) > COMBINATIONS:
        yield place, f"{subject}: too many facts in one condition"
    elif not any(
        condition.holds(dict(zip(tried, values, strict=True))) for values in itertools.product(*tried.values())
    ):
        yield place, f"{subject}: this condition can never be true"


def _subject(place: Place, parts: Parts) -> str:
    kind, key, *_ = place
    if kind == "facts":
        return f"fact {key}"
    requirement = parts.requirements[int(key)]
    return f"requirement {requirement.code if requirement else key}"


def _test(test: Condition, parts: Parts) -> Iterator[str]:
    if test.fact is None or test.fact not in parts.facts:
        yield f"fact {test.fact} is not declared under `facts`"
        return
    fact = parts.facts[test.fact]
    if fact is None:
        return
    if not fact.accepts(test.value):
        yield f"fact {test.fact} cannot be compared with {test.value!r}: it is of type {fact.type}"
    elif test.is_ is None and fact.type not in ("integer", "date"):
        yield f"fact {test.fact} has no order: use `is`"


def _unasked(parts: Parts) -> Iterator[Flaw]:
    """Nothing may depend on the answer to a question that is not asked: the answer could never be complete."""
    declared = {name: fact for name, fact in parts.facts.items() if fact is not None}
    for place, condition in _conditions(parts):
        if not set(condition.facts()) <= set(declared):
            continue
        if any(True for test in condition.tests() for _ in _test(test, parts)):
            continue
        for name in condition.facts():
            asked = declared[name].when
            if asked is None or not set(asked.facts()) <= set(declared) or name in asked.facts():
                continue
            if any(True for test in asked.tests() for _ in _test(test, parts)):
                continue
            tried = combinations((condition, asked), declared)
            if math.prod(len(values) for values in tried.values()) > COMBINATIONS:
                yield place, f"{_subject(place, parts)}: too many facts in one condition"
            elif _depends(condition, name, asked, tried):
                yield place, f"{_subject(place, parts)}: depends on fact {name} also when its question is not asked"


def _depends(
    condition: Condition, name: str, asked: Condition, tried: Mapping[str, tuple[bool | int | str, ...]]
) -> bool:
    """Whether ``name`` can change ``condition`` although ``asked`` is false."""
    others = [fact for fact in tried if fact != name]
    for values in itertools.product(*(tried[fact] for fact in others)):
        facts = dict(zip(others, values, strict=True))
        if not asked.holds(facts) and len({condition.holds({**facts, name: value}) for value in tried[name]}) > 1:
            return True
    return False


def _use(use: Use, parts: Parts) -> Iterator[Flaw]:
    """One material against the model: that it exists, who holds it, what is wanted of it. Places are below the use."""
    if use.holder != APPLICANT and use.holder not in parts.roles:
        yield ("holder",), f"role {use.holder} is not declared under `roles`"
    try:
        material = model.load(use.material)
    except FatalError:
        yield ("material",), f"there is no material {use.material}"
        return
    party = parts.applicant if use.holder == APPLICANT else parts.roles.get(use.holder)
    if unknown := [role for role in use.as_ if role not in material.holders]:
        yield ("as",), f"{use.material} has no holder {', '.join(unknown)}"
    elif party is not None:
        kinds = {holder.kind for name, holder in material.holders.items() if not use.as_ or name in use.as_}
        if party.kind not in kinds:
            yield ("material",), f"{use.material} is not held by a {party.kind}"
    for key, roles in (("with", use.with_), ("with_named", use.with_named)):
        yield from (((key,), reason) for role in roles for reason in _named(role, use, parts, material))
    for place, predicate in enumerate(use.where):
        yield from ((("where", place), reason) for reason in _predicate(predicate, material))


def _named(role: str, use: Use, parts: Parts, material: Material) -> Iterator[str]:
    """A role that the certificate has to name beside its holder: it needs a place of its own there."""
    if role != APPLICANT and role not in parts.roles:
        yield f"role {role} is not declared under `roles`"
        return
    party = parts.applicant if role == APPLICANT else parts.roles[role]
    holder = parts.applicant if use.holder == APPLICANT else parts.roles.get(use.holder)
    if party is None or holder is None:
        return
    own = [name for name, one in material.holders.items() if one.kind == holder.kind and name in (use.as_ or [name])]
    if not any(one.kind == party.kind and own != [name] for name, one in material.holders.items()):
        yield f"{use.material} has no place for {role} beside its holder"


def _predicate(predicate: Predicate, material: Material) -> Iterator[str]:
    name = predicate.attribute
    attribute = material.attributes.get(name)
    if attribute is None:
        yield f"{material.code} has no attribute {name}; it has {', '.join(material.attributes)}"
        return
    if predicate.test in ("at_least", "at_most") and attribute.type in ("string", "boolean"):
        yield f"attribute {name} has no order: use `is` or `one_of`"
    if (attribute.type == "money") != (predicate.currency is not None):
        yield f"attribute {name}: `currency` belongs to an amount of money, and only there"
    for value in predicate.values:
        if not _fits(value, attribute.type):
            yield f"attribute {name} cannot be compared with {value!r}: it is of type {attribute.type}"


def _fits(value: PredicateValue, kind: str) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if kind == "integer":
        return isinstance(value, int)
    if kind in ("decimal", "money"):
        return _is_number(value)
    return isinstance(value, str) and (kind != "date" or is_date(value))


def _is_number(value: int | str) -> bool:
    try:
        return Decimal(value).is_finite()
    except InvalidOperation:
        return False
