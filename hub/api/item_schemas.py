"""JSON Schemas of what ``/v1/items`` gives: as tight as the catalogue is, with no member beside those named.

``tests/test_api_items.py`` holds every item of the catalogue and every guide to them, in both languages.
"""

from __future__ import annotations

import typing
from typing import Any

from mappings.facts import FactType
from mappings.guidance import Channel, PublishedException, Step
from mappings.items import Item
from mappings.requirements import Deferral

TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
OPEN: dict[str, Any] = {"type": ["string", "null"]}
DAY: dict[str, Any] = {"type": "string", "format": "date"}
NUMBER: dict[str, Any] = {"type": "integer", "minimum": 0}
CODE: dict[str, Any] = {"type": "string", "pattern": "^[0-9A-Za-z][0-9A-Za-z-]*$"}
MATERIAL: dict[str, Any] = {"type": "string", "pattern": "^[a-z][a-z0-9]*(-[a-z0-9]+)*$"}
NAME: dict[str, Any] = {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"}
REGION: dict[str, Any] = {"type": "string", "pattern": "^[0-9]{6}$"}


def of(optional: dict[str, Any] | None = None, /, **members: Any) -> dict[str, Any]:
    """An object with ``members``, and perhaps those that are ``optional``."""
    return {
        "type": "object",
        "properties": {**members, **(optional or {})},
        "required": list(members),
        "additionalProperties": False,
    }


def listed(entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": entries, **more}


def maybe(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema``, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def one_of(literal: Any) -> dict[str, Any]:
    return {"type": "string", "enum": list(typing.get_args(literal))}


def _of_model(model: Any, name: str) -> dict[str, Any]:
    return one_of(model.model_fields[name].annotation)


_SUMMARY: dict[str, Any] = {
    "item": CODE,
    "item_name": {"type": "string"},
    "region": {"type": ["string", "null"]},
    "requirements_published": {"type": "boolean"},
    "version": {"type": ["integer", "null"], "minimum": 1},
    "state": {"type": "string", "enum": ["in_force", "not_in_force", "retired", "listed"]},
    "successor": maybe(CODE),
}
SUMMARY = of(**{**_SUMMARY, "item": TEXT})
BUNDLE = of(bundle=CODE, bundle_name=TEXT, items=listed(CODE, minItems=1))
ITEMS = of(
    items=listed(SUMMARY),
    bundles=listed(BUNDLE),
    next={"type": ["string", "null"], "description": "`after` of the next page; null: there is none."},
)
CHANGES = of(
    changes=listed(
        of(
            position=NUMBER,
            item=CODE,
            version={"type": "integer", "minimum": 1},
            kind={"type": "string", "enum": ["added", "changed", "ended", "retired"]},
            effective_on=DAY,
            successor=maybe(CODE),
            digest=TEXT,
            published_at={"type": "string", "format": "date-time"},
        )
    ),
    next={**NUMBER, "description": "`after` of the next page, also behind the last one."},
    more={"type": "boolean"},
)

IN_FORCE = of(**{"from": DAY, "to": maybe(DAY)})
DEFERRAL = of(kind=_of_model(Deferral, "kind"), within_days={"type": ["integer", "null"], "minimum": 1}, basis=TEXT)
FACT = of(
    {"values": listed(NAME, minItems=1), "asked_if": {**TEXT, "description": "The question is asked only then."}},
    type=one_of(FactType), question=TEXT,
)  # fmt: skip
_VALUE: dict[str, Any] = {"type": ["boolean", "integer", "string"]}
PREDICATE: dict[str, Any] = of(
    {
        "is": _VALUE, "at_least": _VALUE, "at_most": _VALUE, "one_of": listed(_VALUE, minItems=1),
        "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
    },
    attribute=NAME,
)  # fmt: skip
PREDICATE["oneOf"] = [{"required": [test]} for test in ("is", "at_least", "at_most", "one_of")]
USE = of(
    {
        "region": {"type": "string", "pattern": "^[0-9]{2}$"},
        "as": listed(NAME, minItems=1),
        "with": listed(NAME, minItems=1),
        "with_named": listed(NAME, minItems=1),
        "valid_left_days": {"type": "integer", "minimum": 1},
        "max_age_days": NUMBER,
        "where": listed(PREDICATE, minItems=1),
    },
    material=MATERIAL,
    holder=NAME,
)
_IDENTITY: dict[str, Any] = {
    "item": CODE,
    "item_name": TEXT,
    "basic_code": {"type": "string", "pattern": "^[0-9A-Z]{12}$"},
    "invented": {"type": "boolean"},
    "type": TEXT,
    "level": _of_model(Item, "level"),
    "region": REGION,
    "version": {"type": "integer", "minimum": 1},
    "in_force": IN_FORCE,
    "legal_basis": TEXT,
}
_FACTS = {"type": "object", "propertyNames": NAME, "additionalProperties": FACT}
DESCRIBED = of(
    **{
        **_IDENTITY,
        "requirements_published": {"const": True},
        "state": {"const": "in_force"},
        "successor": {"type": "null"},
        "digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "roles": {"type": "object", "propertyNames": NAME, "additionalProperties": TEXT},
        "facts": _FACTS,
        "requirements": listed(
            of(
                requirement=MATERIAL, name=TEXT, legal_basis=maybe(TEXT), facts=listed(NAME), condition=maybe(TEXT),
                deferral=maybe(DEFERRAL), options=listed(listed(USE, minItems=1), minItems=1),
            ),
            minItems=1,
        ),
    }
)  # fmt: skip
ITEM = {
    "oneOf": [
        DESCRIBED,
        of(**{
            **_SUMMARY, "item": TEXT, "requirements_published": {"const": False}, "version": {"type": "null"},
            "state": {"const": "listed"}, "successor": {"type": "null"},
        }),
    ]
}  # fmt: skip
_DAYS: dict[str, Any] = {"type": ["integer", "null"], "minimum": 0}
_CHANNELS = listed(one_of(Channel))
GUIDE = of(
    **{
        **_IDENTITY,
        "region_name": TEXT,
        "successor": maybe(CODE),
        "applicant": TEXT,
        "body": OPEN,
        "limits": of(statutory_working_days=_DAYS, promised_working_days=_DAYS),
        "visits": _DAYS,
        "channels": _CHANNELS,
        "fee": maybe(
            of(amount={"type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,2})?$"}, currency={"const": "CNY"}, basis=OPEN)
        ),
        "contact": of(address=OPEN, phone=OPEN, hours=OPEN),
        "steps": listed(
            of(
                name=TEXT, who=_of_model(Step, "who"), at=_CHANNELS, working_days=_DAYS, body=OPEN,
                parallel={"type": "boolean"},
            )
        ),
        "exceptions": listed(of(to=_of_model(PublishedException, "to"), reason=TEXT)),
        "questions": _FACTS,
        "requirements": listed(
            of(
                requirement=MATERIAL, name=TEXT, asked={"type": "boolean"}, legal_basis=maybe(TEXT), condition=maybe(TEXT),
                options=listed(
                    listed(of(material=MATERIAL, name=TEXT, holder=NAME, text=TEXT, wanted=listed(TEXT)), minItems=1),
                    minItems=1,
                ),
                deferral=maybe(DEFERRAL),
            ),
            minItems=1,
        ),
        "note": OPEN,
    }
)  # fmt: skip
