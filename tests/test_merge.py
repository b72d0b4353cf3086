"""Several sources, one certificate: authority decides, conflicts are visible, merges at once lose nothing."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from hub import database, pipeline
from tests import licences
from tests.test_pipeline import SH, count, names, variant

__all__ = ["variant"]


@pytest.fixture(autouse=True)
def _store(store: sa.Engine) -> None:
    """Every test has an empty store of its own."""


def _deliver(tmp_path: Path, source: str, records: list[dict[str, str]], name: str) -> None:
    pipeline.run(source, input=licences.write(tmp_path / f"{name}.csv", records))


@pytest.mark.parametrize("first", ["strong", "weak"])
def test_the_source_with_more_authority_wins_whatever_came_first(tmp_path: Path, variant, first: str) -> None:
    weak = variant("xx-weak", authority="10")
    deliveries = {
        "strong": (SH, [licences.row(1, name="权威名称有限公司")]),
        "weak": (weak, [licences.row(1, name="另一名称有限公司", date="2020-01-01")]),
    }
    for turn in (first, *(set(deliveries) - {first})):
        source, records = deliveries[turn]
        _deliver(tmp_path, source, records, turn)
    assert names() == {licences.credit_code(1): "权威名称有限公司"}
    assert count("holding") == 1 and count("observation") == 2
    assert count("holding", "observations = 2 AND conflicting") == 1


def test_sources_that_agree_do_not_conflict(tmp_path: Path, variant) -> None:
    weak = variant("xx-weak", authority="10")
    for source in (SH, weak):
        _deliver(tmp_path, source, licences.rows(3), source)
    assert count("holding", "observations = 2 AND NOT conflicting") == 3
    assert count("feed") == 3, "a second voice for the same certificate is no change"


def test_merges_of_several_sources_at_once_lose_nothing(tmp_path: Path, variant) -> None:
    other = variant("xx-other", authority="50")
    size = 300
    deliveries = [(SH, licences.rows(size)), (other, licences.rows(size, start=size // 2)),
                  ("js-amr-enterprises", [row | {"所在省份": "江苏"} for row in licences.rows(size, start=size // 3)])]  # fmt: skip
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(_deliver, tmp_path, source, rows, source) for source, rows in deliveries]:
            done.result()
    assert count("observation") == 3 * size and count("holding") == size + size // 2
    wrong = """observations <> (SELECT count(*) FROM observation AS o WHERE o.holding = key)
        OR digest <> (SELECT digest FROM observation AS o WHERE o.holding = key
          ORDER BY authority DESC, updated_at DESC, digest DESC LIMIT 1)"""
    assert count("holding", wrong) == 0
    with database.engine().connect() as connection:
        positions = list(connection.scalars(sa.text("SELECT position FROM feed ORDER BY position")))
        times = list(connection.scalars(sa.text("SELECT recorded_at FROM feed ORDER BY position")))
    assert positions == list(range(1, len(positions) + 1)) and len(positions) >= size + size // 2
    assert times == sorted(times), "who reads the feed to a time must not miss what came before it"
    assert count("holding_version", "recorded_to IS NULL") == count("holding")


def test_times_in_the_feed_never_go_back_even_when_the_clock_does(tmp_path: Path) -> None:
    _deliver(tmp_path, SH, licences.rows(2), "first")
    with database.engine().begin() as connection:
        ahead = connection.scalar(
            sa.text("UPDATE feed_head SET recorded_at = now() + interval '1 hour' RETURNING recorded_at")
        )
    _deliver(tmp_path, SH, licences.rows(2, start=2), "second")
    with database.engine().connect() as connection:
        times = list(connection.scalars(sa.text("SELECT recorded_at FROM feed WHERE position > 2 ORDER BY position")))
    assert times == [ahead + dt.timedelta(microseconds=1)] * 2, "at a tie a reader could not tell which came last"
