"""A sample of schedules under the real Airflow: unmodified DAGs, task processes killed from within, Airflow's own retries.

Each schedule has a source of its own, whose companies no other source knows; one stage of its DAG run is killed. All runs
go on side by side, since a retry waits half a minute. The store is then compared with one into which the same deliveries
went without Airflow and without faults.
"""

# ruff: noqa: S311 - drawn from a seed so that it comes again, nothing is kept secret with it
from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.faults import accounts, plans, worker
from bench.faults.player import Outcome
from bench.faults.probe import STAGES
from bench.faults.schedules import Fault, Point
from bench.faults.worker import Place
from hub.home import Home

HERE = Path(__file__).parent
SECONDS = 900.0
EXPECTED = "expected"


class Sample:
    """``numbers``: of the schedules, which are played all at once."""

    def __init__(self, root: Path, seed: int, numbers: range, say: Callable[[str], None]) -> None:
        self.root, self.seed, self.say = root, seed, say
        self.home = Home(root / "airflow")
        self.sources = {number: f"xx-airflow{number}" for number in numbers}
        self.faults = {number: _fault(seed, number) for number in numbers}
        folders: dict[str, tuple[str, dict[str, Any]]] = {name: (plans.LICENCES, {}) for name in self.sources.values()}
        plans.write_sources(root / "airflow-sources", folders)
        self.variables = {
            "YICI_SOURCES": str(root / "airflow-sources"),
            "YICI_HOME": str(self.home.path),
            "YICI_LANG": "en",
        }
        for name in self.sources.values():
            folder = root / "airflow-drop" / name
            folder.mkdir(parents=True)
            self.variables[f"YICI_CONN_{name.upper().replace('-', '_')}"] = folder.as_uri()

    def play(self) -> list[Outcome]:
        """The outcomes when all runs have ended. What differs is told with the first: all share one store."""
        from hub import embedded, services

        self.say(f"{len(self.sources)} schedules under Airflow: to start it takes a minute, a retry half a minute")
        before = dict(os.environ)
        os.environ.update(self.variables)
        try:
            self._prepare()
            states = self._run()
            difference = accounts.compare(self._account(EXPECTED), self._account("yici"))
        finally:
            services.stop_all(self.home)
            embedded.release(self.home)
            os.environ.clear()
            os.environ.update(before)
        outcomes = [self._outcome(number, states[name]) for number, name in self.sources.items()]
        outcomes[0].difference = difference
        return outcomes

    def _outcome(self, number: int, state: str) -> Outcome:
        name, fault = self.sources[number], self.faults[number]
        struck = self._mark(name).exists()
        outcome = Outcome(number, killed=struck, faults=[str(fault)], landed=[f"{fault} (Airflow)"] if struck else [])
        if state != "success":
            outcome.trouble.append(f"the DAG run of {name} ended as {state}")
        return outcome

    def _prepare(self) -> None:
        """Two stores; the first deliveries in both, the second ones in the one that is expected."""
        from hub import database, embedded

        self.home.create()
        shutil.copytree(self.root / "keyed" / "keys", self.home.keys, dirs_exist_ok=True)
        other = Home(self.root / "airflow-expected")
        other.create()
        shutil.copytree(self.home.keys, other.keys, dirs_exist_ok=True)
        database.upgrade(sa.create_engine(embedded.url(self.home), poolclass=sa.NullPool))  # makes the database too
        admin = sa.create_engine(
            embedded.url(self.home, "postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
        )
        with admin.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {EXPECTED} TEMPLATE yici"))
        expected = Place(other.path, self.variables | {"YICI_HOME": str(other.path), "YICI_DATABASE_URL": embedded.url(self.home, EXPECTED)})  # fmt: skip
        played = Place(self.home.path, self.variables | {"YICI_DATABASE_URL": embedded.url(self.home)})
        for number, name in self.sources.items():
            register = plans.Register(
                name, random.Random(f"delivery {self.seed} {number}"), origin=20_000 * (number + 1)
            )
            self._put(register.first())
            for place in (expected, played):
                self._done(worker.attempt(("run", name), place))
            self._put(register.update(wrong=3))
            self._done(worker.attempt(("run", name), expected))
        plugins = self.home.path / "airflow" / "plugins"
        plugins.mkdir(parents=True, mode=0o700)
        shutil.copy(HERE / "airflow_plugin.py", plugins / "faults_plugin.py")
        told = {self.sources[number]: _written(fault) for number, fault in self.faults.items()}
        (self.home.path / "faults.json").write_text(json.dumps(told))

    def _put(self, delivery: plans.Delivery) -> None:
        for file, content in delivery.files:
            path = self.root / "airflow-drop" / delivery.source / file
            path.write_bytes(content)
            os.utime(path, (plans.MODIFIED, plans.MODIFIED))

    def _done(self, made: worker.Attempt) -> None:
        if made.ending != "done":
            raise SystemExit(f"a delivery fails undisturbed: {made.ending} {made.code} {made.text}")

    def _run(self) -> dict[str, str]:
        """Each source's DAG, triggered and followed to its end."""
        from demo.airflow import Airflow
        from hub import services, stack

        with services.exclusive(self.home):
            started = stack.start(self.home)
        started.wait(self.say)
        user = stack.read_credentials(self.home)["airflow"]
        client = Airflow(started.airflow.address, user["username"], user["password"])
        names = list(self.sources.values())
        client.wait_for(names)
        runs = [client.trigger(name, f"faults-{self.seed}") for name in names]
        for name in names:
            client.unpause(name)
        deadline, shown = time.monotonic() + SECONDS, [""]

        def show(seen: list[Any]) -> None:
            text = f"Airflow: {sum(run.done for run in seen)} of {sum(run.total for run in seen)} tasks, {sum(self._mark(name).exists() for name in names)} killed"  # fmt: skip
            if text != shown[0]:
                self.say(text)
                shown[0] = text

        def check() -> None:
            if time.monotonic() > deadline:
                raise SystemExit(f"Airflow's runs did not end within {SECONDS:.0f} s: {[run.state for run in runs]}")

        client.follow(runs, show, check)
        return {run.dag_id: run.state for run in runs}

    def _account(self, name: str) -> accounts.Account:
        from hub import embedded

        engine = sa.create_engine(embedded.url(self.home, name), poolclass=sa.NullPool)
        with engine.connect() as connection:
            return accounts.take(connection)

    def _mark(self, source: str) -> Path:
        return self.home.path / f"struck-{source}"


def _fault(seed: int, number: int) -> Fault:
    """One kill, of each stage in turn: where it begins or ends, at a statement, or a moment later."""
    rng = random.Random(f"airflow {seed} {number}")
    stage = f"{STAGES[number % len(STAGES)]}:0"
    where = rng.choice(("boundary", "statement", "instant"))
    if where == "instant":
        return Fault("kill", stage=stage, after=rng.random() * 0.2)
    return Fault("kill", stage=stage, point=Point(stage, where, rng.randrange(2)))


def _written(fault: Fault) -> dict[str, object]:
    point = [fault.point.stage, fault.point.category, fault.point.index] if fault.point else None
    return {"stage": fault.stage, "point": point, "after": fault.after}
