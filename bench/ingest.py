"""``yici bench ingest``: one million rows through the whole pipeline, beside COPY, dlt and pandas ``to_sql``, in one run.

    .venv/bin/python bench/ingest.py [--rows N] [--rounds N] [--json]

Every contender loads the same files in a warm process of its own into a database of its own on one server: the first
load; the same rows shuffled under another file name; one row in a hundred changed. See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import measuring, rows

HERE = Path(__file__).parent
LOADS = ("first", "unchanged", "one_percent")
# Contenders that know no keys only load once.
PLANS = {"yici": LOADS, "dlt": LOADS, "copy": LOADS[:1], "to_sql": LOADS[:1]}


class Contender:
    """One warm process."""

    def __init__(self, name: str, url: str) -> None:
        environment = {**os.environ, "BENCH_DATABASE_URL": url, "PYTHONPATH": str(HERE.parent)}
        command = [sys.executable, str(HERE / "contenders.py"), name]
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment
        )
        self._read()

    def load(self, path: Path) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        return dict(json.loads(self._read()))

    def _read(self) -> str:
        assert self.process.stdout
        if line := self.process.stdout.readline():
            return line
        self.errors.seek(0)
        raise SystemExit(f"the contender ended:\n{self.errors.read().decode()[-2000:]}")

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()
        self.errors.close()


def measure(count: int, rounds: int, only: list[str]) -> dict[str, Any]:
    with measuring.home() as here, tempfile.TemporaryDirectory(prefix="yici-bench-") as folder:
        files = {name: Path(folder) / f"{name}.csv" for name in LOADS}
        measuring.say(f"making {count:,} rows")
        rows.write(files["first"], count)
        rows.shuffle(files["first"], files["unchanged"], 1)
        rows.change(files["first"], files["one_percent"], 100, 2)
        small = Path(folder) / "warm.csv"
        rows.write(small, 2000, seed=rows.SEED + 1)
        taken: dict[str, list[float]] = {}
        peaks: dict[str, int] = {}
        for number in range(1, rounds + 1):
            for name in only:
                with measuring.database(here, f"{name}_warm") as url, Contender(name, url) as warm:
                    warm.load(small)  # caches of the file system and of the server, for every contender
                with measuring.database(here, f"{name}_{number}") as url, Contender(name, url) as contender:
                    for load in PLANS[name]:
                        measuring.checkpoint(here)
                        done = contender.load(files[load])
                        if done["rows"] != count:
                            raise SystemExit(f"{name} loaded {done['rows']:,} rows of {count:,}")
                        taken.setdefault(f"{name}_{load}", []).append(done["seconds"])
                        peaks[name] = max(peaks.get(name, 0), done["peak_mb"])
                        measuring.say(f"round {number}: {name} {load}: {done['seconds']:.1f} s")
        if "yici" in only:
            taken["yici_cold_small_run"] = [_cold(here, small)]
        seconds = {name: round(measuring.median(values), 2) for name, values in taken.items()}
        megabytes = round(files["first"].stat().st_size / 1e6)
    return {
        "machine": measuring.machine(),
        "rows": count,
        "columns": 13,
        "file_mb": megabytes,
        "rounds": rounds,
        "seconds": seconds,
        "peak_mb": peaks,
        "ratios": ratios(seconds, peaks),
    }


def ratios(seconds: dict[str, float], peaks: dict[str, int]) -> dict[str, float]:
    """Ours by theirs: below 1 Yici is the faster."""
    pairs = {
        "first_vs_dlt": ("yici_first", "dlt_first"),
        "unchanged_vs_dlt": ("yici_unchanged", "dlt_unchanged"),
        "one_percent_vs_dlt": ("yici_one_percent", "dlt_one_percent"),
        "first_vs_to_sql": ("yici_first", "to_sql_first"),
        "first_vs_copy": ("yici_first", "copy_first"),
    }
    found = {
        name: measuring.ratio(seconds[ours], seconds[theirs])
        for name, (ours, theirs) in pairs.items()
        if ours in seconds and theirs in seconds
    }
    if {"yici", "dlt"} <= peaks.keys():
        found["peak_memory_vs_dlt"] = measuring.ratio(peaks["yici"], peaks["dlt"])
    return found


def _cold(here: Any, small: Path) -> float:
    """``yici run`` as typed, 2,000 rows, imports and all."""
    command = [shutil.which("yici", path=str(Path(sys.executable).parent)) or "yici", "run", "bench-residents"]
    with measuring.database(here, "cold") as url:
        environment = {
            **os.environ,
            "YICI_DATABASE_URL": url.replace("+psycopg", ""),
            "YICI_SOURCES": str(HERE / "sources"),
        }
        subprocess.run([command[0], "db", "upgrade"], check=True, capture_output=True, env=environment)
        start = time.perf_counter()
        subprocess.run([*command, "--input", str(small), "--json"], check=True, capture_output=True, env=environment)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(prog="yici bench ingest", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=list(PLANS), default=list(PLANS))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = measure(given.rows, given.rounds, given.only)
    if given.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{result['rows']:,} rows × {result['columns']} columns, {result['file_mb']} MB, medians of {given.rounds}")
    for name, value in result["seconds"].items():
        print(f"  {name:24} {value:8.2f} s")
    for name, value in result["ratios"].items():
        print(f"  {name:24} × {value}")


if __name__ == "__main__":
    main()
