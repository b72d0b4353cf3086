"""Invented people in invented households of Shanghai, a block at a time.

Everything follows from (seed, block number): any block can be made without the others, and memory holds one block.
Resident IDs are unique over all blocks because each block numbers its people from its own residue class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from demo import names, places
from demo.columns import (
    Bytes,
    Integers,
    Mask,
    calendar,
    dates,
    day,
    digits,
    join,
    moments,
    pick,
    strings,
    years_later,
)
from mappings.checksums import mod_11_2

BLOCK = 65_536
NUMBERS = 500  # sequence numbers for each district, birthday and sex
BLOCKS = 100  # at most, as they share these numbers
LIMIT = 10_000_000  # people; also keeps update times a second apart

# All events end here and all records were updated in the half year that follows: fixed, so that the same seed gives the
# same bytes on any day.
UNTIL = day("2024-12-31")
UPDATES_BEGIN = day("2025-01-01") * 86_400
UPDATES_SECONDS = 180 * 86_400

HEAD, SPOUSE, CHILD, FATHER, MOTHER = range(5)
# Members of each type of household, how common it is, and how old its head can be.
HOUSEHOLDS = (
    ((HEAD,), 0.22, (18, 95)),
    ((HEAD, SPOUSE), 0.26, (22, 92)),
    ((HEAD, SPOUSE, CHILD), 0.27, (24, 55)),
    ((HEAD, SPOUSE, CHILD, CHILD), 0.10, (26, 55)),
    ((HEAD, CHILD), 0.06, (24, 60)),
    ((HEAD, SPOUSE, CHILD, FATHER, MOTHER), 0.09, (26, 60)),
)
RELATIONS = ("户主", "妻", "夫", "子", "女", "父亲", "母亲")
SEXES = ("1", "2")
STATES = ("有效", "挂失", "注销")
HOLDING = {"有效": "in_force", "挂失": "suspended", "注销": "cancelled"}


@dataclass(frozen=True)
class People:
    """``n`` people: arrays of length n, households kept together. ``start``: number of the first one over all blocks."""

    start: int
    step: int  # seconds between one update and the next
    household: Integers  # number over all blocks
    role: Integers
    male: Mask
    born: Integers  # days since 1970
    birthplace: Integers  # division code
    home: Integers
    spouse: Integers  # index in the block, -1 for none
    name: pa.StringArray
    identifier: pa.StringArray
    ethnicity: pa.StringArray

    def __len__(self) -> int:
        return len(self.born)


def block_size(people: int) -> int:
    return max(BLOCK, -(-people // BLOCKS))


def blocks(people: int, seed: int) -> Iterator[tuple[People, np.random.Generator]]:
    """All people, block by block, each with the generator that its documents are to be made with."""
    size = block_size(people)
    count = -(-people // size)
    for number in range(count):
        rng = np.random.default_rng([seed, 1, number])
        start = number * size
        step = max(UPDATES_SECONDS // people, 1)
        yield _block(rng, start, min(size, people - start), number, count, step), rng


def _block(rng: np.random.Generator, start: int, n: int, number: int, count: int, step: int) -> People:
    household, role, low, high = _households(rng, n)
    first = np.searchsorted(household, np.arange(household[-1] + 1))  # the head of each household
    head = first[household]

    ages = np.zeros(n)
    ages[first] = low[first] + (high[first] - low[first]) * rng.random(len(first)) ** 1.2
    gap = rng.normal(0, 2.5, n).clip(-8, 8)
    generation = rng.random(n)
    older = ages[head] + 23 + 10 * generation + gap / 4
    younger = (ages[head] - 20) * generation
    # What would lie beyond a bound is reflected, not moved onto it: no day gathers more births than others.
    ages = np.select(
        [role == HEAD, role == SPOUSE, role == CHILD],
        [ages, 20.2 + np.abs(ages[head] + gap - 20.2), younger],
        older,
    )
    ages = 95.9 - np.abs(95.9 - ages)
    born = UNTIL - (ages * 365.2425).astype(np.int64)

    male = rng.random(n) < 0.515
    male[first] = rng.random(len(first)) < 0.7
    male = np.where(role == SPOUSE, ~male[head], np.where(role == FATHER, True, np.where(role == MOTHER, False, male)))

    surname = names.surnames(rng, n)
    # Children, and the father of the household's head, bear the head's surname.
    surname = np.where((role == CHILD) | (role == FATHER), surname[head], surname)

    place = np.arange(n)
    spouse = np.full(n, -1)
    wed = np.flatnonzero(role == SPOUSE)
    spouse[wed], spouse[head[wed]] = head[wed], wed
    mother = np.flatnonzero(role == MOTHER)
    spouse[mother], spouse[mother - 1] = place[mother] - 1, mother

    birthplace = places.birthplaces(rng, calendar(born)[0])
    rank = _ranks(_keys(birthplace, born, male))
    while (crowded := rank >= NUMBERS // count).any():
        born = born - crowded * rng.integers(1, 300, n)
        rank = _ranks(_keys(birthplace, born, male))
    return People(
        start=start,
        step=step,
        household=household + start,
        role=role,
        male=male,
        born=born,
        birthplace=birthplace,
        home=places.homes(rng, len(first))[household],
        spouse=spouse,
        name=names.people(rng, surname),
        identifier=strings(_identifiers(birthplace, born, male, rank, number, count)),
        ethnicity=names.ethnicities(rng, n),
    )


def _households(rng: np.random.Generator, n: int) -> tuple[Integers, Integers, Integers, Integers]:
    """Household, role, and bounds of its head's age, for n people; what is left over lives alone."""
    shares = np.array([share for _, share, _ in HOUSEHOLDS])
    sizes = np.array([len(roles) for roles, _, _ in HOUSEHOLDS])
    kinds = rng.choice(len(HOUSEHOLDS), size=n, p=shares / shares.sum())
    filled = np.cumsum(sizes[kinds])
    kinds = kinds[: np.searchsorted(filled, n, side="right")]
    kinds = np.concatenate([kinds, np.zeros(n - int(sizes[kinds].sum()), dtype=kinds.dtype)])
    width = int(sizes.max())
    table = np.array([list(roles) + [HEAD] * (width - len(roles)) for roles, _, _ in HOUSEHOLDS])
    household = np.repeat(np.arange(len(kinds)), sizes[kinds])
    starts = np.cumsum(sizes[kinds]) - sizes[kinds]
    position = np.arange(n) - starts[household]
    bounds = np.array([ages for _, _, ages in HOUSEHOLDS])[kinds[household]]
    return household, table[kinds[household], position], bounds[:, 0], bounds[:, 1]


def _keys(birthplace: Integers, born: Integers, male: Mask) -> Integers:
    """What the sequence number distinguishes people of: district, birthday and sex, as one number."""
    year, month, dom = calendar(born)
    return (birthplace * 100_000_000 + year * 10_000 + month * 100 + dom) * 2 + male


def _ranks(keys: Integers) -> Integers:
    """The how-manieth each one is of its key, from 0."""
    order = np.argsort(keys, kind="stable")
    begins = np.flatnonzero(np.diff(keys[order], prepend=-1) != 0)
    ranks = np.empty(len(keys), dtype=np.int64)
    ranks[order] = np.arange(len(keys)) - np.repeat(begins, np.diff(np.append(begins, len(keys))))
    return ranks


def _identifiers(birthplace: Integers, born: Integers, male: Mask, rank: Integers, number: int, count: int) -> Bytes:
    """Resident IDs, shape (n, 18): distinct over all ``count`` blocks, odd sequence numbers for men."""
    keys = _keys(birthplace, born, male)
    rooms = NUMBERS // count
    turn = (keys * 2_654_435_761 % 1_000_003 + rank) % rooms  # scattered, yet the same in every block
    sequence = 2 * (number + count * turn) + male
    body = np.concatenate([digits(birthplace, 6), digits(keys // 2 % 100_000_000, 8), digits(sequence, 3)], axis=1)
    return np.concatenate([body, mod_11_2(body)[:, None]], axis=1)


@dataclass(frozen=True)
class Cards:
    """Resident ID cards of a block, one each, in the order of people; ``ends`` is -1 for those without an end."""

    begins: Integers
    ends: Integers
    state: Integers


def cards(people: People, rng: np.random.Generator) -> Cards:
    """Cards valid for 5, 10 or 20 years by age at issue, without end from 46 on; about one in twelve has run out."""
    n = len(people)
    share = rng.random(n) * 1.08  # of a term gone by; more than one has run out
    begins = UNTIL - (share * _term(people.born, UNTIL) * 365.2425).astype(np.int64)
    begins = UNTIL - (share * _term(people.born, begins) * 365.2425).astype(np.int64)
    begins = np.maximum(begins, np.maximum(people.born, day("2004-04-01")))
    endless = begins >= years_later(people.born, np.full(n, 46))
    ends = np.where(endless, -1, years_later(begins, _term(people.born, begins)))
    return Cards(begins, ends, rng.choice(3, size=n, p=(0.975, 0.015, 0.01)))


def _term(born: Integers, issued: Integers | int) -> Integers:
    """Years a card issued on a day is valid; 20 stands for no end too."""
    age = (issued - born) / 365.2425
    return np.select([age < 16, age < 26], [5, 10], 20)


def updated(people: People, count: int, rng: np.random.Generator) -> pa.StringArray:
    """``count`` update times, strictly rising over all blocks."""
    return moments(instants(people, count, rng))


def instants(people: People, count: int, rng: np.random.Generator) -> Integers:
    """The same as local seconds since 1970."""
    slots = people.start + np.arange(count, dtype=np.int64)
    rising: Integers = UPDATES_BEGIN + slots * people.step + rng.integers(0, people.step, count)
    return rising


def residents(people: People, held: Cards, rng: np.random.Generator) -> tuple[pa.Table, Integers]:
    """Rows of the residents' register and, for each row, the person; in the order in which they were updated."""
    order = rng.permutation(len(people))
    rows = pa.array(order)
    ends = pc.if_else(pa.array(held.ends < 0), "长期", dates(held.ends).cast(pa.string()))
    table = pa.table(
        {
            "xm": people.name.take(rows),
            "gmsfhm": people.identifier.take(rows),
            "xb": sexes(people).take(rows),
            "mz": people.ethnicity.take(rows),
            "csrq": dates(people.born).cast(pa.string()).take(rows),
            "qfjg": offices(people, "公安局").take(rows),
            "xzqh": strings(digits(people.home, 6)).take(rows),
            "yxqq": dates(held.begins).cast(pa.string()).take(rows),
            "yxqz": ends.take(rows),
            "zt": pick(STATES, held.state[order]),
            "gxsj": updated(people, len(people), rng),
        }
    )
    return table, order


def households(people: People, rng: np.random.Generator) -> tuple[pa.Table, Integers, Integers]:
    """Rows of the household register in the order of people, the days of registration, and the states."""
    n = len(people)
    first = np.searchsorted(people.household, people.household)  # the head's index
    joined = people.born + (rng.random(n) * np.minimum(UNTIL - people.born, 30 * 365)).astype(np.int64)
    since = np.where(people.role == CHILD, people.born + np.minimum(30, UNTIL - people.born), joined)
    state = np.where(rng.random(n) < 0.01, 2, 0)
    kind = (people.household % 50 == 0).astype(np.int64)
    district = places.full_names(people.home)
    table = pa.table(
        {
            "hh": numbers(people),
            "gmsfhm": people.identifier,
            "xm": people.name,
            "yhzgx": relations(people),
            "hb": pick(("家庭户", "集体户"), kind),
            "zz": names.addresses(rng, district).take(pa.array(first)),
            "xzqh": strings(digits(people.home, 6)),
            "qfjg": offices(people, "公安局"),
            "zt": pick(STATES, state),
            "djrq": dates(since).cast(pa.string()),
            "gxsj": updated(people, n, rng),
        }
    )
    return table, since, state


def numbers(people: People) -> pa.StringArray:
    """Household numbers: district and a number that is never given twice."""
    return strings(np.concatenate([digits(people.home, 6), digits(people.household, 9)], axis=1))


def sexes(people: People) -> pa.StringArray:
    return pick(SEXES, (~people.male).astype(np.int64))


def relations(people: People) -> pa.StringArray:
    male = people.male
    pairs = {HEAD: (0, 0), SPOUSE: (2, 1), CHILD: (3, 4), FATHER: (5, 5), MOTHER: (6, 6)}
    table = np.array([pairs[role] for role in range(5)])
    return pick(RELATIONS, table[people.role, (~male).astype(np.int64)])


def offices(people: People, bureau: str) -> pa.StringArray:
    """上海市松江区公安局 and the like, for the district each person lives in."""
    return join(places.full_names(people.home), bureau)
