"""How many requests a second each client may make of this process: a leaky bucket kept as one time per client (GCRA, ITU-T
I.371). A second's worth may come at once."""

from __future__ import annotations

import math
import threading
import time

from connectors.errors import UsageError

REMEMBERED = 10_000
TRIED = "yici.tried"  # in the scope of a lookup that went the short way first: whether it was counted there


class Rates:
    """When the bucket of each client will be empty. Bounded in memory: one that is empty need not be remembered."""

    def __init__(self) -> None:
        self._empty: dict[str, float] = {}
        self._lock = threading.Lock()

    def take(self, client: str, rate: int, requests: int = 1) -> None:
        """Count ``requests`` of a client that may make ``rate`` a second. UsageError ``rate-exceeded`` with the seconds to
        wait; then nothing was counted. A batch may begin while there is room, and is paid for afterwards."""
        now = time.monotonic()
        with self._lock:
            empty = max(self._empty.get(client, now), now)
            if (wait := empty - now - 1) > 0:
                raise UsageError("rate-exceeded", seconds=math.ceil(wait), rate=rate)
            if len(self._empty) >= REMEMBERED:
                self._empty = {name: at for name, at in self._empty.items() if at > now}
            self._empty[client] = empty + requests / rate
