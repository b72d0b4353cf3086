"""One page of JSON records → string columns that keep every value exactly as the department wrote it.

A number keeps its digits (``1.10``, 18-digit identifiers), ``true`` and nested values their JSON text; ``null`` and an
absent key are both null.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from connectors.block import ROW, Block, malformed_table, table_schema
from connectors.errors import FatalError

_envelope = msgspec.json.Decoder(dict[str, msgspec.Raw])
_texts = msgspec.json.Decoder(list[dict[str, str | None]])
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_record = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text_only = msgspec.json.Decoder(str)

Lost = list[tuple[int, bytes, str]]


def block(page: bytes, name: str, records: str, columns: Sequence[str]) -> Block:
    """The records of one page (bounded by the page size); ``columns`` are those of a page without any record.

    FatalError ``page-not-records`` when the page is not a JSON object whose ``records`` is a list.
    """
    try:
        body = _envelope.decode(page.removeprefix(codecs.BOM_UTF8))[records]
        try:
            rows: list[dict[str, str | None]] = _texts.decode(body)
            numbers = list(range(1, len(rows) + 1))
            lost: Lost = []
        except msgspec.ValidationError:  # something in it is not a string: keep its JSON text
            rows, numbers, lost = _mixed(_raws.decode(body))
    except (msgspec.DecodeError, KeyError, UnicodeDecodeError, RecursionError):
        raise FatalError("page-not-records", file=name, records=records) from None
    schema = table_schema(list(dict.fromkeys(chain.from_iterable(rows))) if rows else columns)
    if schema.names.count(ROW) > 1:
        raise FatalError("columns-repeated", file=name, columns=ROW)
    arrays: list[Any] = [pa.array([row.get(column) for row in rows], pa.string()) for column in schema.names[:-1]]
    table = pa.table([*arrays, pa.array(numbers, pa.int64())], schema=schema)
    if b"\\u0000" in page:
        table, lost = _without_nul(table, lost)
    lost.sort()
    places, raw, reasons = zip(*lost, strict=True) if lost else ((), (), ())
    return Block(table, malformed_table(list(places), list(raw), list(reasons)))


def _mixed(raws: Sequence[msgspec.Raw]) -> tuple[list[dict[str, str | None]], list[int], Lost]:
    rows, numbers = [], []
    lost: Lost = []
    for number, raw in enumerate(raws, start=1):
        try:
            rows.append({key: _value(value) for key, value in _record.decode(raw).items()})
            numbers.append(number)
        except (msgspec.DecodeError, UnicodeDecodeError):
            lost.append((number, bytes(raw), "not-an-object"))
    return rows, numbers, lost


def _value(raw: msgspec.Raw) -> str | None:
    text = bytes(raw)
    if text == b"null":
        return None
    return _text_only.decode(text) if text.startswith(b'"') else text.decode()


def _without_nul(table: pa.Table, lost: Lost) -> tuple[pa.Table, Lost]:
    """A NUL character can be stored nowhere downstream: such a record is malformed."""
    masks = [pc.fill_null(pc.match_substring(table[name], "\x00"), False) for name in table.column_names[:-1]]
    hit = masks[0]
    for mask in masks[1:]:
        hit = pc.or_(hit, mask)
    found = table.filter(hit).to_pylist()
    raws = [(row.pop(ROW), msgspec.json.encode(row), "nul-character") for row in found]
    return table.filter(pc.invert(hit)), [*lost, *raws]
