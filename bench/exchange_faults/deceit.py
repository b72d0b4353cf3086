"""A liar among the hubs: what it tells and gives, and whether it was found out and written down."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from bench.exchange_faults import lies, lies_given, seams
from bench.exchange_faults.accounts import Refusal
from bench.exchange_faults.hubs import Hub, together
from bench.exchange_faults.rounds import Rounds
from bench.exchange_faults.schedules import Work
from bench.exchange_faults.truth import HUBS


class Deceit(Rounds):
    """In calm weather: the lies alone are looked at."""

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
        liar.lies = [lies_given.install(name)]
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


def _records(hub: Hub) -> dict[str, str]:
    return {row.id: row.outcome for row in hub.rows("SELECT id::text, outcome FROM exchange_record")}


def _since(hub: Hub, before: Mapping[str, str]) -> list[str]:
    """Outcomes of records that were not there before."""
    return [outcome for named, outcome in _records(hub).items() if named not in before]


_DOCUMENT = """
SELECT id || '/' || version AS reference, document, epoch FROM exchange_agreement
WHERE id = cast(:named AS uuid) AND state = 'in_force'
"""
