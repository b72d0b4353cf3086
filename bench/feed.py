"""How fast a hub that begins takes in all that another announces, beside COPY of the same rows (``yici bench exchange --only feed``).

Both hubs are on this machine, over mutual TLS. Catching up is a whole run of the source: pages asked for, verified, landed, compared
with the ledger, mapped, checked, merged. ``copy``: the index entries that came of it, as text, by COPY into an empty table of the
same columns, primary key and index; ``copy_bare``: into one without any. See bench/README.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import sqlalchemy as sa

from bench import announcements, measuring, neighbours
from bench.announcements import MATERIAL, SOURCE
from bench.neighbours import Variables
from hub.home import Home

WARM_ROWS = 2000
Then = Callable[[Variables, Variables, str, int], None]


def measure(here: Home, rows: int, rounds: int, then: Then | None = None) -> dict[str, Any]:
    """``then`` is called when the last round has been read, both hubs still up: provider, receiver, agreement, bytes of all pages
    with the questions for them."""
    taken: dict[str, list[float]] = {"catch_up": [], "copy": [], "copy_bare": []}
    stages: list[dict[str, float]] = []
    with (
        neighbours.hub(here, "feed_small", "zj", "330000") as provider,
        neighbours.hub(here, "feed_warm", "sh", "310000") as receiver,
        neighbours.exchanging(provider, receiver, [MATERIAL]),
    ):
        announcements.hold(neighbours.store(provider), 1, WARM_ROWS)
        catch_up(receiver, WARM_ROWS)
    with neighbours.hub(here, "feed", "zj", "330000") as provider:
        announcements.hold(neighbours.store(provider), 1, rows)
        measuring.say(f"{rows:,} certificates announced")
        for number in range(rounds):
            with (
                neighbours.hub(here, f"feed_{number}", "sh", "310000") as receiver,
                neighbours.exchanging(provider, receiver, [MATERIAL]) as agreement,
            ):
                measuring.checkpoint(here)
                with neighbours.wired() as wire:
                    seconds, summary = catch_up(receiver, rows)
                taken["catch_up"].append(seconds)
                stages.append(summary["seconds"])
                for name, like in (("copy", "INCLUDING ALL"), ("copy_bare", "")):
                    measuring.checkpoint(here)
                    taken[name].append(_copied(receiver, like, rows))
                measuring.say(
                    f"round {number + 1}: " + ", ".join(f"{name} {each[-1]:.1f} s" for name, each in taken.items())
                )
                if then is not None and number == rounds - 1:
                    then(provider, receiver, agreement, wire.bytes)
    seconds_of = {name: measuring.median(values) for name, values in taken.items()}
    return {
        "seconds": {name: round(value, 2) for name, value in seconds_of.items()},
        "spread": {name: [round(min(values), 2), round(max(values), 2)] for name, values in taken.items()},
        "stages": {name: round(measuring.median([one.get(name, 0) for one in stages]), 2) for name in stages[0]},
        "ratios": {
            "feed_vs_copy": measuring.ratio(seconds_of["copy"], seconds_of["catch_up"]),
            "feed_vs_bare_copy": measuring.ratio(seconds_of["copy_bare"], seconds_of["catch_up"]),
        },
    }


def catch_up(receiver: Variables, rows: int) -> tuple[float, dict[str, Any]]:
    """Seconds, and the summary of a run of the source that has to accept so many rows."""
    import great_expectations  # noqa: F401 - loaded once, not by every fork

    from hub import pipeline

    with neighbours.acting(receiver):
        began = time.perf_counter()
        summary = pipeline.run(SOURCE)
        seconds = time.perf_counter() - began
    if summary["accepted"] != rows:
        raise SystemExit(f"{summary['accepted']:,} rows accepted of {rows:,}")
    return seconds, summary


def _copied(receiver: Variables, like: str, rows: int) -> float:
    """Seconds that COPY takes for the same rows, in the order in which they came."""
    url = sa.make_url(receiver["YICI_DATABASE_URL"]).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        with cursor.copy('COPY (SELECT * FROM index_entry ORDER BY file, "row") TO STDOUT') as copy:
            data = b"".join(bytes(part) for part in copy)
        cursor.execute(f"CREATE TABLE copied (LIKE index_entry {like})".encode())
        connection.commit()
        began = time.perf_counter()
        with cursor.copy("COPY copied FROM STDIN") as copy:
            copy.write(data)
        connection.commit()
        seconds = time.perf_counter() - began
        if cursor.rowcount != rows:
            raise SystemExit(f"COPY took {cursor.rowcount:,} rows of {rows:,}")
        cursor.execute("DROP TABLE copied")
    return seconds
