"""Work in a process that dies at a chosen moment, forked from one that has no threads: a fork of a test's may not survive its own."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

_FROM = multiprocessing.get_context("forkserver")
_FROM.set_forkserver_preload(["hub.pipeline", "hub.matching_decisions", "hub.review", "great_expectations", "duckdb"])


def after(work: Callable[[], object], module: str, name: str) -> None:
    """Do ``work``, a function of a module or a partial one, in a process that dies right after ``module.name`` was called."""
    child = _FROM.Process(target=_dying, args=(dict(os.environ), work, module, name))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL, child.exitcode


def _dying(environment: dict[str, str], work: Callable[[], object], module: str, name: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    inside = importlib.import_module(module)
    real = getattr(inside, name)

    def dying(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(inside, name, dying)
    work()
