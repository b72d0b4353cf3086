"""The exchange's measurement runs, and what it compares is what it says: nobody's test is how fast anything was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from bench import announcements, catching_up, exchange_load, feed, neighbours
from bench.announcements import MATERIAL, SOURCE
from bench.neighbours import Variables
from hub.cli import app
from hub.home import Home

SECONDS = 580
READ, MORE = 30, 50
RATIOS = {
    "feed_vs_copy", "feed_vs_bare_copy", "catch_up_10m_vs_1m", "reconcile_equal_bytes", "reconcile_differing_bytes",
    "evidence_signed_vs_plain", "evidence_signed_vs_reading", "ledger_p99",
}  # fmt: skip
# What is drawn, or belongs to the batch that brought it, is another one each time.
TABLES = {
    "mapped_row": "holding, source, row_key, document",
    "row_ledger": "source, row_key, contract, verdict, in_force, timed, updated_at, lacked, holding, authority, said_at, said_as_of",
    "index_entry": """identifier, source, handle, role, recorded_to, material, region, status, valid_from, valid_to, digest,
      epoch""",
}


@pytest.fixture
def pair(server_home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Variables, Variables, str]]:
    """Two hubs with an agreement, of which the receiver has read the first :data:`READ` certificates."""
    for name in ("YICI_LANDING_URL", "YICI_SOURCES"):
        monkeypatch.delenv(name, raising=False)
    with (
        neighbours.hub(server_home, "t_given", "zj", "330000") as provider,
        neighbours.hub(server_home, "t_taken", "sh", "310000") as receiver,
        neighbours.exchanging(provider, receiver, [MATERIAL]) as agreement,
    ):
        announcements.hold(neighbours.store(provider), 1, READ)
        feed.catch_up(receiver, READ)
        yield provider, receiver, agreement


def rows(hub: Variables) -> dict[str, list[Any]]:
    with neighbours.store(hub).connect() as connection:
        return {
            table: sorted(map(repr, connection.execute(sa.text(f"SELECT {columns} FROM {table}"))))
            for table, columns in TABLES.items()
        }


def restore(hub: Variables, kept: dict[str, list[Any]], cursor: Any) -> None:
    """Only the rows read first are left, and the cursor is behind them."""
    with neighbours.store(hub).begin() as connection:
        for table, found in kept.items():
            connection.execute(sa.text(f"TRUNCATE {table}"))
            connection.execute(sa.text(f"INSERT INTO {table} SELECT * FROM jsonb_populate_recordset(null::{table}, :rows)"),
                               {"rows": json.dumps(found)})  # fmt: skip
        connection.execute(
            sa.text("UPDATE source SET cursor = cast(:cursor AS jsonb) WHERE name = :name"),
            {"cursor": json.dumps(cursor), "name": SOURCE},
        )


@pytest.mark.slow
def test_what_is_written_set_based_is_what_a_reader_comes_to(pair: tuple[Variables, Variables, str]) -> None:
    provider, receiver, agreement = pair
    with neighbours.store(receiver).connect() as connection:
        kept = {
            table: connection.scalar(sa.text(f"SELECT jsonb_agg(to_jsonb(t)) FROM {table} AS t")) for table in TABLES
        }
        cursor = connection.scalar(sa.text("SELECT cursor FROM source WHERE name = :name"), {"name": SOURCE})
    announcements.hold(neighbours.store(provider), READ + 1, READ + MORE)
    known = announcements.keys(provider, receiver, agreement)
    announcements.take_in(neighbours.store(receiver), known, READ + 1, READ + MORE)
    written = rows(receiver)
    with neighbours.store(receiver).connect() as connection:
        reached = connection.scalar(sa.text("SELECT cursor FROM source WHERE name = :name"), {"name": SOURCE})
    restore(receiver, kept, cursor)
    feed.catch_up(receiver, MORE)
    read = rows(receiver)
    assert {table: len(found) for table, found in read.items()} == dict.fromkeys(TABLES, READ + MORE)
    for table in TABLES:
        assert written[table] == read[table], table
    with neighbours.store(receiver).connect() as connection:
        again = connection.scalar(sa.text("SELECT cursor FROM source WHERE name = :name"), {"name": SOURCE})
    assert reached == again


@pytest.mark.slow
def test_changes_are_others_each_time_and_all_are_taken_in(pair: tuple[Variables, Variables, str]) -> None:
    provider, receiver, _ = pair
    for turn in range(3):
        announcements.change(neighbours.store(provider), READ, 10, turn, 3)
        _, summary = feed.catch_up(receiver, 10)
        assert (summary["quarantined"], summary["rejected"]) == (0, 0)
        catching_up._require_taken_in(receiver, 10 * (turn + 1), READ)
    with pytest.raises(SystemExit):
        catching_up._require_taken_in(receiver, 29, READ)


def test_requests_are_read_as_they_were_written(tmp_path: Path) -> None:
    requests = [exchange_load.request(body, "text/plain") for body in (b"", b"one", b"\x00\xff" * 50_000)]
    exchange_load.write(tmp_path / "requests", requests)
    assert exchange_load.read(tmp_path / "requests") == requests


def test_a_catch_up_alone_wants_the_scale() -> None:
    done = CliRunner().invoke(app, ["bench", "exchange", "--only", "catch-up"])
    assert done.exit_code == 2


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 20)
def test_the_command_prints_what_it_promises() -> None:
    command = [sys.executable, "-m", "hub", "bench", "exchange", "--rows", "3000", "--rounds", "1", "--requests", "200"]
    done = subprocess.run(
        [*command, "--seconds", "2", "--scale", "--json"], capture_output=True, text=True, env={**os.environ}, timeout=SECONDS,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["ratios"]) == RATIOS and all(value > 0 for value in result["ratios"].values())
    assert result["found"] == 10 and result["changes"] == 1000
    assert 0 < result["bytes"]["equal"] < result["bytes"]["differing"] < result["bytes"]["all"]
    rates = result["per_second"]
    assert rates["evidence_signed"] < rates["evidence_reading"] < rates["evidence_generator"]
    assert rates["evidence_ledger_on"] >= 40 and rates["evidence_ledger_off"] >= 40
