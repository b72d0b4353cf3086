"""What the harness and the processes of one hub share while they run: the hub's clock, when its listener is to be killed, and
whether what it sends goes out twice.
"""

from __future__ import annotations

import datetime as dt
import mmap
import os
import signal
import threading
from typing import Any

# Where a listener may be killed: before one of its statements or commits, between the commit and the reply, while it chains.
POINTS = ("statement", "commit", "reply", "chain")
# How a message goes out: once; again over another connection when it has been answered; at the same time over another.
SENT = ("once", "again", "beside")
_SLOTS = ("seconds", "sent", *POINTS)
DATETIME = dt.datetime


class Board:
    """Shared memory: made before the processes are forked."""

    def __init__(self) -> None:
        self._slots = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")

    def clear(self) -> None:
        for place in range(len(_SLOTS)):
            self._slots[place] = 0

    @property
    def seconds(self) -> float:
        """By how much the hub's clock is ahead."""
        return self._slots[0]

    @seconds.setter
    def seconds(self, value: float) -> None:
        self._slots[0] = value

    @property
    def sent(self) -> str:
        return SENT[int(self._slots[1])]

    @sent.setter
    def sent(self, value: str) -> None:
        self._slots[1] = SENT.index(value)

    def arm(self, point: str, count: int) -> None:
        """The listener dies when it passes ``point`` the ``count``-th time from now."""
        self._slots[_SLOTS.index(point)] = count

    def armed(self) -> bool:
        """Whether a kill is still to come."""
        return any(self._slots[_SLOTS.index(point)] for point in POINTS)

    def disarm(self) -> None:
        for point in POINTS:
            self.arm(point, 0)

    def passed(self, point: str) -> None:
        """In the listener; other points mean nothing there."""
        if point not in POINTS:
            return
        place = _SLOTS.index(point)
        if self._slots[place] > 0:
            with _guard:
                self._slots[place] -= 1
                over = self._slots[place] == 0
            if over:
                die()


def die() -> None:
    """SIGKILL, to this process and all that it has forked."""
    os.killpg(0, signal.SIGKILL)


class _Shifted(type):
    """Whatever is a moment is one of the moved clock too."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, DATETIME)


def live_by(board: Board) -> None:
    """From now on this process lives by the hub's clock; the database has its own, as it would on another machine."""

    class Moved(DATETIME, metaclass=_Shifted):
        def __new__(cls, *given: Any, **more: Any) -> Any:
            return DATETIME(*given, **more)

        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return DATETIME.now(tz) + dt.timedelta(seconds=board.seconds)

    dt.datetime = Moved  # type: ignore[misc]


_guard = threading.Lock()
