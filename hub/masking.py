"""A sample in which nobody is named: identifiers become invented ones of the same kind, names become 示例 and a number.

What a sample is there to show stays: schemes and lengths, 15-digit numbers and wrong check digits, regions, sexes, codes,
dates that are nobody's birthday, and that one person stands in two rows. The n-th different value becomes the n-th
invented one, so nothing of the old value is left in the new one but that. A sample is a few hundred rows at most.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from mappings import identifiers
from mappings.inference import KINDS, Proposal
from mappings.mapping import IGNORED
from mappings.model import ORGANISATION_SCHEMES, PERSON_SCHEMES, Material
from mappings.profile import Profile
from mappings.transforms import NULLS

Kind = Literal["person-number", "organisation-number", "person", "organisation", "birthday", "text"]
SOME = 0.2  # of a column's values, at least, are identifiers or names: then all of it is masked
STEMS, BRANCHES = "甲乙丙丁戊己庚辛壬癸", "子丑寅卯辰巳午未申酉戌亥"
CHECK_CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LEGAL_FORM = re.compile(
    r"(股份有限公司|有限责任公司|有限公司|合伙企业.*|个体工商户|公司|厂|店|中心|合作社|医院|大学|学院)$"
)
_DAY = re.compile(r"^(\d{4})(\D*)(\d{1,2})(\D*)(\d{1,2})")


def kinds(material: Material, proposal: Proposal, profiles: Sequence[Profile]) -> dict[str, Kind]:
    """Which columns of a sample to mask, and as what; a column that is not here stays as it is."""
    targets: dict[str, set[str]] = {}
    for line in proposal.lines:
        for column in line.source.split("|") if line.transform.endswith(f":{KINDS}") else [line.source]:
            targets.setdefault(column, set()).add(line.field if column == line.source.split("|")[0] else "kind")
    found = {}
    for profile in profiles:
        if kind := _kind(material, targets.get(profile.name, {IGNORED}), profile):
            found[profile.name] = kind
    return found


def _kind(material: Material, targets: set[str], profile: Profile) -> Kind | None:
    numbers = {"person-number": PERSON_SCHEMES, "organisation-number": ORGANISATION_SCHEMES}
    for kind, schemes in numbers.items():
        if profile.identifier(schemes) >= SOME and not profile.values:
            return kind  # type: ignore[return-value]
    for target in sorted(targets):
        if target.startswith("holder."):
            who = material.holders[target.split(".")[1]].kind
            return who if target.endswith(".name") else f"{who}-number"  # type: ignore[return-value]
    if any(_private(material, target) for target in targets):
        if profile.date >= SOME:
            return "birthday"
        if profile.values and not any(target.endswith("name") for target in targets):
            return None  # codes and set phrases, each on many rows
        return _words(profile)
    if IGNORED in targets and not profile.values and profile.date < 1 - SOME:  # a column of numbers may be telephones
        return _words(profile)
    return "text" if targets & {"certificate_number", "certificate_identifier"} else None


def _private(material: Material, target: str) -> bool:
    attribute = material.attributes.get(target.removeprefix("attributes."))
    return attribute is not None and attribute.sensitivity != "general" and attribute.type in ("string", "date")


def _words(profile: Profile) -> Kind:
    if profile.person >= SOME:
        return "person"
    return "organisation" if profile.organisation >= SOME else "text"


def masked(table: pa.Table, columns: dict[str, Kind]) -> pa.Table:
    """``table`` (string columns, a few hundred rows) with the columns named masked; one value is one mask throughout."""
    for kind in set(columns.values()):
        names = sorted(name for name, wanted in columns.items() if wanted == kind)
        everything = pa.chunked_array([chunk for name in names for chunk in table.column(name).chunks], pa.string())
        different = pc.unique(everything.drop_null())
        values = [value for value in different.to_pylist() if value.strip() not in NULLS]
        masks = dict(zip(values, MASKS[kind](values), strict=True))
        known = pa.array(list(masks), pa.string())
        new = pa.array(list(masks.values()), pa.string())
        for name in names:
            column = table.column(name).combine_chunks()
            place = pc.index_in(column, value_set=known)
            replaced = pc.if_else(place.is_valid(), new.take(pc.fill_null(place, 0)) if len(new) else column, column)
            table = table.set_column(table.column_names.index(name), name, replaced)
    return table


def _label(number: int) -> str:
    """甲子, 甲丑, … 癸亥, then with a digit behind."""
    round_, place = divmod(number, len(STEMS) * len(BRANCHES))
    return STEMS[place // len(BRANCHES)] + BRANCHES[place % len(BRANCHES)] + (str(round_) if round_ else "")


def _people(values: Sequence[str]) -> list[str]:
    return [f"示例{_label(place)}" for place in range(len(values))]


def _organisations(values: Sequence[str]) -> list[str]:
    forms = [_LEGAL_FORM.search(value) for value in values]
    return [f"示例{_label(place)}{form[0] if form else ''}" for place, form in enumerate(forms)]


def _birthdays(values: Sequence[str]) -> list[str]:
    """1 January of the same year, spelt the same way; what cannot be read says nothing about anybody."""

    def first(found: re.Match[str]) -> str:
        return f"{found[1]}{found[2]}{'1'.zfill(len(found[3]))}{found[4]}{'1'.zfill(len(found[5]))}"

    return [_DAY.sub(first, value) for value in values]


def _texts(values: Sequence[str]) -> list[str]:
    return [_shaped(value, place + 1) for place, value in enumerate(values)]


def _shaped(value: str, number: int, start: int = 0) -> str:
    """Digits from ``start`` on become those of ``number``, filled up with zeros; words become 示例 and the number."""
    body = value[start:]
    if not value.isascii() and not re.search(r"\d{4}", body):
        return f"示例{number}"
    digits = re.findall(r"\d", body)
    if not digits:
        return value[:start] + f"X{number}"
    filled = str(number).zfill(len(digits))[-len(digits) :]
    left = iter(filled)
    plain = re.sub(r"[^\x00-\x7f]+", "示例", body)
    return value[:start] + re.sub(r"\d", lambda _: next(left), plain)


def _numbers(organisation: bool) -> Callable[[Sequence[str]], list[str]]:
    def mask(values: Sequence[str]) -> list[str]:
        given = pa.array(values, pa.string())
        judged = identifiers.check_organisation(given) if organisation else identifiers.check(given)
        return [
            _number(value, place + 1, judgement)
            for place, (value, judgement) in enumerate(zip(values, judged.to_pylist(), strict=True))
        ]

    return mask


def _number(value: str, number: int, judged: dict[str, str | None]) -> str:
    """An invented identifier of the same scheme, length and region: valid or not, and why not, as the old one was."""
    scheme, reason = judged["scheme"], judged["reason"] or ""
    if "unrecoverable" in reason:
        return value  # nothing of a number is left in 3.10E+17
    plain = re.sub(r"\W", "", value).upper()
    if not scheme or not plain.isascii() or (judged["verdict"] == "invalid" and "check-digit" not in reason):
        return _shaped(value, number)
    body = _body(plain, scheme, number)
    tried = [body + character for character in CHECK_CHARACTERS]
    verdicts = identifiers.check(pa.array(tried), scheme).to_pylist()
    wanted = "check-digit" if "check-digit" in reason else ""
    fitting = [
        text
        for text, verdict in zip(tried, verdicts, strict=True)
        if (verdict["verdict"] == "invalid" and wanted and wanted in (verdict["reason"] or ""))
        or (not wanted and verdict["verdict"] != "invalid")
    ]
    return fitting[0] if fitting else _shaped(value, number)


def _body(plain: str, scheme: str, number: int) -> str:
    """All but the last character: region and year of birth stay, the rest is the number's."""
    if scheme in ("cn.ric", "cn.permit", "cn.fpr") and len(plain) in (15, 18):
        born = 6 if scheme != "cn.fpr" or len(plain) == 18 else 7
        year = plain[born : born + (4 if len(plain) == 18 else 2)]
        parity = int(plain[14 if len(plain) == 15 else 16]) % 2 if plain[14].isdigit() else 0
        sequence = f"{number * 2 % 1000 + parity:03d}"
        if scheme == "cn.fpr" and len(plain) == 15:
            return f"{plain[:7]}{year}0101{number % 10}"
        head = f"{plain[:6]}{year}0101{sequence}"
        return head if len(plain) == 18 else head[:-1]
    if scheme == "cn.uscc":
        return f"{plain[:8]}MA{number:07d}"[:17]
    start = 6 if scheme == "cn.regno" else 0
    return _shaped(plain[:-1], number, start)


MASKS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "person-number": _numbers(organisation=False),
    "organisation-number": _numbers(organisation=True),
    "person": _people,
    "organisation": _organisations,
    "birthday": _birthdays,
    "text": _texts,
}
