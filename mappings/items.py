"""Service items 政务服务事项 as data: the requirements published for them, one YAML file a version.

``<code>.yml`` is the newest version of an item, ``<code>@<version>.yml`` an earlier one. Light on purpose (PyYAML,
pydantic): the lookup API imports it. What is wrong with the files is said with file, line and reason, all of it at once
(:func:`examine`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, ValidationError, model_validator

from connectors import marks
from connectors.documents import Filled, Strict, Text
from connectors.errors import FatalError
from connectors.marks import Defect, Document
from mappings import codes, item_rules, model, regions
from mappings.facts import Condition, Fact, FactType, FactValue
from mappings.guidance import Guidance
from mappings.item_rules import Parts
from mappings.model import Identifier
from mappings.requirements import APPLICANT, Deferral, Option, Party, Predicate, Requirement, Use

__all__ = [
    "APPLICANT", "Condition", "Deferral", "Fact", "FactType", "FactValue", "Guidance", "InForce", "Item", "Option", "Party",
    "Predicate", "Requirement", "Use",
]  # fmt: skip

FOLDER = model.FOLDER / "items"
NATION = "100000"  # which the list of divisions does not have
Model = TypeVar("Model", bound=BaseModel)


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

    def overlaps(self, other: InForce) -> bool:
        return self.covers(other.from_) or other.covers(self.from_)


def _type(value: str) -> str:
    known = dict.fromkeys(codes.read("item-type").values())
    if value not in known:
        raise ValueError(f"there is no type {value}; there are {', '.join(known)}")
    return value


def _region(value: str) -> str:
    if value != NATION and regions.status(value) == "unlisted":
        raise ValueError(f"there is no region {value} in the list of divisions")
    return value


class Item(Strict):
    """One version of a service item with the requirements published for it.

    An item all of whose versions have ended is retired; ``successor`` is the code of the item to ask for instead.
    """

    code: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z-]*$", max_length=80)]
    basic_code: Annotated[str, StringConstraints(pattern=r"^[0-9A-Z]{12}$")]
    invented: bool
    name: Text
    type: Annotated[Filled, AfterValidator(_type)]
    region: Annotated[str, StringConstraints(pattern=r"^[0-9]{6}$"), AfterValidator(_region)]
    level: Literal["national", "province", "prefecture", "county", "township", "village"]
    version: Annotated[int, Field(ge=1)]
    in_force: InForce
    successor: str | None = None
    legal_basis: Text
    applicant: Party
    roles: dict[Identifier, Party] = Field(default_factory=dict)
    facts: dict[Identifier, Fact] = Field(default_factory=dict)
    requirements: Annotated[tuple[Requirement, ...], Field(min_length=1)]
    guide: Guidance = Guidance()
    note: Text | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if found := [reason for _, reason in item_rules.flaws(self.parts())]:
            raise ValueError("; ".join(found))
        return self

    def parts(self) -> Parts:
        """What the rules of an item are about."""
        return Parts(self.applicant, self.roles, self.facts, dict(enumerate(self.requirements)))

    def party(self, role: str) -> Party:
        return self.applicant if role == APPLICANT else self.roles[role]

    def parties(self) -> Mapping[str, Party]:
        """The applicant and the roles."""
        return {APPLICANT: self.applicant, **self.roles}

    def uses(self) -> Iterator[tuple[Requirement, Use]]:
        for requirement in self.requirements:
            for option in requirement.options:
                yield from ((requirement, use) for use in option.materials)

    def materials(self) -> tuple[str, ...]:
        """Every material any requirement could ask for, each once."""
        return tuple(dict.fromkeys(use.material for _, use in self.uses()))

    def digest(self) -> str:
        """SHA-256 of what is published under this version; its end and successor may be said later, so they are left out,
        and how the answers to a question read."""
        left_out: Any = {"successor": True, "facts": {"__all__": {"words"}}}
        content = self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=left_out)
        content["in_force"].pop("to", None)
        text = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def read(path: Path) -> Item:
    """The item in one file. FatalError ``item-invalid`` names the file and every reason, each with its line."""
    found = _read(path)
    if isinstance(found, tuple):
        return found[1]
    raise FatalError("item-invalid", file=str(path), reason=marks.lines(found))


def all_versions(folder: Path = FOLDER) -> Mapping[str, tuple[Item, ...]]:
    """Every authored item, by code: its versions in the order of their dates.

    FatalError ``items-invalid`` names everything that is wrong, with file, line and reason.
    """
    versions, defects = examine(folder)
    if defects:
        raise FatalError("items-invalid", count=len(defects), defects="\n".join(str(each) for each in defects))
    return versions


def all_items(folder: Path = FOLDER) -> tuple[Item, ...]:
    """The newest version of every authored item, by code."""
    return tuple(versions[-1] for versions in all_versions(folder).values())


def examine(folder: Path) -> tuple[Mapping[str, tuple[Item, ...]], list[Defect]]:
    """The items below ``folder`` as :func:`all_versions` gives them, and everything that is wrong with the files."""
    read = {path: _read(path) for path in sorted(folder.glob("*.yml"))}
    defects = [defect for found in read.values() if isinstance(found, list) for defect in found]
    good = [found for found in read.values() if isinstance(found, tuple)]
    files = {
        code: sorted(found, key=lambda each: (each[1].version, each[0].path.stem == code))
        for code, found in itertools.groupby(sorted(good, key=lambda each: each[1].code), key=lambda each: each[1].code)
    }
    for code, versions in files.items():
        defects += _ordered(code, versions)
    named = {path.stem.partition("@")[0] for path in read}
    defects += _successors({code: versions[-1] for code, versions in files.items()}, named)
    defects += _twins(good)
    defects += marks.strangers(folder)
    return {code: tuple(item for _, item in versions) for code, versions in files.items()}, sorted(defects)


def path(item: Item, folder: Path = FOLDER) -> Path:
    """The file in which a version stands."""
    own = folder / f"{item.code}@{item.version}.yml"
    return own if own.is_file() else folder / f"{item.code}.yml"


def defect(item: Item, place: marks.Place, reason: str, folder: Path = FOLDER) -> Defect:
    """Something wrong with a version, said with its file and line."""
    document = marks.read(path(item, folder))
    return document if isinstance(document, Defect) else document.defect(place, reason)


def _read(path: Path) -> tuple[Document, Item] | list[Defect]:
    """The item in one file, or all that is wrong with it."""
    document = marks.read(path)
    if isinstance(document, Defect):
        return [document]
    item, said = document.fit(Item)
    if item is None:
        # What `_whole` says has no place; the rules are asked again, about every part that has a good shape.
        said = [(place, reason) for place, reason in said if place]
        said += item_rules.flaws(_parts(document.data))
    else:
        said = list(_named(item, path))
    if item is None or said:
        return sorted({*document.unreadable(), *(document.defect(place, reason) for place, reason in said)})
    return document, item


def _parts(data: Mapping[str, Any]) -> Parts:
    def each(name: str, kind: type[Model]) -> dict[str, Model | None]:
        raw = data.get(name)
        return {str(key): _shaped(kind, value) for key, value in raw.items()} if isinstance(raw, dict) else {}

    listed = data.get("requirements")
    requirements = enumerate(listed if isinstance(listed, list) else ())
    return Parts(
        _shaped(Party, data.get("applicant")),
        each("roles", Party),
        each("facts", Fact),
        {place: _shaped(Requirement, raw) for place, raw in requirements},
    )


def _shaped(kind: type[Model], raw: object) -> Model | None:
    try:
        return kind.model_validate(raw)
    except ValidationError:
        return None


def _named(item: Item, path: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    if path.stem not in (item.code, f"{item.code}@{item.version}"):
        yield ("code",), f"`code` is {item.code}, the file is {path.stem}: they must be equal, or `code@version`"
    if ended := _region_ended(item):
        yield ("region",), f"region {item.region} ended in {ended}, before this version is in force"
    if item.successor is not None and item.in_force.to is None:
        yield ("successor",), "`successor` belongs to an item that ends: give `in_force.to`"


def _region_ended(item: Item) -> int | None:
    """The year in which the division came to its end, where that was before the version."""
    ended = regions.entries()[item.region][-1].to_year if item.region in regions.entries() else None
    return ended if ended is not None and ended < item.in_force.from_.year else None


def _ordered(code: str, versions: Sequence[tuple[Document, Item]]) -> Iterator[Defect]:
    """Versions follow one another in number and date and never overlap; the newest stands under the code alone."""
    newest = versions[-1][0]
    if newest.path.stem != code:
        yield newest.defect(("version",), f"the newest version of {code} stands in {code}.yml")
    for (before, earlier), (after, later) in itertools.pairwise(versions):
        other = f"{before.path.name}:{before.line(('in_force',))}"
        if earlier.version == later.version:
            yield after.defect(("version",), f"version {later.version} of {code} stands in {before.path.name} too")
        elif earlier.in_force.overlaps(later.in_force):
            said = f"version {later.version} is in force on days of version {earlier.version}, {other}"
            yield after.defect(("in_force",), said)
        elif later.in_force.from_ < earlier.in_force.from_:
            said = f"version {later.version} comes before version {earlier.version}, {other}"
            yield after.defect(("in_force",), said)
        if earlier.basic_code != later.basic_code:
            said = f"the basic code of version {earlier.version} is {earlier.basic_code}, {before.path.name}: another is another item"
            yield after.defect(("basic_code",), said)
        if earlier.successor is not None:
            yield before.defect(("successor",), f"`successor` belongs to the newest version, {after.path.name}")


def _twins(good: Sequence[tuple[Document, Item]]) -> Iterator[Defect]:
    """One basic code stands for one item of a region and level at a time."""

    def place(each: tuple[Document, Item]) -> tuple[str, str, str]:
        return each[1].basic_code, each[1].region, each[1].level

    for _, found in itertools.groupby(sorted(good, key=lambda each: (place(each), each[0].path)), key=place):
        for (other, one), (document, item) in itertools.combinations(found, 2):
            if one.code != item.code and one.in_force.overlaps(item.in_force):
                said = f"{one.code} goes by {item.basic_code} in {item.region} at the same time, {other.path.name}"
                yield document.defect(("basic_code",), said)


def _successors(newest: Mapping[str, tuple[Document, Item]], named: set[str]) -> Iterator[Defect]:
    """Who asks for a retired item and follows its successors comes to one that has not ended."""
    for code, (document, item) in newest.items():
        if item.successor is not None and item.successor not in named:
            yield document.defect(("successor",), f"there is no item {item.successor}")
        way = [code]
        while way[-1] in newest and (following := newest[way[-1]][1].successor) is not None and following not in way:
            way.append(following)
        if following == code:
            yield document.defect(("successor",), f"the successors form a circle: {' → '.join([*way, code])}")
        elif following is None and len(way) > 1 and way[1] in newest:
            yield from (
                document.defect(("successor",), said) for said in _ended(item, [newest[each][1] for each in way[1:]])
            )


def _ended(item: Item, following: Sequence[Item]) -> Iterator[str]:
    """Why the successors are none, where they are: the first was never in force after the item, or the last has ended."""
    first, last = following[0], following[-1]
    if first.in_force.to is not None and item.in_force.to is not None and first.in_force.to <= item.in_force.to:
        yield f"{first.code} is retired itself, since {first.in_force.to}: name an item that can be asked for"
    elif last.in_force.to is not None:
        yield f"{last.code} is retired itself, and names no successor: name an item that can be asked for"
