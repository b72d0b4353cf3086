"""Rows that did not pass as the quarantine keeps them, and whether they are what came: their digest made once more.

A row is kept as JSON of the columns that its digest is over (:mod:`hub.staging`): those that the source names, as a delivery with
others halts. A line that is no row is kept as its bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json
import sqlalchemy as sa
from numpy.typing import NDArray

from hub import copying, digests
from hub.staging import MALFORMED

_KEPT = pa.schema({"id": pa.int64(), "raw": pa.binary(), "digest": digests.DIGEST})


def altered(connection: sa.Connection) -> Iterator[int]:
    """Entries of the quarantine whose raw row is not the one that their digest was made of; memory stays bounded."""
    for part in copying.batches_of(connection, "SELECT id, raw, digest FROM quarantine ORDER BY id", _KEPT, {}):
        yield from part["id"].filter(pa.array(differing(part["raw"], part["digest"]))).to_pylist()


def differing(raw: pa.ChunkedArray, digest: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which of the rows kept (n,) have another digest (n,): no line of these bytes, and no row of these columns."""
    other = ~_equal(digests.of_bytes(raw, MALFORMED), digest)
    places = np.flatnonzero(other)
    if len(places):
        rows = pa.array(places)
        found = _of_rows(raw.take(rows).combine_chunks())
        other[places] = ~_equal(found, digest.take(rows))
    return other


def columns(lines: Sequence[bytes], names: Sequence[str]) -> pa.Table:
    """Rows kept, as columns of strings: nothing is read as a date or a number on the way. Those of ``names`` that a row does
    not have are null in it. ArrowInvalid where one is no row of strings."""
    schema = pa.schema([(name, pa.string()) for name in names])
    parsing = pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    text = b"\n".join(lines)
    # One block however long: a record must not be cut.
    return pa_json.read_json(io.BytesIO(text), pa_json.ReadOptions(block_size=len(text) + 1), parsing)


def _equal(one: pa.Array, other: pa.ChunkedArray) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = pc.fill_null(pc.equal(one, other.combine_chunks()), False).to_numpy(zero_copy_only=False)
    return same


def _of_rows(raw: pa.BinaryArray) -> pa.Array:
    """The digest of each row; rows of the same columns together. What cannot be read so is read alone."""
    try:
        names = _names(raw.cast(pa.string()))
        found = pa.nulls(len(raw), digests.DIGEST)
        for one in names.dictionary:
            mask = pc.fill_null(pc.equal(names, one), False)
            rows, own = raw.filter(mask), json.loads(one.as_py())
            table = columns(rows.to_pylist(), own)
            if not own or len(set(own)) < len(own) or table.num_rows != len(rows):
                raise pa.ArrowInvalid("not a row a line")
            sorted_ = sorted(own)
            found = pc.replace_with_mask(found, mask, digests.of_columns([table[name] for name in sorted_], sorted_))
    except pa.ArrowInvalid:  # somebody wrote it
        return pa.array([_alone(line) for line in raw.to_pylist()], digests.DIGEST)
    return found


def _names(lines: pa.StringArray) -> pa.DictionaryArray:
    """The column names of each row, as JSON; null for what is no object."""
    with duckdb.connect(config={"threads": 1}) as reader:
        reader.register("kept", pa.table({"place": pa.array(np.arange(len(lines))), "raw": lines}))
        told = reader.sql(
            """SELECT CASE WHEN json_valid(raw) AND json_type(raw) = 'OBJECT' THEN to_json(json_keys(raw))::VARCHAR END AS names
            FROM kept ORDER BY place"""
        ).to_arrow_table()
    return told["names"].combine_chunks().dictionary_encode()


def _alone(line: bytes) -> bytes | None:
    """As :func:`hub.digests.of_columns` of one row; None where it is none."""
    try:
        pairs: list[tuple[str, object]] = json.loads(line, object_pairs_hook=list)
    except ValueError:
        return None
    row = dict(pairs) if isinstance(pairs, list) and all(isinstance(one, tuple) for one in pairs) else {}
    if len(row) < len(pairs) or not all(value is None or isinstance(value, str) for value in row.values()):
        return None
    values = ["-" if (value := row[name]) is None else f"{len(str(value))}:{value}" for name in sorted(row)]
    text = "\x1f".join(["\x1f".join(sorted(row)), *values])
    return hashlib.md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
