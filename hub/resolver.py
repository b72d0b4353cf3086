"""The once-only decision: what is held, what must be submitted, and why. Pure; the same input gives the same answer.

A requirement is satisfied by any option, an option by all its materials:

* ``held``: the preferred (first) option is satisfied; ``alternative_held``: another one is.
* ``not_required``: it cites no law, or its condition is false.
* ``undetermined``: a missing fact, a missing role or a source behind its promise could still change the result.
* ``expired``: all that the best option lacks is there, but no longer valid; ``submit``: something is not there.

The best option is the one that lacks the fewest materials, the earlier one of equals. A certificate that is suspended,
revoked or cancelled counts as not there. Presence stands when its source is late, unless the type is volatile; a
certificate out of date under a late source is open, since its renewal may not have arrived yet.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hub import conditions
from hub.holdings import Freshness, Holding, Known
from mappings.items import FactValue, Item, Option, Requirement, Use

Disposition = Literal[
    "held", "held_elsewhere", "alternative_held", "expired", "deferred", "not_required", "submit", "undetermined"
]
State = Literal["held", "expired", "missing", "late", "role"]

# Certificates are dated by China's calendar; no zone database is needed, it has had one offset since 1991.
CHINA = dt.timezone(dt.timedelta(hours=8))
NATIONAL = ("000000", "100000")
OPEN: tuple[State, ...] = ("late", "role")


@dataclass(frozen=True)
class Party:
    """Somebody concerned: the keyed hash of the identifier and the province (2 digits) it was issued under."""

    digest: bytes
    province: str | None


@dataclass(frozen=True)
class Finding:
    """What became of one use of a material. ``values`` fill the sentence of ``reason``."""

    use: Use
    state: State
    reason: str
    values: Mapping[str, object]
    holdings: tuple[Holding, ...] = ()


@dataclass(frozen=True)
class Decision:
    """One requirement decided. ``values`` fill the sentences of ``reason`` and ``next_step``."""

    requirement: Requirement
    disposition: Disposition
    reason: str
    values: Mapping[str, object]
    materials: tuple[str, ...]
    trace: Mapping[str, Any]
    holdings: tuple[tuple[Use, Holding], ...] = ()
    must_submit: tuple[str, ...] = ()
    question: str | None = None
    next_step: str | None = None
    next_values: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Resolution:
    """An item decided. ``must_submit``: material codes, each once, in order of the requirements."""

    item: Item
    decisions: tuple[Decision, ...]

    @property
    def must_submit(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(code for decision in self.decisions for code in decision.must_submit))


def province(scheme: str, value: str) -> str | None:
    """Two digits of the province in a normalised identifier; None where the scheme has none or it is nationwide."""
    place = {"cn.uscc": 2, "cn.ric": 0, "cn.regno": 0, "cn.tax": 2 if len(value) == 18 else 0, "cn.fpr": 1}.get(scheme)
    if place is None:
        return None
    code = value[place : place + 2]
    return code if code.isdecimal() and code.isascii() and code not in ("00", "10") else None


def resolve(
    item: Item,
    facts: Mapping[str, FactValue],
    parties: Mapping[str, Party],
    known: Known,
    volatile: Collection[str],
    now: dt.datetime,
) -> Resolution:
    """Decide ``item``. ``parties`` holds the applicant and the roles given; ``volatile``: codes of volatile materials."""
    case = _Case(item, facts, parties, known, volatile, now)
    return Resolution(item, tuple(case.decide(requirement) for requirement in item.requirements))


@dataclass(frozen=True)
class _Case:
    item: Item
    facts: Mapping[str, FactValue]
    parties: Mapping[str, Party]
    known: Known
    volatile: Collection[str]
    now: dt.datetime

    def decide(self, requirement: Requirement) -> Decision:
        condition = conditions.evaluate(requirement.when, self.facts, self.item.facts)
        options = [tuple(self._find(use) for use in option.materials) for option in requirement.options]
        preferred = requirement.options[0].codes()
        trace: dict[str, Any] = {
            "requirement": requirement.code,
            "condition": {"value": condition.value, "deciding": list(condition.deciding)},
            "options": [[_traced(finding) for finding in findings] for findings in options],
        }

        def decision(disposition: Disposition, reason: str, **more: Any) -> Decision:
            trace.update(disposition=disposition, reason=reason)
            rest = {"values": {}, "materials": preferred, **more}
            return Decision(requirement, disposition, reason, trace=trace, **rest)

        if requirement.legal_basis is None:
            return decision("not_required", "no-legal-basis")
        if condition.value is False:
            return decision("not_required", "not-applicable")
        for place, findings in enumerate(options):
            if all(finding.state == "held" for finding in findings):
                return decision(
                    "alternative_held" if place else "held",
                    "alternative-held" if place else "held",
                    values=_several(findings),
                    materials=requirement.options[place].codes(),
                    holdings=_shown(findings),
                )
        if condition.value is None:
            return decision("undetermined", "fact-missing", question=condition.deciding[0], next_step="answer-question")
        for option, findings in zip(requirement.options, options, strict=True):
            if all(finding.state == "held" or finding.state in OPEN for finding in findings):
                return decision("undetermined", **_open(option, findings))
        place = min(range(len(options)), key=lambda at: sum(finding.state != "held" for finding in options[at]))
        return decision(**_lacking(requirement.options[place], options[place]))

    def _find(self, use: Use) -> Finding:
        """What is known of one material of one holder."""
        party = self.parties.get(use.holder)
        if party is None:
            return Finding(use, "role", "role-missing", {"role": use.holder})
        found = [self._judge(use, holding) for holding in self.known.holdings if _concerns(holding, use, party)]
        sources = [source for source in self.known.sources if source.material == use.material]
        # The best of several certificates: the state first, then the longest validity, then the key as a last resort.
        found.sort(key=lambda finding: (_RANK[finding.reason], *_lasting(finding.holdings[0])))
        best = found[0] if found else None
        if best is not None and best.state == "held":
            source = next((source for source in sources if source.source == best.holdings[0].source), None)
            if source is None or use.material not in self.volatile or not source.late(self.now):
                return best
            return Finding(use, "late", "volatile-late", _late(use, source), best.holdings)
        authoritative = [source for source in sources if _authoritative(source, party)]
        late = sorted((source for source in authoritative if source.late(self.now)), key=lambda source: source.source)
        if late:
            return Finding(use, "late", "source-late", _late(use, late[0]), best.holdings if best else ())
        if best is not None:
            return best
        connected = sorted(source.source for source in authoritative if source.last_success_at is not None)
        if not connected:
            return Finding(use, "missing", "no-source", {"material": use.material})
        return Finding(use, "missing", "absent", {"material": use.material, "source": ", ".join(connected)})

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
        return Finding(use, "held", "held", values, (holding,))


_RANK = {
    reason: rank
    for rank, reason in enumerate(
        ("held", "validity-short", "expired", "not-yet-valid", "suspended", "revoked", "cancelled")
    )
}


def _lasting(holding: Holding) -> tuple[int, str]:
    return (-(holding.valid_to or dt.date.max).toordinal(), holding.key)


def _concerns(holding: Holding, use: Use, party: Party) -> bool:
    if holding.material != use.material or party.digest not in holding.holders:
        return False
    return not use.as_ or any(role in use.as_ for role in holding.holders[party.digest])


def _authoritative(source: Freshness, party: Party) -> bool:
    return source.region in NATIONAL or source.region[:2] == party.province


def _late(use: Use, source: Freshness) -> dict[str, object]:
    assert source.last_success_at is not None
    return {
        "material": use.material,
        "source": source.source,
        "since": source.last_success_at.astimezone(CHINA).isoformat(timespec="minutes"),
        "hours": round(source.promise.total_seconds() / 3600, 1),
    }


def _several(findings: tuple[Finding, ...]) -> dict[str, object]:
    return {
        "materials": tuple(dict.fromkeys(finding.use.material for finding in findings)),
        "source": ", ".join(sorted({holding.source for finding in findings for holding in finding.holdings})),
    }


def _shown(findings: tuple[Finding, ...]) -> tuple[tuple[Use, Holding], ...]:
    return tuple((finding.use, holding) for finding in findings for holding in finding.holdings)


def _open(option: Option, findings: tuple[Finding, ...]) -> dict[str, Any]:
    first = next(finding for finding in findings if finding.state in OPEN)
    return {
        "reason": first.reason,
        "values": first.values,
        "materials": option.codes(),
        "holdings": _shown(findings),
        "next_step": _NEXT[first.state],
        "next_values": first.values,
    }


def _lacking(option: Option, findings: tuple[Finding, ...]) -> dict[str, Any]:
    """The option to ask for: what is certainly lacking is asked for, what is open beside it is the next step."""
    lacking = [finding for finding in findings if finding.state in ("missing", "expired")]
    gone = [finding for finding in lacking if finding.state == "missing"]
    unsure = next((finding for finding in findings if finding.state in OPEN), None)
    first = (gone or lacking)[0]
    return {
        "disposition": "submit" if gone else "expired",
        "reason": first.reason,
        "values": first.values,
        "materials": option.codes(),
        "holdings": _shown(findings),
        "must_submit": tuple(dict.fromkeys(finding.use.material for finding in lacking)),
        "next_step": _NEXT[unsure.state] if unsure else None,
        "next_values": unsure.values if unsure else {},
    }


_NEXT: dict[State, str] = {"late": "wait-or-accept", "role": "give-role"}


def _traced(finding: Finding) -> dict[str, Any]:
    traced: dict[str, Any] = {
        "material": finding.use.material,
        "holder": finding.use.holder,
        "state": finding.state,
        "reason": finding.reason,
    }
    if finding.holdings:
        traced["holdings"] = [
            {"holding": holding.key, "status": holding.status, "conflicting": holding.conflicting}
            for holding in finding.holdings
        ]
    if finding.state == "late":
        traced["source"] = finding.values["source"]
    return traced
