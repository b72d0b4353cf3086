"""``yici bench ingest``: one million rows through the whole pipeline, beside COPY, dlt and pandas ``to_sql``, in one run.

    .venv/bin/python bench/ingest.py [--rows N] [--rounds N] [--scale] [--json]

Every contender loads the same files in a warm process of its own into a database of its own on one server: the first
load; the same rows shuffled under another file name; one row in a hundred changed. ``--scale``: ten times the rows through
Yici alone, and 10,000 new rows onto both sizes. See bench/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import measuring, memory, rows
from hub.home import Home

HERE = Path(__file__).parent
SOURCE = "bench-residents"
LOADS = ("first", "unchanged", "one_percent")
# Contenders that know no keys only load once.
PLANS = {"yici": LOADS, "dlt": LOADS, "copy": LOADS[:1], "to_sql": LOADS[:1]}
WARM_ROWS = 2000
TIMES = 10  # what --scale multiplies the rows by
INCREMENTS = 3
GB = 1e9


class Contender:
    """One process that keeps warm, and the database it loads into."""

    def __init__(self, name: str, here: Home, url: str) -> None:
        self.name, self.here, self.url = name, here, url
        command = [sys.executable, str(HERE / "contenders.py"), name]
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
            env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        )  # fmt: skip
        self._read()

    def load(self, path: Path, url: str | None = None) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"path": str(path), "url": url or self.url}) + "\n")
        self.process.stdin.flush()
        return self._read()

    def measured(self, path: Path, count: int) -> dict[str, Any]:
        """One load of ``count`` rows, after a checkpoint: ``seconds``, the ``peaks`` of memory in bytes, and ``stages``."""
        measuring.checkpoint(self.here)
        heads = {"client": self.process.pid, "server": measuring.server(self.here)}
        with memory.Watch(heads, self._concerns) as watch:
            done = self.load(path)
        if done["rows"] != count:
            raise SystemExit(f"{self.name} loaded {done['rows']:,} rows of {count:,}")
        return {**done, "peaks": watch.peaks}

    def _concerns(self, pid: int) -> bool:
        """Not the idle backends of the others, which name their database."""
        words = memory.title(pid).split()
        return words[:1] != ["postgres:"] or not words[2:3] or not words[2].startswith("bench_") \
            or words[2] == self.url.rsplit("/", 1)[-1].split("?")[0]  # fmt: skip

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        if line := self.process.stdout.readline():
            return dict(json.loads(line))
        self.errors.seek(0)
        raise SystemExit(f"the contender {self.name} ended:\n{self.errors.read().decode()[-2000:]}")

    def close(self) -> None:
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:  # in the middle of a load that nobody waits for any more
            self.process.kill()
            self.process.wait()
        self.errors.close()


@contextlib.contextmanager
def contender(name: str, here: Home, number: str, small: dict[str, Path]) -> Iterator[Contender]:
    """A process that has made every kind of load before, into another database, and an empty database for it."""
    with measuring.database(here, f"bench_{name}_{number}") as url:
        made = Contender(name, here, url)
        try:
            with measuring.database(here, f"bench_{name}_{number}_warm") as warm:
                for load in PLANS[name]:
                    made.load(small[load], warm)
            yield made
        finally:
            made.close()


class Taken:
    """What the loads took: values by ``contender_load``, peaks by contender and side."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.stages: dict[str, list[dict[str, float]]] = {}
        self.peaks: dict[str, dict[str, int]] = {}

    def add(self, name: str, load: str, done: dict[str, Any]) -> None:
        self.seconds.setdefault(f"{name}_{load}", []).append(done["seconds"])
        if "stages" in done:
            self.stages.setdefault(load, []).append(done["stages"])
        known = self.peaks.setdefault(name, {})
        for side, peak in done["peaks"].items():
            known[side] = max(known.get(side, 0), peak)
        largest = max(done["peaks"].values()) / GB
        measuring.say(f"{name} {load}: {done['seconds']:.1f} s, {largest:.2f} GB")

    def medians(self) -> dict[str, float]:
        return {name: round(measuring.median(values), 2) for name, values in self.seconds.items()}

    def spread(self) -> dict[str, list[float]]:
        """The fastest and the slowest of each."""
        return {name: [round(min(values), 2), round(max(values), 2)] for name, values in self.seconds.items()}

    def by_stage(self) -> dict[str, dict[str, float]]:
        """Medians of the seconds that Yici's stages took."""
        return {
            load: {stage: round(measuring.median([one.get(stage, 0) for one in all_]), 2) for stage in all_[0]}
            for load, all_ in self.stages.items()
        }

    def gigabytes(self) -> dict[str, dict[str, float]]:
        return {name: {side: round(peak / GB, 3) for side, peak in sides.items()} for name, sides in self.peaks.items()}


def measure(count: int, rounds: int, only: list[str], scale: bool = False) -> dict[str, Any]:
    with measuring.home() as here, tempfile.TemporaryDirectory(prefix="yici-bench-") as folder:
        measuring.say(f"making {count:,} rows")
        files = _files(Path(folder), "", count)
        small = _files(Path(folder), "warm-", WARM_ROWS, seed=rows.SEED + 1)
        taken = Taken()
        for number in range(rounds):
            _round(here, number, only[number % len(only) :] + only[: number % len(only)], files, small, count, taken)
        result: dict[str, Any] = {
            "machine": measuring.machine(),
            "rows": count,
            "columns": 13,
            "expectations": _expectations(),
            "file_mb": round(files["first"].stat().st_size / 1e6),
            "rounds": rounds,
        }
        scaled = None
        if "yici" in only:
            taken.seconds["yici_cold_small_run"] = [_cold(here, small["first"])]
            if scale:
                for path in files.values():
                    path.unlink()
                scaled = _scale(here, Path(folder), count, small, taken.medians()["yici_first"])
    peaks = taken.peaks
    return {
        **result,
        "seconds": taken.medians(),
        "spread": taken.spread(),
        "stages": taken.by_stage(),
        "peak_gb": taken.gigabytes(),
        **({"scale": scaled} if scaled else {}),
        "ratios": ratios(taken.medians(), peaks) | (scaled["ratios"] if scaled else {}),
    }


def _files(folder: Path, prefix: str, count: int, seed: int = rows.SEED) -> dict[str, Path]:
    files = {name: folder / f"{prefix}{name}.csv" for name in LOADS}
    rows.write(files["first"], count, seed=seed)
    rows.shuffle(files["first"], files["unchanged"], 1)
    rows.change(files["first"], files["one_percent"], 100, 2)
    return files


def _round(
    here: Home, number: int, names: list[str], files: dict[str, Path], small: dict[str, Path], count: int, taken: Taken
) -> None:
    """Each load by each contender in turn, so that what else the machine does hits all of them."""
    with contextlib.ExitStack() as stack:
        ready = [stack.enter_context(contender(name, here, str(number), small)) for name in names]
        for load in LOADS:
            for one in ready:
                if load in PLANS[one.name]:
                    taken.add(one.name, load, one.measured(files[load], count))


def _scale(here: Home, folder: Path, count: int, small: dict[str, Path], usual: float) -> dict[str, Any]:
    """``TIMES`` the rows in one first load; then increments of new rows, onto the one and the other size in turn."""
    sizes = {"1m": count, "10m": count * TIMES}
    taken = {name: Taken() for name in sizes}
    with contextlib.ExitStack() as stack:
        ready, more = {}, {}
        for name, size in sizes.items():
            measuring.say(f"making {size:,} rows")
            base = folder / f"{name}.csv"
            more[name] = [folder / f"{name}-more-{number}.csv" for number in range(INCREMENTS)]
            rows.write(base, size, increments=more[name])
            ready[name] = stack.enter_context(contender("yici", here, name, small))
            taken[name].add("yici", "first", ready[name].measured(base, size))
            base.unlink()
        for number in range(INCREMENTS):
            for name in sizes:
                measuring.settled(here)
                taken[name].add("yici", "increment", ready[name].measured(more[name][number], rows.INCREMENT))
    seconds = {name: one.medians() for name, one in taken.items()}
    return {
        "rows": sizes,
        "increment_rows": rows.INCREMENT,
        "seconds": seconds,
        "spread": {name: one.spread() for name, one in taken.items()},
        "stages": {name: one.by_stage() for name, one in taken.items()},
        "peak_gb": {name: one.gigabytes()["yici"] for name, one in taken.items()},
        "ratios": {
            "per_row_10m_vs_1m": measuring.ratio(seconds["10m"]["yici_first"] / TIMES, usual),
            "increment_10m_vs_1m": measuring.ratio(
                seconds["10m"]["yici_increment"], seconds["1m"]["yici_increment"]
            ),
            "peak_gb_10m": round(max(taken["10m"].peaks["yici"].values()) / GB, 3),
        },
    }  # fmt: skip


def ratios(seconds: dict[str, float], peaks: dict[str, dict[str, int]]) -> dict[str, float]:
    """Ours by theirs: below 1 Yici is the faster. ``peak_gb_1m`` is no ratio, but what one of our processes held."""
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
    if ours := peaks.get("yici"):
        found["peak_gb_1m"] = round(max(ours.values()) / GB, 3)
        if theirs := peaks.get("dlt"):
            found["peak_memory_vs_dlt"] = measuring.ratio(ours["client"], theirs["client"])
    return found


def _expectations() -> int:
    """How many checks Great Expectations makes of every row."""
    from connectors import source
    from quality import suite

    return len(suite.load(source.load(SOURCE, HERE / "sources")).checks)


def _cold(here: Home, small: Path) -> float:
    """``yici run`` as typed, 2,000 rows, imports and all."""
    command = [shutil.which("yici", path=str(Path(sys.executable).parent)) or "yici", "run", SOURCE]
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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--only", nargs="*", choices=list(PLANS), default=list(PLANS))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = measure(given.rows, given.rounds, given.only, given.scale)
    if given.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{result['rows']:,} rows × {result['columns']} columns, {result['file_mb']} MB, medians of {given.rounds}")
    for name, value in result["seconds"].items():
        low, high = result["spread"][name]
        print(f"  {name:24} {value:8.2f} s   ({low:.2f} to {high:.2f})")
    for load, stages in result["stages"].items():
        print(f"  yici {load}: " + ", ".join(f"{stage} {value:.2f} s" for stage, value in stages.items()))
    for name, value in result["ratios"].items():
        print(f"  {name:24} {'  ' if name.startswith('peak_gb') else '× '}{value}")


if __name__ == "__main__":
    main()
