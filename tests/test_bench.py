"""The measurements run and print what they promise; what they measure is nobody's test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bench import ingest, memory, rows, store

SECONDS = 580


def bench(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "hub", "bench", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_ratios_are_ours_by_theirs() -> None:
    seconds = {"yici_first": 6.0, "dlt_first": 3.0, "yici_unchanged": 1.0, "dlt_unchanged": 4.0, "copy_first": 0.5}
    peaks = {"yici": {"client": 300_000_000, "server": 450_000_000}, "dlt": {"client": 600_000_000, "server": 1}}
    assert ingest.ratios(seconds, peaks) == {
        "first_vs_dlt": 2.0,
        "unchanged_vs_dlt": 0.25,
        "first_vs_copy": 12.0,
        "peak_gb_1m": 0.45,
        "peak_memory_vs_dlt": 0.5,
    }


# What a load does to the memory: its own, a segment shared with another process, and a worker of its own.
LOAD = """
import mmap, os, sys, time
shared = mmap.mmap(-1, 300 << 20)
shared.write(b"x" * len(shared))
own = bytearray(100 << 20)
if not os.fork():
    more = bytearray(b"x") * (200 << 20)
    time.sleep(60)
print("ready", flush=True)
time.sleep(60)
"""


def test_private_memory_is_that_of_the_largest_process_and_not_what_is_shared() -> None:
    with subprocess.Popen([sys.executable, "-c", LOAD], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout
        process.stdout.readline()
        with memory.Watch({"load": process.pid, "gone": 2**22 + 1}) as watch:
            deadline = time.monotonic() + 20
            while watch.peaks["load"] < 290 << 20 and time.monotonic() < deadline:
                time.sleep(0.05)
        assert len(list(memory.family(process.pid))) == 2
        os.killpg(process.pid, signal.SIGKILL)
    # the worker has what it made, and with its parent what was there when it began
    assert 290 << 20 < watch.peaks["load"] < 390 << 20
    assert watch.peaks["gone"] == 0


def test_increments_are_people_who_are_in_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "INCREMENT", 300)
    more = [tmp_path / f"{number}.csv" for number in range(3)]
    rows.write(tmp_path / "base.csv", 66_000, increments=more)  # past the end of a block
    tables = [rows.read(path) for path in (tmp_path / "base.csv", *more)]
    assert [table.num_rows for table in tables] == [66_000, 300, 300, 300]
    people = pa.concat_tables(tables)["gmsfhm"].unique()
    assert len(people) > 0.99 * 66_900, "but for the dirt, which makes some numbers the same"


def test_the_store_of_the_lookup_has_valid_codes_that_differ() -> None:
    from mappings import scalars

    codes = store.codes(5, 2000).to_pylist()
    assert len(set(codes)) == 2000 and store.codes(7, 1)[0].as_py() == codes[2]
    assert all(scalars.parse(f"cn.uscc:{code}").verdict == "valid" for code in codes[::50])


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 20)
def test_ingest() -> None:
    result = bench("ingest", "--rows", "3000", "--rounds", "1", "--scale")
    assert set(result["ratios"]) == {
        "first_vs_dlt", "unchanged_vs_dlt", "one_percent_vs_dlt", "first_vs_to_sql", "first_vs_copy",
        "per_row_10m_vs_1m", "increment_10m_vs_1m", "peak_gb_1m", "peak_gb_10m", "peak_memory_vs_dlt",
    }  # fmt: skip
    assert all(value > 0 for value in result["ratios"].values())
    assert result["machine"]["cores"] >= 1 and result["seconds"]["yici_cold_small_run"] > 0
    assert result["expectations"] >= 10
    low, high = result["spread"]["dlt_first"]
    assert low <= result["seconds"]["dlt_first"] <= high
    assert set(result["stages"]) == set(ingest.LOADS) and all("merge" in one for one in result["stages"].values())
    assert result["scale"]["rows"] == {"1m": 3000, "10m": 30_000}
    assert all(sides["client"] > 0.05 and sides["server"] > 0 for sides in result["peak_gb"].values())


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 20)
def test_lookup() -> None:
    result = bench("lookup", "--holdings", "2000", "--seconds", "1", "--rounds", "1", "--lookups", "20000")
    keys = {"throughput_vs_bare", "p99_vs_bare", "lone_vs_bare", "batch_vs_single", "memory_1m_vs_10k"}
    assert set(result["ratios"]) == keys
    assert all(value > 0 for value in (*result["ratios"].values(), *result["per_second"].values()))
