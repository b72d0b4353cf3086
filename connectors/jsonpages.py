"""One page of JSON records → string columns that keep every value exactly as the department wrote it.

A number keeps its digits (``1.10``, 18-digit identifiers), ``true`` and lists their JSON text; ``null`` and an absent key
are both null. An object is opened where a column that was agreed on lies inside it (``holder.id.number``): all its keys
become such dotted columns, known or not. Any other object keeps its JSON text, so that what is new shows as one column.
Whole columns are decoded at once.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from connectors.block import ROW, Block, malformed_table, table_schema
from connectors.errors import FatalError

_envelope = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_rows = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_objects = msgspec.json.Decoder(list[dict[str, msgspec.Raw] | None])
_texts = msgspec.json.Decoder(list[str | None])
_text = msgspec.json.Decoder(str)

Lost = list[tuple[int, bytes, str]]
Record = dict[str, msgspec.Raw]
NULL = msgspec.Raw(b"null")


def block(page: bytes, name: str, records: str, columns: Sequence[str]) -> Block:
    """The records of one page (bounded by the page size); ``columns``: those agreed on, which a page without any has too.

    FatalError ``page-not-records`` when the page is not a JSON object whose ``records`` is a list, ``columns-repeated``
    when two keys of a record come to the same dotted path.
    """
    try:
        body = _envelope.decode(page.removeprefix(codecs.BOM_UTF8))[records]
        rows, numbers, lost = _objects_of(body)
        found = _Columns(name, columns)
        found.add(rows, "")
        table = found.table(numbers) if rows else table_schema(list(columns)).empty_table()
        if b"\\u0000" in page:
            table, nul = _without_nul(table, _raws.decode(body))
            lost = sorted([*lost, *nul])
    except (msgspec.DecodeError, KeyError, UnicodeDecodeError, RecursionError):
        raise FatalError("page-not-records", file=name, records=records) from None
    places, raw, reasons = zip(*lost, strict=True) if lost else ((), (), ())
    return Block(table, malformed_table(list(places), list(raw), list(reasons)))


def _objects_of(body: msgspec.Raw) -> tuple[list[Record], list[int], Lost]:
    """The records with their numbers, and what stands between them and is none."""
    try:
        rows = _rows.decode(body)
        return rows, list(range(1, len(rows) + 1)), []
    except msgspec.ValidationError:
        raws = dict(enumerate(map(bytes, _raws.decode(body)), start=1))
    objects = {number: raw for number, raw in raws.items() if raw.startswith(b"{")}
    lost = [(number, raw, "not-an-object") for number, raw in raws.items() if number not in objects]
    return _rows.decode(_listed(objects.values())), list(objects), lost


class _Columns:
    """The columns of one page under their dotted paths, in the order in which they are met."""

    def __init__(self, name: str, agreed: Sequence[str]) -> None:
        self.name, self.agreed = name, agreed
        self.found: dict[str, pa.Array] = {}
        self.opened = {path for column in agreed for path in list(accumulate(column.split("."), _dotted))[:-1]}

    def add(self, rows: Sequence[Record], prefix: str) -> None:
        """Every key of ``rows``; they are as many as the page has records."""
        for key in dict.fromkeys(chain.from_iterable(rows)):
            values = [row.get(key, NULL) for row in rows]
            path = prefix + key
            if path in self.opened and path not in self.agreed:
                self._open(path, values)
            else:
                self._put(path, _column(values))

    def _open(self, path: str, values: Sequence[msgspec.Raw]) -> None:
        try:
            objects = _objects.decode(_listed(values))
        except msgspec.ValidationError:  # something that is no object where one was agreed on: a column of its own
            objects = [_rows.decode(_listed([raw]))[0] if bytes(raw)[:1] == b"{" else None for raw in values]
            rest = [NULL if record is not None else raw for record, raw in zip(objects, values, strict=True)]
            self._put(path, _column(rest))
        if any(record is not None for record in objects):
            self.add([record or {} for record in objects], path + ".")
        else:
            inside = [column for column in self.agreed if column.startswith(path + ".")]
            for column in inside:  # null stands for all that it could hold: nothing is missing
                self._put(column, pa.nulls(len(values), pa.string()))

    def _put(self, path: str, column: pa.Array) -> None:
        if path in self.found or path == ROW:
            raise FatalError("columns-repeated", file=self.name, columns=path)
        self.found[path] = column

    def table(self, numbers: list[int]) -> pa.Table:
        return pa.table([*self.found.values(), pa.array(numbers, pa.int64())], schema=table_schema(list(self.found)))


def _dotted(before: str, part: str) -> str:
    return f"{before}.{part}"


def _listed(values: Any) -> bytes:
    return b"[" + b",".join(values) + b"]"


def _column(values: Sequence[msgspec.Raw]) -> pa.Array:
    try:
        return pa.array(_texts.decode(_listed(values)), pa.string())
    except msgspec.ValidationError:  # something in it is not a string: keep its JSON text
        return pa.array([_value(bytes(raw)) for raw in values], pa.string())


def _value(text: bytes) -> str | None:
    if text == b"null":
        return None
    return _text.decode(text) if text.startswith(b'"') else text.decode()


def _without_nul(table: pa.Table, raws: Sequence[msgspec.Raw]) -> tuple[pa.Table, Lost]:
    """A NUL character can be stored nowhere downstream: such a record is malformed."""
    hit = pa.array([False] * table.num_rows)
    for column in table.columns[:-1]:
        hit = pc.or_(hit, pc.fill_null(pc.match_substring(column, "\x00"), False))
    numbers = table[ROW].filter(hit).to_pylist()
    lost = [(number, bytes(raws[number - 1]), "nul-character") for number in numbers]
    return table.filter(pc.invert(hit)), lost
