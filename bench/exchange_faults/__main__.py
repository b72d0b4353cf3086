"""Seeded fault schedules for the exchange: three hubs, each with its own database, talk to each other through a network that cuts,
loses, delays, repeats and reorders; they are killed, change their keys, have wrong clocks, and one may lie. Afterwards all must
agree with what is true. 三个枢纽之间的交换故障演练：断网、延迟、丢失、重复、乱序、被杀、换钥、时钟偏差、说谎；恢复后必须与事实一致。

    make exchange-faults N=100 SEED=1
    python -m bench.exchange_faults 100 --seed 1 [--only K] [--seconds S] [--defect NAME]

    make exchange-faults SEED=1 ONLY=17                    one schedule again 重演一个
    make exchange-faults ARGS="--seconds 120"              as many as begin within two minutes 两分钟的抽样
    make exchange-faults N=20 ARGS="--defect reply-unkept" a deliberate defect: must fail 故意的缺陷：必须失败

The last line of standard output is JSON: {"schedules", "lost", "twice", "accepted_from_liar", "unrecorded_refusals", …}. Exit code
1 when any of these is not zero, a schedule did not end as it should, or an error was not one that says what to do. See
bench/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import msgspec
from cryptography import x509

from bench import lanes
from bench.exchange_faults import truth
from bench.exchange_faults.defects import DEFECTS
from bench.exchange_faults.lane import Lane
from bench.exchange_faults.sources import write_sources
from bench.exchange_faults.stage import Outcome
from bench.lanes import Lanes, say

WARM = ("hub.pipeline", "hub.review", "hub.staging", "hub.merge", "hub.outcome", "connectors.connect", "connectors.hub",
        "connectors.reading", "mappings.engine", "quality.gate", "pyarrow.compute", "pandas", "duckdb", "great_expectations",
        "psycopg", "psutil", "uvicorn", "httptools", "hub.answers", "hub.verify", "hub.exchange.serve", "hub.exchange.reconciliation",
        "hub.exchange.evidence_asking", "hub.exchange.corrections", "hub.exchange.agreement_acts", "hub.exchange.index_channel",
        "hub.exchange.ledger_verify", "hub.exchange.upkeep", "bench.exchange_faults.operations", "bench.exchange_faults.lies_told", "bench.exchange_faults.lies_given",
        "bench.faults.defects")  # fmt: skip
ENDLESS = 100_000
FEW = 1  # schedules that a lane takes at a time


class Report:
    """Adds up outcomes, and tells of them on standard error."""

    def __init__(self, seed: int, wanted: int | None) -> None:
        self.seed, self.wanted, self.began = seed, wanted, time.monotonic()
        self.counts: Counter[str] = Counter()
        self.unclear: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.worked = 0.0

    def add(self, outcome: Outcome) -> None:
        found = outcome.account
        self.counts.update(
            schedules=1, lost=found.lost, twice=found.twice, accepted_from_liar=found.accepted,
            unrecorded_refusals=found.unrecorded, wrong=int(bool(outcome.trouble)), failed=int(outcome.failed), killed=int(outcome.killed),
            messages=outcome.messages, lies=outcome.lies,
        )  # fmt: skip
        self.unclear.update(outcome.unclear)
        self.faults.update(outcome.faults)
        self.codes.update(outcome.codes)
        self.worked += outcome.worked
        if outcome.failed:
            say(f"\nschedule {outcome.number} of seed {self.seed} FAILED")
            for line in (*found.why[:20], *outcome.trouble[:20], *outcome.happened):
                say(f"  {line}")
            say(f"  again 重演: make exchange-faults SEED={self.seed} ONLY={outcome.number}")
        self.progress()

    def progress(self) -> None:
        seconds, done = time.monotonic() - self.began, self.counts["schedules"]
        line = f"{done}{f' of {self.wanted}' if self.wanted else ''} schedules, {self.counts['killed']} killed, {self.counts['lies']} lies, {self.counts['failed']} failed, {seconds:.0f} s"  # fmt: skip
        if sys.stderr.isatty():
            print(f"\r{line} ", end="", file=sys.stderr, flush=True)
        elif done % 10 == 0 or done == self.wanted:
            say(line)

    def end(self) -> int:
        """The details on standard error, the numbers as the last line of standard output; the exit code."""
        say("\nwhat happened: " + ", ".join(f"{count} × {what}" for what, count in self.faults.most_common()))
        say("what was said: " + ", ".join(f"{count} × {code}" for code, count in self.codes.most_common()))
        say(f"processor time: {self.worked / max(1, self.counts['schedules']):.1f} s a schedule, without PostgreSQL")
        for text, count in self.unclear.most_common():
            say(f"not a clear error, {count} ×: {text}")
        names = (
            "schedules",
            "lost",
            "twice",
            "accepted_from_liar",
            "unrecorded_refusals",
            "wrong",
            "killed",
            "lies",
            "messages",
        )
        print(
            json.dumps({name: self.counts[name] for name in names} | {"unclear_errors": self.unclear.total()}),
            flush=True,
        )
        return int(bool(self.counts["failed"] or self.unclear or not self.counts["schedules"]))


def run(given: argparse.Namespace) -> int:
    """All schedules of the command line. Returns the exit code."""
    within = given.seconds is not None
    numbers = range(ENDLESS if within else given.schedules) if given.only is None else range(given.only, given.only + 1)
    report = Report(given.seed, None if within else len(numbers))
    root = Path(tempfile.mkdtemp(prefix="yici-exchange-faults-"))
    root.chmod(0o711)
    playing = Lanes(lambda place: Lane(root / f"lane{place}", given.seed, given.defect))
    try:
        _prepare(root)
        deadline = time.monotonic() + given.seconds if within else None
        playing.start(lanes.shared_out(numbers, given.lanes, FEW), deadline)
        failed = playing.collect(report.add)
        return report.end() or int(failed)
    finally:
        playing.end()
        shutil.rmtree(root, ignore_errors=True)


def _prepare(root: Path) -> None:
    """Sources, and everything imported: before the lanes are forked."""
    write_sources(root / "sources", truth.HUBS)
    for name in [name for name in os.environ if name.startswith(("YICI_", "AIRFLOW"))]:
        del os.environ[name]
    os.environ |= {"YICI_SOURCES": str(root / "sources"), "YICI_LANG": "en"}
    say("warming up")
    for name in WARM:
        importlib.import_module(name)
    from hub.exchange import kinds
    from mappings import model

    kinds.register()
    model.all_materials()
    _settle_what_a_moment_is()


def _settle_what_a_moment_is() -> None:
    """Libraries look up once what a moment is: before hubs have clocks of their own."""
    from hub.exchange import certificates

    made = certificates.make("warm", dt.datetime.now(dt.UTC))
    assert x509.load_pem_x509_certificate(made.pem.encode()).not_valid_after_utc
    forms = [msgspec.Struct]
    for form in forms:
        forms += form.__subclasses__()
        with contextlib.suppress(TypeError, NameError):  # generic, or of somebody else
            msgspec.json.Decoder(form)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make exchange-faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("schedules", nargs="?", type=int, default=100, help="how many 个数")
    parser.add_argument("--seed", type=int, default=1, help="what they are drawn from 随机种子")
    parser.add_argument("--only", type=int, help="the number of one schedule, as a failure prints it 只演这一个")
    parser.add_argument("--seconds", type=float, help="as many schedules as begin within so many seconds 限时抽样")
    parser.add_argument(
        "--lanes", type=int, default=min(len(os.sched_getaffinity(0)), 4), help="schedules at a time 并行数"
    )
    parser.add_argument(
        "--defect", choices=sorted(DEFECTS), default="", help="switch on a deliberate defect 故意的缺陷"
    )
    return parser


def main() -> int:
    return lanes.ended(run, arguments(), "interrupted: hubs, servers and folders are gone 已中断，未留下进程")


if __name__ == "__main__":
    sys.exit(main())
