"""What a requirement wants a certificate to say, tested where the certificate is read.

Only the results go on from there: an answer keeps that somebody's degree is at least a master's, not which one it is.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from hub import catalogue
from mappings import model
from mappings.requirements import Predicate, PredicateValue

Tests = tuple[tuple[str, bool | None], ...]
"""Key of a predicate -> whether the certificate says so; None where it says nothing of the attribute."""


def key(predicate: Predicate) -> str:
    """What names a predicate among those of its material, such as ``level one_of ["master","doctor"]``."""
    values = ",".join(map(str, predicate.values))
    return " ".join(filter(None, (predicate.attribute, predicate.test, values, predicate.currency)))


@functools.cache
def wanted() -> Mapping[str, tuple[Predicate, ...]]:
    """Materials of which some published item wants more than the envelope's dates in force -> the predicates on them."""
    found: dict[str, dict[str, Predicate]] = {}
    for versions in catalogue.published().values():
        for item in versions:
            for _, use in item.uses():
                if use.where or use.max_age is not None:
                    found.setdefault(use.material, {}).update({key(one): one for one in use.where})
    return {material: tuple(predicates.values()) for material, predicates in found.items()}


def told(material: str, document: str) -> tuple[dt.date | None, Tests]:
    """What a document says beyond the columns of its holding: when it was issued, and the predicates wanted of it."""
    said = orjson.loads(document)
    issued_on = said.get("issued_on")
    tests = tested(material, said.get("attributes") or {})
    return (dt.date.fromisoformat(issued_on) if issued_on else None), tests


def tested(material: str, attributes: Mapping[str, Any]) -> Tests:
    """Every predicate on ``material`` tested on the ``attributes`` of one certificate."""
    return tuple((key(one), holds(material, one, attributes.get(one.attribute))) for one in wanted().get(material, ()))


def holds(material: str, predicate: Predicate, value: Any) -> bool | None:
    """Whether ``value``, as a document keeps it, is what ``predicate`` wants; None without a value.

    Decimals and amounts of money compare as numbers, dates as ISO text; an amount in another currency is none.
    """
    kind = model.load(material).attributes[predicate.attribute].type
    if kind == "money":
        if not isinstance(value, dict) or value.get("currency") != predicate.currency:
            return None
        value = value.get("amount")
    if value is None:
        return None
    compared = [_comparable(kind, one) for one in predicate.values]
    said = _comparable(kind, value)
    if said is None:
        return None
    if predicate.test == "at_least":
        return bool(said >= compared[0])
    if predicate.test == "at_most":
        return bool(said <= compared[0])
    return said in compared


def _comparable(kind: str, value: PredicateValue) -> Any:
    if kind not in ("decimal", "money", "integer"):
        return value
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None
