"""connectors/jsonpages.py: values come through exactly as written."""

from __future__ import annotations

import json

import pytest

from connectors.block import ROW
from connectors.errors import FatalError
from connectors.jsonpages import block

NESTED = ["certificate.number", "holder.name", "holder.id.number", "holder.id.type", "x"]


def rows(page: str | bytes) -> list[dict[str, object]]:
    return block(page.encode() if isinstance(page, str) else page, "p.json", "records", ["x"]).table.to_pylist()


def nested(*records: object) -> list[dict[str, object]]:
    found = block(json.dumps({"records": records}).encode(), "p.json", "records", NESTED)
    return [{key: value for key, value in row.items() if key != ROW} for row in found.table.to_pylist()]


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


def test_objects_are_opened_where_a_column_lies_inside() -> None:
    record = {
        "certificate": {"number": "k-1"},
        "holder": {"name": "某人", "id": {"type": "passport", "number": 310101199001011234}},
        "x": {"y": [1]},
    }
    assert nested(record) == [
        {
            "certificate.number": "k-1",
            "holder.name": "某人",
            "holder.id.type": "passport",
            "holder.id.number": "310101199001011234",
            "x": '{"y": [1]}',
        }
    ], "a column that is itself an object keeps its text"


def test_what_was_not_agreed_on_shows_as_a_column() -> None:
    (row,) = nested({"certificate": {"number": "1", "seal": {"by": "x"}, "pages": [{"n": 1}]}, "school": {"code": "2"}})
    assert row == {
        "certificate.number": "1",
        "certificate.seal": '{"by": "x"}',
        "certificate.pages": '[{"n": 1}]',
        "school": '{"code": "2"}',
    }


def test_what_is_missing_does_not_show() -> None:
    assert nested({"holder": {"id": {}}}) == [{}]
    assert nested({"holder": {"name": "x"}}, {"certificate": {"number": "1"}}) == [
        {"holder.name": "x", "certificate.number": None},
        {"holder.name": None, "certificate.number": "1"},
    ]


def test_null_stands_for_all_that_an_object_could_hold() -> None:
    empty = {"holder.name": None, "holder.id.number": None, "holder.id.type": None}
    assert nested({"holder": None}) == [empty]
    assert nested({"holder": {"name": "x", "id": None}}) == [{**empty, "holder.name": "x"}]


def test_something_else_in_place_of_an_object_is_a_column_of_its_own() -> None:
    assert nested({"certificate": "k-1"}, {"certificate": {"number": "k-2"}}, {"certificate": None}, {"certificate": 5}) == [
        {"certificate": "k-1", "certificate.number": None},
        {"certificate": None, "certificate.number": "k-2"},
        {"certificate": None, "certificate.number": None},
        {"certificate": "5", "certificate.number": None},
    ]  # fmt: skip


def test_two_keys_that_come_to_one_path() -> None:
    with pytest.raises(FatalError) as caught:
        nested({"holder.name": "x", "holder": {"name": "y"}})
    assert caught.value.code == "columns-repeated"


def test_malformed_between_nested_records() -> None:
    page = b'{"records": [{"holder": {"name": "x"}}, "y", {"holder": {"name": "z\\u0000"}}, {"holder": {"name": "a"}}]}'
    found = block(page, "p", "records", NESTED)
    assert found.table.to_pylist() == [{"holder.name": "x", ROW: 1}, {"holder.name": "a", ROW: 4}]
    assert [(row[ROW], row["raw"], row["reason"]) for row in found.malformed.to_pylist()] == [
        (2, b'"y"', "not-an-object"),
        (3, b'{"holder": {"name": "z\\u0000"}}', "nul-character"),
    ]


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
    assert found.malformed.to_pylist() == [{ROW: 1, "raw": b'{"a": "x\\u0000", "b": null}', "reason": "nul-character"}]


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
