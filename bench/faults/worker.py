"""One attempt: a process forked from this warm one does a piece of the pipeline's work, and may be killed at it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.faults import defects
from bench.faults.probe import OUTSIDE, Probe
from bench.faults.schedules import Fault, Point, Trace
from bench.faults.store import Store

HUNG_SECONDS = 120.0
Work = tuple[Any, ...]


@dataclass(frozen=True)
class Place:
    """A home and its database, as the worker's environment names them."""

    home: Path
    variables: Mapping[str, str]
    store: Store | None = None


@dataclass
class Attempt:
    """How it went. ``ending``: done, error, killed or hung. ``clear``: the error is one that tells what to do."""

    ending: str = "killed"
    value: Any = None
    code: str = ""
    kind: str = ""
    clear: bool = True
    text: str = ""
    landed: bool = False  # the fault happened
    killed: bool = False  # a process of the pipeline was killed before it had finished
    group: int = 0  # of processes that it may have left behind
    stopped: str = ""
    damaged: list[tuple[str, bytes]] = field(default_factory=list)
    filled: str = ""
    trace: Trace = field(default_factory=Trace)


def attempt(work: Work, place: Place, fault: Fault | None = None, *, since: float = 0.0, defect: str = "",
            calls: dict[str, int] | None = None) -> Attempt:  # fmt: skip
    """Do ``work`` in a fork. ``calls``: how often each stage was called before in this step."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(work, place, fault, since, defect, calls or {}, writing)
    os.close(writing)
    ended = os.pidfd_open(child)
    try:
        made = _Following(child, place.store, fault).follow(reading, ended)
    except BaseException:  # the harness is interrupted
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        end_group(child)
        raise
    finally:
        os.close(reading)
        os.close(ended)
    made.group = child
    return made


def end_group(group: int) -> None:
    """End what an attempt has forked and left behind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


class _Following:
    """Reads what a worker tells until it has ended, and kills it when a fault of an instant is due."""

    def __init__(self, child: int, store: Store | None, fault: Fault | None) -> None:
        self.child, self.store, self.fault = child, store, fault
        self.made = Attempt()
        self.due: float | None = None
        self.begun: list[str] = []
        self.seconds: dict[str, float] = {}
        self.rest = b""

    def follow(self, reading: int, ended: int) -> Attempt:
        deadline = time.monotonic() + HUNG_SECONDS
        os.set_blocking(reading, False)
        while True:
            wait = (deadline if self.due is None else min(self.due, deadline)) - time.monotonic()
            ready, _, _ = select.select([reading, ended], [], [], max(0.0, wait))
            over = ended in ready
            if reading in ready or over:
                open_ = self._read(reading)
                if not open_ and not over:
                    select.select([ended], [], [], max(0.0, deadline - time.monotonic()))
                    over = True
            if over:
                break
            if time.monotonic() >= deadline:
                self.made.ending = "hung"
                os.kill(self.child, signal.SIGKILL)
                break
            if self.due is not None and time.monotonic() >= self.due:
                self._strike()
        _, status = os.waitpid(self.child, 0)
        if self.made.ending == "killed":
            if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
                raise RuntimeError(f"a worker ended by itself, with status {status}")
            self.made.landed = self.made.killed = True
        return self.made

    def _strike(self) -> None:
        """The instant of the fault has come; nothing happens when the worker has told its end already."""
        self.due = None
        assert self.fault is not None
        if self.made.ending != "killed":
            return
        if self.fault.kind == "stop-store" and self.store is not None:
            self.store.stop(self.fault.how)
            self.made.stopped, self.made.landed = self.fault.how, True
        else:
            os.kill(self.child, signal.SIGKILL)

    def _read(self, reading: int) -> bool:
        """All that is there to be read; whether more may come."""
        while True:
            try:
                data = os.read(reading, 1 << 16)
            except BlockingIOError:
                return True
            if not data:
                return False
            *lines, self.rest = (self.rest + data).split(b"\n")
            for line in lines:
                self._hear(json.loads(line))

    def _hear(self, told: dict[str, Any]) -> None:
        made = self.made
        match told:
            case {"begin": stage}:
                self.begun.append(stage)
                if self.fault and self.fault.point is None and self.fault.stage == stage and self.due is None:
                    self.due = time.monotonic() + self.fault.after
            case {"end": stage, "seconds": seconds}:
                self.seconds[stage] = seconds
            case {"shot": _}:
                made.landed = made.killed = True
            case {"stopped": how}:
                made.stopped, made.landed = how, True
            case {"filled": folder}:
                made.filled, made.landed = folder, True
            case {"damaged": name, "saved": saved}:
                made.damaged.append((name, bytes.fromhex(saved)))
                made.landed = True
            case {"points": points}:
                stages = tuple((stage, self.seconds.get(stage, 0.0)) for stage in dict.fromkeys(self.begun))
                made.trace = Trace(tuple(Point(*point) for point in points), stages)
            case _:
                for name, value in told.items():
                    setattr(made, name, value)


def _work(work: Work, place: Place, fault: Fault | None, since: float, defect: str, calls: dict[str, int], pipe: int) -> None:  # fmt: skip
    """In the child: never returns."""
    try:
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.environ.update(place.variables)

        def tell(**message: Any) -> None:
            os.write(pipe, json.dumps(message, default=str).encode() + b"\n")

        if defect:
            defects.DEFECTS[defect]()
        probe = Probe(place.home, place.store, fault, since, calls, tell)
        probe.install()
        tell(begin=f"{OUTSIDE}:0")
        start = time.monotonic()
        try:
            value = perform(*work)
            tell(ending="done", value=value)
        except Exception as error:
            _tell_error(error, tell)
        tell(end=f"{OUTSIDE}:0", seconds=time.monotonic() - start)
        tell(points=[[point.stage, point.category, point.index] for point in probe.points])
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _tell_error(error: Exception, tell: Any) -> None:
    from connectors.errors import YiciError

    if isinstance(error, YiciError):
        tell(ending="error", code=error.code, kind=type(error).__name__, text=str(error))
    else:
        frames = traceback.extract_tb(error.__traceback__)
        last = next((frame for frame in reversed(frames) if "site-packages" not in frame.filename), frames[-1])
        where = f"{Path(last.filename).name}:{last.lineno}"
        tell(ending="error", code=type(error).__name__, kind="", clear=False, text=f"{type(error).__name__} in {where}: {str(error)[:200]}")  # fmt: skip


def perform(what: str, *given: Any) -> Any:
    """``run SOURCE`` and the stages by name with their references; a decision about what is open of a source, or about who is
    whom; ``verify``:
    what it finds; ``rebuild URL``: the parts of the state that came out otherwise."""
    from hub import failures, pipeline, rebuild, review, verify

    match what:
        case "verify":
            return [f"{one.found} × {one.code}" for one in verify.verify(read_bytes=True).differences]
        case "rebuild":
            return rebuild.rebuild(given[0]).other
        case "run":
            return pipeline.run(given[0])["batch"]
        case "fetch":
            return pipeline.fetch(given[0], run_id=given[1])
        case "approve":
            batch = failures.named(_halted)(given[0])
            return review.approve(batch, actor="faults") and batch if batch else None
        case "release" | "reject":
            entry = failures.named(_entry)(*given)
            if entry is not None:
                getattr(review, what)([entry], actor="faults")
            return entry
        case "identity-merge" | "identity-split":
            if keys := given[1:]:
                failures.named(_decide)(what.removeprefix("identity-"), keys)
            return list(keys)
    return getattr(pipeline, what)(*given)


def _decide(what: str, keys: Sequence[str]) -> None:
    """Merge or split two identifiers; nothing when that was in force before the process was killed."""
    import sqlalchemy as sa

    from hub import database, identity_decisions

    with database.engine().begin() as connection:
        found = sa.text(
            """SELECT count(*) = 2 AND count(DISTINCT (component, cluster)) = 1 AND bool_and(state = 'joined')
            FROM identity_member WHERE identifier = ANY(:keys)"""
        )
        if connection.scalar(found, {"keys": [bytes.fromhex(key) for key in keys]}) != (what == "merge"):
            getattr(identity_decisions, what)(connection, [f"key:{key}" for key in keys], actor="faults")


def _halted(source: str) -> str | None:
    """The batch that waits for a word; none when it got through before its process was killed."""
    import sqlalchemy as sa

    from hub import database

    with database.engine().connect() as connection:
        found = sa.text(
            """SELECT id FROM batch WHERE source = :source AND state IN ('halted', 'approved')
            ORDER BY started_at DESC LIMIT 1"""
        )
        return connection.scalar(found, {"source": source})


def _entry(source: str, row_key: str, digest: str) -> int | None:
    """The open entry for this version of a row; none when it was decided before the process was killed."""
    import sqlalchemy as sa

    from hub import database

    with database.engine().connect() as connection:
        found = sa.text(
            """SELECT id FROM quarantine WHERE source = :source AND state = 'open' AND row_key = :row_key
            AND digest = :digest"""
        )
        return connection.scalar(found, {"source": source, "row_key": row_key, "digest": digest})
