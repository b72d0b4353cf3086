"""Invented people from beyond the border (境外人员) who live here: foreigners, and residents of Hong Kong, Macau and Taiwan.

No register of residents lists them. Their numbers change: a passport is renewed under another number, an older record has
the passport and a newer one the permit, a permanent resident's card of 15 characters is followed by one of 18 digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from demo import names
from demo.columns import Bytes, Integers, Mask, calendar, constant, day, digits, join, pick, strings
from demo.lives import NEVER, YEAR, Named, scattered
from mappings.checksums import mod_11_2

SHARE = 50  # one to so many people of the registers
DAYS = 15_000  # of birth, from 1960 on
BORN_FROM = day("1960-01-01")

# First number, second number, how common; from when on the second may be given.
PASSPORT, PERMIT, PERMANENT, OLD_PERMANENT = range(4)
TYPES = ("02", "03", "04", "04")
SCHEMES = ("passport", "cn.permit", "cn.fpr", "cn.fpr")
PATHS = (
    (PASSPORT, PASSPORT, 0.35, "2012-01-01"),
    (PASSPORT, None, 0.20, None),
    (PASSPORT, PERMANENT, 0.08, "2023-12-01"),
    (OLD_PERMANENT, PERMANENT, 0.07, "2023-12-01"),
    (PASSPORT, PERMIT, 0.20, "2018-09-01"),
    (PERMIT, None, 0.10, None),
)
LAST_CHANGE = day("2024-11-30")

COUNTRIES = (("USA", "840"), ("JPN", "392"), ("KOR", "410"), ("DEU", "276"), ("GBR", "826"), ("FRA", "250"),
             ("SGP", "702"), ("CAN", "124"))  # fmt: skip
REGIONS = (("HKG", "810000"), ("MAC", "820000"), ("TWN", "830000"))
SURNAMES = (
    "SMITH",
    "MILLER",
    "TANAKA",
    "SUZUKI",
    "KIM",
    "PARK",
    "WEBER",
    "KELLER",
    "MARTIN",
    "LEROY",
    "TAYLOR",
    "WOOD",
)
GIVEN = (
    "ANNA",
    "MARIA",
    "KEN",
    "YUKI",
    "JOHN",
    "LUCAS",
    "EMMA",
    "MINA",
    "PAUL",
    "CLARA",
    "HUGO",
    "ALICE",
    "NOAH",
    "SARA",
)


@dataclass(frozen=True)
class Overseas:
    """``n`` persons; ``number`` counts over all blocks. ``first`` and ``second``: numbers, the second null without one."""

    number: Integers
    name: pa.StringArray
    male: Mask
    born: Integers
    origin: pa.StringArray  # ISO 3166 alpha-3
    kinds: Integers  # shape (n, 2), -1 for none
    first: pa.StringArray
    second: pa.StringArray
    changed: Integers  # day of the second number, NEVER

    def __len__(self) -> int:
        return len(self.number)

    @property
    def subject(self) -> pa.StringArray:
        return join("overseas:", pa.array(self.number).cast(pa.string()))


def overseas(start: int, people: int, rng: np.random.Generator) -> Overseas:
    """Those who come with the ``people`` numbered from ``start``."""
    number = np.arange(-(-start // SHARE), -(-(start + people) // SHARE), dtype=np.int64)
    n = len(number)
    path = rng.choice(len(PATHS), size=n, p=[share for _, _, share, _ in PATHS])
    kinds = np.array([(first, -1 if second is None else second) for first, second, _, _ in PATHS])[path]
    born = BORN_FROM + number % DAYS * 7_919 % DAYS  # each day once in DAYS numbers
    male = rng.random(n) < 0.55
    at_home = (kinds == PERMIT).any(axis=1)
    place = np.where(at_home, rng.choice(3, size=n, p=(0.5, 0.1, 0.4)), rng.integers(0, len(COUNTRIES), n))
    earliest = np.array([day(since) if since else NEVER for _, _, _, since in PATHS])[path]
    changed = np.where(earliest == NEVER, NEVER, earliest + (rng.random(n) * (LAST_CHANGE - earliest)).astype(np.int64))
    chinese = names.people(rng, names.surnames(rng, n))
    foreign = join(pick(SURNAMES, rng.integers(0, len(SURNAMES), n)), " ", pick(GIVEN, rng.integers(0, len(GIVEN), n)))
    # Born on one of DAYS days: the turn tells apart who shares a birthday, below 500 for ten million people.
    turn = number // DAYS
    written = [
        _passports("KLMNPUVW", number),
        strings(_permits(place % 3, born, turn, male)),
        strings(_permanent(place, born, turn, male)),
        _old_permanent(place, born, turn),
        _passports("ABCFHRTX", number + 31),
    ]
    second = np.where((kinds[:, 0] == PASSPORT) & (kinds[:, 1] == PASSPORT), len(written) - 1, kinds[:, 1])
    return Overseas(
        number=number,
        name=pc.if_else(pa.array(at_home), chinese, foreign),
        male=male,
        born=born,
        origin=pc.if_else(
            pa.array(at_home),
            pick([code for code, _ in REGIONS], place % 3),
            pick([code for code, _ in COUNTRIES], place),
        ),
        kinds=kinds,
        first=pc.choose(pa.array(kinds[:, 0]), *written),
        second=pc.if_else(pa.array(second < 0), None, pc.choose(pa.array(np.maximum(second, 0)), *written)),
        changed=changed,
    )


def named(them: Overseas, who: Integers, days: Integers) -> Named:
    """Persons ``who`` under the number that they had on a day."""
    rows = pa.array(who)
    later = (them.changed[who] != NEVER) & (days >= them.changed[who])
    kind = np.where(later, them.kinds[who, 1], them.kinds[who, 0])
    number = pc.if_else(pa.array(later), them.second.take(rows), them.first.take(rows))
    return Named(
        name=them.name.take(rows),
        type=pick(TYPES, kind),
        number=number,
        holder=join(pick(SCHEMES, kind), ":", number),
        subject=them.subject.take(rows),
    )


def grown(them: Overseas, days: Integers | int, years: float) -> Mask:
    old: Mask = days - them.born >= years * YEAR
    return old


def _passports(letters: str, number: Integers) -> pa.StringArray:
    serial = scattered(number, 10**8)
    return join(pick(tuple(letters), serial % len(letters)), strings(digits(serial, 8)))


def _birthdays(born: Integers) -> Bytes:
    year, month, dom = calendar(born)
    return digits(year * 10_000 + month * 100 + dom, 8)


def _permits(region: Integers, born: Integers, turn: Integers, male: Mask) -> Bytes:
    regions = digits(np.array([int(code) for _, code in REGIONS])[region], 6)
    body = np.concatenate([regions, _birthdays(born), digits(2 * turn + male, 3)], axis=1)
    return np.concatenate([body, mod_11_2(body)[:, None]], axis=1)


def _permanent(country: Integers, born: Integers, turn: Integers, male: Mask) -> Bytes:
    nations = digits(np.array([int(code) for _, code in COUNTRIES])[country], 3)
    body = np.concatenate([constant("931", len(born)), nations, _birthdays(born), digits(2 * turn + male, 3)], axis=1)
    return np.concatenate([body, mod_11_2(body)[:, None]], axis=1)


def _old_permanent(country: Integers, born: Integers, turn: Integers) -> pa.StringArray:
    nations = pick([code for code, _ in COUNTRIES], country)
    return join(nations, "3101", strings(np.concatenate([_birthdays(born)[:, 2:], digits(turn, 2)], axis=1)))
