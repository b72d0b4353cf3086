"""What Prometheus is told of the exchange: messages and refusals, how old what was read of an index is, peers that rest.

Messages are counted from the chain of the ledger, where each record stands once and none comes in between later: every scrape counts
on from the last, at most :data:`PIECE` records, so that it costs the same however long the ledger is. The counters begin, as those of
any process, when this one does, with the :data:`PIECE` records before. Labels are names that this hub knows: of what a stranger or a
partner made up stands ``-``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import sqlalchemy as sa
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from connectors.envelope import OK
from connectors.messages import sentences
from hub.exchange import kinds
from hub.exchange.caller import INTERRUPTED, SENT

PIECE = 100_000  # records
OTHER = "-"
# Bulk shares are no messages, and recorded all the same (docs/protocol/40-shares.md).
SHARES = frozenset(
    f"share.{name}"
    for name in ("list", "version", "metadata", "query", "changes", "file", "other", "profile", "revoke")
)
LABELS = ("peer", "direction", "kind", "outcome")


class Exchange:
    """Counts on from scrape to scrape; one for each collector, which sees to it that one scrape reads at a time."""

    def __init__(self) -> None:
        self._position: int | None = None
        self._counted: Counter[tuple[str, ...]] = Counter()

    def read(self, connection: sa.Connection) -> list[Metric]:
        """The figures as of now. An error of the store leaves the counters as they were."""
        self._count(connection)
        return [*self._messages(), *_indexes(connection), *_peers(connection)]

    def _count(self, connection: sa.Connection) -> None:
        head = int(connection.scalar(_HEAD) or 0)
        if self._position is None or head < self._position:  # another ledger: a store that was put back
            self._position, self._counted = max(0, head - PIECE), Counter()
        until = min(head, self._position + PIECE)
        if until > self._position:
            found = connection.execute(_MESSAGES, {"after": self._position, "until": until}).all()
            known, outcomes = kinds.register().keys() | SHARES, {OK, SENT, INTERRUPTED, *sentences()}
            for peer, direction, kind, outcome, count in found:
                labels = kind if kind in known else OTHER, outcome if outcome in outcomes else OTHER
                self._counted[(peer or OTHER, direction, *labels)] += count
            self._position = until

    def _messages(self) -> Iterator[Metric]:
        messages = CounterMetricFamily(
            "yici_exchange_messages", "Records of the exchange that have a place in the chain.", labels=LABELS
        )
        refusals = CounterMetricFamily(
            "yici_exchange_refusals", "Those of them that did not go well.", labels=("peer", "direction")
        )
        refused: Counter[tuple[str, ...]] = Counter()
        for labels, count in sorted(self._counted.items()):
            messages.add_metric(labels, count)
            refused[labels[:2]] += count if labels[3] not in (OK, SENT) else 0
        for names, count in refused.items():
            refusals.add_metric(names, count)
        yield from (messages, refusals)


def _indexes(connection: sa.Connection) -> Iterator[Metric]:
    age = GaugeMetricFamily(
        "yici_index_read_age_seconds",
        "Since the index under an agreement was last read: here to its end, or by the peer; since it began where it never was.",
        labels=("peer", "agreement", "side"),
    )
    for row in connection.execute(_INDEXES):
        age.add_metric((row.peer, str(row.id), row.side), row.age)
    yield age


def _peers(connection: sa.Connection) -> Iterator[Metric]:
    resting = GaugeMetricFamily(
        "yici_peer_resting", "1 while the peer is not called, since it failed too often.", labels=("peer",)
    )
    failures = GaugeMetricFamily("yici_peer_failures", "Calls that found nobody, in a row.", labels=("peer",))
    answered = GaugeMetricFamily("yici_peer_answered_timestamp_seconds", "When it last answered.", labels=("peer",))
    for row in connection.execute(_PEERS):
        resting.add_metric((row.name,), row.resting)
        failures.add_metric((row.name,), row.failures)
        if row.answered is not None:
            answered.add_metric((row.name,), row.answered)
    yield from (resting, failures, answered)


_HEAD = sa.text("SELECT position FROM exchange_head")
_MESSAGES = sa.text("""
SELECT p.name AS peer, r.direction, r.kind, r.outcome, count(*) AS count
FROM exchange_chain AS c JOIN exchange_record AS r ON r.id = c.record AND r.recorded_at = c.recorded_at
  LEFT JOIN exchange_peer AS p ON p.name = r.peer
WHERE c.position > :after AND c.position <= :until
GROUP BY p.name, r.direction, r.kind, r.outcome
""")
_INDEXES = sa.text("""
SELECT DISTINCT ON (a.id) a.id, a.peer, CASE WHEN a.provider THEN 'provider' ELSE 'receiver' END AS side,
  extract(epoch FROM clock_timestamp() - coalesce(
    CASE WHEN a.provider THEN (SELECT p.begun_at FROM index_position AS p WHERE p.agreement = a.id)
      ELSE (SELECT max(s.last_success_at) FROM source AS s WHERE s.cursor ->> 'agreement' = a.id::text) END,
    a.valid_from))::float8 AS age
FROM exchange_agreement AS a
WHERE a.state = 'in_force' AND a.valid_from <= clock_timestamp() AND a.valid_to > clock_timestamp()
  AND convert_from(a.document, 'UTF8')::jsonb -> 'modes' @> '["index"]'
ORDER BY a.id, a.version DESC
""")
_PEERS = sa.text("""
SELECT name, failures, coalesce(rests_until > clock_timestamp(), false)::int AS resting,
  extract(epoch FROM answered_at)::float8 AS answered
FROM exchange_peer WHERE removed_at IS NULL ORDER BY name
""")
