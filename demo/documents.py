"""All documents about people, block by block, and the truth about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from demo import (
    allowances,
    births,
    degrees,
    dirt,
    history,
    insurance,
    links,
    lives,
    marriages,
    overseas,
    population,
    slips,
    titles,
    zhejiang,
)
from demo.columns import dates, join, pick
from demo.dirt import Kind, Spoiler
from demo.employers import Employers
from demo.forms import Csv, Form, JsonLines
from demo.lives import Lives
from demo.marriages import Marriages
from demo.population import Cards, People
from demo.records import Claims, Records, certify, contradict
from demo.writers import DirtyFile, Parquet

PARTS = 3  # of what a department delivers in several files, at least; in Files, the largest part for so many people
RESIDENTS, HOUSEHOLDS, MARRIAGES = "ga/residents.jsonl", "ga/households.jsonl", "mca/marriages.csv"


def write(
    people: int, seed: int, rate: float, firms: Employers, folder: Path, truth: Mapping[str, Parquet],
    progress: Callable[[int], None],
) -> int:  # fmt: skip
    """Write all documents about ``people``. Returns the records written, repeats not counted."""
    total = 0
    with ExitStack() as stack:
        files = Files(folder, people, rate, truth, stack)
        for block, rng in population.blocks(people, seed):
            for done in _block(files, block, rng, np.random.default_rng([seed, 3, block.start]), firms):
                total += done
                progress(done)
    return total


class Files:
    """The files of all departments that write about people."""

    def __init__(self, folder: Path, people: int, rate: float, truth: Mapping[str, Parquet], stack: ExitStack) -> None:
        def file(
            name: str, form: Form, kinds: Sequence[Kind], limit: int | None = None, rate: float = rate
        ) -> DirtyFile:
            return stack.enter_context(DirtyFile(folder, name, form, Spoiler(kinds, None, rate), truth["dirt"], limit))

        self.truth = truth
        self.residents = file(RESIDENTS, JsonLines(), dirt.RESIDENTS)
        self.households = file(HOUSEHOLDS, JsonLines(), dirt.HOUSEHOLDS)
        self.marriages = file(MARRIAGES, Csv(marriages.COLUMNS), dirt.MARRIAGES)
        self.zhejiang = file(zhejiang.FILE, zhejiang.FORM, zhejiang.DIRT)
        self.insurance, self.insurance_zhejiang = (
            file(name, insurance.FORM, insurance.DIRT, int(people * share))
            for name, share in zip(insurance.FILES.values(), (0.25, 0.03), strict=True)
        )
        self.titles = file(titles.FILES, titles.FORM, titles.DIRT, titles.LIMIT)
        self.births = file(births.FILES, births.FORM, births.DIRT, int(people * 0.08))
        self.degrees = file(degrees.FILE, degrees.FORM, degrees.DIRT)
        self.roster = file(allowances.FILE, allowances.FORM, allowances.DIRT)
        self.documents = file(links.DOCUMENTS, links.DOCUMENT_FORM, links.DOCUMENT_DIRT)
        self.next_roster = file(allowances.NEXT_FILE, allowances.FORM, allowances.DIRT, rate=0.0)

    def write(self, file: DirtyFile, records: Records, rng: np.random.Generator, claims: Sequence[Claims] = ()) -> int:
        """Write and certify records of one kind; returns how many."""
        rows = file.write(records.table, rng)
        certify(self.truth["certificates"], records, rows)
        for found in claims:
            contradict(self.truth["contradictions"], found, rows)
        return len(records)


def _block(
    files: Files, people: People, rng: np.random.Generator, other: np.random.Generator, firms: Employers
) -> Iterator[int]:
    """Write a block; yields the records written, document by document."""
    led = lives.lives(people, other)
    them = overseas.overseas(people.start, len(people), other)
    history.people(files.truth, people, led)
    history.overseas(files.truth, them)

    cards = population.cards(people, rng)
    table, order = population.residents(people, cards, rng)
    table, claims = slips.slips(people, table, order, other)
    yield files.write(files.residents, _cards(people, cards, table, order), rng, claims)
    yield files.write(files.households, _households(people, led, rng), rng)
    wed = marriages.marriages(people, rng)
    history.marriages(files.truth, people, wed)
    yield files.write(files.marriages, _marriages(people, wed), rng)

    registered, twice = zhejiang.households(people, led, other)
    yield files.write(files.zhejiang, registered, other, [twice])
    insured, borrowed = insurance.shanghai(people, led, them, firms, other)
    for file, records, claim in (
        (files.insurance, insured, borrowed),
        (files.insurance_zhejiang, insurance.zhejiang(people, led, firms, other), None),
        (files.births, births.births(people, led, them, other), None),
    ):
        # In slices, so that also the only block goes to several files.
        size = max(-(-len(records) // PARTS), 1)
        for start in range(0, len(records), size):
            here = [claim.within(start, start + size)] if claim else []
            yield files.write(file, records.slice(start, size), other, here)
    yield files.write(files.titles, titles.titles(people, led, them, firms, other), other)
    yield files.write(files.degrees, degrees.degrees(people, led, them, other), other)
    roster = allowances.allowances(people, other)
    history.allowances(files.truth, roster)
    yield files.write(files.roster, roster.records, other)
    files.next_roster.write(roster.after, other)
    yield roster.after.num_rows
    renewed, wrong = links.documents(them, other)
    yield files.write(files.documents, renewed, other, wrong)


def _cards(people: People, cards: Cards, table: pa.Table, order: np.ndarray) -> Records:
    identifier = people.identifier.take(pa.array(order))
    return Records(
        material="resident-id-card", table=table, identifier=identifier, holders=[join("cn.ric:", identifier)],
        subjects=[lives.subjects(people, order)], begins=dates(cards.begins[order]),
        ends=pc.if_else(pa.array(cards.ends[order] < 0), None, dates(cards.ends[order])),
        status=pick([population.HOLDING[state] for state in population.STATES], cards.state[order]),
    )  # fmt: skip


def _households(people: People, led: Lives, rng: np.random.Generator) -> Records:
    """The register of Shanghai, without those who are registered in Zhejiang."""
    table, since, state = population.households(people, rng)
    who = np.flatnonzero(led.origin != lives.THERE)
    rows = pa.array(who)
    return Records(
        material=zhejiang.MATERIAL, table=table.take(rows), identifier=population.numbers(people).take(rows),
        holders=[join("cn.ric:", people.identifier.take(rows))], subjects=[lives.subjects(people, who)],
        begins=dates(since[who]), ends=pa.nulls(len(who), pa.date32()),
        status=pick([population.HOLDING[name] for name in population.STATES], state[who]),
    )  # fmt: skip


def _marriages(people: People, wed: Marriages) -> Records:
    pair = wed.husband, wed.wife
    return Records(
        material="marriage-certificate", table=wed.table, identifier=wed.table["djzh"].combine_chunks(),
        holders=[join("cn.ric:", people.identifier.take(pa.array(who))) for who in pair],
        subjects=[lives.subjects(people, who) for who in pair], begins=dates(wed.registered),
        ends=pa.nulls(len(wed.husband), pa.date32()),
        status=pick([marriages.HOLDING[state] for state in marriages.STATES], wed.state),
    )  # fmt: skip
