"""JSON lines → blocks of string columns that keep every value as written, and the lines that are no record.

One line is one row. Objects inside a record become columns with dotted names (``holder.id.number``), lists keep their JSON
text, a number its digits; ``null`` and an absent key are both null. Plain lines are parsed by pyarrow, all at once; the odd
ones (a list in it, an error page between the records, half a record) one by one.
"""

from __future__ import annotations

import codecs
import json
import zlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from connectors.block import ROW, Block, malformed_table, regrouped, table_schema
from connectors.errors import FatalError
from connectors.jsontext import DEEPEST, Lines, quoted
from connectors.source import FileOptions
from connectors.textfile import Opener, TextBlock, find_encoding, refuse_other_kinds, text_blocks, unpacked

MOST_COLUMNS = 2000

_record = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)


def blocks(opener: Opener, name: str, options: FileOptions, block_rows: int = 65536) -> Iterator[Block]:
    """The records of one file, in order, in bounded memory; line 1 is row 1. A file without any has ``options.columns``.

    Columns are those seen so far in the file: a later block can have more. Blank lines are counted and left out. Reasons
    of malformed lines: ``not-an-object``, ``key-repeated``, ``nul-character``, ``undecodable``. FatalError: ``file-empty``,
    ``file-is-html``, ``file-is-spreadsheet``, ``file-encoding``, ``columns-repeated``, ``file-truncated`` (before any
    block: a gzip file that breaks off; after the last: a record that does), ``file-line-too-long``, ``json-keys-many``.
    """
    inner = unpacked(opener)
    if _nothing(inner, packed=inner is not opener):
        yield _without_rows(options.columns)
        return
    opener = inner
    _refuse(opener, name)
    found = _Columns(name, options.agreed)
    parts = _parts(opener, name, options.encodings, found)
    for _, run in groupby(parts, key=lambda part: part.table.column_names):
        yield from regrouped(run, block_rows)


def _nothing(opener: Opener, packed: bool) -> bool:
    """An export without a record went well if it was packed to its end or has a line end; no byte at all is no export."""
    try:
        with opener() as stream:
            head = stream.read(4096)
    except (EOFError, OSError, zlib.error):  # told in words by whoever reads it next
        return False
    return (packed or b"\n" in head) and len(head) < 4096 and not head.strip(codecs.BOM_UTF8 + b" \t\r\n")


def _refuse(opener: Opener, name: str) -> None:
    """As :func:`refuse_other_kinds`; but an error page that has records after it is a line like others."""
    try:
        refuse_other_kinds(opener, name)
    except FatalError as error:
        with opener() as stream:
            head = stream.read(65536) if error.code == "file-is-html" else b""
        if b"\n{" not in head:
            raise


def _without_rows(columns: Sequence[str]) -> Block:
    return Block(table_schema(columns).empty_table(), malformed_table([], [], []))


def _parts(opener: Opener, name: str, encodings: Sequence[str], found: _Columns) -> Iterator[Block]:
    row = 1
    for text in text_blocks(opener, name, find_encoding(opener, name, encodings)):
        if row == 1:
            text.data = text.data.removeprefix(codecs.BOM_UTF8)
        block = _parsed(text, found, row)
        row += text.raw.count(b"\n")
        last = text.raw.rpartition(b"\n")[2].lstrip(codecs.BOM_UTF8 + b" \t\r")
        if last.startswith(b"{") and pc.any(pc.equal(block.malformed[ROW], row)).as_py():
            raise FatalError("file-truncated", file=name, row=row)
        yield block


def _parsed(text: TextBlock, found: _Columns, first_row: int) -> Block:
    whole = text.data if text.raw.endswith(b"\n") else text.data + b"\n"
    lines = Lines.of(whole)
    reasons = np.full(len(lines.newlines), "", dtype="U15")
    reasons[lines.ends > lines.starts] = "not-an-object"
    reasons[lines.holding(np.flatnonzero(lines.data == 0))] = "nul-character"
    reasons[text.bad] = "undecodable"

    buffer, plain = quoted(lines)
    table = found.parsed(buffer, int(plain.sum()))
    if table is None:  # the parser does not say which lines it stumbled over
        plain[:] = False
    parts = [] if table is None else [(table, np.flatnonzero(plain))]
    reasons[plain] = ""
    odd = np.flatnonzero(reasons == "not-an-object")
    answers = [_one(whole[lines.starts[line] : lines.ends[line]].strip()) for line in odd.tolist()]
    reasons[odd] = [answer if isinstance(answer, str) else "" for answer in answers]
    records = [answer for answer in answers if isinstance(answer, dict)]
    if records:
        parts.append((_table(records), odd[[isinstance(answer, dict) for answer in answers]]))
    rows = found.widened(parts)
    if len(parts) > 1:
        rows = rows.sort_by(ROW)
    if b"\\u0000" in whole:
        rows, nul = _without_nul(rows)
        reasons[nul] = "nul-character"
    rows = rows.set_column(rows.num_columns - 1, ROW, pc.add(rows[ROW], first_row))

    lost = np.flatnonzero(reasons != "")
    raw = text.raw.split(b"\n") if len(lost) else []
    malformed = malformed_table(
        (lost + first_row).tolist(), [raw[line].rstrip(b"\r") for line in lost], reasons[lost].tolist()
    )
    return Block(rows, malformed)


class _Columns:
    """The columns of one file as they are found, block by block: each stays, so that later blocks have it too."""

    def __init__(self, name: str, agreed: Sequence[str]) -> None:
        self._name, self._agreed = name, agreed
        self._known: dict[str, None] = {}
        self._schema = pa.schema([])

    def parsed(self, buffer: bytes, rows: int) -> pa.Table | None:
        """Lines of plain objects as a table without nested columns; None when some line is not JSON after all."""
        if not rows:
            return None
        try:
            table = self._read(buffer, self._schema)
            texts = pa.schema([_as_text(field) for field in table.schema])
            if texts != table.schema:  # pyarrow takes what looks like a time for one
                table = self._read(buffer, _told(texts))
        except pa.ArrowInvalid:
            return None
        if table.num_rows != rows:
            return None
        self._schema = _told(table.schema)
        while any(pa.types.is_struct(field.type) for field in table.schema):
            table = table.flatten()
        return table

    @staticmethod
    def _read(buffer: bytes, schema: pa.Schema) -> pa.Table:
        return pajson.read_json(
            pa.BufferReader(buffer),
            read_options=pajson.ReadOptions(use_threads=False, block_size=len(buffer) + 1),
            parse_options=pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior="infer"),
        )

    def widened(self, parts: Sequence[tuple[pa.Table, Any]]) -> pa.Table:
        """The rows of all ``parts``, each a table and the places of its rows, with all columns known and then ``_row``.

        FatalError when a name stands for two columns, or when there are more columns than any record has.
        """
        for table, _ in parts:
            names = table.column_names
            if repeated := sorted({name for name in names if names.count(name) > 1} | ({ROW} & set(names))):
                raise FatalError("columns-repeated", file=self._name, columns=", ".join(repeated))
            self._known |= dict.fromkeys(name for name in names if self._counts(name, table))
        if len(self._known) > MOST_COLUMNS:
            raise FatalError("json-keys-many", file=self._name, most=MOST_COLUMNS)
        names = list(self._known) if self._known or parts else list(self._agreed)
        if not parts:
            return table_schema(names).empty_table()
        return pa.concat_tables([self._as_known(table, places, names) for table, places in parts])

    def _counts(self, name: str, table: pa.Table) -> bool:
        """A name with nothing under it may be an object that no record of the block fills: no column of its own."""
        return not self._agreed or name in self._agreed or table[name].null_count < table.num_rows

    @staticmethod
    def _as_known(table: pa.Table, places: Any, names: Sequence[str]) -> pa.Table:
        nothing = pa.nulls(len(places), pa.string())
        present = set(table.column_names)
        columns: list[Any] = [table[name].cast(pa.string()) if name in present else nothing for name in names]
        return pa.table([*columns, pa.array(places, pa.int64())], schema=table_schema(names))


def _as_text(field: pa.Field) -> pa.Field:
    """The field with every value under it a string; those never filled stay undecided."""
    if pa.types.is_struct(field.type):
        return field.with_type(pa.struct([_as_text(part) for part in field.type]))
    return field if pa.types.is_null(field.type) else field.with_type(pa.string())


def _told(fields: pa.Schema | pa.StructType) -> pa.Schema:
    """What a later block may be told: what was never filled may yet turn out an object."""
    told = []
    for field in fields:
        if pa.types.is_struct(field.type):
            told.append(field.with_type(pa.struct(list(_told(field.type)))))
        elif not pa.types.is_null(field.type):
            told.append(field)
    return pa.schema(told)


def _one(line: bytes) -> dict[str, str | None] | str:
    """One record with dotted keys, or the reason why the line is none."""
    try:
        pairs = list(_flat(line, "", DEEPEST))
        _distinct(pairs)  # {"a.b": …, "a": {"b": …}}
        json.loads(line, object_pairs_hook=_distinct, parse_int=str)
    except KeyError:
        return "key-repeated"
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return "not-an-object"
    return dict(pairs)


def _flat(raw: bytes, prefix: str, levels: int) -> Iterator[tuple[str, str | None]]:
    if not levels:
        raise ValueError("nested too deep")
    for key, value in _record.decode(raw).items():
        text = bytes(value)
        if text.startswith(b"{"):
            yield from _flat(text, f"{prefix}{key}.", levels - 1)
        elif text.startswith(b'"'):
            yield prefix + key, _text.decode(text)
        else:
            yield prefix + key, None if text == b"null" else text.decode()


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    """Two values under one name: which is meant, nobody knows."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise KeyError


def _table(records: Sequence[dict[str, str | None]]) -> pa.Table:
    names = list(dict.fromkeys(key for record in records for key in record))
    return pa.table({name: pa.array([record.get(name) for record in records], pa.string()) for name in names})


def _without_nul(table: pa.Table) -> tuple[pa.Table, Any]:
    """A NUL character can be stored nowhere downstream. Also returns the places of the rows left out."""
    hit = np.zeros(table.num_rows, dtype=bool)
    for name in table.column_names[:-1]:
        hit |= pc.fill_null(pc.match_substring(table[name], "\x00"), False).to_numpy(zero_copy_only=False)
    return table.filter(pa.array(~hit)), table[ROW].to_numpy()[hit]
