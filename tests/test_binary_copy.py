"""hub/binary_copy.py: the bytes of the format, and back. With a real server: tests/test_copying.py."""

from __future__ import annotations

import datetime as dt
import struct

import pyarrow as pa
import pytest

from hub import binary_copy

TABLE = pa.table(
    {
        "n": pa.array([1, -2, None], pa.int64()),
        "text": pa.array(["上", None, ""]),
        "id": pa.array([b"a" * 16, b"b" * 16, b"c" * 16], pa.binary(16)),
        "day": pa.array([dt.date(2000, 1, 2), None, dt.date(1999, 12, 31)]),
        "at": pa.array([dt.datetime(2000, 1, 1, 0, 0, 1, tzinfo=dt.UTC)] * 3, pa.timestamp("us", "UTC")),
        "ok": pa.array([True, False, None]),
    }
)
TYPES = ["int8", "text", "uuid", "date", "timestamptz", "bool"]


def field(form: str, value: int | bytes | None) -> bytes:
    if value is None:
        return struct.pack(">i", -1)
    packed = value if isinstance(value, bytes) else struct.pack(form, value)
    return struct.pack(">i", len(packed)) + packed


def tuples() -> list[bytes]:
    rows = [
        (1, "上".encode(), b"a" * 16, 1, 1_000_000, 1),
        (-2, None, b"b" * 16, None, 1_000_000, 0),
        (None, b"", b"c" * 16, -1, 1_000_000, None),
    ]
    forms = (">q", "", "", ">i", ">q", ">B")
    return [struct.pack(">h", 6) + b"".join(map(field, forms, row)) for row in rows]


def test_bytes() -> None:
    assert binary_copy.encoded(TABLE, TYPES).to_pybytes() == b"".join(tuples())
    for row in range(3):
        assert binary_copy.encoded(TABLE.slice(row, 1), TYPES).to_pybytes() == tuples()[row]


def test_back() -> None:
    assert binary_copy.decoded(b"".join(tuples()), [len(row) for row in tuples()], TABLE.schema) == TABLE
    assert binary_copy.decoded(b"", [], TABLE.schema) == TABLE.schema.empty_table()


def test_nulls_that_happen_to_have_the_size_of_values() -> None:
    """Two rows of other widths that together are as long as two whole ones are not read as those."""
    schema = pa.schema({"id": pa.binary(16), "n": pa.int64()})
    rows = [struct.pack(">h", 2) + field("", b"a" * 16) + field(">q", value) for value in (1, None)]
    assert binary_copy.decoded(b"".join(rows), [len(row) for row in rows], schema).to_pylist() == [
        {"id": b"a" * 16, "n": 1},
        {"id": b"a" * 16, "n": None},
    ]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("int2", pa.array([70_000])),
        ("timestamptz", pa.array([dt.datetime(2020, 1, 1)])),
        ("uuid", pa.array([b"short"])),
        ("int8", pa.array(["12x"])),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, values: pa.Array) -> None:
    with pytest.raises((ValueError, pa.ArrowInvalid)):
        binary_copy.encoded(pa.table({"a": values}), [kind])
