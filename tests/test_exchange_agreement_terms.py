"""hub/exchange/agreement_terms.py: one text for one agreement, and everything that speaks against it with its line."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.documents import Text
from connectors.errors import FatalError
from hub.exchange import agreement_terms
from hub.exchange.agreement_terms import Draft, Terms
from mappings import model
from tests.terms import PARTIES, draft, terms

ID = uuid.UUID("0199c0de-0000-7000-8000-000000000001")


def file(folder: Path, text: str) -> Path:
    path = folder / "agreement.yml"
    path.write_text(text, encoding="utf-8")
    return path


def template() -> str:
    return agreement_terms.template("zj", "sh", "330000", dt.date(2026, 3, 1))


def test_the_template_can_be_agreed_as_it_is(tmp_path: Path) -> None:
    found, defects = agreement_terms.examine(file(tmp_path, template()), PARTIES)
    assert defects == [] and found is not None
    assert (found.provider, found.receiver, found.regions, found.modes) == ("zj", "sh", ("33",), ("evidence", "index"))
    # Whole days in Beijing, the last one included.
    assert found.valid_from == dt.datetime(2026, 2, 28, 16, tzinfo=dt.UTC)
    assert found.valid_to == dt.datetime(2027, 12, 31, 16, tzinfo=dt.UTC)


def test_one_agreement_has_one_text() -> None:
    said = draft(
        modes=["evidence", "index", "index"], purposes=["b", "a"], regions=["3301", "330000", 33],
        materials={"household-register": ["status", "name", "status"], "business-licence": "*"},
        valid_from="2026-03-01T08:00+08:00",
    )  # fmt: skip
    document = agreement_terms.canonical(said.numbered(ID, 3))
    again = draft(
        modes=["index", "evidence"], purposes=["a", "b", "b"], regions=["33"],
        materials={"business-licence": "*", "household-register": ["name", "status"]},
        valid_from="2026-03-01T00:00:00Z",
    )  # fmt: skip
    assert agreement_terms.canonical(again.numbered(ID, 3)) == document
    shown = json.loads(document)
    assert document == json.dumps(shown, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert (shown["regions"], shown["modes"], shown["valid_from"]) == (
        ["33"],
        ["evidence", "index"],
        "2026-03-01T00:00:00Z",
    )
    assert agreement_terms.parse(document) == said.numbered(ID, 3)
    assert set(shown) == set(Terms.model_fields)


ALTERED = {
    "a space": lambda text: text.replace(":", ": ", 1),
    "another order": lambda text: json.dumps(dict(reversed(json.loads(text).items())), separators=(",", ":")),
    "a member twice": lambda text: text.replace('"version":1', '"version":1,"version":1'),
    "a member more": lambda text: text.replace("{", '{"a":1,', 1),
    "a member less": lambda text: text.replace('"consent":"none",', ""),
    "a list that is not sorted": lambda text: text.replace('["evidence","index"]', '["index","evidence"]'),
    "a region within another": lambda text: text.replace('["33"]', '["33","3301"]'),
    "a whole code": lambda text: text.replace('["33"]', '["330000"]'),
    "a time with an offset": lambda text: text.replace("2026-01-01T00:00:00Z", "2026-01-01T08:00:00+08:00"),
    "a number as text": lambda text: text.replace('"version":1', '"version":"1"'),
    "an id in capitals": lambda text: text.replace("0199c0de", "0199C0DE"),
    "escapes": lambda text: text.replace("index", "\\u0069ndex"),
    "no JSON": lambda text: text[:-1],
    "too deep": lambda _: "[" * 5000,
    "no object": lambda _: "7",
    "no bytes": lambda _: "",
}  # fmt: skip


@pytest.mark.parametrize("how", ALTERED)
def test_what_is_written_otherwise_is_no_document(how: str) -> None:
    document = agreement_terms.canonical(terms(ID)).decode()
    altered = ALTERED[how](document)
    assert altered != document
    with pytest.raises(FatalError) as caught:
        agreement_terms.parse(altered.encode())
    assert caught.value.code == "agreement-document" and str(caught.value)


def test_a_document_has_a_size() -> None:
    with pytest.raises(FatalError) as caught:
        agreement_terms.parse(b" " * (agreement_terms.LARGEST + 1))
    assert caught.value.code == "agreement-document"


@given(moment=st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2999, 1, 1)), zone=st.integers(-14, 14))
def test_moments_are_minutes_whatever_the_zone(moment: dt.datetime, zone: int) -> None:
    aware = moment.replace(second=0, microsecond=0, tzinfo=dt.timezone(dt.timedelta(hours=zone)))
    said = draft(valid_from=aware.isoformat(), valid_to="3100-01-01")
    assert said.valid_from == aware
    assert agreement_terms.parse(agreement_terms.canonical(said.numbered(ID, 1))).valid_from == aware
    if moment.second or moment.microsecond:
        with pytest.raises(ValueError, match="no seconds"):
            draft(valid_from=moment.replace(tzinfo=dt.UTC).isoformat(), valid_to="3100-01-01")


WRONG = {
    "valid_to: 2027-12-31": ("valid_to: 2025-12-31", "it ends before it begins"),
    "valid_from: 2026-03-01": ("valid_from: soon", "write a day"),
    "epoch_days: 30": ("epoch_days: 0", "greater than or equal to 1"),
    "consent: none": ("consent: perhaps", "'none' or 'required'"),
    "provider: zj": ("provider: js", "provider and receiver are sh and zj"),
    "receiver: sh": ("receiver: zj", "provider and receiver are one hub"),
    'regions: ["33"]': ('regions: ["33", "3101"]', "3101 is not within 33"),
    "modes: [index, evidence]": ("modes: []", "at least 1"),
    "purposes: [handle-application]": ("purposes: [Handle it]", "match pattern"),
    "household-register: [certificate_number, status, holder.holder]": (
        "household-register: [certificate_number, salary]", "has no field salary",
    ),
    "  business-licence: [certificate_number, name, status, valid_from, valid_to, holder.holder]": (
        "  food-safety-rules: '*'", "is not shared (不予共享)",
    ),
    "basis:": ("basic:", "unknown key"),
    "  en: Checking": ("  en: 11010519491231002X Checking", "an identifier of a person"),
}  # fmt: skip


@pytest.mark.parametrize("good", WRONG)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, good: str) -> None:
    bad, reason = WRONG[good]
    text = template()
    assert text.count(f"\n{good}") == 1 or text.count(good) == 1
    line = 1 + text[: text.index(good, text.index("\nprovider: ") if good.startswith("provider") else 0)].count("\n")
    found, defects = agreement_terms.examine(file(tmp_path, text.replace(good, bad, 1)), PARTIES)
    assert found is None
    assert any(reason in each.reason and each.line in (line, line + good.startswith("\n")) for each in defects), defects


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    text = template().replace('["33"]', '["31"]').replace("holder.holder", "holder.owner").replace("zj", "ah")
    found, defects = agreement_terms.examine(file(tmp_path, text), PARTIES)
    assert found is None and len(defects) == 3 and len({each.line for each in defects}) == 3
    assert [each.line for each in defects] == sorted(each.line for each in defects)


def test_what_cannot_be_read_does_not_hide_the_rest(tmp_path: Path) -> None:
    text = template().replace("2027-12-31", "2027-02-30")
    found, defects = agreement_terms.examine(file(tmp_path, text), PARTIES)
    assert found is None and ["not a date or time" in each.reason for each in defects] == [True]
    _, both = agreement_terms.examine(file(tmp_path, f"{text}colour: red\n"), PARTIES)
    assert [each.reason for each in both] == [defects[0].reason, "colour: unknown key"]


def reasons(**changes: object) -> str:
    return "; ".join(reason for _, reason in agreement_terms.flaws(draft(**changes), PARTIES))


def test_sharing_follows_the_model() -> None:
    shared = {each.code: each.sharing.class_ for each in model.all_materials()}
    assert "none" in shared.values() and "conditional" in shared.values()
    for code, kind in shared.items():
        said = reasons(materials={code: "*"}, modes=["evidence"])
        assert ("is not shared" in said) == (kind == "none"), code
    assert "no such material" in reasons(materials={"passport": "*"})
    assert "no such material" in reasons(materials={"service-item": "*"})  # of the catalogue, no certificate
    conditions = agreement_terms.conditions(terms(ID, materials={"business-licence": "*", "household-register": "*"}))
    assert list(conditions) == ["household-register"] and isinstance(
        conditions["household-register"].sharing.conditions, Text
    )


def test_what_is_never_announced_can_be_asked_for() -> None:
    sensitive = {"marriage-certificate": ["status"]}
    assert reasons(materials=sensitive, modes=["evidence"]) == ""
    assert "never announced" in reasons(materials=sensitive, modes=["index"])
    assert "none of the materials" in reasons(materials=sensitive, modes=["index", "evidence"])
    both = terms(ID, materials={**sensitive, "business-licence": ["status"]}, modes=["index", "evidence"])
    assert agreement_terms.flaws(both, PARTIES) == []
    assert both.indexed() == ("business-licence",)
    assert terms(ID, modes=["evidence"]).indexed() == ()


def test_without_fields_nothing_could_be_read() -> None:
    nothing = {"business-licence": []}
    assert reasons(materials=nothing, modes=["index"]) == ""
    assert "no field is named" in reasons(materials=nothing, modes=["index", "share"])
    assert terms(ID, materials=nothing, modes=["index"]).shows(model.load("business-licence")) == ()
    licence = model.load("business-licence")
    assert terms(ID, materials={"business-licence": ["valid_to", "name"]}).shows(licence) == ("name", "valid_to")
    assert len(terms(ID, materials={"business-licence": "*"}).shows(licence)) > 12
    with pytest.raises(ValueError, match="alone"):
        draft(materials={"business-licence": ["name", "*"]})


@pytest.mark.parametrize("bad", ["3", "333", "03", "3x", "330000000", "３３", ""])
def test_what_is_no_region(bad: str) -> None:
    with pytest.raises(ValueError):
        draft(regions=[bad])


@pytest.mark.parametrize(
    "bad",
    [
        "a\nb",
        "a\x1b[2J",
        "a‮b",
        "  ",
        "身份证 11010519491231002x。",
        "ID11010519491231002X",
        "１１０１０５１９４９１２３１００２Ｘ",
        "x" * 2001,
    ],
)
def test_what_is_said_is_plain_text_about_nobody(bad: str) -> None:
    with pytest.raises(ValueError):
        draft(basis={"zh": bad, "en": "Art. 20"})


@pytest.mark.parametrize("good", ["case 11370800MB285591843370117002011202511230001", "No. 110105194912310021"])
def test_what_only_looks_long_may_be_said(good: str) -> None:
    assert draft(basis={"zh": good, "en": "Art. 20"}).basis.zh == good


def test_terms_written_as_yaml_are_the_same_terms(tmp_path: Path) -> None:
    said = terms(ID, version=4, valid_to="2027-06-30T12:30+08:00")
    found, defects = agreement_terms.examine(file(tmp_path, agreement_terms.written(said)), PARTIES)
    assert defects == [] and isinstance(found, Draft)
    assert found.id == ID and found.numbered(ID, 4) == said
