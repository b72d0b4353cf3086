"""What happens to people before the registers of today are written: other names, other numbers, other provinces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from demo import places
from demo.columns import Integers, Mask, concat, day, digits, join, pick, strings
from demo.names import COMPOUND_SURNAMES, GIVEN
from demo.population import UNTIL, People

NEVER = -1_000_000  # a day before everything
YEAR = 365.2425
FIFTEEN_UNTIL = day("1999-10-01")  # GB 11643-1999: resident IDs have 18 digits from here on
INSURANCE_BEGINS = day("1993-01-01")
RENAMED = 0.02
AWAY = 0.05  # of those who work here, how many worked in Zhejiang before

# Where the household was or is registered: here only; in Zhejiang until it moved here; in Zhejiang; in both by mistake.
HERE, MOVED, THERE, TWICE = range(4)
ORIGIN_SHARES = (0.9295, 0.03, 0.04, 0.0005)


@dataclass(frozen=True)
class Lives:
    """Of a block of people: arrays as long as the block."""

    former: pa.StringArray  # the name until ``renamed``, null where it never changed
    renamed: Integers  # day, NEVER
    origin: Integers  # of the household
    village: Integers  # division code in Zhejiang, whatever the origin
    career: Integers  # day of the first employment
    arrival: Integers  # day of the first employment here


@dataclass(frozen=True)
class Named:
    """Persons as a document names them: arrays of one length."""

    name: pa.StringArray
    type: (
        pa.StringArray
    )  # 01 resident ID, 02 passport, 03 permit of HK, Macau and Taiwan residents, 04 foreign permanent
    number: pa.StringArray  # as written
    holder: pa.StringArray  # scheme:value, normalised
    subject: pa.StringArray

    def __len__(self) -> int:
        return len(self.name)

    def take(self, rows: Integers | pa.Array) -> Named:
        chosen = pa.array(rows)
        return Named(*(getattr(self, field).take(chosen) for field in self.__dataclass_fields__))

    def __add__(self, other: Named) -> Named:
        return Named(*(concat(getattr(self, field), getattr(other, field)) for field in self.__dataclass_fields__))


def lives(people: People, rng: np.random.Generator) -> Lives:
    n = len(people)
    grown = people.born + (YEAR * rng.uniform(1, 40, n)).astype(np.int64)
    renamed = np.where((rng.random(n) < RENAMED) & (grown < UNTIL), grown, NEVER)
    first = np.searchsorted(people.household, people.household)  # the head's index
    origin = rng.choice(len(ORIGIN_SHARES), size=n, p=ORIGIN_SHARES)[first]
    codes, _ = places.in_year(2024, "33")
    career = people.born + (YEAR * rng.uniform(18, 25, n)).astype(np.int64)
    career = np.maximum(career, INSURANCE_BEGINS + rng.integers(0, 3000, n))
    away = (rng.random(n) < AWAY) | ((origin != HERE) & (rng.random(n) < 0.6))
    arrival = np.where(away, career + (YEAR * rng.uniform(1, 9, n)).astype(np.int64), career)
    return Lives(_former(people, renamed, rng), renamed, origin, rng.choice(codes, size=n)[first], career, arrival)


def _former(people: People, renamed: Integers, rng: np.random.Generator) -> pa.StringArray:
    """The same surname with another given name."""
    compound = pc.match_substring_regex(people.name, f"^({'|'.join(COMPOUND_SURNAMES)})")
    short, long = (pc.utf8_slice_codeunits(people.name, 0, length) for length in (1, 2))
    one, two = (pick(tuple(GIVEN), rng.integers(0, len(GIVEN), len(people))) for _ in range(2))
    former = join(pc.if_else(compound, long, short), one, two)
    changed = pc.and_(pa.array(renamed != NEVER), pc.not_equal(former, people.name))
    return pc.if_else(changed, former, None)


def subjects(people: People, who: Integers) -> pa.StringArray:
    return join("person:", pa.array(people.start + who).cast(pa.string()))


def residents(people: People, led: Lives, who: Integers, days: Integers, rng: np.random.Generator) -> Named:
    """Persons ``who`` (indices in the block) as a document of a day names them and as nobody has corrected since."""
    rows = pa.array(who)
    before = pa.array(days < led.renamed[who])
    name = pc.coalesce(pc.if_else(before, led.former.take(rows), None), people.name.take(rows))
    identifier = people.identifier.take(rows)
    old = (days < FIFTEEN_UNTIL) & has_fifteen(people)[who] & (rng.random(len(who)) < 0.8)
    return Named(
        name=name,
        type=pick(("01",), np.zeros(len(who), dtype=np.int64)),
        number=pc.if_else(pa.array(old), fifteen(identifier), identifier),
        holder=join("cn.ric:", identifier),
        subject=subjects(people, who),
    )


def has_fifteen(people: People) -> Mask:
    """Whose resident ID once had 15 digits."""
    had: Mask = people.born < FIFTEEN_UNTIL
    return had


def fifteen(identifier: pa.StringArray) -> pa.StringArray:
    """The resident ID before 1999: no century, no check character."""
    return join(pc.utf8_slice_codeunits(identifier, 0, 6), pc.utf8_slice_codeunits(identifier, 8, 17))


def zhejiang_numbers(people: People, led: Lives) -> pa.StringArray:
    """Household numbers in Zhejiang: division and a number that is never given twice."""
    return strings(np.concatenate([digits(led.village, 6), digits(people.household, 9)], axis=1))


def scattered(numbers: Integers, modulus: int = 10**9) -> Integers:
    """Numbers without visible order, distinct for distinct numbers below ``modulus`` (a power of ten)."""
    mixed: Integers = (numbers.astype(np.int64) * 377_149_847 + 55_987) % modulus
    return mixed
