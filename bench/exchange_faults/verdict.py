"""What a schedule is judged by, once all is healed."""

from __future__ import annotations

import sqlalchemy as sa

from bench.exchange_faults import accounts, seams, truth
from bench.exchange_faults.accounts import Account
from bench.exchange_faults.hubs import together
from bench.exchange_faults.rounds import Rounds


class Verdict(Rounds):
    """Each hub beside what is true, and the hubs beside each other."""

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


_DAMAGE = """
DELETE FROM index_entry WHERE ctid IN (
  SELECT ctid FROM index_entry WHERE source = :source AND recorded_to IS NULL ORDER BY handle LIMIT 2)
"""
