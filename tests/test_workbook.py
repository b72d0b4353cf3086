"""connectors/workbook.py: what a spreadsheet shows becomes text, by the rules of its docstring."""

from __future__ import annotations

import datetime as dt
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import xlsxwriter

from connectors import workbook
from connectors.block import Block
from connectors.errors import FatalError
from connectors.landing import Landing
from connectors.source import FilesOptions

Fill = Callable[[Any], None]


def book(*sheets: tuple[str, Fill], **options: Any) -> bytes:
    stream = io.BytesIO()
    with xlsxwriter.Workbook(stream, {"in_memory": True, **options}) as made:
        made.date = made.add_format({"num_format": "yyyy-mm-dd"})
        made.moment = made.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        made.time = made.add_format({"num_format": "hh:mm"})
        made.span = made.add_format({"num_format": "[h]:mm:ss"})
        for name, fill in sheets:
            sheet = made.add_worksheet(name)
            sheet.book = made
            fill(sheet)
    return stream.getvalue()


def one(fill: Fill, **options: Any) -> bytes:
    return book(("一", fill), **options)


def read(content: bytes, header_rows: int = 1, sheet: str | None = None, block_rows: int = 65536) -> list[Block]:
    options = FilesOptions(format="xlsx", pattern="*.xlsx", header_rows=header_rows, sheet=sheet)
    return list(workbook.blocks(lambda: io.BytesIO(content), "x.xlsx", options, block_rows))


def refusal(content: bytes, header_rows: int = 1, sheet: str | None = None) -> FatalError:
    with pytest.raises(FatalError) as caught:
        read(content, header_rows, sheet)
    assert "x.xlsx" in caught.value.message("zh")
    return caught.value


def cell(write: Fill) -> str | None:
    """What one cell, written at (1, 0) of a sheet by ``write``, becomes."""

    def fill(sheet: Any) -> None:
        sheet.write_row(0, 0, ["v", "w"])
        write(sheet)
        sheet.write(1, 1, "x")

    (block,) = read(one(fill))
    (value,) = block.table["v"].to_pylist()
    return value


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda s: s.write_string(1, 0, " 甲 "), " 甲 "),
        (lambda s: s.write_string(1, 0, "310101199003071234"), "310101199003071234"),
        (lambda s: s.write_number(1, 0, 12), "12"),
        (lambda s: s.write_number(1, 0, -3), "-3"),
        (lambda s: s.write_number(1, 0, 89.25), "89.25"),
        (lambda s: s.write_number(1, 0, 0.1 + 0.2), "0.3"),
        (lambda s: s.write_number(1, 0, 45123), "45123"),
        (lambda s: s.write_number(1, 0, 999_999_999_999_999), "999999999999999"),
        (lambda s: s.write_number(1, 0, 310101199003071234), "3.10E+17"),
        (lambda s: s.write_number(1, 0, 1e15), "1.00E+15"),
        (lambda s: s.write_datetime(1, 0, dt.datetime(2020, 1, 2), s.book.date), "2020-01-02"),
        (lambda s: s.write_datetime(1, 0, dt.datetime(2020, 1, 2, 3, 4, 5), s.book.moment), "2020-01-02 03:04:05"),
        (lambda s: s.write_number(1, 0, 61, s.book.date), "1900-03-01"),
        (lambda s: s.write_number(1, 0, 0.5, s.book.time), "12:00:00"),
        (lambda s: s.write_number(1, 0, 1.5, s.book.span), "36:00:00"),
        (lambda s: s.write_boolean(1, 0, True), "true"),
        (lambda s: s.write_formula(1, 0, "=1+1", None, 2), "2"),
        (lambda s: s.write_formula(1, 0, "=NA()", None, "#N/A"), None),
        (lambda s: s.write_formula(1, 0, "=A99", None, "#REF!"), None),
        (lambda s: s.write_string(1, 0, ""), None),
        (lambda s: None, None),
    ],
)
def test_cells(write: Fill, expected: str | None) -> None:
    assert cell(write) == expected


def test_a_column_of_mixed_kinds_keeps_its_order() -> None:
    def fill(sheet: Any) -> None:
        sheet.write_row(0, 0, ["v", "n"])
        for row, value in enumerate(["a", 1, dt.date(2020, 1, 2), True, None, "b", 2.5], start=1):
            if isinstance(value, dt.date):
                sheet.write_datetime(row, 0, value, sheet.book.date)
            elif value is not None:
                sheet.write(row, 0, value)
            sheet.write(row, 1, row)

    (block,) = read(one(fill))
    assert block.table["v"].to_pylist() == ["a", "1", "2020-01-02", "true", None, "b", "2.5"]
    assert block.table["n"].to_pylist() == list("1234567")
    assert block.table["_row"].to_pylist() == [2, 3, 4, 5, 6, 7, 8]


def two_lines(sheet: Any, top: int = 0, left: int = 0) -> None:
    """The header of the real-estate registry: groups merged above, a note merged over both lines."""
    for first, last, text in ((0, 2, "登记"), (3, 4, "权利人")):
        sheet.merge_range(top, left + first, top, left + last, text)
    sheet.merge_range(top, left + 5, top + 1, left + 5, "备注")
    sheet.write_row(top + 1, left, ["证号", "登记\n日期", "状态", "姓名", " 证件号码"])
    sheet.write_row(top + 2, left, ["1", "2", "3", "4", "5", "6"])


NAMES = ["登记/证号", "登记/登记日期", "登记/状态", "权利人/姓名", "权利人/证件号码", "备注", "_row"]


@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 2)])
def test_merged_headers_are_flattened_wherever_the_table_stands(top: int, left: int) -> None:
    (block,) = read(one(lambda sheet: two_lines(sheet, top, left)), header_rows=2)
    assert block.table.column_names == NAMES
    assert list(block.table.to_pylist()[0].values()) == ["1", "2", "3", "4", "5", "6", top + 3]


def test_three_lines_and_a_group_over_two_levels() -> None:
    def fill(sheet: Any) -> None:
        sheet.merge_range(0, 0, 0, 2, "甲")
        sheet.merge_range(1, 0, 1, 1, "乙")
        sheet.write_row(2, 0, ["一", "二", "三"])
        sheet.write_row(3, 0, ["x", "y", "z"])

    (block,) = read(one(fill), header_rows=3)
    assert block.table.column_names == ["甲/乙/一", "甲/乙/二", "甲/三", "_row"]


def test_a_merged_value_belongs_to_its_first_cell() -> None:
    def fill(sheet: Any) -> None:
        sheet.write_row(0, 0, ["a", "b"])
        sheet.merge_range(1, 0, 2, 0, "m")
        sheet.write(1, 1, "1")
        sheet.write(2, 1, "2")

    (block,) = read(one(fill))
    assert block.table["a"].to_pylist() == ["m", None]


def test_blank_rows_are_left_out_and_counted() -> None:
    def fill(sheet: Any) -> None:
        sheet.write_row(0, 0, ["a", "b"])
        sheet.write(1, 0, "1")
        sheet.write(4, 1, "2")
        sheet.write(5, 0, "   ")
        sheet.write_blank(900, 3, None, sheet.book.date)

    (block,) = read(one(fill))
    assert block.table.to_pydict() == {"a": ["1", None], "b": [None, "2"], "_row": [2, 5]}
    assert block.malformed.num_rows == 0


def test_a_value_under_no_name_makes_the_row_malformed() -> None:
    def fill(sheet: Any) -> None:
        sheet.write_row(0, 0, ["a", "b"])
        for row in range(1, 6):
            sheet.write_row(row, 0, [f"a{row}", row])
        sheet.write(3, 2, "甲")

    (block,) = read(one(fill))
    assert block.table["_row"].to_pylist() == [2, 3, 5, 6]
    assert block.malformed.to_pylist() == [{"_row": 4, "raw": "a3\t3\t甲".encode(), "reason": "column-count"}]


def test_a_nul_character_is_malformed() -> None:
    content = one(lambda sheet: (sheet.write_row(0, 0, ["a"]), sheet.write(1, 0, "x@@y")))
    content = changed(content, "xl/sharedStrings.xml", lambda xml: xml.replace(b"@@", b"_x0000_"))
    (block,) = read(content)
    if block.table.num_rows:  # a reader that does not know the escape leaves it as it is
        assert block.table["a"].to_pylist() == ["x_x0000_y"]
    else:
        assert block.malformed["reason"].to_pylist() == ["nul-character"]


def test_the_first_visible_sheet_with_data_or_the_one_named() -> None:
    def sheet_of(text: str) -> Fill:
        return lambda sheet: (sheet.write(0, 0, "a"), sheet.write(1, 0, text))

    def hidden(sheet: Any) -> None:
        sheet_of("hidden")(sheet)
        sheet.hide()

    content = book(
        ("空", lambda sheet: sheet.activate()), ("藏", hidden), ("数据", sheet_of("x")), ("说明", sheet_of("y"))
    )
    assert read(content)[0].table["a"].to_pylist() == ["x"]
    assert read(content, sheet="说明")[0].table["a"].to_pylist() == ["y"]
    assert read(content, sheet="藏")[0].table["a"].to_pylist() == ["hidden"]
    error = refusal(content, sheet="别的")
    assert error.code == "workbook-sheet"
    assert "数据" in error.message("en")


def test_blocks_are_regrouped_and_the_first_always_comes(tmp_path: Path) -> None:
    def fill(sheet: Any) -> None:
        sheet.write(0, 0, "a")
        for row in range(1, 251):
            sheet.write(row, 0, row)

    landing = Landing(tmp_path)
    landed = landing.put(one(fill), "x.xlsx")
    options = FilesOptions(format="xlsx")
    blocks = list(workbook.blocks(lambda: landing.open(landed), "x.xlsx", options, 100))
    assert [block.table.num_rows for block in blocks] == [100, 100, 50]
    assert pa.concat_tables([block.table for block in blocks])["_row"].to_pylist() == list(range(2, 252))
    (block,) = read(one(lambda sheet: sheet.write_row(0, 0, ["a", "b"])))
    assert (block.table.num_rows, block.table.column_names) == (0, ["a", "b", "_row"])


def changed(content: bytes, part: str, change: Callable[[bytes], bytes]) -> bytes:
    """The workbook with one of its parts rewritten."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, change(old.read(name)) if name == part else old.read(name))
    return stream.getvalue()


SMALL = one(lambda sheet: (sheet.write_row(0, 0, ["a", "b"]), sheet.write_row(1, 0, ["1", "2"])))
# A compound file, as the old .xls and every encrypted workbook are, holding only what tells the two apart.
COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 1016


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "file-empty"),
        (b"<html>login</html>", "file-is-html"),
        (b"a,b\n1,2\n", "workbook-unreadable"),
        (SMALL[: len(SMALL) // 2], "workbook-unreadable"),
        (COMPOUND, "workbook-old"),
        (COMPOUND + "EncryptedPackage".encode("utf-16-le"), "workbook-protected"),
        (one(lambda sheet: None), "file-empty"),
        (one(lambda sheet: sheet.write_row(0, 0, ["a", "a"])), "columns-repeated"),
        (one(lambda sheet: sheet.write_row(0, 0, ["a", "_row"])), "columns-repeated"),
        (one(lambda sheet: sheet.write_row(0, 0, [" ", "  "])), "workbook-header"),
        (one(lambda sheet: sheet.write(0, 0, "a"), date_1904=True), "workbook-1904"),
        (changed(SMALL, "xl/worksheets/sheet1.xml", lambda xml: xml[:-60]), "workbook-unreadable"),
    ],
)
def test_refused(content: bytes, code: str) -> None:
    assert refusal(content).code == code


def test_a_header_longer_than_the_sheet() -> None:
    assert refusal(SMALL, header_rows=3).code == "workbook-header"


def test_another_kind_of_archive() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("data.csv", "a,b\n")
    assert refusal(stream.getvalue()).code == "workbook-unreadable"


def test_one_stray_value_far_away_is_refused_before_it_costs_memory() -> None:
    def fill(sheet: Any) -> None:
        sheet.write(0, 0, "a")
        sheet.write(1_048_575, 16_383, ".")

    assert refusal(one(fill)).code == "workbook-too-large"


SHEET = "xl/worksheets/sheet1.xml"
UNPLACED = re.compile(rb'<(c|row) r="\w+"')


def stray(cells: bytes) -> Callable[[bytes], bytes]:
    return lambda xml: xml.replace(b"</sheetData>", cells + b"</sheetData>")


@pytest.mark.parametrize("cells", [
    b"<row r='60000'><c r='ZZ60000' t='n'><v>1</v></c></row>",
    b'<row r="60000"><c r = "zz60000"><v>1</v></c></row>',
    b'<row r="60000"><c x=">" r="ZZ60000"><v>1</v></c></row>',
    b'<row r="60000"><c x="<" r="ZZ60000"><v>1</v></c></row>',
    b'<row r="60000"><c r="ZZ60000" x="/>"><v>1</v></c></row>',
    b"""<row r="60000"><c a="<c b='" r="ZZ60000" c="'/>"><v>1</v></c></row>""",
    b'<row r="60000"><:c r="ZZ60000"><v>1</v></:c></row>',
    b"<row r='60000'>" + b"<c><v>1</v></c>" * 702 + b"</row>",
    b"<row r='60000'><c r='ZY60000'><v>1</v></c><c><v>1</v></c></row>",
    b"<row r='60000'>" + b"<c t='n'/>" * 701 + b"<c><v>1</v></c></row>",
    b"<row r='60000'>" + b"<c><v>1</v></c><!--<c r='A1'>-->" * 702 + b"</row>",
    b"<row r='60000'>" + b" " * (9 << 20) + b"<c><v>1</v></c>" * 702 + b"</row>",
    b"<row r='60000'><c" + b" " * (9 << 20) + b"r='ZZ60000'><v>1</v></c></row>",
    b"<row r='2000000'><c r='" + b"A" * 50_000 + b"1'><v>1</v></c></row>",
], ids=range(14))  # fmt: skip
def test_a_stray_value_is_found_however_it_is_written(cells: bytes) -> None:
    assert refusal(changed(SMALL, SHEET, stray(cells))).code == "workbook-too-large"


def test_a_tag_without_end_is_refused_in_bounded_memory() -> None:
    assert refusal(changed(SMALL, SHEET, stray(b"<c x='" + b"a" * (40 << 20) + b"'/>"))).code == "workbook-too-large"


def test_a_sheet_need_not_lie_where_sheets_lie() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(SMALL)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            moved = name.replace("xl/worksheets/", "xl/elsewhere/") if name == SHEET else name
            new.writestr(moved, old.read(name).replace(b"worksheets/sheet1", b"elsewhere/sheet1"))
    assert read(stream.getvalue())[0].table.num_rows == 1
    far = changed(
        stream.getvalue(), "xl/elsewhere/sheet1.xml", stray(b"<row r='60000'><c r='ZZ60000'><v>1</v></c></row>")
    )
    assert refusal(far).code == "workbook-too-large"


def test_cells_that_do_not_say_their_place_are_read() -> None:
    """2,000 rows of 20: far below the bound, whether counted or told."""

    def fill(sheet: Any) -> None:
        for row in range(2_000):
            sheet.write_row(row, 0, ["a"] * 20 if row else [f"c{number}" for number in range(20)])

    placed = one(fill)
    unplaced = changed(placed, SHEET, lambda xml: UNPLACED.sub(rb"<\1", xml))
    assert b"<c t=" in zipfile.ZipFile(io.BytesIO(unplaced)).read(SHEET)
    (block,), (same,) = read(unplaced), read(placed)
    assert block.table.num_rows == 1_999 and block.table == same.table


def test_a_1904_workbook_is_refused_however_it_says_so() -> None:
    content = one(lambda sheet: sheet.write(0, 0, "a"), date_1904=True)
    quoted = changed(content, "xl/workbook.xml", lambda xml: xml.replace(b'date1904="1"', b"date1904 = '1'"))
    assert refusal(quoted).code == "workbook-1904"


def test_formatting_far_away_costs_nothing() -> None:
    def fill(sheet: Any) -> None:
        sheet.write(0, 0, "a")
        sheet.write(1, 0, "x")
        sheet.write_blank(1_048_575, 16_383, None, sheet.book.date)

    assert read(one(fill))[0].table.num_rows == 1


def test_what_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "UNPACKED_BYTES", 1 << 20)
    content = changed(SMALL, "docProps/app.xml", lambda xml: xml + b" " * (2 << 20))
    assert refusal(content).code == "workbook-too-large"


def test_a_size_that_lies_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(changed(SMALL, "docProps/app.xml", lambda xml: xml + b" " * 100_000))
    sizes = [found.start() for found in re.finditer(rb"docProps/app\.xml", content)]
    for place, offset in zip(sizes, (30 - 22, 46 - 24), strict=True):  # local header, then central directory
        content[place - offset : place - offset + 4] = (100).to_bytes(4, "little")
    assert refusal(bytes(content)).code == "workbook-unreadable"


def test_a_large_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "FILE_BYTES", 1000)
    assert refusal(SMALL).code == "file-too-large"


@pytest.mark.parametrize("seed", range(40))
def test_damage_is_an_error_of_ours_or_harmless(seed: int) -> None:
    import random

    dice, content = random.Random(seed), bytearray(SMALL)
    for _ in range(dice.randrange(1, 30)):
        content[dice.randrange(len(content))] = dice.randrange(256)
    try:
        read(bytes(content))
    except FatalError as error:
        assert error.message("en")
