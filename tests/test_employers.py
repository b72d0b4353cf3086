"""demo/employers.py and demo/enterprises.py: companies under two numbers, one after the other."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
from stdnum.cn import uscc

from demo import companies, employers
from tests import synthetic


def known(place: int) -> employers.Employers:
    register = companies.REGISTERS[place]
    (block, _), *_ = companies.blocks(register, 1000, 600, 3)
    return employers.known(register, block, block.table["统一社会信用代码"].combine_chunks())


def test_numbers_follow_each_other() -> None:
    firms = known(0)
    who = np.arange(len(firms))
    both = pc.and_(firms.old.is_valid(), firms.new.is_valid())
    assert pc.all(both).as_py() and all(uscc.is_valid(value) for value in firms.new.to_pylist())
    rng = np.random.default_rng(1)
    before, after = firms.named(who, firms.changed - 1, rng), firms.named(who, firms.changed + 400, rng)
    assert before.number.equals(firms.old) and after.number.equals(firms.new) and before.subject.equals(after.subject)
    assert set(pc.utf8_length(before.number).to_pylist()) == {15}
    assert {value.partition(":")[0] for value in after.holder.to_pylist()} == {"cn.uscc"}


def test_young_companies_have_a_credit_code_only() -> None:
    firms = known(1)
    new = pc.fill_null(pc.equal(pc.utf8_length(firms.new), 18), False)
    assert pc.mean(new.cast("int64")).as_py() > 0.97
    assert pc.all(pc.or_(new, firms.old.is_valid())).as_py()


def test_provinces_and_nobody() -> None:
    firms = employers.together([known(0), known(2), known(4)])
    assert len(firms.of("31")) + len(firms.of("32", "33")) == len(firms) and len(firms.of("34")) == 0
    assert len(employers.together([])) == 0 and len(employers.nobody().of("31")) == 0


def test_links_have_the_numbers_of_the_register() -> None:
    links = {(row["subject"], row["scheme"], row["value"]) for row in synthetic.truth("links")}
    for row in synthetic.truth("companies"):
        assert (f"company:{row['company']}", row["scheme"], row["value"]) in links
