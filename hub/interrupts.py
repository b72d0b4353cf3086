"""Ctrl-C, SIGTERM and SIGHUP as one exception that is not lost, and a stretch that none of them cuts short."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

AGAIN_SECONDS = 0.05
asked: set[str] = set()  # peers that this process asked to do something, whatever it heard of it


def said() -> str:
    """What is left behind, in one line."""
    if not asked:
        return "interrupted; nothing half-done is kept 已中断，未留下未完成的数据"
    named = ", ".join(sorted(asked))
    return (
        f"interrupted; {named} was asked and may have done it: see `yici ledger list` "
        f"已中断；已向 {named} 提出请求，对方可能已办理：见 `yici ledger list`"
    )


_leaving = threading.Event()


class Interrupted(KeyboardInterrupt):
    """A class of its own: Python ends with a signal instead of an exit code when a plain one passed through ``eval``."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP interrupt like Ctrl-C, also for a job in the background, so that one way of clearing up serves
    all three; ``nohup`` keeps its meaning. Python drops an exception raised in a destructor or a weak reference's callback,
    and a signal's handler may happen to run there: the signal is then sent again."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    def unraisable(dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, Interrupted):
            return hook(dropped)
        again.append(threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGTERM)))
        again[-1].daemon = True
        again[-1].start()

    again: list[threading.Timer] = []
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for one in again:  # what is over is interrupted no more
            one.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not cut clearing up short."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave() -> None:
    """All work of this process is done: from now on Ctrl-C raises nothing, and only ends what would be waited for at exit
    (:func:`hurried`)."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, lambda number, frame: _leaving.set())


def hurried() -> bool:
    """Whether somebody pressed Ctrl-C since :func:`leave`."""
    return _leaving.is_set()
