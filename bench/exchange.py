"""``yici bench exchange``: the exchange between hubs beside what it could be without, all in one run.

    .venv/bin/python bench/exchange.py [--rows N] [--rounds N] [--requests N] [--seconds N] [--scale] [--only PART …] [--json]

Hubs with homes and databases of their own on one PostgreSQL, listeners over mutual TLS. Parts: ``feed``, ``reconcile``,
``evidence``, ``ledger``, and with ``--scale`` ``catch-up``. See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import catching_up, evidence_hub, evidence_requests, feed, ledger_beside, measuring, reconciling
from bench.neighbours import Variables

PARTS = ("feed", "reconcile", "evidence", "ledger", "catch-up")


def measure(rows: int, rounds: int, requests: int, seconds: float, parts: list[str]) -> dict[str, Any]:
    """``requests``: evidence requests of one measurement; ``seconds``: how long lookups are measured."""
    result: dict[str, Any] = {"machine": measuring.machine(), "rows": rows, "rounds": rounds, "requests": requests}
    with measuring.home() as here, tempfile.TemporaryDirectory() as folder:
        if {"feed", "reconcile"} & set(parts):

            def read(provider: Variables, receiver: Variables, agreement: str, sent: int) -> None:
                if "reconcile" in parts:
                    _join(result, reconciling.measure(provider, receiver, agreement, rows, sent))

            read_in = feed.measure(here, rows, rounds if "feed" in parts else 1, read)
            if "feed" in parts:
                _join(result, read_in)
        if {"evidence", "ledger"} & set(parts):
            with evidence_hub.asked(here, rows, Path(folder)) as asked:
                if "evidence" in parts:
                    _join(result, evidence_requests.measure(asked, requests, rounds))
                if "ledger" in parts:
                    _join(result, ledger_beside.measure(asked, seconds, rounds))
        if "catch-up" in parts:
            _join(result, catching_up.measure(here, rows, rounds))
    return result


def _join(result: dict[str, Any], found: dict[str, Any]) -> None:
    for name, value in found.items():
        if isinstance(value, dict):
            result.setdefault(name, {}).update(value)
        else:
            result[name] = value


def main() -> None:
    parser = argparse.ArgumentParser(prog="yici bench exchange", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=5000, help="evidence requests of one measurement")
    parser.add_argument("--seconds", type=float, default=10, help="how long lookups are measured")
    parser.add_argument("--scale", action="store_true", help="catching up on ten times the rows, too")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    parts = [part for part in PARTS if part in given.only and (part != "catch-up" or given.scale)]
    if not parts:
        parser.error("catch-up needs --scale")
    result = measure(given.rows, given.rounds, given.requests, given.seconds, parts)
    if given.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{result['rows']:,} rows, medians of {result['rounds']}")
    for name, value in result.get("per_second", {}).items():
        print(f"  {name:28} {value:10,} /s")
    for name, value in result.get("seconds", {}).items():
        print(f"  {name:28} {value:10,.3f} s")
    for name, value in result.get("bytes", {}).items():
        print(f"  {name:28} {value:10,} bytes")
    for name, value in result["ratios"].items():
        print(f"  {name:28} × {value}")


if __name__ == "__main__":
    main()
