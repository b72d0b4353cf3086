"""The index feed between two hubs: how fast one that begins takes in all that the other announces, beside COPY of the same rows.

    .venv/bin/python bench/feed.py [--rows N] [--rounds N] [--json]

Both hubs are on this machine, over mutual TLS. Catching up is a whole run of the source: pages asked for, verified, landed, compared
with the ledger, mapped, checked, merged. ``copy``: the index entries that came of it, as text, by COPY into an empty table of the
same columns, primary key and index; ``copy_bare``: into one without any. See bench/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg
import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench import measuring, neighbours
from hub.home import Home

SOURCE, MATERIAL = "zj-hub-index", "household-register"
WARM_ROWS = 2000


def measure(rows: int, rounds: int) -> dict[str, Any]:
    taken: dict[str, list[float]] = {"catch_up": [], "copy": [], "copy_bare": []}
    stages: list[dict[str, float]] = []
    with measuring.home() as here:
        with _provider(here, "small", WARM_ROWS) as provider, _receiver(here, "warm") as receiver:
            _catch_up(provider, receiver, WARM_ROWS)
        with _provider(here, "whole", rows) as provider:
            for number in range(rounds):
                with _receiver(here, f"round_{number}") as receiver:
                    measuring.checkpoint(here)
                    seconds, summary = _catch_up(provider, receiver, rows)
                    taken["catch_up"].append(seconds)
                    stages.append(summary["seconds"])
                    for name, like in (("copy", "INCLUDING ALL"), ("copy_bare", "")):
                        measuring.checkpoint(here)
                        taken[name].append(_copied(receiver, like, rows))
                measuring.say(", ".join(f"{name} {values[-1]:.1f} s" for name, values in taken.items()))
    seconds_of = {name: measuring.median(values) for name, values in taken.items()}
    return {
        "machine": measuring.machine(),
        "rows": rows,
        "rounds": rounds,
        "seconds": {name: round(value, 2) for name, value in seconds_of.items()},
        "spread": {name: [round(min(values), 2), round(max(values), 2)] for name, values in taken.items()},
        "stages": {name: round(measuring.median([one.get(name, 0) for one in stages]), 2) for name in stages[0]},
        "ratios": {
            "feed_vs_copy": measuring.ratio(seconds_of["copy"], seconds_of["catch_up"]),
            "feed_vs_bare_copy": measuring.ratio(seconds_of["copy_bare"], seconds_of["catch_up"]),
        },
    }


@contextlib.contextmanager
def _provider(here: Home, name: str, rows: int) -> Iterator[neighbours.Variables]:
    """A hub that holds ``rows`` certificates and has announced each, as merges would have left them."""
    from hub import database, partitions

    with _hub(here, name, "zj", "330000") as variables, mock.patch.dict(os.environ, variables):
        engine = database.engine()
        with engine.begin() as connection:
            partitions.ensure(connection)
        with engine.begin() as connection:
            for statement in _MANY:
                connection.execute(sa.text(statement), {"rows": rows})
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM ANALYZE"))
        yield variables


@contextlib.contextmanager
def _receiver(here: Home, name: str) -> Iterator[neighbours.Variables]:
    with _hub(here, name, "sh", "310000") as variables:
        yield variables


@contextlib.contextmanager
def _hub(here: Home, name: str, hub: str, region: str) -> Iterator[neighbours.Variables]:
    """A hub with a home and an empty, migrated database of its own."""
    from hub import database

    folder = Path(tempfile.mkdtemp(prefix=f"yici-{hub}-"))
    try:
        with measuring.database(here, f"bench_{name}") as url:
            variables = {"YICI_HOME": str(folder), "YICI_DATABASE_URL": url, "YICI_HUB": hub, "YICI_REGION": region}
            with mock.patch.dict(os.environ, variables):
                database.upgrade()
            yield variables
            with mock.patch.dict(os.environ, variables):
                database.engine().dispose()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _catch_up(
    provider: neighbours.Variables, receiver: neighbours.Variables, rows: int
) -> tuple[float, dict[str, Any]]:
    """Seconds, and the summary of the run."""
    import great_expectations  # noqa: F401 - loaded once, not by every fork

    from hub import pipeline

    with neighbours.exchanging(provider, receiver, [MATERIAL]), mock.patch.dict(os.environ, receiver):
        began = time.perf_counter()
        summary = pipeline.run(SOURCE)
        seconds = time.perf_counter() - began
    if summary["accepted"] != rows:
        raise SystemExit(f"{summary['accepted']:,} rows accepted of {rows:,}")
    return seconds, summary


def _copied(receiver: neighbours.Variables, like: str, rows: int) -> float:
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


_MANY = (
    """INSERT INTO source (name, entity, authority, region, extent, promise_seconds)
    VALUES ('zj-ga-households', 'household-register', 100, '330000', 'changes', 172800)""",
    """INSERT INTO holding (key, mapped, material, source, row_key, digest, updated_at, authority, observations, conflicting,
      status, valid_from, region, batch)
    SELECT substr(sha256(convert_to(i::text, 'UTF8')), 1, 16), i, 'household-register', 'zj-ga-households', md5(i::text)::uuid,
      gen_random_uuid(), now(), 100, 1, false, 'in_force', '2020-01-01', '330106', 'b'
    FROM generate_series(1, :rows) AS i""",
    """INSERT INTO mapped_row (holding, id, source, row_key, file, "row", document)
    SELECT key, mapped, source, row_key, 1, mapped, json_build_object('certificate_number', 'ZJ-' || mapped,
      'name', '居民户口簿', 'issuer_name', '杭州市公安局西湖分局', 'region', region, 'issued_on', '2020-01-01',
      'valid_from', '2020-01-01', 'status', 'in_force', 'holders', json_build_array(json_build_object('role', 'holder',
        'scheme', 'cn.ric', 'value', '330106' || 19500101 + mapped % 30000 || lpad((mapped % 10000)::text, 4, '0'), 'name', '示例')),
      'attributes', json_build_object('address', '浙江省杭州市西湖区示例路 ' || mapped || ' 号', 'members', 3))
    FROM holding""",
    """INSERT INTO feed (position, holding, material, change, digest, batch, recorded_at)
    SELECT row_number() OVER (ORDER BY key), key, material, 'added', digest, 'b', now() FROM holding""",
    "UPDATE feed_head SET position = :rows, recorded_at = now()",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = measure(given.rows, given.rounds)
    if given.json:
        print(json.dumps(result))
    else:
        for name, value in {**result["seconds"], **result["stages"], **result["ratios"]}.items():
            print(f"{name:>20} {value}")


if __name__ == "__main__":
    main()
