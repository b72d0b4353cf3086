"""mappings/hints.py: what a column's name sounds like."""

from __future__ import annotations

import pytest

from mappings import hints, model


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("更新时间", "gxsj"),
        ("行政区划", "xzqh"),
        ("公民身份号码", "gmsfhm"),
        ("与户主关系", "yhzgx"),
        ("A证", "az"),
        ("", ""),
    ],
)
def test_initials(text: str, short: str) -> None:
    assert hints.initials(text) == short


@pytest.mark.parametrize(
    ("column", "target"),
    [
        ("gxsj", "updated_at"), ("updated_at", "updated_at"), ("updatedAt", "updated_at"), ("xzqh", "region"),
        ("areaCode", "region"), ("qfrq", "issued_on"), ("certificate.awarded_on", "issued_on"), ("yxqz", "valid_to"),
        ("yxqq", "valid_from"), ("zt", "status"), ("登记/证号", "certificate_number"), ("djzh", "certificate_number"),
        ("权利人/证件号码", "holder.value"), ("holder.id.number", "holder.value"), ("qfjg", "issuer_name"),
        ("统一社会信用代码", "holder.organisation"), ("权利人/证件种类", "-"),
    ],
)  # fmt: skip
def test_a_column_sounds_most_like_its_field(column: str, target: str) -> None:
    scores = {name: hints.likeness(column, words) for name, words in hints.words().items()}
    assert max(scores, key=lambda name: scores[name]) == target and scores[target] >= 0.5


@pytest.mark.parametrize("column", ["memo", "bz", "电话", "x1", ""])
def test_a_column_that_is_nothing_sounds_like_nothing(column: str) -> None:
    assert max(hints.likeness(column, words) for words in hints.words().values()) < 0.5


def test_the_words_are_about_fields_that_exist() -> None:
    known = {*model.ENVELOPE, "holder.value", "holder.name", "holder.organisation", "-"}
    known |= {f"attributes.{name}" for one in model.all_entities() for name in one.attributes}
    assert set(hints.words()) <= known
    assert all(words and all(words) for words in hints.words().values())
