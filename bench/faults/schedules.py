"""Schedules: which faults come where. A schedule is a function of seed and number and of what the undisturbed run did."""

# ruff: noqa: S311 - drawn from a seed so that it comes again, nothing is kept secret with it
from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

PER_PLAN = 25  # schedules that share a plan and its undisturbed run
KINDS = {"kill": 62, "stop-store": 14, "fill-disk": 10, "damage": 14}
REBUILT = 0.1  # of all schedules
PLACED = ("boundary", "statement", "file")
STOPS = ("immediate", "kill", "backend")  # SIGQUIT to the postmaster, SIGKILL to all of it, SIGKILL to one backend


@dataclass(frozen=True)
class Point:
    """A place in a step that comes again at the same count: the ``index``-th ``category`` of a stage.

    ``category``, one of :data:`PLACED`: ``boundary`` (a stage begins or ends), ``statement`` (before one goes to PostgreSQL), ``file`` (before or
    after one gets its name). ``stage``: its name and which call of it, ``merge:0``.
    """

    stage: str
    category: str
    index: int


@dataclass(frozen=True)
class Trace:
    """What an undisturbed step did: the points it passed, and (stage, begin, seconds) of each stage."""

    points: tuple[Point, ...] = ()
    stages: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Fault:
    """One fault in the ``step``-th step of a schedule: at ``point``, or ``after`` seconds within ``stage``."""

    kind: str
    step: int = 0
    point: Point | None = None
    stage: str = ""
    after: float = 0.0
    # of stop-store: how; of fill-disk and damage: which files; of damage also what is done to them
    how: str = ""
    files: str = ""
    room: int = 0  # bytes left on a full disk
    then_kill: bool = False
    refetch: bool = False  # a damaged landed file is removed to be fetched again, else put right

    def __str__(self) -> str:
        where = f"{self.point.category} {self.point.index} of {self.point.stage}" if self.point else f"{self.after:.3f} s into {self.stage}"  # fmt: skip
        detail = " ".join(part for part in (self.how, self.files, "then kill" if self.then_kill else "") if part)
        return f"step {self.step}: {self.kind}{f' ({detail})' if detail else ''} at {where}"


@dataclass(frozen=True)
class Schedule:
    """Steps ``start`` to ``start + length`` of a plan, with faults. ``driver``: ``run`` (one process, as ``yici run``) or
    ``tasks`` (a process a stage, repeated stage by stage, as Airflow does)."""

    number: int
    start: int
    length: int
    driver: str
    faults: tuple[Fault, ...]
    mounted: str = ""  # the folder of the home that is a disk of its own
    workers: int = 1  # processes that map at a time
    rebuilt: bool = False  # and the store is made anew from the landing zone at the end
    rerun: bool = False  # tasks: a person starts a new run instead of clearing the old one


def draw(seed: int, number: int, steps: int, trace: Callable[[int], Trace], can_mount: bool) -> tuple[Schedule, bool]:
    """The schedule, and whether a full disk had to be replaced by a kill, for want of the right to mount one. ``trace``: of
    a step of the plan, by its place; ``steps`` there are."""
    rng = random.Random(f"schedule {seed} {number}")
    start = rng.randrange(steps)
    length = min(rng.choice((1, 1, 2, 3)), steps - start)
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    replaced = kind == "fill-disk" and not can_mount
    first = _fault(rng, "kill" if replaced else kind, 0, trace(start))
    faults = [first]
    while rng.random() < 0.35 and len(faults) < 4:
        step = rng.randrange(length)
        faults.append(_fault(rng, "kill", step, trace(start + step)))
    driver = "tasks" if rng.random() < 0.3 else "run"
    mounted = first.files if first.kind == "fill-disk" else ""
    schedule = Schedule(
        number, start, length, driver, tuple(faults), mounted, rng.choice((1, 1, 2)), rng.random() < 0.5
    )
    return schedule, replaced


def _fault(rng: random.Random, kind: str, step: int, trace: Trace) -> Fault:
    stages = [stage for stage, _ in trace.stages]
    match kind:
        case "stop-store":
            merging = [stage for stage in stages if stage.startswith("merge")]
            among = merging if merging and rng.random() < 0.8 else stages
            placed = _place(rng, rng.choice(("statement", "instant")), trace, among)
            return Fault(kind, step, *placed, how=rng.choice(STOPS))
        case "fill-disk":
            among = [stage for stage in stages if stage.startswith(("fetch", "map_and_gate", "review"))]
            placed = _place(rng, rng.choice(PLACED), trace, among)
            files, room = rng.choice(("work", "work", "landing")), rng.choice((0, 0, 4096, 8192))
            return Fault(kind, step, *placed, files=files, room=room)
        case "damage":
            files = rng.choice(("landing", "work"))
            fetching = [stage for stage in stages if stage.startswith("fetch")]
            placed = _place(rng, rng.choice(PLACED), trace, fetching if files == "landing" and fetching else stages)
            how, then_kill = rng.choice(("truncate", "flip", "delete")), rng.random() < 0.3
            return Fault(kind, step, *placed, how=how, files=files, then_kill=then_kill, refetch=rng.random() < 0.5)
    return Fault(kind, step, *_place(rng, rng.choice((*PLACED, "instant")), trace, stages))


def _place(rng: random.Random, where: str, trace: Trace, stages: list[str]) -> tuple[Point | None, str, float]:
    """A point of category ``where`` in one of ``stages``; an instant where there is none, or it is asked for."""
    points = [point for point in trace.points if point.category == where and point.stage in stages]
    if points:
        return rng.choice(points), "", 0.0
    lengths = {stage: seconds for stage, seconds in trace.stages if stage in stages} or dict(trace.stages)
    stage = rng.choices(list(lengths), [seconds + 0.01 for seconds in lengths.values()])[0]
    return None, stage, rng.random() * lengths[stage] * 0.9
