"""One schedule: played in rounds, healed, accounted for."""

# ruff: noqa: S311 - drawn from a seed so that it comes again, nothing is kept secret with it
from __future__ import annotations

import base64
import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.exchange_faults import accounts, lies, operations, seams, truth
from bench.exchange_faults.accounts import Account, Fetched, Refusal
from bench.exchange_faults.hubs import Done, Hub, together
from bench.exchange_faults.network import Link, Network
from bench.exchange_faults.schedules import Round, Schedule, Work
from bench.exchange_faults.seams import Fuse
from bench.exchange_faults.truth import HUBS, Certificate, Register

TRIES = 12
PATIENCE = 40.0  # seconds for something to recover after the faults are over
ALREADY = {"accept": "agreement-accepted", "resume": "agreement-not-suspended"}  # what was done before it was cut off
STATES = {"accept": "in_force", "decline": "declined", "suspend": "suspended", "resume": "in_force"}


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


class Player:
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

    def play(self) -> Outcome:
        began = time.monotonic()
        schedule, outcome = self.schedule, self.outcome
        for hub in self.hubs.values():
            hub.start()
        for hub in self.hubs.values():
            hub.ready()
        for number, one in enumerate(schedule.rounds):
            self._round(number, one)
        if schedule.liar:
            self._lie()
        self._heal()
        if not outcome.trouble:
            self._account()
        outcome.seconds = time.monotonic() - began
        return outcome

    # While there are faults

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

    def _calm(self) -> None:
        self.network.clear()
        for hub in self.hubs.values():
            hub.board.clear()

    def _change(self) -> None:
        """The registers of the givers change."""
        for giver in self.schedule.givers:
            self._write(giver, self.registers[giver].change(self.rng))

    def _write(self, giver: str, made: list[Certificate]) -> None:
        import sqlalchemy as sa

        hub = self.hubs[giver]
        engine = sa.create_engine(hub.url, poolclass=sa.NullPool)
        truth.write(engine, made, hub.secret("pseudonym.key"))
        self._remember(made)

    def _remember(self, made: Any) -> None:
        for one in made:
            self.history[one.holder].append(one)

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

    def _go_on(self) -> None:
        """Nothing is suspended any more that is read under."""
        if self.schedule.pauses:
            reader, giver = self.schedule.links[0]
            done = self._until("act", reader, "resume", self.agreed[reader, giver])
            if not done.ok and done.code != "agreement-not-suspended":
                self.outcome.trouble.append(str(done))

    # What came of it

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

    # A liar

    def _lie(self) -> None:
        """In calm weather: the lies alone are looked at."""
        schedule = self.schedule
        self._calm()
        for hub in self.hubs.values():
            if not hub.alive():
                hub.start()
                hub.ready()
        liar, deceived = self.hubs[schedule.liar], self.hubs[schedule.deceived]
        self._go_on()
        self._settled()
        done = deceived.do("read", liar.name, seconds=seams.PATIENT)
        if not done.ok:
            self.outcome.trouble.append(f"before the lies: {done}")
            return
        for name in schedule.told:
            self._told(liar, deceived, name)
        for name in schedule.given:
            self._given(liar, deceived, name)

    def _told(self, liar: Hub, deceived: Hub, name: str) -> None:
        account, lie = self.outcome.account, lies.TOLD[name]
        before = _records(deceived)
        done = liar.do(
            "lie", name, deceived.name, str(self.rng.random()), self._facts(liar, deceived), seconds=seams.PATIENT
        )
        self.outcome.happened.append(f"lie: {liar.name} tells {deceived.name} {name}: {done.value or done}")
        self.outcome.lies += 1
        if not done.ok:
            self.outcome.trouble.append(f"{liar.name} cannot tell {name}: {done} {done.text}")
            return
        status, message = done.value["status"], done.value["message"]
        if lie.noted:
            found = [code for code in _since(deceived, before) if code in lie.codes]
            account.note("unrecorded", f"{name} of {liar.name} by {deceived.name}", int(not found))
            return
        if status == "ok":
            account.note("accepted", f"{name} of {liar.name} by {deceived.name}")
        elif status not in lie.codes:
            self.outcome.trouble.append(f"{name} of {liar.name} is refused by {deceived.name} with {status}")
        else:
            self.refusals.append(Refusal(deceived.name, message, status, f"{name} of {liar.name}"))

    def _given(self, liar: Hub, deceived: Hub, name: str) -> None:
        account, lie = self.outcome.account, lies.GIVEN[name]
        self._news(liar.name)
        liar.kill()
        liar.lies = [lies.install(name)]
        liar.start(seconds=seams.PATIENT)
        liar.ready()
        before = _records(deceived)
        match lie.during:
            case "evidence":
                [done] = together([self._ask(Work("evidence", deceived.name, liar.name), None)])
                self._noted_evidence(done)
            case "heal" | "reconcile":
                done = self._until("reconcile", deceived.name, liar.name, lie.during == "heal", only="partner-resting")
            case _:
                done = self._until("read", deceived.name, liar.name, only="partner-resting")
        liar.lies = []
        self.outcome.happened.append(f"lie: {liar.name} gives {deceived.name} {name}: {done}")
        self.outcome.lies += 1
        if not done.clear:
            self.outcome.unclear.append(f"{name}: {done.text}")
        if lie.codes:
            if done.ok:
                account.note("accepted", f"{name} of {liar.name} by {deceived.name}")
                return
            found = [code for code in _since(deceived, before) if code in lie.codes]
            account.note("unrecorded", f"{name} of {liar.name} by {deceived.name}, {done.code}", int(not found))
        elif lie.quarantined:
            kept = deceived.rows(_QUARANTINED, source=truth.index(liar.name), handle=f"%{lies.FALSE}%")
            account.note("unrecorded", f"a row of {name} of {liar.name} by {deceived.name}: {done}", int(not kept))
        elif not done.ok or any(result["equal"] for result in done.value):
            account.note("accepted", f"{name} of {liar.name} by {deceived.name}: {done} {done.value}")

    def _news(self, giver: str) -> None:
        """Something to be read: eight certificates change, the first of them twice, so that a position is no longer used."""
        register = self.registers[giver]
        held = [one.number for one in register.known.values() if one.announced]
        for number in (held[0], *held[:8]):
            self._write(giver, register.mend(number))

    def _facts(self, liar: Hub, deceived: Hub) -> dict[str, Any]:
        third = next(name for name in HUBS if name not in (liar.name, deceived.name))
        named = self.agreed[liar.name, deceived.name]
        [row] = deceived.rows(_DOCUMENT, named=named)
        known = self.registers[deceived.name].known.values()
        held = [one for one in known if not one.withdrawn and one.status == "in_force"]
        heard = deceived.rows(
            "SELECT max(position) AS position FROM exchange_checkpoint WHERE hub = :hub", hub=liar.name
        )
        return {
            "third": third,
            "agreement": row.reference,
            "document": base64.b64encode(bytes(row.document)).decode(),
            "epoch": row.epoch,
            "within": next(one.holder for one in held if one.announced),
            "beyond": next(one.holder for one in held if not one.announced),
            "witnessed": heard[0].position,
        }

    # Afterwards

    def _restart(self) -> None:
        for hub in self.hubs.values():
            hub.close()
            hub.lies = ()
            hub.start(seconds=seams.PATIENT)
        for hub in self.hubs.values():
            hub.ready()

    def _heal(self) -> None:
        """No faults any more, everything started anew: what was cut off is done, told, read, and compared."""
        if self.outcome.trouble:
            return
        self._calm()
        self._restart()
        self._go_on()
        self._settled()
        tries = 0
        while self.acts and tries < TRIES:
            tries += 1
            if (doing := self._act(None)) is None:
                break
            self._note(together([doing])[0])
            self._settled()
        if self.acts:
            self.outcome.trouble.append(f"{self.acts[0]} of the agreement {self.side} cannot be done")
        for name in self.rotated:  # from now on the new keys sign
            self.hubs[name].board.seconds = operations.AHEAD
        self._answer_corrections()
        self._catch_up()

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

    def _answer_corrections(self) -> None:
        """Every correction that the owner has is answered: some are right, and the certificate changes."""
        for giver in HUBS:
            rows = self.hubs[giver].rows("SELECT id::text FROM correction WHERE owner AND state = 'filed' ORDER BY id")
            for row in rows:
                known = self.corrections.get(row.id)
                one = self.registers[giver].known.get(known[1]) if known else None
                right = one is not None and not one.withdrawn and self.rng.random() < 0.6
                done = self._until("answer_correction", giver, row.id, "corrected" if right else "confirmed")
                if not done.ok:
                    self.outcome.trouble.append(f"{done} {done.text}")
                    continue
                self.fixed[row.id] = "corrected" if right else "confirmed"
                if right and one is not None:
                    self._write(giver, self.registers[giver].mend(one.number))
        if self.fixed:
            self._settled()

    def _catch_up(self) -> None:
        waiting = set(self.schedule.links) | {
            (name, owner) for owner, _ in self.corrections.values() for name in HUBS if name != owner
        }
        deadline = time.monotonic() + PATIENCE
        while waiting:
            done = together(
                [self.hubs[one].begin("read", other, seconds=seams.PATIENT) for one, other in sorted(waiting)]
            )
            waiting -= {(each.hub, each.given[0]) for each in done if each.ok}
            for each in done:
                if not each.clear:
                    self.outcome.unclear.append(f"read: {each.text}")
            if waiting and time.monotonic() > deadline:
                self.outcome.trouble += [f"does not recover: {each} {each.text}" for each in done if not each.ok]
                return

    def _until(self, what: str, name: str, *given: Any, only: str = "") -> Done:
        """Do it until it is done, or is refused for good; ``only``: the one error after which it is tried again."""
        deadline = time.monotonic() + PATIENCE
        while True:
            done = self.hubs[name].do(what, *given, seconds=seams.PATIENT)
            if not done.passing or only not in ("", done.code) or time.monotonic() > deadline:
                return done
            time.sleep(0.1)

    # The account

    def _account(self) -> None:
        outcome, account, hubs = self.outcome, self.outcome.account, self.hubs
        self._index(account, "caught up")
        self._reconcile(account)
        accounts.evidence(account, hubs, self.asked, self.history)
        accounts.corrections(account, hubs, self.fixed)
        accounts.agreements(account, hubs, self.decided)
        for done in together([hub.begin("check", seconds=seams.PATIENT) for hub in hubs.values()]):
            if not done.ok:
                outcome.trouble.append(f"{done} {done.text}")
            elif not done.value["ok"]:
                outcome.trouble.append(f"the ledger of {done.hub}: {done.value['differences']}")
            elif missing := [one for one in done.value["witnesses"] if not one["asked"]]:
                outcome.trouble.append(f"the ledger of {done.hub}: {missing}")
        from hub.exchange import kinds

        for hub in hubs.values():
            self._noted_repeats(seams.answered_again(hub.place))
        for told in self.repeats:
            accounts.repeated(account, hubs[told["to"]], told, kinds.register()[told["kind"]].once)
        outcome.messages = accounts.ledgers(account, hubs, self.refusals)

    def _index(self, account: Account, when: str) -> None:
        for (reader, giver), named in self.agreed.items():
            accounts.index(account, self.hubs[reader], self.hubs[giver], self.registers[giver], named, when)

    def _reconcile(self, account: Account) -> None:
        """Both sides of every link agree by digest; what is damaged now is found and healed."""
        damaged = self.schedule.links[0] if self.schedule.damaged else None
        if damaged is not None:
            import sqlalchemy as sa

            engine = sa.create_engine(self.hubs[damaged[0]].url, poolclass=sa.NullPool)
            with engine.begin() as connection:
                connection.execute(sa.text(_DAMAGE), {"source": truth.index(damaged[1])})
            self.outcome.faults["damage"] += 1
        done = together([
            self.hubs[reader].begin("reconcile", giver, True, seconds=seams.PATIENT) for reader, giver in self.schedule.links
        ])  # fmt: skip
        for each in done:
            if not each.ok:
                self.outcome.trouble.append(f"{each} {each.text}")
                continue
            for result in each.value:
                found = sum(
                    count for kind, count in result["differences"].items() if kind not in ("at_least", "all_named")
                )
                hurt = (each.hub, each.given[0]) == damaged
                if not result["equal"]:
                    self.outcome.trouble.append(f"{each.hub} and {each.given[0]} do not agree: {result['named']}")
                account.note("lost", f"{each.hub} and {each.given[0]} differed in {result['differences']}", found)
                if bool(result["entries_amiss"]) != hurt:
                    self.outcome.trouble.append(f"{each}: {result['entries_amiss']} entries amiss, damaged: {hurt}")
        if damaged is not None:
            self._index(account, "healed")


def _records(hub: Hub) -> dict[str, str]:
    return {row.id: row.outcome for row in hub.rows("SELECT id::text, outcome FROM exchange_record")}


def _since(hub: Hub, before: Mapping[str, str]) -> list[str]:
    """Outcomes of records that were not there before."""
    return [outcome for named, outcome in _records(hub).items() if named not in before]


_QUARANTINED = """
SELECT 1 FROM quarantine WHERE source = :source AND convert_from(raw, 'UTF8') LIKE :handle
"""
_DOCUMENT = """
SELECT id || '/' || version AS reference, document, epoch FROM exchange_agreement
WHERE id = cast(:named AS uuid) AND state = 'in_force'
"""
_DAMAGE = """
DELETE FROM index_entry WHERE ctid IN (
  SELECT ctid FROM index_entry WHERE source = :source AND recorded_to IS NULL ORDER BY handle LIMIT 2)
"""
