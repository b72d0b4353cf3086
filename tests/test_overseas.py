"""demo/overseas.py: numbers that are valid, distinct over millions, and change once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from demo import overseas
from demo.columns import day
from demo.lives import NEVER, scattered
from mappings import identifiers


@pytest.fixture(scope="module")
def them() -> overseas.Overseas:
    return overseas.overseas(0, 400_000, np.random.default_rng(3))


def test_numbers_are_valid_and_distinct(them: overseas.Overseas) -> None:
    assert len(them) == 8_000
    schemes = pa.array(overseas.SCHEMES).take(pa.array(them.kinds[:, 0]))
    again = them.second.is_valid()
    second = pa.array(overseas.SCHEMES).take(pa.array(np.maximum(them.kinds[:, 1], 0))).filter(again)
    values, schemes = pa.concat_arrays([them.first, them.second.filter(again)]), pa.concat_arrays([schemes, second])
    judged = identifiers.check(values, schemes)
    assert judged["scheme"].to_pylist() == schemes.to_pylist()
    assert pc.all(pc.equal(judged["verdict"], "valid")).as_py()
    assert pc.count_distinct(values).as_py() == len(values)


def test_blocks_have_other_people_with_other_numbers() -> None:
    parts = [overseas.overseas(start, 7_777, np.random.default_rng(start)) for start in range(0, 77_770, 7_777)]
    number = np.concatenate([part.number for part in parts])
    assert number.tolist() == list(range(-(-77_770 // overseas.SHARE)))
    first = pa.concat_arrays([part.first for part in parts])
    assert pc.count_distinct(first).as_py() == len(first)


def test_numbers_of_ten_million_people_do_not_meet() -> None:
    """The last of all: those that share a birthday are told apart by their turn, which fits its digits."""
    late = overseas.overseas(9_900_000, 100_000, np.random.default_rng(5))
    assert late.number.max() // overseas.DAYS < 100
    assert pc.count_distinct(late.first).as_py() == len(late)
    assert len(np.unique(scattered(np.arange(200_000), 10**6))) == 200_000


def test_the_number_of_a_day(them: overseas.Overseas) -> None:
    who = np.flatnonzero(them.changed != NEVER)
    before = overseas.named(them, who, them.changed[who] - 1)
    after = overseas.named(them, who, them.changed[who])
    assert before.number.equals(them.first.take(pa.array(who))) and after.number.equals(them.second.take(pa.array(who)))
    assert before.subject.equals(after.subject)
    assert set(before.type.to_pylist()) == {"02", "04"} and set(after.type.to_pylist()) == {"02", "03", "04"}
    one = np.flatnonzero(them.changed == NEVER)
    assert overseas.named(them, one, np.full(len(one), day("2024-12-31"))).number.equals(them.first.take(pa.array(one)))
