"""After the faults: everything is started anew, told, answered and read."""

from __future__ import annotations

import time

from bench.exchange_faults import operations, seams
from bench.exchange_faults.hubs import together
from bench.exchange_faults.rounds import Rounds
from bench.exchange_faults.stage import PATIENCE
from bench.exchange_faults.truth import HUBS

TRIES = 12


class Healing(Rounds):
    """What was cut off is done again, as those who run hubs would."""

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
