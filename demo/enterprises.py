"""The registers of companies, written first: other departments name companies, and people represent them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from demo import companies, dirt, employers, history, links, places, population
from demo.columns import Integers, dates, digits, join, pick, same, strings
from demo.employers import Employers
from demo.records import Records, certify
from demo.writers import DirtyFile, Parquet, Written


@dataclass(frozen=True)
class Candidates:
    """Adults of the first block: who can represent a company."""

    person: Integers
    name: pa.StringArray
    identifier: pa.StringArray


def write(
    people: int, count: int, seed: int, rate: float, folder: Path, truth: Mapping[str, Parquet],
    progress: Callable[[int], None],
) -> tuple[int, Employers]:  # fmt: skip
    """Write the registers of ``count`` companies. Returns the records written and the companies others know."""
    shares = np.diff(np.linspace(0, count, len(companies.REGISTERS) + 1).astype(np.int64))
    firsts = np.cumsum(shares) - shares
    found = _candidates(people, seed)
    pool: list[Employers] = []
    converted = DirtyFile(
        folder, links.CONVERSIONS, links.CONVERSION_FORM, dirt.Spoiler(links.CONVERSION_DIRT, None, rate), truth["dirt"]
    )
    for place, register in enumerate(companies.REGISTERS):
        total = int(shares[place])
        spoiler = dirt.Spoiler(dirt.COMPANIES, total, rate, first=2 * place)
        with DirtyFile(folder, register.name, register.form, spoiler, truth["dirt"]) as file:
            for number, (block, rng) in enumerate(companies.blocks(register, int(firsts[place]), total, seed)):
                rows = file.write(block.table, rng)
                value = _record(truth, register, block, found, rows, rng)
                changed = links.conversions(register, block, value)
                certify(
                    truth["certificates"],
                    changed,
                    converted.write(changed.table, np.random.default_rng([seed, 4, place, number])),
                )
                if not number:
                    pool.append(employers.known(register, block, value))
                progress(len(block.number))
    converted.close()
    return count, employers.together(pool)


def _candidates(people: int, seed: int) -> Candidates:
    block, _ = next(population.blocks(people, seed))
    grown = np.flatnonzero(block.born < population.UNTIL - 18 * 366)
    taken = pa.array(grown)
    return Candidates(block.start + grown, block.name.take(taken), block.identifier.take(taken))


def _record(
    truth: Mapping[str, Parquet], register: companies.Register, block: companies.Companies, found: Candidates,
    rows: Written, rng: np.random.Generator,
) -> pa.StringArray:  # fmt: skip
    """Note what is true of a block; returns the companies' numbers in the register."""
    n = len(block.number)
    # A code moved to a development zone is the company's true code.
    moved = pc.fill_null(pc.equal(rows.kind, "unlisted-region"), False)
    value = pc.if_else(
        moved, rows.table["统一社会信用代码"].combine_chunks(), block.table["统一社会信用代码"].combine_chunks()
    )
    scheme = pick(("cn.uscc", "cn.regno"), (block.kind != companies.CREDIT).astype(np.int64))
    chosen = rng.integers(0, max(len(found.person), 1), n)
    who = pa.array(chosen, mask=np.full(n, len(found.person) == 0))
    worded = pa.array(block.kind == companies.FOREIGN)
    inside = pc.if_else(
        moved, pc.utf8_slice_codeunits(value, 2, 8), pc.if_else(worded, None, strings(digits(block.region, 6)))
    )
    status = pc.if_else(moved, "unlisted", pc.if_else(worded, None, places.statuses(block.region)))
    representatives = pa.array(found.person).take(who), found.name.take(who), found.identifier.take(who)
    history.companies(truth, register, block, value, scheme, representatives, inside, status)
    licence = Records(
        material="business-licence", table=block.table, identifier=value, holders=[join(scheme, ":", value)],
        subjects=[join("company:", pa.array(block.number).cast(pa.string()))], begins=dates(block.registered),
        ends=pa.nulls(n, pa.date32()), status=same("in_force", n),
    )  # fmt: skip
    certify(truth["certificates"], licence, rows)
    return value
