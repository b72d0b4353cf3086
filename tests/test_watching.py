"""What Prometheus is told about the store."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from hub import database, pipeline, watching
from hub.api.metrics import Metrics
from hub.exchange import ledger
from tests import ledgers, stored

SAMPLE = Path(__file__).parent.parent / "connectors/sources/sh-amr-enterprises/sample/input.csv"


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_runs_rows_and_freshness_are_told(store: sa.Engine) -> None:
    summary = pipeline.run("sh-amr-enterprises", input=SAMPLE)
    late = dt.datetime.now(dt.UTC) - dt.timedelta(days=30)
    stored.source(store, "sh-ga-residents", "resident-id-card", succeeded=late)
    stored.source(store, "never-ran", "marriage-certificate", succeeded=None)
    text = Metrics().text().decode()
    found = samples(text)
    one = (("source", "sh-amr-enterprises"),)
    for name in ("accepted", "quarantined", "rejected", "unchanged"):
        assert found["yici_rows_total", (*one, ("state", name))] == summary[name]
    assert found["yici_batches", (*one, ("state", "merged"))] == 1
    assert found["yici_batch_seconds", (*one, ("state", "merged"))] > 0
    assert found["yici_quarantine_open_rows", one] == summary["quarantined"]
    assert found["yici_source_late", one] == 0
    assert found["yici_source_late", (("source", "sh-ga-residents"),)] == 1
    assert found["yici_source_late", (("source", "never-ran"),)] == 1
    age = dt.datetime.now(dt.UTC).timestamp() - found["yici_source_last_success_timestamp_seconds", one]
    assert 0 <= age < 120
    assert ("yici_source_last_success_timestamp_seconds", (("source", "never-ran"),)) not in found
    assert found["yici_holdings", (("material", "business-licence"),)] == summary["accepted"]
    assert stored.LICENCE_CODE not in text


def test_records_of_the_exchange_that_wait_for_their_place(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SECONDS", 0.0)

    def waiting() -> tuple[float, float]:
        found = samples(Metrics().text().decode())
        return found["yici_ledger_pending_records", ()], found["yici_ledger_pending_seconds", ()]

    assert waiting() == (0, 0)
    ledgers.plain(store, 2)
    ledgers.changed(store, "UPDATE exchange_pending SET recorded_at = recorded_at - interval '1 hour'")
    count, oldest = waiting()
    assert count == 2 and 3600 <= oldest < 3700
    ledgers.changed(store, "UPDATE exchange_pending SET recorded_at = recorded_at + interval '1 hour'")
    ledger.chain(store)
    assert waiting() == (0, 0)


def test_a_scrape_does_not_read_the_store_each_time(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def engine() -> sa.Engine:
        asked.append(1)
        return database.engine()

    registry = CollectorRegistry()
    collector = watching.Store(engine)
    registry.register(collector)
    assert not asked, "registering asks nothing"
    for _ in range(3):
        list(registry.collect())
    assert len(asked) == 1
    monkeypatch.setattr(watching, "SECONDS", 0.0)
    list(registry.collect())
    assert len(asked) == 2


def test_while_the_store_is_away_the_scrape_says_so() -> None:
    gone = sa.create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    (metric,) = watching.Store(lambda: gone).collect()
    assert metric.name == "yici_store_up" and metric.samples[0].value == 0
