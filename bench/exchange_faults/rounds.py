"""Rounds of a schedule: what hubs do while things happen to them, and what came of each."""

from __future__ import annotations

from typing import Any

from bench.exchange_faults import accounts, seams, truth
from bench.exchange_faults.accounts import Fetched, Refusal
from bench.exchange_faults.hubs import Done, together
from bench.exchange_faults.schedules import Round, Work
from bench.exchange_faults.seams import Fuse
from bench.exchange_faults.stage import Stage
from bench.exchange_faults.truth import HUBS

ALREADY = {"accept": "agreement-accepted", "resume": "agreement-not-suspended"}  # what was done before it was cut off
STATES = {"accept": "in_force", "decline": "declined", "suspend": "suspended", "resume": "in_force"}


class Rounds(Stage):
    """While there are faults."""

    def _round(self, number: int, one: Round) -> None:
        self._calm()
        for hub in self.hubs.values():
            if not hub.alive() and not (number and self.schedule.rounds[number - 1].left_dead):
                hub.start()
                hub.ready()
        if self.schedule.pauses and number < 2:
            self._pause(number)
        for link, weather in one.weather:
            self.network.set(link, weather, f"{self.schedule.number} {number} {link}")
            self.outcome.faults[weather.kind] += 1
        for name, seconds in one.skews:
            self.hubs[name].board.seconds = seconds
            self.outcome.faults["skew"] += 1
        for name, how in one.sent:
            self.hubs[name].board.sent = how
            self.outcome.faults["twice"] += 1
        for name, point, count in one.kills:
            self.hubs[name].board.arm(point, count)
        self.outcome.happened += [f"round {number}: {text}" for text in (*map(str, one.works), *one.happens)]
        if not one.late:
            self._change()
        doings = [self._begin(work) for work in one.works]
        doings += [self.hubs[name].begin("rotate") for name in one.rotates]
        if one.late:
            self._change()
        done = together([doing for doing in doings if doing is not None])
        for each in done:
            self._note(each)
        for name in one.rotates:
            self.rotated.add(name)
            self.outcome.faults["rotate"] += 1
        for hub in self.hubs.values():
            if hub.listener is not None and not hub.alive():
                self.outcome.killed += 1
                self.outcome.faults["kill-listener"] += 1

    def _begin(self, work: Work) -> Any:
        fuse = Fuse(*work.fuse) if work.fuse else None
        match work.what:
            case "evidence":
                return self._ask(work, fuse)
            case "correct":
                return self._file(work, fuse)
            case "act":
                return self._act(fuse)
            case "reconcile":
                return self.hubs[work.hub].begin("reconcile", work.peer, self.rng.random() < 0.5, fuse=fuse)
            case "renew":
                return self.hubs[work.hub].begin("renew", self.agreed[work.peer, work.hub], fuse=fuse)
            case "repeat":
                return self.hubs[work.hub].begin("repeat", str(self.rng.random()), self.rng.randint(2, 6), fuse=fuse)
        return self.hubs[work.hub].begin(work.what, work.peer, fuse=fuse)

    def _ask(self, work: Work, fuse: Fuse | None) -> Any:
        """Evidence of a certificate, under a case of its own."""
        self.cases += 1
        case = f"rig-{self.schedule.number}-{self.cases}"
        good = [one for one in self.registers[work.peer].known.values() if one.announced and one.status == "in_force"]
        holder = self.rng.choice(good).holder
        return self.hubs[work.hub].begin("evidence", work.peer, holder, case, seams.SECONDS, fuse=fuse)

    def _file(self, work: Work, fuse: Fuse | None) -> Any:
        known = self.registers[work.peer].known
        number = self.rng.choice([one.number for one in known.values() if one.announced])
        epoch, agreed = accounts.agreed_key(self.hubs[work.peer], self.agreed[work.hub, work.peer])
        handle = truth.handle(truth.epoch_key(agreed, epoch), known[number])
        return self.hubs[work.hub].begin("correct", work.peer, handle, f"rig {number}", fuse=fuse)

    def _act(self, fuse: Fuse | None) -> Any:
        """The next step of the agreement's life."""
        if not self.acts:
            return None
        kind, who = self.acts[0]
        if kind == "propose":
            other = next((name for _, name in self.acts if name != who), None) or self._other(who)
            return self.hubs[who].begin("propose", other, "", ["share"], fuse=fuse)
        return self.hubs[who].begin("act", kind, self.side, fuse=fuse) if self.side else None

    def _other(self, who: str) -> str:
        return self.rng.choice([name for name in HUBS if name != who])

    def _pause(self, number: int) -> None:
        """What is read under is suspended in the first round, and goes on in the next or afterwards."""
        reader, giver = self.schedule.links[0]
        kind = "suspend" if number == 0 else "resume"
        done = self.hubs[reader].do("act", kind, self.agreed[reader, giver])
        self._note(done)
        self.outcome.happened.append(f"round {number}: {done}")

    def _note(self, done: Done) -> None:
        outcome = self.outcome
        if done.ending == "killed":
            outcome.killed += 1
            outcome.faults["kill-work"] += 1
        elif done.ending == "hung":
            outcome.trouble.append(f"{done} within {seams.SECONDS} s a question")
        elif done.ending == "error":
            outcome.codes[done.told or done.code] += 1
            if not done.clear:
                outcome.unclear.append(f"{done.what}: {done.text}")
        match done.what:
            case "evidence":
                self._noted_evidence(done)
            case "correct":
                self._noted_filing(done)
            case "propose" | "act":
                self._noted_act(done)
            case "repeat" if done.ok:
                self.outcome.faults["repeat"] += len(done.value)
                self._noted_repeats(done.value)

    def _noted_evidence(self, done: Done) -> None:
        owner, holder, case, _ = done.given
        value = done.value if done.ok and done.value["held"] else {}
        self.asked.append(Fetched(case, done.hub, owner, holder, value.get("digest"), value.get("certificate")))

    def _noted_filing(self, done: Done) -> None:
        owner, _, said = done.given
        if done.ending == "killed":  # whoever was about to file it does so again
            self._note(self.hubs[done.hub].do("correct", *done.given))
        elif done.ok:
            self.corrections[done.value["id"]] = owner, int(said.split()[1])

    def _noted_act(self, done: Done) -> None:
        if done.what == "act" and done.given[1] != self.side:  # of an agreement that is read under
            if done.ending == "killed":
                self._note(self.hubs[done.hub].do("act", *done.given))
            return
        if done.ending == "killed":
            self.cut = True
            if done.what == "propose" and (known := self._proposed(done.hub)):
                self.side = known
                self._decided()
            else:  # said again, it is told again
                self._note(self.hubs[done.hub].do(done.what, *done.given))
        elif done.ok or (self.cut and done.code == ALREADY.get(self.acts[0][0])):
            if done.what == "propose":
                self.side = done.value["agreement"].partition("/")[0]
            self._decided()

    def _decided(self) -> None:
        """The next step was taken."""
        kind, who = self.acts.pop(0)
        self.cut = False
        reference = f"{self.side}/1"
        if kind == "end":
            self.ends.add(who)
            self.decided[reference] = "ended" if len(self.ends) == 2 else self.decided.get(reference, "in_force")
        elif kind == "propose":
            self.decided[reference] = "proposed"
        else:
            self.decided[reference] = STATES[kind]

    def _proposed(self, name: str) -> str:
        """The proposal that a killed process made, if it did."""
        rows = self.hubs[name].rows(
            """SELECT id::text FROM exchange_agreement WHERE state = 'proposed' AND own_signature IS NOT NULL
            AND convert_from(document, 'UTF8') LIKE '%"modes":["share"]%'"""
        )
        return rows[0].id if rows else ""

    def _noted_repeats(self, told: list[dict[str, Any]]) -> None:
        """Messages that came again, and what they were answered."""
        self.repeats += told
        for one in told:
            if one["status"] != "ok":
                self.refusals.append(Refusal(one["to"], one["id"], one["status"], f"{one['kind']}, which came again"))
