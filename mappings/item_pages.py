"""What the page of a service item or bundle says: who asks, what is asked about, what is needed when, and on what basis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from connectors.messages import Language
from mappings import bundles, guide_words, model, wording
from mappings.bundles import Bundle
from mappings.items import APPLICANT, Deferral, Fact, Item, Option, Party, Requirement, Use
from mappings.markdown import code, link, listed, plain, table
from mappings.material_pages import comma, label, region


def page(item: Item, whole: Sequence[Bundle], lang: Language, earlier: Sequence[Item] = ()) -> Iterator[str]:
    """The blocks of one item in one language; ``earlier``: its versions before this one."""
    parents = [bundle for bundle in whole if item.code in bundle.items]
    yield table([label("code", lang), code(item.code)], _head(item, parents, earlier, lang))
    yield from _guide(item, lang)
    yield from _asked(item.roles, item.facts, lang)
    yield f"### {label('requirements', lang)}"
    for place, requirement in enumerate(item.requirements, start=1):
        yield f"#### {place}. {plain(getattr(requirement.name, lang))}"
        yield listed(_requirement(item, requirement, lang))


def bundle(asked: Bundle, items: Sequence[Item], lang: Language) -> Iterator[str]:
    """The blocks of one bundle in one language."""
    known = {item.code: item for item in items}
    parts = [known[part] for part in asked.items]
    rows = [
        [label("basis", lang), plain(getattr(asked.legal_basis, lang))],
        [label("applicant", lang), _party(parts[0].applicant, lang)],
    ]
    if asked.note is not None:
        rows.append([label("note", lang), plain(getattr(asked.note, lang))])
    yield table([label("code", lang), code(asked.code)], rows)
    yield f"### {label('items', lang)}"
    yield listed((link(plain(getattr(part.name, lang)), f"{part.code}.md") for part in parts), numbered=True)
    yield from _asked(bundles.roles(parts), bundles.facts(parts), lang)


def index(items: Sequence[Item], whole: Sequence[Bundle], lang: Language) -> Iterator[str]:
    """The blocks of the page that lists every bundle and item."""
    if whole:
        yield f"### {label('bundles', lang)}"
        yield label("bundles-about", lang, code=whole[0].code)
        known = {item.code: item for item in items}
        yield table(
            [label(word, lang) for word in ("name", "code", "items")],
            [
                [
                    link(plain(getattr(each.name, lang)), f"{each.code}.md"),
                    code(each.code),
                    comma(lang).join(plain(getattr(known[part].name, lang)) for part in each.items),
                ]
                for each in whole
            ],
        )
    yield f"### {label('items', lang)}"
    yield plain(label("items-about", lang))
    yield table(
        [label(word, lang) for word in ("name", "code", "applicant", "region", "basis")],
        [
            [
                link(plain(getattr(item.name, lang)), f"{item.code}.md"),
                code(item.code),
                plain(getattr(item.applicant.name, lang)),
                region(item.region),
                plain(getattr(item.legal_basis, lang)),
            ]
            for item in items
        ],
    )


def _head(item: Item, parents: Sequence[Bundle], earlier: Sequence[Item], lang: Language) -> Iterator[list[str]]:
    number = code(item.basic_code)
    yield [label("basic-code", lang), label("invented", lang, code=number) if item.invented else number]
    yield [label("item-type", lang), plain(guide_words.item_type(item.type, lang))]
    yield [label("region", lang), region(item.region)]
    yield [label("level", lang), label(f"level-{item.level}", lang)]
    yield [label("version", lang), _version(item, lang)]
    if earlier:
        yield [label("earlier", lang), ("；" if lang == "zh" else "; ").join(_version(each, lang) for each in earlier)]
    if item.successor is not None:
        yield [label("successor", lang), code(item.successor)]
    yield [label("basis", lang), plain(getattr(item.legal_basis, lang))]
    yield [label("applicant", lang), _party(item.applicant, lang)]
    if parents:
        yield [
            label("in-bundles", lang),
            comma(lang).join(link(plain(getattr(each.name, lang)), f"{each.code}.md") for each in parents),
        ]
    if item.note is not None:
        yield [label("note", lang), plain(getattr(item.note, lang))]


def _version(item: Item, lang: Language) -> str:
    force = item.in_force
    word = "version-from-to" if force.to else "version-from"
    return label(word, lang, version=item.version, start=force.from_, end=force.to)


def _guide(item: Item, lang: Language) -> Iterator[str]:
    """What is published about how it is done; nothing is said of what is not."""
    rows = [[name, plain(text)] for name, text in guide_words.facts(item.guide, lang) if text is not None]
    if rows:
        yield f"### {label('guide', lang)}"
        yield table(["", ""], rows)
    if item.guide.steps:
        yield listed((plain(guide_words.step(step, lang)) for step in item.guide.steps), numbered=True)
    if item.guide.exceptions:
        yield listed(plain(guide_words.exception(each, lang)) for each in item.guide.exceptions)


def _party(party: Party, lang: Language) -> str:
    brackets = "（{}）" if lang == "zh" else " ({})"
    return plain(getattr(party.name, lang)) + brackets.format(label(f"kind-{party.kind}", lang))


def _asked(roles: Mapping[str, Party], facts: Mapping[str, Fact], lang: Language) -> Iterator[str]:
    if roles:
        yield f"### {label('roles', lang)}"
        yield table(
            [label(word, lang) for word in ("role", "who", "kind")],
            [
                [code(role), plain(getattr(party.name, lang)), label(f"kind-{party.kind}", lang)]
                for role, party in roles.items()
            ],
        )
    if facts:
        yield f"### {label('facts', lang)}"
        yield table(
            [label(word, lang) for word in ("fact", "question", "type", "values")],
            [
                [
                    code(name),
                    _question(fact, facts, lang),
                    label("type-choice" if fact.values else f"type-{fact.type}", lang),
                    comma(lang).join(code(value) for value in fact.values) or "–",
                ]
                for name, fact in facts.items()
            ],
        )


def _question(fact: Fact, facts: Mapping[str, Fact], lang: Language) -> str:
    question = plain(getattr(fact.question, lang))
    if fact.when is None:
        return question
    brackets = "（{}）" if lang == "zh" else " ({})"
    return question + brackets.format(
        plain(label("asked-if", lang, condition=wording.sentence(fact.when, facts, lang)))
    )


def _requirement(item: Item, requirement: Requirement, lang: Language) -> Iterator[str]:
    """The lines of one requirement."""
    colon = "：" if lang == "zh" else ": "
    needed = label("always", lang)
    if requirement.when is not None:
        needed = plain(label("only-if", lang, condition=wording.sentence(requirement.when, item.facts, lang)))
    basis = requirement.legal_basis
    yield f"{label('when', lang)}{colon}{needed}"
    yield f"{label('basis', lang)}{colon}{plain(getattr(basis, lang)) if basis else label('no-basis', lang)}"
    options = [_option(item, option, lang) for option in requirement.options]
    if len(options) == 1:
        yield f"{label('satisfied-by', lang)}{colon}{options[0]}"
    else:
        numbered = (f"\n  {place}. {option}" for place, option in enumerate(options, start=1))
        yield f"{label('satisfied-by-any', lang)}{colon.rstrip()}{''.join(numbered)}"
    if requirement.deferral is not None:
        yield f"{label('deferral', lang)}{colon}{_deferral(requirement.deferral, lang)}"


def _deferral(deferral: Deferral, lang: Language) -> str:
    days = deferral.within.days if deferral.within else None
    how = label(f"deferral-{deferral.kind}", lang, days=days)
    return f"{how}{'；' if lang == 'zh' else '; '}{plain(getattr(deferral.basis, lang))}"


def _option(item: Item, option: Option, lang: Language) -> str:
    return " + ".join(_use(item, use, lang) for use in option.materials)


def _use(item: Item, use: Use, lang: Language) -> str:
    """One material, whose it is, and what else is wanted of it."""
    material = model.load(use.material)
    name = link(plain(getattr(material.name, lang)), f"../materials/{use.material}.md")
    holder = plain(getattr(item.party(use.holder).name, lang))
    if use.holder == APPLICANT:
        text = label("of", lang, material=name, holder=label("applicant", lang).lower())
    else:
        text = label("of-role", lang, material=name, holder=code(use.holder), role=holder)
    more = [plain(each) for each in wording.wanted(use, item.parties(), lang)]
    brackets = "（{}）" if lang == "zh" else " ({})"
    return text + (brackets.format(comma(lang).join(more)) if more else "")
