"""The once-only decision: what is held, what must be submitted, and why. Pure; the same input gives the same answer.

A requirement is satisfied by any option, an option by all its materials:

* ``held``: the preferred (first) option is satisfied; ``alternative_held``: another one is.
* ``held_elsewhere``: an option is satisfied, the preferred one of several, with the help of partner hubs.
* ``not_required``: it cites no law, or its condition is false.
* ``undetermined``: a missing fact, a missing role, a source behind its promise, an identity that contradicts itself or a
  certificate that does not say what is wanted could still change the result.
* ``expired``: all that the preferred option lacks is there, but no longer valid; ``submit``: something is not there.
* ``deferred``: the same, where the requirement says what stands in for the material for now.

Where no option is satisfied or open, what the preferred one lacks is asked for, whatever others lack: so what is asked for
is a part of what would be asked of somebody of whom nothing is held, and one more certificate in force can only take away
from it. Choosing by what is held, also the option that lacks least, asks who holds one paper of another option for papers
that nobody else is asked for. The others stay listed in guide and notice. What counts as there, as lacking and
as open is decided material by material in :mod:`hub.findings`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hub import conditions
from hub.findings import OPEN, PRESENT, Evidence, Finding, Party, minute
from hub.holdings import Holding, Known
from mappings.items import FactValue, Item, Option, Requirement, Use

Disposition = Literal[
    "held", "held_elsewhere", "alternative_held", "expired", "deferred", "not_required", "submit", "undetermined"
]


@dataclass(frozen=True)
class Decision:
    """One requirement decided. ``values`` fill the sentence of ``reason``, ``next_values`` that of ``next_step``; ``whose``: the role
    whose paper ``reason`` is about, where the option has papers of several. ``lacking``: what the preferred option certainly lacks,
    ``must_submit`` its material codes, ``deferred`` instead where the requirement's deferral stands in for it. ``questions``,
    ``roles_needed``: every fact and role not given that can still change it; ``question`` is the first of the facts."""

    requirement: Requirement
    disposition: Disposition
    reason: str
    values: Mapping[str, object]
    materials: tuple[str, ...]
    trace: Mapping[str, Any]
    holdings: tuple[tuple[Use, Holding], ...] = ()
    whose: str | None = None
    lacking: tuple[Use, ...] = ()
    must_submit: tuple[str, ...] = ()
    deferred: tuple[str, ...] = ()
    question: str | None = None
    questions: tuple[str, ...] = ()
    roles_needed: tuple[str, ...] = ()
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

    @property
    def asked(self) -> tuple[Use, ...]:
        """What is asked for, requirement by requirement, less what may follow later."""
        return tuple(use for decision in self.decisions if decision.must_submit for use in decision.lacking)


def resolve(
    item: Item,
    facts: Mapping[str, FactValue],
    parties: Mapping[str, Party],
    known: Known,
    volatile: Collection[str],
    now: dt.datetime,
) -> Resolution:
    """Decide ``item``. ``parties`` holds the applicant and the roles given; ``volatile``: codes of volatile materials."""
    case = _Case(item, facts, parties, Evidence(known, volatile, now, item.region[:2]))
    return Resolution(item, tuple(case.decide(requirement) for requirement in item.requirements))


def decide(
    item: Item,
    requirement: Requirement,
    facts: Mapping[str, FactValue],
    parties: Mapping[str, Party],
    known: Known,
    volatile: Collection[str],
    now: dt.datetime,
) -> Decision:
    """Decide one ``requirement`` of ``item``; the rest as :func:`resolve`."""
    return _Case(item, facts, parties, Evidence(known, volatile, now, item.region[:2])).decide(requirement)


@dataclass(frozen=True)
class _Case:
    item: Item
    facts: Mapping[str, FactValue]
    parties: Mapping[str, Party]
    evidence: Evidence

    def decide(self, requirement: Requirement) -> Decision:
        condition = conditions.evaluate(requirement.when, self.facts, self.item.facts)
        # What binds nobody is not looked for: the condition says all there is to say.
        binding = requirement.legal_basis is not None and condition.value is not False
        options = [
            tuple(self.evidence.of(use, self.parties) for use in option.materials)
            for option in requirement.options
            if binding
        ]
        preferred = requirement.options[0].codes()
        trace: dict[str, Any] = {
            "requirement": requirement.code,
            "condition": {"value": condition.value, "deciding": list(condition.deciding)},
            "options": [[_traced(finding) for finding in findings] for findings in options],
        }

        def decision(disposition: Disposition, reason: str, **more: Any) -> Decision:
            rest = {"values": {}, "materials": preferred, **more}
            trace.update(disposition=disposition, reason=reason, materials=list(rest["materials"]))
            trace.update({name: list(rest[name]) for name in ("must_submit", "deferred") if rest.get(name)})
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
        for option, findings in zip(requirement.options, options, strict=True):
            if all(finding.state in PRESENT for finding in findings):
                return decision(
                    "held_elsewhere",
                    "elsewhere",
                    values=_partners(findings),
                    materials=option.codes(),
                    holdings=_shown(findings),
                    next_step="fetch-elsewhere",
                )
        if condition.value is None:
            return decision(
                "undetermined",
                "fact-missing",
                question=condition.deciding[0],
                questions=condition.deciding,
                roles_needed=self._unnamed(requirement.options),
                next_step="answer-question",
            )
        for option, findings in zip(requirement.options, options, strict=True):
            if all(finding.state in PRESENT or finding.state in OPEN for finding in findings):
                unnamed = self._unnamed(requirement.options)
                return decision("undetermined", roles_needed=unnamed, **_open(requirement, option, findings))
        lacking = _lacking(requirement, requirement.options[0], options[0])
        lacking["roles_needed"] = self._unnamed(requirement.options[:1])
        return decision(**(_deferred(requirement, lacking) if requirement.deferral else lacking))

    def _unnamed(self, options: Iterable[Option]) -> tuple[str, ...]:
        """The roles that ``options`` speak of and the question does not name."""
        uses = (use for option in options for use in option.materials)
        roles = dict.fromkeys(role for use in uses for role in (use.holder, *use.with_))
        return tuple(role for role in roles if role not in self.parties)


def _several(findings: tuple[Finding, ...]) -> dict[str, object]:
    return {
        "materials": tuple(dict.fromkeys(finding.use.material for finding in findings)),
        "source": ", ".join(sorted({holding.source for finding in findings for holding in finding.holdings})),
    }


def _partners(findings: tuple[Finding, ...]) -> dict[str, object]:
    """Of what partner hubs hold: which materials, whose, where, and the earliest time that their index was read."""
    found = [holding for finding in findings for holding in finding.holdings if holding.hub]
    read = [holding.as_of for holding in found if holding.as_of is not None]
    return {
        "materials": tuple(dict.fromkeys(holding.material for holding in found)),
        "hub": ", ".join(sorted({holding.hub for holding in found if holding.hub})),
        "regions": tuple(sorted({holding.region for holding in found if holding.region})),
        "as_of": minute(min(read)) if read else "-",
    }


def _shown(findings: tuple[Finding, ...]) -> tuple[tuple[Use, Holding], ...]:
    return tuple((finding.use, holding) for finding in findings for holding in finding.holdings)


def _open(requirement: Requirement, option: Option, findings: tuple[Finding, ...]) -> dict[str, Any]:
    first = next(finding for finding in findings if finding.state in OPEN)
    return {
        "reason": first.reason,
        "values": first.values,
        "whose": _whose(option, first),
        "materials": option.codes(),
        "holdings": _shown(findings),
        **_next(requirement, first),
    }


def _lacking(requirement: Requirement, option: Option, findings: tuple[Finding, ...]) -> dict[str, Any]:
    """The option to ask for: what is certainly lacking is asked for, what is open beside it is the next step."""
    lacking = [finding for finding in findings if finding.state in ("missing", "expired")]
    gone = [finding for finding in lacking if finding.state == "missing"]
    unsure = next((finding for finding in findings if finding.state in OPEN), None)
    first = (gone or lacking)[0]
    return {
        "disposition": "submit" if gone else "expired",
        "reason": first.reason,
        "values": first.values,
        "whose": _whose(option, first),
        "materials": option.codes(),
        "holdings": _shown(findings),
        "lacking": tuple(finding.use for finding in lacking),
        "must_submit": tuple(dict.fromkeys(finding.use.material for finding in lacking)),
        **(_next(requirement, unsure) if unsure else {}),
    }


def _whose(option: Option, finding: Finding) -> str | None:
    """Whose paper the finding is about, where there are papers of others beside."""
    return finding.use.holder if len({use.holder for use in option.materials}) > 1 else None


def _deferred(requirement: Requirement, lacking: dict[str, Any]) -> dict[str, Any]:
    """The same, but what would have to be handed in now may come later, or a promise stands in for it."""
    assert requirement.deferral is not None
    return {
        **lacking,
        "disposition": "deferred",
        "reason": f"deferred-{requirement.deferral.kind}",
        "values": {"materials": lacking["must_submit"], **_terms(requirement)},
        "whose": None,
        "must_submit": (),
        "deferred": lacking["must_submit"],
    }


def _next(requirement: Requirement, unsure: Finding) -> dict[str, Any]:
    """What to do about a finding that is open: give the role, or wait for the source, or do without."""
    if unsure.state == "role":
        step = "give-role"
    elif unsure.state == "identity":
        step = "decide-identity"
    elif unsure.state == "untold":
        step = "ask-hub" if unsure.values["hub"] != "-" else "ask-source"
    elif requirement.deferral is not None:
        step = f"wait-or-{requirement.deferral.kind}"
    else:
        step = "wait-or-ask-hub" if unsure.values["hub"] != "-" else "wait-or-accept"
    return {"next_step": step, "next_values": {**unsure.values, **_terms(requirement)}}


def _terms(requirement: Requirement) -> dict[str, object]:
    """Time and basis of a deferral."""
    deferral = requirement.deferral
    if deferral is None:
        return {}
    return {"days": deferral.within.days if deferral.within else None, "basis": deferral.basis}


def _traced(finding: Finding) -> dict[str, Any]:
    traced: dict[str, Any] = {
        "material": finding.use.material,
        "holder": finding.use.holder,
        "state": finding.state,
        "reason": finding.reason,
    }
    if finding.use.with_:
        traced["with"] = list(finding.use.with_)
    if finding.use.with_named:
        traced["with_named"] = list(finding.use.with_named)
    if own := [holding for holding in finding.holdings if not holding.hub]:
        traced["holdings"] = [
            {"holding": holding.key, "status": holding.status, "conflicting": holding.conflicting} for holding in own
        ]
    if foreign := [holding for holding in finding.holdings if holding.hub]:
        traced["entries"] = [
            {"entry": entry.key, "source": entry.source, "epoch": entry.epoch, "status": entry.status}
            for entry in foreign
        ]
    if finding.state == "late":
        traced["source"] = finding.values["source"]
    return traced
