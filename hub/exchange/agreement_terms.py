"""What an agreement says: basis, scenario, scope, mode, purposes and term (Order 809 Art 20), as data both sides sign.

One agreement has exactly one text: :func:`canonical` JSON (RFC 8785), lists sorted, times to the minute in UTC. A party signs
and keeps these bytes; a document written any other way is refused. People write YAML (:func:`examine`), where the number is
left out and a day stands for its minutes in Beijing.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import re
import string
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import orjson
import yaml
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError, field_validator
from pydantic_core.core_schema import ValidationInfo

from connectors import documents, marks
from connectors.documents import Strict
from connectors.errors import FatalError
from connectors.marks import Defect, Document, Place
from hub.agreements import EVERY, columns
from hub.clock import CHINA
from hub.mentions import names_person
from hub.signing import LONGEST_NAME
from mappings import model
from mappings.model import Code, Material

TYPE = "yici-agreement+jws"  # `typ` of a signature under a document
LARGEST = 256 * 1024  # bytes of a document
TEMPLATE = Path(__file__).parent / "agreement.yml"

Mode = Literal["index", "evidence", "share"]
MODES: tuple[Mode, ...] = ("index", "evidence", "share")
READ = ("evidence", "share")  # modes in which fields are read

Ordered = TypeVar("Ordered", bound=str)


def _sorted(values: tuple[Ordered, ...]) -> tuple[Ordered, ...]:
    return tuple(sorted(set(values)))


def plain(text: str) -> str:
    """What a terminal shows as it stands, and what names nobody."""
    if any(unicodedata.category(each)[0] == "C" for each in text):
        raise ValueError("control and format characters are not text")
    if names_person(text):
        raise ValueError("an identifier of a person, or a telephone number, does not belong here")
    return text


def _digits(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value  # YAML: `regions: [33]`


def prefix(region: str) -> str:
    """What all division codes within ``region`` begin with: 330000 is 33, 330100 is 3301 (GB/T 2260)."""
    found = re.sub(r"(00)+$", "", region) if len(region) == 6 else region
    if not re.fullmatch(r"[1-9][0-9]([0-9]{2}){0,2}", found, re.ASCII):
        raise ValueError("a region is 2, 4 or 6 digits of a division code (GB/T 2260)")
    return found


def _widest(regions: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        one for one in sorted(set(regions)) if not any(one != other and one.startswith(other) for other in regions)
    )


def _fields(value: object) -> object:
    if isinstance(value, list | tuple) and EVERY in value:
        raise ValueError('write "*" alone, not in a list')
    return value


def _moment(value: object, *, last: bool) -> object:
    """A day, its end where it is the ``last``, or a minute; without a zone in Beijing."""
    try:
        if isinstance(value, str):
            value = dt.date.fromisoformat(value) if len(value) == 10 else dt.datetime.fromisoformat(value)
        if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
            value = dt.datetime.combine(value, dt.time(), CHINA) + dt.timedelta(days=last)
        if not isinstance(value, dt.datetime):
            raise ValueError
        moment = value.replace(tzinfo=value.tzinfo or CHINA).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise ValueError("write a day, 2027-12-31, or a minute with its zone, 2027-12-31T18:00+08:00") from None
    if moment.second or moment.microsecond:
        raise ValueError("an agreement begins and ends with a minute: no seconds")
    return moment


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=LONGEST_NAME)]
Said = Annotated[
    str, StringConstraints(min_length=1, max_length=2000, strip_whitespace=True), AfterValidator(plain)
]  # fmt: skip
Column = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)?$", max_length=130)]
Fields = Annotated[
    Literal["*"] | Annotated[tuple[Column, ...], AfterValidator(_sorted)],
    BeforeValidator(_fields),
]
Region = Annotated[str, BeforeValidator(_digits), AfterValidator(prefix)]
Purpose = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=80)]
From = Annotated[dt.datetime, BeforeValidator(lambda value: _moment(value, last=False))]
To = Annotated[dt.datetime, BeforeValidator(lambda value: _moment(value, last=True))]


class Statement(Strict):
    """One text in Chinese and English."""

    zh: Said
    en: Said


class Draft(Strict):
    """What a person writes. ``id``: of an agreement that this is to be the next version of; none begins one.

    ``materials``: by material the columns (:func:`hub.agreements.columns`) that may be read, ``*`` for all; none: only that
    there is such a certificate. ``regions``: prefixes of division codes. ``epoch_days``: how long ids of the index live.
    """

    id: uuid.UUID | None = None
    provider: Name
    receiver: Name
    basis: Statement
    scenario: Statement
    materials: Annotated[dict[Code, Fields], Field(min_length=1, max_length=500)]
    regions: Annotated[tuple[Region, ...], Field(min_length=1, max_length=1000), AfterValidator(_widest)]
    modes: Annotated[tuple[Mode, ...], Field(min_length=1), AfterValidator(_sorted)]
    purposes: Annotated[tuple[Purpose, ...], Field(min_length=1, max_length=100), AfterValidator(_sorted)]
    valid_from: From
    valid_to: To
    consent: Literal["none", "required"]
    epoch_days: Annotated[int, Field(ge=1, le=366)]
    correction: bool

    @field_validator("receiver")
    @classmethod
    def _another(cls, value: str, info: ValidationInfo) -> str:
        if value == info.data.get("provider"):
            raise ValueError("provider and receiver are one hub")
        return value

    @field_validator("valid_to")
    @classmethod
    def _later(cls, value: dt.datetime, info: ValidationInfo) -> dt.datetime:
        if "valid_from" in info.data and value <= info.data["valid_from"]:
            raise ValueError("it ends before it begins")
        return value

    def numbered(self, named: uuid.UUID, version: int) -> Terms:
        """The terms that are signed."""
        return Terms.model_validate({**self.model_dump(), "id": named, "version": version})


class Terms(Draft):
    """What both sides sign: nothing that is not written here is allowed."""

    id: uuid.UUID
    version: Annotated[int, Field(ge=1, le=1_000_000)]

    @property
    def reference(self) -> str:
        return f"{self.id}/{self.version}"

    def shows(self, material: Material) -> tuple[str, ...]:
        """The columns of ``material`` that may be read, in the order of the model."""
        named = self.materials.get(material.code, ())
        return tuple(column for column in columns(material) if named == EVERY or column in named)

    def indexed(self) -> tuple[str, ...]:
        """The materials whose being held the index tells, as the model is now; none where index is no mode."""
        if "index" not in self.modes:
            return ()
        return tuple(code for code in self.materials if (known := shareable(code)) and known.indexed)


def shareable(code: str) -> Material | None:
    """The material ``code`` where it is a certificate that may be shared at all, as the model is now."""
    known = _certificates().get(code)
    return known if known and known.sharing.class_ != "none" else None


@functools.cache
def _certificates() -> dict[str, Material]:
    return {each.code: each for each in model.all_materials() if each.kind == "certificate"}


def canonical(terms: Terms) -> bytes:
    """The one text of ``terms``."""
    said: dict[str, Any] = terms.model_dump(mode="json")
    for name in ("valid_from", "valid_to"):
        said[name] = getattr(terms, name).replace(tzinfo=None).isoformat() + "Z"
    return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)


def digest(document: bytes) -> str:
    """SHA-256, hex."""
    return hashlib.sha256(document).hexdigest()


def parse(document: bytes) -> Terms:
    """The terms of a canonical document. FatalError ``agreement-document`` with the reason."""
    if len(document) > LARGEST:
        raise FatalError("agreement-document", reason=f"more than {LARGEST} bytes")
    try:
        terms = Terms.model_validate(orjson.loads(document))
    except ValidationError as error:
        raise FatalError("agreement-document", reason=documents.reasons(error)[:1000]) from None
    except (ValueError, RecursionError):
        raise FatalError("agreement-document", reason="no JSON") from None
    if canonical(terms) != document:
        raise FatalError("agreement-document", reason="not in the canonical form")
    return terms


def flaws(said: Draft, parties: Mapping[str, str]) -> list[tuple[Place, str]]:
    """All that speaks against ``said``, by place. ``parties``: the two hubs that would sign it, each with its region."""
    found: list[tuple[Place, str]] = []
    if {said.provider, said.receiver} != set(parties):
        found.append((("provider",), f"provider and receiver are {' and '.join(sorted(parties))}"))
    else:
        within = prefix(parties[said.provider])
        found += [
            (("regions", place), f"{region} is not within {within}, the provider's own")
            for place, region in enumerate(said.regions)
            if not region.startswith(within)
        ]
    for code, fields in said.materials.items():
        found += [(("materials", code), reason) for reason in _against(said, code, fields)]
    if "index" in said.modes and not any((known := shareable(code)) and known.indexed for code in said.materials):
        found.append((("modes",), "index: none of the materials may be announced (`indexed: false`)"))
    return found


def _against(said: Draft, code: str, fields: str | Sequence[str]) -> list[str]:
    known = _certificates()
    if code not in known:
        return [f"{code}: no such material; there are: {', '.join(known)}"]
    if known[code].sharing.class_ == "none":
        return [f"{code} is not shared (不予共享): {known[code].sharing.basis.en}"]
    found = []
    there = columns(known[code])
    if unknown := [name for name in fields if name not in there and fields != EVERY]:
        found.append(f"{code} has no field {', '.join(unknown[:5])}; it has: {', '.join(there)}")
    if not fields and set(READ) & set(said.modes):
        found.append(f"{code}: no field is named, so nothing of it could be read")
    if not known[code].indexed and said.modes == ("index",):
        found.append(f"{code} is never announced in an index (`indexed: false`): it can be asked for in mode evidence")
    return found


def conditions(terms: Draft) -> dict[str, Material]:
    """The materials shared under conditions (有条件共享, Order 809 Art 15): what is agreed must keep to them."""
    found = {code: shareable(code) for code in terms.materials}
    return {code: known for code, known in found.items() if known and known.sharing.class_ == "conditional"}


def examine(path: Path, parties: Mapping[str, str]) -> tuple[Draft | None, list[Defect]]:
    """The draft in a YAML file, or all that is wrong with it, each with its line."""
    document = marks.read(path)
    if not isinstance(document, Document):
        return None, [document]
    draft, found = document.fit(Draft)
    if draft is not None:
        found = flaws(draft, parties)
    defects = [document.defect(_written(document, place), why) for place, why in found]
    return (None if found else draft), sorted([*document.unreadable(), *defects])


def _written(document: Document, place: Place) -> Place:
    """Regions are sorted when read: where one stands in the file cannot be told from its place in the terms."""
    return place[:1] if place[:1] == ("regions",) else place


def template(own: str, peer: str, region: str, today: dt.date) -> str:
    """A commented YAML file to begin with, in which ``own`` (of ``region``) gives and ``peer`` receives."""
    text = string.Template(TEMPLATE.read_text(encoding="utf-8"))
    last = today.replace(year=today.year + 1, month=12, day=31)
    return text.substitute(provider=own, receiver=peer, region=prefix(region), today=today, last=last)


def written(terms: Terms) -> str:
    """The YAML that says ``terms``: to be changed and proposed as the next version."""
    said = terms.model_dump(mode="json", exclude={"version"})
    for name in ("valid_from", "valid_to"):
        said[name] = getattr(terms, name).astimezone(CHINA).isoformat(timespec="minutes")
    text: str = yaml.safe_dump(said, allow_unicode=True, sort_keys=False, width=120)
    return text
