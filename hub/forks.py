"""Work spread over forked processes: both cores map and check chunks, from modules that are loaded once.

Where processes cannot be forked, or there is nothing to spread, it is done in this one. A process does :data:`SPAN` items and
gives way to a fresh one: libraries keep a little of everything that went through them. A child that is orphaned ends with
the part it is at: what it leaves is a chunk file nobody reads.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from connectors.errors import FatalError, RetriableError

SPAN = 6


def workers() -> int:
    """How many processes are worth having: one per core that this process may use; ``YICI_WORKERS`` says otherwise."""
    if given := os.environ.get("YICI_WORKERS"):
        return max(1, int(given))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(function: Callable[[Any], object], items: Sequence[Any], done: Callable[[int], None]) -> None:
    """Call ``function`` for each of ``items``; ``done(n)`` after each, with how many are. The first error is raised here, the
    others stop. What the function returns is not kept."""
    count = min(workers(), len(items))
    if count < 2 or not sys.platform.startswith("linux"):
        for number, item in enumerate(items):
            function(item)
            done(number + 1)
        return
    context = multiprocessing.get_context("fork")
    span = min(SPAN, -(-len(items) // count))
    waiting = [items[start : start + span] for start in range(0, len(items), span)]
    running: dict[Connection, Any] = {}
    finished = 0
    try:
        while running or waiting:
            while waiting and len(running) < count:
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_part, args=(function, waiting.pop(0), theirs), daemon=True)
                process.start()
                theirs.close()
                running[ours] = process
            for channel in wait(list(running)):
                assert isinstance(channel, Connection)
                try:
                    said = channel.recv()
                except EOFError:
                    process = running.pop(channel)
                    process.join()
                    channel.close()
                    if process.exitcode:
                        raise RetriableError("worker-died", exit=process.exitcode) from None
                    continue
                if isinstance(said, BaseException):
                    raise said
                finished += 1
                done(finished)
    finally:
        for process in running.values():
            process.terminate()
        for channel, process in running.items():
            process.join()
            channel.close()


def _part(function: Callable[[Any], object], items: Sequence[Any], channel: Connection) -> None:
    for item in items:
        try:
            function(item)
        except BaseException as error:
            channel.send(_sendable(error))
            return
        channel.send(None)


def _sendable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return FatalError("worker-failed", kind=type(error).__name__, file=where.filename, line=where.lineno)
    return error
