"""mappings/profile.py: what a column's values look like, and that nobody's values are kept."""

from __future__ import annotations

from dataclasses import asdict

import pyarrow as pa
import pytest

from mappings import profile
from tests import licences


def of(values: list[str | None]) -> profile.Profile:
    (found,) = profile.profiles(pa.table({"x": pa.array(values, pa.string()), "_row": pa.array(range(len(values)))}))
    return found


def test_identifiers_by_scheme() -> None:
    mixed = ["310115199503078015", "310104620927690", "830000199001010012", "E12345678", "310115199503078013", None]
    found = of(mixed)
    assert found.filled == pytest.approx(5 / 6)
    # 15 digits may be an old registration number as well
    assert found.schemes == pytest.approx({"cn.ric": 0.4, "cn.permit": 0.2, "passport": 0.2, "cn.regno": 0.2})
    assert found.identifier(["cn.ric", "passport"]) == pytest.approx(0.6)
    assert of([licences.credit_code(number) for number in range(9)]).schemes["cn.uscc"] == 1


def test_dates_times_regions_sums_and_words() -> None:
    assert of(["2020-6-18", "20200316", "长期", "x"]).date == 0.75
    assert of(["2020-6-18 09:30", "2020-6-18"]).time == 0.5
    found = of(["310115", "320505", "310115001", "999999"])
    assert found.region == 0.75 and found.prefix == "31"
    assert of(["1,000(万元人民币)", "51.5万元", "张三"]).amount == pytest.approx(2 / 3)
    assert of(["示例甲", "示例乙"]).person == 1 and of(["上海示例有限公司"]).organisation == 1
    assert of(["男", "女", "2", "?"]).codelists["sex"] == 0.75


def test_only_codes_are_kept() -> None:
    assert of(["A", "B", "A", "A", "A", "B"]).values == ("A", "B")
    people = [f"示例{chr(0x4E00 + number)}" for number in range(60)]
    assert of(people).values == () and of(people[:3]).values == ()
    assert of(["310115199503078015", "310101198506150024"]).values == ()
    for value in asdict(of(people)).values():
        assert people[0] not in str(value)


def test_nothing_at_all() -> None:
    for values in ([], [None, "", "N/A"]):
        found = of(values)
        assert (found.filled, found.distinct, found.unique) == (0, 0, False)


def test_a_large_column_is_quick() -> None:
    import time

    table = pa.table({"x": pa.array([f"{number:018d}" for number in range(100_000)])})
    start = time.process_time()
    profile.profiles(table)
    assert time.process_time() - start < 8, "whole columns at a time, not values"
