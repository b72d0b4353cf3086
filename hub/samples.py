"""A sample file: read as its source would read it, its form found out on the way, and a short one written anew."""

from __future__ import annotations

import csv
import io
import itertools
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from connectors import reading
from connectors.block import ROW
from connectors.errors import FatalError, UsageError, YiciError
from connectors.landing import Landing
from connectors.source import DatabaseOptions, FileOptions, RestOptions, Source
from connectors.template import PATTERNS

LOOKED_AT = 200_000  # rows: enough to tell, and bounded however large the delivery
SUFFIXES = {
    ".csv": "csv", ".txt": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".xlsx": "xlsx", ".xlsm": "xlsx",
    ".parquet": "parquet",
}  # fmt: skip
COLUMNS = "columns"  # of a page, needed to read it; of any source, they are what the table has
DELIMITERS = "\t;|"
_CURSOR = re.compile(r"^(next|cursor|next_?(cursor|token|page_?token))$", re.I)
_SERIAL = re.compile(r"^-?\d{1,15}(\.\d+)?$|^\d(\.\d+)?E\+?\d+$")


@dataclass(frozen=True)
class Sample:
    """``source`` with the options that the file was read with; ``found``: those that are not the ones written down."""

    source: Source
    table: pa.Table
    found: dict[str, object]


def read(described: Source, path: Path) -> Sample:
    """The first rows of ``path`` (200,000 at most), as strings with ``_row``.

    The form is tried out: format by suffix, delimiter, header lines, the key that holds the records. UsageError
    ``sample-format``, ``sample-unread``; FatalError of the reader.
    """
    problem: YiciError | None = None
    with tempfile.TemporaryDirectory() as folder:
        zone = Landing(folder)
        with path.open("rb") as stream:
            landed = zone.put(stream, path.name)
        for found in _forms(described, path):
            options = described.options.model_copy(update=found)
            source = described.model_copy(update={"options": options})
            try:
                table = _rows(source, landed, zone)
            except FatalError as error:
                problem = problem or error
                continue
            mark = _delimiter(table.column_names[0]) if table.num_columns == 2 else None
            if mark and isinstance(options, FileOptions):
                found = {**found, "delimiter": mark}
                source = source.model_copy(update={"options": options.model_copy(update=found)})
                table = _rows(source, landed, zone)
            if not table.num_rows:
                raise UsageError("sample-unread", file=path.name)
            written = described.options.model_dump()
            different = {key: value for key, value in found.items() if key != COLUMNS and written.get(key) != value}
            return Sample(source, table, different)
    raise problem or _unreadable(described, path)


def _rows(source: Source, landed: Any, zone: Landing) -> pa.Table:
    tables, rows = [], 0
    for block in reading.blocks(source, landed, zone):
        tables.append(block.table)
        rows += block.table.num_rows
        if rows >= LOOKED_AT:
            break
    return pa.concat_tables(tables).combine_chunks().slice(0, LOOKED_AT)


def _forms(described: Source, path: Path) -> Iterator[dict[str, object]]:
    """Options to try, the likeliest first; an empty one is what source.yml says."""
    options = described.options
    if isinstance(options, RestOptions):
        yield _page(options, path)
    elif isinstance(options, FileOptions):
        plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
        format_ = SUFFIXES.get(plain.suffix.lower())
        if format_ is None:
            raise _unreadable(described, path)
        form: dict[str, object] = {} if format_ == options.format else {"format": format_, "pattern": PATTERNS[format_]}
        yield form
        if format_ == "xlsx":  # merged header cells read with too few lines give one name twice
            yield from ({**form, "header_rows": lines} for lines in range(2, 6))
    elif isinstance(options, DatabaseOptions):
        yield {}
    else:
        raise _unreadable(described, path)


def _unreadable(described: Source, path: Path) -> UsageError:
    known = {"rest": "one page of its answer (.json)", "database": "CSV"}.get(described.connector, ", ".join(SUFFIXES))
    return UsageError(
        "sample-format", source=described.name, file=path.name, connector=described.connector, known=known
    )


def _page(options: RestOptions, path: Path) -> dict[str, object]:
    """Where the records of a page are: under the key written down, else under the only one with a list of objects."""
    try:
        body = orjson.loads(path.read_bytes())
    except ValueError:
        return {}
    if not isinstance(body, dict):
        return {}
    found: dict[str, object] = {}
    lists = [
        key for key, value in body.items() if isinstance(value, list) and all(isinstance(x, dict) for x in value[:5])
    ]
    if options.records not in body and len(lists) == 1:
        found["records"] = lists[0]
    cursors = [key for key in body if _CURSOR.match(key)]
    if cursors and "total" not in body:
        found |= {"paging": "cursor", "next": cursors[0]}
    records = body.get(str(found.get("records", options.records)))
    paths = dict.fromkeys(path for record in records or () if isinstance(record, dict) for path in _paths(record, ""))
    opened = {path[:place] for path in paths for place, mark in enumerate(path) if mark == "."}
    return {**found, COLUMNS: tuple(path for path in paths if path not in opened)}  # null here, an object there


def _paths(record: dict[str, Any], above: str) -> Iterator[str]:
    """Every column of a record, nested objects opened: the reader opens those in which a column is agreed on."""
    for key, value in record.items():
        if isinstance(value, dict) and value:
            yield from _paths(value, f"{above}{key}.")
        else:
            yield above + key


def _delimiter(header: str) -> str | None:
    return next((mark for mark in DELIMITERS if header.count(mark) > 1), None)


def write(sample: Sample, table: pa.Table, original: Path, folder: Path) -> Path:
    """``table`` (strings and ``_row``) as ``input.*`` in the form of the source; returns the file written."""
    options = sample.source.options
    format_ = (
        options.format if isinstance(options, FileOptions) else "json" if isinstance(options, RestOptions) else "csv"
    )
    plain = table.drop_columns([ROW])
    content = {"csv": _csv, "json": _json, "jsonl": _jsonl, "xlsx": _xlsx, "parquet": _parquet}[format_](
        plain, options, original
    )
    target, draft = folder / f"input.{format_}", folder / ".input"
    try:
        draft.write_bytes(content)
        for other in folder.glob("input.*"):
            other.unlink()
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def _csv(table: pa.Table, options: Any, original: Path) -> bytes:
    if isinstance(options, DatabaseOptions):  # an unquoted empty value is null, a quoted one is text
        out = io.BytesIO()
        pacsv.write_csv(table, out, pacsv.WriteOptions(quoting_style="needed"))
        return out.getvalue()
    lines = io.StringIO()
    writer = csv.writer(lines, delimiter=options.delimiter, lineterminator="\n")
    writer.writerow(table.column_names)
    writer.writerows(zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True))
    return lines.getvalue().encode()


def _records(table: pa.Table) -> list[dict[str, Any]]:
    """One object a row, dotted columns nested again."""
    records = []
    for row in table.to_pylist():  # a sample, not a delivery
        record: dict[str, Any] = {}
        for name, value in row.items():
            *above, last = name.split(".")
            place = record
            for part in above:
                place = place.setdefault(part, {})
            place[last] = value
        records.append(record)
    return records


def _json(table: pa.Table, options: Any, original: Path) -> bytes:
    records = _records(table)
    page = {options.records: records} | ({} if options.paging == "cursor" else {options.total: len(records)})
    return orjson.dumps(page, option=orjson.OPT_INDENT_2) + b"\n"


def _jsonl(table: pa.Table, options: Any, original: Path) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in _records(table))


def _parquet(table: pa.Table, options: Any, original: Path) -> bytes:
    """With the types of the original where the values still have them."""
    types = {field.name: field.type for field in pq.read_schema(original)}
    columns = {}
    for name in table.column_names:
        try:
            columns[name] = table.column(name).cast(types.get(name, pa.string()))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            columns[name] = table.column(name)
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def _xlsx(table: pa.Table, options: Any, original: Path) -> bytes:
    """Header lines merged as the names say; numbers as numbers, so that a ruined ID is one here too."""
    try:
        import xlsxwriter
    except ImportError:
        raise UsageError("sample-writer") from None
    out = io.BytesIO()
    with xlsxwriter.Workbook(out, {"in_memory": True}) as book:
        sheet = book.add_worksheet(options.sheet or "sample")
        _header(sheet, [name.split("/") for name in table.column_names], options.header_rows)
        for column, name in enumerate(table.column_names):
            numeric = _numeric(table.column(name).to_pylist())
            for row, value in enumerate(table.column(name).to_pylist(), start=options.header_rows):
                if value is None:
                    continue
                if numeric(value):
                    sheet.write_number(row, column, float(value))
                else:
                    sheet.write_string(row, column, value)
    return out.getvalue()


def _numeric(values: Sequence[str | None]) -> Callable[[str], bool]:
    """Which cells of a column were numbers: codes have leading zeros or one length, as numbers seldom have."""
    plain = [value for value in values if value and _SERIAL.match(value)]
    codes = any(value.startswith("0") and len(value) > 1 and value[1] != "." for value in plain)
    long = any(len(value) >= 15 for value in plain if "E" not in value)
    return lambda value: bool(_SERIAL.match(value)) and ("E" in value or not (codes or long))


def _header(sheet: Any, names: list[list[str]], lines: int) -> None:
    padded = [parts + [""] * (lines - len(parts)) for parts in names]
    for line in range(lines):
        column = 0
        for text, same in itertools.groupby(padded, key=lambda parts: parts[: line + 1]):
            width, label = len(list(same)), text[line]
            height = 1
            while label and width == 1 and line + height < lines and not padded[column][line + height]:
                height += 1
            if label and (width > 1 or height > 1):
                sheet.merge_range(line, column, line + height - 1, column + width - 1, label)
            elif label:
                sheet.write_string(line, column, label)
            column += width
