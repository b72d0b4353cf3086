"""The measurements run and print what they promise; what they measure is nobody's test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from bench import ingest, store

SECONDS = 280


def bench(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "hub", "bench", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_ratios_are_ours_by_theirs() -> None:
    seconds = {"yici_first": 6.0, "dlt_first": 3.0, "yici_unchanged": 1.0, "dlt_unchanged": 4.0, "copy_first": 0.5}
    assert ingest.ratios(seconds, {"yici": 300, "dlt": 600}) == {
        "first_vs_dlt": 2.0,
        "unchanged_vs_dlt": 0.25,
        "first_vs_copy": 12.0,
        "peak_memory_vs_dlt": 0.5,
    }


def test_the_store_of_the_lookup_has_valid_codes_that_differ() -> None:
    from mappings import scalars

    codes = store.codes(5, 2000).to_pylist()
    assert len(set(codes)) == 2000 and store.codes(7, 1)[0].as_py() == codes[2]
    assert all(scalars.parse(f"cn.uscc:{code}").verdict == "valid" for code in codes[::50])


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 20)
def test_ingest() -> None:
    result = bench("ingest", "--rows", "3000")
    assert {"first_vs_dlt", "unchanged_vs_dlt", "one_percent_vs_dlt", "first_vs_to_sql", "first_vs_copy"} <= set(
        result["ratios"]
    )
    assert all(value > 0 for value in result["ratios"].values())
    assert result["machine"]["cores"] >= 1 and result["seconds"]["yici_cold_small_run"] > 0


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 20)
def test_lookup() -> None:
    result = bench("lookup", "--holdings", "2000", "--seconds", "1", "--rounds", "1")
    assert set(result["ratios"]) == {"throughput_vs_bare", "p99_vs_bare", "lone_vs_bare"}
    assert all(value > 0 for value in (*result["ratios"].values(), *result["per_second"].values()))
