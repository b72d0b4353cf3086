"""The outcome of gated rows: verdicts, codes, documents, keys; and of lines that are no rows."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from typing import Any

import pyarrow as pa
import pytest

from connectors.source import Retracts
from hub import outcome
from hub.home import KeyedHash
from mappings import arrow, model
from mappings.model import Material

HASHING = KeyedHash(b"k" * 32)
MARRIAGE = model.load("marriage-certificate")
AT = dt.datetime(2025, 1, 2, 3, 4, 5, 60, dt.UTC)
ONE, TWO = "310101198506150024", "310101198001010013"


def key(text: str) -> bytes:
    return hashlib.md5(text.encode()).digest()


def of(
    *rows: dict[str, Any],
    released: tuple[bytes, ...] = (),
    material: Material = MARRIAGE,
    retracts: Retracts | None = None,
) -> list[dict[str, Any]]:
    """The outcome of rows that are good but for what is given."""
    roles = list(material.holders)
    good: dict[str, Any] = {
        "natural_key": "N1", "certificate_number": "N1", "region": "310117", "status": "in_force", "updated_at": AT,
        "document": '{"a":"b"}', "_verdict": "accepted", "_reasons": [], "_flags": [], "_errors": [], "_rejects": [],
        "_conflicting": False, "_file": 7, "raw": 'x"y',
    }  # fmt: skip
    for role, value in zip(roles, (ONE, TWO), strict=False):
        good |= {f"holder.{role}.scheme": "cn.ric", f"holder.{role}.value": value, f"holder.{role}.name": "张\\三"}
    tables = []
    for place, row in enumerate(rows):
        own = {"_row_key": key(f"k{place}"), "_ledger_key": key(f"l{place}"), "_digest": key(f"d{place}")}
        tables.append({**good, "_ordinal": place, "_row": place + 2, **own, **row})
    fields = [pa.field("natural_key", pa.string()), pa.field("document", pa.string())]
    fields += [pa.field("_verdict", pa.string()), pa.field("_reasons", pa.list_(pa.string()))]
    system = {
        "_conflicting": pa.bool_(), "_file": pa.int64(), "_row": pa.int64(), "_row_key": outcome.KEY,
        "_ledger_key": outcome.KEY, "_digest": outcome.KEY,
    }  # fmt: skip
    schema = pa.schema([*arrow.schema(material), *fields, *system.items()])
    gated = pa.Table.from_pylist(tables, schema)
    raw = pa.Table.from_pylist(tables, pa.schema({"raw": pa.string(), "leer": pa.string(), "_ordinal": pa.int64()}))
    found = outcome.of_rows(material, raw, gated, pa.array(released, outcome.KEY), HASHING, "xx-source", retracts)
    assert found.schema.equals(outcome.SCHEMA)
    found.validate(full=True)
    return found.to_pylist()


def test_an_accepted_row_says_all_that_the_merge_needs() -> None:
    (found,) = of({"_flags": ["b", "a", "b"]})
    assert (found["verdict"], found["reasons"], found["flags"], found["raw"]) == ("accepted", "", "b,a", None)
    assert (found["row_key"], found["original_key"], found["digest"]) == (key("l0"), key("k0"), key("d0"))
    assert found["holding"] == HASHING.of("marriage-certificate\x1fN1")
    assert found["identifiers"] == [HASHING.of(f"cn.ric:{ONE}"), HASHING.of(f"cn.ric:{TWO}")]
    assert found["roles"] == list(MARRIAGE.holders)
    document = json.loads(found["document"])
    assert set(document) == {*outcome.ENVELOPE, "updated_at", "holders", "attributes"}
    assert (document["certificate_number"], document["issuer_code"]) == ("N1", None)
    assert (document["updated_at"], document["attributes"]) == ("2025-01-02T03:04:05.000060Z", {"a": "b"})
    first = {"role": next(iter(MARRIAGE.holders)), "scheme": "cn.ric", "value": ONE, "name": "张\\三"}
    assert document["holders"][0] == first


@pytest.mark.parametrize("verdict", ["accepted", "quarantined", "rejected"])
def test_a_row_that_takes_back_says_nothing_else(verdict: str) -> None:
    retracts = Retracts(column="raw", values=("void", "gone"))
    gone, other = of({"_verdict": verdict, "_reasons": ["a"], "raw": "gone"}, {"raw": "here"}, retracts=retracts)
    assert (gone["verdict"], gone["reasons"], gone["raw"]) == ("retracted", "", None)
    assert {gone[name] for name in ("holding", "document", "identifiers", "roles")} == {None}
    assert (other["verdict"], other["holding"] is None) == ("accepted", False)


@pytest.mark.parametrize("verdict", ["quarantined", "rejected"])
def test_a_row_kept_back_carries_itself_and_nothing_of_a_holding(verdict: str) -> None:
    row, _ = of({"_verdict": verdict, "_reasons": ["b", "a", "b"], "_flags": ["f"]}, {})
    assert (row["verdict"], row["reasons"], row["flags"]) == (verdict, "b,a", "f")
    assert json.loads(row["raw"]) == {"raw": 'x"y', "leer": None}
    assert {row[name] for name in ("holding", "document")} == {None}
    assert row["identifiers"] is None and row["roles"] is None


def test_conflicting_rows_wait_and_say_so() -> None:
    conflict = {"_conflicting": True}
    found = of(
        conflict, {**conflict, "_verdict": "quarantined", "_reasons": ["x"]}, {**conflict, "_verdict": "rejected"}
    )
    assert [(row["verdict"], row["reasons"]) for row in found] == [
        ("quarantined", "conflicting-duplicate"),
        ("quarantined", "x,conflicting-duplicate"),
        ("rejected", ""),
    ]


def test_what_a_person_released_passes_unless_it_has_no_key() -> None:
    bad = {"_verdict": "quarantined", "_reasons": ["x"]}
    rows = [bad, {**bad, "natural_key": None}, {**bad, "_verdict": "rejected"}, {**bad, "_conflicting": True}, bad]
    found = of(*rows, released=tuple(key(f"d{place}") for place in range(4)))
    assert [row["verdict"] for row in found] == ["accepted", "quarantined", "rejected", "accepted", "quarantined"]
    assert found[0]["reasons"] == "" and found[0]["document"]


def test_a_holder_without_number_or_scheme_has_no_identifier() -> None:
    first, second = list(MARRIAGE.holders)[:2]
    absent = {f"holder.{first}.{part}": None for part in outcome.HOLDER}
    bare, schemeless = of(absent, {f"holder.{second}.scheme": None})
    assert (bare["roles"], schemeless["roles"]) == ([second], [first])
    assert [held["role"] for held in json.loads(bare["document"])["holders"]] == [second]
    assert [held["scheme"] for held in json.loads(schemeless["document"])["holders"]] == ["cn.ric", None]


def test_an_entity_of_the_catalogue_has_no_holders() -> None:
    (found,) = of({}, material=model.load("service-item"))
    assert (found["identifiers"], found["roles"], json.loads(found["document"])["holders"]) == ([], [], [])


def test_rows_come_by_ordinal_however_many_blocks_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"_ordinal": (place * 5) % 11, "natural_key": f"N{(place * 5) % 11}"} for place in range(11)]
    whole = of(*rows)
    monkeypatch.setattr(outcome, "BLOCK", 3)
    assert of(*rows) == whole
    assert [row["natural_key"] for row in whole] == [f"N{place}" for place in range(11)]


def test_no_rows() -> None:
    assert of() == []


def test_lines_that_are_no_rows_are_rejected_with_their_bytes() -> None:
    lines = pa.table(
        {
            "_row": [9, 4], "_ordinal": [8, 3], "_file": [1, 1], "raw": pa.array([b"\xff,", b"a,b,c"]),
            "reason": ["undecodable", "column-count"],
            **{name: pa.array([key("a"), key("b")], outcome.KEY) for name in ("_row_key", "_digest")},
        }
    )  # fmt: skip
    found = outcome.of_malformed(lines)
    assert found.schema.equals(outcome.SCHEMA)
    assert [(row["ordinal"], row["verdict"], row["reasons"], row["raw"]) for row in found.to_pylist()] == [
        (3, "rejected", "column-count", b"a,b,c"),
        (8, "rejected", "undecodable", b"\xff,"),
    ]
