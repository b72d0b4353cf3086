"""Arrow tables ↔ the tuples of PostgreSQL's binary COPY format, a column at a time.

A tuple is the number of its fields, then for each field its length (-1: null) and its bytes, all big-endian. Encoding
lays out every run of fields of known width as one numpy record, and Arrow joins the runs with the values between them.
Decoding reads tuples of one width as numpy records, and finds the fields of all others column by column.

Source: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format", and the send function of each type.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

EPOCH_DAYS = 10_957  # from 1970-01-01 to 2000-01-01, where PostgreSQL counts from
EPOCH_MICROS = EPOCH_DAYS * 86_400_000_000
MOMENT = pa.timestamp("us", "UTC")
UUID = pa.binary(16)
ROOM = 16  # after the last tuple, so that a look at a value of the greatest width stays within

_ARROW = {
    "bool": pa.bool_(), "int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64(), "timestamptz": MOMENT,
    "date": pa.date32(), "uuid": UUID, "bytea": pa.binary(), "text": pa.string(), "json": pa.string(),
    "jsonb": pa.string(), "float8": pa.float64(),
}  # fmt: skip
_WIRE = {
    pa.bool_(): "u1", pa.int16(): ">i2", pa.int32(): ">i4", pa.int64(): ">i8", MOMENT: ">i8", pa.date32(): ">i4",
    UUID: "V16", pa.float64(): ">f8",
}  # fmt: skip
_EPOCH = {MOMENT: EPOCH_MICROS, pa.date32(): EPOCH_DAYS}
_ELEMENTS = {  # with their object ids
    "text[]": ("text", 25), "bytea[]": ("bytea", 17), "uuid[]": ("uuid", 2950), "float8[]": ("float8", 701),
}  # fmt: skip
TYPES = frozenset((*_ARROW, *_ELEMENTS))

Field = tuple[Any, Any]  # lengths (n,) or one for all; values: numpy (n,) of one width, or a binary array


def encoded(table: pa.Table, types: Sequence[str | bytes]) -> pa.Buffer:
    """The tuples of ``table``, less than 2 GB of them. ``types``: PostgreSQL's, of ``TYPES``, one a column; arrays come from
    lists. Between them stand fields that are the same in every tuple (:func:`constant`).

    ArrowInvalid when a value does not fit its type, ArrowNotImplementedError when a column cannot become it; ValueError
    for moments without a zone.
    """
    columns = iter(table.columns)
    fields = (name if isinstance(name, bytes) else _field(next(columns).combine_chunks(), name) for name in types)
    tuples = _joined([(">i2", len(types))], fields, table.num_rows)
    ends = np.frombuffer(tuples.buffers()[1], np.int32)
    return tuples.buffers()[2].slice(0, int(ends[-1]))


def constant(value: object, name: str) -> bytes:
    """``value`` as a field of type ``name``, its length before it."""
    _lengths, content = _field(pa.array([value], _ARROW[name]), name)
    if value is None:
        return bytes.fromhex("ffffffff")
    data = content.tobytes() if isinstance(content, np.ndarray) else content[0].as_py()
    return len(data).to_bytes(4, "big") + bytes(data)


def _joined(run: list[tuple[str, Any]], fields: Iterable[Field | bytes], rows: int) -> pa.BinaryArray:
    """One binary value a row: what ``run`` starts with, and every field after its length."""
    parts: list[pa.BinaryArray] = []
    for field in fields:
        if isinstance(field, bytes):
            run.append((f"V{len(field)}", np.void(field)))
            continue
        lengths, values = field
        run.append((">i4", lengths))
        if isinstance(values, np.ndarray):
            run.append((values.dtype.str, values))
        else:
            parts += [_record(run, rows), values]
            run = []
    if run:
        parts.append(_record(run, rows))
    return pc.binary_join_element_wise(*parts, pa.scalar(b"", pa.binary())) if len(parts) > 1 else parts[0]


def _record(run: list[tuple[str, Any]], rows: int) -> pa.BinaryArray:
    records = np.empty(rows, np.dtype([(str(place), kind) for place, (kind, _) in enumerate(run)]))
    for place, (_, values) in enumerate(run):
        records[str(place)] = values
    return _cut(records, np.full(rows, records.itemsize))


def _cut(data: NDArray[Any], lengths: NDArray[Any]) -> pa.BinaryArray:
    """Consecutive bytes as values of ``lengths``."""
    return _binary(pa.py_buffer(data), np.concatenate(([0], np.cumsum(lengths))))


def _binary(data: pa.Buffer, offsets: NDArray[Any]) -> pa.BinaryArray:
    return pa.BinaryArray.from_buffers(
        pa.binary(), len(offsets) - 1, [None, pa.py_buffer(offsets.astype(np.int32)), data]
    )


def _field(values: pa.Array, name: str) -> Field:
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    if name in _ELEMENTS:
        content = _array(values, *_ELEMENTS[name])
    elif (name == "bytea" and pa.types.is_fixed_size_binary(values.type)) or _ARROW[name] in _WIRE:
        numbers = _numbers(values, name)
        if not values.null_count:
            return numbers.itemsize, numbers
        content = _cut(numbers[valid], np.where(valid, numbers.itemsize, 0))
    else:
        content = values.cast(_ARROW[name]).cast(pa.binary())
        if name == "jsonb":  # the version of its form before the text
            content = pc.binary_join_element_wise(b"\1", content, b"")
        content = pc.fill_null(content, b"")
    lengths = pc.binary_length(content).to_numpy()
    return (np.where(valid, lengths, -1) if values.null_count else lengths), content


def _numbers(values: pa.Array, name: str) -> NDArray[Any]:
    """Fixed-width values as PostgreSQL counts them, in its byte order; anything where null."""
    if pa.types.is_timestamp(values.type) and values.type.tz is None:
        raise ValueError(f"{name}: a moment needs a zone")
    kind = values.type if name == "bytea" else _ARROW[name]
    values = values.cast(kind)
    if pa.types.is_fixed_size_binary(kind):
        wire, native = f"V{kind.byte_width}", f"V{kind.byte_width}"
    else:
        wire, values = _WIRE[kind], values.cast(pa.uint8()) if kind == pa.bool_() else values
        native = wire.replace(">", "=")
    width = np.dtype(native).itemsize
    numbers = np.frombuffer(values.buffers()[1], native, len(values), values.offset * width)
    return (numbers - _EPOCH[kind] if kind in _EPOCH else numbers).astype(wire, copy=False)


def _array(values: pa.ListArray, element: str, oid: int) -> pa.BinaryArray:
    """Arrays of one dimension (none when empty): a header, and each element after its length."""
    flat, counts = values.flatten(), pc.fill_null(pc.list_value_length(values), 0).to_numpy()
    elements = _joined([], [_field(flat, element)], len(flat)) if len(flat) else pa.array([], pa.binary())
    ends = np.frombuffer(elements.buffers()[1], np.int32)
    contents = _binary(elements.buffers()[2], ends[np.concatenate(([0], np.cumsum(counts)))])
    headers = np.empty(len(values), ">i4,>i4,>i4,>i4,>i4")  # dimensions, nulls, type; size, first index
    for place, value in enumerate((np.minimum(counts, 1), int(flat.null_count > 0), oid, counts, 1)):
        headers[f"f{place}"] = value
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    sizes = np.where(valid, np.where(counts > 0, 20, 12), 0)
    kept = headers.view(np.uint8).reshape(-1, 20)[np.arange(20) < sizes[:, None]]
    return pc.binary_join_element_wise(_cut(kept, sizes), contents, pa.scalar(b"", pa.binary()))


def has_form(kind: pa.DataType) -> bool:
    """Whether :func:`decoded` reads this type."""
    return kind in _WIRE or pa.types.is_string(kind) or pa.types.is_binary(kind)


def decoded(tuples: bytes | memoryview, sizes: Sequence[int], schema: pa.Schema) -> pa.Table:
    """Tuples, less than 2 GB of them, as a table. ``sizes``: bytes of each.

    The columns must be what the schema says: int2, int4, int8, float8, bool, timestamptz, date, uuid or bytea for
    ``binary(16)``, bytea for ``binary``, text or json for ``string``. ValueError when a width shows that one is not.
    """
    if not sizes:
        return schema.empty_table()
    content = np.frombuffer(tuples, np.uint8)
    return pa.table(_records(content, len(sizes), schema) or _fields(content, sizes, schema), schema=schema)


def _records(content: NDArray[np.uint8], rows: int, schema: pa.Schema) -> list[pa.Array] | None:
    """Tuples of fixed-width fields without nulls; None when they are not all so."""
    if any(kind not in _WIRE for kind in schema.types):
        return None
    run = [("fields", ">i2")]
    for place, kind in enumerate(schema.types):
        run += [(f"length{place}", ">i4"), (f"value{place}", _WIRE[kind])]
    layout = np.dtype(run)
    if len(content) != rows * layout.itemsize:
        return None
    records = content.view(layout)
    widths = [np.dtype(_WIRE[kind]).itemsize for kind in schema.types]
    if any((records[f"length{place}"] != width).any() for place, width in enumerate(widths)):
        return None
    return [_column(records[f"value{place}"], kind) for place, kind in enumerate(schema.types)]


def _column(values: NDArray[Any], kind: pa.DataType, null: NDArray[np.bool_] | None = None) -> pa.Array:
    """Fixed-width values as they came → Arrow."""
    if kind == UUID:
        column = pa.Array.from_buffers(UUID, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])
        return column if null is None else pc.if_else(pa.array(null), pa.scalar(None, UUID), column)
    native = values.astype(values.dtype.newbyteorder("="))
    if kind == pa.bool_():
        return pa.array(native.astype(bool), mask=null)
    return pa.array(native + _EPOCH[kind] if kind in _EPOCH else native, mask=null).cast(kind)


def _fields(content: NDArray[np.uint8], sizes: Sequence[int], schema: pa.Schema) -> list[pa.Array]:
    content = np.concatenate((content, np.zeros(ROOM, np.uint8)))
    places = np.concatenate(([0], np.cumsum(np.array(sizes, np.int64))))[:-1] + 2
    arrays = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        lengths = _windows(content, places, 4).view(">i4")[:, 0].astype(np.int64)
        places, null = places + 4, lengths < 0
        ends = places + np.where(null, 0, lengths)
        if kind in _WIRE:
            wire = np.dtype(_WIRE[kind])
            if (lengths[~null] != wire.itemsize).any():
                raise ValueError(f"column {name} is not {kind}")
            arrays.append(_column(_windows(content, places, wire.itemsize).view(wire)[:, 0], kind, null))
        else:
            values = _binary(pa.py_buffer(content), np.stack((places, ends), axis=1).ravel())
            values = values.take(pa.array(np.arange(0, len(values), 2)))  # between two of them lies the rest of a tuple
            arrays.append(pc.if_else(pa.array(null), pa.scalar(None, pa.binary()), values).cast(kind))
        places = ends
    return arrays


def _windows(content: NDArray[np.uint8], places: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    return np.lib.stride_tricks.sliding_window_view(content, width)[places]
