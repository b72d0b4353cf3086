"""Inside a worker: the points it passes are counted, and at one of them the fault happens.

Points come from the outside of the pipeline: its stages, statements that go to PostgreSQL, files that get their name.
"""

# ruff: noqa: S311 - drawn from a seed so that it comes again, nothing is kept secret with it
from __future__ import annotations

import functools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.faults.schedules import Fault, Point
from bench.faults.store import Store

STAGES = ("fetch", "map_and_gate", "gate_batch", "merge", "publish")
OUTSIDE = "review"  # what a run or a decision does outside of the stages


class Probe:
    """``tell`` sends a message to the harness. ``since``: when the step began, seconds since 1970."""

    def __init__(self, home: Path, store: Store | None, fault: Fault | None, since: float, calls: dict[str, int],
                 tell: Callable[..., None]) -> None:  # fmt: skip
        self.home, self.store, self.fault, self.since, self.tell = home, store, fault, since, tell
        self.calls = Counter(calls)
        self.stage = f"{OUTSIDE}:0"
        self.passed: Counter[tuple[str, str]] = Counter()
        self.points: list[Point] = []
        self.armed = False

    def install(self) -> None:
        from hub import pipeline

        for name in STAGES:
            setattr(pipeline, name, self._stage(name, getattr(pipeline, name)))
        sa.event.listen(sa.Engine, "before_cursor_execute", self._statement)
        for name in ("rename", "replace", "link"):
            setattr(os, name, self._file(getattr(os, name)))

    def _stage(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def staged(*arguments: Any, **options: Any) -> Any:
            outer, self.stage = self.stage, f"{name}:{self.calls[name]}"
            self.calls[name] += 1
            self.tell(begin=self.stage)
            start = time.monotonic()
            self.point("boundary")
            try:
                done = function(*arguments, **options)
                self.point("boundary")
                return done
            finally:
                self.tell(end=self.stage, seconds=time.monotonic() - start)
                self.stage = outer

        return staged

    def _statement(self, *context: Any) -> None:
        self.point("statement")

    def _file(self, function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def named(*arguments: Any, **options: Any) -> None:
            self.point("file")
            function(*arguments, **options)
            self.point("file")

        return named

    def point(self, category: str) -> None:
        key = (self.stage, category)
        point = Point(self.stage, category, self.passed[key])
        self.passed[key] += 1
        self.points.append(point)
        if self.fault is not None and (self.armed or point == self.fault.point):
            self.armed = True
            fault, self.fault = self.fault, None
            if not self._happen(fault):
                self.fault = fault  # there was nothing to damage yet

    def _happen(self, fault: Fault) -> bool:
        match fault.kind:
            case "kill":
                self._die()
            case "stop-store":
                assert self.store is not None
                self.tell(stopped=fault.how)
                self.store.stop(fault.how)
            case "fill-disk":
                fill(self.home / fault.files, fault.room)
                self.tell(filled=fault.files)
            case "damage":
                return self._damage(fault)
        return True

    def _damage(self, fault: Fault) -> bool:
        if fault.files == "landing":
            landed = [path for path in (self.home / "landing" / "raw").rglob("*") if path.is_file()]
            found = [path for path in landed if path.stat().st_mtime >= self.since]
        else:
            found = [path for path in (self.home / "work").glob("*/*") if not path.name.startswith(".")]
        if not found:
            return False
        rng = random.Random(str(fault))
        path = rng.choice(sorted(found, key=lambda path: path.name))
        saved = path.read_bytes()
        self.tell(damaged=str(path.relative_to(self.home)), saved=saved.hex())
        damage(path, fault.how, rng)
        if fault.then_kill:
            self._die()
        return True

    def _die(self) -> None:
        self.tell(shot=True)  # perhaps a process that the pipeline forked, whose end only the pipeline sees
        os.kill(os.getpid(), signal.SIGKILL)


def damage(path: Path, how: str, rng: random.Random) -> None:
    """Cut off, one byte other than it was, or gone. In place: whoever has the file open sees it too."""
    content = path.read_bytes()
    if how == "delete" or not content:
        path.unlink()
    elif how == "truncate":
        os.truncate(path, rng.randrange(len(content)))
    else:
        place = rng.randrange(len(content))
        with open(path, "r+b") as file:
            file.seek(place)
            file.write(bytes([content[place] ^ (1 << rng.randrange(8))]))


FILLER = ".full"


def fill(folder: Path, room: int) -> None:
    """Take all of the disk but ``room`` bytes."""
    with open(folder / FILLER, "wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
        end = file.tell()
        file.truncate(max(0, end - room))
