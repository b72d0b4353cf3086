"""The exchange model as data: one YAML file per material type or entity, loaded and validated here.

Light on purpose (PyYAML, pydantic): the lookup API imports it. From a :class:`Material` are derived the Arrow schema of
its exchange table (:mod:`mappings.arrow`), the JSON Schema in the OpenAPI document, the columns its gate may check and its catalogue entry.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from connectors.documents import Duration, Filled, Strict, Text
from connectors.documents import load as load_document
from connectors.errors import FatalError

# A folder beside this module has the module's name; it holds data only and is no package.
FOLDER = Path(__file__).parent / "model"
MATERIALS = FOLDER / "materials"
ENTITIES = FOLDER / "entities"

STATUSES = ("in_force", "suspended", "revoked", "expired", "cancelled")
PERSON_SCHEMES = ("cn.ric", "cn.permit", "cn.fpr", "passport")
ORGANISATION_SCHEMES = ("cn.uscc", "cn.regno", "cn.orgcode", "cn.tax")

ValueType = Literal["string", "date", "timestamp", "integer", "decimal", "boolean", "money"]

# Columns every entity has; holder columns come after `name`, attributes at the end.
ENVELOPE: dict[str, ValueType] = {
    "certificate_identifier": "string",
    "certificate_number": "string",
    "name": "string",
    "issuer_code": "string",
    "issuer_name": "string",
    "region": "string",
    "issued_on": "date",
    "valid_from": "date",
    "valid_to": "date",
    "status": "string",
    "updated_at": "timestamp",
}
SYSTEM = ("_ordinal", "_flags", "_errors", "_rejects")
HOLDER_PARTS = ("scheme", "value", "name")

Code = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=80)]
Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]


class Role(Strict):
    """One holder of a certificate: who it can be and which identifiers name it. ``subject``: either, as in a link."""

    kind: Literal["person", "organisation", "subject"]
    schemes: Annotated[tuple[str, ...], Field(min_length=1)]
    name: Text
    optional: bool = False

    @model_validator(mode="after")
    def _known(self) -> Self:
        known = {"person": PERSON_SCHEMES, "organisation": ORGANISATION_SCHEMES}.get(
            self.kind, PERSON_SCHEMES + ORGANISATION_SCHEMES
        )
        if unknown := [scheme for scheme in self.schemes if scheme not in known]:
            raise ValueError(f"not a scheme of a {self.kind}: {', '.join(unknown)}")
        return self


class Attribute(Strict):
    """One attribute of a material type. ``general`` may be shown; ``personal`` and ``sensitive`` only by purpose."""

    type: Literal["string", "date", "integer", "decimal", "boolean", "money"]
    name: Text
    sensitivity: Literal["general", "personal", "sensitive"]


class Sharing(Strict):
    """Sharing class 共享属性 with its basis; a conditional one also states scope and use (Order 809, Art. 14–15)."""

    class_: Annotated[Literal["unconditional", "conditional", "none"], Field(alias="class")]
    basis: Text
    conditions: Text | None = None

    @model_validator(mode="after")
    def _stated(self) -> Self:
        if (self.class_ == "conditional") != (self.conditions is not None):
            raise ValueError("`conditions` belong to a conditional class, and only there")
        return self


class Codes(Strict):
    """Type codes of other systems; ``invented`` says that ours is not an official one."""

    certificate_type: Filled
    invented: bool


class Material(Strict):
    """A material type (``certificate``), or what comes through the same pipeline: an entity of the ``catalogue``, the
    ``index`` of a partner hub, a ``link`` between two identifiers of one subject."""

    code: Code
    kind: Literal["certificate", "catalogue", "index", "link"]
    name: Text
    holders: dict[Identifier, Role] = Field(default_factory=dict)
    natural_key: Annotated[tuple[str, ...], Field(min_length=1)]
    attributes: dict[Identifier, Attribute] = Field(default_factory=dict)
    # The roles whose birth date and sex the attributes `born_on` and `sex` say: what clusters of identifiers must agree on.
    claims: tuple[Identifier, ...] = ()
    authoritative: Text
    freshness: Duration
    volatile: bool = False
    # False: too sensitive for the index feed, partner hubs have to ask for it (docs/protocol.md).
    indexed: bool = True
    sharing: Sharing
    codes: Codes
    note: Text | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.kind in ("certificate", "link")) != bool(self.holders):
            raise ValueError("a certificate has holders, a catalogue entity has none")
        if (self.kind == "link") != (tuple(self.holders) == ("one", "other")):
            raise ValueError("a link is between `one` and `other`, and nothing else is")
        if unknown := [role for role in self.claims if role not in self.holders]:
            raise ValueError(f"claims: no such holder: {', '.join(unknown)}")
        if self.claims and not {"born_on", "sex"} & set(self.attributes):
            raise ValueError("claims: neither `born_on` nor `sex` is among the attributes")
        if unknown := [column for column in self.natural_key if column not in self.columns()]:
            raise ValueError(f"natural_key: no such column: {', '.join(unknown)}")
        if self.indexed and self.sharing.class_ == "none":
            raise ValueError("indexed: what is not shared is not announced to partner hubs either; set it to false")
        return self

    def columns(self) -> dict[str, ValueType]:
        """Name and type of every column a mapping can fill, in the order of the exchange table."""
        columns = dict(ENVELOPE)
        for role in self.holders:
            columns |= {f"holder.{role}.{part}": "string" for part in HOLDER_PARTS}
        return columns | {f"attributes.{name}": attribute.type for name, attribute in self.attributes.items()}

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of one certificate of this type, for the OpenAPI document."""
        envelope = {name: _json_type(kind) for name, kind in ENVELOPE.items()}
        envelope["status"] = {"enum": list(STATUSES)}
        envelope["region"] = {"type": "string", "pattern": r"^\d{6}$"}
        schema: dict[str, Any] = {
            "title": self.name.en,
            "description": self.name.zh,
            "type": "object",
            "properties": {"material": {"const": self.code}, **{name: _nullable(s) for name, s in envelope.items()}},
            "required": ["material"],
            "additionalProperties": False,
        }
        if self.holders:
            schema["properties"]["holders"] = {
                "type": "object",
                "properties": {name: _holder_schema(role) for name, role in self.holders.items()},
                "required": [name for name, role in self.holders.items() if not role.optional],
                "additionalProperties": False,
            }
            schema["required"].append("holders")
        schema["properties"]["attributes"] = {
            "type": "object",
            "properties": {
                name: {**_json_type(attribute.type), "title": attribute.name.en, "description": attribute.name.zh}
                for name, attribute in self.attributes.items()
            },
            "additionalProperties": False,
        }
        return schema

    def digest(self) -> str:
        """SHA-256 of the canonical content: changes with the meaning, not with comments or layout of the file."""
        content = json.dumps(self.model_dump(mode="json"), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()


def _json_type(kind: ValueType) -> dict[str, Any]:
    number = {"type": "string", "pattern": r"^-?\d+(\.\d{1,4})?$"}  # decimals as text: no JSON reader may round them
    types: dict[str, dict[str, Any]] = {
        "string": {"type": "string"},
        "date": {"type": "string", "format": "date"},
        "timestamp": {"type": "string", "format": "date-time"},
        "integer": {"type": "integer"},
        "decimal": number,
        "boolean": {"type": "boolean"},
        "money": {
            "type": "object",
            "properties": {"amount": number, "currency": {"type": "string", "pattern": "^[A-Z]{3}$"}},
            "required": ["amount"],  # a register may name no currency: flagged and kept
            "additionalProperties": False,
        },
    }
    return dict(types[kind])


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if "enum" in schema:
        return {"enum": [*schema["enum"], None]}
    return {**schema, "type": [schema["type"], "null"]}


def _holder_schema(role: Role) -> dict[str, Any]:
    return {
        "type": "object",
        "title": role.name.en,
        "description": role.name.zh,
        "properties": {
            "scheme": {"enum": list(role.schemes)},
            "value": {"type": "string"},
            "name": {"type": ["string", "null"]},
        },
        "required": ["scheme", "value"],
        "additionalProperties": False,
    }


def read(path: Path) -> Material:
    """The material or entity in one file. FatalError ``model-invalid`` names the file and every reason."""
    material = load_document(path, Material, "model-invalid")
    if material.code != path.stem:
        reason = f"`code` is {material.code}, the file is {path.stem}: they must be equal"
        raise FatalError("model-invalid", file=str(path), reason=reason)
    return material


@functools.cache
def load(code: str) -> Material:
    """The material type or catalogue entity ``code``. FatalError ``entity-unknown`` lists what there is."""
    if re.fullmatch(r"[a-z0-9-]+", code):
        for folder in (MATERIALS, ENTITIES):
            if (path := folder / f"{code}.yml").is_file():
                return read(path)
    known = ", ".join(sorted(path.stem for folder in (MATERIALS, ENTITIES) for path in folder.glob("*.yml")))
    raise FatalError("entity-unknown", entity=code, known=known)


def all_materials() -> tuple[Material, ...]:
    """Every material type, by code."""
    return tuple(load(path.stem) for path in sorted(MATERIALS.glob("*.yml")))


def all_entities() -> tuple[Material, ...]:
    """Every entity a source can deliver: the material types, then the catalogue's own."""
    return (*all_materials(), *(load(path.stem) for path in sorted(ENTITIES.glob("*.yml"))))
