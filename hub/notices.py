"""The one-time notice 一次性告知书: everything that is missing, in one go, and what would satisfy each part of it.

Made from stored answers that were given together, in the words of the published guide (:mod:`hub.guides`), so that notice
and guide cannot disagree. It names nobody: beside the number of the case it holds nothing of who asked or about whom.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import orjson
import sqlalchemy as sa

from connectors import messages
from connectors.errors import UsageError
from connectors.messages import Language
from hub import catalogue, findings, guides, papers, records
from hub.papers import Paper
from mappings import model, wording
from mappings.items import Item, Requirement, Use

HTML, POLICY = guides.HTML, guides.POLICY
HELD = ("held", "alternative_held", "held_elsewhere")
MISSING = ("submit", "expired")
# Why, for whom it is about: the answer's own sentences are for those who run systems, and name them.
WHY = {
    "absent": "absent", "no-source": "absent", "expired": "expired", "validity-short": "validity-short",
    "not-yet-valid": "not-yet-valid", "suspended": "suspended", "revoked": "revoked", "cancelled": "cancelled",
    "too-old": "too-old", "attribute-unfit": "unfit", "age-untold": "untold", "attribute-untold": "untold",
    "source-late": "late", "volatile-late": "late", "hub-late": "late", "role-missing": "role-missing",
    "deferred-later": "absent", "deferred-promise": "absent", "fact-missing": "fact-missing",
}  # fmt: skip
WAITS = ("untold", "late", "unclear")

# Answers to one question have the same moment; answers to others at that moment differ in client, case or applicant.
_TOGETHER = sa.text("""
SELECT o.id::text AS answer, o.item FROM answer AS a JOIN answer AS o
  ON o.asked_at = a.asked_at AND o.client = a.client AND o.purpose = a.purpose
  AND o."case" IS NOT DISTINCT FROM a."case" AND (o.id = a.id OR o.applicant = a.applicant)
WHERE a.id = :answer AND a.asked_at = :asked_at
ORDER BY length(regexp_replace(substring(coalesce(o.inputs, '') FROM '"asked_for":\\[[^]]*\\]'), '[^"]', '', 'g')), o.id
""")

_TEXT: dict[str, Any] = {"type": "string"}
_OPEN = {"type": ["string", "null"]}
_WANTED = {
    "type": "object",
    "properties": {"material": _TEXT, "name": _TEXT, "holder": _TEXT, "text": _TEXT, "wanted": {"type": "array", "items": _TEXT}},
    "required": ["material", "name", "holder", "text", "wanted"],
}  # fmt: skip
_PAPER = {
    "type": "object",
    "properties": {"material": _TEXT, "name": _TEXT, "holder": _TEXT, "text": {**_TEXT, "description": "Name and whose it is."}},
    "required": ["material", "name", "holder", "text"],
}  # fmt: skip
_REQUIREMENT: dict[str, Any] = {
    "item": _TEXT,
    "requirement": _TEXT,
    "name": _TEXT,
    "disposition": _TEXT,
    "reason": _TEXT,
    "legal_basis": _OPEN,
    "materials": {"type": "array", "items": _PAPER, "description": "What is lacking of the preferred option."},
    "options": {
        "type": "array",
        "items": {"type": "array", "items": _WANTED},
        "description": "What is lacking of each option: any one of them will do.",
    },
    "next_step": _OPEN,
    "question": _OPEN,
    "questions": {"type": "array", "items": _TEXT, "description": "Every question that decides it."},
    "needed_if": {**_OPEN, "description": "Which answers make it needed."},
    "roles_needed": {
        "type": "array",
        "items": {"type": "object", "properties": {"role": _TEXT, "name": _TEXT}, "required": ["role", "name"]},
        "description": "Every party that has to be named.",
    },
    "terms": _OPEN,
}  # fmt: skip
_PART = {"type": "array", "items": {"type": "object", "properties": _REQUIREMENT, "required": list(_REQUIREMENT)}}
_ITEM: dict[str, Any] = {
    "item": _TEXT,
    "item_name": _TEXT,
    "version": {"type": "integer"},
    "body": _OPEN,
    "answer": _TEXT,
}
_NOTICE: dict[str, Any] = {
    "case": _OPEN,
    "asked_at": _TEXT,
    "as_of": _TEXT,
    "items": {"type": "array", "items": {"type": "object", "properties": _ITEM, "required": list(_ITEM)}},
    "must_submit": {"type": "array", "items": _PAPER, "description": "Each person's paper once over all items."},
    "missing": _PART,
    "deferred": _PART,
    "open": _PART,
    "held": {"type": "array", "items": _PAPER, "description": "What is there, also where others of an option lack."},
}
SCHEMA = {"type": "object", "properties": _NOTICE, "required": list(_NOTICE), "additionalProperties": False}


def notice(engine: sa.Engine, answer: str, lang: Language) -> dict[str, Any]:
    """What is missing by ``answer`` and those given together with it, as :data:`SCHEMA` says.

    UsageError ``answer-unknown``; ``notice-impossible`` where the rules an answer was made under are no longer there.
    """
    with engine.connect() as connection:
        row = records.found(connection, answer)
        named = connection.execute(_TOGETHER, {"answer": row.id, "asked_at": row.asked_at}).all()
        together = list({item: found for found, item in reversed(named)}.items())[::-1]
        parties = {found: _people(records.found(connection, found)) for _, found in together}
    explained = [records.explain(engine, found, lang) for _, found in together]
    made: dict[str, Any] = {
        "case": row.case,
        "asked_at": explained[0]["asked_at"],
        "as_of": explained[0]["asked_at"],
        "items": [],
        "must_submit": [],
        "missing": [],
        "deferred": [],
        "open": [],
        "held": [],
    }
    asked: dict[Paper, dict[str, str]] = {}
    held: dict[Paper, dict[str, str]] = {}
    for one in explained:
        # Without what was decided, or the rules that it was decided under, there is nothing to say.
        if one["body"] is None or (item := _version(one)) is None or not one["trace"]["requirements"]:
            raise UsageError("notice-impossible")
        made["as_of"] = one["body"]["as_of"]
        made["items"].append({
            "item": item.code,
            "item_name": getattr(item.name, lang),
            "version": item.version,
            "body": getattr(item.guide.body, lang) if item.guide.body else None,
            "answer": one["answer"],
        })  # fmt: skip
        _sort(made, one, _Told(item, parties[one["answer"]], lang, asked, held))
    made["must_submit"] = list(asked.values())
    wanted = {paper[:2] for paper in asked}
    made["held"] = [shown for paper, shown in held.items() if paper[:2] not in wanted]
    return made


@dataclass(frozen=True)
class _Told:
    """One item, and in words the papers that are asked for and held over all items: the first that speaks of one names it."""

    item: Item
    people: Mapping[str, str]
    lang: Language
    asked: dict[Paper, dict[str, str]]
    held: dict[Paper, dict[str, str]]

    def add(self, told: dict[Paper, dict[str, str]], uses: Sequence[Use]) -> None:
        for paper, use in papers.new(uses, self.people, told).items():
            if paper.region is not None:  # will do for the one of whichever province that was named before
                told.pop(papers.anywhere(paper), None)
            told[paper] = self.named(use)

    def named(self, use: Use) -> dict[str, str]:
        return {
            "material": use.material,
            "name": getattr(model.load(use.material).name, self.lang),
            "holder": use.holder,
            "text": wording.paper_of_province(use, self.item.parties(), self.lang),
        }


def _people(row: sa.Row[Any]) -> dict[str, str]:
    """Keyed hashes of the parties of an answer, by role."""
    return {role: digest for role, (digest, _) in orjson.loads(row.inputs)["parties"].items()} if row.inputs else {}


def json(made: Mapping[str, Any]) -> bytes:
    """The notice as JSON."""
    return orjson.dumps(made, option=orjson.OPT_INDENT_2) + b"\n"


def html(made: Mapping[str, Any], lang: Language) -> bytes:
    """The notice as one page that needs nothing else; made to fit one sheet of A4, of an item or a bundle; what is
    asked about many more items than go together may take a second."""
    page = _templates().get_template("notice.html")
    at = dt.datetime.fromisoformat(made["as_of"])
    say = functools.partial(_say, lang)
    names = {item["item"]: item["item_name"] for item in made["items"]}
    shown = findings.minute(at)[:16].replace("T", " ")
    return page.render(lang=lang, notice=made, say=say, names=names, as_of=shown, unnamed=unnamed).encode()


def unnamed(entries: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """What is open: where a party is not named and nothing else decides whether it is needed; and the rest."""
    certain = [each for each in entries if each["roles_needed"] and not each["questions"] and not each["needed_if"]]
    return certain, [each for each in entries if each not in certain]


def _sort(made: dict[str, Any], one: Mapping[str, Any], told: _Told) -> None:
    """Put each requirement of one answer where it belongs, and what it asks for and has with what the others do."""
    item, lang = told.item, told.lang
    published = {entry["requirement"]: entry for entry in guides.guide(item, lang)["requirements"]}
    rules = zip(item.requirements, one["trace"]["requirements"], one["body"]["requirements"], strict=True)
    for requirement, rule, said in rules:
        disposition = said["disposition"]
        place = (
            "missing" if disposition in MISSING else {"deferred": "deferred", "undetermined": "open"}.get(disposition)
        )
        states = _states(requirement, rule)
        if disposition in HELD:
            whole = (found for found in states if all(state in findings.PRESENT for _, state in found))
            told.add(told.held, [use for use, _ in next(whole, ())])
        if place is None:
            continue
        for found in states:
            told.add(told.held, [use for use, state in found if state in findings.PRESENT])
        lacking = _lacking(states, said["reason_code"], open_=place == "open")
        if place == "missing":
            told.add(told.asked, lacking)
        wanted = published[said["requirement"]]
        why = WHY.get(said["reason_code"], "unclear" if place == "open" else "absent")
        made[place].append({
            "item": item.code,
            "requirement": said["requirement"],
            "name": said["name"],
            "disposition": disposition,
            "reason": _say(lang, f"why-{why}"),
            "legal_basis": said["legal_basis"],
            "materials": [told.named(use) for use in lacking],
            "options": [
                [shown for shown, (_, state) in zip(option, found, strict=True) if state not in findings.PRESENT]
                for option, found in zip(wanted["options"], states, strict=True)
            ],
            "next_step": _next(why, lang) if place == "open" else None,
            "question": said["question"]["text"] if "question" in said else None,
            "questions": [each["text"] for each in said.get("questions", ())],
            "needed_if": said.get("needed_if"),
            "roles_needed": said.get("roles_needed", []),
            "terms": _terms(wanted["deferral"], lang),
        })  # fmt: skip


def _states(requirement: Requirement, rule: Mapping[str, Any]) -> list[list[tuple[Use, str]]]:
    """What became of each paper of each option when the answer was given; missing, where the item read otherwise then."""
    traced = [[(use["material"], use["holder"], use["state"]) for use in option] for option in rule["options"]]
    found = [
        [(use, state) for use, (material, holder, state) in zip(option.materials, known, strict=False)
         if (use.material, use.holder) == (material, holder)]
        for option, known in zip(requirement.options, traced, strict=False)
    ]  # fmt: skip
    if [len(one) for one in found] == [len(option.materials) for option in requirement.options]:
        return found
    return [[(use, "missing") for use in option.materials] for option in requirement.options]


def _lacking(states: Sequence[Sequence[tuple[Use, str]]], reason: str, *, open_: bool) -> list[Use]:
    """What is not there of the option that is spoken of: the first that may yet do, where something is open about it, else the first."""
    if not open_:
        return [use for use, state in states[0] if state in ("missing", "expired")]
    may = (found for found in states if all(state in findings.PRESENT + findings.OPEN for _, state in found))
    spoken = states[0] if reason == "fact-missing" else next(may, states[0])
    return [use for use, state in spoken if state not in findings.PRESENT]


def _next(why: str, lang: Language) -> str | None:
    """What the applicant can do about what is open."""
    if why == "role-missing":
        return _say(lang, "step-role")
    return _say(lang, "step-wait") if why in WAITS else None


def _terms(deferral: Mapping[str, Any] | None, lang: Language) -> str | None:
    """On what terms a requirement may be met later, in the guide's words."""
    if deferral is None:
        return None
    text = messages.text(f"page-deferral-{deferral['kind']}", lang, days=deferral["within_days"])
    return text + ("；" if lang == "zh" else "; ") + deferral["basis"]


def _version(one: Mapping[str, Any]) -> Item | None:
    versions = catalogue.published().get(one["item"], ())
    return next((item for item in versions if item.version == one["trace"].get("version")), None)


def _say(lang: Language, name: str, **values: object) -> str:
    return messages.text(f"notice-{name}", lang, **values)


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("hub", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
