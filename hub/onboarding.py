"""From nothing to a source: the folder with its comments, then what a sample says about it. Nothing here touches the store.

A folder appears whole or not at all; what a person has written since is never overwritten unless they say so.
"""

from __future__ import annotations

import datetime as dt
import difflib
import os
import re
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from connectors import source, template
from connectors.errors import FatalError, UsageError
from connectors.source import Source
from connectors.template import Choice
from mappings import codes, model

NAME = re.compile(r"^[a-z0-9]+(-[a-z0-9]+)*$")
SAMPLE_ROWS = 50


@dataclass(frozen=True)
class Change:
    """One file of the folder: ``written``, ``unchanged``, or ``kept`` because somebody has edited it."""

    path: Path
    state: str
    diff: tuple[str, ...] = ()


@dataclass
class Inferred:
    """What :func:`infer` did. ``masked``: columns of the sample; ``open``: places where a person is still needed."""

    source: str
    folder: Path
    rows: int
    columns: int
    changes: list[Change] = field(default_factory=list)
    unfilled: tuple[str, ...] = ()
    sample: Path | None = None
    sample_rows: int = 0
    masked: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


def root(given: Path | None = None) -> Path:
    """Where a new source goes: ``--root``, else the first of ``YICI_SOURCES``, else ``connectors/sources`` of a checkout,
    else ``sources`` here. Never into an installed package: the next installation would remove it."""
    if given is not None:
        return given.absolute()
    further = source.roots()[1:]
    if further:
        return further[0].absolute()
    checkout = source.PACKAGED.parents[1]
    if (checkout / "pyproject.toml").is_file() and os.access(source.PACKAGED, os.W_OK):
        return source.PACKAGED
    return Path("sources").absolute()


def seen(place: Path) -> bool:
    """Whether ``yici`` looks for sources there without being told to."""
    return place.resolve() in {known.resolve() for known in source.roots()}


def new(choice: Choice, place: Path) -> Path:
    """Writes the folder ``place/choice.name`` and returns it.

    UsageError ``source-name-form``, ``connector-unknown``, ``region-form``, ``source-exists``; FatalError
    ``entity-unknown``, ``source-folder-unwritable``.
    """
    if not NAME.match(choice.name) or len(choice.name) > 80:
        raise UsageError("source-name-form", source=choice.name)
    if choice.connector not in template.OPTIONS:
        raise UsageError("connector-unknown", connector=choice.connector, known=", ".join(template.OPTIONS))
    if choice.connection and not NAME.match(choice.connection.removeprefix(source.PEER)):
        raise UsageError("source-name-form", source=choice.connection)
    if choice.region and not re.fullmatch(r"\d{6}", choice.region):
        raise UsageError("region-form", region=choice.region)
    entity = choice.entity or (template.INDEX if choice.connector == "hub" else None)
    material = model.load(entity) if entity else None
    for known in (place, *source.roots()):
        if (known / choice.name).exists():
            raise UsageError("source-exists", source=choice.name, folder=str(known / choice.name))
    files = {
        source.DESCRIPTION: template.description(choice, _entities()),
        "mapping.csv": _skeleton(material, choice.connector),
        "checks.yml": template.checks(entity or template.UNKNOWN_ENTITY),
        "sample/README.md": template.sample_readme(choice.name),
    }
    draft = place / f".{choice.name}.{secrets.token_hex(4)}"
    folder = place / choice.name
    try:
        for name, text in files.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_text(text, encoding="utf-8")
        draft.rename(folder)
    except OSError as error:
        raise FatalError("source-folder-unwritable", folder=str(folder), reason=error.strerror or "OS error") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _entities() -> list[tuple[str, str, str]]:
    return [(one.code, one.name.zh, one.name.en) for one in model.all_entities() if one.kind != "index"]


def _skeleton(material: model.Material | None, connector: str) -> str:
    if connector == "hub":
        return template.index_mapping()
    from mappings import inference

    return inference.skeleton(material)


def infer(
    folder: Path, sample: Path, *, entity: str | None = None, rows: int = SAMPLE_ROWS, mask: bool = True,
    keep_sample: bool = True, force: bool = False,
) -> Inferred:  # fmt: skip
    """Proposes options, row key, mapping, code lists and checks from ``sample``, and cuts a sample of ``rows`` rows.

    What a person has written stays unless ``force``. ``mask``: identifiers, names and what is nobody's business are
    replaced by invented ones (:mod:`hub.masking`). UsageError ``entity-open``, ``infer-index``, ``sample-format`` …
    """
    from hub import masking, samples
    from mappings import inference, profile
    from quality import proposal as checks
    from quality import suite

    described = source.read(folder)
    if described.connector == "hub":
        raise UsageError("infer-index", source=described.name)
    before = described.entity
    if entity and (before == template.UNKNOWN_ENTITY or force):
        described = described.model_copy(update={"entity": entity})
    if described.entity == template.UNKNOWN_ENTITY:
        known = ", ".join(code for code, _, _ in _entities())
        raise UsageError("entity-open", source=described.name, known=known)
    material = model.load(described.entity)
    found = samples.read(described, sample)
    profiles = profile.profiles(found.table)
    spreadsheet = getattr(found.source.options, "format", "") == "xlsx"
    proposed = inference.propose(material, profiles, described.region, spreadsheet=spreadsheet)
    wanted = checks.checks(material, suite.of(material), proposed, profiles, described.region)

    done = Inferred(described.name, folder, found.table.num_rows, len(profiles), unfilled=proposed.unfilled)
    options = _options(described, found, proposed, profiles)
    text = (folder / source.DESCRIPTION).read_text(encoding="utf-8")
    chosen = described.entity if described.entity != before else None
    done.changes.append(_save(folder / source.DESCRIPTION, _settled(text, chosen, options, force), force=True))
    pristine = [inference.skeleton(None), inference.skeleton(material)]
    done.changes.append(_save(folder / "mapping.csv", inference.written(proposed.lines), pristine, force))
    pristine = [template.checks(material.code), template.checks(template.UNKNOWN_ENTITY)]
    done.changes.append(_save(folder / "checks.yml", checks.written(material.code, wanted), pristine, force))
    for name, pairs in proposed.codelists.items():
        path = folder / codes.OWN / f"{name}.csv"
        said = codes.read(name, folder) if path.is_file() else {}  # a meaning somebody has filled in is never lost
        lines = "".join(
            f"{inference.cell(code)},{inference.cell(said.get(code, meaning))}\n" for code, meaning in pairs
        )
        done.changes.append(_save(path, f"from,to\n{lines}", (), force))
    if keep_sample and (force or not list((folder / "sample").glob("input.*"))):
        kinds = masking.kinds(material, proposed, profiles) if mask else {}
        (folder / "sample").mkdir(exist_ok=True)
        cut = masking.masked(found.table.slice(0, rows), kinds)
        done.sample = samples.write(found, cut, sample, folder / "sample")
        done.sample_rows, done.masked = cut.num_rows, tuple(name for name in cut.column_names if name in kinds)
    done.open = tuple(f"{path.relative_to(folder)}:{number}" for path, number, _ in template.open_points(folder))
    return done


def _options(described: Source, found: Any, proposed: Any, profiles: Any) -> dict[str, tuple[object, bool]]:
    """Keys of source.yml with the values that the sample suggests, and whether it does so. What it does not tell becomes
    a value that can be read, so that the folder stays a source, and stays open."""
    columns = [profile.name for profile in profiles]
    as_of = {"column": proposed.as_of} if proposed.as_of else {"date": dt.date(2000, 1, 1)}
    values: dict[str, tuple[object, bool]] = {f"options.{key}": (value, True) for key, value in found.found.items()}
    values["options.columns"] = (columns, True)
    values["row_key"] = (list(proposed.row_key) or columns, bool(proposed.row_key))
    values["as_of"] = (as_of, bool(proposed.as_of))
    if hasattr(described.options, "watermark"):
        values["options.watermark"] = (proposed.watermark or columns[0], bool(proposed.watermark))
    return values


def _settled(text: str, entity: str | None, options: dict[str, tuple[object, bool]], force: bool) -> str:
    """source.yml with what is still open filled in; with ``force`` also what somebody has decided otherwise."""
    for key, (value, sure) in options.items():
        form = key.startswith("options.") and key not in ("options.columns", "options.watermark")
        if force or form or template.is_open(text, key):  # the form is that of the file: nothing to decide about it
            text = template.replaced(text, key, template.flow(value), settled=sure)
    return template.replaced(text, "entity", entity) if entity else text


def _save(path: Path, text: str, pristine: Any = (), force: bool = False) -> Change:
    """Writes ``text`` unless the file holds something of a person's own: neither absent nor one of ``pristine``."""
    old = path.read_text(encoding="utf-8") if path.is_file() else None
    if old == text:
        return Change(path, "unchanged")
    diff = tuple(difflib.unified_diff((old or "").splitlines(), text.splitlines(), path.name, path.name, "", "", 0, ""))
    if old is not None and old not in pristine and not force:
        return Change(path, "kept", diff)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        raise FatalError("source-folder-unwritable", folder=str(path), reason=error.strerror or "OS error") from None
    finally:
        draft.unlink(missing_ok=True)
    return Change(path, "written", diff)
