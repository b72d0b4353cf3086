"""CSV bytes → blocks of string columns with row numbers, and the lines that cannot be read.

One physical line is one row unless the source says ``multiline``: a quote that is never closed then costs its own line
and not the rest of the file. Lines are told apart with numpy over the bytes, rows are parsed by pyarrow.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from connectors.block import ROW, Block, malformed_table, regrouped, table_schema
from connectors.errors import FatalError
from connectors.textfile import (
    Encoding,
    Opener,
    TextBlock,
    find_encoding,
    occurrences,
    refuse_other_kinds,
    text_blocks,
    undecodable,
    unpacked,
)

NEWLINE, RETURN, QUOTE = 10, 13, 34
LONGEST_RECORD = 4 << 20  # of several lines; pyarrow reads blocks of so many bytes, and a record may end in the next
REASONS = ("", "quote", "carriage-return", "nul-character", "undecodable", "column-count")
_, STRAY_QUOTE, STRAY_RETURN, NUL, UNDECODABLE, COLUMN_COUNT = range(len(REASONS))


@dataclass(frozen=True)
class Form:
    """How a CSV file is written. ``nulls``: an unquoted empty value is null, a quoted one the empty string.

    ``header_row`` is the number of the header's row: 1 as a spreadsheet counts, 0 where the header is not counted.
    """

    encodings: tuple[str, ...] = ("utf-8",)
    delimiter: str = ","
    multiline: bool = False
    nulls: bool = False
    header_row: int = 1


def blocks(opener: Opener, name: str, form: Form, block_rows: int = 65536) -> Iterator[Block]:
    """The rows of one file, in order, in bounded memory; the first block comes even when there is no row.

    FatalError: ``file-empty``, ``file-is-html``, ``file-is-spreadsheet``, ``file-encoding``, ``file-is-utf-16``,
    ``file-header``, ``columns-repeated``, ``file-truncated``, ``file-line-too-long``, ``file-record-too-long``.
    """
    opener = unpacked(opener)
    refuse_other_kinds(opener, name)
    encoding = find_encoding(opener, name, form.encodings)
    parts = _multiline(opener, name, form, encoding) if form.multiline else _lines(opener, name, form, encoding)
    yield from regrouped(parts, block_rows)


def _lines(opener: Opener, name: str, form: Form, encoding: Encoding) -> Iterator[Block]:
    columns: list[str] | None = None
    row = form.header_row
    for text in text_blocks(opener, name, encoding):
        count = occurrences(text.data, NEWLINE) + (not text.data.endswith(b"\n"))
        skip = 0
        if columns is None:
            skip, columns = _header(text, name, form)
            if columns is None:
                row += count
                continue
        block = _parsed(text, columns, form, row, skip)
        last = row + count - 1
        if not text.raw.endswith(b"\n") and pc.max(block.malformed[ROW]).as_py() == last:
            raise FatalError("file-truncated", file=name, row=last)
        row += count
        yield block if text.raw.endswith(b"\n") else replace(block, open_end=block.table.num_rows > 0)
    if columns is None:
        raise FatalError("file-empty", file=name)


def _header(text: TextBlock, name: str, form: Form) -> tuple[int, list[str] | None]:
    """The number of lines up to and with the header, and its names; None when every line is blank."""
    for index, line in enumerate(io.BytesIO(text.data)):
        content = line.decode().strip("\ufeff \t\r\n")
        if not content:
            continue
        try:
            names = next(csv.reader([content], delimiter=form.delimiter, strict=True))
        except csv.Error:
            raise FatalError("file-header", file=name, row=index + form.header_row) from None
        if "\x00" in content:
            raise undecodable(lambda: io.BytesIO(text.raw), name, form.encodings, 1)
        if "\r" in content:
            raise FatalError("file-header", file=name, row=index + form.header_row)
        names = [part.strip("\ufeff \t") for part in names]
        if repeated := sorted({part for part in names if names.count(part) > 1} | ({ROW} & set(names))):
            raise FatalError("columns-repeated", file=name, columns=", ".join(part or "(empty)" for part in repeated))
        return index + 1, names
    return 0, None


def _parsed(text: TextBlock, columns: Sequence[str], form: Form, first_row: int, skip: int) -> Block:
    """The rows of one block of whole lines; line ``i`` of the block is row ``first_row + i``."""
    whole = text.data if text.data.endswith(b"\n") else text.data + b"\n"
    data = np.frombuffer(whole, np.uint8)
    newlines = np.flatnonzero(data == NEWLINE)
    starts = np.concatenate(([0], newlines[:-1] + 1))
    ends = newlines.copy()

    returns = np.flatnonzero(data == RETURN) if b"\r" in whole else np.empty(0, np.int64)
    while len(returns) and (trailing := (ends > starts) & (data[ends - 1] == RETURN)).any():
        ends -= trailing

    reasons = np.zeros(len(newlines), np.uint8)  # places in REASONS
    if b'"' in whole:
        reasons[_irregular_quotes(data, ends, newlines, ord(form.delimiter))] = STRAY_QUOTE
    after = data[returns + 1]
    reasons[np.searchsorted(newlines, returns[(after != NEWLINE) & (after != RETURN)])] = STRAY_RETURN
    if b"\0" in whole:
        reasons[np.searchsorted(newlines, np.flatnonzero(data == 0))] = NUL
    reasons[text.bad] = UNDECODABLE
    blank = ends == starts
    blank[text.bad] = False
    blank[:skip] = True

    plain = np.flatnonzero((reasons == 0) & ~blank)
    if len(plain) == len(newlines):
        buffer = whole
    else:
        chosen = np.zeros(len(newlines), dtype=bool)
        chosen[plain] = True
        buffer = data[np.repeat(chosen, newlines - starts + 1)].tobytes()
    table, refused = _bulk(buffer, columns, form.delimiter)
    reasons[plain[refused]] = COLUMN_COUNT
    numbers = [np.delete(plain, refused)]
    tables = [table]

    odd = np.flatnonzero((reasons == STRAY_QUOTE) & ~blank)
    if len(odd):
        places_read, rows = _one_by_one(whole, starts[odd], ends[odd], columns, form.delimiter)
        readable = np.array(places_read, dtype=np.int64)
        # After a line whose quote stayed open comes the rest of its value: that is no row, however well it reads.
        torn = np.isin(odd[readable] - 1, np.setdiff1d(odd, odd[readable]))
        readable, rows = readable[~torn], rows.filter(pa.array(~torn))
        reasons[odd[readable]] = 0
        numbers.append(odd[readable])
        tables.append(rows)
    places = np.concatenate(numbers).astype(np.int64)
    result = pa.concat_tables(tables).append_column(ROW, pa.array(places + first_row))
    if len(odd):
        result = result.take(pa.array(np.argsort(places, kind="stable")))
    return Block(result, _lost(text, np.flatnonzero((reasons != 0) & ~blank), reasons, first_row))


def _lost(text: TextBlock, lines: Any, reasons: Any, first_row: int) -> pa.Table:
    raw = text.raw.split(b"\n") if len(lines) else []
    return malformed_table(
        (lines + first_row).tolist(),
        [raw[line].rstrip(b"\r") for line in lines],
        [REASONS[reason] for reason in reasons[lines]],
    )


def _irregular_quotes(data: Any, ends: Any, newlines: Any, delimiter: int) -> Any:
    """Lines whose quotes are not all at the edges of a value or doubled inside one; they might swallow what follows."""
    quotes = np.flatnonzero(data == QUOTE)
    counts = np.diff(np.searchsorted(quotes, newlines), prepend=0)
    uneven = counts % 2 == 1
    if uneven.any():
        quotes = quotes[np.repeat(~uneven, counts)]
    # Without those lines every other quote opens. Before the first line numpy sees the last byte: a line end too.
    opening, closing = quotes[0::2], quotes[1::2]
    before, after = data[opening - 1], data[closing + 1]
    opening = opening[(before != delimiter) & (before != QUOTE) & (before != NEWLINE)]
    closing = closing[(after != delimiter) & (after != QUOTE) & (after != NEWLINE)]
    closing = closing[closing + 1 != ends[np.searchsorted(newlines, closing)]]  # before a carriage return
    return np.union1d(np.searchsorted(newlines, np.concatenate((opening, closing))), np.flatnonzero(uneven))


def _bulk(buffer: bytes, columns: Sequence[str], delimiter: str) -> tuple[pa.Table, Any]:
    """Lines with regular quotes → table, and the 0-based places of those with another number of values."""
    refused: list[int] = []

    def refuse(row: pacsv.InvalidRow) -> str:
        refused.append(row.number - 1)
        return "skip"

    schema = pa.schema([(name, pa.string()) for name in columns])
    if not buffer:
        return schema.empty_table(), np.empty(0, dtype=np.int64)
    table = pacsv.read_csv(
        pa.BufferReader(buffer),
        # one thread and one block: only then are the numbers of refused rows known
        read_options=pacsv.ReadOptions(use_threads=False, column_names=list(columns), block_size=len(buffer) + 1),
        parse_options=pacsv.ParseOptions(delimiter=delimiter, invalid_row_handler=refuse),
        convert_options=pacsv.ConvertOptions(column_types=schema, strings_can_be_null=False),
    )
    return table, np.array(refused, dtype=np.int64)


def _one_by_one(
    whole: bytes, starts: Any, ends: Any, columns: Sequence[str], delimiter: str
) -> tuple[list[int], pa.Table]:
    """The few lines with stray quotes: a quote inside an unquoted value is kept, anything else stays malformed."""
    readable, rows = [], []
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        try:
            values = next(csv.reader([whole[start:end].decode()], delimiter=delimiter, strict=True))
        except csv.Error:
            continue
        if len(values) == len(columns):
            readable.append(place)
            rows.append(values)
    schema = pa.schema([(name, pa.string()) for name in columns])
    arrays = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    return readable, pa.table(arrays, schema=schema) if rows else schema.empty_table()


def _multiline(opener: Opener, name: str, form: Form, encoding: Encoding) -> Iterator[Block]:
    """Values may hold line breaks: one record is one row, and quotes must balance over the whole file."""
    if not encoding.clean:
        raise FatalError("file-encoding", file=name, encodings=encoding.name, lines=1)
    texts = text_blocks(opener, name, encoding)
    first = next(texts)
    skip, columns = _header(first, name, form)
    if columns is None:
        raise FatalError("file-empty", file=name)
    head = first.data.split(b"\n", skip)[skip] if first.data.count(b"\n") >= skip else b""
    source = _Concatenated(_balanced(head, texts, name, encoding))
    refused: list[pacsv.InvalidRow] = []

    def refuse(row: pacsv.InvalidRow) -> str:
        refused.append(row)
        return "skip"

    offset = form.header_row + skip - 1
    empty = Block(table_schema(columns).empty_table(), malformed_table([], [], []))
    yield empty
    if not source.peek():
        if source.failure:
            raise source.failure
        return
    record, reported = 1, 0
    try:
        for batch in _records(source, columns, form, refuse):
            skipped = np.array([row.number for row in refused if row.number >= record], dtype=np.int64)
            numbers = np.setdiff1d(np.arange(record, record + batch.num_rows + len(skipped)), skipped)[: batch.num_rows]
            record = int(numbers[-1]) + 1 if len(numbers) else record
            table = pa.Table.from_batches([batch]).append_column(ROW, pa.array(numbers + offset))
            yield Block(table if form.nulls else _without_blank(table), _refused(refused[reported:], offset))
            reported = len(refused)
    except pa.ArrowInvalid as error:
        if "straddling" not in str(error):
            raise
        # It is the one after all that came out, be it as a row or refused.
        last = max([record - 1, *(row.number for row in refused[-1:])])
        raise FatalError("file-record-too-long", file=name, row=last + 1 + offset) from None
    if reported < len(refused):
        yield Block(empty.table, _refused(refused[reported:], offset))
    if source.failure:
        raise source.failure


def _records(source: _Concatenated, columns: Sequence[str], form: Form, refuse: Any) -> Iterator[pa.RecordBatch]:
    """Records as they come, in order; ArrowInvalid at one that neither a block nor the one after it ends."""
    yield from pacsv.open_csv(
        pa.PythonFile(source, "r"),
        read_options=pacsv.ReadOptions(use_threads=False, column_names=columns, block_size=LONGEST_RECORD),
        parse_options=pacsv.ParseOptions(
            delimiter=form.delimiter, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=refuse
        ),
        convert_options=pacsv.ConvertOptions(
            column_types=pa.schema([(column, pa.string()) for column in columns]),
            strings_can_be_null=form.nulls,
            null_values=[""],
            quoted_strings_can_be_null=False,
        ),
    )


def _without_blank(table: pa.Table) -> pa.Table:
    """pyarrow gives an empty line as a row of empty values: only so does it count."""
    filled: Any = None
    for column in table.drop_columns([ROW]).columns:
        here = pc.not_equal(column, "")
        filled = here if filled is None else pc.or_(filled, here)
    return table.filter(filled)


def _refused(rows: Sequence[pacsv.InvalidRow], offset: int) -> pa.Table:
    return malformed_table(
        [row.number + offset for row in rows],
        [(row.text or "").encode() for row in rows],
        ["column-count"] * len(rows),
    )


def _balanced(head: bytes, texts: Iterable[TextBlock], name: str, encoding: Encoding) -> Iterator[bytes]:
    """Passes blocks on; FatalError at the end when a quote is still open or the last character is cut."""
    quotes, lines, last = occurrences(head, QUOTE), occurrences(head, NEWLINE), head
    yield head
    for text in texts:
        quotes += occurrences(text.data, QUOTE)
        lines += occurrences(text.data, NEWLINE)
        last = text.data
        yield text.data
    if quotes % 2 or (encoding.cut and not last.endswith(b"\n")):
        raise FatalError("file-truncated", file=name, row=lines + 1)


class _Concatenated(io.RawIOBase):
    """An iterator of byte blocks as a stream. What goes wrong is kept and the stream ends there: an error raised within
    pyarrow's reading thread can leave that thread waiting for itself, and the process then never ends."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts, self._rest = parts, b""
        self.failure: Exception | None = None

    def readable(self) -> bool:
        return True

    def peek(self) -> bytes:
        try:
            while not self._rest and (part := next(self._parts, None)) is not None:
                self._rest = part
        except Exception as error:
            self.failure = error
        return self._rest

    def readinto(self, buffer: Any) -> int:
        chunk = self.peek()[: len(buffer)]
        buffer[: len(chunk)] = chunk
        self._rest = self._rest[len(chunk) :]
        return len(chunk)
