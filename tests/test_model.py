"""The exchange model as data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pytest

from connectors.errors import FatalError
from mappings import arrow, model

EXAMPLE = model.MATERIALS / "business-licence.yml"


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / EXAMPLE.name
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_every_file_is_a_material_or_entity() -> None:
    assert len(model.all_materials()) >= 8
    assert {m.code for m in model.all_materials()} >= {"business-licence", "resident-id-card", "authorisation"}
    assert all(m.kind == "certificate" and m.holders for m in model.all_materials())
    assert [m.code for m in model.all_entities() if m.kind == "catalogue"] == ["service-item"]


def test_invented_codes_say_so_and_are_unique() -> None:
    codes = [m.codes for m in model.all_entities()]
    assert len({c.certificate_type for c in codes}) == len(codes)
    assert all(c.invented for c in codes)


def test_arrow_schema_holds_envelope_holders_attributes_and_system_columns() -> None:
    schema = arrow.schema(model.load("marriage-certificate"))
    assert schema.names[: len(model.ENVELOPE)] == list(model.ENVELOPE)
    assert schema.field("holder.spouse_b.value").type == pa.string()
    assert schema.field("updated_at").type == pa.timestamp("us", "UTC")
    assert schema.names[-4:] == list(model.SYSTEM)
    money = arrow.schema(model.load("business-licence")).field("attributes.registered_capital").type
    assert money.field("amount").type == pa.decimal128(20, 4)


@pytest.mark.parametrize("material", model.all_entities(), ids=lambda m: m.code)
def test_json_schema_is_one(material: model.Material) -> None:
    schema = material.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]["attributes"]["properties"]) == set(material.attributes)


def test_json_schema_accepts_a_certificate_and_refuses_a_float_amount() -> None:
    validator = jsonschema.Draft202012Validator(model.load("business-licence").json_schema())
    licence: dict[str, Any] = {
        "material": "business-licence",
        "status": "in_force",
        "valid_to": None,
        "holders": {"holder": {"scheme": "cn.uscc", "value": "91310117MA1XKY001Q"}},
        "attributes": {"registered_capital": {"amount": "1.0000", "currency": "CNY"}},
    }
    validator.validate(licence)
    licence["attributes"]["registered_capital"]["amount"] = 1.5
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(licence)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("volatile: false", "volatil: false", "volatil: unknown key"),
        ("schemes: [cn.uscc", "schemes: [cn.ric", "not a scheme of a organisation: cn.ric"),
        ("natural_key: [holder.holder.value]", "natural_key: [holder.owner.value]", "holder.owner.value"),
        ("type: money", "type: cash", "attributes.registered_capital.type"),
        ("class: unconditional", "class: conditional", "conditions"),
        ("freshness: P31D", "freshness: P0D", "freshness"),
        ("volatile: false", "volatile: false\nvolatile: true", "given twice: volatile"),
        ("code: business-licence", "code: trade-licence", "must be equal"),
        ("class: unconditional", "class: none", "not announced to partner hubs"),
        ("kind: certificate\n", "kind: catalogue\n", "a catalogue entity has none"),
    ],
)
def test_a_faulty_file_is_refused_with_its_reason(tmp_path: Path, old: str, new: str, reason: str) -> None:
    path = changed(tmp_path, old, new)
    with pytest.raises(FatalError) as caught:
        model.read(path)
    assert caught.value.code == "model-invalid"
    assert str(path) in caught.value.message("en")
    assert reason in caught.value.message("en")


def test_digest_follows_the_meaning_not_the_layout(tmp_path: Path) -> None:
    before = model.load("business-licence").digest()
    assert model.read(changed(tmp_path, "volatile: false", "\n# a remark\nvolatile: false")).digest() == before
    assert model.read(changed(tmp_path, "volatile: false", "volatile: true")).digest() != before


@pytest.mark.parametrize("code", ["no-such-thing", "../../../etc/passwd"])
def test_unknown_entity_lists_what_there_is(code: str) -> None:
    with pytest.raises(FatalError, match="business-licence") as caught:
        model.load(code)
    assert caught.value.code == "entity-unknown"


def test_importing_the_model_loads_no_pyarrow() -> None:
    program = (
        "import sys, mappings.model as m; m.all_entities(); print(sorted({'pyarrow','pandas'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
