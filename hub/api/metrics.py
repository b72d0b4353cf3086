"""What is counted: requests by route, lookups by disposition and how long they took. Labels never come from a caller."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from hub import database, watching
from hub.answers import Answered

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The counters of one application, and what its store tells of runs and sources."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(watching.Store(database.engine))
        self.requests = Counter(
            "yici_http_requests",
            "HTTP requests by route and status.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.lookups = Counter("yici_lookups", "Lookups answered.", registry=self.registry)
        self.dispositions = Counter(
            "yici_dispositions", "Requirements decided, by disposition.", ("disposition",), registry=self.registry
        )
        self.seconds = Histogram(
            "yici_lookup_seconds",
            "Time of a lookup, answer stored.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
            registry=self.registry,
        )
        self.refused = Counter("yici_token_refusals", "Token requests refused.", registry=self.registry)

        self._decided: collections.Counter[tuple[str, ...]] = collections.Counter()  # not counted above yet
        self._lock = threading.Lock()

    def lookup(self, answered: Iterable[Answered], seconds: float) -> None:
        """Count one lookup, and what its requirements came to."""
        self.seconds.observe(seconds)
        self.decided(answered)

    def decided(self, answered: Iterable[Answered]) -> None:
        """Count what one subject's requirements came to."""
        self.lookups.inc()
        with self._lock:
            for one in answered:
                self._decided[one.dispositions] += 1

    def text(self) -> bytes:
        """The Prometheus exposition format."""
        with self._lock:
            decided, self._decided = self._decided, collections.Counter()
        for dispositions, count in decided.items():
            for disposition in dispositions:
                self.dispositions.labels(disposition).inc(count)
        return generate_latest(self.registry)
