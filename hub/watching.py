"""What is watched: runs, rows by state, freshness against promise, what waits, read from the store as Prometheus asks for it.

Names of sources, states, agreements and partner hubs are the only labels. A scrape reads the store at most once in :data:`SECONDS`; while the store
is away ``yici_store_up`` is 0 and the rest is left out rather than shown as it was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

import sqlalchemy as sa
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from hub.exchange.figures import Exchange

SECONDS = 15.0
COUNTED = ("unchanged", "accepted", "quarantined", "rejected", "withdrawn")

_SOURCES = """
SELECT name, extract(epoch FROM last_success_at)::float8 AS succeeded, promise_seconds::float8 AS promise,
  coalesce(last_success_at + make_interval(secs => promise_seconds) < clock_timestamp(), true)::int AS late,
  (SELECT count(*) FROM quarantine AS q WHERE q.source = source.name AND q.state = 'open') AS waiting
FROM source ORDER BY name
"""
_BATCHES = """
SELECT source, state, count(*) AS runs,
  sum((SELECT sum(value::float8) FROM jsonb_each_text(seconds) AS t(stage, value))) AS seconds
FROM batch WHERE kind = 'run' GROUP BY source, state ORDER BY source, state
"""
_ROWS = f"""
SELECT source, {", ".join(f"sum({name})::float8 AS {name}" for name in COUNTED)}
FROM batch WHERE state = 'merged' GROUP BY source ORDER BY source
"""
_HOLDINGS = "SELECT material, count(*) AS holdings FROM holding GROUP BY material ORDER BY material"

# Records of the exchange that have no place in the chain yet: more and older ones mean that nothing chains them.
_LEDGER = """
SELECT count(*)::float8 AS waiting, coalesce(extract(epoch FROM clock_timestamp() - min(recorded_at)), 0)::float8 AS oldest
FROM exchange_pending
"""

_CORRECTIONS = """
SELECT peer, CASE WHEN owner THEN 'owner' ELSE 'filer' END AS side, count(*) FILTER (WHERE state = 'filed') AS open,
  count(*) FILTER (WHERE state = 'filed' AND due_on < (clock_timestamp() AT TIME ZONE 'Asia/Shanghai')::date) AS overdue
FROM correction GROUP BY peer, owner ORDER BY peer, owner
"""
_RECONCILED = """
SELECT DISTINCT ON (peer, provider) peer, CASE WHEN provider THEN 'provider' ELSE 'receiver' END AS side,
  "left" AS differing, extract(epoch FROM finished_at)::float8 AS at
FROM reconciliation ORDER BY peer, provider, started_at DESC
"""
_QUERIES = (_SOURCES, _BATCHES, _ROWS, _HOLDINGS, _LEDGER, _CORRECTIONS, _RECONCILED)


class Store(Collector):
    """A collector over the store that ``engine`` opens."""

    def __init__(self, engine: Callable[[], sa.Engine]) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._known: list[Metric] = []
        self._exchange = Exchange()

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask the database."""
        return ()

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            if time.monotonic() - self._read_at >= SECONDS:
                self._known = self._read()
                self._read_at = time.monotonic()
            yield from self._known

    def _read(self) -> list[Metric]:
        up = GaugeMetricFamily("yici_store_up", "Whether the store answered this scrape.", value=1)
        try:
            with self._engine().connect() as connection:
                found = [connection.execute(sa.text(text)).all() for text in _QUERIES]
                exchange = self._exchange.read(connection)
        except Exception:  # whatever is wrong with the store, a scrape is answered
            return [GaugeMetricFamily("yici_store_up", "Whether the store answered this scrape.", value=0)]
        return [
            up, *_sources(found[0]), *_batches(found[1]), _rows(found[2]), _holdings(found[3]), *_ledger(found[4][0]),
            *_corrections(found[5]), *_reconciled(found[6]), *exchange,
        ]  # fmt: skip


def _sources(rows: Iterable[sa.Row]) -> list[Metric]:
    succeeded = GaugeMetricFamily(
        "yici_source_last_success_timestamp_seconds", "End of the last successful run.", labels=("source",)
    )
    promise = GaugeMetricFamily(
        "yici_source_promise_seconds", "How old the last successful run may be.", labels=("source",)
    )
    late = GaugeMetricFamily("yici_source_late", "1 when the source is behind its promise.", labels=("source",))
    waiting = GaugeMetricFamily("yici_quarantine_open_rows", "Rows that wait for a decision.", labels=("source",))
    for row in rows:
        if row.succeeded is not None:
            succeeded.add_metric((row.name,), row.succeeded)
        promise.add_metric((row.name,), row.promise)
        late.add_metric((row.name,), row.late)
        waiting.add_metric((row.name,), row.waiting)
    return [succeeded, promise, late, waiting]


def _batches(rows: Iterable[sa.Row]) -> list[Metric]:
    runs = GaugeMetricFamily("yici_batches", "Batches by the state they are in.", labels=("source", "state"))
    seconds = GaugeMetricFamily("yici_batch_seconds", "Time spent in batches.", labels=("source", "state"))
    for row in rows:
        runs.add_metric((row.source, row.state), row.runs)
        seconds.add_metric((row.source, row.state), float(row.seconds or 0))
    return [runs, seconds]


def _rows(rows: Iterable[sa.Row]) -> Metric:
    counted = CounterMetricFamily(
        "yici_rows", "Rows of merged batches by what became of them.", labels=("source", "state")
    )
    for row in rows:
        for name in COUNTED:
            counted.add_metric((row.source, name), getattr(row, name))
    return counted


def _corrections(rows: Iterable[sa.Row]) -> list[Metric]:
    labels = ("peer", "side")
    waiting = GaugeMetricFamily("yici_corrections_open", "Corrections that wait for an answer.", labels=labels)
    overdue = GaugeMetricFamily("yici_corrections_overdue", "Corrections not answered in time.", labels=labels)
    for row in rows:
        waiting.add_metric((row.peer, row.side), row.open)
        overdue.add_metric((row.peer, row.side), row.overdue)
    return [waiting, overdue]


def _reconciled(rows: Iterable[sa.Row]) -> list[Metric]:
    labels = ("peer", "side")
    differing = GaugeMetricFamily("yici_reconciliation_differing", "Records that differed in the end.", labels=labels)
    at = GaugeMetricFamily("yici_reconciliation_timestamp_seconds", "End of the last reconciliation.", labels=labels)
    for row in rows:
        differing.add_metric((row.peer, row.side), row.differing)
        at.add_metric((row.peer, row.side), row.at)
    return [differing, at]


def _holdings(rows: Iterable[sa.Row]) -> Metric:
    counted = GaugeMetricFamily("yici_holdings", "Certificates held, by material type.", labels=("material",))
    for row in rows:
        counted.add_metric((row.material,), row.holdings)
    return counted


def _ledger(row: sa.Row) -> list[Metric]:
    waiting = GaugeMetricFamily(
        "yici_ledger_pending_records", "Records of the exchange without a place in the chain.", value=row.waiting
    )
    oldest = GaugeMetricFamily(
        "yici_ledger_pending_seconds", "How long the oldest of them has waited.", value=row.oldest
    )
    return [waiting, oldest]
