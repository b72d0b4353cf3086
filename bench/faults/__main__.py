"""Seeded fault schedules: the pipeline is killed, its database stopped, its disk filled, its files damaged; then it is
retried, and must end as if nothing had happened.

    make faults N=300 SEED=1
    python -m bench.faults 300 --seed 1 [--only K] [--seconds S] [--airflow K] [--defect NAME]

The last line of standard output is JSON: {"schedules", "killed", "lost", "twice", "digest_mismatches"}. Exit code 1 when
anything was lost, is there twice, or differs, or an error was not one that says what to do. See bench/README.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench import lanes
from bench.faults import plans, schedules
from bench.faults.defects import DEFECTS
from bench.faults.lane import Lane, unmount
from bench.faults.player import Outcome
from bench.lanes import Lanes, say

WARM = ("hub.pipeline", "hub.review", "hub.staging", "hub.merge", "hub.outcome", "connectors.connect", "connectors.files",
        "connectors.reading", "mappings.engine", "quality.gate", "pyarrow.compute", "pandas", "duckdb",
        "great_expectations", "psycopg", "psutil")  # fmt: skip
ENDLESS = 100_000


class Report:
    """Adds up outcomes, and tells of them on standard error."""

    def __init__(self, seed: int, wanted: int | None) -> None:
        self.seed, self.wanted, self.began = seed, wanted, time.monotonic()
        self.schedules = self.killed = self.lost = self.twice = self.mismatches = self.replaced = self.failed = 0
        self.unclear: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        difference = outcome.difference
        differs = bool(difference.parts or outcome.trouble)
        self.schedules += 1
        self.killed += outcome.killed
        self.replaced += outcome.replaced
        self.lost += difference.lost
        self.twice += difference.twice
        self.mismatches += differs
        self.unclear.update(outcome.unclear)
        self.faults.update(text.split(": ", 1)[1].split(" at ", 1)[0] for text in outcome.landed)
        if differs or difference.lost or difference.twice:
            self.failed += 1
            say(f"\nschedule {outcome.number} of seed {self.seed} FAILED: lost {difference.lost}, twice {difference.twice}"
                f"{f', differs in {chr(44).join(difference.parts)}' if difference.parts else ''} {dict(difference.kinds) or ''}")  # fmt: skip
            for line in (*outcome.trouble, *(f"fault: {text}" for text in outcome.landed)):
                say(f"  {line}")
            say(f"  again: make faults SEED={self.seed} ONLY={outcome.number}")
        self.progress()

    def progress(self) -> None:
        seconds = time.monotonic() - self.began
        line = f"{self.schedules}{f' of {self.wanted}' if self.wanted else ''} schedules, {self.killed} killed, {self.failed} failed, {seconds:.0f} s"  # fmt: skip
        if sys.stderr.isatty():
            print(f"\r{line} ", end="", file=sys.stderr, flush=True)
        elif self.schedules % 10 == 0 or self.schedules == self.wanted:
            say(line)

    def end(self) -> int:
        """The details on standard error, the numbers as the last line of standard output; the exit code."""
        say("\nwhat happened: " + ", ".join(f"{count} × {what}" for what, count in self.faults.most_common()))
        for text, count in self.unclear.most_common():
            say(f"not a clear error, {count} ×: {text}")
        if self.replaced:
            say(
                f"ATTENTION: {self.replaced} schedules of a full disk were REPLACED by kills: no right to mount one here"
            )
        if self.schedules and self.killed * 2 < self.schedules:
            say(f"ATTENTION: only {self.killed} of {self.schedules} schedules killed a process before it had finished")
        print(json.dumps({"schedules": self.schedules, "killed": self.killed, "lost": self.lost, "twice": self.twice,
                          "digest_mismatches": self.mismatches}), flush=True)  # fmt: skip
        return int(bool(self.failed or self.unclear or not self.schedules))


def run(given: argparse.Namespace) -> int:
    """All schedules of the command line. Returns the exit code."""
    within = given.seconds is not None
    count = ENDLESS if within else max(0, given.schedules - given.airflow)
    numbers = range(count) if given.only is None else range(given.only, given.only + 1)
    sample = range(count, count + given.airflow) if given.only is None else range(0)
    report = Report(given.seed, None if within else len(numbers) + len(sample))
    root = Path(tempfile.mkdtemp(prefix="yici-faults-"))
    root.chmod(0o711)
    playing = Lanes(lambda place: Lane(root / f"lane{place}", root / "keyed" / "keys", given.seed, given.defect))
    try:
        _prepare(root)
        deadline = time.monotonic() + given.seconds if within else None
        playing.start(lanes.shared_out(numbers, given.lanes, schedules.PER_PLAN), deadline)
        failed = playing.collect(report.add)
        if sample:
            from bench.faults import airflow

            for outcome in airflow.Sample(root, given.seed, sample, say).play():
                report.add(outcome)
        return report.end() or int(failed)
    finally:
        playing.end()
        unmount(root)
        shutil.rmtree(root, ignore_errors=True)


def _prepare(root: Path) -> None:
    """Sources, keys, and everything imported: before the lanes are forked."""
    plans.write_sources(root / "sources")
    for name in [name for name in os.environ if name.startswith(("YICI_", "AIRFLOW"))]:
        del os.environ[name]
    os.environ |= {"YICI_SOURCES": str(root / "sources"), "YICI_LANG": "en"}
    say("warming up")
    for name in WARM:
        importlib.import_module(name)
    from hub.home import Home

    Home(root / "keyed").secret("pseudonym.key")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("schedules", nargs="?", type=int, default=300, help="how many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="the number of one schedule, as a failure prints it")
    parser.add_argument("--seconds", type=float, help="as many schedules as begin within so many seconds")
    parser.add_argument("--airflow", type=int, default=0, help="how many of the schedules run under Airflow")
    parser.add_argument("--lanes", type=int, default=min(len(os.sched_getaffinity(0)), 4), help="schedules at a time")
    parser.add_argument("--defect", choices=sorted(DEFECTS), default="", help="switch on a deliberate defect")
    return parser


def main() -> int:
    return lanes.ended(run, arguments(), "interrupted: servers, mounts and folders are gone")


if __name__ == "__main__":
    sys.exit(main())
