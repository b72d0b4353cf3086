"""What a guide 办事指南 says beside the requirements, in words: the same for the pages of the model and for applicants."""

from __future__ import annotations

from connectors import messages
from connectors.messages import Language
from mappings.guidance import Guidance, PublishedException, Step

# Types of items as published, and what they are called.
_TYPES = {
    "行政许可": "licensing",
    "行政确认": "confirmation",
    "行政给付": "payment",
    "行政奖励": "award",
    "行政裁决": "adjudication",
    "公共服务": "service",
    "其他行政权力": "other",
}


def item_type(published: str, lang: Language) -> str:
    """The type of an item; one that nobody knows stands as it was published."""
    known = _TYPES.get(published)
    return published if known is None or lang == "zh" else _say(f"type-{known}", lang)


def facts(guide: Guidance, lang: Language) -> list[tuple[str, str | None]]:
    """Label and text of each short statement, in the order of a guide; None: it is not published."""
    limits, fee, contact = guide.limits, guide.fee, guide.contact
    said = {
        "body": getattr(guide.body, lang) if guide.body else None,
        "limit-statutory": limit(limits.statutory if limits else None, lang),
        "limit-promised": limit(limits.promised if limits else None, lang),
        "visits": _visits(guide.visits, lang),
        "channels": _comma(lang).join(_say(f"channel-{each}", lang) for each in guide.channels) or None,
        "fee": None,
        "address": getattr(contact.address, lang) if contact and contact.address else None,
        "phone": contact.phone if contact else None,
        "hours": getattr(contact.hours, lang) if contact and contact.hours else None,
    }
    if fee is not None:
        said["fee"] = _say("fee-amount", lang, amount=f"{fee.amount:f}") if fee.amount else _say("fee-none", lang)
        if fee.basis is not None:
            said["fee"] += ("；" if lang == "zh" else "; ") + getattr(fee.basis, lang)
    return [(_say(name, lang), text) for name, text in said.items()]


def limit(days: int | None, lang: Language) -> str | None:
    """A time limit in working days; 0 is at once."""
    if days is None:
        return None
    return _say("at-once" if days == 0 else "working-days", lang, days=days)


def step(each: Step, lang: Language) -> str:
    """One step with who takes it, where, and how long it takes."""
    more = [getattr(each.body, lang) if each.body else _say(f"who-{each.who}", lang)]
    more.append("/".join(_say(f"channel-{channel}", lang) for channel in each.at))
    if (days := limit(each.days, lang)) is not None:
        more.append(days)
    if each.parallel:
        more.append(_say("parallel", lang))
    brackets = "（{}）" if lang == "zh" else " ({})"
    return getattr(each.name, lang) + brackets.format(("，" if lang == "zh" else ", ").join(more))


def exception(each: PublishedException, lang: Language) -> str:
    """One published exception with its reason."""
    return _say(f"exception-{each.to}", lang) + ("：" if lang == "zh" else ": ") + getattr(each.reason, lang)


def _visits(visits: int | None, lang: Language) -> str | None:
    if visits is None:
        return None
    return _say(f"visits-{visits}" if visits < 2 else "visits-more", lang, visits=visits)


def _comma(lang: Language) -> str:
    return "、" if lang == "zh" else ", "


def _say(name: str, lang: Language, **values: object) -> str:
    return messages.text(f"guide-{name}", lang, **values)
