"""The pages of the model: one of each material type, item and bundle, in Chinese and English, and two that list them.

They are derived, never edited: :func:`pages` makes them, :func:`stale` says which files are not so, :func:`write` makes them so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from connectors import messages, source
from connectors.messages import Language
from mappings import bundles, item_pages, items, markdown, material_pages, model

MATERIALS, ITEMS, INDEX = "materials", "items", "README.md"
LANGUAGES: Mapping[Language, str] = {"zh": "中文", "en": "English"}
# The first words of every page written here; a page without them belongs to somebody else and is left alone.
MARK = "<!-- yici docs -->"


def pages() -> dict[str, str]:
    """Every page, by its path below the folder of the documentation."""
    versions, whole, kinds = items.all_versions(), bundles.all_bundles(), model.all_materials()
    parts = [each[-1] for each in versions.values()]
    sources = source.all_sources(source.PACKAGED)
    made = {
        f"{MATERIALS}/{INDEX}": _page(
            MATERIALS, _both("materials"), lambda lang: material_pages.index(kinds, sources, lang)
        ),
        f"{ITEMS}/{INDEX}": _page(ITEMS, _both("items"), lambda lang: item_pages.index(parts, whole, lang)),
    }
    for kind in kinds:
        made[f"{MATERIALS}/{kind.code}.md"] = _page(
            f"{MATERIALS}/{kind.code}.yml",
            (kind.name.zh, kind.name.en),
            lambda lang, kind=kind: material_pages.page(kind, sources, parts, lang),  # type: ignore[misc]
        )
    for item in parts:
        made[f"{ITEMS}/{item.code}.md"] = _page(
            f"{ITEMS}/{item.code}.yml",
            (item.name.zh, item.name.en),
            lambda lang, item=item: item_pages.page(item, whole, lang, versions[item.code][:-1]),  # type: ignore[misc]
        )
    for bundle in whole:
        made[f"{ITEMS}/{bundle.code}.md"] = _page(
            f"bundles/{bundle.code}.yml",
            (bundle.name.zh, bundle.name.en),
            lambda lang, bundle=bundle: item_pages.bundle(bundle, parts, lang),  # type: ignore[misc]
        )
    return made


def stale(folder: Path, made: Mapping[str, str]) -> list[str]:
    """Pages below ``folder`` that are missing, differ from those ``made`` or are none of them, in order."""
    wrong = [path for path, text in made.items() if _read(folder / path) != text]
    return sorted([*wrong, *_orphans(folder, made)])


def write(folder: Path, made: Mapping[str, str]) -> list[str]:
    """Make the pages below ``folder`` those ``made``. Returns the paths changed or removed, in order."""
    changed = stale(folder, made)
    for path in changed:
        page = folder / path
        if path not in made:
            page.unlink()
            continue
        page.parent.mkdir(parents=True, exist_ok=True)
        half = page.with_name(f".{page.name}.half")
        half.write_text(made[path], encoding="utf-8", newline="\n")
        half.replace(page)
    return changed


def _page(file: str, name: tuple[str, str], section: Callable[[Language], Iterable[str]]) -> str:
    """One page: a title in both languages, then everything in one language and in the other."""
    note = [messages.text("page-generated", lang, file=f"mappings/model/{file}") for lang in LANGUAGES]
    blocks = [
        MARK,
        f"# {' · '.join(dict.fromkeys(markdown.plain(part) for part in name))}",
        "\n".join(f"<!-- {line} -->" for line in note),
        " · ".join(markdown.link(word, f"#{word.lower()}") for word in LANGUAGES.values()),
    ]
    for lang, word in LANGUAGES.items():
        blocks += [f"## {word}", *section(lang)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _both(label: str) -> tuple[str, str]:
    return messages.text(f"page-{label}", "zh"), messages.text(f"page-{label}", "en")


def _read(path: Path) -> str | None:
    return path.read_bytes().decode("utf-8", errors="replace") if path.is_file() else None


def _orphans(folder: Path, made: Mapping[str, str]) -> list[str]:
    found = [path for part in (MATERIALS, ITEMS) for path in sorted((folder / part).glob("*.md"))]
    return [
        name
        for path in found
        if (name := path.relative_to(folder).as_posix()) not in made and (_read(path) or "").startswith(MARK)
    ]
