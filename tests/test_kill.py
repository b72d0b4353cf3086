"""A pipeline killed at any instant, run again, ends where an undisturbed one would."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from hub import database, pipeline
from tests import licences
from tests.test_pipeline import SH, count, state

ROWS = 4000


def _run_until_killed(path: Path, seconds: float) -> bool:
    """Run the source in a fork of this warm process and kill it after ``seconds``; whether it was still running."""
    child = os.fork()
    if child == 0:
        try:
            pipeline.run(SH, input=path)
        finally:
            os._exit(0)
    time.sleep(seconds)
    killed = os.waitpid(child, os.WNOHANG) == (0, 0)
    if killed:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return killed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_killed_at_any_instant(store: sa.Engine, tmp_path: Path) -> None:
    first = licences.write(tmp_path / "first.csv", licences.rows(ROWS // 2))
    changed = [licences.row(number, name=f"改名{number}号有限公司", date="2019-11-11") for number in range(0, ROWS, 3)]
    bad = [licences.row(ROWS + number, name="") for number in range(20)]
    second = licences.write(tmp_path / "second.csv", [*licences.rows(ROWS), *bad][::-1])
    third = licences.write(tmp_path / "third.csv", changed)

    took = {}
    for path in (first, second, third):
        start = time.monotonic()
        pipeline.run(SH, input=path)
        took[path] = time.monotonic() - start
    expected = state()
    feed = count("feed")
    with database.engine().begin() as connection:
        tables = "row_ledger, mapped_row, mapped_block, holding, holding_holder, holding_past, feed, quarantine, batch, source"
        connection.execute(sa.text(f"TRUNCATE {tables} CASCADE"))
        connection.execute(sa.text("UPDATE feed_head SET position = 0"))
    pipeline.run(SH, input=first)
    kills = 0
    for path in (second, third):
        for step in range(8):
            kills += _run_until_killed(path, took[path] * (step + 0.5) / 8)
        pipeline.run(SH, input=path)
    assert kills >= 8, "the kills must come while the pipeline runs"
    assert state() == expected
    assert count("feed") == feed and count("feed", "position > (SELECT position FROM feed_head)") == 0
