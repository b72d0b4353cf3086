"""One step of a schedule with its faults: tried until it ends as it did undisturbed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import sqlalchemy as sa

from bench.faults import worker
from bench.faults.accounts import Account, Difference
from bench.faults.plans import Delivery, Step
from bench.faults.probe import FILLER
from bench.faults.schedules import Fault, Trace
from bench.faults.worker import Attempt, Place, Work

TRIES = 12
BUSY_SECONDS = 30.0
REPEATS = 4  # of one stage, before a person looks


@dataclass
class Outcome:
    """What became of one schedule. ``trouble``: what is wrong with it, in words; none when all is well."""

    number: int
    killed: bool = False
    replaced: bool = False
    difference: Difference = field(default_factory=Difference)
    trouble: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    landed: list[str] = field(default_factory=list)
    unrepaired: list[tuple[Path, bytes]] = field(default_factory=list)  # damaged, and not yet noticed
    unmerged: list[tuple[Path, bytes]] = field(default_factory=list)  # damaged, and nothing of it was merged
    seconds: float = 0.0


@dataclass
class Stage:
    """A store and a home as they are before a step, what the step did undisturbed, and the account after it."""

    step: Step
    work: Work
    trace: Trace
    ending: tuple[str, str]
    after: Account


class Player:
    """One step with its faults: tried until it ends as it did undisturbed."""

    def __init__(self, stage: Stage, place: Place, faults: list[Fault], outcome: Outcome, defect: str = "") -> None:
        self.stage, self.place, self.faults, self.outcome, self.defect = stage, place, faults, outcome, defect
        self.since = time.time() - 0.01
        self.patience = time.monotonic() + BUSY_SECONDS
        self.tried = 0
        self.groups: list[int] = []

    def close(self) -> None:
        """Nothing of the step lives on."""
        for group in self.groups:
            worker.end_group(group)

    def run(self, work: Work) -> None:
        """The whole step in one process, again and again."""
        while not self._ended(made := self._attempt(work)):
            if self.outcome.trouble:
                return
            if work[0] == "approve" and made.ending == "error" and (self.tried > 2 or made.code == "chunk-missing"):
                # Its chunks are damaged: it is fetched once more, halts once more, and is approved then.
                self._attempt(("run", work[1]))

    def tasks(self, source: str, run_id: str, rerun: bool) -> None:
        """A process a stage. One that was killed or may succeed later is repeated; else a person clears the run."""
        turn = 0
        while not self.outcome.trouble:
            turn += 1
            made = self._tasks(source, f"{run_id}-{turn}" if rerun else run_id)
            if made is None or self._ended(made):
                return

    def _tasks(self, source: str, run_id: str) -> Attempt | None:
        """The last attempt, of the stage that could not be brought to its end or of the last stage."""
        made = self._repeated(("fetch", source, run_id))
        if made.ending != "done":
            return made
        batch, chunks = made.value["batch"], made.value["chunks"]
        calls = {"fetch": 1, "map_and_gate": 0}
        for work in (*(("map_and_gate", batch, chunk) for chunk in chunks), ("gate_batch", batch), ("merge", batch), ("publish", batch)):  # fmt: skip
            made = self._repeated(work, calls)
            if made.ending != "done":
                return made
            calls[work[0]] = calls.get(work[0], 0) + 1
        return made

    def _repeated(self, work: Work, calls: dict[str, int] | None = None) -> Attempt:
        for _ in range(REPEATS):
            made = self._attempt(work, calls)
            if made.ending == "done" or (made.ending == "error" and made.kind not in ("RetriableError", "")):
                break
        return made

    def _attempt(self, work: Work, calls: dict[str, int] | None = None) -> Attempt:
        self.tried += 1
        fault = self._next(work, calls or {})
        watched = fault is not None and fault.kind in ("damage", "fill-disk") and work[0] in ("run", "merge")
        merged = self._merged() if watched else 0
        made = worker.attempt(work, self.place, fault, since=self.since, defect=self.defect, calls=calls)
        self.groups.append(made.group)
        if fault is not None and made.landed:
            self.faults.remove(fault)
            self.outcome.landed.append(str(fault))
            self.outcome.killed |= made.killed or bool(made.stopped)
        self._repair(made, fault)
        if made.ending == "error":
            if not made.clear:
                self.outcome.unclear.append(f"{fault.kind if fault else 'after'}: {made.text}")
            if watched and self._merged() != merged:
                self.outcome.trouble.append(f"merged, and said {made.code}: {made.text}")
        if made.ending == "hung":
            self.outcome.trouble.append(f"{work[0]} did not end within {worker.HUNG_SECONDS:.0f} s")
        if self.tried > TRIES and time.monotonic() > self.patience:
            self.outcome.trouble.append(f"{work[0]} does not recover: {made.ending} {made.code} {made.text}")
        elif self.tried > TRIES:
            time.sleep(0.2)
        return made

    def _next(self, work: Work, calls: dict[str, int]) -> Fault | None:
        """The first fault left; in a stage's own process only one of that stage."""
        if not self.faults:
            return None
        fault = self.faults[0]
        stage = fault.point.stage if fault.point else fault.stage
        if work[0] in ("run", "approve", "release", "reject") or work[0].startswith("identity-"):
            return fault
        name = f"{work[0]}:{calls.get(work[0], 0)}"
        if stage == name:
            return fault
        if stage.startswith("review") and work[0] == "merge":  # what a run does around its stages, tasks have not
            self.faults[0] = replace(fault, point=replace(fault.point, stage=name) if fault.point else None, stage=name)
            return self.faults[0]
        return None

    def _ended(self, made: Attempt) -> bool:
        return (made.ending, made.code) == self.stage.ending

    def _repair(self, made: Attempt, fault: Fault | None) -> None:
        if made.stopped and self.place.store is not None:
            self.place.store.revive(made.stopped)
        if made.filled:
            (self.place.home / made.filled / FILLER).unlink(missing_ok=True)
        for name, saved in made.damaged:
            path = self.place.home / name
            if not name.startswith("landing"):
                continue  # a chunk file is made again by whoever fetches again
            if made.ending == "done":
                self.outcome.unrepaired.append((path, saved))
            elif fault is not None and fault.refetch and isinstance(self.stage.step, Delivery):  # a decision comes once
                path.unlink(missing_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(saved)

    def _merged(self) -> int:
        engine = sa.create_engine(self.place.variables["YICI_DATABASE_URL"], poolclass=sa.NullPool)
        with engine.connect() as connection:
            return connection.scalar(sa.text("SELECT count(*) FROM batch WHERE state = 'merged'")) or 0
