"""One folder of synthetic departments' files and the truth about them, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.errors import UsageError
from demo import companies, dirt, marriages, places, population
from demo.columns import Integers, dates, digits, join, pick, strings
from demo.truth import TABLES
from demo.writers import Csv, DirtyFile, JsonLines, Parquet, Written, digest

FORM = 1  # of what is written; a folder made by another form is not taken for the same
MANIFEST = "synth.json"
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Parameters:
    """What a folder follows from."""

    people: int
    companies: int
    seed: int
    dirt: float = 0.01
    form: int = field(default=FORM, init=False)

    def check(self) -> None:
        if not 0 < self.people <= population.LIMIT:
            raise UsageError("synth-people-out-of-range", limit=f"{population.LIMIT:,}")
        if not 0 <= self.companies <= population.LIMIT:
            raise UsageError("synth-companies-out-of-range", limit=f"{population.LIMIT:,}")
        if not 0 <= self.dirt <= 0.5:
            raise UsageError("synth-dirt-out-of-range")
        if self.seed < 0:
            raise UsageError("synth-seed-negative")


@dataclass(frozen=True)
class Result:
    """``made`` is false when the folder was there already. ``records``: rows made, repeats not counted."""

    folder: Path
    made: bool
    records: int
    seconds: float
    files: dict[str, dict[str, Any]]


def synthesise(parameters: Parameters, folder: Path, progress: Progress = lambda done: None) -> Result:
    """Write the folder, or find that it is there already.

    ``progress`` is told how many more records were written. Raises UsageError for parameters out of range and for a
    folder that holds anything else; then nothing is touched.
    """
    parameters.check()
    folder = folder.absolute()
    if found := _existing(parameters, folder):
        return found
    started = time.perf_counter()
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        records = _write(parameters, partial, progress)
        files = {
            path.relative_to(partial).as_posix(): {"bytes": path.stat().st_size, "sha256": digest(path)}
            for path in sorted(partial.rglob("*"))
            if path.is_file()
        }
        manifest = {"parameters": asdict(parameters), "records": records, "files": files}
        (partial / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        try:
            partial.rename(folder)  # takes the place of an empty folder, of no other
        except OSError as error:
            raise UsageError("synth-folder-not-its-own", folder=folder) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Result(folder, True, records, time.perf_counter() - started, files)


def _existing(parameters: Parameters, folder: Path) -> Result | None:
    """What an earlier run left, None when there is nothing; UsageError when it is something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        made_with, files, records = manifest["parameters"], manifest["files"], manifest["records"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError("synth-folder-not-its-own", folder=folder) from error
    if made_with != asdict(parameters):
        raise UsageError("synth-other-parameters", folder=folder)
    for name, about in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != about["bytes"]:
            raise UsageError("synth-folder-damaged", folder=folder, file=name)
    return Result(folder, False, records, 0.0, files)


def _sweep(folder: Path) -> None:
    """Remove what killed runs left behind."""
    for left in folder.parent.glob(f".{folder.name}.*.partial"):
        owner = left.name.split(".")[-2]
        with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
            if int(owner) != os.getpid():
                os.kill(int(owner), 0)
                continue
        shutil.rmtree(left, ignore_errors=True)


def _write(parameters: Parameters, folder: Path, progress: Progress) -> int:
    with ExitStack() as stack:
        truth: dict[str, Parquet] = {}
        for name, schema in TABLES.items():
            truth[name] = Parquet(folder, f"truth/{name}.parquet", schema)
            stack.callback(truth[name].close)
        candidates = _write_people(parameters, folder, truth, progress)
        records = 2 * parameters.people + candidates.married
        return records + _write_companies(parameters, folder, truth, candidates, progress)


@dataclass
class Candidates:
    """Adults of the first block: who can represent a company. ``married``: registrations written."""

    person: Integers
    name: pa.StringArray
    identifier: pa.StringArray
    married: int = 0


def _write_people(parameters: Parameters, folder: Path, truth: dict[str, Parquet], progress: Progress) -> Candidates:
    n, rate = parameters.people, parameters.dirt
    candidates: Candidates | None = None
    # Registrations are about a third of people; the spoiler only needs the order of magnitude.
    spoilers = [dirt.Spoiler(kinds, n, rate) for kinds in (dirt.RESIDENTS, dirt.HOUSEHOLDS, dirt.MARRIAGES)]
    with (
        DirtyFile(folder, "ga/residents.jsonl", JsonLines(), spoilers[0], truth["dirt"]) as residents,
        DirtyFile(folder, "ga/households.jsonl", JsonLines(), spoilers[1], truth["dirt"]) as households,
        DirtyFile(folder, "mca/marriages.csv", Csv(columns=marriages.COLUMNS), spoilers[2], truth["dirt"]) as registry,
    ):
        for people, rng in population.blocks(n, parameters.seed):
            cards = population.cards(people, rng)
            rows, order = population.residents(people, cards, rng)
            _certify_cards(truth, people, cards, order, "ga/residents.jsonl", residents.write(rows, rng))
            progress(len(people))
            rows, since, state = population.households(people, rng)
            _certify_households(truth, people, since, state, "ga/households.jsonl", households.write(rows, rng))
            progress(len(people))
            wed = marriages.marriages(people, rng)
            spoilers[2].total = int(wed.table.num_rows / len(people) * n) + 1
            spoilers[2].count = max(round(rate * spoilers[2].total), 1 if rate > 0 and spoilers[2].total >= 50 else 0)
            _certify_marriages(truth, people, wed, "mca/marriages.csv", registry.write(wed.table, rng))
            progress(wed.table.num_rows)
            _record_people(truth, people)
            if candidates is None:
                grown = np.flatnonzero(people.born < population.UNTIL - 18 * 366)
                taken = pa.array(grown)
                candidates = Candidates(people.start + grown, people.name.take(taken), people.identifier.take(taken))
            candidates.married += wed.table.num_rows
    assert candidates is not None
    return candidates


def _record_people(truth: dict[str, Parquet], people: population.People) -> None:
    number = people.start + np.arange(len(people))
    truth["people"].columns(
        person=number,
        name=people.name,
        identifier=people.identifier,
        sex=population.sexes(people),
        ethnicity=people.ethnicity,
        born_on=dates(people.born),
        birth_region=strings(digits(people.birthplace, 6)),
        region=strings(digits(people.home, 6)),
        household=population.numbers(people),
        relation=population.relations(people),
        spouse=pa.array(people.start + people.spouse, mask=people.spouse < 0),
    )
    truth["identifiers"].columns(
        subject=join("person:", pa.array(number).cast(pa.string())),
        scheme=_same("cn.ric", len(people)),
        value=people.identifier,
        region=strings(digits(people.birthplace, 6)),
        region_status=places.statuses(people.birthplace),
    )


def _certify_cards(
    truth: dict[str, Parquet],
    people: population.People,
    cards: population.Cards,
    order: Integers,
    file: str,
    rows: Written,
) -> None:
    taken = pa.array(order)
    identifier = people.identifier.take(taken)
    _certify(
        truth, "resident-id-card", identifier, [join("cn.ric:", identifier)], dates(cards.begins[order]),
        pc.if_else(pa.array(cards.ends[order] < 0), None, dates(cards.ends[order])),
        pick([population.HOLDING[state] for state in population.STATES], cards.state[order]), file, rows,
    )  # fmt: skip


def _certify_households(
    truth: dict[str, Parquet], people: population.People, since: Integers, state: Integers, file: str, rows: Written
) -> None:
    _certify(
        truth, "household-register", population.numbers(people), [join("cn.ric:", people.identifier)], dates(since),
        pa.nulls(len(people), pa.date32()), pick([population.HOLDING[name] for name in population.STATES], state),
        file, rows,
    )  # fmt: skip


def _certify_marriages(
    truth: dict[str, Parquet], people: population.People, wed: marriages.Marriages, file: str, rows: Written
) -> None:
    n = len(wed.husband)
    number = wed.table["djzh"].combine_chunks()
    husband, wife = (people.identifier.take(pa.array(who)) for who in (wed.husband, wed.wife))
    truth["marriages"].columns(
        number=number,
        husband=people.start + wed.husband,
        wife=people.start + wed.wife,
        husband_identifier=husband,
        wife_identifier=wife,
        registered_on=dates(wed.registered),
        status=pick([marriages.HOLDING[state] for state in marriages.STATES], wed.state),
    )
    _certify(
        truth, "marriage-certificate", number, [join("cn.ric:", husband), join("cn.ric:", wife)],
        dates(wed.registered), pa.nulls(n, pa.date32()),
        pick([marriages.HOLDING[state] for state in marriages.STATES], wed.state), file, rows,
    )  # fmt: skip


def _write_companies(
    parameters: Parameters, folder: Path, truth: dict[str, Parquet], candidates: Candidates, progress: Progress
) -> int:
    shares = np.diff(np.linspace(0, parameters.companies, len(companies.REGISTERS) + 1).astype(np.int64))
    firsts = np.cumsum(shares) - shares
    for place, register in enumerate(companies.REGISTERS):
        count = int(shares[place])
        spoiler = dirt.Spoiler(dirt.COMPANIES, count, parameters.dirt, first=2 * place)
        with DirtyFile(folder, register.name, register.form, spoiler, truth["dirt"], register.end) as file:
            for block, rng in companies.blocks(register, int(firsts[place]), count, parameters.seed):
                rows = file.write(block.table, rng)
                _record_companies(truth, register, block, candidates, rows, rng)
                progress(len(block.number))
    return parameters.companies


def _record_companies(
    truth: dict[str, Parquet], register: companies.Register, block: companies.Companies, candidates: Candidates,
    rows: Written, rng: np.random.Generator,
) -> None:  # fmt: skip
    n = len(block.number)
    # A code moved to a development zone is the company's true code.
    moved = pc.fill_null(pc.equal(rows.kind, "unlisted-region"), False)
    value = pc.if_else(
        moved, rows.table["统一社会信用代码"].combine_chunks(), block.table["统一社会信用代码"].combine_chunks()
    )
    scheme = pick(("cn.uscc", "cn.regno"), (block.kind != companies.CREDIT).astype(np.int64))
    chosen = rng.integers(0, max(len(candidates.person), 1), n)
    who = pa.array(chosen, mask=np.full(n, len(candidates.person) == 0))
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
        representative=pa.array(candidates.person).take(who),
        representative_name=candidates.name.take(who),
        representative_identifier=candidates.identifier.take(who),
    )
    listed = places.statuses(block.region)
    worded = pa.array(block.kind == companies.FOREIGN)
    inside = pc.if_else(
        moved, pc.utf8_slice_codeunits(value, 2, 8), pc.if_else(worded, None, strings(digits(block.region, 6)))
    )
    truth["identifiers"].columns(
        subject=join("company:", pa.array(block.number).cast(pa.string())),
        scheme=scheme,
        value=value,
        region=inside,
        region_status=pc.if_else(moved, "unlisted", pc.if_else(worded, None, listed)),
    )
    _certify(
        truth, "business-licence", value, [join(scheme, ":", value)], dates(block.registered),
        pa.nulls(n, pa.date32()), _same("in_force", n), register.name, rows,
    )  # fmt: skip


def _certify(
    truth: dict[str, Parquet], material: str, identifier: pa.StringArray, holders: list[pa.StringArray],
    begins: pa.Array, ends: pa.Array, status: pa.StringArray, file: str, rows: Written,
) -> None:  # fmt: skip
    n, width = len(identifier), len(holders)
    places_of = np.arange(n * width).reshape(width, n).T.ravel()  # row by row
    flat = pa.concat_arrays(holders).take(pa.array(places_of))
    truth["certificates"].columns(
        material=_same(material, n),
        identifier=identifier,
        holders=pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * width), flat),
        valid_from=begins,
        valid_to=ends,
        status=status,
        file=_same(file, n),
        row=rows.row,
        dirt=rows.kind,
        held=rows.held,
    )


def _same(text: str, count: int) -> pa.StringArray:
    return pick((text,), np.zeros(count, dtype=np.int64))
