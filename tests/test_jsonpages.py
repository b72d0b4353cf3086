"""connectors/jsonpages.py: values come through exactly as written."""

from __future__ import annotations

import json

import pytest

from connectors.block import ROW
from connectors.errors import FatalError
from connectors.jsonpages import block


def rows(page: str | bytes) -> list[dict[str, object]]:
    return block(page.encode() if isinstance(page, str) else page, "p.json", "records", ["x"]).table.to_pylist()


def test_strings_and_absent_keys() -> None:
    page = json.dumps({"records": [{"a": "上\n海", "b": None}, {"b": ""}, {"c": "\U0001f600"}], "total": 3})
    assert rows(page) == [
        {"a": "上\n海", "b": None, "c": None, ROW: 1},
        {"a": None, "b": "", "c": None, ROW: 2},
        {"a": None, "b": None, "c": "\U0001f600", ROW: 3},
    ]


def test_numbers_keep_their_digits() -> None:
    page = '{"records": [{"a": 310101199001011234567890, "b": 1.10, "c": true, "d": 1E3, "e": -0, "f": "001"}]}'
    assert rows(page) == [
        {"a": "310101199001011234567890", "b": "1.10", "c": "true", "d": "1E3", "e": "-0", "f": "001", ROW: 1}
    ]


def test_byte_order_mark() -> None:
    assert rows(b'\xef\xbb\xbf{"records": [{"a": "x"}]}') == [{"a": "x", ROW: 1}]


def test_nested_values_keep_their_text() -> None:
    page = '{"records": [{"a": {"z": [1.0, "x"]}, "b": [], "c": "\\u4e0a\\"x"}]}'
    assert rows(page) == [{"a": '{"z": [1.0, "x"]}', "b": "[]", "c": '上"x', ROW: 1}]


def test_page_without_records_has_the_agreed_columns() -> None:
    found = block(b'{"records": [], "total": 0}', "p.json", "records", ["x", "y"])
    assert found.table.column_names == ["x", "y", ROW]
    assert found.table.num_rows == 0


def test_a_record_that_is_none_is_malformed() -> None:
    found = block(b'{"records": [{"a": 1}, "x", [2], null, {"a": "y"}]}', "p", "records", [])
    assert found.table.to_pylist() == [{"a": "1", ROW: 1}, {"a": "y", ROW: 5}]
    assert found.malformed[ROW].to_pylist() == [2, 3, 4]
    assert found.malformed["raw"].to_pylist() == [b'"x"', b"[2]", b"null"]
    assert set(found.malformed["reason"].to_pylist()) == {"not-an-object"}


def test_nul_is_malformed() -> None:
    found = block(b'{"records": [{"a": "x\\u0000", "b": null}, {"a": "y"}]}', "p", "records", [])
    assert found.table.to_pylist() == [{"a": "y", "b": None, ROW: 2}]
    assert found.malformed.to_pylist() == [{ROW: 1, "raw": b'{"a":"x\\u0000","b":null}', "reason": "nul-character"}]


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"rows": []}',
        b'{"records": {}}',
        b'{"records": [{"a": "b"',
        b"\xff",
        b'{"records": [{"a": "\\ud800"}]}',
        b"[" * 100_000,
    ],
)
def test_not_a_page(page: bytes) -> None:
    with pytest.raises(FatalError) as caught:
        rows(page)
    assert caught.value.code == "page-not-records"
    assert "p.json" in caught.value.message("zh")


def test_reserved_column() -> None:
    with pytest.raises(FatalError) as caught:
        rows('{"records": [{"_row": "1"}]}')
    assert caught.value.code == "columns-repeated"
