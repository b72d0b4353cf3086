"""Whether a text names somebody: what becomes a case number, a label or a record of the ledger must not.

Numbers of people with a check digit are found anywhere, in groups too; what has none (15 digits, telephone numbers, passports)
where it stands by itself, companies by their 18 characters. A name in words cannot be told from other words.

Numbers of cases look alike: a region, a day and a counter are 18 digits too, and one in eleven ends in the check digit of a
resident number. A number that some cases get and others do not is of no use, so what reads as a *day of the last two years*
(:data:`RECENT`) is taken for the day of a case and not of a birth. That lets the number of a small child (or an old one of 15
digits, of somebody past 98) pass where nothing else is known, so whoever knows whom a question is about says so (``parties``): their own numbers are refused, of whatever kind
and age. Whoever puts applicants' numbers in place of cases' is told so by the first who is older. Organisation codes of 9
characters and registration numbers of 13 or 15 digits count for nothing by themselves: they are nobody's, and every second
office numbers its cases so.
"""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from collections.abc import Iterable

from mappings import regions, scalars, schemes

PEOPLE = ("cn.ric", "cn.permit", "cn.fpr")
RECENT = dt.timedelta(days=731)
LONG = 9  # characters of a party's number that is found within others, too


def names_somebody(text: str, parties: Iterable[str] = ()) -> bool:
    """Whether ``text`` reads as an identifier, or holds a person's, a company's or a telephone number somewhere, or that of one of
    ``parties`` (scheme:value, or value)."""
    if _PREFIXED.match(text) and scalars.parse(text).verdict != "invalid":
        return True
    if names_person(text):
        return True
    folded = _HASH.sub(_APART, _folded(text)).upper()
    if _PASSPORT.fullmatch(folded.strip()):
        return True
    whole = _GROUPS.sub("", folded)
    if len(whole) >= 18 and (_company(whole, True) or any(_company(one, False) for one in _COMPANY.findall(folded))):
        return True
    plain = _GROUPS.sub("", _folded(text).upper())
    return any(_of(party, plain) for party in parties)


def names_person(text: str) -> bool:
    """The same of people alone, by numbers of 11 digits and more: of what is agreed, where an organisation may be named."""
    if len(text) < SHORTEST:
        return False
    folded = _folded(text)
    apart = _HASH.sub(_APART, folded)
    if _PHONE.search(apart):
        return True
    if any(_person(one, False) for one in _ANYWHERE.findall(_GROUPS.sub("", folded))):
        return True
    return any(_person(one, True) for one in (*_ALONE.findall(apart), *_ALONE.findall(_GROUPS.sub("", apart))))


def _person(number: str, alone: bool) -> bool:
    """Whether ``number`` is somebody's. ``alone``: it stands by itself, so an odd region is no reason to doubt it."""
    found = scalars.parse(number)
    if found.scheme not in PEOPLE or found.verdict == "invalid" or (not alone and found.verdict != "valid"):
        return False
    if "birth-date-implausible" in (found.reason or ""):  # nobody is born yet, or lives still, with that date
        return False
    if found.scheme != "cn.permit" and _province(number) not in regions.provinces():
        return False
    return not (number.isdecimal() and _dated(number))


def _province(number: str) -> str:
    """Where a resident number has it, or a foreigner's: behind a 9, or in the old form three letters."""
    place = 3 if number[0].isalpha() else int(len(number) == 18 and number[0] == "9")
    return number[place : place + 2]


def _dated(number: str) -> bool:
    """Whether 15 or 18 digits have the day of a case in place of that of a birth: one of the last two years."""
    text = number[6:14] if len(number) == 18 else f"20{number[6:12]}"
    try:
        day = dt.date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    today = dt.date.today()
    return today - RECENT <= day <= today + dt.timedelta(days=1)  # the clock may be another


def _company(code: str, whole: bool) -> bool:
    """Whether ``code`` is an organisation's of 18 characters. ``whole``: there is nothing else, so an odd region is no reason to
    doubt it. Digits alone are more often something else: of them the division has to be one that is or was."""
    if len(code) != 18:
        return False
    found = scalars.parse(code)
    if found.scheme != "cn.uscc" or found.verdict == "invalid":
        return False
    if code.isdecimal():
        known = found.reason in (None, "region-retired")
        # A region and a year at the places where a case has them.
        numbered = code[:2] in regions.provinces() and abs(int(code[6:10]) - dt.date.today().year) <= 2
        return known and bool(_CATEGORY.match(code)) and not numbered
    return found.verdict == "valid" or (whole and bool(_CATEGORY.match(code)))


def _of(party: str, whole: str) -> bool:
    """Whether ``whole``, a text without its groups, holds the number of ``party``; a short one only where it is all of it."""
    given = _PREFIXED.match(party)
    value = _GROUPS.sub("", schemes.compact(given["value"] if given else party))
    return value in whole if len(value) >= LONG else bool(value) and value == whole


def _folded(text: str) -> str:
    """Full-width characters as the others, every kind of space and dash as one."""
    return _DASH.sub("-", _SPACE.sub(" ", unicodedata.normalize("NFKC", text)))


SHORTEST = 11  # characters of a telephone number
_PREFIXED = re.compile(schemes.PREFIXED)
_SPACE = re.compile(r"\s")
_DASH = re.compile("[\u2010-\u2015\u2212]")
_GROUPS = re.compile(r"[ .,;:_/·、-]")
_ANYWHERE = re.compile(r"(?=([0-9]{17}[0-9Xx]))")
# Codes that begin with 1 are of authorities: with one begin the codes of items, and with these the numbers of cases. Digits alone
# not within longer numbers.
_COMPANY = re.compile(
    r"(?!(?<=[0-9])[0-9]{18})(?![0-9]{19})(?=((?!1)[0-9A-HJ-NPQRTUWXY]{2}[0-9]{6}[0-9A-HJ-NPQRTUWXY]{10}))"
)
# Authority and what it registers (GB 32100, appendix).
_CATEGORY = re.compile("1[1-59]|2[19]|3[1-59]|4[19]|5[1-39]|6[19]|7[129]|8[19]|9[1-39]|[AY][19]|N[1-39]")
# As they are written, also right behind or before letters; not within longer numbers.
_ALONE = re.compile(
    r"(?<![0-9])[0-9]{17}[0-9Xx](?![0-9])|(?<![0-9])[0-9]{15}(?![0-9Xx])|(?<![0-9A-Za-z])[A-Za-z]{3}[0-9]{12}(?![0-9])"
)
# Mobile numbers: 1 and 10 digits, in one or as 3-4-4; 131-2026-0001 is rather the number of a case in a year.
_PHONE = re.compile(
    r"(?<![0-9])(?:(?:00)?86[ -]?)?1[3-9][0-9](?:[0-9]{8}| [0-9]{4} [0-9]{4}|-(?!19|20)[0-9]{4}-[0-9]{4})(?![0-9])"
)
# Of China's as they are numbered, and nothing else; E20260017 is rather the seventeenth of its year: of such passports none is valid.
_PASSPORT = re.compile(r"(?:E[0-9A-HJ-NP-Z]|G[0-9]|[DSP][0-9E])[0-9]{7}(?<!20[2-9][0-9]{5})")
# Digests and UUIDs, in which digits without a check digit may follow each other: nothing is found in them but what has one.
_HASH = re.compile(
    r"(?i)(?<![0-9a-z])(?:(?=[0-9-]*[a-f])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=[0-9]*[a-f])[0-9a-f]{32,})(?![0-9a-z])"
)
_APART = "|"
