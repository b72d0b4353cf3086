"""What a schedule is played on: the hubs, the network, what is true, and what came of it so far."""

# ruff: noqa: S311 - drawn from a seed so that it comes again, nothing is kept secret with it
from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from bench.exchange_faults import seams, truth
from bench.exchange_faults.accounts import Account, Fetched, Refusal
from bench.exchange_faults.hubs import Done, Hub, together
from bench.exchange_faults.network import Link, Network
from bench.exchange_faults.schedules import Schedule
from bench.exchange_faults.truth import HUBS, Certificate, Register

PATIENCE = 40.0  # seconds for something to recover after the faults are over


@dataclass
class Outcome:
    """What became of one schedule. ``trouble``: what else is wrong with it; ``unclear``: errors that do not say what to do."""

    number: int
    account: Account = field(default_factory=Account)
    trouble: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    killed: int = 0
    messages: int = 0
    lies: int = 0
    seconds: float = 0.0
    worked: float = 0.0  # processor seconds of the hubs' processes and the harness, without PostgreSQL

    @property
    def failed(self) -> bool:
        found = self.account
        return bool(found.lost or found.twice or found.accepted or found.unrecorded or self.trouble)


class Stage:
    """``agreed``: by link (reader, giver) the agreement that is read under; ``registers``: what is true when it begins."""

    def __init__(
        self,
        seed: int,
        schedule: Schedule,
        hubs: Mapping[str, Hub],
        network: Network,
        registers: Mapping[str, Register],
        agreed: Mapping[Link, str],
    ) -> None:
        self.schedule, self.hubs, self.network = schedule, hubs, network
        self.registers = {name: Register(name, dict(one.known)) for name, one in registers.items()}
        self.agreed = agreed
        self.rng = random.Random(f"play {seed} {schedule.number}")
        self.outcome = Outcome(schedule.number)
        self.history: dict[str, list[Certificate]] = defaultdict(list)
        for register in self.registers.values():
            self._remember(register.known.values())
        self.asked: list[Fetched] = []
        self.refusals: list[Refusal] = []
        self.repeats: list[dict[str, Any]] = []
        self.corrections: dict[str, tuple[str, int]] = {}  # id -> owner, number
        self.fixed: dict[str, str] = {}
        self.side = ""  # the agreement whose life the schedule has
        self.acts = list(schedule.acts)
        self.cut = False  # whoever took the next of them was killed at it
        self.decided: dict[str, str] = {}
        self.ends: set[str] = set()
        self.rotated: set[str] = set()
        self.cases = 0

    def _calm(self) -> None:
        self.network.clear()
        for hub in self.hubs.values():
            hub.board.clear()

    def _change(self) -> None:
        """The registers of the givers change."""
        for giver in self.schedule.givers:
            self._write(giver, self.registers[giver].change(self.rng))

    def _write(self, giver: str, made: list[Certificate]) -> None:
        hub = self.hubs[giver]
        engine = sa.create_engine(hub.url, poolclass=sa.NullPool)
        truth.write(engine, made, hub.secret("pseudonym.key"))
        self._remember(made)

    def _remember(self, made: Any) -> None:
        for one in made:
            self.history[one.holder].append(one)

    def _restart(self) -> None:
        for hub in self.hubs.values():
            hub.close()
            hub.lies = ()
            hub.start(seconds=seams.PATIENT)
        for hub in self.hubs.values():
            hub.ready()

    def _go_on(self) -> None:
        """Nothing is suspended any more that is read under."""
        if self.schedule.pauses:
            reader, giver = self.schedule.links[0]
            done = self._until("act", reader, "resume", self.agreed[reader, giver])
            if not done.ok and done.code != "agreement-not-suspended":
                self.outcome.trouble.append(str(done))

    def _settled(self) -> None:
        """All that was not told is."""
        deadline = time.monotonic() + PATIENCE
        waiting = set(HUBS)
        while waiting:
            done = together([self.hubs[name].begin("tell", seconds=seams.PATIENT) for name in sorted(waiting)])
            for each in done:
                if not each.clear:
                    self.outcome.unclear.append(f"tell: {each.text}")
            left = {each.hub: each.value if each.ok else [str(each)] for each in done if not each.ok or each.value}
            waiting = set(left)
            if waiting and time.monotonic() > deadline:
                self.outcome.trouble += [f"{name} cannot tell: {'; '.join(said)}" for name, said in left.items()]
                return
            if waiting:
                time.sleep(0.1)

    def _until(self, what: str, name: str, *given: Any, only: str = "") -> Done:
        """Do it until it is done, or is refused for good; ``only``: the one error after which it is tried again."""
        deadline = time.monotonic() + PATIENCE
        while True:
            done = self.hubs[name].do(what, *given, seconds=seams.PATIENT)
            if not done.passing or only not in ("", done.code) or time.monotonic() > deadline:
                return done
            time.sleep(0.1)
