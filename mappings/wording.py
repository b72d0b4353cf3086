"""Conditions, and what is wanted of a material, in words for people: ``{not: {any: [a, b]}}`` reads "not a and not b".

A negation is carried down to the tests it is about, so that only "and" and "or" remain, and these are never mixed without
parentheses. What is said is what :mod:`hub.conditions` decides; a property test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping

from connectors import messages
from connectors.messages import Language
from mappings import model, regions
from mappings.items import APPLICANT, Condition, Fact, Party, Predicate, Use

_BRACKETS = {"zh": "（{}）", "en": "({})"}
# The word of an order and of its opposite, by the fact's type.
_AT_LEAST = {"integer": ("at-least", "less-than"), "date": ("not-before", "before")}
_AT_MOST = {"integer": ("at-most", "more-than"), "date": ("not-after", "after")}


def sentence(condition: Condition, facts: Mapping[str, Fact], lang: Language) -> str:
    """``condition`` in words; a fact is named by its question."""
    connective, parts = _parts(condition, facts, lang, negated=False)
    return _joined(connective, parts, lang)


def _parts(
    condition: Condition, facts: Mapping[str, Fact], lang: Language, *, negated: bool
) -> tuple[str | None, list[str]]:
    """The connective of ``condition``, None for a single test, and what it connects."""
    if condition.not_ is not None:
        return _parts(condition.not_, facts, lang, negated=not negated)
    inner = condition.all or condition.any
    if inner is None:
        return None, [_test(condition, facts, lang, negated=negated)]
    if len(inner) == 1:
        return _parts(inner[0], facts, lang, negated=negated)
    connective = "and" if (condition.all is not None) != negated else "or"
    said: list[str] = []
    for part in inner:
        below, words = _parts(part, facts, lang, negated=negated)
        if below in (None, connective):
            said += words
        else:
            said.append(_BRACKETS[lang].format(_joined(below, words, lang)))
    return connective, said


def _joined(connective: str | None, parts: list[str], lang: Language) -> str:
    return messages.text(f"wording-{connective}", lang).join(parts) if connective else parts[0]


def _test(test: Condition, facts: Mapping[str, Fact], lang: Language, *, negated: bool) -> str:
    assert test.fact is not None
    fact, value = facts[test.fact], test.value
    if fact.type == "boolean":
        word = "yes" if value is not negated else "no"
    elif test.is_ is not None:
        word = "is-not" if negated else "is"
    else:
        word = (_AT_LEAST if test.at_least is not None else _AT_MOST)[fact.type][negated]
    said = getattr(fact.words[value], lang) if isinstance(value, str) and value in fact.words else value
    return messages.text(f"wording-{word}", lang, question=getattr(fact.question, lang), value=said)


def paper(use: Use, parties: Mapping[str, Party], lang: Language) -> str:
    """A material and whose it is; ``parties``: the item's by role."""
    applicant = use.holder == APPLICANT
    holder = messages.text("page-applicant", lang).lower() if applicant else getattr(parties[use.holder].name, lang)
    return messages.text("page-of", lang, material=getattr(model.load(use.material).name, lang), holder=holder)


def paper_of_province(use: Use, parties: Mapping[str, Party], lang: Language) -> str:
    """The same, and of which province where only one will do."""
    text = paper(use, parties, lang)
    if use.region is None:
        return text
    return text + (" " if lang == "en" else "") + _BRACKETS[lang].format(_province(use.region, lang))


def _province(region: str, lang: Language) -> str:
    return _say("page-from-province", lang, province=regions.entries()[f"{region}0000"][-1].name, code=region)


def wanted(use: Use, parties: Mapping[str, Party], lang: Language) -> list[str]:
    """What is wanted of a material beside being there: role, whom else it names (of ``parties``, the item's by role), validity
    left, age, province, and what it must say."""
    material = model.load(use.material)
    comma = "、" if lang == "zh" else ", "
    said = []
    if use.as_:
        said.append(
            _say("page-as", lang, roles=comma.join(getattr(material.holders[role].name, lang) for role in use.as_))
        )
    for code, others in (("wording-with", use.with_), ("wording-with-named", use.with_named)):
        if others:
            said.append(_say(code, lang, roles=comma.join(getattr(parties[role].name, lang) for role in others)))
    if use.valid_left:
        said.append(_say("page-valid-left", lang, days=use.valid_left.days))
    if use.max_age is not None:
        said.append(_say("wording-max-age", lang, days=use.max_age.days))
    if use.region is not None:
        said.append(_province(use.region, lang))
    return said + [predicate(each, use.material, lang) for each in use.where]


def predicate(wanted_: Predicate, material: str, lang: Language) -> str:
    """What an attribute of ``material`` has to be, in words."""
    attribute = model.load(material).attributes[wanted_.attribute]
    values = (" / " if lang == "en" else "、").join(_value(value, lang) for value in wanted_.values)
    if wanted_.currency is not None:
        values = f"{values} {wanted_.currency}"
    order = "date" if attribute.type == "date" else "number"
    test = (
        f"{wanted_.test.replace('_', '-')}-{order}"
        if wanted_.test.startswith("at_")
        else wanted_.test.replace("_", "-")
    )
    return _say(f"wording-attribute-{test}", lang, attribute=getattr(attribute.name, lang), value=values)


def _value(value: bool | int | str, lang: Language) -> str:
    return _say("page-yes" if value else "page-no", lang) if isinstance(value, bool) else str(value)


def _say(code: str, lang: Language, /, **values: object) -> str:
    return messages.text(code, lang, **values)
