"""What one identifier and a column of them are judged by: schemes, reasons, forms. Standard library only.

:mod:`mappings.scalars` judges one value, :mod:`mappings.identifiers` a column; both read this page, so a rule that is a
table or a pattern stands once.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Literal

Verdict = Literal["valid", "flagged", "invalid"]

# Resident ID, HK/Macau/Taiwan residence permit, foreign permanent resident ID, passport, unified social credit code,
# old business registration number, organisation code, taxpayer number.
SCHEMES = ("cn.ric", "cn.permit", "cn.fpr", "passport", "cn.uscc", "cn.regno", "cn.orgcode", "cn.tax")

# Reason -> severity. A note says what was done and leaves the value valid; a flag informs and keeps the value.
REASONS: dict[str, Literal["invalid", "flag", "note"]] = {
    "empty": "invalid",
    "unrecoverable": "invalid",  # a spreadsheet turned the number into 3.10E+17
    "scheme-unrecognised": "invalid",
    "length": "invalid",
    "alphabet": "invalid",  # a character the scheme does not have in that place
    "form": "invalid",  # not of the scheme it was given under
    "province": "invalid",  # digits 2-3 of a foreign permanent resident ID
    "birth-date": "invalid",
    "check-digit": "invalid",
    "birth-date-implausible": "flag",  # before 1850 or still to come
    "region-unlisted": "flag",
    "region-retired": "flag",
    "region-younger-than-bearer": "flag",
    "authority-unlisted": "flag",  # first character of a credit code other than 1-9
    "early-pilot-batch": "flag",
    "form-unusual": "flag",
    "upgraded-15": "note",
}

BITS = {reason: 1 << place for place, reason in enumerate(REASONS)}
INVALID = sum(BITS[reason] for reason, severity in REASONS.items() if severity == "invalid")
FLAG = sum(BITS[reason] for reason, severity in REASONS.items() if severity == "flag")


def reason_text(bits: int) -> str | None:
    """Reasons of a bit set, joined with ``;``; only those that make the value invalid, if there are any."""
    if not bits:
        return None
    shown = bits & INVALID or bits
    return ";".join(reason for reason, bit in BITS.items() if shown & bit) or None


def verdict(bits: int) -> Verdict:
    return "invalid" if bits & INVALID else "flagged" if bits & FLAG else "valid"


# -- cleaning: what people and spreadsheets put around and between the characters

SPACES = (0x00A0, 0x3000, 0xFEFF, *range(0x2000, 0x2010), 0x202F)
DASHES = (*range(0x2010, 0x2016), 0x2212)
DROPPED = "\t\n\v\f\r \"'"  # anywhere; the hyphen too where no Chinese character stands beside it

_FOLD = (
    {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)} | dict.fromkeys(SPACES, 0x20) | dict.fromkeys(DASHES, 0x2D)
)
_UPPER = {code: code - 0x20 for code in range(ord("a"), ord("z") + 1)}
_DROP = dict.fromkeys(map(ord, DROPPED))


def compact(text: str) -> str:
    """Half-width and upper-case, without spaces, quotes and hyphens; hyphens stay in textual forms."""
    folded = text.translate(_FOLD).translate(_UPPER).translate(_DROP)
    return folded.replace("-", "") if folded.isascii() else folded


# -- forms: regular expressions that Python and RE2 read alike

_ANY_CASE = "|".join(
    "".join(f"[{c}{c.upper()}]" if c.isalpha() else re.escape(c) for c in scheme) for scheme in SCHEMES
)
PREFIXED = rf"(?s)^[ \t]*(?P<scheme>{_ANY_CASE})[ \t]*[:：](?P<value>.*)$"
SCIENTIFIC = r"^[0-9](?:\.[0-9]+E\+?|E\+)[0-9]{1,3}$"
REGISTRATION_TEXT = r"^企[一-鿿()]{1,10}字第?[0-9A-Z-]{1,12}号?$"  # 企合苏镇分字第2005
REGISTRATION_TEXT_UNUSUAL = r"^[一-鿿()0-9A-Z-]{0,30}[字第][一-鿿()-]{0,5}[0-9][一-鿿()0-9A-Z-]{0,20}$"

PERMIT_REGIONS = ("810000", "820000", "830000")  # Hong Kong, Macau, Taiwan
# Credit codes of bodies registered at the national level carry this in place of a division.
NATIONWIDE = "100000"
# Authorities with a letter (GB 32100): A central military commission, N agriculture, Y other.
AUTHORITIES = "123456789"
AUTHORITY_LETTERS = "ANY"
PILOT = "M000"

ORGANISATION_CODE_WEIGHTS = (3, 7, 9, 10, 5, 8, 4, 2)  # GB 11714, MOD 11
ORGANISATION_CODE_CHECKS = "0X987654321"  # by remainder

# Passports of the People's Republic: E and G, D, S, P with a second letter in the newer ones.
PASSPORT_FIRST = "EGDSP"

OLDEST_BIRTH_YEAR = 1850


def latest_birth(today: dt.date | None) -> int:
    """The last plausible birth date as the number yyyymmdd; ``today`` defaults to the clock's date."""
    day = today or dt.date.today()
    return day.year * 10000 + day.month * 100 + day.day
