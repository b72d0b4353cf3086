"""What an identifier says itself, in three languages, and which documents deny it."""

from __future__ import annotations

import datetime as dt
import json
from itertools import product

import pyarrow as pa
import pytest
import sqlalchemy as sa

from hub import identity_claims
from hub.identity_claims import form
from mappings import model

MAN, WOMAN = "310101195609120017", "310104198003050022"
VALUES = (
    ("cn.ric", MAN), ("cn.ric", WOMAN), ("cn.fpr", "931840197001310015"), ("cn.permit", "830000198005230130"),
    ("cn.fpr", "USA310073130112"), ("passport", "K1234567"), ("passport", MAN), ("cn.ric", None), (None, MAN),
)  # fmt: skip
BORN = ("1956-09-12", "1956-09-21", "1980-03-05", None)
SEXES = ("男", "女", "未知", None)


def test_the_number_says_when_and_who() -> None:
    assert form("cn.ric", MAN) == {"scheme": "cn.ric", "born_on": "1956-09-12", "sex": "男"}
    assert form("cn.ric", WOMAN) == {"scheme": "cn.ric", "born_on": "1980-03-05", "sex": "女"}
    for scheme, value in (("cn.fpr", "USA310073130112"), ("passport", MAN), ("cn.uscc", "91310117MA1J3AJ43G")):
        assert form(scheme, value) == {"scheme": scheme, "born_on": None, "sex": None}


def denies(scheme: str | None, value: str | None, born_on: str | None, sex: str | None) -> bool:
    """By the rule, one by one."""
    own = form(scheme or "", value or "")
    return value is not None and (
        (born_on is not None and born_on != own["born_on"]) or (sex in ("男", "女") and sex != own["sex"])
    )


CASES = [(scheme, value, born, sex) for (scheme, value), born, sex in product(VALUES, BORN, SEXES)]


@pytest.mark.parametrize("rows", [len(CASES), 0, 1])
def test_a_block_of_rows_is_judged_as_one(rows: int) -> None:
    material = model.load("resident-id-card")
    schemes, values, born, sexes = ([case[place] for case in CASES[:rows]] for place in range(4))
    columns = {
        "holder.holder.scheme": pa.array(schemes, pa.string()),
        "holder.holder.value": pa.array(values, pa.string()),
        "attributes.born_on": pa.array([day and dt.date.fromisoformat(day) for day in born], pa.date32()),
        "attributes.sex": pa.array(sexes, pa.string()),
    }
    found = identity_claims.denying(material, columns, rows)
    assert found.tolist() == [denies(*case) for case in CASES[:rows]]
    assert rows < 2 or 0 < sum(found) < rows


def test_materials_that_claim_nothing_deny_nothing() -> None:
    assert not identity_claims.denying(model.load("business-licence"), {}, 3).any()
    claiming = identity_claims.claiming()
    assert ("resident-id-card", "holder") in zip(claiming["materials"], claiming["roles"], strict=True)


def test_the_database_judges_the_same(store: sa.Engine) -> None:
    born, sex = identity_claims.own("scheme", "value")
    rows = [dict(zip(("scheme", "value", "born_on", "sex"), case, strict=True)) for case in CASES]
    query = f"""
SELECT {born} AS own_born, {sex} AS own_sex, value IS NOT NULL AND ({identity_claims.beyond(born, sex)}) AS denied
FROM (SELECT place, scheme, value, born_on, {identity_claims.known_sex("said.sex")} AS sex
  FROM ROWS FROM (jsonb_to_recordset(:rows) AS (scheme text, value text, born_on text, sex text)) WITH ORDINALITY
    AS said (scheme, value, born_on, sex, place)) AS s ORDER BY place"""
    with store.connect() as connection:
        found = connection.execute(sa.text(query), {"rows": json.dumps(rows)}).all()
    for case, row in zip(CASES, found, strict=True):
        own = form(case[0] or "", case[1] or "")
        assert (row.own_born, row.own_sex) == (own["born_on"], own["sex"]), case
        assert bool(row.denied) == denies(*case), case
