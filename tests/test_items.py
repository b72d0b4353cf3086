"""The authored items, and what is refused in a file of items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from connectors.errors import FatalError
from mappings import items, model


def test_there_are_items_and_invented_codes_say_so() -> None:
    found = items.all_items()
    assert len(found) >= 6
    assert {item.code for item in found} >= {"demo-food-permit", "demo-publication-retail"}
    for item in found:
        assert item.invented
        assert "DEMO" in item.basic_code
    assert len({item.basic_code for item in found}) == len(found)


def test_the_food_permit_needs_a_licence_and_an_authorisation_unless_in_person() -> None:
    permit = next(item for item in items.all_items() if item.code == "demo-food-permit")
    needs = {requirement.code: requirement for requirement in permit.requirements}
    assert needs["business-licence"].options[0].codes() == ("business-licence",)
    assert needs["business-licence"].when is None
    assert needs["authorisation"].when is not None
    assert needs["authorisation"].when.facts() == ("legal_representative_in_person",)
    assert "第三十五条" in permit.legal_basis.zh


def test_the_items_show_every_kind_of_rule() -> None:
    found = items.all_items()
    requirements = [requirement for item in found for requirement in item.requirements]
    assert any(requirement.legal_basis is None for requirement in requirements)
    assert any(len(requirement.options) > 1 for requirement in requirements)
    assert any(len(option.materials) > 1 for requirement in requirements for option in requirement.options)
    uses = [use for item in found for _, use in item.uses()]
    assert any(use.valid_left.days == 30 for use in uses)
    assert any(use.holder != items.APPLICANT for use in uses)
    assert {fact.type for item in found for fact in item.facts.values()} >= {"boolean", "integer", "string"}


def raw() -> dict[str, Any]:
    path = items.FOLDER / "demo-food-permit.yml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def refused(tmp_path: Path, change: dict[str, Any], requirement: dict[str, Any] | None = None) -> str:
    data = {**raw(), **change}
    if requirement is not None:
        data["requirements"][0] = {**data["requirements"][0], **requirement}
    path = tmp_path / "demo-food-permit.yml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    with pytest.raises(FatalError) as caught:
        items.read(path)
    assert caught.value.code == "item-invalid"
    assert caught.value.values["file"] == str(path)
    return str(caught.value.values["reason"])


def test_the_copy_is_good_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "demo-food-permit.yml"
    path.write_text(yaml.safe_dump(raw(), allow_unicode=True), encoding="utf-8")
    assert items.read(path) == items.read(items.FOLDER / path.name)


TEXT = {"zh": "文", "en": "text"}
TRUE = {"fact": "legal_representative_in_person", "is": True}


@pytest.mark.parametrize(
    ("change", "requirement", "reason"),
    [
        ({"colour": "red"}, None, "colour: unknown key"),
        ({"code": "other"}, None, "must be equal"),
        ({"in_force": {"from": "2024-01-02", "to": "2024-01-01"}}, None, "before"),
        ({"requirements": [raw()["requirements"][0]] * 2}, None, "given twice"),
        ({"facts": {"ground": {"type": "string", "question": {"zh": "问", "en": "ask"}}}}, None, "values"),
        ({}, {"options": [{"materials": [{"material": "moon-permit"}]}]}, "no material moon-permit"),
        ({}, {"options": [{"materials": [{"material": "service-item"}]}]}, "not held by"),
        ({}, {"options": [{"materials": [{"material": "resident-id-card"}]}]}, "not held by a organisation"),
        ({}, {"options": [{"materials": [{"material": "business-licence", "holder": "cousin"}]}]}, "role cousin"),
        ({}, {"options": [{"materials": [{"material": "business-licence", "as": ["owner"]}]}]}, "no holder owner"),
        ({}, {"options": [{"materials": [{"material": "business-licence", "valid_left": "-P1D"}]}]}, "negative"),
        ({}, {"options": [{"materials": [{"material": "business-licence", "region": "99"}]}]}, "begins with 99"),
        ({}, {"options": [{"materials": [{"material": "business-licence", "region": "310000"}]}]}, "region"),
        ({}, {"deferral": {"kind": "later", "basis": TEXT}}, "`within` belongs to kind `later`"),
        ({}, {"deferral": {"kind": "promise", "within": "P1D", "basis": TEXT}}, "`within` belongs to kind `later`"),
        ({}, {"deferral": {"kind": "later", "within": "PT36H", "basis": TEXT}}, "whole days"),
        ({}, {"deferral": {"kind": "later", "within": "P0D", "basis": TEXT}}, "whole days"),
        ({}, {"deferral": {"kind": "promise"}}, "deferral.basis"),
        ({}, {"deferral": {"kind": "never", "basis": TEXT}}, "deferral.kind"),
        ({}, {"deferral": {"kind": "promise", "basis": TEXT}, "legal_basis": None}, "nothing can be deferred"),
        ({"facts": {**raw()["facts"], "idle": {"type": "boolean", "question": TEXT}}}, None, "idle: no condition"),
        ({}, {"options": []}, "options"),
        ({}, {"when": {"fact": "weather", "is": True}}, "weather is not declared"),
        ({}, {"when": {**TRUE, "is": "yes"}}, "cannot be compared"),
        ({}, {"when": {**TRUE, "is": 1}}, "cannot be compared"),
        ({}, {"when": {"fact": TRUE["fact"], "at_least": 3}}, "cannot be compared"),
        ({}, {"when": {"fact": TRUE["fact"]}}, "exactly one of"),
        ({}, {"when": {"all": []}}, "when.all"),
        ({}, {"when": {"all": [TRUE], "any": [TRUE]}}, "exactly one of"),
        ({}, {"when": {}}, "exactly one of"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, change: dict[str, Any], requirement: dict[str, Any] | None, reason: str
) -> None:
    assert reason in refused(tmp_path, change, requirement)


def test_what_may_be_deferred_and_where_it_must_come_from(tmp_path: Path) -> None:
    data = raw()
    use = {"material": "business-licence", "region": "33"}
    more = {"deferral": {"kind": "later", "within": "P20D", "basis": TEXT}, "options": [{"materials": [use]}]}
    data["requirements"][0] = {**data["requirements"][0], **more}
    path = tmp_path / "demo-food-permit.yml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    [requirement, *_] = items.read(path).requirements
    assert requirement.deferral is not None and requirement.deferral.within is not None
    assert (requirement.deferral.kind, requirement.deferral.within.days) == ("later", 20)
    assert requirement.options[0].materials[0].region == "33"


def test_too_many_facts_in_one_condition(tmp_path: Path) -> None:
    facts = {f"f{n}": {"type": "boolean", "question": {"zh": "问", "en": "ask"}} for n in range(13)}
    assert "too many facts" in refused(
        tmp_path,
        {"facts": {**raw()["facts"], **facts}},
        {"when": {"any": [{"fact": name, "is": True} for name in facts]}},
    )


def test_a_key_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "demo-food-permit.yml"
    path.write_text((items.FOLDER / path.name).read_text(encoding="utf-8") + "\nversion: 2\n", encoding="utf-8")
    with pytest.raises(FatalError, match="given twice: version"):
        items.read(path)


def test_facts_know_their_type() -> None:
    ask = model.Text(zh="问", en="ask")
    integer, date = items.Fact(type="integer", question=ask), items.Fact(type="date", question=ask)
    assert integer.accepts(3)
    assert not integer.accepts(True)
    assert not integer.accepts("3")
    assert date.accepts("2024-02-29")
    assert not date.accepts("2023-02-29")
    assert not date.accepts("20240229")
    choice = items.Fact(type="string", question=ask, values=("work", "study"))
    assert choice.accepts("work")
    assert not choice.accepts("11010519491231002X")
