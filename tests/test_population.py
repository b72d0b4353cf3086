"""The generator: people, households, marriages and companies that could exist, and the truth about them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from stdnum.cn import ric, uscc

from connectors.errors import UsageError
from demo import population
from demo.companies import COLUMNS, REGISTERS
from demo.synthesis import MANIFEST, Parameters, Result, synthesise
from demo.truth import TABLES
from mappings import regions
from mappings.checksums import mod_11_10

PARAMETERS = Parameters(people=3000, companies=1600, seed=11)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return synthesise(PARAMETERS, tmp_path_factory.mktemp("synth") / "data")


def truth(made: Result, name: str) -> dict[str, list]:
    return pq.read_table(made.folder / "truth" / f"{name}.parquet").to_pydict()


def test_same_seed_same_bytes_and_another_seed_others(made: Result, tmp_path: Path) -> None:
    again = synthesise(PARAMETERS, tmp_path / "again")
    other = synthesise(Parameters(3000, 1600, 12), tmp_path / "other")
    assert len([name for name in again.files if name.startswith("amr/")]) == 8
    assert len([name for name in again.files if name.startswith("truth/")]) == len(TABLES)
    assert len(again.files) == 8 + len(TABLES) + 3 + 3 + 3 + 3 + 2 + 3 + 2
    assert again.files == made.files
    data = [name for name in made.files if not name.startswith("truth")]
    assert all(other.files[name]["sha256"] != made.files[name]["sha256"] for name in data)


def test_identifiers_are_valid_distinct_and_of_real_regions(made: Result) -> None:
    found = truth(made, "identifiers")
    by_scheme: dict[str, list[str]] = {}
    for scheme, value in zip(found["scheme"], found["value"], strict=True):
        by_scheme.setdefault(scheme, []).append(value)
    assert len(by_scheme["cn.ric"]) == 3000 and len(by_scheme["cn.uscc"]) > 1400 and len(by_scheme["cn.regno"]) > 20
    assert len(set(found["value"])) == 4600
    # The oracle does not know all retired region codes; everything else it decides.
    for value in by_scheme["cn.ric"]:
        assert ric.calc_check_digit(value) == value[-1] and ric.get_birth_date(value)
    assert all(uscc.is_valid(value) for value in by_scheme["cn.uscc"])
    fifteen = [value for value in by_scheme["cn.regno"] if len(value) == 15 and value.isdigit()]
    body = np.frombuffer("".join(fifteen).encode(), dtype=np.uint8).reshape(-1, 15)
    assert len(fifteen) > 20 and (mod_11_10(body[:, :14].copy()) == body[:, 14]).all()
    assert {len(value) for value in by_scheme["cn.regno"]} >= {13, 15}
    assert [regions.status(code) if code else None for code in found["region"]] == found["region_status"]
    assert {"listed", "retired", "unlisted"} <= set(found["region_status"])


def test_people_agree_with_their_identifiers(made: Result) -> None:
    people = truth(made, "people")
    ages = [(2025 - born.year) for born in people["born_on"]]
    assert min(ages) <= 3 and max(ages) >= 80 and max(ages) <= 96
    married = 0
    for i, (value, born, sex, region, spouse) in enumerate(
        zip(
            people["identifier"],
            people["born_on"],
            people["sex"],
            people["birth_region"],
            people["spouse"],
            strict=True,
        )
    ):
        assert value[6:14] == born.strftime("%Y%m%d") and value[:6] == region
        assert int(value[16]) % 2 == (sex == "1")
        assert regions.first_year(region) <= born.year, "a code younger than its bearer"
        if spouse is not None:
            married += 1
            assert people["spouse"][spouse] == i and people["sex"][spouse] != sex
    assert 0.3 < married / 3000 < 0.8
    heads = [h for h, relation in zip(people["household"], people["relation"], strict=True) if relation == "户主"]
    assert len(heads) == len(set(heads)) == len(set(people["household"]))


def test_identifiers_stay_distinct_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(population, "BLOCK", 2_000)
    monkeypatch.setattr(population, "NUMBERS", 30)  # crowded: some have to move to another birthday
    made = [block for block, _ in population.blocks(60_000, 5)]
    values = {value for block in made for value in block.identifier.to_pylist()}
    households = [set(block.household.tolist()) for block in made]
    assert len(made) == 30 and len(values) == 60_000
    assert len(set.union(*households)) == sum(map(len, households))
    birthdays = Counter(day for block in made for day in block.born.tolist())
    assert max(birthdays.values()) < 20, "births heap up on one day"


def test_registers_are_in_the_order_of_updates(made: Result) -> None:
    for name, key in (("residents", ["gmsfhm"]), ("households", ["hh", "gmsfhm"])):
        lines = (made.folder / f"ga/{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        moments = [row["gxsj"] for row in rows]
        assert moments == sorted(moments) and moments[0].endswith("+08:00")
        # Some households are registered in Zhejiang.
        assert len({tuple(row[column] for column in key) for row in rows}) >= (2700 if name == "households" else 2990)
    assert {row["zt"] for row in rows} == {"有效", "注销"}


def test_resident_cards_by_age(made: Result) -> None:
    rows = [json.loads(line) for line in (made.folder / "ga/residents.jsonl").read_text(encoding="utf-8").splitlines()]
    assert " ".join(rows[0]) == "xm gmsfhm xb mz csrq qfjg xzqh yxqq yxqz zt gxsj"
    ended = [row for row in rows if row["yxqz"] != "长期" and row["yxqz"] < "2025"]
    endless = [row for row in rows if row["yxqz"] == "长期"]
    assert 0.02 < len(ended) / len(rows) < 0.15
    assert 0.2 < len(endless) / len(rows) < 0.6 and all(row["csrq"] < "1980" for row in endless)
    elsewhere = [row["xzqh"] for row in rows if not row["xzqh"].startswith("31")]
    assert all(regions.status(code) == "unlisted" for code in elsewhere) and len(elsewhere) < 10


def test_marriages_are_lawful(made: Result) -> None:
    wed, people = truth(made, "marriages"), truth(made, "people")
    assert len(set(wed["number"])) == len(wed["number"]) > 500
    assert {"in_force", "cancelled"} <= set(wed["status"])
    for husband, wife, on in zip(wed["husband"], wed["wife"], wed["registered_on"], strict=True):
        assert people["sex"][husband] == "1" and people["sex"][wife] == "2"
        assert on.year - people["born_on"][husband].year >= 22 and on.year - people["born_on"][wife].year >= 20
    now = [(h, w) for h, w, s in zip(wed["husband"], wed["wife"], wed["status"], strict=True) if s == "in_force"]
    assert len({h for h, _ in now}) == len(now) and all(people["spouse"][h] == w for h, w in now)


def test_company_files_have_the_form_of_the_registers(made: Result) -> None:
    encodings = set()
    for register in REGISTERS:
        raw = (made.folder / register.name).read_bytes()
        text = raw.decode(register.form.encoding)
        assert text.startswith("\ufeff") == register.form.marked
        encodings.add((register.form.encoding, register.form.marked))
        if register.form.encoding == "gb18030":
            with pytest.raises(UnicodeDecodeError):
                raw.decode("utf-8")
        assert text.endswith(register.form.end)
        rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
        assert tuple(rows[0]) == COLUMNS and len(rows) >= 201
        good = [row for row in rows[1:] if len(row) == len(COLUMNS)]
        assert len(good) >= len(rows) - 5
        assert {row[2][:4] for row in good} == {str(register.year)}
        assert {row[5] for row in good} == {register.province} and all(row[6] for row in good)
        assert len({row[4] for row in good}) > 20
    assert encodings == {("utf-8", False), ("utf-8", True), ("gb18030", False), ("gb18030", True)}
    firms = truth(made, "companies")
    assert len(firms["company"]) == 1600 and set(firms["currency"]) >= {"CNY", "USD", None}
    people = truth(made, "people")
    for person, value in zip(firms["representative"], firms["representative_identifier"], strict=True):
        assert people["identifier"][person] == value and people["born_on"][person].year <= 2006


def test_certificates_point_at_their_rows(made: Result) -> None:
    table = pq.read_table(made.folder / "truth/certificates.parquet")
    counts = {row["values"]: row["counts"] for row in pc.value_counts(table["material"]).to_pylist()}
    assert counts["resident-id-card"] == 3000 < counts["household-register"] and counts["business-licence"] == 1600
    lines: dict[str, list[str]] = {}
    for register in REGISTERS:
        text = (made.folder / register.name).read_text(encoding=register.form.encoding)
        lines[register.name] = ["", *text.splitlines()]
    for name in ("ga/residents.jsonl", "ga/households.jsonl", "mca/marriages.csv"):
        lines[name] = ["", *(made.folder / name).read_text(encoding="utf-8").splitlines()]
    seen = 0
    for row in table.to_pylist():
        if row["file"] in lines and row["dirt"] in (None, "repeated-row"):
            seen += 1
            assert row["identifier"] in lines[row["file"]][row["row"]]
            assert all(holder.partition(":")[2] in lines[row["file"]][row["row"]] for holder in row["holders"])
            assert row["held"]
    assert seen > 8000


def test_asked_again_nothing_changes(made: Result) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")}
    again = synthesise(PARAMETERS, made.folder)
    assert not again.made and again.records == made.records
    assert {path: path.stat().st_mtime_ns for path in made.folder.rglob("*")} == before


def test_a_folder_of_somebody_else_is_left_alone(made: Result, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(UsageError) as error:
        synthesise(PARAMETERS, tmp_path)
    assert error.value.code == "synth-folder-not-its-own" and str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(UsageError) as error:
        synthesise(Parameters(3000, 1600, 11, dirt=0.0), made.folder)
    assert error.value.code == "synth-other-parameters" and str(error.value)


def test_a_damaged_folder_is_not_taken_for_whole(tmp_path: Path) -> None:
    parameters = Parameters(60, 0, 1)
    synthesise(parameters, tmp_path / "data")
    with (tmp_path / "data/ga/residents.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(UsageError) as error:
        synthesise(parameters, tmp_path / "data")
    assert error.value.code == "synth-folder-damaged" and "residents" in str(error.value)


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesise(Parameters(500, 100, 1), tmp_path / "data", interrupt)
    assert list(tmp_path.iterdir()) == []
    # A killed one leaves its partial folder to the next.
    (tmp_path / ".data.999999999.partial").mkdir()
    assert synthesise(Parameters(500, 100, 1), tmp_path / "data").made
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert (tmp_path / "data" / MANIFEST).is_file()


@pytest.mark.parametrize(
    "parameters", [Parameters(0, 1, 1), Parameters(1, -1, 1), Parameters(1, 1, -1), Parameters(1, 1, 1, dirt=0.9)]
)
def test_parameters_out_of_range(parameters: Parameters, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        synthesise(parameters, tmp_path / "data")
    assert str(error.value) and error.value.message("zh") and not (tmp_path / "data").exists()


@pytest.mark.parametrize("people, firms", [(1, 0), (7, 3), (70_000, 0)])
def test_any_size(people: int, firms: int, tmp_path: Path) -> None:
    made = synthesise(Parameters(people, firms, 3), tmp_path / "data")
    assert len(truth(made, "people")["person"]) == people and len(truth(made, "companies")["company"]) == firms


@pytest.mark.slow
def test_a_hundred_thousand_people_in_bounded_memory_and_time(tmp_path: Path) -> None:
    """Two blocks in a process of its own: fast, and within what one block takes."""
    words = ["--people", "130000", "--companies", "20000", "--seed", "1", "--out", str(tmp_path / "d"), "--json"]
    # Of that process alone: processor time, for a busy machine says nothing, and the peak (getrusage has this one's too).
    code = (
        "import sys, time; from hub.cli import main; sys.argv[0] = 'yici'\ntry:\n    main()\nfinally:\n"
        "    peak = open('/proc/self/status').read().split('VmHWM:')[1].split()[0]\n"
        "    print(time.process_time(), peak, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, "synth", *words], capture_output=True, text=True, check=True)
    records, (seconds, kilobytes) = json.loads(done.stdout)["records"], map(float, done.stderr.split()[-2:])
    assert records > 450_000 and records / seconds > 50_000 and kilobytes < 600_000
