"""Bundles 一件事 as data: several service items that are asked together, one YAML file a bundle.

The applicant, every role and every fact is given once for the whole bundle, so they have to mean the same in each of
its items; a file where they do not is refused with its name and every reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from connectors import marks
from connectors.documents import Strict, Text
from connectors.errors import FatalError
from connectors.marks import Defect, Place
from mappings import items, model
from mappings.items import Fact, Item, Party
from mappings.model import Code

FOLDER = model.FOLDER / "bundles"


class Bundle(Strict):
    """One thing to get done: the codes of its items, in the order in which they are answered."""

    code: Code
    name: Text
    legal_basis: Text
    items: Annotated[tuple[str, ...], Field(min_length=2)]
    note: Text | None = None


def read(path: Path, known: Mapping[str, Item]) -> Bundle:
    """The bundle in one file, whose items are among ``known``. FatalError ``bundle-invalid`` names every reason and its line."""
    found = _read(path, known)
    if isinstance(found, Bundle):
        return found
    raise FatalError("bundle-invalid", file=str(path), reason=marks.lines(found))


def all_bundles(folder: Path = FOLDER) -> tuple[Bundle, ...]:
    """Every authored bundle, by code."""
    known = {item.code: item for item in items.all_items()}
    return tuple(read(path, known) for path in sorted(folder.glob("*.yml")))


def examine(folder: Path, known: Mapping[str, Item]) -> list[Defect]:
    """Everything that is wrong with the bundles below ``folder``."""
    found = [_read(path, known) for path in sorted(folder.glob("*.yml"))]
    defects = [defect for each in found if isinstance(each, list) for defect in each]
    return sorted([*defects, *marks.strangers(folder)])


def _read(path: Path, known: Mapping[str, Item]) -> Bundle | list[Defect]:
    document = marks.read(path)
    if isinstance(document, Defect):
        return [document]
    bundle, said = document.fit(Bundle)
    if bundle is not None:
        said = [*_named(bundle, path, known), *_agreed([known[code] for code in bundle.items if code in known])]
    if bundle is None or said:
        return sorted({*document.unreadable(), *(document.defect(place, reason) for place, reason in said)})
    return bundle


def roles(parts: list[Item]) -> dict[str, Party]:
    """Roles of several items asked together, each once."""
    return dict(itertools.chain.from_iterable(item.roles.items() for item in parts))


def facts(parts: list[Item]) -> dict[str, Fact]:
    """Facts of several items asked together, each once."""
    return dict(itertools.chain.from_iterable(item.facts.items() for item in parts))


def _named(bundle: Bundle, path: Path, known: Mapping[str, Item]) -> Iterator[tuple[Place, str]]:
    if bundle.code != path.stem:
        yield ("code",), f"`code` is {bundle.code}, the file is {path.stem}: they must be equal"
    if bundle.code in known:
        yield ("code",), f"`code`: {bundle.code} is already the code of an item"
    for place, code in enumerate(bundle.items):
        if code not in known:
            yield ("items", place), f"items: there is no item {code}"
        if code in bundle.items[:place]:
            yield ("items", place), f"items: {code} is given twice"


def _agreed(parts: list[Item]) -> Iterator[tuple[Place, str]]:
    """One answer to a question and one identifier for a role have to fit every item."""
    place: Place = ("items",)
    if len({item.applicant.kind for item in parts}) > 1:
        yield place, "items: the applicant is a person in one and an organisation in another"
    for role, party in roles(parts).items():
        if any(role in item.roles and item.roles[role].kind != party.kind for item in parts):
            yield place, f"role {role}: a person in one item, an organisation in another"
    for name, fact in facts(parts).items():
        others = [item.facts[name] for item in parts if name in item.facts]
        if any((other.type, other.values) != (fact.type, fact.values) for other in others):
            yield place, f"fact {name}: of another type or with other values in another item"
