"""Rows without a usable identifier, and the truth about them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from demo import anonymous
from demo.synthesis import Parameters, synthesise
from mappings import scalars

ROWS = 150


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise(Parameters(600, 400, 5, 0.01), tmp_path_factory.mktemp("synth") / "d").folder


def test_no_row_has_a_usable_identifier_and_each_is_in_the_truth(synthetic: Path, tmp_path: Path) -> None:
    truth = anonymous.write(synthetic, tmp_path, ROWS, 1)
    assert truth.equals(pq.read_table(tmp_path / anonymous.TRUTH_FILE)) and truth.num_rows == ROWS
    people = pq.read_table(synthetic / "truth/people.parquet")["identifier"]
    assert pc.all(pc.is_in(truth["identifier"], value_set=people.combine_chunks())).as_py()
    for name in (anonymous.RESIDENTS, anonymous.HOUSEHOLDS):
        rows = json.loads((tmp_path / name).read_text(encoding="utf-8"))["data"]
        assert len(rows) == truth.filter(pc.equal(truth["file"], name)).num_rows
        numbers = [row["gmsfhm"] for row in rows if row["gmsfhm"]]
        assert numbers and all(scalars.parse(f"cn.ric:{number}").verdict == "invalid" for number in numbers)
        assert all(row["xm"] for row in rows)
    wrong = set(",".join(truth["wrong"].to_pylist()).split(",")) - {""}
    assert wrong == {*anonymous.NAME, *(f"number-{kind}" for kind in anonymous.NUMBER)}


def test_the_same_seed_gives_the_same_bytes(synthetic: Path, tmp_path: Path) -> None:
    for folder, seed in (("one", 1), ("two", 1), ("other", 2)):
        anonymous.write(synthetic, tmp_path / folder, 50, seed)
    one, two, other = ((tmp_path / folder / anonymous.RESIDENTS).read_bytes() for folder in ("one", "two", "other"))
    assert one == two != other
