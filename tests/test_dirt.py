"""Dirt: every dirty row is in the truth, and the row in the file is what the truth says it is."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stdnum.cn import ric, uscc

from demo import allowances, degrees, dirt, insurance, zhejiang
from demo.companies import COLUMNS, REGISTERS
from demo.synthesis import Parameters, synthesise
from mappings import regions

SMALL, LARGE = Parameters(2000, 800, 1), Parameters(12_000, 6_000, 2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Parameters, Path]:
    top = tmp_path_factory.mktemp("dirt")
    return {p: synthesise(p, top / str(p.seed)).folder for p in (SMALL, LARGE)}


def noted(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "truth/dirt.parquet").to_pylist()


def lines(folder: Path) -> dict[str, list[str]]:
    """Lines of every file, the first at index 1."""
    encodings = {register.name: register.form.encoding for register in REGISTERS} | {"ga-zj/households.csv": "gb18030"}
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name.endswith((".jsonl", ".csv", ".gz")):
            raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            found[name] = ["", *raw.decode(encodings.get(name, "utf-8")).removeprefix("\ufeff").splitlines()]
    return found


def value(file: str, line: str, column: str, header: str) -> str:
    if ".jsonl" in file:
        found = json.loads(line)
        for member in column.split("."):
            found = found[member]
        return str(found)
    fields = next(csv.reader([header]))
    return next(csv.reader([line]))[fields.index(column)]


EXPECTED = {
    "scientific-notation": r"^\d\.\d{2}E\+17$",
    "backslash-n": r"^\\n$",
    "not-available": r"^(N/A|-)$",
    "odd-date": r"^(\d{4}-\d{1,2}-\d{1,2} 0:00|\d{4}/\d{1,2}/\d{1,2}|\d{8}|\d{4}-\d\d-\d\d)$",
    "endless-date": r"^9999-",
    "lower-case-x": r"^\d{17}x$",
    "lower-case-letter": r"^9[0-9a-z]+[a-z]$",
    "full-width-digits": r"[０-９]",
    "person-as-capital": r"^\D+$",
    "capital-without-number": r"^#万人民币$",
    "spaced-out": r"^ .+\u00a0 $",
    "dash": r"^(-|N/A)$",
}


def test_every_noted_row_is_dirty_in_the_way_noted(folders: dict[Parameters, Path]) -> None:
    folder = folders[LARGE]
    written = lines(folder)
    kinds = Counter()
    for note in noted(folder):
        if note["file"] not in written:  # workbooks and Parquet: tests/test_titles.py, tests/test_births.py
            continue
        here = written[note["file"]]
        line, kind = here[note["row"]], note["kind"]
        kinds[kind] += 1
        if kind == "repeated-row":
            assert line == here[note["row"] - 1]
        elif kind == "too-many-columns":
            assert len(next(csv.reader([line]))) > len(next(csv.reader([here[1]])))
        elif kind == "too-few-columns":
            assert len(next(csv.reader([line]))) < len(next(csv.reader([here[1]])))
        elif kind == "html-error-page":
            assert line.startswith("<html>")
        elif kind == "cut-short":
            assert line.startswith("{") and not line.endswith("}")
        else:
            got = value(note["file"], line, note["column"], here[1])
            if kind == "wrong-check-digit":
                assert len(got) == 18
                assert ric.calc_check_digit(got) != got[-1] if got[0] == "3" else not uscc.is_valid(got)
            elif kind == "unlisted-region":
                assert regions.status(got if len(got) == 6 else got[2:8]) == "unlisted"
                assert len(got) == 6 or uscc.is_valid(got)
            else:
                assert re.search(EXPECTED[kind], got), (kind, got)
    documents = (dirt.RESIDENTS, dirt.HOUSEHOLDS, dirt.MARRIAGES, dirt.COMPANIES, insurance.DIRT, degrees.DIRT,
                 allowances.DIRT, zhejiang.DIRT)  # fmt: skip
    assert set(kinds) == {kind.name for kinds in documents for kind in kinds}


def test_no_row_is_dirty_unnoted(folders: dict[Parameters, Path]) -> None:
    folder = folders[LARGE]
    marked = {(note["file"], note["row"]) for note in noted(folder)}
    looks = re.compile(r"E\+17|\\n|\dx\"|[０-９]| 0:00\"|#万|,,多余|\u00a0|<html")
    clean = 0
    for name, found in lines(folder).items():
        previous = ""
        for number, line in enumerate(found[1:], start=1):
            if (name, number) not in marked:
                clean += 1
                assert not looks.search(line) and line != previous
            previous = line
    assert clean > 40_000


def test_small_demo_has_each_verdict_and_stays_below_a_halt(folders: dict[Parameters, Path]) -> None:
    notes = noted(folders[SMALL])
    verdicts = Counter(note["verdict"] for note in notes)
    assert {"quarantined", "rejected", "flagged", "repeated", "accepted"} == set(verdicts)
    assert len({(note["file"], note["row"]) for note in notes}) == len(notes)
    for name, found in lines(folders[SMALL]).items():
        here = [note for note in notes if note["file"] == name]
        kept_back = [note for note in here if note["verdict"] in ("quarantined", "rejected")]
        if len(found) > 55 and "dibao-next" not in name:
            assert 1 <= len(here) <= 0.02 * len(found)
        assert len(kept_back) <= max(0.02 * len(found), 1)


def test_certificates_of_rows_kept_back_are_not_held(folders: dict[Parameters, Path]) -> None:
    folder = folders[LARGE]
    lost = {(n["file"], n["row"]) for n in noted(folder) if n["verdict"] in ("quarantined", "rejected")}
    certificates = pq.read_table(folder / "truth/certificates.parquet", columns=["file", "row", "held"]).to_pylist()
    assert {(c["file"], c["row"]) for c in certificates if not c["held"]} == lost and lost


def test_without_dirt_there_is_none(tmp_path: Path) -> None:
    folder = synthesise(Parameters(500, 400, 4, dirt=0.0), tmp_path / "clean").folder
    assert noted(folder) == []
    assert all(c["held"] for c in pq.read_table(folder / "truth/certificates.parquet").to_pylist())


def test_rate_is_met_over_blocks() -> None:
    import numpy as np

    rng = np.random.default_rng(1)
    spoiler = dirt.Spoiler(dirt.COMPANIES, 10_000, 0.012)
    column = pa.array(["913100000000000000"] * 1000)
    block = pa.table(dict.fromkeys(COLUMNS, column))
    planned = sum(int((spoiler.plan(block, rng) >= 0).sum()) for _ in range(10))
    assert spoiler.count == 120
    assert 100 <= planned <= 120  # codes that end in a digit cannot be put in lower case
