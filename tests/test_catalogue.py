"""The catalogue: authored items, and those the pipeline loaded."""

from __future__ import annotations

import datetime as dt

import pytest
import sqlalchemy as sa

from connectors.errors import UsageError
from hub import catalogue
from mappings.items import InForce, Item
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
        assert catalogue.find(connection, "demo-elder-paper-card", dt.date(2019, 12, 31)).version == 1
        with pytest.raises(UsageError) as caught:
            catalogue.find(connection, "demo-elder-paper-card", dt.date(2020, 1, 1))
        assert (caught.value.code, caught.value.values["successor"]) == ("item-retired", "demo-elder-card")
        for day, version in ((DAY, 1), (dt.date(2027, 6, 30), 1), (dt.date(2027, 7, 1), 2)):
            assert catalogue.find(connection, "demo-home-transfer", day).version == version


def test_a_successor_that_is_retired_by_then_hands_on_to_its_own(
    store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2020 ended a, its successor b ended 2023, whose is c."""
    card = catalogue.published()["demo-elder-card"][0]

    def until(code: str, last: str | None, successor: str | None) -> tuple[Item, ...]:
        in_force = InForce.model_validate({"from": "2010-01-01", "to": last})
        return (card.model_copy(update={"code": code, "in_force": in_force, "successor": successor}),)

    known = {"a": until("a", "2020-12-31", "b"), "b": until("b", "2023-12-31", "c"), "c": until("c", None, None)}
    monkeypatch.setattr(catalogue, "published", lambda: known)
    for day, successor in (("2021-01-01", "b"), ("2023-12-31", "b"), ("2024-01-01", "c")):
        with store.connect() as connection:
            [said] = catalogue.summaries(connection, ["a"], dt.date.fromisoformat(day), "en")
            assert (said["state"], said["successor"]) == ("retired", successor)
            with pytest.raises(UsageError) as caught:
                catalogue.find(connection, "a", dt.date.fromisoformat(day))
        assert caught.value.values["successor"] == successor


def test_a_certificate_with_that_number_is_no_item(store: sa.Engine) -> None:
    stored.source(store, "sh-amr-enterprises", "business-licence")
    stored.holding(
        store, "sh-amr-enterprises", "business-licence", ("holder", "cn.uscc", stored.LICENCE_CODE), number="X-1"
    )
    with store.connect() as connection:
        assert catalogue.listed(connection, "X-1") is None


def test_an_item_is_described_in_one_language() -> None:
    item = catalogue.published()["demo-food-permit"][-1]
    zh, en = catalogue.described(item, "zh"), catalogue.described(item, "en")
    assert (zh["item_name"], en["item_name"]) == ("食品经营许可（设立）", "Food business permit (new)")
    assert [entry["requirement"] for entry in zh["requirements"]] == [
        entry["requirement"] for entry in en["requirements"]
    ]
    assert en["facts"]["legal_representative_in_person"]["type"] == "boolean"
    assert en["invented"] is True


def test_a_description_says_when_what_is_needed_and_what_may_wait() -> None:
    item = catalogue.described(catalogue.published()["demo-pension-transfer"][-1], "en")
    found = {entry["requirement"]: entry for entry in item["requirements"]}
    assert found["identity"]["condition"] is None and found["identity"]["deferral"] is None
    assert found["insurance-zhejiang"]["condition"].endswith(": Zhejiang")
    assert found["insurance-zhejiang"]["options"] == [
        [{"material": "social-insurance-record", "holder": "applicant", "region": "33"}]
    ]
    deferral = found["insurance-elsewhere"]["deferral"]
    assert (deferral["kind"], deferral["within_days"]) == ("later", 45) and "Art. 16" in deferral["basis"]
    promised = catalogue.described(catalogue.published()["demo-company-establishment"][-1], "zh")["requirements"][2]
    assert (promised["deferral"]["kind"], promised["deferral"]["within_days"]) == ("promise", None)


def test_a_bundle_stands_for_its_items() -> None:
    newborn = catalogue.bundled()["newborn"].items
    assert catalogue.expand(["newborn"]) == newborn
    assert catalogue.expand(["demo-elder-card", newborn[1], "newborn", "demo-elder-card", "unknown"]) == (
        "demo-elder-card", newborn[1], newborn[0], newborn[2], "unknown",
    )  # fmt: skip
    assert catalogue.expand([]) == ()


@pytest.mark.parametrize("code", [
    "demo-publication-retail", "511A0138000000", "legal_representative_in_person", "newborn", "demo-form-2024",
    "0000DEMO0010", "000125001000", "11320000DEMO00000120000DEMO0010", "11370800MB285591843370117002011",
])  # fmt: skip
def test_codes_are_shown(code: str) -> None:
    assert catalogue.shown(code) == code


@pytest.mark.parametrize(
    "code",
    [
        stored.LICENCE_CODE,
        stored.RESIDENT,
        stored.RESIDENT.lower(),
        "x" * 90,
        "a\nb",
        "张三",
        "",
        "13812345678",
        "138-1234-5678",
        "tel-138-1234-5678",
        "86-13812345678",
        "8613812345678",
        "008613812345678",
        "021-62345678",
        "057187654321",
        "62345678",
        "E12345678",
        "e12345678",
        "EA1234567",
        "G-12345678",
        "C01X00T47",
        "H12345678",
        "H1234567890",
        "CHN310112345678",
        "310101199003071",
        "12345",
        "A12345678901",
        "M1234567(8)",
    ],
)
def test_what_could_name_somebody_is_not(code: str) -> None:
    assert catalogue.shown(code) == "…"
