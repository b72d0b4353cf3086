"""What evidence of a partner may hold: of whom, in which roles, of which types; everything else is refused, with a reason."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from hub import home
from hub.exchange import evidence_shown
from hub.exchange.evidence_shown import Expected, Unacceptable
from tests import stored

MARRIAGE = "marriage-certificate"
AT = dt.datetime(2026, 3, 1, 8, 30, tzinfo=dt.UTC)
MESSAGE = uuid.UUID("019ca880-4a40-7000-8000-000000000008")
ONE, OTHER, THIRD = stored.RESIDENT, stored.SPOUSE, "330106199001010011"
COLUMNS = (
    "certificate_number",
    "valid_from",
    "region",
    "holder.spouse_a",
    "holder.spouse_b",
    "attributes.registered_on",
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YICI_HOME", str(tmp_path))


def expected(**changes: Any) -> Expected:
    said: dict[str, Any] = {
        "hub": "zj", "client": "sh", "purpose": "handle-application", "case": "31-2026-1", "item": "demo-household-move",
        "message": MESSAGE, "at": AT, "material": MARRIAGE, "handle": None, "columns": COLUMNS, "roles": (), "regions": ("33",),
        "person": frozenset({home.keyed_hash().of(f"cn.ric:{ONE}")}), **changes,
    }  # fmt: skip
    return Expected(**said)


def spouse(role: str, value: str) -> dict[str, Any]:
    return {"role": f"spouse_{role}", "scheme": "cn.ric", "value": value, "name": "某人"}


def told(columns: tuple[str, ...] = COLUMNS, **certificate: Any) -> bytes:
    whole = {
        "certificate_number": "J1", "valid_from": None, "region": "330106",
        "holders": [spouse("a", OTHER), spouse("b", ONE)], "attributes": {"registered_on": "2019-08-01"}, **certificate,
    }  # fmt: skip
    shown = {name: value for name, value in whole.items() if value != "absent"}
    given = {"hub": "zj", "client": "sh", "purpose": "handle-application", "case": "31-2026-1", "item": "demo-household-move",
             "answer": str(MESSAGE), "at": AT.isoformat()}  # fmt: skip
    source = {"source": "zj-civil", "file": "2026.csv", "row": 1, "updated_at": AT.isoformat(), "as_of": None, "late": True,
              "conflicting": False}  # fmt: skip
    said = {"holding": "0" * 32, "material": MARRIAGE, "certificate": shown, "fields": list(columns), "version": "1" * 32,
            "source": source, "given": given}  # fmt: skip
    return json.dumps(said).encode()


def refused(body: bytes, wanted: Expected) -> str:
    with pytest.raises(Unacceptable) as caught:
        evidence_shown.read(body, wanted)
    return str(caught.value)


def test_the_person_is_one_of_the_holders() -> None:
    body = told()
    assert evidence_shown.read(body, expected())[1] == body, "the bytes that were signed"
    nobody = told(holders=[spouse("a", OTHER), spouse("b", THIRD)])
    assert refused(nobody, expected()) == "evidence-holder"


def test_in_the_role_that_is_known_where_one_is() -> None:
    assert evidence_shown.read(told(), expected(roles=("spouse_b",)))
    assert refused(told(), expected(roles=("spouse_a",))) == "evidence-holder"
    assert evidence_shown.read(told(), expected(roles=("spouse_a", "spouse_b")))


def test_where_that_role_is_not_shown_the_owner_answers_for_it() -> None:
    columns = ("certificate_number", "holder.spouse_a")
    body = told(columns, valid_from="absent", region="absent", attributes="absent", holders=[spouse("a", OTHER)])
    assert evidence_shown.read(body, expected(columns=columns, roles=("spouse_b",)))
    assert evidence_shown.read(body, expected(columns=columns)), "any role may be meant, and one is not shown"
    assert refused(body, expected(columns=columns, roles=("spouse_a",))) == "evidence-holder"


@pytest.mark.parametrize(("changes", "reason"), [
    ({"region": "320106"}, "evidence-region"),
    ({"region": 330106}, "evidence-form"),
    ({"valid_from": "2026-03-02"}, "evidence-status"),
    ({"valid_from": "2026-3-1"}, "evidence-form"),
    ({"valid_from": {"day": 1}}, "evidence-form"),
    ({"attributes": {"registered_on": "2019-02-30"}}, "evidence-form"),
    ({"attributes": {"registered_on": 20190801}}, "evidence-form"),
    ({"attributes": ["registered_on"]}, "evidence-columns"),
    ({"holders": [spouse("b", ONE), spouse("b", ONE)]}, "evidence-columns"),
    ({"holders": [{**spouse("b", ONE), "scheme": "cn.uscc"}]}, "evidence-form"),
    ({"holders": [{**spouse("b", ONE), "value": None}]}, "evidence-form"),
    ({"certificate_number": 1}, "evidence-form"),
    ({"certificate_number": "\x07"}, "evidence-form"),
])  # fmt: skip
def test_values_of_another_form(changes: dict[str, Any], reason: str) -> None:
    assert refused(told(**changes), expected()) == reason


@pytest.mark.parametrize(("kind", "good", "bad"), [
    ("integer", [0, -7], ["1", 1.5, True, {}]),
    ("decimal", ["1", "-1.2500"], [1, "1e9", "", "1.", "NaN"]),
    ("boolean", [True], [1, "true"]),
    ("money", [{"amount": "1.00", "currency": "CNY"}, {"amount": "1"}],
     ["1", {"amount": 1}, {"amount": "1", "currency": "¥"}, {"amount": "1", "note": "x"}]),
    ("timestamp", ["2026-03-01T08:30:00.000000Z"], ["2026-03-01T08:30:00", "today", 1.5]),
    ("date", ["2026-03-01"], ["2026-03-01T00:00:00", "20260301", 1]),
    ("string", ["", "一\n二"], [1, ["x"], {"x": "y"}, "\x1b[2J", "x" * 10_001]),
])  # fmt: skip
def test_every_type_of_a_column(kind: Any, good: list[Any], bad: list[Any]) -> None:
    for value in (*good, None):
        evidence_shown._typed(value, kind)
    for value in bad:
        with pytest.raises((ValueError, TypeError)):
            evidence_shown._typed(value, kind)


def test_what_is_no_json_or_says_a_thing_twice() -> None:
    whole = told().decode()
    twice = whole.replace('"J1"', '"J1", "certificate_number": "J2"')
    for body in ("", "[]", "{}", whole[:-1], whole.replace('"J1"', "NaN"), twice, "[" * 100_000):
        assert refused(body.encode(), expected()) == "evidence-form", body[:60]


def test_members_of_a_later_version_are_left_out() -> None:
    said = json.loads(told()) | {"later": "张三"}
    shown, body = evidence_shown.read(json.dumps(said).encode(), expected())
    assert json.loads(body) == json.loads(told()) and shown.material == MARRIAGE
