"""Answers as tuples of PostgreSQL's binary COPY format, a few at a time: what a driver takes a microsecond a value for.

For tables there is :mod:`hub.binary_copy`, over Arrow; a group of lookups is too small for that.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterable
from struct import Struct

from hub.records import Record

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_NULL = b"\xff\xff\xff\xff"
_TEXT, _BYTEA = 25, 17  # object ids of the types whose arrays there are
_ARRAY = Struct(">iiiiii").pack
_SIXTEEN = (16).to_bytes(4, "big")
_BEGIN = Struct(">hi16siq").pack
_LENGTH = Struct(">i").pack
_FIELDS = len(Record._fields)


def copied(rows: Iterable[Record]) -> bytearray:
    """``rows`` with header and trailer, in the order of the fields of :class:`Record`."""
    parts = [_HEADER]
    for row in rows:
        inputs = row.inputs.encode()
        parts += (
            _BEGIN(_FIELDS, 16, row.id, 8, (row.asked_at - _EPOCH) // _MICROSECOND),
            _same(row.client, row.purpose, row.case, row.item, row.version, row.language),
            _LENGTH(len(row.applicant)),
            row.applicant,
            _codes(row.must_submit),
            _LENGTH(len(row.inputs_digest)),
            row.inputs_digest,
            _LENGTH(len(inputs)),
            inputs,
            _NULL if row.trace is None else _text(row.trace),
            _LENGTH(len(row.rules)),
            row.rules,
            _LENGTH(len(row.said)),
            row.said,
            _NULL if row.others is None else _digests(row.others),
        )
    parts.append(_TRAILER)
    return bytearray(b"".join(parts))


@functools.lru_cache(10_000)
def _same(client: str, purpose: str, case: str | None, item: str, version: int, language: str) -> bytes:
    """Fields that many answers have in common."""
    return b"".join((
        _text(client), _text(purpose), _NULL if case is None else _text(case), _text(item), _LENGTH(4), _LENGTH(version),
        _text(language),
    ))  # fmt: skip


def _digests(others: tuple[bytes, ...]) -> bytes:
    """The array of keyed hashes, of 16 bytes each."""
    parts = [_ARRAY(20 + 20 * len(others), 1, 0, _BYTEA, len(others), 1)]
    for digest in others:
        parts += (_SIXTEEN, digest)
    return b"".join(parts)


@functools.lru_cache(10_000)
def _codes(joined: str) -> bytes:
    """The array of the codes in ``joined``."""
    codes = joined.split(" ") if joined else []
    dimensions = Struct(">iiiii").pack(1, 0, _TEXT, len(codes), 1) if codes else Struct(">iii").pack(0, 0, _TEXT)
    array = dimensions + b"".join(map(_text, codes))
    return _LENGTH(len(array)) + array


def _text(value: str) -> bytes:
    text = value.encode()
    return _LENGTH(len(text)) + text
