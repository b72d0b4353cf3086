"""How much a raw column's name sounds like a field: Chinese words, their pinyin initials (``gxsj`` for 更新时间), English.

The words are data (``mappings/hints.csv``) and the model's own names; initials come from the order of GB 2312, which
sorts its first 3,755 characters by pronunciation.
"""

from __future__ import annotations

import csv
import difflib
import functools
import re
from bisect import bisect_right
from collections.abc import Iterable
from importlib.resources import files

# First character of each initial in GB 2312; i, u and v begin no syllable.
_STARTS = (
    0xB0A1, 0xB0C5, 0xB2C1, 0xB4EE, 0xB6EA, 0xB7A2, 0xB8C1, 0xB9FE, 0xBBF7, 0xBFA6, 0xC0AC, 0xC2E8,
    0xC4C3, 0xC5B6, 0xC5BE, 0xC6DA, 0xC8BB, 0xC8F6, 0xCBFA, 0xCDDA, 0xCEF4, 0xD1B9, 0xD4D1, 0xD7FA,
)  # fmt: skip
_LETTERS = "abcdefghjklmnopqrstwxyz"

SAME, INITIALS, PART, WORDS, TAIL, NEAR, END = 1.0, 0.95, 0.75, 0.9, 0.6, 0.55, 0.5
PARTLY = 0.97
ALIKE = 0.75  # three of four characters: 注册资金 and 注册资本


def initials(text: str) -> str:
    """Pinyin initials of Chinese text; letters and digits stay, what has no known initial is left out."""
    found = []
    for character in text.lower():
        if character.isascii():
            found.append(character if character.isalnum() else "")
            continue
        code = int.from_bytes(character.encode("gb2312", "ignore") or b"\0", "big")
        place = bisect_right(_STARTS, code) - 1
        if 0 <= place < len(_LETTERS):
            found.append(_LETTERS[place])
    return "".join(found)


@functools.cache
def words() -> dict[str, tuple[str, ...]]:
    """Words for each field of mappings/hints.csv."""
    known = {}
    text = (files("mappings") / "hints.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        known[row["field"]] = tuple(row["words"].split("|"))
    return known


def folded(name: str) -> str:
    """A column's name without separators, lower-case: what is compared."""
    return re.sub(r"[\W_]+", "", name.lower())


def tokens(name: str) -> frozenset[str]:
    """The English words in a column's name, whichever way they are put together."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return frozenset(part for part in re.split(r"[^a-z0-9]+", apart.lower()) if part)


def likeness(name: str, among: Iterable[str]) -> float:
    """0 to 1: the best likeness of a column's name to one of the words. A grouped name counts by its last part too, at
    most a little less: ``school.name`` is a name, but ``holder.name`` the holder's."""
    parts = {re.split(r"[./]", name)[-1]: PARTLY, name: SAME}
    return max((min(_like(part, word), most) for part, most in parts.items() for word in among), default=0.0)


def _like(name: str, word: str) -> float:
    plain, meant = folded(name), folded(word)
    if not plain or not meant:
        return 0.0
    if plain == meant:
        return SAME
    if word.isascii():
        here, there = tokens(name), tokens(word)
        return WORDS * len(here & there) / len(here | there) if there <= here else 0.0
    short = initials(word)
    if plain == short and len(short) > 1:
        return INITIALS
    if len(meant) > 1 and (meant in plain or (len(plain) > 1 and plain in meant)):
        return PART * min(len(meant), len(plain)) / max(len(meant), len(plain)) + 0.2
    if len(short) > 2 and plain.endswith(short):
        return TAIL
    if len(plain) > 1 and short.endswith(plain):
        return END
    if len(meant) > 3 and difflib.SequenceMatcher(None, plain, meant).ratio() >= ALIKE:
        return NEAR
    return 0.0
