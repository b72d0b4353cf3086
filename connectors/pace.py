"""So many requests a second and no more: each waits until its turn has come."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Turns at most ``per_second`` a second apart evenly; a time without requests is not made up for later.

    One thread uses one :class:`Pace`. ``clock`` gives seconds, ``sleep`` takes them.
    """

    def __init__(
        self,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._apart = 1 / per_second
        self._clock, self._sleep, self._next = clock, sleep, 0.0

    def wait(self) -> None:
        """Returns when the next request may go out: at once if the last one is long enough ago."""
        now = self._clock()
        turn = max(now, self._next)
        self._next = turn + self._apart
        if turn > now:
            self._sleep(turn - now)
