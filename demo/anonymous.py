"""Rows about people of the population without a usable identifier, spelt as clerks and older systems spell them.

The rows have the columns of the residents' and the household register. What is wrong in a row is drawn for each field
by itself; whom it is really about stands in ``truth.parquet`` beside
the files, which are pages as the bureau's interface gives them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from demo import dirt, names, places, population
from demo.columns import Integers, Mask, dates, digits, join, moments, pick, same, strings
from demo.forms import JsonLines, joined

TRUTH = pa.schema([("file", pa.string()), ("row", pa.int64()), ("identifier", pa.string()), ("wrong", pa.string())])
RESIDENTS, HOUSEHOLDS, TRUTH_FILE = "residents.json", "households.json", "truth.parquet"

# How often a field is written otherwise than it is, each kind by itself.
NAME = {"traditional": 0.20, "full-width": 0.06, "pinyin": 0.10, "typo": 0.10}
BORN = {"swapped": 0.08, "digit": 0.08, "absent": 0.03}
NUMBER = {"absent": 0.55, "check-digit": 0.30, "unrecoverable": 0.15}
SEX_ABSENT, MOVED = 0.10, 0.15


def write(synth: Path, folder: Path, count: int, seed: int) -> pa.Table:
    """``count`` rows into ``folder``: two files and the truth about them, which is returned (schema TRUTH).

    ``synth``: a folder of `yici synth`. Half of the rows are residents' (with a date of birth), half household
    members' (with an address); only people whose own card is held are written about.
    """
    rng = np.random.default_rng([seed, 9])
    people = _people(synth)
    people = people.take(pa.array(np.sort(rng.choice(people.num_rows, count, replace=False))))
    at_home = np.arange(count) % 2 == 1
    folder.mkdir(parents=True, exist_ok=True)
    names_, kinds = _names(rng, people["name"].combine_chunks())
    region = _regions(rng, people["region"].combine_chunks())
    number, lost = _numbers(rng, people["identifier"].combine_chunks())
    wrong = join(kinds, ",", lost)
    common = {"xm": names_, "gmsfhm": number, "xzqh": region}
    truth = []
    for name, chosen in ((RESIDENTS, ~at_home), (HOUSEHOLDS, at_home)):
        some = pa.array(np.flatnonzero(chosen))
        here = {column: values.take(some) for column, values in common.items()}
        them = people.take(some)
        rows = _residents(rng, them, here) if name == RESIDENTS else _members(rng, them, here)
        page = pc.binary_join(pa.ListArray.from_arrays([0, rows.num_rows], JsonLines().lines(rows)), ",\n")
        (folder / name).write_text(f'{{"data": [{page[0]}]}}', encoding="utf-8")
        size = rows.num_rows
        truth.append(
            pa.table([same(name, size), pa.array(np.arange(1, size + 1)), them["identifier"], wrong.take(some)], TRUTH)
        )
    told = pa.concat_tables(truth)
    pq.write_table(told, folder / TRUTH_FILE)
    return told


def _people(synth: Path) -> pa.Table:
    """People whose card is held, with their address."""
    people = pq.read_table(synth / "truth/people.parquet")
    held = pq.read_table(synth / "truth/certificates.parquet", columns=["material", "identifier", "held"])
    held = held.filter(pc.and_(pc.equal(held["material"], "resident-id-card"), held["held"]))["identifier"]
    people = people.filter(pc.is_in(people["identifier"], value_set=held.combine_chunks()))
    columns = pa.schema([("gmsfhm", pa.string()), ("zz", pa.string())])
    parsing = pa_json.ParseOptions(explicit_schema=columns, unexpected_field_behavior="ignore")
    homes = pa_json.read_json(_parsable(synth / "ga/households.jsonl"), parse_options=parsing)
    place = pc.index_in(people["identifier"], value_set=homes["gmsfhm"].combine_chunks())
    return people.append_column("address", homes["zz"].take(place.combine_chunks()))


def _parsable(path: Path) -> pa.BufferReader:
    """The records of a file, without the pages of errors and the stumps that a dirty one holds."""
    lines = pa.array(path.read_text(encoding="utf-8").split("\n"))
    whole = lines.filter(pc.and_(pc.starts_with(lines, "{"), pc.ends_with(lines, "}")))
    return pa.BufferReader(bytes(joined(join(whole, "\n"))))


def _chosen(rng: np.random.Generator, shares: dict[str, float], count: int) -> Integers:
    """Which kind each row is, -1 for none."""
    kinds = np.searchsorted(np.cumsum(list(shares.values())), rng.random(count), side="right")
    return np.where(kinds < len(shares), kinds, -1)


def _names(rng: np.random.Generator, true: pa.StringArray) -> tuple[pa.StringArray, pa.StringArray]:
    """Names as written, and what is odd about each."""
    from opencc import OpenCC

    count = len(true)
    kind = _chosen(rng, NAME, count)
    traditional = pa.array(OpenCC("s2t").convert("\n".join(true.to_pylist())).split("\n"))
    wide = join(pc.utf8_slice_codeunits(true, 0, 1), "\u3000", pc.utf8_slice_codeunits(true, 1))
    other = pick(tuple(names.GIVEN), rng.integers(0, len(names.GIVEN), count))
    place = pa.array(rng.integers(1, 3, count))  # the second or the third character; of two, the second
    second = join(pc.utf8_slice_codeunits(true, 0, 1), other, pc.utf8_slice_codeunits(true, 2))
    third = join(pc.utf8_slice_codeunits(true, 0, 2), other)
    typo = pc.if_else(pc.and_(pc.equal(place, 2), pc.greater(pc.utf8_length(true), 2)), third, second)
    said = pc.choose(pa.array(kind + 1), true, traditional, wide, _latin(true), typo)
    return said, pick(("", *NAME), kind + 1)


def _latin(true: pa.StringArray) -> pa.StringArray:
    """WANG XIAOMING, as in a passport."""
    from mappings.names import forms

    compound = pc.is_in(pc.utf8_slice_codeunits(true, 0, 2), value_set=pa.array(names.COMPOUND_SURNAMES))
    family = pc.if_else(compound, pc.utf8_slice_codeunits(true, 0, 2), pc.utf8_slice_codeunits(true, 0, 1))
    given = pc.if_else(compound, pc.utf8_slice_codeunits(true, 2), pc.utf8_slice_codeunits(true, 1))
    read = [forms(part)["pinyin"].combine_chunks() for part in (family, given)]
    return pc.utf8_upper(join(read[0], " ", read[1]))


def _regions(rng: np.random.Generator, true: pa.StringArray) -> pa.StringArray:
    """Where somebody lives, or lived before."""
    return pc.if_else(pa.array(rng.random(len(true)) < MOVED), strings(digits(places.homes(rng, len(true)), 6)), true)


def _numbers(rng: np.random.Generator, true: pa.StringArray) -> tuple[pa.StringArray, pa.StringArray]:
    """No number, one whose check digit is wrong, or what a spreadsheet left of it."""
    kind = _chosen(rng, NUMBER, len(true))
    nothing = pa.nulls(len(true), pa.string())
    written = pc.choose(pa.array(kind), nothing, dirt.wrong_check_digit(true, rng), dirt.scientific(true, rng))
    return written, pick(tuple(f"number-{name}" for name in NUMBER), kind)


def _births(rng: np.random.Generator, true: pa.Array) -> pa.StringArray:
    text = true.cast(pa.string())
    kind = _chosen(rng, BORN, len(text))
    parts = [pc.utf8_slice_codeunits(text, start, stop) for start, stop in ((0, 4), (5, 7), (8, 10))]
    possible: Mask = np.array(pc.less_equal(parts[2], "12"))
    swapped = pc.if_else(pa.array(possible), join(parts[0], "-", parts[2], "-", parts[1]), text)
    days = true.cast(pa.int32()).to_numpy()
    # Another day of the same ten, or the same day ten years on: one digit either way, and always a date.
    tens = (days.astype("datetime64[D]") - days.astype("datetime64[D]").astype("datetime64[M]")).astype(int) + 1
    near = days + np.where(tens % 10 < 9, 1, -1)
    near = np.where((tens % 10 == 9) & (tens < 10), days - 1, near)
    digit = dates(near).cast(pa.string())
    return pc.choose(pa.array(kind + 1), text, swapped, digit, pa.nulls(len(text), pa.string()))


def _residents(rng: np.random.Generator, people: pa.Table, common: dict[str, pa.Array]) -> pa.Table:
    count = people.num_rows
    absent = pa.array(rng.random(count) < SEX_ABSENT)
    return pa.table(
        {
            **common,
            "xb": pc.if_else(absent, None, people["sex"].combine_chunks()),
            "mz": people["ethnicity"].combine_chunks(),
            "csrq": _births(rng, people["born_on"].combine_chunks()),
            "qfjg": same("上海市公安局", count),
            "yxqq": same("2024-06-01", count),
            "yxqz": same("2034-06-01", count),
            "zt": same("有效", count),
            "gxsj": _updated(count),
        }
    )


def _members(rng: np.random.Generator, people: pa.Table, common: dict[str, pa.Array]) -> pa.Table:
    count = people.num_rows
    moved = pa.array(rng.random(count) < MOVED)
    codes = np.array(people["region"].to_pylist(), dtype=np.int64)
    elsewhere = names.addresses(rng, places.full_names(codes))
    return pa.table(
        {
            "hh": people["household"].combine_chunks(),
            **common,
            "yhzgx": people["relation"].combine_chunks(),
            "hb": same("家庭户", count),
            "zz": pc.if_else(moved, elsewhere, pc.coalesce(people["address"].combine_chunks(), elsewhere)),
            "qfjg": same("上海市公安局", count),
            "zt": same("有效", count),
            "djrq": same("2020-05-06", count),
            "gxsj": _updated(count),
        }
    )


def _updated(count: int) -> pa.StringArray:
    """After all other updates of the population, a second apart."""
    start = population.UPDATES_BEGIN + population.UPDATES_SECONDS
    return moments(start + np.arange(count, dtype=np.int64))
