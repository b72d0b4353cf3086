"""What is counted: requests by route, lookups by disposition and how long they took. Labels never come from a caller."""

from __future__ import annotations

import bisect
import collections
import itertools
import threading
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import HistogramMetricFamily

from hub import database, watching
from hub.answers import Answered

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Times:
    """A histogram of seconds, for what happens thousands of times a second."""

    BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

    def __init__(self, name: str, help_: str) -> None:
        self.name, self.help = name, help_
        self._counts = [0] * (len(self.BOUNDS) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, seconds: float) -> None:
        place = bisect.bisect_left(self.BOUNDS, seconds)
        with self._lock:
            self._counts[place] += 1
            self._sum += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        with self._lock:
            counts, total = itertools.accumulate(self._counts), self._sum
            buckets = [(str(bound), count) for bound, count in zip((*self.BOUNDS, "+Inf"), counts, strict=True)]
        yield HistogramMetricFamily(self.name, self.help, buckets=buckets, sum_value=total)


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
        self.seconds = Times("yici_lookup_seconds", "Time of a lookup, answer stored.")
        self.registry.register(self.seconds)
        self.refused = Counter("yici_token_refusals", "Token requests refused.", registry=self.registry)

        # Not counted above yet: a counter of prometheus_client takes as long as a decision.
        self._decided: collections.Counter[tuple[str, ...]] = collections.Counter()
        self._answered = 0
        self._lock = threading.Lock()

    def lookup(self, answered: Iterable[Answered], seconds: float) -> None:
        """Count one lookup, and what its requirements came to."""
        self.seconds.observe(seconds)
        self.decided(answered)

    def decided(self, answered: Iterable[Answered]) -> None:
        """Count what one subject's requirements came to."""
        with self._lock:
            self._answered += 1
            for one in answered:
                self._decided[one.dispositions] += 1

    def text(self) -> bytes:
        """The Prometheus exposition format."""
        with self._lock:
            decided, self._decided = self._decided, collections.Counter()
            answered, self._answered = self._answered, 0
        self.lookups.inc(answered)
        for dispositions, count in decided.items():
            for disposition in dispositions:
                self.dispositions.labels(disposition).inc(count)
        return generate_latest(self.registry)
