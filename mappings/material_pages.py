"""What the page of a material type says: who holds it, what is in it, who may have it, who delivers it, who asks for it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

from connectors import messages
from connectors.messages import Language
from connectors.source import Source
from mappings import regions
from mappings.items import Item
from mappings.markdown import code, link, listed, plain, table
from mappings.model import Material


def page(material: Material, sources: Sequence[Source], items: Sequence[Item], lang: Language) -> Iterator[str]:
    """The blocks of one language."""
    yield table([label("code", lang), code(material.code)], _facts(material, lang))
    yield f"### {label('holders', lang)}"
    yield table(
        [label(word, lang) for word in ("role", "who", "kind", "schemes", "optional")],
        [
            [
                code(name),
                plain(getattr(role.name, lang)),
                label(f"kind-{role.kind}", lang),
                comma(lang).join(scheme(each, lang) for each in role.schemes),
                label("no" if role.optional else "yes", lang),
            ]
            for name, role in material.holders.items()
        ],
    )
    yield f"### {label('attributes', lang)}"
    yield table(
        [label(word, lang) for word in ("attribute", "name", "type", "sensitivity")],
        [
            [
                code(name),
                plain(getattr(attribute.name, lang)),
                label(f"type-{attribute.type}", lang),
                label(f"sensitivity-{attribute.sensitivity}", lang),
            ]
            for name, attribute in material.attributes.items()
        ],
    )
    yield f"### {label('sources', lang)}"
    delivering = [source for source in sources if source.entity == material.code]
    yield _sources(delivering, lang) if delivering else label("no-sources", lang)
    yield f"### {label('asked-by', lang)}"
    asking = [item for item in items if material.code in item.materials()]
    yield listed(_asking(item, material.code, lang) for item in asking) if asking else label("asked-by-none", lang)


def index(materials: Sequence[Material], sources: Sequence[Source], lang: Language) -> Iterator[str]:
    """The blocks of the page that lists every material type."""
    yield plain(label("materials-about", lang))
    yield table(
        [label(word, lang) for word in ("name", "authoritative", "sharing", "sources")],
        [
            [
                link(plain(getattr(material.name, lang)), f"{material.code}.md"),
                plain(getattr(material.authoritative, lang)),
                label(f"sharing-{material.sharing.class_}", lang),
                comma(lang).join(code(source.name) for source in sources if source.entity == material.code) or "–",
            ]
            for material in materials
        ],
    )


def label(name: str, lang: Language, **values: object) -> str:
    """A label of these pages."""
    return messages.text(f"page-{name}", lang, **values)


def comma(lang: Language) -> str:
    return "、" if lang == "zh" else ", "


def scheme(name: str, lang: Language) -> str:
    """An identifier scheme by its name and code."""
    return f"{plain(messages.text('scheme-' + name.replace('.', '-'), lang))} {code(name)}"


def region(number: str) -> str:
    """A division by its code and its name in the ministry's list, which has Chinese names only."""
    named = regions.entries().get(number)
    return f"{code(number)} {plain(named[-1].name)}" if named else code(number)


def lasting(time: dt.timedelta, lang: Language) -> str:
    """A time span in whole days, else in hours."""
    days, rest = divmod(time, dt.timedelta(days=1))
    if not rest:
        return label("days", lang, number=days)
    return label("hours", lang, number=f"{time / dt.timedelta(hours=1):g}")


def _facts(material: Material, lang: Language) -> Iterator[list[str]]:
    codes, sharing = material.codes, material.sharing
    number = code(codes.certificate_type)
    yield [label("certificate-type", lang), label("invented", lang, code=number) if codes.invented else number]
    yield [label("authoritative", lang), plain(getattr(material.authoritative, lang))]
    yield [label("natural-key", lang), " + ".join(code(column) for column in material.natural_key)]
    yield [label("freshness", lang), lasting(material.freshness, lang)]
    yield [label("volatile", lang), label("volatile-yes" if material.volatile else "volatile-no", lang)]
    yield [label("sharing", lang), label(f"sharing-{sharing.class_}", lang)]
    yield [label("basis", lang), plain(getattr(sharing.basis, lang))]
    if sharing.conditions is not None:
        yield [label("conditions", lang), plain(getattr(sharing.conditions, lang))]
    yield [label("indexed", lang), label("indexed-yes" if material.indexed else "indexed-no", lang)]
    if material.note is not None:
        yield [label("note", lang), plain(getattr(material.note, lang))]


def _sources(sources: Sequence[Source], lang: Language) -> str:
    return table(
        [label(word, lang) for word in ("source", "owner", "region", "how", "schedule", "promise")],
        [
            [
                f"{code(source.name)}<br>{plain(getattr(source.title, lang))}",
                plain(getattr(source.owner, lang)),
                region(source.region),
                f"{_connector(source)}{comma(lang)}{label(f'extent-{source.extent}', lang)}",
                code(source.schedule) if source.schedule else label("by-hand", lang),
                lasting(source.promise, lang),
            ]
            for source in sources
        ],
    )


def _connector(source: Source) -> str:
    form = getattr(source.options, "format", None)
    return code(f"{source.connector} {form}" if form else source.connector)


def _asking(item: Item, material: str, lang: Language) -> str:
    needs = dict.fromkeys(
        getattr(requirement.name, lang) for requirement, use in item.uses() if use.material == material
    )
    name = link(plain(getattr(item.name, lang)), f"../items/{item.code}.md")
    return f"{name}{'：' if lang == 'zh' else ': '}{comma(lang).join(plain(need) for need in needs)}"
