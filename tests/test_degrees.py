"""demo/degrees.py: nested records, one number a degree, lower degrees before higher ones."""

from __future__ import annotations

from collections import Counter, defaultdict

from demo import degrees
from tests import synthetic


def test_records_are_nested_as_agreed() -> None:
    found = synthetic.records("moe/*.jsonl")
    assert len(found) > 1500
    for record in found.values():
        assert list(record) == ["certificate", "holder", "school", "status", "updated_at"]
        assert list(record["certificate"]) == ["number", "degree", "subject", "awarded_on"]
        assert list(record["holder"]) == ["name", "id"] and list(record["holder"]["id"]) == ["type", "number"]
        assert list(record["school"]) == ["code", "name"] and record["status"] in ("valid", "revoked")
        assert record["updated_at"].endswith("+08:00") and record["certificate"]["degree"] in degrees.DEGREES
    moments = [record["updated_at"] for record in found.values()]
    assert moments == sorted(moments)


def test_who_has_a_higher_degree_has_the_lower_one() -> None:
    records = synthetic.records("moe/*.jsonl")
    known, numbers = defaultdict(dict), Counter()
    schemes = Counter()
    for row in synthetic.certificates(degrees.MATERIAL):
        record = records[row["file"], row["row"]]
        numbers[record["certificate"]["number"]] += 1
        assert record["certificate"]["number"] == row["identifier"]
        schemes[record["holder"]["id"]["type"], row["holders"][0].partition(":")[0]] += 1
        if row["subjects"][0].startswith("person:"):
            known[row["subjects"][0]][record["certificate"]["degree"]] = row["valid_from"]
    assert max(numbers.values()) == 1
    assert set(schemes) == {("resident-id", "cn.ric"), ("passport", "passport")}
    masters = [held for held in known.values() if "硕士" in held]
    assert len(masters) > 50 and all(held["学士"] < held["硕士"] for held in masters)
    assert all(row["valid_from"].month == 6 for row in synthetic.certificates(degrees.MATERIAL))
