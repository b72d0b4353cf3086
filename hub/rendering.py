"""Decisions as sentences: what an answer says of each requirement, in Chinese or English."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from connectors import messages
from connectors.documents import Text
from connectors.messages import Language
from hub.resolver import Decision
from mappings import model, regions, wording
from mappings.items import Item, Use


def requirement(item: Item, decision: Decision, lang: Language) -> dict[str, Any]:
    """One requirement decided, in one language, as answers show it."""
    wanted = decision.requirement
    entry: dict[str, Any] = {
        "requirement": wanted.code,
        "name": getattr(wanted.name, lang),
        "materials": list(decision.materials),
        "disposition": decision.disposition,
        "reason": _reason(item, decision, lang),
        "reason_code": decision.reason,
        "legal_basis": getattr(wanted.legal_basis, lang) if wanted.legal_basis else None,
    }
    if decision.lacking:
        entry["lacking"] = [lacking(item, use, lang) for use in decision.lacking]
    if decision.question is not None:
        entry["question"] = _question(item, decision.question, lang)
    if decision.questions:
        entry["questions"] = [_question(item, name, lang) for name in decision.questions]
        if wanted.when is not None:
            entry["needed_if"] = wording.sentence(wanted.when, item.facts, lang)
    if decision.roles_needed:
        entry["roles_needed"] = [
            {"role": role, "name": getattr(item.party(role).name, lang)} for role in decision.roles_needed
        ]
    if decision.next_step is not None:
        entry["next_step"] = messages.text(
            f"answer-{decision.next_step}", lang, **_words(item, decision.next_values, lang)
        )
    if decision.deferred and wanted.deferral is not None:
        within = wanted.deferral.within
        entry["deferral"] = {
            "kind": wanted.deferral.kind,
            "within_days": within.days if within else None,
            "basis": getattr(wanted.deferral.basis, lang),
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
                "handle": holding.key,
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


def lacking(item: Item, use: Use, lang: Language) -> dict[str, Any]:
    """A paper that lacks: which material, whose, of which province where only one will do."""
    return {
        "material": use.material,
        "holder": use.holder,
        "name": wording.paper_of_province(use, item.parties(), lang),
        "region": use.region,
    }


def _reason(item: Item, decision: Decision, lang: Language) -> str:
    text = messages.text(f"answer-{decision.reason}", lang, **_words(item, decision.values, lang))
    if decision.whose is None:
        return text
    return messages.text("answer-whose", lang, role_name=getattr(item.party(decision.whose).name, lang), reason=text)


def _question(item: Item, name: str, lang: Language) -> dict[str, Any]:
    fact = item.facts[name]
    question = {"fact": name, "type": fact.type, "text": getattr(fact.question, lang)}
    return {**question, "values": list(fact.values)} if fact.values else question


def _words(item: Item, values: Mapping[str, object], lang: Language) -> dict[str, object]:
    """Values of a sentence in one language: names for the codes of materials, roles and regions."""
    words = dict(values)
    if isinstance(code := words.get("material"), str):
        material = model.load(code)
        words["material"] = getattr(material.name, lang)
        if isinstance(name := words.get("attribute"), str):
            words["attribute"] = getattr(material.attributes[name].name, lang)
    if isinstance(codes := words.get("materials"), tuple):
        words["materials"] = ("、" if lang == "zh" else ", ").join(getattr(model.load(c).name, lang) for c in codes)
    if isinstance(codes := words.get("regions"), tuple):
        names = [(regions.full_name(code) if lang == "zh" else None) or code for code in codes]
        words["regions"] = ("、" if lang == "zh" else ", ").join(names) or "-"
    if isinstance(basis := words.get("basis"), Text):
        words["basis"] = getattr(basis, lang)
    if isinstance(role := words.get("role"), str):
        words["role_name"] = getattr(item.party(role).name, lang)
    if isinstance(roles := words.get("roles"), tuple):
        words["role_names"] = ("、" if lang == "zh" else ", ").join(getattr(item.party(r).name, lang) for r in roles)
    return words
