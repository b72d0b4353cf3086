"""Proposes a mapping from what a sample's columns are called and what their values look like.

A proposal is a first draft for a person: each line says on what evidence it stands, and what could not be told carries the
word TODO. Nothing of a value enters it, except the codes of a column that holds few different ones.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from connectors import messages
from mappings import codes
from mappings.assignment import KINDS, LIKELY, MOST, assigned, fields, kinds_of, likeness, status_lists
from mappings.mapping import HEADER, IGNORED
from mappings.model import STATUSES, Material
from mappings.profile import Profile

TODO = "TODO"


@dataclass(frozen=True)
class Line:
    """One line of mapping.csv. ``profile``: of its column, where it has exactly one that decided it."""

    field: str
    source: str
    transform: str
    note: str
    profile: Profile | None = None


@dataclass
class Proposal:
    """What a sample suggests. ``codelists``: name → (from, to) of a list of the source's own, TODO where unknown;
    ``unfilled``: fields for which no column was found."""

    lines: list[Line]
    row_key: tuple[str, ...] = ()
    as_of: str | None = None
    watermark: str | None = None
    codelists: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    unfilled: tuple[str, ...] = ()

    def column(self, target: str) -> str | None:
        """The raw column that fills ``target``, if one does."""
        return next((line.profile.name for line in self.lines if line.field == target and line.profile), None)


def written(lines: Iterable[Line]) -> str:
    """The text of mapping.csv."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows([line.field, line.source, line.transform, line.note] for line in lines)
    return out.getvalue()


def skeleton(material: Material | None) -> str:
    """mapping.csv with a line for every field of the model and nothing in it yet."""
    lines = (
        [] if material is None else [Line(target, TODO, _plain(material, target), "") for target in fields(material)]
    )
    return written(lines)


def cell(value: str) -> str:
    """One value as it stands in a CSV file."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([value])
    return out.getvalue()


def propose(material: Material, profiles: Sequence[Profile], region: str, *, spreadsheet: bool = False) -> Proposal:
    """The mapping of columns with these ``profiles`` into ``material``; ``region`` is the source's own (6 digits).

    In a ``spreadsheet`` a date may be a bare day number.
    """
    chosen = assigned(material, profiles)
    proposal = Proposal([])
    used = {profile.name for profile in chosen.values()}
    for target in fields(material):
        if line := _line(material, target, chosen, profiles, proposal, region):
            if spreadsheet and line.transform == "date":
                line = replace(line, transform="date:serial")
            used.update(line.source.split("|"))
            proposal.lines.append(line)
    proposal.unfilled = tuple(
        target for target in fields(material) if target not in {line.field for line in proposal.lines}
    )
    left = [profile for profile in profiles if profile.name not in used]
    proposal.lines += [Line(IGNORED, profile.name, "", _say("infer-unrecognised"), None) for profile in left]
    proposal.row_key = _row_key(material, proposal, profiles)
    proposal.watermark = proposal.column("updated_at")
    proposal.as_of = proposal.watermark or proposal.column("issued_on")
    return proposal


# -- how a column fills a field


def _line(
    material: Material, target: str, chosen: dict[str, Profile], profiles: Sequence[Profile], proposal: Proposal,
    region: str,
) -> Line | None:  # fmt: skip
    profile = chosen.get(target)
    if profile is None:
        return _without_column(material, target, chosen, region)
    if target.startswith("holder.") and not target.endswith(".name"):
        return _holder(material, target, profile, profiles, proposal)
    transform, note = _plain(material, target), _evidence(material, target, profile)
    if target == "status":
        transform, note = _status(profile, proposal, note)
    elif transform == "text" and target.startswith("attributes."):
        transform, note = _coded(target.removeprefix("attributes.").replace("_", "-"), profile, proposal, note)
    return Line(target, profile.name, transform, note, profile)


def _without_column(material: Material, target: str, chosen: dict[str, Profile], region: str) -> Line | None:
    number = next((chosen[f"holder.{role}"] for role in material.holders if f"holder.{role}" in chosen), None)
    if target == "name" and material.kind == "certificate":
        return Line(target, f"={material.name.zh}", "text", _say("infer-name-constant"))
    if target == "status" and material.kind != "index":
        return Line(target, "=in_force", "status", _say("infer-status-constant"))
    if target == "region":
        if number is not None and number.identifier(["cn.uscc"]) >= LIKELY:
            return Line(target, number.name, "region:organisation", _say("infer-region-organisation"))
        return Line(target, f"={region}", "region", _say("infer-region-constant"))
    if target == "certificate_number" and number is not None and material.natural_key[0].startswith("holder."):
        return Line(target, number.name, "number", _say("infer-holder-number"))
    if target in material.natural_key or f"{target}.value" in material.natural_key:
        return Line(target, TODO, _plain(material, target), _say("infer-missing"))
    return None


def _plain(material: Material, target: str) -> str:
    """The transform that yields the field's type."""
    if target.startswith("holder.") and not target.endswith(".name"):
        return material.holders[target.split(".")[1]].kind
    if target in ("region", "status"):
        return target
    kind = material.columns()[target]
    return {"string": "text", "money": "amount"}.get(kind, kind)


def _holder(material: Material, target: str, profile: Profile, profiles: Sequence[Profile], proposal: Proposal) -> Line:
    """The number, and beside it the column that says what kind of number it is, where there is one."""
    role = material.holders[target.split(".")[1]]
    valid = {scheme: share for scheme, share in profile.schemes.items() if scheme in role.schemes}
    what = ", ".join(sorted(valid, key=lambda scheme: -valid[scheme]))
    note = _say("infer-identifiers", profile.identifier(role.schemes), what=what or "-")
    if likeness(material, target, profile.name) < LIKELY:
        note = f"{note}; {_say('infer-elimination')}"
    kinds = kinds_of(profile, profiles)
    if kinds is None or len(role.schemes) == 1 or not codes.exists(KINDS):
        return Line(target, profile.name, role.kind, note, profile)
    if kinds.codelists.get(KINDS, 0.0) < MOST:
        shared = codes.read(KINDS)
        unknown = [(code, TODO) for code in kinds.values if code not in shared]
        proposal.codelists[KINDS] = [*shared.items(), *unknown]
        note = f"{note}; {_say('infer-own-codelist', what=KINDS)}"
    return Line(target, f"{profile.name}|{kinds.name}", f"{role.kind}:{KINDS}", note, profile)


def _status(profile: Profile, proposal: Proposal, note: str) -> tuple[str, str]:
    """The shared list that knows every value; else a list of the source's own, known meanings filled in."""
    lists = status_lists(profile)
    best = max(lists, key=lambda name: lists[name], default=None)
    if best and lists[best] >= MOST:
        return f"status:{best}", note
    if not profile.values:
        return (f"status:{best}", note) if best and lists[best] >= LIKELY else ("status", _say("infer-status-open"))
    known = [codes.read(path.stem) for path in codes.FOLDER.glob("*-status.csv")]
    meanings = {code: {names[code] for names in known if code in names} & set(STATUSES) for code in profile.values}
    proposal.codelists["status"] = [
        (code, found.copy().pop() if len(found) == 1 else TODO) for code, found in meanings.items()
    ]
    return "status:status", f"{note}; {_say('infer-own-codelist', what='status')}"


def _coded(name: str, profile: Profile, proposal: Proposal, note: str) -> tuple[str, str]:
    """A list that is called like the attribute; for bare codes that nobody knows yet, one of the source's own."""
    share = profile.codelists.get(name, 0.0)
    if share >= MOST or (share >= LIKELY and not profile.values):
        return f"code:{name}", _say("infer-codelist", share, what=name)
    bare = bool(profile.values) and all(value.isascii() and len(value) <= 6 for value in profile.values)
    if not profile.values or not (bare or share >= LIKELY):
        return "text", note
    known = codes.read(name) if codes.exists(name) else {}
    proposal.codelists[name] = [(code, known.get(code, TODO)) for code in profile.values]
    return f"code:{name}", f"{note}; {_say('infer-own-codelist', what=name)}"


# -- what was seen, in words


def _evidence(material: Material, target: str, profile: Profile) -> str:
    kind = "string" if target.endswith(".name") else material.columns()[target]
    seen = {
        "date": ("infer-dates", profile.date), "timestamp": ("infer-times", profile.date),
        "money": ("infer-amounts", profile.amount), "integer": ("infer-numbers", profile.integer),
        "decimal": ("infer-numbers", profile.decimal),
    }.get(kind)  # fmt: skip
    if target == "region":
        seen = ("infer-regions", profile.region)
    elif target == "status" and (lists := status_lists(profile)):
        best = max(lists, key=lambda name: lists[name])
        return _say("infer-codelist", lists[best], what=best)
    elif target.endswith(".name"):
        note = _say("infer-names", max(profile.person, profile.organisation))
        return note if likeness(material, target, profile.name) >= LIKELY else f"{note}; {_say('infer-elimination')}"
    elif target == "certificate_number" and profile.unique:
        alone = likeness(material, target, profile.name) < LIKELY
        return _say("infer-unique") + (f"; {_say('infer-elimination')}" if alone else "")
    return _say(seen[0], seen[1]) if seen and profile.filled else _say("infer-called")


def _say(code: str, share: float | None = None, **values: object) -> str:
    return messages.text(code, None, percent=None if share is None else round(100 * share), **values)


# -- which columns name a row


def _row_key(material: Material, proposal: Proposal, profiles: Sequence[Profile]) -> tuple[str, ...]:
    """The certificate number where none is given twice, else the natural key's columns, else any column that is unique."""
    known = {profile.name: profile for profile in profiles}
    number = proposal.column("certificate_number")
    if number and _single(known[number]) and "certificate_number" in material.natural_key:
        return (number,)
    natural = [proposal.column(name.removesuffix(".value")) for name in material.natural_key]
    if natural and all(natural):
        return tuple(dict.fromkeys(name for name in natural if name))
    numbers = [profile for profile in profiles if _single(profile) and max(profile.date, profile.person) < LIKELY]
    return (numbers[0].name,) if numbers else ()


def _single(profile: Profile) -> bool:
    """Hardly a value twice: a real delivery may repeat a row."""
    return profile.filled > MOST and profile.distinct >= 0.98 * profile.rows * profile.filled
