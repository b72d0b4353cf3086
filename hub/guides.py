"""Guides 办事指南: one version of an item as an applicant reads it, as a page (HTML) and as JSON, in Chinese or English.

Online and at the window it is the same: the HTTP API and `yici items guide` give the same bytes, which hold nothing of the
moment or of who asks. What the authority has not published, the page says is not published.
"""

from __future__ import annotations

import functools
from typing import Any

import jinja2
import orjson

from connectors import messages
from connectors.messages import Language
from hub import catalogue
from mappings import guide_words, model, regions, wording
from mappings.items import Item, Option, Requirement

HTML = "text/html"
# The page needs nothing from anywhere: no script, no image, its own style.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def guide(item: Item, lang: Language) -> dict[str, Any]:
    """The guide of one version as data; None where nothing is published."""
    published, contact = item.guide, item.guide.contact
    limits, fee = published.limits, published.fee
    described = catalogue.described(item, lang)
    kept = (
        "item",
        "item_name",
        "basic_code",
        "invented",
        "type",
        "level",
        "region",
        "version",
        "in_force",
        "legal_basis",
    )
    return {
        **{name: described[name] for name in kept},
        "region_name": regions.full_name(item.region),
        "successor": item.successor,
        "applicant": getattr(item.applicant.name, lang),
        "body": getattr(published.body, lang) if published.body else None,
        "limits": {
            "statutory_working_days": limits.statutory if limits else None,
            "promised_working_days": limits.promised if limits else None,
        },
        "visits": published.visits,
        "channels": list(published.channels),
        "fee": {
            "amount": f"{fee.amount:f}",
            "currency": "CNY",
            "basis": getattr(fee.basis, lang) if fee.basis else None,
        }
        if fee
        else None,
        "contact": {
            "address": getattr(contact.address, lang) if contact and contact.address else None,
            "phone": contact.phone if contact else None,
            "hours": getattr(contact.hours, lang) if contact and contact.hours else None,
        },
        "steps": [
            {
                "name": getattr(step.name, lang),
                "who": step.who,
                "at": list(step.at),
                "working_days": step.days,
                "body": getattr(step.body, lang) if step.body else None,
                "parallel": step.parallel,
            }
            for step in published.steps
        ],
        "exceptions": [{"to": each.to, "reason": getattr(each.reason, lang)} for each in published.exceptions],
        "questions": described["facts"],
        "requirements": [_requirement(item, requirement, lang) for requirement in item.requirements],
        "note": getattr(item.note, lang) if item.note else None,
    }


def json(item: Item, lang: Language) -> bytes:
    """The guide as JSON."""
    return orjson.dumps(guide(item, lang), option=orjson.OPT_INDENT_2) + b"\n"


def html(item: Item, lang: Language) -> bytes:
    """The guide as one page that needs nothing else."""
    shown = guide(item, lang)
    force = shown["in_force"]
    page = (
        _templates()
        .get_template("guide.html")
        .render(
            lang=lang,
            guide=shown,
            say=functools.partial(_say, lang),
            label=functools.partial(_label, lang),
            type=guide_words.item_type(item.type, lang),
            facts=guide_words.facts(item.guide, lang),
            steps=[guide_words.step(step, lang) for step in item.guide.steps],
            exceptions=[guide_words.exception(each, lang) for each in item.guide.exceptions],
            force=_say(lang, "from-to" if force["to"] else "from", start=force["from"], end=force["to"]),
        )
    )
    return page.encode()


def _requirement(item: Item, requirement: Requirement, lang: Language) -> dict[str, Any]:
    """One requirement in words; ``asked`` is false where no law asks for it: then nobody may."""
    deferral = requirement.deferral
    return {
        "requirement": requirement.code,
        "name": getattr(requirement.name, lang),
        "asked": requirement.legal_basis is not None,
        "legal_basis": getattr(requirement.legal_basis, lang) if requirement.legal_basis else None,
        "condition": wording.sentence(requirement.when, item.facts, lang) if requirement.when else None,
        "options": [_option(item, option, lang) for option in requirement.options],
        "deferral": {
            "kind": deferral.kind,
            "within_days": deferral.within.days if deferral.within else None,
            "basis": getattr(deferral.basis, lang),
        }
        if deferral
        else None,
    }


def _option(item: Item, option: Option, lang: Language) -> list[dict[str, Any]]:
    return [
        {
            "material": use.material,
            "name": getattr(model.load(use.material).name, lang),
            "holder": use.holder,
            "text": wording.paper(use, item.parties(), lang),
            "wanted": wording.wanted(use, item.parties(), lang),
        }
        for use in option.materials
    ]


def _say(lang: Language, name: str, **values: object) -> str:
    return messages.text(f"guide-{name}", lang, **values)


def _label(lang: Language, name: str, **values: object) -> str:
    return messages.text(f"page-{name}", lang, **values)


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("hub", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
