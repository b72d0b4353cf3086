"""From a question to a stored answer: who is meant, what is known, what follows, in the asked language."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from connectors import messages
from connectors.documents import Text
from connectors.errors import UsageError
from connectors.messages import Language
from hub import catalogue, findings, holdings, resolver, schema
from hub.home import identifier_text, keyed_hash
from hub.resolver import Decision, Resolution
from mappings import model, regions, scalars, schemes
from mappings.items import APPLICANT, FactValue, Item
from mappings.scalars import Identifier

MAX_ITEMS = 20
EARLIEST_YEAR = 1900  # nothing was recorded before, and the calendar's ends have no other time zone
CLOCK_SKEW = dt.timedelta(seconds=5)


@dataclass(frozen=True)
class Question:
    """What a client asks. ``applicant`` and ``roles`` are identifiers, ``scheme:value`` or a value that tells its scheme."""

    items: tuple[str, ...]
    applicant: str = field(repr=False)
    client: str
    purpose: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict, repr=False)
    case: str | None = None
    as_of: dt.datetime | None = None
    language: Language = "en"


def ask(engine: sa.Engine, question: Question) -> list[dict[str, Any]]:
    """Answer every item once, in order, and store each answer before it is given.

    UsageError says what is wrong with the question: an unknown item, an invalid identifier, a fact of the wrong type, an
    ``as_of`` still to come.
    """
    asked_at = dt.datetime.now(dt.UTC)
    if question.as_of is not None:
        if question.as_of.year < EARLIEST_YEAR:
            raise UsageError("as-of-invalid")
        if question.as_of > asked_at + CLOCK_SKEW:
            raise UsageError("as-of-future")
    moment = question.as_of or asked_at
    identifiers = _identifiers(question)
    hashing = keyed_hash()
    digests = {
        role: hashing.of(identifier_text(found.scheme or "", found.normalised or ""))
        for role, found in identifiers.items()
    }
    with engine.begin() as connection:
        day = moment.astimezone(findings.CHINA).date()
        items = [catalogue.find(connection, code, day) for code in dict.fromkeys(question.items)]
        _check(items, question, identifiers)
        materials = sorted({code for item in items for code in item.materials()})
        holders = {digests[role]: (found.scheme or "", found.normalised or "") for role, found in identifiers.items()}
        if question.as_of is None:
            known = holdings.current(connection, holders, materials)
        else:
            known = holdings.recorded(connection, holders, materials, moment)
        parties = {
            role: findings.Party(digests[role], findings.province(found.scheme or "", found.normalised or ""))
            for role, found in identifiers.items()
        }
        answers, rows, asked_for = [], [], set[str]()
        for item in items:
            facts = {name: question.facts[name] for name in item.facts if name in question.facts}
            own = {role: party for role, party in parties.items() if role == APPLICANT or role in item.roles}
            resolution = resolver.resolve(item, facts, own, known, catalogue.volatile(), moment)
            once = [code for code in resolution.must_submit if code not in asked_for]
            body = _body(resolution, once, asked_at, moment, question.language)
            inputs = {
                "item": item.code,
                "version": item.version,
                "facts": facts,
                "parties": {role: party.digest.hex() for role, party in own.items()},
                "as_of": moment.isoformat() if question.as_of else None,
                "asked_for": sorted(asked_for),
            }
            rows.append(_row(question, item, body, inputs, _trace(resolution, facts, known, moment, day, own)))
            answers.append(body)
            asked_for.update(once)
        connection.execute(sa.insert(schema.answer), rows)
    return answers


def explain(engine: sa.Engine, answer: str) -> dict[str, Any]:
    """The stored answer ``answer`` with its trace. UsageError ``answer-unknown``."""
    try:
        key = uuid.UUID(answer)
    except ValueError:
        raise UsageError("answer-unknown") from None
    with engine.connect() as connection:
        row = connection.execute(sa.select(schema.answer).where(schema.answer.c.id == key)).first()
    if row is None:
        raise UsageError("answer-unknown")
    return {
        "answer": str(row.id),
        "item": row.item,
        "asked_at": row.asked_at.astimezone(dt.UTC).isoformat(),
        "client": row.client,
        "purpose": row.purpose,
        "case": row.case,
        "inputs_digest": row.inputs_digest.hex(),
        "trace": row.trace,
        "body": row.body,
    }


def fact_from_text(items: list[Item], name: str, text: str) -> FactValue:
    """A fact typed on a command line, by the declaration of the item that knows it. UsageError when it does not fit."""
    fact = next((item.facts[name] for item in items if name in item.facts), None)
    if fact is None:
        raise _unknown_fact(items, name)
    value: object = text
    if fact.type == "boolean":
        value = {"true": True, "yes": True, "是": True, "false": False, "no": False, "否": False}.get(text.lower())
    elif fact.type == "integer":
        value = int(text) if text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 16 else None
    if not fact.accepts(value):
        raise UsageError("fact-type", fact=name, type=_expected(fact))
    assert isinstance(value, bool | int | str)
    return value


def _identifiers(question: Question) -> dict[str, Identifier]:
    given = {APPLICANT: question.applicant, **question.roles}
    if APPLICANT in question.roles:
        raise UsageError("role-unknown", role=APPLICANT, known="-")
    found = {}
    for role, text in given.items():
        found[role] = identifier = scalars.parse(text)
        if identifier.verdict == "invalid" or identifier.scheme is None or not identifier.normalised:
            raise UsageError("identifier-invalid", who=catalogue.shown(role), reasons=identifier.reason or "-")
    return found


def _check(items: list[Item], question: Question, identifiers: Mapping[str, Identifier]) -> None:
    """Facts and roles must be declared by an item, and of the kind declared."""
    for name, value in question.facts.items():
        declared = [item.facts[name] for item in items if name in item.facts]
        if not declared:
            raise _unknown_fact(items, name)
        for fact in declared:
            if not fact.accepts(value):
                raise UsageError("fact-type", fact=name, type=_expected(fact))
    for role, identifier in identifiers.items():
        parties = [item.party(role) for item in items if role == APPLICANT or role in item.roles]
        if not parties:
            known = ", ".join(sorted({name for item in items for name in item.roles})) or "-"
            raise UsageError("role-unknown", role=catalogue.shown(role), known=known)
        for party in parties:
            if identifier.scheme not in party.schemes:
                raise UsageError("identifier-unfit", who=role, scheme=identifier.scheme, kind=party.kind)


def _unknown_fact(items: list[Item], name: str) -> UsageError:
    known = ", ".join(sorted({fact for item in items for fact in item.facts})) or "-"
    return UsageError("fact-unknown", fact=catalogue.shown(name), known=known)


def _expected(fact: Any) -> str:
    return f"{fact.type} ({', '.join(fact.values)})" if fact.values else str(fact.type)


def _body(
    resolution: Resolution, must_submit: list[str], asked_at: dt.datetime, moment: dt.datetime, lang: Language
) -> dict[str, Any]:
    item = resolution.item
    return {
        "answer": str(uuid.uuid4()),
        "item": item.code,
        "item_name": getattr(item.name, lang),
        "asked_at": asked_at.isoformat(),
        "as_of": moment.astimezone(dt.UTC).isoformat(),
        "requirements": [_requirement(item, decision, lang) for decision in resolution.decisions],
        "must_submit": must_submit,
    }


def _requirement(item: Item, decision: Decision, lang: Language) -> dict[str, Any]:
    requirement = decision.requirement
    entry: dict[str, Any] = {
        "requirement": requirement.code,
        "name": getattr(requirement.name, lang),
        "materials": list(decision.materials),
        "disposition": decision.disposition,
        "reason": messages.text(f"answer-{decision.reason}", lang, **_words(item, decision.values, lang)),
        "reason_code": decision.reason,
        "legal_basis": getattr(requirement.legal_basis, lang) if requirement.legal_basis else None,
    }
    if decision.question is not None:
        fact = item.facts[decision.question]
        entry["question"] = {"fact": decision.question, "type": fact.type, "text": getattr(fact.question, lang)}
        if fact.values:
            entry["question"]["values"] = list(fact.values)
    if decision.next_step is not None:
        entry["next_step"] = messages.text(
            f"answer-{decision.next_step}", lang, **_words(item, decision.next_values, lang)
        )
    if decision.deferred and requirement.deferral is not None:
        within = requirement.deferral.within
        entry["deferral"] = {
            "kind": requirement.deferral.kind,
            "within_days": within.days if within else None,
            "basis": getattr(requirement.deferral.basis, lang),
            "materials": list(decision.deferred),
        }
    if own := [(use, holding) for use, holding in decision.holdings if not holding.hub]:
        entry["holdings"] = [
            {
                "holding": holding.key,
                "material": holding.material,
                "holder": use.holder,
                "valid_to": holding.valid_to.isoformat() if holding.valid_to else None,
                "region": holding.region,
            }
            for use, holding in own
        ]
    if foreign := [(use, holding) for use, holding in decision.holdings if holding.hub]:
        entry["elsewhere"] = [
            {
                "hub": holding.hub,
                "source": holding.source,
                "material": holding.material,
                "holder": use.holder,
                "region": holding.region,
                "valid_to": holding.valid_to.isoformat() if holding.valid_to else None,
                "as_of": holding.as_of.astimezone(dt.UTC).isoformat() if holding.as_of else None,
            }
            for use, holding in foreign
        ]
    if decision.holdings:
        rows = {(row.source, row.file, row.row) for _, holding in decision.holdings for row in holding.provenance}
        entry["provenance"] = [{"source": source, "file": file, "row": row} for source, file, row in sorted(rows)]
    return entry


def _words(item: Item, values: Mapping[str, object], lang: Language) -> dict[str, object]:
    """Values of a sentence in one language: names for the codes of materials, roles and regions."""
    words = dict(values)
    if isinstance(code := words.get("material"), str):
        words["material"] = getattr(model.load(code).name, lang)
    if isinstance(codes := words.get("materials"), tuple):
        words["materials"] = ("、" if lang == "zh" else ", ").join(getattr(model.load(c).name, lang) for c in codes)
    if isinstance(codes := words.get("regions"), tuple):
        names = [(regions.full_name(code) if lang == "zh" else None) or code for code in codes]
        words["regions"] = ("、" if lang == "zh" else ", ").join(names) or "-"
    if isinstance(basis := words.get("basis"), Text):
        words["basis"] = getattr(basis, lang)
    if isinstance(role := words.get("role"), str):
        words["role_name"] = getattr(item.party(role).name, lang)
    return words


def _trace(
    resolution: Resolution,
    facts: Mapping[str, FactValue],
    known: holdings.Known,
    moment: dt.datetime,
    day: dt.date,
    parties: Mapping[str, findings.Party],
) -> dict[str, Any]:
    through = {
        role: known.people.through[party.digest]
        for role, party in parties.items()
        if party.digest in known.people.through
    }
    return {
        "item": resolution.item.code,
        "version": resolution.item.version,
        "day": day.isoformat(),
        "facts": dict(facts),
        "sources": [
            {
                "source": source.source,
                "material": source.material,
                "last_success_at": source.last_success_at.isoformat() if source.last_success_at else None,
                "late": source.late(moment),
                **({"hub": source.hub, "region": source.region} if source.hub else {}),
            }
            for source in sorted(known.sources, key=lambda source: (source.source, source.material, source.region))
        ],
        # Which rows and decisions say that what is held under another number is theirs.
        **({"identity": through} if through else {}),
        "requirements": [dict(decision.trace) for decision in resolution.decisions],
    }


def _row(
    question: Question, item: Item, body: dict[str, Any], inputs: dict[str, Any], trace: dict[str, Any]
) -> dict[str, Any]:
    canonical = json.dumps(inputs, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return {
        "id": uuid.UUID(body["answer"]),
        "asked_at": dt.datetime.fromisoformat(body["asked_at"]),
        "client": question.client,
        "purpose": question.purpose,
        "case": question.case,
        "item": item.code,
        "inputs_digest": hashlib.sha256(canonical.encode()).digest(),
        "body": body,
        "trace": trace,
    }


def names_somebody(text: str) -> bool:
    """Whether ``text`` reads as an identifier: such a text must not become a case number or a label."""
    found = scalars.parse(text)
    return found.scheme in schemes.SCHEMES and found.verdict != "invalid"
