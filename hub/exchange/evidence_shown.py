"""What evidence of a partner hub may hold (docs/protocol/27-evidence.md): of whom it was asked, in force, the columns asked for and
no other, each in its form. Anything else is refused; members beside the known ones are dropped and not passed on.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import orjson

from connectors.envelope import SKEW, Moment, Name
from hub import home
from hub.clock import CHINA
from hub.exchange.evidence import Code, Handle, Role
from hub.home import identifier_text
from hub.mentions import names_somebody
from mappings import model
from mappings.model import ENVELOPE, Material, ValueType

TEXT = 10_000  # characters of one value
FORM, COLUMNS, HOLDER, STATUS, REGION, GIVEN, OTHER = (
    "evidence-form", "evidence-columns", "evidence-holder", "evidence-status", "evidence-region", "evidence-given",
    "evidence-other",
)  # fmt: skip

Printed = Annotated[str, msgspec.Meta(max_length=TEXT, pattern=r"\A[^\x00-\x08\x0b-\x1f\x7f-\x9f]*\Z")]
Line = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"\A[^\x00-\x1f\x7f-\x9f]+\Z")]
Label = Annotated[str, msgspec.Meta(max_length=200)]


class Unacceptable(ValueError):
    """Why evidence is refused: one of the codes here."""


class Holder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Role
    scheme: Annotated[str, msgspec.Meta(max_length=40)] | None
    value: Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"\A[^\x00-\x1f\x7f-\x9f]+\Z")]
    name: Annotated[str, msgspec.Meta(max_length=1000, pattern=r"\A[^\x00-\x1f\x7f-\x9f]*\Z")] | None


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: Code
    file: Line
    row: Annotated[int, msgspec.Meta(ge=0)]
    updated_at: Moment
    as_of: Moment | None
    late: bool
    conflicting: bool


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    hub: Name
    client: Name
    purpose: Label
    case: Label
    item: Label
    answer: uuid.UUID
    at: Moment


class Shown(msgspec.Struct, frozen=True):
    """Evidence. ``certificate``: looked at by :func:`read`, column by column."""

    holding: Handle
    material: Code
    certificate: dict[str, Any]
    fields: tuple[str, ...]
    version: Handle
    source: Source
    given: Given


@dataclass(frozen=True)
class Expected:
    """What was asked for. ``person``: keyed hashes of the identifiers that this hub holds to be of whom it asked about;
    ``at``: when the reply was signed. ``roles``: in which that person may be in the certificate; none: in any. ``regions``:
    prefixes of division codes."""

    hub: str
    client: str
    purpose: str
    case: str
    item: str
    message: uuid.UUID
    at: dt.datetime
    material: str
    handle: str | None
    columns: Sequence[str]
    person: frozenset[bytes]
    roles: Sequence[str]
    regions: Sequence[str]


def read(body: bytes, wanted: Expected) -> tuple[Shown, bytes]:
    """The evidence, and what of ``body`` may be passed on: all of it as it was signed, or where it has members that are not
    known here, the rest of it. :class:`Unacceptable`."""
    try:
        said = json.loads(body, object_pairs_hook=_single, parse_constant=_number)
        shown = msgspec.convert(said, Shown)
    except (ValueError, TypeError, RecursionError, msgspec.MsgspecError):
        raise Unacceptable(FORM) from None
    if shown.material != wanted.material or wanted.handle not in (None, shown.holding):
        raise Unacceptable(OTHER)
    _require_given(shown.given, wanted)
    material = model.load(wanted.material)
    if set(shown.fields) != set(wanted.columns) or len(shown.fields) != len(wanted.columns):
        raise Unacceptable(COLUMNS)
    holders = _require_columns(shown.certificate, material, wanted.columns)
    _require_person(holders, material, wanted)
    _require_good(shown, wanted)
    if names_somebody(shown.source.file):
        raise Unacceptable(FORM)
    known = {name: said[name] for name in Shown.__struct_fields__}
    return shown, body if len(known) == len(said) else orjson.dumps(known)


def _require_given(given: Given, wanted: Expected) -> None:
    told = given.hub, given.client, given.purpose, given.case, given.item, given.answer
    asked = wanted.hub, wanted.client, wanted.purpose, wanted.case, wanted.item, wanted.message
    if told != asked or abs(given.at - wanted.at) > SKEW:
        raise Unacceptable(GIVEN)


def _require_columns(certificate: Mapping[str, Any], material: Material, columns: Sequence[str]) -> tuple[Holder, ...]:
    """That the certificate shows the columns asked for, each of its type; its holders."""
    plain = {column for column in columns if "." not in column}
    roles = {column.removeprefix("holder.") for column in columns if column.startswith("holder.")}
    attributes = {column.removeprefix("attributes.") for column in columns if column.startswith("attributes.")}
    beside = ({"holders"} if roles else set()) | ({"attributes"} if "attributes" in certificate else set())
    said = certificate.get("attributes", {})
    if certificate.keys() != plain | beside or not isinstance(said, dict) or not said.keys() <= attributes:
        raise Unacceptable(COLUMNS)
    try:
        holders = msgspec.convert(certificate.get("holders", []), tuple[Holder, ...])
        for name in plain:
            _typed(certificate[name], ENVELOPE[name])
        for name, value in said.items():
            _typed(value, material.attributes[name].type)
    except (ValueError, KeyError, TypeError, msgspec.MsgspecError):
        raise Unacceptable(FORM) from None
    if len(holders) > len(roles) or len({holder.role for holder in holders}) < len(holders):
        raise Unacceptable(COLUMNS)
    for holder in holders:
        if holder.role not in roles:
            raise Unacceptable(COLUMNS)
        if holder.scheme is not None and holder.scheme not in material.holders[holder.role].schemes:
            raise Unacceptable(FORM)
    return holders


def _require_person(holders: Iterable[Holder], material: Material, wanted: Expected) -> None:
    """That whoever was asked about is a holder, where all the roles are shown in which that may be."""
    possible = set(wanted.roles or material.holders)
    if not {f"holder.{role}" for role in possible} <= set(wanted.columns):
        return
    hashing = home.keyed_hash()
    named = (one for one in holders if one.role in possible and one.scheme is not None)
    if not any(hashing.of(identifier_text(one.scheme or "", one.value)) in wanted.person for one in named):
        raise Unacceptable(HOLDER)


def _require_good(shown: Shown, wanted: Expected) -> None:
    """In force on the day on which it was given, and of the regions that are agreed, as far as that is shown. No status is that
    of a register that names none: in force."""
    said, on = shown.certificate, shown.given.at.astimezone(CHINA).date().isoformat()
    over = said.get("valid_to") is not None and said["valid_to"] < on
    if said.get("status") not in (None, "in_force") or over or (said.get("valid_from") or on) > on:
        raise Unacceptable(STATUS)
    region = said.get("region")
    if region is not None and not region.startswith(tuple(wanted.regions)):
        raise Unacceptable(REGION)


def _typed(value: Any, kind: ValueType) -> None:
    """ValueError, or one of msgspec, when ``value`` is none of a column of this type."""
    if value is None:
        return
    if kind == "date":
        if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            raise ValueError("no day")
        dt.date.fromisoformat(value)
    else:
        msgspec.convert(value, _TYPES[kind])


def _single(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Who reads a member twice may read another one."""
    found = dict(members)
    if len(found) != len(members):
        raise ValueError("a member twice")
    return found


def _number(text: str) -> Any:
    raise ValueError(text)  # NaN and the like are no JSON


Decimal = Annotated[str, msgspec.Meta(pattern=r"\A-?[0-9]{1,20}(\.[0-9]{1,4})?\Z")]


class Money(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    amount: Decimal | None = None
    currency: Annotated[str, msgspec.Meta(pattern=r"\A[A-Z]{3}\Z")] | None = None


_TYPES: Mapping[ValueType, Any] = {
    "string": Printed, "timestamp": Moment, "integer": int, "decimal": Decimal, "boolean": bool, "money": Money,
}  # fmt: skip
