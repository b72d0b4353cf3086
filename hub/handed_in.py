"""What is said of a document that is handed in, and whether it can be: by the material's model and the answer that asked."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import sqlalchemy as sa

from connectors.errors import UsageError
from hub import catalogue, home
from hub.home import identifier_text
from mappings import scalars
from mappings.model import Material

GIVEN = ("certificate_identifier", "certificate_number", "name", "issuer_code", "issuer_name", "region", "issued_on",
         "valid_from", "valid_to")  # fmt: skip


@dataclass(frozen=True)
class Handed:
    """What was said of a document. ``holders``: by role in it the identifier (scheme:value) and the name that stands there;
    ``envelope``: columns of :data:`GIVEN`; ``attributes``: of the material."""

    answer: str
    material: str
    holders: Mapping[str, tuple[str, str | None]] = field(repr=False)
    envelope: Mapping[str, Any] = field(default_factory=dict, repr=False)
    attributes: Mapping[str, Any] = field(default_factory=dict, repr=False)


def said(material: Material, handed: Handed, answer: sa.Row[Any], rules: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What was said, checked: holders with scheme and value, columns by name. ``rules``: why the answer says what it says
    (:func:`hub.records.trace`).

    UsageError ``deposit-not-asked``, ``deposit-not-party``, ``deposit-incomplete``, ``deposit-attribute``, ``deposit-dates``,
    ``role-unknown``, ``identifier-invalid``, ``identifier-unfit``.
    """
    parties = _asked_of(answer, rules, material.code)
    if not parties:
        raise UsageError("deposit-not-asked", material=material.code)
    hashing = home.keyed_hash()
    holders: dict[str, dict[str, str | None]] = {}
    named: set[str] = set()
    for role, (text, name) in handed.holders.items():
        wanted = material.holders.get(role)
        if wanted is None:
            raise UsageError("role-unknown", role=catalogue.shown(role), known=", ".join(material.holders))
        found = scalars.parse(text)
        scheme, value = found.scheme, found.normalised
        if found.verdict == "invalid" or scheme is None or not value:
            raise UsageError("identifier-invalid", who=role, reasons=found.reason or "-")
        if scheme not in wanted.schemes:
            raise UsageError("identifier-unfit", who=role, scheme=scheme, kind=wanted.kind)
        holders[role] = {"scheme": scheme, "value": value, "name": name}
        named.add(hashing.of(identifier_text(scheme, value)).hex())
    if not named & parties:
        raise UsageError("deposit-not-party", material=material.code)
    envelope = {name: value for name, value in handed.envelope.items() if value is not None}
    if "valid_from" in envelope and "valid_to" in envelope and envelope["valid_to"] < envelope["valid_from"]:
        raise UsageError("deposit-dates")
    attributes = {name: value for name, value in handed.attributes.items() if value is not None}
    for name, value in attributes.items():
        kind = material.attributes[name].type if name in material.attributes else None
        if kind is None or not _fits(kind, value):
            known = ", ".join(f"{one} ({attribute.type})" for one, attribute in material.attributes.items())
            raise UsageError("deposit-attribute", material=material.code, known=known)
    columns = {**envelope, **{f"attributes.{name}": value for name, value in attributes.items()}}
    columns |= {f"holder.{role}.value": one["value"] for role, one in holders.items()}
    required = [f"holder.{role}.value" for role, one in material.holders.items() if not one.optional]
    if missing := [name for name in dict.fromkeys([*required, *material.natural_key]) if not columns.get(name)]:
        raise UsageError("deposit-incomplete", material=material.code, missing=", ".join(missing))
    return {
        "material": material.code,
        "holders": holders,
        "envelope": envelope,
        "attributes": attributes,
    }


def _fits(kind: str, value: Any) -> bool:
    """Whether ``value`` is one of the model's type ``kind``, written as the JSON Schema of the material has it."""
    if kind == "money":
        return (
            isinstance(value, Mapping)
            and set(value) <= {"amount", "currency"}
            and _fits("decimal", value.get("amount"))
        )
    if kind in ("boolean", "integer"):
        return type(value) is (bool if kind == "boolean" else int)
    if not isinstance(value, str):
        return False
    if kind == "date":
        try:
            return dt.date.fromisoformat(value).isoformat() == value
        except ValueError:
            return False
    return kind == "string" or re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,4})?", value) is not None


def _asked_of(answer: sa.Row[Any], rules: Sequence[Mapping[str, Any]], material: str) -> set[str]:
    """Whose ``material`` the answer looked at: keyed hashes in hex. Also where it was found: a better one may be handed in."""
    parties = orjson.loads(answer.inputs)["parties"]
    uses = (use for rule in rules for option in rule["options"] for use in option)
    return {parties[use["holder"]][0] for use in uses if use["material"] == material and use["holder"] in parties}
