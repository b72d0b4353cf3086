"""Marriage registrations of a block of people, with some that ended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from demo.columns import Integers, calendar, constant, dates, digits, join, pick, strings
from demo.places import full_names
from demo.population import UNTIL, People, updated
from mappings.checksums import mod_31

COLUMNS = ("djzh", "nf_xm", "nf_sfzh", "nvf_xm", "nvf_sfzh", "djrq", "djjg", "djjg_dm", "xzqh", "zt", "gxsj")
STATES = ("有效", "已离婚", "撤销")
HOLDING = {"有效": "in_force", "已离婚": "cancelled", "撤销": "revoked"}
REGISTERED = 0.93  # of couples who live together
YEAR = 365.2425


@dataclass(frozen=True)
class Marriages:
    """Registrations; ``husband`` and ``wife`` are indices in the block."""

    husband: Integers
    wife: Integers
    registered: Integers  # days since 1970
    state: Integers
    table: pa.Table


def marriages(people: People, rng: np.random.Generator) -> Marriages:
    """Couples who live together, and some who live alone and were once married to each other."""
    spouse, male = people.spouse, people.male
    husband = np.flatnonzero((spouse >= 0) & male)
    husband = husband[rng.random(len(husband)) < REGISTERED]
    wife = spouse[husband]
    men, women = _alone(people, rng, True), _alone(people, rng, False)
    pairs = int(min(len(men), len(women)) * 0.3)
    state = np.where(rng.random(len(husband)) < 0.003, 2, 0)
    husband, wife = np.append(husband, men[:pairs]), np.append(wife, women[:pairs])
    state = np.append(state, np.full(pairs, 1))

    earliest = np.maximum(people.born[husband] + 22.01 * YEAR, people.born[wife] + 20.01 * YEAR).astype(np.int64)
    lawful = earliest <= UNTIL
    husband, wife, state, earliest = husband[lawful], wife[lawful], state[lawful], earliest[lawful]
    n = len(husband)
    span = np.minimum(UNTIL - earliest, int(12 * YEAR))
    registered = earliest + (rng.random(n) ** 2 * span).astype(np.int64)

    order = rng.permutation(n)
    husband, wife, state, registered = husband[order], wife[order], state[order], registered[order]
    region, year = people.home[husband], calendar(registered)[0]
    district = full_names(region)
    table = pa.table(
        {
            "djzh": join(
                "J",
                strings(digits(region, 6)),
                "-",
                strings(digits(year, 4)),
                "-",
                strings(digits(people.start + np.arange(n), 7)),
            ),
            "nf_xm": people.name.take(pa.array(husband)),
            "nf_sfzh": people.identifier.take(pa.array(husband)),
            "nvf_xm": people.name.take(pa.array(wife)),
            "nvf_sfzh": people.identifier.take(pa.array(wife)),
            "djrq": dates(registered).cast(pa.string()),
            "djjg": join(district, "民政局"),
            "djjg_dm": offices(region),
            "xzqh": strings(digits(region, 6)),
            "zt": pick(STATES, state),
            "gxsj": updated(people, n, rng),
        }
    )
    return Marriages(husband, wife, registered, state, table)


def offices(region: Integers) -> pa.StringArray:
    """Invented credit codes (11: state organs) of the civil affairs bureaus."""
    n = len(region)
    serial = digits(region * 7 % 1_000_000, 9)
    body = np.concatenate([constant("11", n), digits(region, 6), serial], axis=1)
    return strings(np.concatenate([body, mod_31(body)[:, None]], axis=1))


def _alone(people: People, rng: np.random.Generator, male: bool) -> Integers:
    age = (UNTIL - people.born) / YEAR
    found = np.flatnonzero((people.spouse < 0) & (people.male == male) & (age > 28) & (age < 65))
    chosen: Integers = rng.permutation(found)
    return chosen
