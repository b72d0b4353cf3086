"""Division codes: names, status, successors; the list against the data it was made from."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mappings import regions


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("310115", "listed"),
        ("310119", "retired"),  # 南汇区, merged into 浦东新区
        ("320594", "unlisted"),  # a development zone
        ("120110", "listed"),  # renamed: still in force
        ("310000", "listed"),
        ("100000", "unlisted"),
        ("99", "unlisted"),
    ],
)
def test_status(code: str, status: str) -> None:
    assert regions.status(code) == status


def test_in_force_in_a_year() -> None:
    assert regions.in_force("310230", 1950), "a code of 1981 may be older"
    assert not regions.in_force("310230", 2017)
    assert not regions.in_force("310115", 1991) and regions.in_force("310115", 1992)
    assert not regions.in_force("320594", 2000)


def test_names() -> None:
    assert regions.name("310115") == "浦东新区"
    assert regions.name("120110") == "东丽区"
    assert regions.name("120110", 1985) == "东郊区"
    assert regions.name("320594") is None
    assert regions.full_name("330106") == "浙江省杭州市西湖区"
    assert regions.full_name("310115") == "上海市浦东新区"
    assert regions.full_name("310000") == "上海市"
    assert regions.full_name("999999") is None


def test_successors() -> None:
    assert regions.successors("310119") == ("310115",)
    assert regions.successors("310115") == ()
    assert regions.current("310225") == ("310115",), "南汇县 became 南汇区, which became a part of 浦东新区"
    assert regions.current("310115") == ("310115",)
    assert regions.current("320594") == ()
    assert set(regions.current("310221")) == {"310112", "310115"}


def test_every_successor_is_listed_and_every_chain_ends() -> None:
    for code, named in regions.entries().items():
        regions.current(code)
        for entry in named:
            assert all(heir in regions.entries() for heir in (*entry.successors, *(to for to, _ in entry.transfers)))


def test_delta() -> None:
    assert regions.is_delta("320594") and not regions.is_delta("110000")


def test_provinces() -> None:
    assert len(regions.provinces()) == 34
    assert {"31", "32", "33", "34", "71", "81", "82"} <= regions.provinces()


def test_tables_equal_the_functions() -> None:
    statuses, years = regions.tables()
    for code in (*regions.entries(), "320594", "000000", "999999"):
        assert regions.STATUSES[statuses[int(code)]] == regions.status(code)
        assert years[int(code)] == regions.first_year(code)
    assert int((statuses > 0).sum()) == len(regions.entries())


def test_list_holds_what_its_source_holds(shared_data: Path) -> None:
    with open(shared_data / "regions" / "division_codes_1981_2025.csv", encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == sum(len(named) for named in regions.entries().values()) == 6823
    for row in rows:
        matching = [
            entry
            for entry in regions.entries()[row["代码"]]
            if entry.name == row["名称"]
            and str(entry.from_year or regions.LIST_BEGINS) == row["启用时间"]
            and str(entry.to_year or "") == row["变更/弃用时间"]
        ]
        assert len(matching) == 1
        assert len(matching[0].successors) + len(matching[0].transfers) == len(row["新代码"].split(";")) - (
            not row["新代码"]
        )
        assert ([*regions.entries()[row["代码"]]][-1] is matching[0]) or matching[0].to_year is not None
