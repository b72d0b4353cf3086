"""Subsistence allowances 最低生活保障: a full roster of one month, and of the next one with what has changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from demo import dirt, lives
from demo.columns import Integers, Mask, calendar, dates, day, digits, join, pick, same, strings, years_later
from demo.dirt import Kind
from demo.forms import Csv
from demo.lives import YEAR
from demo.population import HEAD, UNTIL, People, offices
from demo.records import Records

MATERIAL = "subsistence-allowance"
FILE, NEXT_FILE = "mca/dibao.csv", "mca/dibao-next.csv"
COLUMNS = ("dbzh", "xm", "sfzh", "bzrs", "xzqh", "spjg", "pzrq", "yxqz", "tjsj")
FORM = Csv(COLUMNS)
MONTH, NEXT_MONTH = "2025-06-01", "2025-07-01"
LISTED = 0.022  # of households
GONE, NEW, GROWN = 0.03, 0.03, 0.02  # from one month to the next
YEARS = 3  # of validity

DIRT = (
    Kind("wrong-check-digit", "quarantined", "sfzh", dirt.wrong_check_digit),
    Kind("not-available", "accepted", "spjg", dirt.always("N/A", "-")),
    Kind("scientific-notation", "rejected", "sfzh", dirt.scientific),
    Kind("unlisted-region", "flagged", "xzqh", dirt.unlisted_region),
    Kind("full-width-digits", "accepted", "sfzh", dirt.full_width),
    Kind("repeated-row", "repeated", None, dirt.repeated),
    Kind("backslash-n", "accepted", "spjg", dirt.always("\\n")),
    Kind("lower-case-x", "accepted", "sfzh", dirt.lower_case, "X$"),
)


@dataclass(frozen=True)
class Roster:
    """``records``: those listed in the first month. ``after``: the table of the second one. The rest is true of all."""

    records: Records
    after: pa.Table
    number: pa.StringArray
    holder: pa.StringArray
    persons: Integers
    persons_next: Integers
    first: Mask  # listed in the first month
    second: Mask


def allowances(people: People, rng: np.random.Generator) -> Roster:
    grown = (people.role == HEAD) & (people.born + 20 * YEAR < UNTIL)
    heads = np.flatnonzero(grown & (rng.random(len(people)) < LISTED * (1 + NEW)))
    n = len(heads)
    turn = (rng.permutation(n) + 0.5) / max(n, 1)  # so that somebody comes and somebody goes in any but a tiny roster
    first, second = turn >= NEW, turn < 1 - GONE
    size = np.bincount(people.household - people.household[0])[people.household[heads] - people.household[0]]
    born = rng.random(n) < GROWN
    approved = day("2023-07-01") + rng.integers(0, UNTIL - day("2023-07-01"), n)
    # The first roster cannot hold what is approved after it.
    approved = np.where(first, approved, day(MONTH) + rng.integers(0, 28, n))
    ends = years_later(approved, np.full(n, YEARS)) - 1
    region = people.home[heads]
    household = people.household[heads]
    number = join(
        "DB", strings(digits(region, 6)), strings(digits(calendar(approved)[0], 4)), strings(digits(household, 8))
    )
    rows = pa.array(heads)
    holder = join("cn.ric:", people.identifier.take(rows))

    def table(persons: Integers, month: str) -> pa.Table:
        return pa.table(
            {
                "dbzh": number,
                "xm": people.name.take(rows),
                "sfzh": people.identifier.take(rows),
                "bzrs": pa.array(persons).cast(pa.string()),
                "xzqh": strings(digits(region, 6)),
                "spjg": offices(people, "民政局").take(rows),
                "pzrq": dates(approved).cast(pa.string()),
                "yxqz": dates(ends).cast(pa.string()),
                "tjsj": same(f"{month} 00:00:00+08:00", n),
            }
        )

    listed = pa.array(first)
    records = Records(
        material=MATERIAL, table=table(size, MONTH).filter(listed), identifier=number.filter(listed),
        holders=[holder.filter(listed)], subjects=[lives.subjects(people, heads).filter(listed)],
        begins=dates(approved).filter(listed), ends=dates(ends).filter(listed),
        status=pick(("in_force",), np.zeros(int(first.sum()), dtype=np.int64)),
    )  # fmt: skip
    after = table(size + born, NEXT_MONTH).filter(pa.array(second))
    return Roster(records, after, number, holder, size, size + born, first, second)
