"""Every way of interrupting ends in one exception, wherever the interpreter happened to be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType

import pytest

from hub import interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_interrupts(number: int) -> None:
    def before(number: int, frame: FrameType | None) -> None:
        """Not ignored, as under `nohup`."""

    own = signal.signal(number, before)
    try:
        with pytest.raises(KeyboardInterrupt), interrupts.interruptible():
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 1)
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, own)


def test_an_interrupt_that_a_destructor_swallows_comes_again() -> None:
    hook = sys.unraisablehook

    class Swallows:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                pass  # the handler runs here, where its exception goes nowhere
            reached.append("too far")

    reached: list[str] = []
    with pytest.raises(KeyboardInterrupt), interrupts.interruptible():
        Swallows()
        reached.append("after it")
        signal.sigtimedwait([], 10)
    assert reached == ["after it"]
    assert sys.unraisablehook is hook


def test_what_else_a_destructor_raises_is_reported_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("of its own")

    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: reported.append(dropped.exc_value))
    with interrupts.interruptible():
        Broken()
    assert [str(one) for one in reported] == ["of its own"]


def test_nothing_cuts_clearing_up_short() -> None:
    with interrupts.interruptible(), interrupts.undisturbed():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)


def test_nohup_keeps_its_meaning() -> None:
    script = "import os, signal\nfrom hub import interrupts\nwith interrupts.interruptible(): os.kill(os.getpid(), signal.SIGHUP)"
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.executable, sys.argv[1:])"
    )
    command = [sys.executable, "-c", ignoring, sys.executable, "-c", script]
    assert subprocess.run(command, timeout=60, check=False).returncode == 0
