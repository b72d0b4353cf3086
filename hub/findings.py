"""What is known of one material of one party: it is there, here or at a partner hub, or why it is not. Pure.

A certificate that is suspended, revoked or cancelled, or does not say what is wanted, counts as not there; another one in
force does count, here or at a partner hub: who lost one and got another has one. Where nobody here can tell what it says,
as of one that a partner holds, it is open until the one who can is asked. Presence stands when its source is late, unless the type is volatile.
What is not there, or no longer valid, is open while a source is late that would know better: one that said something
about it, or an authority: of the province whose certificate is wanted, where the requirement names one, else of that of the
identifier and of that of the item, whose registers keep what people from everywhere own and do there. A partner hub that tells of
a part of a province is none: a certificate may be of the rest of it.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hub import predicates
from hub.clock import CHINA
from hub.holdings import Freshness, Holding, Known
from mappings.items import Use

State = Literal["held", "elsewhere", "expired", "missing", "late", "role", "identity", "untold"]

NATIONAL = ("000000", "100000")
DEPOSITED = "990000"  # of what was handed in: no register's, the certificate itself says of which province it is
PRESENT: tuple[State, ...] = ("held", "elsewhere")
OPEN: tuple[State, ...] = ("late", "role", "identity", "untold")


@dataclass(frozen=True)
class Party:
    """Somebody concerned: the keyed hash of the identifier and the province (2 digits) it was issued under.

    ``beside``: what names them in a certificate that is looked at as somebody else's; the same hash where it is None.
    """

    digest: bytes
    province: str | None
    beside: bytes | None = None

    @property
    def named(self) -> bytes:
        return self.digest if self.beside is None else self.beside


@dataclass(frozen=True)
class Finding:
    """What became of one use of a material. ``values`` fill the sentence of ``reason``."""

    use: Use
    state: State
    reason: str
    values: Mapping[str, object]
    holdings: tuple[Holding, ...] = ()


_PROVINCE_AT = {"cn.uscc": 2, "cn.ric": 0, "cn.regno": 0, "cn.tax": 0, "cn.fpr": 1}


def province(scheme: str, value: str) -> str | None:
    """Two digits of the province in a normalised identifier; None where the scheme has none or it is nationwide."""
    place = _PROVINCE_AT.get(scheme)
    if place is None:
        return None
    if scheme == "cn.tax" and len(value) == 18:
        place = 2
    code = value[place : place + 2]
    return code if code.isdecimal() and code.isascii() and code not in ("00", "10") else None


@dataclass(frozen=True)
class Evidence:
    """What the store knows, and when it is asked; ``volatile``: codes of volatile materials; ``province``: two digits, of
    the item that asks."""

    known: Known
    volatile: Collection[str]
    now: dt.datetime
    province: str | None = None

    def of(self, use: Use, parties: Mapping[str, Party]) -> Finding:
        """What became of ``use`` for its holder; ``parties``: those that the question names, by role."""
        roles = (use.holder, *use.with_, *(role for role in use.with_named if role in parties))
        for role in roles:
            if role not in parties:
                return Finding(use, "role", "role-missing", {"role": role})
            if parties[role].digest in self.known.people.undecided:
                return Finding(use, "identity", "identity-contradictory", {"role": role, "material": use.material})
        party, others = parties[use.holder], [parties[role] for role in roles[1:]]
        found = [
            self._judge(use, holding) for holding in self.known.holdings if self._concerns(holding, use, party, others)
        ]
        sources = [source for source in self.known.sources if source.material == use.material]
        # The best of several certificates: the state first, then the longest validity, then the key as a last resort.
        found.sort(key=lambda finding: (_RANK[finding.reason], *_lasting(finding.holdings[0])))
        present = [self._doubted(use, finding, sources) for finding in found if finding.state in PRESENT]
        if present:
            return next((finding for finding in present if finding.state in PRESENT), present[0])
        best = found[0] if found else None
        if best is not None and best.state == "untold":
            return best
        heard = {finding.holdings[0].source for finding in found}
        provinces = (use.region,) if use.region else (party.province, self.province)
        knowing = [
            source
            for source in sources
            if source.source in heard
            or (source.whole and (source.region in NATIONAL or source.region[:2] in provinces))
        ]
        late = sorted((source for source in knowing if source.late(self.now)), key=lambda source: source.source)
        if late:
            reason = "hub-late" if late[0].hub else "source-late"
            return Finding(use, "late", reason, _late(use, late[0]), best.holdings if best else ())
        if best is not None:
            return best
        connected = sorted({source.source for source in knowing if source.last_success_at is not None})
        if not connected:
            return Finding(use, "missing", "no-source", {"material": use.material})
        said = {"material": use.material, "source": ", ".join(connected)}
        if others:
            return Finding(use, "missing", "absent-with", {**said, "roles": roles[1:]})
        return Finding(use, "missing", "absent", said)

    def _concerns(self, holding: Holding, use: Use, party: Party, others: Sequence[Party] = ()) -> bool:
        """Whether it is the material of this party, in the role and of the province that are wanted, and names the others."""
        if holding.material != use.material or party.digest not in holding.holders:
            return False
        own = [role for role in holding.holders[party.digest] if not use.as_ or role in use.as_]
        if not own:
            return False
        # Each in a place of its own: nobody is their own spouse under another identifier.
        if others and not any(
            len(set(places)) == len(places)
            for places in itertools.product(own, *(holding.holders.get(other.named, ()) for other in others))
        ):
            return False
        if use.region is None:
            return True
        registers = [source.region for source in self.known.sources if source.source == holding.source]
        # What a province's own register keeps is of that province, whatever division a row was written under.
        own = [region for region in registers if holding.hub is None and region not in (*NATIONAL, DEPOSITED)]
        return any(region[:2] == use.region for region in own or ([holding.region] if holding.region else registers))

    def _doubted(self, use: Use, finding: Finding, sources: list[Freshness]) -> Finding:
        """A certificate in force may have changed since if its type is volatile and the source that says so is late."""
        said = next((source for source in sources if source.source == finding.holdings[0].source), None)
        if said is None or use.material not in self.volatile or not said.late(self.now):
            return finding
        return Finding(use, "late", "volatile-late", _late(use, said), finding.holdings)

    def _judge(self, use: Use, holding: Holding) -> Finding:
        """One certificate against what the requirement wants of it."""
        today = self.now.astimezone(CHINA).date()
        values = {"material": use.material, "source": holding.source, "status": holding.status}
        if holding.status in ("suspended", "revoked", "cancelled"):
            return Finding(use, "missing", holding.status, values, (holding,))
        if holding.status == "expired" or (holding.valid_to is not None and holding.valid_to < today):
            ended = holding.valid_to.isoformat() if holding.valid_to else "-"
            return Finding(use, "expired", "expired", {**values, "valid_to": ended}, (holding,))
        if holding.valid_from is not None and holding.valid_from > today:
            return Finding(
                use, "missing", "not-yet-valid", {**values, "valid_from": holding.valid_from.isoformat()}, (holding,)
            )
        if holding.valid_to is not None and holding.valid_to < today + use.valid_left:
            more = {"valid_to": holding.valid_to.isoformat(), "days": use.valid_left.days}
            return Finding(use, "expired", "validity-short", {**values, **more}, (holding,))
        if wanting := self._wanting(use, holding, today):
            return wanting
        state: State = "elsewhere" if holding.hub else "held"
        return Finding(use, state, state, values, (holding,))

    def _wanting(self, use: Use, holding: Holding, today: dt.date) -> Finding | None:
        """Why a certificate in force will not do: too old, or it does not say what is wanted; None: it will."""
        values = {"material": use.material, "source": holding.source, "hub": holding.hub or "-"}
        told = dict(holding.tests)
        if use.max_age is not None:
            if holding.issued_on is None:
                return Finding(use, "untold", "age-untold", {**values, "days": use.max_age.days}, (holding,))
            if holding.issued_on + use.max_age < today:
                more = {"issued_on": holding.issued_on.isoformat(), "days": use.max_age.days}
                return Finding(use, "expired", "too-old", {**values, **more}, (holding,))
        said = [(one.attribute, told.get(predicates.key(one))) for one in use.where]
        # What it says wrong ends it, whatever else it leaves unsaid.
        for attribute, right in sorted(said, key=lambda one: one[1] is not False):
            if right is False:
                return Finding(use, "missing", "attribute-unfit", {**values, "attribute": attribute}, (holding,))
            if right is None:
                return Finding(use, "untold", "attribute-untold", {**values, "attribute": attribute}, (holding,))
        return None


_RANK = {
    reason: rank
    for rank, reason in enumerate(
        (
            "held",
            "elsewhere",
            "age-untold",
            "attribute-untold",
            "validity-short",
            "too-old",
            "expired",
            "not-yet-valid",
            "attribute-unfit",
            "suspended",
            "revoked",
            "cancelled",
        )
    )
}


def _lasting(holding: Holding) -> tuple[int, str]:
    return (-(holding.valid_to or dt.date.max).toordinal(), holding.key)


def _late(use: Use, source: Freshness) -> dict[str, object]:
    assert source.last_success_at is not None
    return {
        "material": use.material,
        "source": source.source,
        "hub": source.hub or "-",
        "since": minute(source.last_success_at),
        "hours": round(source.promise.total_seconds() / 3600, 1),
    }


def minute(time: dt.datetime) -> str:
    """As it is shown in a sentence: China's time, to the minute."""
    return time.astimezone(CHINA).isoformat(timespec="minutes")
