"""One lane: a warm process with a PostgreSQL and a network of its own that plays schedules, each from the same beginning.

The beginning is made once: three hubs that know each other, an agreement each way between any two, registers, and every index
read by the two others, through the same processes and links as in a schedule.
"""

from __future__ import annotations

import gc
import os
import shutil
import time
from pathlib import Path
from unittest import mock

import sqlalchemy as sa

from bench import lanes
from bench.exchange_faults import truth
from bench.exchange_faults.board import Board
from bench.exchange_faults.defects import DEFECTS
from bench.exchange_faults.hubs import Done, Hub, together
from bench.exchange_faults.network import Link, Network
from bench.exchange_faults.player import Player
from bench.exchange_faults.schedules import draw
from bench.exchange_faults.seams import PATIENT
from bench.exchange_faults.stage import Outcome
from bench.exchange_faults.truth import HUBS, Register
from bench.faults.store import Store

LINKS: tuple[Link, ...] = tuple((reader, giver) for reader in HUBS for giver in HUBS if reader != giver)
CONNECTIONS = "200"  # three listeners and whatever their hubs do meanwhile


class Lane:
    """``folder``: of this lane alone."""

    def __init__(self, folder: Path, seed: int, defect: str = "") -> None:
        self.folder, self.seed, self.defect = folder, seed, defect
        self.network: Network | None = None
        self.hubs: dict[str, Hub] = {}
        self.registers = {name: Register(name) for name in HUBS}
        self.agreed: dict[Link, str] = {}
        folder.mkdir(mode=0o711)
        self.store = Store(folder / "server", max_connections=CONNECTIONS)
        try:
            self.boards = {name: Board() for name in HUBS}
            self.network = Network(HUBS)
            self._begin()
            gc.collect()
            gc.freeze()  # forks share these pages
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        lanes.uninterrupted()
        for hub in self.hubs.values():
            hub.close()
        if self.network is not None:
            self.network.close()
        self.store.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def play(self, number: int) -> Outcome:
        """Play schedule ``number`` and account for it."""
        assert self.network is not None
        began, worked = time.monotonic(), sum(os.times()[:4])
        place = self.folder / "played"
        place.mkdir(mode=0o711)
        for name in HUBS:
            shutil.copytree(self.folder / "begun" / name, place / name)
            self.store.copy(f"played_{name}", f"begun_{name}")
            self.boards[name].clear()
        self.network.clear()
        self.hubs = self._hubs(place, "played", self.defect)
        try:
            outcome = Player(
                self.seed, draw(self.seed, number), self.hubs, self.network, self.registers, self.agreed
            ).play()
        finally:
            for hub in self.hubs.values():
                hub.close()
        for name in HUBS:
            self.store.drop(f"played_{name}")
        shutil.rmtree(place)
        outcome.seconds, outcome.worked = time.monotonic() - began, sum(os.times()[:4]) - worked
        return outcome

    def _hubs(self, place: Path, called: str, defect: str = "") -> dict[str, Hub]:
        assert self.network is not None
        defects = (DEFECTS[defect],) if defect else ()
        return {
            name: Hub(name, place, self.store.url(f"{called}_{name}"), self.network, self.boards[name], defects)
            for name in HUBS
        }

    # The beginning

    def _begin(self) -> None:
        place = self.folder / "begun"
        place.mkdir(mode=0o711)
        self.store.copy("base")
        self._migrate()
        for name in HUBS:
            self.store.copy(f"begun_{name}", "base")
        self.hubs = self._hubs(place, "begun")
        cards = {done.hub: done.value for done in self._all("settle")}
        for name, hub in self.hubs.items():
            self._good(hub.do("know", *(card for other, card in cards.items() if other != name)))
            engine = sa.create_engine(hub.url, poolclass=sa.NullPool)
            truth.write(engine, self.registers[name].first(), hub.secret("pseudonym.key"))
            hub.start(seconds=PATIENT)
        for hub in self.hubs.values():
            hub.ready()
        for reader, giver in LINKS:
            done = self._good(self.hubs[giver].do("propose", reader, "", ["index", "evidence"], seconds=PATIENT))
            named = done.value["agreement"].partition("/")[0]
            self._good(self.hubs[reader].do("act", "accept", named, seconds=PATIENT))
            self.agreed[reader, giver] = named
        self._warm()
        for shift in (0, 1):  # a hub reads one index at a time
            doings = [
                self.hubs[name].begin("read", HUBS[(HUBS.index(name) + 1 + shift) % 3], seconds=PATIENT)
                for name in HUBS
            ]
            for done in together(doings):
                self._good(done)
        for done in self._all("check"):
            if not done.value["ok"]:
                raise SystemExit(f"the beginning is wrong: {done.value}")
        for hub in self.hubs.values():
            hub.close()
            shutil.rmtree(hub.home / "work", ignore_errors=True)
            (hub.home / "work").mkdir(mode=0o700)

    def _all(self, what: str) -> list[Done]:
        return [self._good(done) for done in together([hub.begin(what, seconds=PATIENT) for hub in self.hubs.values()])]

    def _good(self, done: Done) -> Done:
        if not done.ok:
            raise SystemExit(f"the beginning cannot be made: {done} {done.text} {self.hubs[done.hub].log()}")
        return done

    def _migrate(self) -> None:
        """One store with all tables; each hub's is a copy that keeps a key of its own."""
        from hub import database

        variables = {"YICI_HOME": str(self.folder / "migrated"), "YICI_DATABASE_URL": self.store.url("base")}
        with mock.patch.dict(os.environ, variables):
            database.upgrade()
        engine = sa.create_engine(self.store.url("base"), poolclass=sa.NullPool)
        with engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM setting WHERE name = 'pseudonym-key'"))

    def _warm(self) -> None:
        """A read and a lookup in this process, as one of the hubs: what is imported and kept at the first use is there in every
        fork. Its store and home are left as they were."""
        from bench.exchange_faults import operations, seams
        from hub import database
        from hub.exchange import ledger_verify

        reader, giver = LINKS[0]
        hub = self.hubs[reader]
        store, home = f"warm_{reader}", self.folder / "warm"
        hub.kill()  # nobody is in what is copied
        self.store.copy(store, f"begun_{reader}")
        hub.start(seconds=PATIENT)
        hub.ready()
        shutil.copytree(hub.home, home)
        warm = {**hub.place.variables, "YICI_HOME": str(home), "YICI_DATABASE_URL": self.store.url(store)}
        with mock.patch.dict(os.environ, warm):
            seams._names(hub.place.ports)
            operations.read(hub.place, giver)
            operations.evidence(hub.place, giver, self.registers[giver].known[0].holder, "warm", PATIENT)
            operations.reconcile(hub.place, giver, True)
            ledger_verify.verify(ask=())  # its copy of the ledger is not to be heard of
            database.engine().dispose()
        self.store.drop(store)
        shutil.rmtree(home)
