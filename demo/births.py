"""Medical birth certificates of children who live with their mother, in the form of a typed Parquet extract."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from demo import dirt, lives, overseas, places
from demo.columns import Integers, constant, dates, day, digits, join, pick, spaced, strings
from demo.dirt import Kind
from demo.forms import Typed
from demo.lives import YEAR, Lives, Named
from demo.overseas import PASSPORT, Overseas
from demo.population import CHILD, UNTIL, People, instants, sexes
from demo.records import Records
from mappings.checksums import mod_31

MATERIAL = "birth-certificate"
FILES = "nhc/certificates/births-{}.parquet"
TEXTS = ("mqxm", "mqzjlx", "mqzjhm", "fqxm", "fqzjlx", "fqzjhm", "jgmc", "jgdm", "xzqh")
SCHEMA = pa.schema(
    [
        ("cszbh", pa.string()),
        ("xsexm", pa.string()),
        ("xb", pa.string()),
        ("csrq", pa.date32()),
        ("xsezjhm", pa.string()),
        *((name, pa.string()) for name in TEXTS),
        ("qfrq", pa.date32()),
        ("zt", pa.string()),
        ("gxsj", pa.timestamp("us")),  # local time of China
    ]
)
FORM = Typed(SCHEMA)
STATES = ("有效", "作废")
HOLDING = ("in_force", "cancelled")
BEGINS = day("1996-01-01")  # no certificates of one form before
KEPT = 0.85
REISSUED = 0.01
HOSPITALS = ("妇幼保健院", "中心医院", "第一人民医院")

DIRT = (
    Kind("wrong-check-digit", "quarantined", "mqzjhm", dirt.wrong_check_digit, dirt.RESIDENT_ID),
    Kind("not-available", "accepted", "jgmc", dirt.always("N/A", "-")),
    Kind("scientific-notation", "rejected", "mqzjhm", dirt.scientific, dirt.RESIDENT_ID),
    Kind("repeated-row", "repeated", None, dirt.repeated),
    Kind("lower-case-x", "accepted", "mqzjhm", dirt.lower_case, "^[0-9]{17}X$"),
    Kind("unlisted-region", "flagged", "xzqh", dirt.unlisted_region),
    Kind("full-width-digits", "accepted", "fqzjhm", dirt.full_width, dirt.RESIDENT_ID),
    Kind("backslash-n", "accepted", "jgmc", dirt.always("\\n")),
)


def births(people: People, led: Lives, them: Overseas, rng: np.random.Generator) -> Records:
    """Children of the households; the roles are mother, child (once registered: here all of them) and father."""
    child, mother, father, abroad = _families(people, them, rng)
    born = people.born[child]
    mothers = _mothers(people, led, them, mother, abroad, born, rng)
    fathers = lives.residents(people, led, np.maximum(father, 0), born, rng)
    unknown = pa.array((father < 0) | (rng.random(len(child)) < 0.015))

    issued = np.minimum(born + rng.integers(1, 60, len(child)), UNTIL)
    state = np.where(rng.random(len(child)) < 0.004, 1, 0)
    # A lost one is issued again under another number, and the first one is void.
    lost = np.flatnonzero((rng.random(len(child)) < REISSUED) & (issued < UNTIL - 400))
    state[lost] = 1
    again = np.concatenate([np.arange(len(child)), lost])
    n, taken = len(again), pa.array(again)
    edition = np.repeat([0, 1], [len(child), len(lost)])
    issued = issued[again] + edition * rng.integers(30, 300, n)
    state = np.where(edition == 1, 0, state[again])
    serial = lives.scattered(people.start + child[again])
    number = join(pick(("R", "U"), edition), strings(digits(serial, 9)))
    region = people.home[child[again]]
    hospital = rng.integers(0, len(HOSPITALS), n)
    unknown = unknown.take(taken)
    # A name given later is not on it.
    names = lives.residents(people, led, child, born, rng).name
    mothers, fathers = mothers.take(taken), fathers.take(taken)
    holders = pc.if_else(unknown, None, fathers.holder)
    children = people.identifier.take(pa.array(child[again]))
    table = pa.table(
        {
            "cszbh": number,
            "xsexm": names.take(taken),
            "xb": sexes(people).take(pa.array(child[again])),
            "csrq": dates(people.born[child[again]]).cast(pa.string()),
            "xsezjhm": children,
            "mqxm": mothers.name,
            "mqzjlx": mothers.type,
            "mqzjhm": mothers.number,
            "fqxm": pc.if_else(unknown, None, fathers.name),
            "fqzjlx": pc.if_else(unknown, None, fathers.type),
            "fqzjhm": pc.if_else(unknown, None, fathers.number),
            "jgmc": join(places.full_names(region), pick(HOSPITALS, hospital)),
            "jgdm": _hospitals(region, hospital),
            "xzqh": strings(digits(region, 6)),
            "qfrq": dates(issued).cast(pa.string()),
            "zt": pick(STATES, state),
            "gxsj": spaced(instants(people, n, rng)),
        }
    )
    return Records(
        material=MATERIAL, table=table, identifier=number, holders=[mothers.holder, join("cn.ric:", children), holders],
        subjects=[
            mothers.subject, lives.subjects(people, child[again]), pc.if_else(unknown, None, fathers.subject),
        ],
        begins=dates(issued), ends=pa.nulls(n, pa.date32()), status=pick(HOLDING, state),
    )  # fmt: skip


def _families(
    people: People, them: Overseas, rng: np.random.Generator
) -> tuple[Integers, Integers, Integers, Integers]:
    """Child, mother (-1: from overseas), father (-1: none named) as indices, and the mother among those from overseas."""
    child = np.flatnonzero((people.role == CHILD) & (people.born >= BEGINS) & (rng.random(len(people)) < KEPT))
    head = np.searchsorted(people.household, people.household[child])
    spouse = people.spouse[head]
    male = people.male[head]
    mother, father = np.where(male, spouse, head), np.where(male, head, spouse)
    women = np.flatnonzero(~them.male & (them.kinds[:, 0] == PASSPORT))
    abroad = rng.choice(women, size=len(child)) if len(women) else np.full(len(child), -1)
    abroad = np.where((mother < 0) & (rng.random(len(child)) < 0.3), abroad, -1)
    from_overseas = abroad >= 0
    born = np.where(mother >= 0, people.born[np.maximum(mother, 0)], people.born[child] - int(60 * YEAR))
    if len(women):
        born = np.where(from_overseas, them.born[np.maximum(abroad, 0)], born)
    age = (people.born[child] - born) / YEAR
    kept = ((mother >= 0) | from_overseas) & (age >= 17) & (age <= 50)  # else a stepmother
    return child[kept], mother[kept], father[kept], abroad[kept]


def _mothers(
    people: People, led: Lives, them: Overseas, mother: Integers, abroad: Integers, born: Integers,
    rng: np.random.Generator,
) -> Named:  # fmt: skip
    here, there = np.flatnonzero(mother >= 0), np.flatnonzero(mother < 0)
    found = lives.residents(people, led, mother[here], born[here], rng) + overseas.named(
        them, abroad[there], born[there]
    )
    return found.take(np.argsort(np.concatenate([here, there]), kind="stable"))


def _hospitals(region: Integers, hospital: Integers) -> pa.StringArray:
    """Invented credit codes (12: public institutions)."""
    n = len(region)
    serial = digits(region * 11 % 1_000_000 * 10 + hospital, 9)
    body = np.concatenate([constant("12", n), digits(region, 6), serial], axis=1)
    return strings(np.concatenate([body, mod_31(body)[:, None]], axis=1))
