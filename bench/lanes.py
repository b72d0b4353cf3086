"""Schedules in lanes: each lane a process forked from a warm one, whose outcomes come back as they are played.

Nothing of a lane outlives the first process, however that ends.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import pickle
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Any, Protocol

DEATH_SIGNAL = 1  # prctl(PR_SET_PDEATHSIG)
AGAIN = 3.0  # seconds after which a lane is told once more to end: where it was in a callback, Python forgot it


class Ended(KeyboardInterrupt):
    """SIGTERM, cleared up after like Ctrl-C."""


class Lane(Protocol):
    """Plays schedules one after the other; ``close`` leaves nothing, and lets nothing interrupt it (:func:`uninterrupted`)."""

    def play(self, number: int) -> Any: ...

    def close(self) -> None: ...


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def shared_out(numbers: Sequence[int], lanes: int, together: int) -> list[list[int]]:
    """``numbers`` for so many lanes, in runs of ``together`` that one lane plays; none is empty."""
    runs = [numbers[start : start + together] for start in range(0, len(numbers), together)]
    return [[number for run in share for number in run] for place in range(lanes) if (share := runs[place::lanes])]


class Lanes:
    """The lanes of one run. ``make``: the lane of a place, made in its own process."""

    def __init__(self, make: Callable[[int], Lane]) -> None:
        self.make = make
        self.children: dict[int, int] = {}  # what can be read -> process

    def start(self, shares: Iterable[Iterable[int]], deadline: float | None = None) -> None:
        """Each lane plays its share; none begins after ``deadline`` (monotonic)."""
        for place, share in enumerate(shares):
            reading, writing = os.pipe()
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                os.close(reading)
                self._lane(place, share, deadline, writing, parent)
            os.close(writing)
            self.children[reading] = pid

    def collect(self, add: Callable[[Any], None]) -> bool:
        """Outcomes of all lanes as they come. Whether a lane failed."""
        rest: dict[int, bytes] = dict.fromkeys(self.children, b"")
        failed = False
        while rest:
            ready, _, _ = select.select(list(rest), [], [])
            for reading in ready:
                data = os.read(reading, 1 << 16)
                if not data:
                    del rest[reading]
                    _, status = os.waitpid(self.children[reading], 0)
                    failed |= status != 0
                    continue
                *lines, rest[reading] = (rest[reading] + data).split(b"\n")
                for line in lines:
                    add(pickle.loads(bytes.fromhex(line.decode())))  # noqa: S301 - of our own fork
        return failed

    def end(self) -> None:
        """Tell all lanes to end, and wait until they have."""
        rest = {pid for pid in self.children.values() if not _gone(pid)}
        while rest:
            for pid in rest:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            until = time.monotonic() + AGAIN
            while rest and time.monotonic() < until:
                rest = {pid for pid in rest if not _gone(pid)}
                time.sleep(0.02)

    def _lane(self, place: int, share: Iterable[int], deadline: float | None, writing: int, parent: int) -> None:
        """In the child: never returns. Outcomes go out as pickles, one a line in hex."""
        code = 1
        try:
            os.setpgid(0, 0)  # Ctrl-C goes to the first process, which tells the lanes
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, _leave)
            ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGTERM)  # should the first process be killed
            if os.getppid() != parent:
                raise Ended
            with contextlib.closing(self.make(place)) as lane:
                for number in share:
                    if deadline is not None and time.monotonic() > deadline:
                        break
                    os.write(writing, pickle.dumps(lane.play(number)).hex().encode() + b"\n")
                uninterrupted()
            code = 0
        except Ended:
            code = 0
        except SystemExit as error:
            say(str(error))
        except BaseException:
            traceback.print_exc()
        os._exit(code)


def child(death: signal.Signals) -> None:
    """In a process that a lane has forked: a group of its own, ended with the lane."""
    parent = os.getppid()
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(DEATH_SIGNAL, death)
    if os.getppid() != parent:
        os._exit(1)


def uninterrupted() -> None:
    """From here on SIGTERM is ignored: clearing up is not cut short."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _gone(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _leave(number: int, frame: FrameType | None) -> None:
    raise Ended


def _end(number: int, frame: FrameType | None) -> None:
    uninterrupted()
    raise Ended


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM is cleared up after like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def ended(run: Callable[[argparse.Namespace], int], arguments: argparse.ArgumentParser, interrupted: str) -> int:
    """The exit code of ``run`` with the command line; ``interrupted`` is said when a person stopped it."""
    with interruptible():
        try:
            return run(arguments.parse_args())
        except KeyboardInterrupt:
            say(f"\n{interrupted}")
            return 130
