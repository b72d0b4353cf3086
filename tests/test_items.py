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
LICENCE, PREMISES = {"material": "business-licence"}, {"material": "premises-proof"}
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
        ({}, {"options": [{"materials": [{"material": "business-licence", "valid_left": "-P1D"}]}]}, "whole days"),
        ({}, {"options": [{"materials": [{"material": "business-licence", "region": "99"}]}]}, "begins with 99"),
        ({}, {"options": [{"materials": [{"material": "business-licence", "region": "310000"}]}]}, "region"),
        ({}, {"deferral": {"kind": "later", "basis": TEXT}}, "`within` belongs to kind `later`"),
        ({}, {"deferral": {"kind": "promise", "within": "P1D", "basis": TEXT}}, "`within` belongs to kind `later`"),
        ({}, {"deferral": {"kind": "later", "within": "PT36H", "basis": TEXT}}, "whole days"),
        ({}, {"deferral": {"kind": "later", "within": "P0D", "basis": TEXT}}, "one day or more"),
        ({}, {"deferral": {"kind": "promise"}}, "deferral.basis"),
        ({}, {"deferral": {"kind": "never", "basis": TEXT}}, "deferral.kind"),
        ({}, {"deferral": {"kind": "promise", "basis": TEXT}, "legal_basis": None}, "nothing can be deferred"),
        ({"facts": {**raw()["facts"], "idle": {"type": "boolean", "question": TEXT}}}, None, "idle: no condition"),
        ({}, {"options": []}, "options"),
        ({}, {"options": [{"materials": [{"material": "premises-proof"}] * 2}]}, "premises-proof is wanted twice"),
        ({}, {"options": [{"materials": [{"material": "premises-proof"}]}] * 2}, "this option is given twice"),
        ({}, {"options": [{"materials": [LICENCE, PREMISES]}, {"materials": [PREMISES, LICENCE]}]}, "given twice"),
        ({}, {"legal_basis": {"zh": " \u3000", "en": "law"}}, "legal_basis.zh: a text of blanks"),
        ({}, {"legal_basis": {"zh": "法", "en": "\u200b"}}, "legal_basis.en: a text of blanks"),
        ({"name": {"zh": "名", "en": " "}}, None, "name.en: a text of blanks"),
        ({"guide": {"contact": {"phone": "  "}}}, None, "phone: a text of blanks"),
        ({"name": {"zh": "名", "en": "Per\u202emit"}}, None, "a control character (U+202E)"),
        ({"name": {"zh": "名", "en": "Per\u2066mit"}}, None, "a control character (U+2066)"),
        ({"name": {"zh": "名\u200f", "en": "Permit"}}, None, "a control character (U+200F)"),
        ({}, {"when": {"all": [TRUE, {"not": TRUE}]}}, "can never be true"),
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


ELDER = (items.FOLDER / "demo-elder-card.yml").read_text(encoding="utf-8")
FIRST, SECOND = "version: 1\nin_force: {from: 2020-01-01}", "version: 2\nin_force: {from: 2024-01-01}"
ENDED = "version: 1\nin_force: {from: 2020-01-01, to: 2023-12-31}"


def examined(folder: Path, **files: str) -> list[str]:
    """What is wrong with files of elders' cards; ``card`` is ``demo-elder-card.yml``, ``card_1`` its version 1."""
    names = {"card": "demo-elder-card.yml", "card_1": "demo-elder-card@1.yml", "card_3": "demo-elder-card@3.yml"}
    for name, change in files.items():
        code = names.get(name, f"demo-{name}.yml")
        text = ELDER.replace(FIRST, change)
        if name not in names:
            text = text.replace("code: demo-elder-card", f"code: demo-{name}").replace(
                "DEMO0005", f"DEMO{name.upper():0>4}"
            )
        (folder / code).write_text(text, "utf-8")
    return [str(defect).removeprefix(f"{folder}/") for defect in items.examine(folder)[1]]


def test_versions_follow_one_another(tmp_path: Path) -> None:
    assert examined(tmp_path, card=SECOND, card_1=ENDED) == []
    [(code, versions)] = items.all_versions(tmp_path).items()
    assert (code, [item.version for item in versions]) == ("demo-elder-card", [1, 2])
    assert [item.version for item in items.all_items(tmp_path)] == [2]
    assert items.path(versions[0], tmp_path).name == "demo-elder-card@1.yml"
    assert items.path(versions[1], tmp_path).name == "demo-elder-card.yml"
    defect = items.defect(versions[0], ("version",), "wrong", tmp_path)
    assert (defect.file, defect.line) == (str(tmp_path / "demo-elder-card@1.yml"), 10)


@pytest.mark.parametrize(
    ("card", "other", "reason"),
    [
        (SECOND, {"card_1": FIRST}, "demo-elder-card.yml:11: version 2 is in force on days of version 1, demo-elder-card@1.yml:11"),
        (SECOND, {"card_1": ENDED.replace("2023-12-31", "2024-01-01")}, "in force on days of version 1, demo-elder-card@1.yml:11"),
        (SECOND.replace("2024", "2018"), {"card_1": FIRST}, "in force on days of version 1"),
        ("version: 2\nin_force: {from: 2018-01-01, to: 2018-12-31}", {"card_1": ENDED}, "comes before version 1"),
        (ENDED, {"card_1": ENDED}, "version 1 of demo-elder-card stands in demo-elder-card@1.yml too"),
        (ENDED, {"card_3": "version: 3\nin_force: {from: 2024-01-01}"}, "the newest version of demo-elder-card stands in"),
        (SECOND, {"card_3": ENDED}, "must be equal, or `code@version`"),
        (f"{FIRST}\nsuccessor: demo-new", {"new": FIRST}, "`successor` belongs to an item that ends"),
        (f"{ENDED}\nsuccessor: demo-moon", {}, "demo-elder-card.yml:12: there is no item demo-moon"),
        (SECOND, {"card_1": f"{ENDED}\nsuccessor: demo-new", "new": FIRST}, "belongs to the newest version"),
        (f"{ENDED}\nsuccessor: demo-elder-card", {}, "a circle: demo-elder-card → demo-elder-card"),
        (f"{ENDED}\nsuccessor: demo-b", {"b": f"{ENDED}\nsuccessor: demo-elder-card"}, "a circle: demo-b → demo-elder-card → demo-b"),
        (f"{ENDED}\nsuccessor: demo-b", {"b": ENDED}, "demo-elder-card.yml:12: demo-b is retired itself, since 2023-12-31"),
        (f"{ENDED}\nsuccessor: demo-b", {"b": f"{ENDED}\nsuccessor: demo-c", "c": FIRST}, "demo-elder-card.yml:12: demo-b is retired itself"),
        (f"{ENDED}\nsuccessor: demo-b", {"b": ENDED.replace("2023", "2024")}, "demo-elder-card.yml:12: demo-b is retired itself, and names no"),
    ],
)  # fmt: skip
def test_what_is_refused_between_files(tmp_path: Path, card: str, other: dict[str, str], reason: str) -> None:
    said = examined(tmp_path, card=card, **other)
    assert any(reason in each for each in said), said
    with pytest.raises(FatalError) as caught:
        items.all_versions(tmp_path)
    assert caught.value.code == "items-invalid"
    assert all(each in str(caught.value.values["defects"]) for each in said)


def test_the_basic_code_stays_and_stands_for_one_item_of_a_region_and_level(tmp_path: Path) -> None:
    assert examined(tmp_path, card=SECOND, card_1=ENDED, new=FIRST) == []
    other = tmp_path / "demo-new.yml"
    text = other.read_text("utf-8")
    twin = text.replace("DEMO0NEW", "DEMO0005")
    other.write_text(twin, "utf-8")
    said = [str(defect).removeprefix(f"{tmp_path}/") for defect in items.examine(tmp_path)[1]]
    assert said == [
        "demo-new.yml:4: demo-elder-card goes by 0000DEMO0005 in 310000 at the same time, demo-elder-card.yml",
        "demo-new.yml:4: demo-elder-card goes by 0000DEMO0005 in 310000 at the same time, demo-elder-card@1.yml",
    ]
    for old, new in (('region: "310000"', 'region: "320000"'), ("level: province", "level: county")):
        other.write_text(twin.replace(old, new), "utf-8")
        assert items.examine(tmp_path)[1] == []
    other.write_text(twin.replace(FIRST, "version: 1\nin_force: {from: 2017-01-01, to: 2019-12-31}"), "utf-8")
    assert items.examine(tmp_path)[1] == [], "one after the other"
    other.write_text(text, "utf-8")
    earlier = tmp_path / "demo-elder-card@1.yml"
    earlier.write_text(earlier.read_text("utf-8").replace("DEMO0005", "DEMO0006"), "utf-8")
    [said_] = items.examine(tmp_path)[1]
    assert str(said_).startswith(f"{tmp_path}/demo-elder-card.yml:4: the basic code of version 1 is 0000DEMO0006")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('region: "310000"', 'region: "999999"', "demo-elder-card.yml:8: region: there is no region 999999"),
        ('region: "310000"', 'region: "310199"', "demo-elder-card.yml:8: region: there is no region 310199"),
        ('region: "310000"', 'region: "３１0000"', "demo-elder-card.yml:8: region: String should match"),
        ('region: "310000"', 'region: "310119"', "demo-elder-card.yml:8: region 310119 ended in 2009"),
        ('region: "310000"', 'region: "100000"', None),
        ('region: "310000"', 'region: "310115"', None),
        ("type: 公共服务", "type: 随便", "demo-elder-card.yml:7: type: there is no type 随便; there are 行政许可,"),
        ("type: 公共服务", "type: 行政奖励", None),
    ],
)
def test_regions_and_types_are_those_there_are(tmp_path: Path, old: str, new: str, reason: str | None) -> None:
    assert old in ELDER
    (tmp_path / "demo-elder-card.yml").write_text(ELDER.replace(old, new), "utf-8")
    said = [str(defect).removeprefix(f"{tmp_path}/") for defect in items.examine(tmp_path)[1]]
    assert [each.startswith(reason or "?") for each in said] == [True] * (reason is not None), said


def test_a_file_tells_all_that_can_be_known_of_it(tmp_path: Path) -> None:
    """Also behind a day that there is not, a key given twice and a character that is none to be read."""
    text = ELDER.replace("from: 2020-01-01", "from: 2024-02-30").replace("resident-id-card", "moon-permit", 1)
    text = text.replace("level: province", "level: province\ncolour: red\nlevel: province")
    text = text.replace("en: Applicant", 'en: "App\\u202elicant"')
    assert "moon-permit" in text and "u202e" in text
    path = tmp_path / "demo-elder-card.yml"
    path.write_text(text, "utf-8")
    lines, found = text.splitlines(), items.examine(tmp_path)[1]
    wanted = {
        "colour: unknown key": "colour: red",
        "key given twice: level": "level: province",
        "not a date or time: day is out of range": "2024-02-30",
        "a control character (U+202E)": "u202e",
        "there is no material moon-permit": "moon-permit",
    }
    assert len(found) == len(wanted), found
    for defect in found:
        [(reason, where)] = [(reason, where) for reason, where in wanted.items() if reason in defect.reason]
        assert where in lines[defect.line - 1], (reason, defect)
    with pytest.raises(FatalError, match="day is out of range"):
        items.read(path)


def test_a_successor_of_a_successor_is_no_circle(tmp_path: Path) -> None:
    circle = f"{ENDED}\nsuccessor: demo-c"
    said = examined(tmp_path, card=f"{ENDED}\nsuccessor: demo-b", b=circle, c=f"{ENDED}\nsuccessor: demo-b")
    assert [each.partition(":")[0] for each in said] == ["demo-b.yml", "demo-c.yml"]


def test_the_digest_is_of_what_is_said_and_not_of_its_end() -> None:
    item = items.all_items()[0]
    ended = item.model_copy(
        update={"in_force": items.InForce.model_validate({"from": item.in_force.from_, "to": "2099-01-01"})}
    )
    assert ended.digest() == item.digest() == item.model_copy(update={"successor": "demo-x"}).digest()
    later = items.InForce.model_validate({"from": "2098-01-01"})
    for change in ({"type": "其他"}, {"in_force": later}, {"version": 99}, {"requirements": item.requirements[:1]}):
        assert item.model_copy(update=change).digest() != item.digest()


def test_the_authored_items_show_what_a_version_can_say() -> None:
    versions = items.all_versions()
    every = [item for each in versions.values() for item in each]
    uses = [use for item in every for _, use in item.uses()]
    assert any(use.max_age for use in uses)
    assert {predicate.test for use in uses for predicate in use.where} >= {"is", "at_least", "one_of"}
    assert any(fact.when for item in every for fact in item.facts.values())
    assert any(len(each) > 1 for each in versions.values())
    assert any(each[-1].in_force.to and each[-1].successor in versions for each in versions.values())
    guides = [item.guide for item in every]
    assert any(guide.steps for guide in guides) and any(guide.exceptions for guide in guides)
    assert any(step.parallel and step.body for guide in guides for step in guide.steps)
    assert {guide.visits for guide in guides} >= {None, 0, 1, 2}
