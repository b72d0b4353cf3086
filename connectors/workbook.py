"""XLSX workbooks: one sheet, its header in one or more lines with merged cells, every cell as text.

What a cell becomes: text stays as it is; a cell in a date format is an ISO date or ``2020-01-02 03:04:05``; a bare number
has no ``.0``, so a day number (45123) stays one for the mapping to read (``date:serial``); a number of more than 15 digits,
of which a spreadsheet has lost the last ones, is written as it shows them, ``3.10E+17``; a truth value is ``true`` or
``false``; an empty cell, and an error value such as #N/A, is null. The value of merged data cells belongs to the first.

A sheet is read whole, which is why the size of a workbook is bounded before it is parsed.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

from connectors import characters, spooled
from connectors.block import ROW, Block, malformed_table, regrouped, table_schema
from connectors.errors import FatalError
from connectors.source import FileOptions
from connectors.textfile import Opener

FILE_BYTES = 256 << 20
UNPACKED_BYTES = 2 << 30
CELLS = 10_000_000  # of the rectangle from A1 to the last value: what a sheet costs in memory
LOST = 1e15  # from here on a number has more digits than a spreadsheet keeps

_CHUNK = 4 << 20
_LONGEST = 16 << 20  # between two tags
_OLD = b"\xd0\xcf\x11\xe0"  # compound file: the old .xls, and every workbook with a password
# One attribute as every writer writes it. What is written otherwise is not known to be harmless, so it counts.
_PLAIN = rb"""\s+[\w:.-]+\s*=\s*(?:"[^"'<>]*"|'[^"'<>]*')"""
_EMPTY = re.compile(rb"<(?:\w+:)?c(?:" + _PLAIN + rb")*\s*/>")  # formatting without a value
_PLACE = re.compile(rb"""\br\s*=\s*["']([A-Za-z]+)([0-9]+)["']""")
_LINE = re.compile(rb"""\br\s*=\s*["']([0-9]+)["']""")
_CELL, _ROW = (re.compile(rb"<(?:[^<>\s]*:)?" + tag + rb"[\s/>]") for tag in (b"c", b"row"))
_CELL_PLACED, _ROW_PLACED = (
    re.compile(rb"<(?:\w+:)?" + tag + rb"(?:" + _PLAIN + rb""")*?\s+r\s*=\s*["']""" + place + rb"""["']""")
    for tag, place in ((b"c", b"[A-Za-z]+[0-9]+"), (b"row", b"[0-9]+"))
)
_EPOCH_1904 = re.compile(rb"""date1904\s*=\s*["'](?:1|true|on)["']""")


def blocks(opener: Opener, name: str, options: FileOptions, block_rows: int = 65536) -> Iterator[Block]:
    """The rows of one sheet, in order; the first block comes even when there is no row.

    ``_row`` is the row of the spreadsheet. Blank rows are left out; a row with a value in a column without a name is
    malformed (``column-count``). FatalError: ``file-empty``, ``file-is-html``, ``file-too-large``, ``workbook-unreadable``,
    ``workbook-old``, ``workbook-protected``, ``workbook-too-large``, ``workbook-1904``, ``workbook-sheet``,
    ``workbook-header``, ``columns-repeated``.
    """
    with spooled.seekable(opener, name, FILE_BYTES) as stream:
        _refuse_other_kinds(stream, name)
        _bounded(stream, name)
        sheet = _sheet(stream, name, options.sheet)
    yield from regrouped(_rows(sheet, name, options.header_rows), block_rows)


def _refuse_other_kinds(stream: IO[bytes], name: str) -> None:
    """FatalError when the first bytes are not those of a workbook."""
    if spooled.head(stream, name).startswith(_OLD):
        protected = "EncryptedPackage".encode("utf-16-le") in stream.read()
        raise FatalError("workbook-protected" if protected else "workbook-old", file=name)


def _bounded(stream: IO[bytes], name: str) -> None:
    """Unpacks everything once, keeping nothing, to know the size that parsing would meet; declared sizes may lie."""
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > UNPACKED_BYTES:
                raise _too_large(name)
            for member in members:
                with archive.open(member) as content:  # gives no more than declared, and fails when there is more
                    _bounded_part(content, member.filename, name)
            if "xl/workbook.xml" not in archive.namelist():
                raise FatalError("workbook-unreadable", file=name)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError):
        raise FatalError("workbook-unreadable", file=name) from None
    stream.seek(0)


def _bounded_part(content: IO[bytes], part: str, name: str) -> None:
    """One stray value in the last row and column would make a small file cost gigabytes.

    Every part is looked at: which of them is a sheet is said inside the file, and nothing keeps it from naming any.
    """
    rest, reach = b"", _Reach()
    while chunk := content.read(_CHUNK):
        chunk = rest + chunk
        # Bare day numbers would be read four years too early: nothing in a cell says which of them are dates.
        if part == "xl/workbook.xml" and _EPOCH_1904.search(chunk):
            raise FatalError("workbook-1904", file=name)
        end = max(chunk.rfind(b"<"), 0)
        rest = chunk[end:]
        if len(rest) > _LONGEST:
            raise _too_large(name)
        reach.take(chunk[:end])
        if reach.cells > CELLS:
            raise _too_large(name)
    reach.take(rest)
    if reach.cells > CELLS:
        raise _too_large(name)


class _Reach:
    """The rectangle from A1 that the cells of a sheet can fill, seen piece by piece; never less than they do fill.

    A cell says its place, as every spreadsheet program writes it, or it follows the one before it in its row.
    """

    def __init__(self) -> None:
        self._row = self._line = self._rows = self._column = self._wide = self._open = 0

    @property
    def cells(self) -> int:
        if not self._wide:
            return self._row * self._column
        return (max(self._row, self._line) + self._rows) * (self._column + self._wide)

    def take(self, piece: bytes) -> None:
        """``piece``: whole tags only."""
        places = set(_PLACE.findall(_EMPTY.sub(b"", piece) if b"/>" in piece else piece))
        self._row = max([self._row, *(int(row) for _, row in places)])
        self._column = max([self._column, *map(_column_number, {letters[:7].upper() for letters, _ in places})])
        if len(_CELL.findall(piece)) > len(_CELL_PLACED.findall(piece)):
            rows, cells = (
                np.array([found.start() for found in tag.finditer(piece)], np.int64) for tag in (_ROW, _CELL)
            )
            counts = np.bincount(np.searchsorted(rows, cells), minlength=len(rows) + 1)
            counts[0] += self._open
            self._wide, self._open = max(self._wide, int(counts.max())), int(counts[-1])
        self._line = max([self._line, *map(int, _LINE.findall(piece))])
        self._rows += len(_ROW.findall(piece)) - len(_ROW_PLACED.findall(piece))


def _column_number(letters: bytes) -> int:
    """A is 1, Z is 26, AA is 27."""
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number


def _too_large(name: str) -> FatalError:
    return FatalError("workbook-too-large", file=name, megabytes=UNPACKED_BYTES >> 20, cells=CELLS)


def _sheet(stream: IO[bytes], name: str, wanted: str | None) -> CalamineSheet:
    """The sheet named, else the first visible one that holds something."""
    try:
        with CalamineWorkbook.from_filelike(stream) as book:
            if wanted is not None:
                if wanted not in book.sheet_names:
                    raise FatalError("workbook-sheet", file=name, sheet=wanted, known=", ".join(book.sheet_names))
                return book.get_sheet_by_name(wanted)
            for about in book.sheets_metadata:
                if about.typ == SheetTypeEnum.WorkSheet and about.visible == SheetVisibleEnum.Visible:
                    sheet = book.get_sheet_by_name(about.name)
                    if sheet.start is not None:
                        return sheet
    except CalamineError:
        raise FatalError("workbook-unreadable", file=name) from None
    raise FatalError("file-empty", file=name)


def _rows(sheet: CalamineSheet, name: str, header_rows: int) -> Iterator[Block]:
    if sheet.start is None:
        raise FatalError("file-empty", file=name)
    (first, left), rows = sheet.start, sheet.iter_rows()
    header = list(itertools.islice(rows, first, first + header_rows))  # what lies above the first value is blank
    if len(header) < header_rows:
        raise FatalError("workbook-header", file=name, rows=header_rows)
    names = _names(header, first, left, sheet.merged_cell_ranges or [])
    filled = [column for column in names if column]
    if not filled:
        raise FatalError("workbook-header", file=name, rows=header_rows)
    if repeated := sorted({column for column in filled if filled.count(column) > 1} | ({ROW} & set(filled))):
        raise FatalError("columns-repeated", file=name, columns=", ".join(repeated))
    yield Block(table_schema(filled).empty_table(), malformed_table([], [], []))
    row = first + header_rows + 1
    while part := list(itertools.islice(rows, 16_384)):
        yield _block(part, names, row)
        row += len(part)


def _names(
    header: Sequence[Sequence[object]], top: int, left: int, merged: Sequence[tuple[tuple[int, int], tuple[int, int]]]
) -> list[str]:
    """One name a column, "" for none: the header's lines joined with ``/``, a merged cell counted once a column."""
    cells = [["".join(str(value).split()) for value in line] for line in header]
    for (above, before), (below, after) in merged:
        if not (top <= above < top + len(cells) and left <= before < left + len(cells[0])):
            continue
        text = cells[above - top][before - left]
        for line, column in itertools.product(range(above, min(below + 1, top + len(cells))), range(before, after + 1)):
            if column - left < len(cells[0]):
                cells[line - top][column - left] = text if line == above else ""
    return ["/".join(part for part in column if part) for column in zip(*cells, strict=True)]


def _block(rows: Sequence[Sequence[Any]], names: Sequence[str], first: int) -> Block:
    """``rows`` of the sheet from row ``first`` on, one value per name."""
    columns = [_texts(column) for column in zip(*rows, strict=True)]
    filled = np.array([_filled(column) for column in columns])
    named = np.array([bool(name) for name in names])
    stray = filled[~named].any(axis=0)
    good, lost = np.flatnonzero(filled.any(axis=0) & ~stray), np.flatnonzero(stray)
    kept = [column if len(good) == len(rows) else column.take(pa.array(good)) for column in columns]
    block = characters.block(
        [column for column, name in zip(kept, names, strict=True) if name],
        [name for name in names if name],
        good + first,
    )
    if not len(lost):
        return block
    raw = pc.binary_join_element_wise(*(pc.fill_null(column.take(pa.array(lost)), "") for column in columns), "\t")
    beyond = malformed_table((lost + first).tolist(), raw.cast(pa.binary()).to_pylist(), ["column-count"] * len(lost))
    return Block(block.table, pa.concat_tables([block.malformed, beyond]).sort_by(ROW))


def _filled(column: pa.StringArray) -> np.ndarray:
    return pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(column), ""), False).to_numpy(zero_copy_only=False)


def _texts(values: Sequence[Any]) -> pa.StringArray:
    """Cells of one column as text, kind by kind: a column holds a handful of kinds, however many its rows."""
    kinds = np.fromiter(map(_KINDS.get, map(type, values)), np.int8, len(values))
    parts, places = [], []
    for kind in np.unique(kinds):
        here = kinds == kind
        parts.append(_WRITERS[kind](list(itertools.compress(values, here)) if not here.all() else values))
        places.append(np.flatnonzero(here))
    if len(parts) == 1:
        return parts[0]
    return pa.concat_arrays(parts).take(pa.array(np.argsort(np.concatenate(places), kind="stable")))


def _words(values: Sequence[str]) -> pa.StringArray:
    text = pa.array(values, pa.string())
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def _truths(values: Sequence[bool]) -> pa.StringArray:
    return pa.array(values, pa.bool_()).cast(pa.string())


def _numbers(values: Sequence[float]) -> pa.StringArray:
    """15 digits, as a spreadsheet keeps: 89.70000000000001 is 89.7."""
    numbers = np.array(values, dtype=np.float64)
    whole = (numbers == np.rint(numbers)) & (np.abs(numbers) < LOST)
    text = pa.array(np.where(whole, numbers, 0).astype(np.int64)).cast(pa.string())
    for form, here in (("%.2E", np.abs(numbers) >= LOST), ("%.15g", ~whole & (np.abs(numbers) < LOST))):
        if here.any():
            text = pc.replace_with_mask(text, pa.array(here), pa.array(np.char.mod(form, numbers[here]), pa.string()))
    return text


def _dates(values: Sequence[dt.date]) -> pa.StringArray:
    return pa.array(values, pa.date32()).cast(pa.string())


def _moments(values: Sequence[dt.datetime]) -> pa.StringArray:
    text = pa.array(values, pa.timestamp("us")).cast(pa.string())
    return pc.replace_substring_regex(text, r"\.0+$", "")


def _times(values: Sequence[dt.time]) -> pa.StringArray:
    return pc.replace_substring_regex(pa.array(values, pa.time64("us")).cast(pa.string()), r"\.0+$", "")


def _spans(values: Sequence[dt.timedelta]) -> pa.StringArray:
    """Hours may go beyond 24."""
    seconds = pa.array(values, pa.duration("us")).cast(pa.int64()).to_numpy() // 1_000_000
    parts = [pa.array(part).cast(pa.string()) for part in (seconds // 3600, seconds // 60 % 60, seconds % 60)]
    hours, *rest = parts
    return pc.binary_join_element_wise(hours, *(pc.utf8_lpad(part, 2, "0") for part in rest), ":")


_FORMS: dict[type, Callable[[Sequence[Any]], pa.StringArray]] = {
    str: _words,
    float: _numbers,
    int: _numbers,
    bool: _truths,
    dt.date: _dates,
    dt.datetime: _moments,
    dt.time: _times,
    dt.timedelta: _spans,
}
_KINDS = {kind: place for place, kind in enumerate(_FORMS)}
_WRITERS = tuple(_FORMS.values())
