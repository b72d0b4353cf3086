"""XLSX workbooks of one sheet, written as a stream: a header of two lines with merged cells, inline strings.

Exporters on servers write such files; xlsxwriter, cell by cell, would take longer than all other files together.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from demo.columns import Integers, join
from demo.forms import Mend, joined

DATED = 1  # index of the cell format for days, in _STYLES
SERIAL_ZERO = 25_569  # 1970-01-01 as a day of a spreadsheet
FASTEST = 1

_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_LINKS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_TYPES = (
    f'{_XML}<Types xmlns="{_PACKAGE}/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPE}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_TYPE}.worksheet+xml"/>'
    f'<Override PartName="/xl/styles.xml" ContentType="{_TYPE}.styles+xml"/></Types>'
)
_TOP = (
    f'{_XML}<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_LINKS}/officeDocument" Target="xl/workbook.xml"/></Relationships>'
)
_INSIDE = (
    f'{_XML}<Relationships xmlns="{_PACKAGE}/relationships">'
    f'<Relationship Id="rId1" Type="{_LINKS}/worksheet" Target="worksheets/sheet1.xml"/>'
    f'<Relationship Id="rId2" Type="{_LINKS}/styles" Target="styles.xml"/></Relationships>'
)
_BOOK = (
    f'{_XML}<workbook xmlns="{_MAIN}" xmlns:r="{_LINKS}"><sheets>'
    '<sheet name="{sheet}" sheetId="1" r:id="rId1"/></sheets></workbook>'
)
_STYLES = (
    f'{_XML}<styleSheet xmlns="{_MAIN}">'
    '<fonts count="1"><font><sz val="11"/><name val="宋体"/></font></fonts>'
    '<fills count="2"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/></fill></fills>'
    '<borders count="1"><border/></borders><cellStyleXfs count="1"><xf/></cellStyleXfs>'
    '<cellXfs count="2"><xf/><xf numFmtId="14" applyNumberFormat="1"/></cellXfs></styleSheet>'
)


@dataclass(frozen=True)
class Sheet:
    """``columns`` as a reader names them: ``group/name`` is a name below a merged group, a name alone takes both lines.

    A column of ``days`` holds ISO dates, which become cells in a date format; digits alone become a bare number, anything
    else is text. A column of ``numbers`` holds numbers, one of ``mixed`` text that a spreadsheet may have turned into a
    number (3.10E+17).
    """

    sheet: str
    columns: tuple[str, ...]
    days: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()
    first_row: int = field(default=3, init=False)

    def open(self, path: Path) -> Workbook:
        return Workbook(path, self)

    def cells(self, table: pa.Table, rows: pa.StringArray) -> pa.StringArray:
        """The XML of each row."""
        parts: list[pa.StringArray | str] = ['<row r="', rows, '">']
        for place, name in enumerate(table.column_names):
            parts += [f'<c r="{_letter(place)}', rows, self._cell(name, table[name].combine_chunks())]
        return join(*parts, "</row>")

    def _cell(self, name: str, values: pa.StringArray) -> pa.StringArray:
        """What follows the address in a cell."""
        if name in self.numbers:
            return join('"><v>', values, "</v></c>")
        safe = pc.replace_substring(pc.replace_substring(values, "&", "&amp;"), "<", "&lt;")
        text = join('" t="inlineStr"><is><t xml:space="preserve">', safe, "</t></is></c>")
        text = pc.if_else(pc.equal(values, ""), '"/>', text)
        if name in self.days:
            dated = pc.match_substring_regex(values, _DAY)
            day = pc.if_else(dated, values, None).cast(pa.date32()).cast(pa.int32())
            serial = join(f'" s="{DATED}"><v>', pc.add(day, SERIAL_ZERO).cast(pa.string()), "</v></c>")
            bare = join('"><v>', values, "</v></c>")
            return pc.if_else(dated, serial, pc.if_else(pc.match_substring_regex(values, "^[0-9]{5}$"), bare, text))
        if name in self.mixed:
            ruined = pc.match_substring(values, "E+")
            return pc.if_else(ruined, join('"><v>', values, "</v></c>"), text)
        return text

    def header(self) -> str:
        """The two header lines."""
        upper, lower = [], []
        for place, name in enumerate(self.columns):
            group, _, below = name.rpartition("/")
            first = place == 0 or self.columns[place - 1].rpartition("/")[0] != group
            upper.append(_text(place, 1, (group or below) if first or not group else ""))
            lower.append(_text(place, 2, below if group else ""))
        return f'<row r="1">{"".join(upper)}</row><row r="2">{"".join(lower)}</row>'

    def merged(self) -> list[str]:
        """Addresses of the merged cells."""
        found, place = [], 0
        for group, names in groupby(self.columns, key=lambda name: name.rpartition("/")[0]):
            count = len(list(names))
            places = range(place, place + count)
            if not group:
                found += [f"{_letter(at)}1:{_letter(at)}2" for at in places]
            elif count > 1:
                found.append(f"{_letter(place)}1:{_letter(place + count - 1)}1")
            place += count
        return found


class Workbook:
    """One file that is being written."""

    def __init__(self, path: Path, form: Sheet) -> None:
        self._form = form
        # Members opened by name bear the date 1980-01-01: the same rows give the same bytes.
        self._archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=FASTEST)
        parts = {
            "[Content_Types].xml": _TYPES,
            "_rels/.rels": _TOP,
            "xl/workbook.xml": _BOOK.format(sheet=form.sheet),
            "xl/_rels/workbook.xml.rels": _INSIDE,
            "xl/styles.xml": _STYLES,
        }
        for name, text in parts.items():
            with self._archive.open(name, "w") as member:
                member.write(text.encode())
        self._sheet = self._archive.open("xl/worksheets/sheet1.xml", "w", force_zip64=True)
        self._sheet.write(f'{_XML}<worksheet xmlns="{_MAIN}"><sheetData>{form.header()}'.encode())

    def write(self, table: pa.Table, mend: Mend, origins: Integers, rows: Integers) -> None:
        if len(origins) != table.num_rows:
            table = table.take(pa.array(origins))
        self._sheet.write(joined(self._form.cells(table, pa.array(rows).cast(pa.string()))))

    def close(self) -> None:
        merged = self._form.merged()
        inside = "".join(f'<mergeCell ref="{address}"/>' for address in merged)
        self._sheet.write(f'</sheetData><mergeCells count="{len(merged)}">{inside}</mergeCells></worksheet>'.encode())
        self._sheet.close()
        self._archive.close()


def _letter(place: int) -> str:
    return chr(ord("A") + place)


def _text(place: int, row: int, text: str) -> str:
    address = f"{_letter(place)}{row}"
    return f'<c r="{address}" t="inlineStr"><is><t>{text}</t></is></c>' if text else f'<c r="{address}"/>'
