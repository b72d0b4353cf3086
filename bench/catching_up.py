"""Whether catching up 1,000 changes costs the same whatever is held already (``yici bench exchange --scale --only catch-up``).

Two pairs of hubs, the one with ten times the certificates. Their first rows are read over the wire, the others are written
set-based (:mod:`bench.announcements`); then changes are announced and read in turn, by whole runs of the source.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa

from bench import announcements, feed, measuring, neighbours
from bench.announcements import MATERIAL, SOURCE
from bench.neighbours import Variables
from hub.home import Home

CHANGES = 1000
READ = 2000  # rows that are read over the wire first
TIMES = 10


def measure(here: Home, rows: int, rounds: int) -> dict[str, Any]:
    sizes = {"1m": rows, "10m": TIMES * rows}
    changes = min(CHANGES, rows // (rounds + 1))
    taken: dict[str, list[float]] = {name: [] for name in sizes}
    stages: dict[str, list[dict[str, float]]] = {name: [] for name in sizes}
    with contextlib.ExitStack() as stack:
        pairs = {name: _pair(stack, here, name, size) for name, size in sizes.items()}
        for number in range(-1, rounds):  # the first one only warms
            for name in sizes if number % 2 else reversed(sizes):
                provider, receiver = pairs[name]
                announcements.change(neighbours.store(provider), sizes[name], changes, number + 1, rounds + 1)
                measuring.settled(here)
                measuring.checkpoint(here)
                seconds, summary = feed.catch_up(receiver, changes)
                _require_taken_in(receiver, changes * (number + 2), sizes[name])
                if number >= 0:
                    taken[name].append(seconds)
                    stages[name].append(summary["seconds"])
                    measuring.say(f"round {number + 1}: {changes:,} changes on {sizes[name]:,}: {seconds:.2f} s")
    middle = {name: measuring.median(values) for name, values in taken.items()}
    return {
        "changes": changes,
        "seconds": {f"catch_up_{name}": round(value, 3) for name, value in middle.items()},
        "spread": {
            f"catch_up_{name}": [round(min(values), 3), round(max(values), 3)] for name, values in taken.items()
        },
        "stages": {
            f"catch_up_{name}": {
                stage: round(measuring.median([one.get(stage, 0) for one in runs]), 3) for stage in runs[0]
            }
            for name, runs in stages.items()
        },
        "ratios": {"catch_up_10m_vs_1m": measuring.ratio(middle["10m"], middle["1m"])},
    }


def _pair(stack: contextlib.ExitStack, here: Home, name: str, rows: int) -> tuple[Variables, Variables]:
    """Provider and receiver, who has taken in all of ``rows``; both answer until ``stack`` is closed."""
    provider = stack.enter_context(neighbours.hub(here, f"given_{name}", "zj", "330000"))
    receiver = stack.enter_context(neighbours.hub(here, f"taken_{name}", "sh", "310000"))
    agreement = stack.enter_context(neighbours.exchanging(provider, receiver, [MATERIAL]))
    read = min(READ, rows // 2)
    announcements.hold(neighbours.store(provider), 1, read)
    feed.catch_up(receiver, read)
    measuring.say(f"making {rows:,} certificates and announcements")
    known = announcements.keys(provider, receiver, agreement)
    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(announcements.hold, neighbours.store(provider), read + 1, rows),
            pool.submit(announcements.take_in, neighbours.store(receiver), known, read + 1, rows),
        ]
        for one in both:
            one.result()
    return provider, receiver


def _require_taken_in(receiver: Variables, changed: int, rows: int) -> None:
    with neighbours.store(receiver).connect() as connection:
        found = connection.execute(sa.text(_COUNTED), {"source": SOURCE}).one()
    if tuple(found) != (changed, rows + changed):
        raise SystemExit(f"{found.changed:,} entries changed of {changed:,}, read up to {found.position:,}")


_COUNTED = """
SELECT (SELECT count(*) FROM index_entry WHERE valid_to = '2040-01-01' AND recorded_to IS NULL) AS changed,
  (SELECT (cursor ->> 'position')::bigint FROM source WHERE name = :source) AS position
"""
