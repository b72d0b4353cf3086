"""What is true of a block of people whatever documents say: who they are, under which numbers and names, from when to when."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from demo import lives, places, population
from demo.allowances import MONTH, NEXT_MONTH, Roster
from demo.columns import dates, digits, join, pick, same, strings
from demo.companies import Companies, Register, generations
from demo.lives import FIFTEEN_UNTIL, NEVER, Lives
from demo.marriages import HOLDING, STATES, Marriages
from demo.overseas import SCHEMES, Overseas
from demo.population import People
from demo.writers import Parquet

Truth = Mapping[str, Parquet]


def people(truth: Truth, them: People, led: Lives) -> None:
    """Persons, their resident IDs of 18 and of 15 digits, their names."""
    number = them.start + np.arange(len(them))
    subject = lives.subjects(them, np.arange(len(them)))
    there = pa.array(led.origin == lives.THERE)
    truth["people"].columns(
        person=number,
        name=them.name,
        identifier=them.identifier,
        sex=population.sexes(them),
        ethnicity=them.ethnicity,
        born_on=dates(them.born),
        birth_region=strings(digits(them.birthplace, 6)),
        region=strings(digits(them.home, 6)),
        household=pc.if_else(there, lives.zhejiang_numbers(them, led), population.numbers(them)),
        relation=population.relations(them),
        spouse=pa.array(them.start + them.spouse, mask=them.spouse < 0),
    )
    truth["identifiers"].columns(
        subject=subject,
        scheme=same("cn.ric", len(them)),
        value=them.identifier,
        region=strings(digits(them.birthplace, 6)),
        region_status=places.statuses(them.birthplace),
    )
    born = dates(them.born)
    had = lives.has_fifteen(them)
    since = dates(np.where(had, FIFTEEN_UNTIL, them.born))
    _link(truth, subject, "cn.ric", them.identifier, them.identifier, since, None)
    old, last = pa.array(had), dates(np.full(int(had.sum()), FIFTEEN_UNTIL - 1))
    value = them.identifier.filter(old)
    _link(truth, subject.filter(old), "cn.ric", value, lives.fifteen(value), born.filter(old), last)

    changed = led.former.is_valid()
    renamed, who = dates(led.renamed).filter(changed), subject.filter(changed)
    before = dates(led.renamed - 1).filter(changed)
    truth["names"].columns(
        subject=who, name=led.former.filter(changed), valid_from=born.filter(changed), valid_to=before
    )
    none = pa.nulls(len(who), pa.date32())
    truth["names"].columns(subject=who, name=them.name.filter(changed), valid_from=renamed, valid_to=none)


def overseas(truth: Truth, them: Overseas) -> None:
    truth["overseas"].columns(
        overseas=them.number,
        name=them.name,
        sex=pick(population.SEXES, (~them.male).astype(np.int64)),
        born_on=dates(them.born),
        origin=them.origin,
    )
    changed = them.changed != NEVER
    last = pc.if_else(pa.array(changed), dates(them.changed - 1), None)
    _link(truth, them.subject, pick(SCHEMES, them.kinds[:, 0]), them.first, them.first, None, last)
    again = pa.array(changed)
    second, schemes = them.second.filter(again), pick(SCHEMES, np.maximum(them.kinds[:, 1], 0)).filter(again)
    _link(truth, them.subject.filter(again), schemes, second, second, dates(them.changed).filter(again), None)


def marriages(truth: Truth, them: People, wed: Marriages) -> None:
    husband, wife = (them.identifier.take(pa.array(who)) for who in (wed.husband, wed.wife))
    truth["marriages"].columns(
        number=wed.table["djzh"].combine_chunks(),
        husband=them.start + wed.husband,
        wife=them.start + wed.wife,
        husband_identifier=husband,
        wife_identifier=wife,
        registered_on=dates(wed.registered),
        status=pick([HOLDING[state] for state in STATES], wed.state),
    )


def allowances(truth: Truth, roster: Roster) -> None:
    """On which rosters each certificate stands."""
    first, second = pa.array(roster.first), pa.array(roster.second)
    months = [pa.scalar(month).cast(pa.date32()) for month in (MONTH, NEXT_MONTH)]
    truth["allowances"].columns(
        number=roster.number,
        holder=roster.holder,
        persons=pa.array(roster.persons),
        persons_next=pc.if_else(second, pa.array(roster.persons_next), None),
        first_month=pc.if_else(first, *months),
        last_month=pc.if_else(second, pa.scalar(None, pa.date32()), months[0]),
    )


def companies(
    truth: Truth, register: Register, block: Companies, value: pa.StringArray, scheme: pa.StringArray,
    representatives: tuple[pa.Array, pa.StringArray, pa.StringArray], inside: pa.StringArray, status: pa.StringArray,
) -> None:  # fmt: skip
    """Companies under their numbers; ``inside``: the division code in the number, ``status`` what is known of it."""
    subject = join("company:", pa.array(block.number).cast(pa.string()))
    truth["companies"].columns(
        company=block.number,
        name=block.table["企业名称"],
        scheme=scheme,
        value=value,
        registered_on=dates(block.registered),
        capital=block.capital,
        currency=block.currency,
        province=block.table["所在省份"],
        city=block.city,
        representative=representatives[0],
        representative_name=representatives[1],
        representative_identifier=representatives[2],
    )
    truth["identifiers"].columns(subject=subject, scheme=scheme, value=value, region=inside, region_status=status)
    old, new, changed = generations(register, block, value)
    for numbers, name, since, until in (
        (old, "cn.regno", block.registered, pc.if_else(new.is_valid(), dates(changed - 1), None)),
        (new, "cn.uscc", np.where(old.is_valid(), changed, block.registered), pa.nulls(len(new), pa.date32())),
    ):
        there = numbers.is_valid()
        kept = numbers.filter(there)
        _link(truth, subject.filter(there), name, kept, kept, dates(since).filter(there), until.filter(there))


def _link(
    truth: Truth, subject: pa.StringArray, scheme: str | pa.StringArray, value: pa.StringArray,
    written: pa.StringArray, since: pa.Array | None, until: pa.Array | None,
) -> None:  # fmt: skip
    n = len(subject)
    truth["links"].columns(
        subject=subject,
        scheme=same(scheme, n) if isinstance(scheme, str) else scheme,
        value=value,
        written=written,
        valid_from=pa.nulls(n, pa.date32()) if since is None else since,
        valid_to=pa.nulls(n, pa.date32()) if until is None else until,
    )
