"""One schedule: played in rounds, healed, accounted for."""

from __future__ import annotations

import time

from bench.exchange_faults.deceit import Deceit
from bench.exchange_faults.healing import Healing
from bench.exchange_faults.stage import Outcome
from bench.exchange_faults.verdict import Verdict


class Player(Deceit, Healing, Verdict):
    """Plays one schedule, once."""

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
