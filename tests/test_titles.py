"""demo/titles.py and demo/spreadsheet.py: workbooks as a registry exports them."""

from __future__ import annotations

import datetime as dt
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from python_calamine import CalamineWorkbook

from demo import titles
from demo.spreadsheet import Sheet
from tests import synthetic


def sheet(path: Path) -> list[list[Any]]:
    return CalamineWorkbook.from_path(path).get_sheet_by_index(0).to_python()


def rows() -> dict[tuple[str, int], dict[str, Any]]:
    found = {}
    for path in sorted((synthetic.folder() / "mnr").glob("titles-*.xlsx")):
        name = path.relative_to(synthetic.folder()).as_posix()
        for number, values in enumerate(sheet(path)[2:], start=3):
            found[name, number] = dict(zip(titles.COLUMNS, values, strict=True))
    return found


def test_header_of_two_lines_with_merged_cells() -> None:
    path = synthetic.folder() / "mnr/titles-0001.xlsx"
    upper, lower, *_ = sheet(path)
    assert upper == ["登记", "", "", "权利人", "", "", "不动产", "", "", "", "备注"]
    assert lower == [
        "证号",
        "登记日期",
        "状态",
        "姓名",
        "证件种类",
        "证件号码",
        "单元号",
        "坐落",
        "行政区划",
        "面积(㎡)",
        "",
    ]
    merged = CalamineWorkbook.from_path(path).get_sheet_by_index(0).merged_cell_ranges
    assert merged == [((0, 0), (0, 2)), ((0, 3), (0, 5)), ((0, 6), (0, 9)), ((0, 10), (1, 10))]


def test_what_is_true_stands_in_its_row() -> None:
    written = rows()
    forms: Counter[str] = Counter()
    owners: Counter[str] = Counter()
    for row in synthetic.certificates(titles.MATERIAL):
        found = written[row["file"], row["row"]]
        day = found[titles.DAY]
        forms[type(day).__name__] += 1
        assert _day(day) == row["valid_from"] and found[titles.NUMBER] == row["identifier"]
        assert titles.HOLDING[titles.STATES.index(found[titles.STATE])] == row["status"]
        if row["dirt"] is None:
            scheme, _, value = row["holders"][0].partition(":")
            owners[f"{found[titles.TYPE]} {scheme} {len(found[titles.ID])}"] += 1
            assert found[titles.ID] in (value, value[:6] + value[8:17])
            assert isinstance(found[titles.AREA], float) and 15 < found[titles.AREA] < 1000
    assert forms["date"] > 8 * forms["float"] > 8 * forms["str"] > 0
    assert {"身份证 cn.ric 18", "身份证 cn.ric 15", "护照 passport 9", "统一社会信用代码 cn.uscc 18"} <= set(owners)
    assert len(written) == len({found[titles.NUMBER] for found in written.values()}) + sum(
        row["verdict"] == "repeated" for row in synthetic.truth("dirt") if row["file"].startswith("mnr/")
    )


def test_identifiers_that_became_numbers_are_noted() -> None:
    written = rows()
    notes = [row for row in synthetic.truth("dirt") if row["file"].startswith("mnr/")]
    ruined = {place for place, row in written.items() if isinstance(row[titles.ID], float)}
    assert ruined == {(row["file"], row["row"]) for row in notes if row["kind"] == "number-cell"} and ruined
    assert all(1e17 < written[place][titles.ID] < 7e17 for place in ruined)
    assert {row["kind"] for row in notes} == {kind.name for kind in titles.DIRT}
    for row in notes:
        found = written[row["file"], row["row"]]
        if row["kind"] == "repeated-row":
            assert found == written[row["file"], row["row"] - 1]
        if row["kind"] == "full-width-digits":
            assert re.search("[０-９]", found[titles.ID])


def test_a_workbook_is_the_same_bytes_whenever_made(tmp_path: Path) -> None:
    form = Sheet("甲", ("a/b", "a/c", "d"), days=("a/b",), numbers=("a/c",))
    table = pa.table({"a/b": ["2024-02-29", "45123", "待定"], "a/c": ["1", "2.5", "3"], "d": ["<&>", "", " x "]})
    made = []
    for name in ("one.xlsx", "two.xlsx"):
        book = form.open(tmp_path / name)
        book.write(table, lambda lines: lines, np.array([0, 1, 1, 2]), np.arange(3, 7))
        book.close()
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]
    assert sheet(tmp_path / "one.xlsx")[2:] == [
        [dt.date(2024, 2, 29), 1.0, "<&>"], [45123.0, 2.5, ""], [45123.0, 2.5, ""], ["待定", 3.0, " x "]]  # fmt: skip
    with zipfile.ZipFile(tmp_path / "one.xlsx") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.testzip() is None


def _day(cell: Any) -> dt.date:
    if isinstance(cell, float):
        return dt.date(1899, 12, 30) + dt.timedelta(days=cell)
    if isinstance(cell, str):
        return dt.date(*map(int, re.fullmatch(r"(\d{4})\D?(\d\d)\D?(\d\d)\D?", cell).groups()))  # type: ignore[union-attr]
    assert isinstance(cell, dt.date)
    return cell
