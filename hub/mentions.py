"""Whether a text names somebody: what becomes a case number, a label or a record of the ledger must not.

Identifiers with check digits are found anywhere, in groups too; what has none (15 digits, telephone numbers) where it stands
by itself. A name in words cannot be told from other words.
"""

from __future__ import annotations

import re
import unicodedata

from mappings import scalars, schemes

PEOPLE = ("cn.ric", "cn.permit", "cn.fpr")


def names_somebody(text: str) -> bool:
    """Whether ``text`` reads as an identifier, or holds a person's, a company's or a telephone number somewhere."""
    found = scalars.parse(text)
    if found.scheme in schemes.SCHEMES and found.verdict != "invalid":
        return True
    if names_person(text):
        return True
    return len(text) >= 18 and any(
        scalars.parse(one).verdict == "valid" for one in _COMPANY.findall(_folded(text).upper())
    )


def names_person(text: str) -> bool:
    """The same of people alone: of what is agreed, where an organisation may be named."""
    if len(text) < SHORTEST:
        return False
    folded = _folded(text)
    if _PHONE.search(_HASH.sub("-", folded)):
        return True
    whole = _GROUPS.sub("", folded)
    if any(scalars.parse(one).verdict == "valid" for one in _ANYWHERE.findall(whole)):
        return True
    alone = map(scalars.parse, [*_ALONE.findall(folded), *_ALONE.findall(whole)])
    return any(one.scheme in PEOPLE and one.verdict != "invalid" for one in alone)


def _folded(text: str) -> str:
    """Full-width characters as the others, every kind of space and dash as one."""
    return _DASH.sub("-", _SPACE.sub(" ", unicodedata.normalize("NFKC", text)))


SHORTEST = 11  # characters of a telephone number
_SPACE = re.compile(r"\s")
_DASH = re.compile("[\u2010-\u2015\u2212]")
_GROUPS = re.compile(r"[ ._/·-]")
_ANYWHERE = re.compile(r"(?=([0-9]{17}[0-9Xx]))")
# Codes that begin with 1 are of authorities: with one begin the codes of items, and with these the numbers of cases.
_COMPANY = re.compile(r"(?=((?!1)[0-9A-HJ-NPQRTUWXY]{2}[0-9]{6}[0-9A-HJ-NPQRTUWXY]{10}))")
# As they are written, also right behind or before letters; not within longer numbers.
_ALONE = re.compile(
    r"(?<![0-9])[0-9]{17}[0-9Xx](?![0-9])|(?<![0-9])[0-9]{15}(?![0-9Xx])|(?<![0-9A-Za-z])[A-Za-z]{3}[0-9]{12}(?![0-9])"
)
# Mobile numbers: 1 and 10 digits, in one or as 3-4-4; 131-2026-0001 is rather the number of a case in a year.
_PHONE = re.compile(
    r"(?<![0-9])(?:(?:00)?86[ -]?)?1[3-9][0-9](?:[0-9]{8}| [0-9]{4} [0-9]{4}|-(?!19|20)[0-9]{4}-[0-9]{4})(?![0-9])"
)
# Digests and UUIDs, in which eleven digits may follow each other.
_HASH = re.compile(r"\b(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=[0-9]*[a-f])[0-9a-f]{32,})\b")
