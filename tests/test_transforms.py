"""Each transform: what it fills and what it notes."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest

from mappings import model, transforms
from mappings.transforms import REGISTRY, Call, Result

LICENCE = model.load("business-licence")
GOOD = "91310117MA1XKY001Q"
STANDARD = "11010519491231002X"  # the example of GB 11643, nobody's


def run(
    transform: str, target: str, *columns: list[str | None], parameter: str | None = None, entity: str = ""
) -> Result:
    material = model.load(entity) if entity else LICENCE
    inputs = tuple(transforms.cleaned(pa.array(column, pa.string())) for column in columns)
    return REGISTRY[transform].apply(Call(target, inputs, parameter, "310000", material))


def notes(result: Result) -> dict[tuple[str, str], list[bool]]:
    return {(note.severity, note.code): note.mask.tolist() for note in result.notes}


def test_every_spelling_of_nothing_is_null() -> None:
    spelled = ["", "  ", "N/A", " - ", "\\n", "\\N", "\u3000", "NULL", None, "无名公司", "0"]
    assert transforms.cleaned(pa.chunked_array([spelled[:3], spelled[3:]])).to_pylist() == [None] * 9 + [
        "无名公司",
        "0",
    ]
    assert transforms.cleaned(pa.chunked_array([], pa.string())).to_pylist() == []


def test_text_keeps_full_width_brackets_and_joins_columns() -> None:
    assert run("text", "name", ["甲（有限合伙）"]).columns["name"].to_pylist() == ["甲（有限合伙）"]
    assert run("text", "name", ["沪", None, None], ["1", "2", None]).columns["name"].to_pylist() == ["沪1", "2", None]
    assert run("first", "name", [None, "a"], ["b", "c"]).columns["name"].to_pylist() == ["b", "a"]


def test_number_is_folded_as_identifiers_are() -> None:
    folded = run("number", "certificate_number", ["９1310117ma1xky001q", None]).columns["certificate_number"]
    assert folded.to_pylist() == [GOOD, None]


def test_words_refuse_what_slipped_in_from_another_column() -> None:
    result = run("words", "attributes.enterprise_type", ["有限责任公司", "10万美元", None])
    assert result.columns["attributes.enterprise_type"].to_pylist() == ["有限责任公司", None, None]
    assert notes(result) == {("flag", "enterprise-type-unreadable"): [False, True, False]}


def test_dates_are_read_or_flagged() -> None:
    result = run("date", "issued_on", ["2019-9-8 0:00", "待查", None, "20200316"])
    assert result.columns["issued_on"].to_pylist() == [dt.date(2019, 9, 8), None, None, dt.date(2020, 3, 16)]
    assert notes(result) == {("flag", "issued-on-unreadable"): [False, True, False, False]}


def test_an_unreadable_end_of_validity_does_not_pass_for_no_end() -> None:
    result = run("date", "valid_to", ["长期", "9999-9-9", "见附页", "2030-01-01"])
    assert result.columns["valid_to"].to_pylist() == [None, None, None, dt.date(2030, 1, 1)]
    assert notes(result) == {("error", "valid_to:unreadable"): [False, False, True, False]}


def test_timestamps_without_zone_are_chinese_time() -> None:
    (moment,) = run("timestamp", "updated_at", ["2025-03-01 09:30:00"]).columns["updated_at"].to_pylist()
    assert moment == dt.datetime(2025, 3, 1, 1, 30, tzinfo=dt.UTC)


def test_a_ruined_number_that_names_the_certificate_is_rejected() -> None:
    ruined: list[str | None] = ["3.10E+17", "３．１ｅ１７", "3.10E", "DB310", None]
    named = run("number", "certificate_number", ruined, entity="subsistence-allowance")
    assert notes(named) == {("reject", "certificate-number-unrecoverable"): [True, True, False, False, False]}
    assert notes(run("number", "certificate_number", ruined)) == {}, "a licence is named by its holder, judged there"


def test_amounts_become_number_and_currency_or_are_flagged() -> None:
    result = run("amount", "attributes.registered_capital", ["1,000(万元人民币)", "30万美元", "示例人名", "10"])
    found = result.columns["attributes.registered_capital"].to_pylist()
    assert found[0] == {"amount": Decimal("10000000.0000"), "currency": "CNY"}
    assert found[1]["currency"] == "USD"
    assert found[2] is None
    assert notes(result) == {
        ("flag", "registered-capital-unreadable"): [False, False, True, False],
        ("flag", "registered-capital-missing-currency"): [False, False, False, True],
    }


def test_plain_numbers_and_truth() -> None:
    assert run("integer", "n", ["1,000", "x", None]).columns["n"].to_pylist() == [1000, None, None]
    assert run("decimal", "n", ["1.25"]).columns["n"].to_pylist() == [Decimal("1.2500")]
    assert notes(run("integer", "n", ["9" * 30])) == {("flag", "n-unreadable"): [True]}
    result = run("boolean", "b", ["是", "0", "?", None])
    assert result.columns["b"].to_pylist() == [True, False, None, None]
    assert notes(result) == {("flag", "b-unreadable"): [False, False, True, False]}


def test_codes_become_words_and_unlisted_ones_are_flagged() -> None:
    result = run("code", "attributes.sex", ["1", "女", "?", None], parameter="sex")
    assert result.columns["attributes.sex"].to_pylist() == ["男", "女", None, None]
    assert notes(result) == {("flag", "sex-unlisted"): [False, False, True, False]}


@pytest.mark.parametrize("parameter", ["resident-status", None])
def test_an_unknown_status_quarantines(parameter: str | None) -> None:
    result = run("status", "status", ["in_force", "不明", None], parameter=parameter)
    assert result.columns["status"].to_pylist() == ["in_force", None, None]
    assert notes(result) == {("error", "status:unlisted"): [False, True, False]}


def test_region_of_an_organisation_is_in_its_identifier() -> None:
    given = [GOOD, "９１３１０２３０ｍａ1xky003x", "913205945502319700", "320506NA000043X", "企合苏镇分字第2005", None]
    result = run("region", "region", given, parameter="organisation")
    assert result.columns["region"].to_pylist() == ["310117", "310230", "320594", "320506", "310000", "310000"]
    assert notes(result) == {
        ("flag", "region-retired"): [False, True, False, False, False, False],
        ("flag", "region-unlisted"): [False, False, True, False, False, False],
    }


def test_region_codes_of_six_nine_or_twelve_digits() -> None:
    result = run("region", "region", ["511602000000", "310115", "310115001", "5116", None])
    assert result.columns["region"].to_pylist() == ["511602", "310115", "310115", "310000", "310000"]
    assert notes(result) == {("flag", "region-unreadable"): [False, False, False, True, False]}


def test_organisations_are_told_apart_and_judged() -> None:
    given = [GOOD, "310117000123452", "91310117MA1XKY0019", "3.10E+17", None, "91350211M0000XUF46"]
    result = run("organisation", "holder.holder", given)
    assert result.columns["holder.holder.scheme"].to_pylist()[:2] == ["cn.uscc", "cn.regno"]
    assert result.columns["holder.holder.value"].to_pylist()[:2] == given[:2]
    assert result.columns["holder.holder.scheme"].to_pylist()[4] is None
    found = notes(result)
    assert found["error", "holder.holder:check-digit"] == [False, False, True, False, False, False]
    assert found["reject", "holder.holder:unrecoverable"] == [False, False, False, True, False, False]
    assert found["error", "holder.holder:missing"] == [False, False, False, False, True, False]
    assert found["flag", "holder.holder:early-pilot-batch"] == [False, False, False, False, False, True]
    assert len(found) == 4


def test_a_scheme_the_role_does_not_take_is_an_error() -> None:
    result = run("person", "holder.holder", ["830000199001010012"], entity="household-register")
    assert result.columns["holder.holder.scheme"].to_pylist() == ["cn.permit"]
    assert notes(result) == {("error", "holder.holder:scheme-not-accepted"): [True]}
    assert notes(run("person", "holder.holder", ["830000199001010012"], entity="resident-id-card")) == {}


def test_an_optional_holder_may_be_missing() -> None:
    assert notes(run("person", "holder.father", [None], entity="birth-certificate")) == {}
    assert list(notes(run("person", "holder.mother", [None], entity="birth-certificate"))) == [
        ("error", "holder.mother:missing")
    ]


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_no_rows_are_no_trouble(name: str) -> None:
    parameter = {"code": "sex"}.get(name)
    entity = "resident-id-card" if name == "person" else ""
    target = "holder.holder" if REGISTRY[name].kind is None else "status"
    result = run(name, target, [], parameter=parameter, entity=entity)
    assert all(len(column) == 0 for column in result.columns.values())
    assert result.notes == []


def test_person_by_the_kind_of_number() -> None:
    target = "holder.insured"
    numbers = ["310104620927690", "ea1234567", "830000199001010012", "911331198505050023", "12", "3.10E+17", None, "1"]
    kinds = ["01", "02", "03", "04", "02", "01", None, "01"]
    result = run("person", target, numbers, kinds, parameter="id-type", entity="social-insurance-record")
    assert result.columns[f"{target}.scheme"].to_pylist()[:4] == ["cn.ric", "passport", "cn.permit", "cn.fpr"]
    assert result.columns[f"{target}.value"].to_pylist()[:4] == [
        "310104196209276907", "EA1234567", "830000199001010012", "911331198505050023",
    ]  # fmt: skip
    found = {code: [place for place, hit in enumerate(mask) if hit] for (_, code), mask in notes(result).items()}
    assert found[f"{target}:unrecoverable"] == [5]
    assert found[f"{target}:missing"] == [6]
    assert found[f"{target}:length"] == [4, 7]


def test_a_number_without_kind_or_of_a_kind_not_listed_is_not_guessed_at() -> None:
    target = "holder.insured"
    result = run("person", target, [STANDARD] * 2, ["09", None], parameter="id-type", entity="social-insurance-record")
    assert notes(result) == {
        ("error", f"{target}:type-unlisted"): [True, False],
        ("error", f"{target}:type-missing"): [False, True],
    }


def test_the_kind_of_number_says_whether_a_person_or_an_organisation_holds() -> None:
    values, kinds = [STANDARD, GOOD, "310117000123452", None], ["身份证", "统一社会信用代码", "统一社会信用代码", None]
    for transform, role, schemes in (
        ("person", "holder.owner_person", ["cn.ric", None, None, None]),
        ("organisation", "holder.owner_organisation", [None, "cn.uscc", "cn.regno", None]),
    ):
        result = run(transform, role, values, kinds, parameter="id-type", entity="real-estate-title")
        assert result.columns[f"{role}.scheme"].to_pylist() == schemes
        assert [note for note in result.notes if note.severity != "flag"] == []
