"""Suites are judged before any data."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from connectors import source as sources
from connectors.errors import FatalError
from mappings import model
from quality import suite

LICENCE = model.load("business-licence")


def checks(tmp_path: Path, *written: dict[str, object]) -> Path:
    path = tmp_path / "checks.yml"
    path.write_text(yaml.safe_dump({"checks": list(written)}, allow_unicode=True), encoding="utf-8")
    return path


def check(**changed: object) -> dict[str, object]:
    one = {"expect": "expect_column_values_to_not_be_null", "column": "name", "severity": "warn", "reason": "name-none"}
    return {key: value for key, value in (one | changed).items() if value is not None}


def test_every_source_has_a_suite_with_its_own_checks_on_top() -> None:
    found = sources.all_sources()
    assert len(found) >= 8
    for source in found:
        own = suite.load(source)
        entity = suite.of(model.load(source.entity))
        assert own.checks[: len(entity.checks)] == entity.checks
        assert len(own.checks) > len(entity.checks) >= 8


def test_business_licences_have_ten_expectations_and_both_severities() -> None:
    written = suite.of(LICENCE).checks
    assert len({(one.name, one.columns()) for one in written}) >= 10
    assert {one.severity for one in written} == {"fail", "warn"}


def test_the_model_alone_gives_a_suite_to_a_material_without_a_file() -> None:
    material = model.load("premises-proof")
    assert not (suite.SUITES / f"{material.code}.yml").exists(), "this needs a material without a suite"
    found = suite.of(material)
    assert {"status-missing", "holder-scheme"} <= {one.reason for one in found.checks}
    assert "natural-key-missing" in {one.reason for one in found.checks}


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (check(expect="expect_column_values_to_be_nice"), "unknown or not row-wise"),
        (check(expect="expect_table_row_count_to_be_between"), "unknown or not row-wise"),
        (check(column="attributes.colour"), "no column attributes.colour"),
        (check(column="attributes.registered_capital"), "no column attributes.registered_capital"),
        (check(severity="error"), "severity"),
        (check(reason="Not Stable"), "reason"),
        (check(reason=None), "reason"),
        (check(mostly=0.9), "takes no argument mostly"),
        (check(column=None), "name `column`"),
        (check(expect="expect_column_values_to_match_regex", regex="("), "not a regular expression"),
        (check(expect="expect_column_pair_values_to_be_equal"), "for a pair"),
    ],
)
def test_a_faulty_check_is_refused(tmp_path: Path, written: dict[str, object], reason: str) -> None:
    path = checks(tmp_path, written)
    with pytest.raises(FatalError) as caught:
        suite.of(LICENCE, path)
    assert caught.value.code == "suite-invalid"
    assert reason in caught.value.message("en")
    assert str(path) in caught.value.message("en")


def test_class_names_are_as_good_as_snake_case(tmp_path: Path) -> None:
    path = checks(tmp_path, check(expect="ExpectColumnValuesToNotBeNull"))
    assert suite.of(LICENCE, path).checks[-1].name == "expect_column_values_to_not_be_null"
    pair = "ExpectColumnPairValuesAToBeGreaterThanB"
    assert suite.snake(pair) == "expect_column_pair_values_a_to_be_greater_than_b"


def test_the_digest_follows_the_checks_of_rows_only(tmp_path: Path) -> None:
    plain = suite.of(LICENCE, checks(tmp_path, check())).digest()
    assert suite.of(LICENCE, checks(tmp_path, check(severity="fail"))).digest() != plain
    path = checks(tmp_path, check())
    path.write_text(path.read_text(encoding="utf-8") + "batch: {max_bad_share: 0.1}\n", encoding="utf-8")
    changed = suite.of(LICENCE, path)
    assert changed.batch.max_bad_share == 0.1
    assert changed.digest() == plain


def test_the_whole_contract_changes_with_the_entity_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sources.load("sh-amr-enterprises")
    before = suite.contract_digest(source)
    monkeypatch.setattr(suite, "SUITES", tmp_path)
    assert suite.contract_digest(source) != before
