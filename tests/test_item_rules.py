"""mappings/item_rules.py: everything that does not agree inside one item is found at once, each with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mappings import items

TEXT = {"zh": "文", "en": "text"}


def item(**change: Any) -> dict[str, Any]:
    return {
        "code": "demo-x",
        "basic_code": "0000DEMO0000",
        "invented": True,
        "name": TEXT,
        "type": "公共服务",
        "region": "310000",
        "level": "province",
        "version": 1,
        "in_force": {"from": "2020-01-01"},
        "legal_basis": TEXT,
        "applicant": {"kind": "person", "name": TEXT},
        "requirements": [requirement()],
        **change,
    }


def requirement(code: str = "identity", **more: Any) -> dict[str, Any]:
    use = more.pop("use", {"material": "resident-id-card"})
    return {"code": code, "name": TEXT, "legal_basis": TEXT, "options": [{"materials": [use]}], **more}


def boolean(**more: Any) -> dict[str, Any]:
    return {"type": "boolean", "question": TEXT, **more}


def found(folder: Path, data: dict[str, Any]) -> list[str]:
    """What is wrong with the item, each as ``line: reason``."""
    path = folder / "demo-x.yml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return [str(defect).removeprefix(f"{path}:") for defect in items.examine(folder)[1]]


YES = {"fact": "a", "is": True}


@pytest.mark.parametrize("region", ["99", "310000"])
def test_one_wrong_province_is_one_thing_wrong(tmp_path: Path, region: str) -> None:
    [said] = found(tmp_path, item(requirements=[requirement(use={"material": "resident-id-card", "region": region})]))
    lines = (tmp_path / "demo-x.yml").read_text(encoding="utf-8").splitlines()
    assert "region: " in lines[int(said.partition(":")[0]) - 1]


@pytest.mark.parametrize("day", ["9999-12-31", "0001-01-01"])
def test_the_last_day_there_is_can_be_compared_with(tmp_path: Path, day: str) -> None:
    facts = {"a": {"type": "date", "question": TEXT}}
    assert found(tmp_path, item(facts=facts, requirements=[requirement(when={"fact": "a", "at_most": day})])) == []


def test_a_good_item(tmp_path: Path) -> None:
    facts = {"a": boolean(), "b": boolean(when={"fact": "a", "is": True})}
    asked = {"all": [{"fact": "a", "is": True}, {"fact": "b", "is": True}]}
    assert found(tmp_path, item(facts=facts, requirements=[requirement(when=asked)])) == []


def test_everything_is_found_at_once_and_with_its_line(tmp_path: Path) -> None:
    """Also behind what has no good shape: a level that is none, a requirement without a name."""
    nameless = requirement("nameless")
    del nameless["name"]
    wrong = item(
        level="moon",
        colour="red",
        facts={"a": boolean(when={"fact": "b", "is": True}), "b": boolean(when=YES)},
        requirements=[
            nameless,
            requirement(use={"material": "moon-permit"}),
            requirement("home", use={"material": "real-estate-title", "as": ["owner_person"],
                                     "where": [{"attribute": "colour", "is": "red"}]}),
            requirement("weather", when={"fact": "weather", "is": True}),
        ],
    )  # fmt: skip
    said = found(tmp_path, wrong)
    lines = (tmp_path / "demo-x.yml").read_text(encoding="utf-8").splitlines()
    wanted = {
        "level: Input": "level: moon",
        "colour: unknown key": "colour: red",
        "requirements.0.name: Field required": "code: nameless",
        "cyclic condition: a → b → a": "when:",
        "no material moon-permit": "material: moon-permit",
        "no attribute colour": "attribute: colour",
        "fact weather is not declared": "when:",
    }
    assert len(said) == len(wanted), said
    for reason, text in wanted.items():
        [line] = [each for each in said if reason in each]
        assert text in lines[int(line.partition(":")[0]) - 1], line


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ({"attribute": "state", "at_least": "现势"}, "has no order"),
        ({"attribute": "state", "is": 3}, "of type string"),
        ({"attribute": "registered_on", "at_least": "2024-02-30"}, "of type date"),
        ({"attribute": "area_square_metres", "at_least": "big"}, "of type decimal"),
        ({"attribute": "area_square_metres", "at_least": "NaN"}, "of type decimal"),
        ({"attribute": "area_square_metres", "is": True}, "of type decimal"),
        ({"attribute": "area_square_metres", "at_least": 1, "currency": "CNY"}, "`currency` belongs"),
        ({"attribute": "colour", "is": 1}, "has no attribute colour"),
    ],
)
def test_predicates_that_do_not_fit(tmp_path: Path, where: dict[str, Any], reason: str) -> None:
    use = {"material": "real-estate-title", "as": ["owner_person"], "where": [where]}
    [said] = found(tmp_path, item(requirements=[requirement(use=use)]))
    assert reason in said


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        ({"material": "marriage-certificate", "with": ["spouse"]}, None),
        ({"material": "marriage-certificate", "holder": "spouse", "with": ["applicant"]}, None),
        ({"material": "marriage-certificate", "with_named": ["spouse"]}, None),
        ({"material": "marriage-certificate", "with": ["cousin"]}, "role cousin is not declared"),
        ({"material": "marriage-certificate", "with": ["applicant"]}, "not the holder itself"),
        ({"material": "marriage-certificate", "with": ["spouse"], "with_named": ["spouse"]}, "each role once"),
        ({"material": "resident-id-card", "with": ["spouse"]}, "has no place for spouse beside its holder"),
        ({"material": "marriage-certificate", "with": ["employer"]}, "has no place for employer"),
    ],
)
def test_whom_else_a_certificate_names(tmp_path: Path, use: dict[str, Any], reason: str | None) -> None:
    roles = {"spouse": {"kind": "person", "name": TEXT}, "employer": {"kind": "organisation", "name": TEXT}}
    named = [role for role in roles if role in str(use)]
    said = found(tmp_path, item(roles={role: roles[role] for role in named}, requirements=[requirement(use=use)]))
    assert (said == []) == (reason is None) and (reason is None or any(reason in one for one in said)), said


@pytest.mark.parametrize(
    ("attribute", "good"),
    [
        ({"attribute": "registered_capital", "at_least": 30000, "currency": "CNY"}, True),
        ({"attribute": "registered_capital", "at_least": "30000.50", "currency": "CNY"}, True),
        ({"attribute": "registered_capital", "at_least": 30000}, False),
        ({"attribute": "registered_on", "at_most": "2024-01-01"}, True),
        ({"attribute": "province", "one_of": ["上海市", "江苏省"]}, True),
    ],
)
def test_predicates_of_a_licence(tmp_path: Path, attribute: dict[str, Any], good: bool) -> None:
    use = {"material": "business-licence", "where": [attribute]}
    data = item(applicant={"kind": "organisation", "name": TEXT}, requirements=[requirement(use=use)])
    assert (found(tmp_path, data) == []) == good


def test_nothing_depends_on_a_question_that_is_not_asked(tmp_path: Path) -> None:
    facts = {"a": boolean(), "b": boolean(when=YES)}
    [said] = found(tmp_path, item(facts=facts, requirements=[requirement(when={"fact": "b", "is": True})]))
    assert "depends on fact b also when its question is not asked" in said
    # A question that waits for one that waits: the whole chain has to be in the condition.
    facts["c"] = boolean(when={"all": [YES, {"fact": "b", "is": True}]})
    asked = {"all": [YES, {"fact": "b", "is": True}, {"fact": "c", "is": True}]}
    assert found(tmp_path, item(facts=facts, requirements=[requirement(when=asked)])) == []


def test_questions_that_wait_for_themselves_or_for_later_ones(tmp_path: Path) -> None:
    itself = item(facts={"a": boolean(when=YES)}, requirements=[requirement(when=YES)])
    assert ["cyclic condition: a → a" in said for said in found(tmp_path, itself)] == [True]
    later = {"b": boolean(when=YES), "a": boolean()}
    asked = {"all": [YES, {"fact": "b", "is": True}]}
    [said] = found(tmp_path, item(facts=later, requirements=[requirement(when=asked)]))
    assert "declare what it depends on first" in said


def test_shapes_that_are_none_are_no_reason_to_stop(tmp_path: Path) -> None:
    for broken in ({"requirements": 3}, {"facts": [1]}, {"roles": {"x": 1}}, {"applicant": None}):
        assert found(tmp_path, item(**broken))
