"""One lane: a warm process with a PostgreSQL of its own that plays schedules, plan by plan."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from bench import lanes
from bench.faults import accounts, plans, schedules, worker
from bench.faults.accounts import Account
from bench.faults.plans import Delivery, Step
from bench.faults.player import Outcome, Player, Stage
from bench.faults.schedules import Fault, Schedule
from bench.faults.store import Store
from bench.faults.worker import Place, Work

DISK = "24m"
BASE, PLAYED, REBUILT = "base", "played", "rebuilt"


class Lane:
    """``folder``: of this lane alone. ``keys``: the folder of keys that all homes share."""

    def __init__(self, folder: Path, keys: Path, seed: int, defect: str = "") -> None:
        self.folder, self.keys, self.seed, self.defect = folder, keys, seed, defect
        self.can_mount = os.geteuid() == 0 and shutil.which("mount") is not None
        self.plan = -1
        self.steps: list[Step] = []
        self.stages: list[Stage] = []
        folder.mkdir(mode=0o711)
        self.store = Store(folder / "server")
        try:
            self.store.copy(BASE)
            self._migrate()
            self._warm()
            gc.collect()
            gc.freeze()  # forks share these pages
        except BaseException:
            self.store.close()
            raise

    def close(self) -> None:
        lanes.uninterrupted()
        unmount(self.folder)
        self.store.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def play(self, number: int) -> Outcome:
        """Play schedule ``number`` and compare."""
        self._choose(number // schedules.PER_PLAN)
        schedule, replaced = schedules.draw(
            self.seed, number, len(self.steps), lambda step: self._stage(step).trace, self.can_mount
        )
        outcome = Outcome(number, replaced=replaced, faults=[str(fault) for fault in schedule.faults])
        for offset in range(schedule.length):
            self._stage(schedule.start + offset)
        began = time.monotonic()
        with self._home(schedule) as place:
            for offset in range(schedule.length):
                faults = [fault for fault in schedule.faults if fault.step == offset]
                self._step(self._stage(schedule.start + offset), place, schedule, offset, faults, outcome)
                if outcome.trouble:
                    break
            last = self._stage(schedule.start + schedule.length - 1)
            if not outcome.trouble:
                outcome.difference = accounts.compare(last.after, self._account(PLAYED))
                self._verify(place, outcome, rebuilt=schedule.rebuilt)
        self.store.drop(PLAYED)
        outcome.seconds = time.monotonic() - began
        return outcome

    # The undisturbed run

    def _choose(self, plan: int) -> None:
        """Another plan: nothing is known of it yet."""
        if plan == self.plan:
            return
        for number in range(len(self.stages) + 1):
            self.store.drop(f"before_{number}")
        for folder in self.folder.glob("home-*"):
            shutil.rmtree(folder)
        self.plan, self.steps, self.stages = plan, plans.draw(self.seed, plan), []
        self.store.copy("before_0", BASE)
        self._new_home(self.folder / "home-0")

    def _stage(self, place: int) -> Stage:
        """The step at ``place``, played undisturbed once, after all before it; the store before it is kept."""
        while len(self.stages) <= place:
            number = len(self.stages)
            home, name = self.folder / f"home-{number + 1}", f"before_{number + 1}"
            self.store.copy(name, f"before_{number}")
            shutil.copytree(self.folder / f"home-{number}", home)
            work = self._deliver(self.steps[number], home, name)
            made = worker.attempt(work, self._place(home, name))
            where = f"plan {self.plan} of seed {self.seed}, step {number} ({work[0]} {work[1]})"
            if made.ending not in ("done", "error") or not made.clear:
                raise SystemExit(f"{where} fails undisturbed: {made.ending} {made.code} {made.text}")
            account = self._account(name)
            wrong = accounts.compare(account, account)
            if wrong.lost or wrong.twice:
                raise SystemExit(f"{where} is wrong undisturbed: {wrong.lost} lost, {wrong.twice} twice")
            self.stages.append(Stage(self.steps[number], work, made.trace, (made.ending, made.code), account))
        return self.stages[place]

    def _deliver(self, step: Step, home: Path, name: str) -> Work:
        """Put the files where the source looks for them; the work that is to be done then."""
        if isinstance(step, Delivery):
            for file, content in step.files:
                path = home / "drop" / step.source / file
                path.write_bytes(content)
                os.utime(path, (plans.MODIFIED, plans.MODIFIED))
            return ("run", step.source)
        if step.kind == "approve":
            return (step.kind, step.source)
        with self._connected(name) as connection:
            if step.kind in _PAIRS:
                return (step.kind, step.source, *next(iter(connection.execute(sa.text(_PAIRS[step.kind]))), ()))
            row_key, digest = next(iter(connection.execute(sa.text(_DECIDABLE), {"source": step.source})), ("00" * 16, "00" * 16))  # fmt: skip
        return (step.kind, step.source, row_key, digest)

    def _account(self, name: str) -> Account:
        with self._connected(name) as connection:
            return accounts.take(connection)

    # A disturbed one

    def _step(self, stage: Stage, place: Place, schedule: Schedule, offset: int, faults: list[Fault], outcome: Outcome) -> None:  # fmt: skip
        if isinstance(stage.step, Delivery):
            self._deliver(stage.step, place.home, PLAYED)
        with contextlib.closing(Player(stage, place, faults, outcome, self.defect)) as player:
            if schedule.driver == "tasks" and isinstance(stage.step, Delivery):
                player.tasks(stage.step.source, f"faults-{offset}", schedule.rerun)
            else:
                player.run(stage.work)
        if stage.ending[0] == "error":  # nothing was merged of it: its bytes stand for nothing, noticed or not
            outcome.unmerged += outcome.unrepaired
            outcome.unrepaired.clear()

    def _verify(self, place: Place, outcome: Outcome, *, rebuilt: bool) -> None:
        """What `yici verify` finds, and whether `yici rebuild` comes to the same. What the pipeline had no reason to read
        again after it was damaged, `verify` must find."""
        for path, saved in outcome.unmerged:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(saved)
        damaged = [
            (path, saved) for path, saved in outcome.unrepaired if not path.exists() or path.read_bytes() != saved
        ]
        found = worker.attempt(("verify",), place)
        if found.ending != "done":
            outcome.trouble.append(f"verify: {found.ending} {found.code} {found.text}")
        elif damaged:
            if not found.value:
                names = ", ".join(str(path.relative_to(place.home)) for path, _ in damaged)
                outcome.trouble.append(f"damaged, and nobody noticed: {names}")
            for path, saved in damaged:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(saved)
        elif found.value:
            outcome.trouble.append(f"verify finds {', '.join(found.value)}")
        if rebuilt and not outcome.trouble:
            self.store.copy(REBUILT, BASE)
            made = worker.attempt(("rebuild", self.store.url(REBUILT)), place)
            if made.ending != "done":
                outcome.trouble.append(f"rebuild: {made.ending} {made.code} {made.text}")
            elif made.value:
                outcome.trouble.append(f"rebuilt, it differs in {', '.join(made.value)}")
            self.store.drop(REBUILT)

    @contextlib.contextmanager
    def _home(self, schedule: Schedule) -> Iterator[Place]:
        home = self.folder / "played"
        self.store.copy(PLAYED, f"before_{schedule.start}")
        try:
            if schedule.mounted:
                disk = home / schedule.mounted
                disk.mkdir(parents=True)
                command = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "yici-faults", str(disk)]
                subprocess.run(command, check=True)
            shutil.copytree(self.folder / f"home-{schedule.start}", home, dirs_exist_ok=True)
            yield self._place(home, PLAYED, workers=schedule.workers)
        finally:
            unmount(home)
            shutil.rmtree(home, ignore_errors=True)

    def _new_home(self, home: Path) -> None:
        home.mkdir(mode=0o711)
        shutil.copytree(self.keys, home / "keys")
        for name in ("work", "landing", *(f"drop/{source}" for source in plans.SOURCES)):
            (home / name).mkdir(mode=0o700, parents=True)

    def _place(self, home: Path, name: str, workers: int = 1) -> Place:
        variables = {"YICI_HOME": str(home), "YICI_DATABASE_URL": self.store.url(name), "YICI_LANG": "en",
                     "YICI_WORKERS": str(workers)}  # fmt: skip
        for source in plans.SOURCES:
            variables[f"YICI_CONN_{source.upper().replace('-', '_')}"] = (home / "drop" / source).as_uri()
        return Place(home, variables, self.store)

    @contextlib.contextmanager
    def _connected(self, name: str) -> Iterator[sa.Connection]:
        engine = sa.create_engine(self.store.url(name), poolclass=sa.NullPool)
        with engine.connect() as connection:
            yield connection

    def _migrate(self) -> None:
        from hub import database

        os.environ["YICI_HOME"] = str(self.keys.parent)
        os.environ["YICI_DATABASE_URL"] = self.store.url(BASE)
        database.upgrade(sa.create_engine(self.store.url(BASE), poolclass=sa.NullPool))

    def _warm(self) -> None:
        """One delivery of each kind in this process: what is imported and kept at the first use is there in every fork."""
        from hub import database, pipeline

        self.store.copy("warm", BASE)
        home = self.folder / "warm"
        self._new_home(home)
        place = self._place(home, "warm")
        before = dict(os.environ)
        os.environ.update(place.variables)
        try:
            for source in (plans.PARTIAL, plans.HOUSEHOLDS):
                self._deliver(plans.first(source), home, "warm")
                pipeline.run(source)
        finally:
            database.engine().dispose()
            os.environ.clear()
            os.environ.update(before)
            shutil.rmtree(home)
        self.store.drop("warm")


def unmount(folder: Path) -> None:
    """Every disk that was mounted below ``folder``."""
    mounts = [line.split(" ")[1] for line in Path("/proc/mounts").read_text().splitlines()] if Path("/proc/mounts").exists() else []  # fmt: skip
    for path in mounts:
        if path.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)


# Two of one cluster; two of a component that contradicts itself, else of different ones.
_PAIRS = {
    "identity-split": """
SELECT encode(cluster, 'hex'), encode(max(identifier), 'hex') FROM identity_member
WHERE state = 'joined' GROUP BY component, cluster HAVING count(*) > 1 ORDER BY 1 LIMIT 1""",
    "identity-merge": """
SELECT encode(a.identifier, 'hex'), encode(b.identifier, 'hex') FROM identity_member AS a
  JOIN identity_member AS b ON b.identifier > a.identifier AND (b.component, b.cluster) <> (a.component, a.cluster)
ORDER BY a.component <> b.component, 1, 2 LIMIT 1""",
}
_DECIDABLE = """
SELECT row_key::text, digest::text FROM quarantine
WHERE source = :source AND state = 'open' AND verdict = 'quarantined' AND NOT 'conflicting-duplicate' = ANY(reasons)
ORDER BY digest LIMIT 1
"""
