"""The catalogue: authored items, and those the pipeline loaded."""

from __future__ import annotations

import datetime as dt

import pytest
import sqlalchemy as sa

from connectors.errors import UsageError
from hub import catalogue
from tests import stored

DAY = dt.date(2026, 1, 1)


def test_both_kinds_are_found(store: sa.Engine) -> None:
    stored.source(store, "sc-guangan-items", "service-item", region="511602")
    stored.holding(
        store, "sc-guangan-items", "service-item", number="511Z07001006-511602000000", name="项目备案", region="511602"
    )
    with store.connect() as connection:
        assert catalogue.find(connection, "demo-food-permit", DAY).code == "demo-food-permit"
        found = catalogue.listed(connection, "511Z07001006-511602000000")
        assert found == catalogue.Listed("511Z07001006-511602000000", "项目备案", "511602")
        assert catalogue.listed(connection, "511Z07001006") is None
        for code, problem in (("511Z07001006-511602000000", "item-without-requirements"), ("demo-none", "item-unknown"),
                              ("\0", "item-unknown")):  # fmt: skip
            with pytest.raises(UsageError) as caught:
                catalogue.find(connection, code, DAY)
            assert caught.value.code == problem
        with pytest.raises(UsageError) as caught:
            catalogue.find(connection, "demo-food-permit", dt.date(2023, 11, 30))
        assert caught.value.code == "item-not-in-force"


def test_a_certificate_with_that_number_is_no_item(store: sa.Engine) -> None:
    stored.source(store, "sh-amr-enterprises", "business-licence")
    stored.holding(
        store, "sh-amr-enterprises", "business-licence", ("holder", "cn.uscc", stored.LICENCE_CODE), number="X-1"
    )
    with store.connect() as connection:
        assert catalogue.listed(connection, "X-1") is None


def test_an_item_is_described_in_one_language() -> None:
    item = catalogue.published()["demo-food-permit"]
    zh, en = catalogue.described(item, "zh"), catalogue.described(item, "en")
    assert (zh["item_name"], en["item_name"]) == ("食品经营许可（设立）", "Food business permit (new)")
    assert [entry["requirement"] for entry in zh["requirements"]] == [
        entry["requirement"] for entry in en["requirements"]
    ]
    assert en["facts"]["legal_representative_in_person"]["type"] == "boolean"
    assert en["invented"] is True


@pytest.mark.parametrize("code", ["demo-publication-retail", "511A0138000000", "legal_representative_in_person"])
def test_codes_are_shown(code: str) -> None:
    assert catalogue.shown(code) == code


@pytest.mark.parametrize(
    "code", [stored.LICENCE_CODE, stored.RESIDENT, stored.RESIDENT.lower(), "x" * 90, "a\nb", "张三", ""]
)
def test_what_could_name_somebody_is_not(code: str) -> None:
    assert catalogue.shown(code) == "…"
