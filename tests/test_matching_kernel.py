"""Records against known people: who becomes a candidate, why, and how many."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from hub import matching_model as model
from hub.matching_kernel import PEOPLE, RECORDS, Finder, Found

DAY = dt.date(1975, 7, 8)


def person(place: int, name: str, **said: Any) -> dict[str, Any]:
    key = place.to_bytes(16, "big")
    return {"person": key, "statement": key, "name": name, "born": DAY, "sex": "男", "region": "310101", **said}


def record(place: int, name: str, **said: Any) -> dict[str, Any]:
    return {"record": place, "name": name, **said}


def find(folder: Path, people: list[dict[str, Any]], records: list[dict[str, Any]], **bounds: Any) -> Found:
    with Finder(folder, **bounds) as finder:
        finder.add(pa.Table.from_pylist(people, PEOPLE))
        return finder.find(pa.Table.from_pylist(records, RECORDS))


def test_candidates_are_bounded_and_the_rest_is_counted(tmp_path: Path) -> None:
    people = [person(n, "张伟", region=None) for n in range(1, 31)]
    found = find(tmp_path, people, [record(1, "张伟", born=DAY)], kept=10, threshold=-9)
    assert found.candidates["rank"].to_pylist() == list(range(1, 11))
    (summed,) = found.records.to_pylist()
    assert (summed["candidates"], summed["more"], summed["crowded"]) == (30, 20, "[]")


def test_a_crowded_block_is_said_and_others_are_searched(tmp_path: Path) -> None:
    people = [person(n, "张伟", born=dt.date(1950 + n, 1, 1), region=None) for n in range(1, 31)]
    found = find(tmp_path, people, [record(7, "张伟", born=dt.date(1960, 1, 1))], cap=20)
    (summed,) = found.records.to_pylist()
    crowded = {block["rule"]: block["persons"] for block in json.loads(summed["crowded"])}
    assert crowded["name"] == crowded["reading"] == 30 and "name-year" not in crowded
    assert found.candidates["person"].to_pylist()[0] == (10).to_bytes(16, "big")


def test_nobody_is_a_candidate_for_a_name_alone_of_somebody_else(tmp_path: Path) -> None:
    found = find(tmp_path, [person(1, "张伟"), person(2, "李娜")], [record(1, "王芳", born=dt.date(1999, 9, 9))])
    assert found.candidates.num_rows == 0
    assert found.records.to_pylist() == [{"record": 1, "candidates": 0, "more": 0, "crowded": "[]"}]


def test_a_rare_name_weighs_more(tmp_path: Path) -> None:
    people = [person(n, "张伟" if n < 50 else "端木赐", born=dt.date(1940 + n, 5, 5)) for n in range(1, 51)]
    records = [record(1, "张伟", born=dt.date(1941, 5, 5)), record(2, "端木赐", born=dt.date(1990, 5, 5))]
    found = find(tmp_path, people, records).candidates.to_pylist()
    best = {row["record"]: row["name_weight"] for row in found if row["rank"] == 1}
    assert best[2] > best[1] + 5


def test_the_same_tables_in_any_order_give_the_same_candidates(tmp_path: Path) -> None:
    people = [
        person(n, name, born=dt.date(1960 + n % 7, 1 + n % 12, 1 + n % 28))
        for n, name in enumerate(["张伟", "张玮", "章伟", "李伟"] * 20)
    ]
    records = [record(n, "张伟", born=dt.date(1960 + n, 1 + n, 1 + n)) for n in range(6)]
    one = find(tmp_path / "one", people, records)
    other = find(tmp_path / "other", people[::-1], records[::-1])
    assert one.candidates.equals(other.candidates) and one.records.equals(other.records)


def test_a_number_with_one_wrong_digit_says_when_somebody_was_born(tmp_path: Path) -> None:
    known = person(1, "张伟", number="310101197507080119", born=None, sex=None)
    found = find(tmp_path, [known], [record(1, "章炜", number="310101197507080117")]).candidates.to_pylist()
    assert found[0]["number"] == "near" and found[0]["born"] == "exact" and found[0]["sex"] == "same"


def test_every_level_has_words_and_shares_that_add_up() -> None:
    for one in model.COMPARISONS:
        for level in one.levels:
            assert all(model.words(one.name, level.code, language) for language in ("zh", "en"))
        assert abs(sum(level.m for level in one.levels) - 1) < 0.011, one.name
        assert abs(sum(level.u for level in one.levels) - 1) < 0.011, one.name
