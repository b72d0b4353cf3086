"""demo/births.py: typed Parquet, children of couples, mothers from overseas, certificates issued again."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict

import pyarrow.parquet as pq

from demo import births
from tests import synthetic


def test_files_are_typed() -> None:
    files = sorted((synthetic.folder() / "nhc/certificates").glob("births-*.parquet"))
    assert len(files) == 3
    for path in files:
        schema = pq.read_schema(path)
        assert schema.remove_metadata() == births.SCHEMA
        assert str(schema.field("csrq").type) == "date32[day]" and str(schema.field("gxsj").type) == "timestamp[us]"


def test_children_are_those_of_the_households() -> None:
    people = {f"person:{row['person']}": row for row in synthetic.truth("people")}
    children = defaultdict(list)
    for row in people.values():
        if row["relation"] in ("子", "女"):
            children[row["household"]].append(row)
    records, numbers = synthetic.records("nhc/certificates/*.parquet"), Counter()
    fathers = abroad = former = 0
    for row in synthetic.certificates(births.MATERIAL):
        record = records[row["file"], row["row"]]
        numbers[record["cszbh"]] += 1
        assert record["csrq"] <= record["qfrq"] == row["valid_from"] and isinstance(record["gxsj"], dt.datetime)
        mother = people.get(row["subjects"][0])
        if mother is None:
            abroad += 1
            assert row["subjects"][0].startswith("overseas:") and record["mqzjlx"] != "01"
            continue
        here = [child for child in children[mother["household"]] if child["born_on"] == record["csrq"]]
        assert here and record["xb"] in {child["sex"] for child in here} and mother["sex"] == "2"
        former += record["xsexm"] not in {child["name"] for child in here}
        assert 16 < (record["csrq"] - mother["born_on"]).days / 365.25 < 51
        child = people[row["subjects"][1]]
        assert child in here and row["holders"][1] == f"cn.ric:{record['xsezjhm']}" == f"cn.ric:{child['identifier']}"
        if len(row["subjects"]) == 3:
            fathers += 1
            father = people[row["subjects"][2]]
            assert father["sex"] == "1" and father["household"] == mother["household"]
        else:
            assert record["fqxm"] is record["fqzjhm"] is None
    assert max(numbers.values()) == 1 and fathers > 500 and abroad > 0 and former > 0


def test_a_lost_certificate_is_void_and_issued_again() -> None:
    by_mother = defaultdict(list)
    for row in synthetic.certificates(births.MATERIAL):
        by_mother[row["identifier"][1:]].append(row)
    pairs = [rows for rows in by_mother.values() if len(rows) == 2]
    assert pairs
    for rows in pairs:
        first, again = sorted(rows, key=lambda row: row["valid_from"])
        assert (first["status"], again["status"]) == ("cancelled", "in_force")
        assert first["subjects"] == again["subjects"]


def test_dirt_is_in_the_rows_noted() -> None:
    records = synthetic.records("nhc/certificates/*.parquet")
    notes = [row for row in synthetic.truth("dirt") if row["file"].startswith("nhc/")]
    assert len({row["kind"] for row in notes}) > 5
    for row in notes:
        record = records[row["file"], row["row"]]
        if row["kind"] == "scientific-notation":
            assert "E+17" in record["mqzjhm"]
        if row["kind"] == "repeated-row":
            assert record == records[row["file"], row["row"] - 1]
