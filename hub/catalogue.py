"""Which service items there are: those with published requirements (YAML) and those the pipeline loaded by name only.

A bundle 一件事 stands for its items wherever items are named: :func:`expand` is applied at the edges, nothing behind them
knows bundles.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from connectors.errors import UsageError
from connectors.messages import Language
from hub import catalogue_changes, mentions
from hub.catalogue_changes import Change
from hub.clock import CHINA
from mappings import bundles, items, model, wording
from mappings.bundles import Bundle
from mappings.items import Item, Requirement, Use

LISTED = "service-item"


@functools.cache
def published() -> Mapping[str, tuple[Item, ...]]:
    """Items with requirements: code → versions in the order of their dates. FatalError ``items-invalid`` names every flaw."""
    return items.all_versions()


@functools.cache
def changes() -> tuple[Change, ...]:
    """Every change that the catalogue of this process says, published or not, in the order of their dates."""
    return tuple(catalogue_changes.authored(published()))


@functools.cache
def digest() -> str:
    """SHA-256 (hex) of all that answers go by and that this process has loaded: every version of the items, the bundles, the
    materials. Two processes with one digest answer alike."""
    every = [*(item for each in published().values() for item in each), *bundled().values(), *model.all_materials()]
    said = [each.model_dump(mode="json", by_alias=True) for each in every]
    return hashlib.sha256(json.dumps(said, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def in_force(code: str, on: dt.date) -> Item | None:
    """The version of ``code`` in force that day, or None."""
    return next((item for item in published().get(code, ()) if item.in_force.covers(on)), None)


@functools.cache
def bundled() -> Mapping[str, Bundle]:
    """Bundles by code. FatalError ``bundle-invalid`` names the file that cannot be used."""
    return {bundle.code: bundle for bundle in bundles.all_bundles()}


def expand(codes: Iterable[str]) -> tuple[str, ...]:
    """``codes`` with the items of a bundle in its place; each item once, in order. Other codes stay as they are."""
    return tuple(
        dict.fromkeys(item for code in codes for item in (bundled()[code].items if code in bundled() else (code,)))
    )


@functools.cache
def volatile() -> frozenset[str]:
    """Codes of materials whose presence is not to be trusted from a late source."""
    return frozenset(material.code for material in model.all_materials() if material.volatile)


@dataclass(frozen=True)
class Listed:
    """An item the pipeline loaded: it exists, nothing is published about what it needs."""

    code: str
    name: str
    region: str | None


def shown(code: str) -> str:
    """``code`` for an error message where it has a form of our codes; else it could be anything typed in the wrong place,
    a telephone or passport number among others, and ``…`` stands for it."""
    plain = len(code) <= LONGEST_CODE and _CODE.fullmatch(code) and not mentions.names_somebody(code)
    return code if plain else "…"


LONGEST_CODE = 80
# Words with at most four digits in all, as many as a year has; a basic code of 12 characters, or of 14 as some departments write
# it; an implementation code of 31, which begins with the code of an authority.
_CODE = re.compile(
    r"(?=(?:[^0-9]*[0-9]){0,4}[^0-9]*$)[A-Za-z][0-9A-Za-z]*(?:[_-][0-9A-Za-z]+)*"
    r"|000[0-9A-Z]{9}|(?=[0-9]{3,}[A-Z])[0-9A-Z]{12}(?:[0-9A-Z]{2})?|1[0-9A-Z]{17}[0-9][0-9A-Z]{12}"
)


def find(connection: sa.Connection, code: str, on: dt.date) -> Item:
    """The item ``code`` with its requirements in force ``on`` that day.

    UsageError ``item-unknown``, ``item-without-requirements``, ``item-not-in-force`` (before its first version, or between
    two), ``item-retired`` (all its versions have ended; with its successor).
    """
    if item := in_force(code, on):
        return item
    versions = published().get(code)
    if versions is None:
        if known := listed(connection, code):
            raise UsageError("item-without-requirements", item=known.code)
        raise UsageError("item-unknown", item=shown(code))
    ended = versions[-1].in_force.to
    if ended is not None and ended < on:
        raise UsageError("item-retired", item=code, ended=ended.isoformat(), successor=successor(code, on) or "-")
    raise UsageError("item-not-in-force", item=code, day=on.isoformat())


def successor(code: str, on: dt.date) -> str | None:
    """Whom to ask for instead of an item retired by that day: where its successor is retired by then as well, that one's."""
    following = published()[code][-1].successor
    while following is not None and following in published():
        last = published()[following][-1]
        if last.in_force.to is None or last.in_force.to >= on or last.successor is None:
            break
        following = last.successor
    return following


def listed(connection: sa.Connection, code: str) -> Listed | None:
    """The item ``code`` among those the pipeline loaded, or None."""
    return all_listed(connection, [code]).get(code)


def all_listed(connection: sa.Connection, codes: Iterable[str]) -> dict[str, Listed]:
    """Those of ``codes`` that the pipeline loaded."""
    bind = {"material": LISTED, "codes": [code for code in codes if "\0" not in code]}
    return {
        row.code: Listed(row.code, row.name or "", row.region) for row in connection.execute(sa.text(_LISTED), bind)
    }


_LISTED = """
SELECT DISTINCT ON (1) document ->> 'certificate_number' AS code, document ->> 'name' AS name, region FROM held
WHERE material = :material AND document ->> 'certificate_number' = ANY(:codes) ORDER BY 1, updated_at DESC
"""


def today() -> dt.date:
    """The day it is in China: dates in force begin and end there."""
    return dt.datetime.now(CHINA).date()


def described(item: Item, lang: Language) -> dict[str, Any]:
    """An item as the catalogue shows it, in one language."""
    return {
        **summary(item, lang),
        "basic_code": item.basic_code,
        "invented": item.invented,
        "type": item.type,
        "level": item.level,
        "in_force": {
            "from": item.in_force.from_.isoformat(),
            "to": item.in_force.to.isoformat() if item.in_force.to else None,
        },
        "digest": item.digest(),
        "legal_basis": getattr(item.legal_basis, lang),
        "roles": {role: getattr(party.name, lang) for role, party in item.roles.items()},
        "facts": {
            name: {
                "type": fact.type,
                "question": getattr(fact.question, lang),
                **({"values": list(fact.values)} if fact.values else {}),
                **({"asked_if": wording.sentence(fact.when, item.facts, lang)} if fact.when else {}),
            }
            for name, fact in item.facts.items()
        },
        "requirements": [_requirement(item, requirement, lang) for requirement in item.requirements],
    }


def _requirement(item: Item, requirement: Requirement, lang: Language) -> dict[str, Any]:
    when, deferral = requirement.when, requirement.deferral
    return {
        "requirement": requirement.code,
        "name": getattr(requirement.name, lang),
        "legal_basis": getattr(requirement.legal_basis, lang) if requirement.legal_basis else None,
        "facts": list(when.facts()) if when else [],
        "condition": wording.sentence(when, item.facts, lang) if when else None,
        "deferral": {
            "kind": deferral.kind,
            "within_days": deferral.within.days if deferral.within else None,
            "basis": getattr(deferral.basis, lang),
        }
        if deferral
        else None,
        "options": [[_use(use) for use in option.materials] for option in requirement.options],
    }


def _use(use: Use) -> dict[str, Any]:
    """What is wanted of one material; what is not asked of it is left out."""
    wanted: dict[str, Any] = {"material": use.material, "holder": use.holder}
    if use.region is not None:
        wanted["region"] = use.region
    if use.as_:
        wanted["as"] = list(use.as_)
    if use.with_:
        wanted["with"] = list(use.with_)
    if use.with_named:
        wanted["with_named"] = list(use.with_named)
    if use.valid_left:
        wanted["valid_left_days"] = use.valid_left.days
    if use.max_age is not None:
        wanted["max_age_days"] = use.max_age.days
    if use.where:
        wanted["where"] = [
            {
                "attribute": predicate.attribute,
                predicate.test: predicate.value,
                **({"currency": predicate.currency} if predicate.currency else {}),
            }
            for predicate in use.where
        ]
    return wanted


def bundle_summary(bundle: Bundle, lang: Language) -> dict[str, Any]:
    return {"bundle": bundle.code, "bundle_name": getattr(bundle.name, lang), "items": list(bundle.items)}


def summary(item: Item, lang: Language) -> dict[str, Any]:
    """One version in short, on a day on which it is in force."""
    return {
        "item": item.code,
        "item_name": getattr(item.name, lang),
        "region": item.region,
        "requirements_published": True,
        "version": item.version,
        "state": "in_force",
        "successor": None,
    }


def listed_summary(item: Listed) -> dict[str, Any]:
    return {
        "item": item.code,
        "item_name": item.name,
        "region": item.region,
        "requirements_published": False,
        "version": None,
        "state": "listed",
        "successor": None,
    }


def summaries(connection: sa.Connection, codes: Iterable[str], on: dt.date, lang: Language) -> list[dict[str, Any]]:
    """Those of ``codes`` that there are, in short and in their order, as they are ``on`` that day.

    ``state``: ``in_force``, ``not_in_force`` (not yet, or between two versions), ``retired`` with its ``successor``, or
    ``listed`` by name only.
    """
    asked = list(codes)
    loaded = all_listed(connection, (code for code in asked if code not in published()))
    found = []
    for code in asked:
        if item := in_force(code, on):
            found.append(summary(item, lang))
        elif versions := published().get(code):
            last = versions[-1]
            retired = last.in_force.to is not None and last.in_force.to < on
            state = {
                "version": None,
                "state": "retired" if retired else "not_in_force",
                "successor": successor(code, on),
            }
            found.append({**summary(last, lang), **state})
        elif code in loaded:
            found.append(listed_summary(loaded[code]))
    return found
