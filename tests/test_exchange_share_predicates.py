"""hub/exchange/share_predicates.py: what is understood is understood exactly, everything else is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from connectors.errors import UsageError
from hub.exchange.share_predicates import DEEPEST, Columns, named, read

COLUMNS: Columns = {
    "name": "string", "valid_from": "date", "attributes.grade": "string", "attributes.count": "integer",
    "attributes.area": "decimal", "attributes.married": "boolean", "attributes.capital": "money",
    "holder.holder.value": "string",
}  # fmt: skip


def sql(text: str) -> Any:
    return read([text], None, COLUMNS)


def as_json(said: object) -> Any:
    return read([], json.dumps(said), COLUMNS)


def column(name: str, kind: str) -> dict[str, str]:
    return {"op": "column", "name": name, "valueType": kind}


def literal(value: Any, kind: str) -> dict[str, Any]:
    return {"op": "literal", "value": value, "valueType": kind}


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("name = '甲'", ["=", "name", "甲"]),
        ("'甲' <> name", ["<>", "name", "甲"]),
        ("5 < attributes.count", [">", "attributes.count", "5"]),
        ("`attributes.count` >= -07", [">=", "attributes.count", "-7"]),
        ("`attributes`.`count` == +3", ["=", "attributes.count", "3"]),
        ("name = 'it''s'", ["=", "name", "it's"]),
        ("name = 'a AND b'", ["=", "name", "a AND b"]),
        ("valid_from <= '2026-03-01'", ["<=", "valid_from", "2026-03-01"]),
        ("valid_from > DATE '2026-03-01'", [">", "valid_from", "2026-03-01"]),
        ("attributes.area = 010.5000", ["=", "attributes.area", "10.5"]),
        ("attributes.area != 0.0", ["<>", "attributes.area", "0"]),
        ("attributes.married = TRUE", ["=", "attributes.married", "true"]),
        ("attributes.capital IS NOT NULL", ["not", ["null", "attributes.capital"]]),
        ("name is null", ["null", "name"]),
        ("name = 'a' OR name = 'b' AND attributes.count = 1", ["or", ["=", "name", "a"], ["and", ["=", "name", "b"], ["=", "attributes.count", "1"]]]),
        ("(name = 'a' OR name = 'b') AND NOT name = 'c'", ["and", ["or", ["=", "name", "a"], ["=", "name", "b"]], ["not", ["=", "name", "c"]]]),
        ("name IN ('a', 'b')", ["or", ["=", "name", "a"], ["=", "name", "b"]]),
        ("name NOT IN ('a')", ["not", ["or", ["=", "name", "a"]]]),
        ("attributes.count BETWEEN 1 AND 3 AND name = 'a'", ["and", ["and", [">=", "attributes.count", "1"], ["<=", "attributes.count", "3"]], ["=", "name", "a"]]),
        ("attributes.count NOT BETWEEN 1 AND 3", ["not", ["and", [">=", "attributes.count", "1"], ["<=", "attributes.count", "3"]]]),
        ("  name='a'  ", ["=", "name", "a"]),
    ],
)  # fmt: skip
def test_sql(text: str, node: object) -> None:
    assert sql(text) == node


@pytest.mark.parametrize(
    "text",
    [
        "", "name", "name =", "= 'a'", "name = name", "'a' = 'a'", "1 = 1", "TRUE", "name = NULL", "name <=> 'a'",
        "name LIKE 'a%'", "lower(name) = 'a'", "name = 'a' name", "name = 'a' AND", "(name = 'a'", "name = 'a')",
        "name = 'a\\'b'", 'name = "a"', "name = 'a", "name IN ()", "name IN ('a',)", "name IN (NULL)", "name NOT 'a'",
        "attributes.count = 1e3", "attributes.count = 1.2.3", "attributes.count = 0x10", "attributes.count = 5L",
        "name = 'a'; DROP TABLE holding", "name = 'a' -- x", "name = 'a' /* x */", "NOT", "name IS", "name IS NOT",
        "attributes.count + 1 = 2", "name BETWEEN 'a'", "(name) = 'a'", "CAST(name AS date) = '2026-01-01'",
        "name = DATE", "EXISTS (SELECT 1)", "name = 'a' OR OR name = 'b'", "name = ?", "name = :a", "!name = 'a'",
        "(" * (DEEPEST + 1) + "name = 'a'" + ")" * (DEEPEST + 1), "NOT " * (DEEPEST + 1) + "name = 'a'",
        "name = 'a'" + " OR name = 'a'" * 2000,
    ],
)  # fmt: skip
def test_sql_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        sql(text)
    assert refused.value.code == "share-predicate-unreadable" and refused.value.values == {"hint": 1}


@pytest.mark.parametrize(
    "text", ["attributes.sex = '男'", "key = 'a'", "NAME = 'a'", "attributes = 'a'", "`na me` = 'a'"]
)
def test_only_agreed_columns_can_be_named(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        sql(text)
    assert refused.value.code == "share-predicate-column"
    assert "sex" not in refused.value.values["known"] and "男" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "name = 1", "name = TRUE", "name = DATE '2026-01-01'", "valid_from = '2026-02-30'", "valid_from = '2026-2-1'", "valid_from = 20260101",
        "attributes.count = '1'", "attributes.count = 1.5", f"attributes.count = {2**63}", "attributes.area = 1.23456",
        "attributes.area = 12345678901234567", "attributes.married = 'true'", "attributes.married < TRUE",
        "attributes.capital = 5", "attributes.married = 1",
    ],
)  # fmt: skip
def test_values_are_of_the_columns_type(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        sql(text)
    assert refused.value.code == "share-predicate-type"


def test_the_longest_numbers_that_fit() -> None:
    assert sql(f"attributes.count = {2**63 - 1}")[2] == str(2**63 - 1)
    assert sql(f"attributes.count = -{2**63}")[2] == str(-(2**63))
    assert sql("attributes.area = -1234567890123456.1234")[2] == "-1234567890123456.1234"


@pytest.mark.parametrize(
    ("said", "node"),
    [
        ({"op": "equal", "children": [column("valid_from", "date"), literal("2021-04-29", "date")]}, ["=", "valid_from", "2021-04-29"]),
        ({"op": "lessThan", "children": [literal("25", "int"), column("attributes.count", "int")]}, [">", "attributes.count", "25"]),
        ({"op": "greaterThanOrEqual", "children": [column("attributes.count", "long"), literal(25, "long")]}, [">=", "attributes.count", "25"]),
        ({"op": "equal", "children": [column("attributes.married", "bool"), literal("False", "bool")]}, ["=", "attributes.married", "false"]),
        ({"op": "equal", "children": [column("attributes.area", "decimal"), literal("2.5", "decimal")]}, ["=", "attributes.area", "2.5"]),
        ({"op": "not", "children": [{"op": "isNull", "children": [column("name", "string")]}]}, ["not", ["null", "name"]]),
        (
            {"op": "or", "children": [
                {"op": "lessThanOrEqual", "children": [column("name", "string"), literal("a", "string")]},
                {"op": "greaterThan", "children": [column("name", "string"), literal("b", "string")]},
            ]},
            ["or", ["<=", "name", "a"], [">", "name", "b"]],
        ),
    ],
)  # fmt: skip
def test_json(said: object, node: object) -> None:
    assert as_json(said) == node


EQUAL = {"op": "equal", "children": [column("name", "string"), literal("a", "string")]}


@pytest.mark.parametrize(
    "said",
    [
        None, [], "x", {}, {"op": "equal"}, {"op": "equal", "children": []}, {"op": "and", "children": [EQUAL]},
        {"op": "like", "children": EQUAL["children"]}, {**EQUAL, "caseSensitive": False}, {"op": "not", "children": [EQUAL, EQUAL]},
        {"op": "equal", "children": [column("name", "string"), column("name", "string")]},
        {"op": "equal", "children": [literal("a", "string"), literal("a", "string")]},
        {"op": "equal", "children": [column("name", "string"), {**literal("a", "string"), "x": 1}]},
        {"op": "equal", "children": [column("name", "string"), literal(None, "string")]},
        {"op": "equal", "children": [column("attributes.count", "int"), literal(2.5, "int")]},
        {"op": "equal", "children": [column("attributes.count", "int"), literal("١", "int")]},
        {"op": "equal", "children": [column("attributes.married", "bool"), literal("yes", "bool")]},
        {"op": "equal", "children": [column("valid_from", "timestamp"), literal("2021-04-29", "timestamp")]},
        {"op": ["equal"], "children": EQUAL["children"]}, {"op": "isNull", "children": [literal("a", "string")]},
        {"op": "equal", "children": [{"op": "column", "name": "name"}, literal("a", "string")]},
    ],
)  # fmt: skip
def test_json_that_is_not_understood_is_refused(said: object) -> None:
    with pytest.raises(UsageError) as refused:
        as_json(said)
    assert refused.value.code == "share-predicate-unreadable" and refused.value.values == {"hint": 0}


def test_json_of_another_type_or_column_is_refused() -> None:
    for kind in ("int", "date", "bool", "decimal"):
        with pytest.raises(UsageError, match="string"):
            as_json({"op": "equal", "children": [column("name", kind), literal("1", kind)]})
    with pytest.raises(UsageError) as refused:
        as_json({"op": "isNull", "children": [column("attributes.sex", "string")]})
    assert refused.value.code == "share-predicate-column"


def test_what_is_no_json_or_too_deep_is_refused() -> None:
    nested: Any = EQUAL
    for _ in range(DEEPEST + 1):
        nested = {"op": "not", "children": [nested]}
    for text in ("", "{", "NaN", json.dumps(nested), '{"op":"not","children":[' * 5000):
        with pytest.raises(UsageError, match="not understood"):
            read([], text, COLUMNS)


def test_half_a_character_is_no_text() -> None:
    """JSON can write it, UTF-8 cannot: nothing could be compared with it."""
    for value in ("\ud800", "a\udfffb"):
        with pytest.raises(UsageError) as refused:
            as_json({"op": "equal", "children": [column("name", "string"), literal(value, "string")]})
        assert refused.value.code == "share-predicate-unreadable" and refused.value.values == {"hint": 0}
        with pytest.raises(UsageError, match="not understood"):
            read([f"name = '{value}'"], None, COLUMNS)
    assert as_json({"op": "equal", "children": [column("name", "string"), literal("\U00020bb7", "string")]})


def test_hints_count_together() -> None:
    both = read(["name = 'a'", "attributes.count > 1"], json.dumps(EQUAL), COLUMNS)
    assert both == ["and", ["=", "name", "a"], [">", "attributes.count", "1"], ["=", "name", "a"]]
    assert named(both) == {"name", "attributes.count"}
    assert read([], None, COLUMNS) is None
    with pytest.raises(UsageError) as refused:
        read(["name = 'a'", "name ~ 'b'"], None, COLUMNS)
    assert refused.value.values == {"hint": 2}
