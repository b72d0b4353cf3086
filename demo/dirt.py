"""Rows made dirty on purpose, the way real source data is dirty, each with the verdict that is due to it.

``accepted``: harmless once normalised; ``flagged``: kept, with a flag; ``quarantined``: kept back until somebody
decides; ``rejected``: unreadable or unrecoverable; ``repeated``: one of two identical rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from demo.columns import Integers, Mask, join, pick, replaced
from demo.places import unlisted
from mappings.checksums import GB_32100, mod_31

Verdict = Literal["accepted", "flagged", "quarantined", "rejected", "repeated"]
Edit = Callable[[pa.StringArray, np.random.Generator], pa.StringArray]


@dataclass(frozen=True)
class Kind:
    """One way to be dirty: ``edit`` changes ``column``, or the whole line where ``column`` is None.

    ``pattern`` (RE2) says which values can be made dirty in this way.
    """

    name: str
    verdict: Verdict
    column: str | None
    edit: Edit
    pattern: str = "."


def wrong_check_digit(values: pa.StringArray, _: np.random.Generator) -> pa.StringArray:
    """Another last character of the same alphabet; any other one is wrong."""
    last = pc.utf8_slice_codeunits(values, -1)
    places = pc.index_in(last, value_set=pa.array(list(GB_32100))).to_numpy(zero_copy_only=False)
    # Digits stay digits, so that the value still looks like a resident ID.
    return join(_head(values), pick(tuple(GB_32100), (places.astype(np.int64) + 1) % 10))


def scientific(values: pa.StringArray, _: np.random.Generator) -> pa.StringArray:
    """What a spreadsheet leaves of a long number: 3.10E+17."""
    lead, tail = pc.utf8_slice_codeunits(values, 0, 1), pc.utf8_slice_codeunits(values, 1, 3)
    return join(lead, ".", tail, "E+17")


def rounded(values: pa.StringArray, _: np.random.Generator) -> pa.StringArray:
    """The number that a spreadsheet keeps of a long one: fifteen digits, shown as 3.10E+17."""
    return join(pc.utf8_slice_codeunits(values, 0, 1), ".", pc.utf8_slice_codeunits(values, 1, 15), "E+17")


def full_width(values: pa.StringArray, _: np.random.Generator) -> pa.StringArray:
    for number in range(10):
        values = pc.replace_substring(values, str(number), chr(ord("０") + number))
    return values


def lower_case(values: pa.StringArray, _: np.random.Generator) -> pa.StringArray:
    return pc.utf8_lower(values)


def odd_date(values: pa.StringArray, rng: np.random.Generator) -> pa.StringArray:
    """2019-9-18 0:00 or 2019/9/18 instead of 2019-09-18 or 20190918, or the other one of these two."""
    apart = pc.replace_substring_regex(values, r"^(\d{4})-?(\d\d)-?(\d\d)$", r"\1-\2-\3")
    short = pc.replace_substring(apart, "-0", "-")
    other = pc.if_else(pc.equal(apart, values), pc.replace_substring(values, "-", ""), apart)
    form = pa.array(rng.integers(0, 3, len(values)))
    return pc.choose(form, join(short, " 0:00"), pc.replace_substring(short, "-", "/"), other)


def unlisted_region(values: pa.StringArray, rng: np.random.Generator) -> pa.StringArray:
    return pick(unlisted(), rng.integers(0, len(unlisted()), len(values)))


def unlisted_registration(values: pa.StringArray, rng: np.random.Generator) -> pa.StringArray:
    """A credit code of a development zone that no list has, with the check digit that belongs to it."""
    zoned = join(
        pc.utf8_slice_codeunits(values, 0, 2), unlisted_region(values, rng), pc.utf8_slice_codeunits(values, 8, 17)
    )
    body = np.frombuffer("".join(zoned.to_pylist()).encode("ascii"), dtype=np.uint8).reshape(-1, 17)
    return join(zoned, pick(tuple(map(chr, range(128))), mod_31(body)))


def too_many_columns(lines: pa.StringArray, _: np.random.Generator) -> pa.StringArray:
    return join(lines, ",,多余")


def cut_short(lines: pa.StringArray, _: np.random.Generator) -> pa.StringArray:
    """A record whose end was lost."""
    return pc.utf8_slice_codeunits(lines, 0, 40)


def error_page(lines: pa.StringArray, rng: np.random.Generator) -> pa.StringArray:
    """What a server answered in the place of a record."""
    request = pa.array(rng.integers(10**8, 10**9, len(lines))).cast(pa.string())
    page = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1>"
    return join(page, "<p>request ", request, "</p></body></html>")


def spaced_out(values: pa.StringArray, _: np.random.Generator) -> pa.StringArray:
    """Blanks and a no-break space around the value."""
    return join(" ", values, "\u00a0 ")


def too_few_columns(lines: pa.StringArray, _: np.random.Generator) -> pa.StringArray:
    return pc.replace_substring_regex(lines, r"^([^,]*,[^,]*,[^,]*),.*$", r"\1")


def always(*texts: str) -> Edit:
    """One of ``texts`` instead of the value."""
    return lambda values, rng: pick(texts, rng.integers(0, len(texts), len(values)))


def repeated(lines: pa.StringArray, _: np.random.Generator) -> pa.StringArray:
    """Nothing to edit: the line comes twice."""
    return lines


def person_kinds(
    identifiers: Sequence[str], date: str, optional: str, region: str, pattern: str = "."
) -> tuple[Kind, ...]:
    """Kinds for a table about persons; the first and the last of ``identifiers`` are spoiled.

    ``pattern``: the numbers whose check digit can be spoiled.
    """
    first, last = identifiers[0], identifiers[-1]
    return (
        Kind("wrong-check-digit", "quarantined", first, wrong_check_digit, pattern),
        Kind("scientific-notation", "rejected", last, scientific, pattern),
        Kind("backslash-n", "accepted", optional, always("\\n")),
        Kind("odd-date", "accepted", date, odd_date, "^[0-9]"),
        Kind("repeated-row", "repeated", None, repeated),
        Kind("lower-case-x", "accepted", first, lower_case, "^[0-9]{17}X$"),
        Kind("unlisted-region", "flagged", region, unlisted_region),
        Kind("full-width-digits", "accepted", last, full_width),
        Kind("not-available", "accepted", optional, always("N/A")),
    )


_CODE, _DATE, _TYPE, _CAPITAL = "统一社会信用代码", "注册日期", "企业类型", "注册资金"
# Credit codes with M000 at 9-12 are excused a wrong check digit; registration numbers have one only at 15 digits.
_CREDIT_CODE = "^9.{17}$"

# Resident IDs among passports, permits and the fifteen digits of long ago.
RESIDENT_ID = "^[1-6][0-9]{16}[0-9X]$"

RESIDENTS = (
    *person_kinds(["gmsfhm"], "yxqq", "mz", "xzqh"),
    Kind("endless-date", "accepted", "yxqz", always("9999-9-9", "9999-12-31"), "^长期$"),
)
HOUSEHOLDS = person_kinds(["gmsfhm"], "djrq", "hb", "xzqh")
MARRIAGES = person_kinds(["nf_sfzh", "nvf_sfzh"], "djrq", "djjg_dm", "xzqh")
COMPANIES = (
    Kind("wrong-check-digit", "quarantined", _CODE, wrong_check_digit, _CREDIT_CODE),
    Kind("person-as-capital", "flagged", _CAPITAL, always("LI MING W", "张某某", "J SMITH"), "[0-9]"),
    Kind("too-many-columns", "rejected", None, too_many_columns),
    Kind("capital-without-number", "flagged", _CAPITAL, always("#万人民币"), "[0-9]"),
    Kind("odd-date", "accepted", _DATE, odd_date),
    Kind("unlisted-region", "flagged", _CODE, unlisted_registration, _CREDIT_CODE),
    Kind("scientific-notation", "rejected", _CODE, scientific, _CREDIT_CODE),
    Kind("lower-case-letter", "accepted", _CODE, lower_case, "^9.{16}[A-Z]$"),
    Kind("too-few-columns", "rejected", None, too_few_columns),
    Kind("backslash-n", "accepted", _TYPE, always("\\n")),
    Kind("repeated-row", "repeated", None, repeated),
    Kind("full-width-digits", "accepted", _CODE, full_width, _CREDIT_CODE),
)


class Spoiler:
    """Spreads dirt over one file of ``total`` rows that is written block by block, each kind as often as the others."""

    def __init__(self, kinds: Sequence[Kind], total: int | None, rate: float, first: int = 0) -> None:
        """``rate``: share of dirty rows, at least one in a file of 50 or more when above 0; ``total``: None while not
        known; ``first``: kind to begin with."""
        self.kinds = kinds
        self.total = total
        self.rate = rate
        self.first = first
        self.seen = 0
        self.given = 0

    @property
    def count(self) -> int:
        """Dirty rows of the file, as far as it is known."""
        rows = self.seen if self.total is None else self.total
        return max(round(self.rate * rows), 1 if self.rate > 0 and rows >= 50 else 0)

    def plan(self, table: pa.Table, rng: np.random.Generator) -> Integers:
        """The kind of each row of a block, -1 for a clean one."""
        chosen = np.full(table.num_rows, -1, dtype=np.int64)
        self.seen += table.num_rows
        due = self.count * self.seen // max(self.total or self.seen, 1)
        turns = (self.first + np.arange(self.given, due)) % len(self.kinds)
        self.given = due
        shuffled = rng.permutation(table.num_rows)
        for place, kind in enumerate(self.kinds):
            wanted = int((turns == place).sum())
            if not wanted:
                continue
            free = chosen[shuffled] == -1
            if kind.column is None:
                free &= shuffled > 0  # no file begins with a line that is no record
            else:
                matches = pc.match_substring_regex(table[kind.column], kind.pattern)
                fits: Mask = pc.fill_null(matches, False).to_numpy()
                free &= fits[shuffled]
            chosen[shuffled[free][:wanted]] = place
        return chosen

    def table(self, table: pa.Table, plan: Integers, rng: np.random.Generator) -> pa.Table:
        """The table with its values edited."""
        for place, kind in enumerate(self.kinds):
            rows = np.flatnonzero(plan == place)
            if kind.column is None or not len(rows):
                continue
            values = table[kind.column].combine_chunks()
            edited = replaced(values, rows, kind.edit(values.take(pa.array(rows)), rng))
            table = table.set_column(table.column_names.index(kind.column), kind.column, edited)
        return table

    def lines(self, lines: pa.StringArray, plan: Integers, rng: np.random.Generator) -> pa.StringArray:
        """The lines edited, none of them repeated yet."""
        for place, kind in enumerate(self.kinds):
            rows = np.flatnonzero(plan == place)
            if kind.column is None and len(rows):
                lines = replaced(lines, rows, kind.edit(lines.take(pa.array(rows)), rng))
        return lines

    def origins(self, plan: Integers) -> Integers:
        """For each line of the file the row of the block that it comes from: some come twice."""
        twice = np.array([kind.verdict == "repeated" for kind in self.kinds])
        return np.repeat(np.arange(len(plan)), 1 + ((plan >= 0) & twice[plan]))


def _head(values: pa.StringArray) -> pa.StringArray:
    return pc.utf8_slice_codeunits(values, 0, -1)
