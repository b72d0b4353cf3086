"""quality/proposal.py: what a sample shows becomes warnings that the gate understands."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from mappings import inference, model, profile
from quality import proposal, suite


def proposed(columns: dict[str, list[str | None]], entity: str, region: str = "310000") -> tuple[suite.Check, ...]:
    material = model.load(entity)
    profiles = profile.profiles(pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()}))
    lines = inference.propose(material, profiles, region)
    return proposal.checks(material, suite.of(material), lines, profiles, region)


def test_region_filled_columns_and_words() -> None:
    columns = {
        "xzqh": ["310115", "310101"] * 10,
        "企业类型": ["有限责任公司", "股份有限公司"] * 10,
        "地区": [*["松江"] * 19, None],
    }
    found = {check.reason: check for check in proposed(columns, "business-licence")}
    assert found["region-of-another-province"].arguments == {"regex": "^31"}
    assert found["enterprise-type-missing"].column == "attributes.enterprise_type"
    assert found["enterprise-type-unexpected"].arguments["value_set"] == ["有限责任公司", "股份有限公司"]
    assert "locality-missing" not in found, "one in twenty is empty"
    assert {check.severity for check in found.values()} == {"warn"}


def test_another_provinces_register_and_a_tiny_sample_say_nothing() -> None:
    assert not proposed({"xzqh": ["330106"] * 20}, "business-licence")
    assert not proposed({"xzqh": ["310115"] * 3}, "business-licence")


def test_no_personal_words_become_a_check() -> None:
    found = proposed({"slsy": ["务工", "就学"] * 10}, "residence-permit")
    assert {check.reason for check in found} == {"reason-missing"}


def test_the_text_is_a_suite(tmp_path: Path) -> None:
    found = proposed({"企业类型": ["有限责任公司: 甲", "股份 #1"] * 10}, "business-licence")
    path = tmp_path / "checks.yml"
    path.write_text(proposal.written("business-licence", found), encoding="utf-8")
    material = model.load("business-licence")
    assert suite.of(material, path).checks[-len(found) :] == found
    path.write_text(proposal.written("business-licence", ()), encoding="utf-8")
    assert suite.of(material, path).checks == suite.of(material).checks
