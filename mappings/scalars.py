"""One identifier at a time, with the standard library only: what the API needs.

A column of identifiers is judged by :mod:`mappings.identifiers`, by the same tables and patterns; tests hold the two to
one verdict on every value.
"""

from __future__ import annotations

import calendar
import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import mul

from mappings import regions, schemes
from mappings.schemes import BITS, INVALID, Verdict

_PREFIXED = re.compile(schemes.PREFIXED)
_SCIENTIFIC = re.compile(schemes.SCIENTIFIC)
_PLAIN = re.compile(r"[0-9A-Z]+")
_RESIDENT = re.compile(r"[0-9]{17}[0-9X]")
_CREDIT = re.compile(r"[0-9ANY][0-9]{7}[0-9A-HJ-NP-RT-UW-Y]{10}")
_GB_32100 = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_GB_32100_VALUES = {character: value for value, character in enumerate(_GB_32100)}
_GB_32100_WEIGHTS = tuple(pow(3, place, 31) for place in range(17))
_GB_11643_WEIGHTS = tuple(pow(2, 17 - place, 11) for place in range(17))
_ZEROS = ord("0") * sum(_GB_11643_WEIGHTS)
_OLD_FOREIGN = re.compile(r"[A-Z]{3}[0-9]{12}")
_COOPERATIVE = re.compile(r"[0-9]{6}N[A-Z][0-9]{6}[0-9X]")
_REGISTRATION_UNUSUAL = re.compile(r"[0-9]{6}[0-9A-Z]{4,10}")
_ORGANISATION = re.compile(r"[0-9A-Z]{8}[0-9X]")
_TAX_15 = re.compile(r"[0-9]{6}[0-9A-Z]{8}[0-9X]")
_CHINESE_PASSPORT = re.compile(f"[{schemes.PASSPORT_FIRST}][0-9A-Z][0-9]{{7}}")

_DAYS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_Judged = tuple[str | None, int]  # scheme, bits of reasons


@dataclass(frozen=True, slots=True)
class Identifier:
    """What became of a value. ``scheme`` is None when none was given and none fits; ``normalised`` is the cleaned
    form, None when unrecoverable; ``reason`` holds codes joined with ``;``. Its ``repr`` shows no number."""

    scheme: str | None
    normalised: str | None = field(repr=False)
    verdict: Verdict
    reason: str | None


def parse(text: str, *, today: dt.date | None = None) -> Identifier:
    """Judge ``value`` or ``scheme:value``; without a known scheme the form decides."""
    given = _PREFIXED.match(text)
    if given:
        return check(given["value"], given["scheme"].lower(), today=today)
    return check(text, None, today=today)


def check(value: str, scheme: str | None = None, *, today: dt.date | None = None) -> Identifier:
    """Judge ``value`` under ``scheme``; raises ``ValueError`` for a scheme that does not exist."""
    rule = _recognise if scheme is None else _RULES.get(scheme)
    if rule is None:
        raise ValueError(f"no such scheme; known are {', '.join(schemes.SCHEMES)}")
    return _identifier(value, scheme, rule, today)


def check_organisation(value: str) -> Identifier:
    """Judge what stands in a credit-code column: ``cn.uscc``, ``cn.orgcode`` or ``cn.regno``."""
    return _identifier(value, "cn.uscc", _organisation, None)


def _identifier(
    value: str, scheme: str | None, judge: Callable[[str, int], _Judged], today: dt.date | None
) -> Identifier:
    plain = _PLAIN.fullmatch(value)
    text = value if plain else schemes.compact(value)
    if plain or _PLAIN.fullmatch(text):
        found, bits = judge(text, schemes.latest_birth(today))
    elif not text:
        found, bits = scheme, BITS["empty"]
    elif _SCIENTIFIC.match(text):
        return Identifier(scheme, None, "invalid", "unrecoverable")
    else:
        found, bits = _text(text, judge, scheme)
    if bits & BITS["upgraded-15"]:
        body = text[:6] + "19" + text[6:]
        text = body + _resident_check(body)
    return Identifier(found, text, schemes.verdict(bits), schemes.reason_text(bits))


# -- persons


def _resident(text: str, latest: int) -> _Judged:
    if len(text) == 15:
        if text.isdecimal():
            return "cn.ric", _old_resident(text, latest)
        return ("cn.fpr", _old_foreign(text)) if _OLD_FOREIGN.fullmatch(text) else ("cn.ric", BITS["alphabet"])
    if len(text) != 18:
        return "cn.ric", BITS["length"]
    if not _RESIDENT.fullmatch(text):
        return "cn.ric", BITS["alphabet"]
    bits = _person(text, latest)
    if text[0] == "9":
        return "cn.fpr", bits | _province(text)
    if text[:6] in schemes.PERMIT_REGIONS:
        return "cn.permit", bits
    return "cn.ric", bits | _birth_region(text[:6], int(text[6:10]))


def _person(text: str, latest: int) -> int:
    """Check digit and birth date of 18 characters."""
    bits = 0 if _resident_check(text[:17]) == text[17] else BITS["check-digit"]
    return bits | _birth(int(text[6:10]), int(text[10:12]), int(text[12:14]), latest)


def _birth(year: int, month: int, day: int, latest: int) -> int:
    if not (year and 1 <= month <= 12 and 1 <= day <= _DAYS[month] + (month == 2 and calendar.isleap(year))):
        return BITS["birth-date"]
    plausible = year >= schemes.OLDEST_BIRTH_YEAR and year * 10000 + month * 100 + day <= latest
    return 0 if plausible else BITS["birth-date-implausible"]


def _old_resident(text: str, latest: int) -> int:
    year = 1900 + int(text[6:8])
    bits = _birth(year, int(text[8:10]), int(text[10:12]), latest)
    return bits if bits & INVALID else bits | _birth_region(text[:6], year) | BITS["upgraded-15"]


def _old_foreign(text: str) -> int:
    """Three letters of nationality, province and city, yyMMdd, sequence, check digit (of an unpublished method)."""
    bits = 0 if text[3:5] in regions.provinces() else BITS["region-unlisted"]
    # Either century may be meant: 2000, a leap year, allows what one of the two allows.
    return bits | _birth(2000 + int(text[7:9]), int(text[9:11]), int(text[11:13]), 99991231)


def _province(text: str) -> int:
    return 0 if text[1:3] in regions.provinces() else BITS["province"]


def _region(code: str) -> int:
    known = regions.status(code)
    return 0 if known == "listed" else BITS[f"region-{known}"]


def _birth_region(code: str, year: int) -> int:
    younger = BITS["region-younger-than-bearer"] if regions.first_year(code) > year else 0
    return _region(code) | younger


def _permit(text: str, latest: int) -> _Judged:
    if len(text) != 18:
        return "cn.permit", BITS["length"]
    if not _RESIDENT.fullmatch(text):
        return "cn.permit", BITS["alphabet"]
    form = 0 if text[:6] in schemes.PERMIT_REGIONS else BITS["form"]
    return "cn.permit", form | _person(text, latest)


def _foreign(text: str, latest: int) -> _Judged:
    if len(text) == 15:
        return "cn.fpr", _old_foreign(text) if _OLD_FOREIGN.fullmatch(text) else BITS["alphabet"]
    if len(text) != 18:
        return "cn.fpr", BITS["length"]
    if not _RESIDENT.fullmatch(text):
        return "cn.fpr", BITS["alphabet"]
    form = 0 if text[0] == "9" else BITS["form"]
    return "cn.fpr", form | _person(text, latest) | _province(text)


def _passport(text: str, latest: int) -> _Judged:
    if not 5 <= len(text) <= 15:
        return "passport", BITS["length"]
    if not re.search("[0-9]", text):
        return "passport", BITS["form"]
    return "passport", BITS["form-unusual"] if len(text) > 9 else 0


# -- organisations


def _credit(text: str, latest: int) -> _Judged:
    if len(text) != 18:
        return "cn.uscc", BITS["length"]
    if not _CREDIT.fullmatch(text):
        return "cn.uscc", BITS["alphabet"]
    bits = 0 if text[0] in schemes.AUTHORITIES else BITS["authority-unlisted"]
    if _credit_check(text) != text[17]:
        bits |= BITS["early-pilot-batch" if text[8:12] == schemes.PILOT else "check-digit"]
    return "cn.uscc", bits | _office(text[2:8])


def _office(code: str) -> int:
    return 0 if code == schemes.NATIONWIDE else _region(code)


def _registration(text: str, latest: int) -> _Judged:
    if text.isdecimal():
        if len(text) not in (13, 15):
            return "cn.regno", BITS["length"]
        wrong = len(text) == 15 and _registration_check(text[:14]) != text[14]
        return "cn.regno", _office(text[:6]) | (BITS["check-digit"] if wrong else 0)
    if _COOPERATIVE.fullmatch(text):
        return "cn.regno", _office(text[:6])
    return "cn.regno", BITS["form-unusual" if _REGISTRATION_UNUSUAL.fullmatch(text) else "form"]


def _text(text: str, judge: Callable[[str, int], _Judged], scheme: str | None) -> _Judged:
    """What holds more than digits and letters: a textual registration number, or nothing known."""
    if judge in (_registration, _organisation, _recognise):
        if re.match(schemes.REGISTRATION_TEXT, text):
            return "cn.regno", 0
        if re.match(schemes.REGISTRATION_TEXT_UNUSUAL, text):
            return "cn.regno", BITS["form-unusual"]
    return scheme, BITS["scheme-unrecognised" if scheme is None else "alphabet"]


def _organisation_code(text: str, latest: int) -> _Judged:
    if len(text) != 9:
        return "cn.orgcode", BITS["length"]
    if not _ORGANISATION.fullmatch(text):
        return "cn.orgcode", BITS["alphabet"]
    return "cn.orgcode", 0 if _organisation_check(text[:8]) == text[8] else BITS["check-digit"]


def _tax(text: str, latest: int) -> _Judged:
    if len(text) == 18:  # of an organisation its credit code, of a person the resident ID
        credit, resident = _credit(text, latest)[1], _resident(text, latest)[1]
        return "cn.tax", resident if credit & INVALID and not resident & INVALID else credit
    if len(text) == 15:  # region and organisation code
        if not _TAX_15.fullmatch(text):
            return "cn.tax", BITS["alphabet"]
        odd = _organisation_check(text[6:14]) != text[14]
        return "cn.tax", _office(text[:6]) | (BITS["form-unusual"] if odd else 0)
    return "cn.tax", 0 if len(text) in (17, 20) else BITS["length"]


def _organisation(text: str, latest: int) -> _Judged:
    if len(text) == 18:
        return _credit(text, latest)
    if len(text) == 9:
        return _organisation_code(text, latest)
    scheme, bits = _registration(text, latest)
    if not bits & INVALID or (len(text) in (13, 15) and text.isdecimal()):
        return scheme, bits
    return "cn.uscc", BITS["length"]


# -- without a scheme


def _recognise(text: str, latest: int) -> _Judged:
    if len(text) == 18:
        return _recognise_18(text, latest)
    found: _Judged = (None, INVALID)
    if len(text) == 15:
        found = _resident(text, latest)
        if found[1] & INVALID:
            found = _registration(text, latest)
            if text.isdecimal():
                return found
            if found[1] & BITS["form-unusual"]:
                found = (None, INVALID)
    elif len(text) == 13 and text.isdecimal():
        found = _registration(text, latest)
    elif len(text) == 9:
        found = _passport(text, latest) if _CHINESE_PASSPORT.fullmatch(text) else _organisation_code(text, latest)
    return (None, BITS["scheme-unrecognised"]) if found[1] & INVALID else found


def _recognise_18(text: str, latest: int) -> _Judged:
    """Resident ID or credit code: what validates decides, then what looks like a person with a birth date."""
    person, credit = _resident(text, latest), _credit(text, latest)
    is_person = not person[1] & (INVALID | BITS["birth-date-implausible"])
    is_credit = not credit[1] & INVALID
    if is_person or is_credit:
        return person if is_person and not (is_credit and text[0] == "9") else credit
    looks_like_person = not person[1] & BITS["alphabet"] and (text[0] != "9" or not person[1] & BITS["birth-date"])
    return person if looks_like_person or not person[1] & INVALID else credit


# -- check characters


def _resident_check(body: str) -> str:
    total = sum(map(mul, body.encode(), _GB_11643_WEIGHTS)) - _ZEROS
    return "10X98765432"[total % 11]


def _credit_check(text: str) -> str:
    total = sum(map(mul, map(_GB_32100_VALUES.__getitem__, text[:17]), _GB_32100_WEIGHTS))
    return _GB_32100[-total % 31]


def _registration_check(body: str) -> str:
    product = 10
    for digit in body:
        product = ((product + int(digit)) % 10 or 10) * 2 % 11
    return str((11 - product) % 10)


def _organisation_check(body: str) -> str:
    total = sum(
        int(character, 36) * weight for character, weight in zip(body, schemes.ORGANISATION_CODE_WEIGHTS, strict=True)
    )
    return schemes.ORGANISATION_CODE_CHECKS[total % 11]


_RULES: dict[str, Callable[[str, int], _Judged]] = {
    "cn.ric": _resident,
    "cn.permit": _permit,
    "cn.fpr": _foreign,
    "passport": _passport,
    "cn.uscc": _credit,
    "cn.regno": _registration,
    "cn.orgcode": _organisation_code,
    "cn.tax": _tax,
}
