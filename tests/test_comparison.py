"""hub/comparison.py: where lists disagree about what goes by one basic code, and only there."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
import sqlalchemy as sa

from connectors import source as sources
from connectors.errors import UsageError
from hub import comparison, pipeline, verify
from tests import stored

SOURCE = "cn-egov-items"
DAY = dt.date(2026, 11, 1)
BASIC = "0000DEMO0010"
COLUMNS = {
    "基本编码": "basic_code",
    "事项类型": "item_type",
    "行使层级": "level",
    "设定依据": "legal_basis",
    "申请材料": "materials",
}


def listed(store: sa.Engine, row: dict[str, str]) -> None:
    """One row of an implementation list, as the pipeline keeps it."""
    key = stored.holding(
        store, SOURCE, "service-item", number=row["实施编码"], name=row["事项名称"], region=row["行政区划代码"],
        valid_from=row["生效日期"] or None, valid_to=row["失效日期"] or None,
    )  # fmt: skip
    attributes = {name: row[column] for column, name in COLUMNS.items() if row[column]}
    with store.begin() as connection:
        connection.execute(
            sa.text(
                """UPDATE mapped_row SET document = jsonb_set(cast(document AS jsonb), '{attributes}', cast(:said AS jsonb))
                WHERE holding = decode(:key, 'hex')"""
            ),
            {"said": json.dumps(attributes), "key": key},
        )


@pytest.fixture
def lists(store: sa.Engine) -> sa.Engine:
    """A store with what the sample of three provinces' lists brought through the pipeline."""
    run = pipeline.run(SOURCE, input=sources.load(SOURCE).folder / "sample" / "input.csv")
    assert (run["state"], run["accepted"]) == ("merged", 6)
    return store


def compare(store: sa.Engine, basic_code: str | None = None, on: dt.date = DAY) -> dict[str, Any]:
    with store.connect() as connection:
        return comparison.compare(connection, on, basic_code)


def fields(item: dict[str, Any]) -> dict[str, dict[str, list[str]]]:
    return {
        each["field"]: {value["value"]: value["regions"] for value in each["values"]} for each in item["differences"]
    }


def test_every_kind_of_disagreement_is_found(lists: sa.Engine) -> None:
    found = compare(lists, BASIC)
    assert found["compared"] == 1
    [item] = found["items"]
    assert [entry["region"] for entry in item["entries"]] == ["310000", "320000", "330000", "340000"]
    said = fields(item)
    assert said["name"] == {"公司(企业)设立登记": ["330000"], "公司设立登记": ["310000", "320000", "340000"]}
    assert said["type"] == {"行政确认": ["310000", "320000", "330000"], "行政许可": ["340000"]}
    assert [regions for text, regions in said["basis"].items() if "公司法" in text] == [["340000"]]
    # The order of materials in a list is none of their meaning.
    assert said["materials"] == {
        "不动产权证书；公司章程；居民身份证": ["310000", "320000", "330000"],
        "不动产权证书；公司章程；居民身份证；授权委托书": ["340000"],
    }
    assert "code" not in said
    # A code that does not carry its basic code.
    [item] = [item for item in compare(lists)["items"] if item["basic_code"] == "0000DEMO0003"]
    assert fields(item)["code"] == {"0000DEMO0099": ["330000"]}
    # One name under several basic codes.
    [shared] = compare(lists)["same_name"]
    assert shared["name"] == "老年人优待证办理"
    assert shared["basic_codes"] == ["0000DEMO0005", "0000DEMO0077"]
    assert compare(lists, BASIC)["same_name"] == []
    assert verify.verify().differences == ()
    # Beyond the dates in force of a list it is not compared.
    assert compare(lists, on=dt.date(2031, 1, 1))["same_name"] == []


def test_lists_that_agree_or_say_nothing_do_not_disagree(store: sa.Engine) -> None:
    assert compare(store)["items"] == []
    stored.source(store, SOURCE, "service-item", region="100000")
    silent = dict.fromkeys(("事项类型", "行使层级", "设定依据", "申请材料", "失效日期"), "")
    same = {
        **silent,
        "基本编码": BASIC,
        "实施编码": "x-1",
        "事项名称": " 公司设立 登记",
        "行政区划代码": "320000",
        "生效日期": "2022-01-01",
    }
    listed(store, same)
    listed(
        store,
        {**same, "实施编码": "x-2", "事项类型": "7", "设定依据": "《中华人民共和国市场主体登记管理条例》 第十六条"},
    )
    found = compare(store, BASIC)
    assert (found["compared"], found["entries"], found["items"]) == (1, 3, [])


def test_requirements_without_a_basis_are_reported_and_unknown_codes_refused(store: sa.Engine) -> None:
    found = {(each["item"], each["requirement"]) for each in compare(store)["without_basis"]}
    assert ("demo-home-transfer", "marriage") in found
    later = {(each["item"], each["requirement"]) for each in compare(store, on=dt.date(2027, 7, 1))["without_basis"]}
    assert found - later == {("demo-home-transfer", "marriage")}, "the next version does not ask for it any more"
    assert compare(store, BASIC)["without_basis"] == []
    for code in ("0000DEMO9999", "110105194912310021"):
        with pytest.raises(UsageError) as caught:
            compare(store, code)
        assert caught.value.code == "basic-code-unknown"
        assert "1949" not in str(caught.value.values)
