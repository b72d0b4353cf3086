"""Division codes 行政区划代码 (GB/T 2260) since 1981, with what became of them.

Standard library only, for the API; :func:`tables` alone needs numpy and serves the vectorised checks. The list itself
and its source are described in ``mappings/codelists/README.md``.
"""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Status = Literal["listed", "retired", "unlisted"]

# As they stand in the arrays of tables().
STATUSES: tuple[Status, ...] = ("unlisted", "retired", "listed")

LIST_BEGINS = 1981  # an entry that starts here may be older
DELTA = ("31", "32", "33", "34")  # Shanghai, Jiangsu, Zhejiang, Anhui


@dataclass(frozen=True, slots=True)
class Entry:
    """One code under one name. ``to_year`` is None while in force; ``from_year`` is 0 when older than the list."""

    code: str
    name: str
    level: Literal["province", "prefecture", "county"]
    from_year: int
    to_year: int | None
    successors: tuple[str, ...]
    transfers: tuple[tuple[str, int], ...]  # (code, year): parts that went elsewhere


@functools.cache
def entries() -> dict[str, tuple[Entry, ...]]:
    """All entries by code, oldest first."""
    known: dict[str, tuple[Entry, ...]] = {}
    text = (files("mappings") / "codelists" / "regions.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        entry = _entry(row)
        known[entry.code] = (*known.get(entry.code, ()), entry)
    return known


def _entry(row: dict[str, str]) -> Entry:
    began = int(row["from_year"])
    heirs = [heir.partition("@") for heir in row["successors"].split()]
    return Entry(
        code=row["code"],
        name=row["name"],
        level=row["level"],  # type: ignore[arg-type]
        from_year=0 if began == LIST_BEGINS else began,
        to_year=int(row["to_year"]) if row["to_year"] else None,
        successors=tuple(code for code, at, _ in heirs if not at),
        transfers=tuple((code, int(year)) for code, at, year in heirs if at),
    )


@functools.cache
def provinces() -> frozenset[str]:
    """The two-digit prefixes of provinces."""
    return frozenset(code[:2] for code, named in entries().items() if named[0].level == "province")


def status(code: str) -> Status:
    """``listed`` when in force today, ``retired`` when it once was, ``unlisted`` when it never was in the list."""
    named = entries().get(code)
    if named is None:
        return "unlisted"
    return "listed" if named[-1].to_year is None else "retired"


def first_year(code: str) -> int:
    """The year in which the code was first given out; 0 when older than the list or not in it."""
    return entries()[code][0].from_year if code in entries() else 0


def in_force(code: str, year: int) -> bool:
    """Whether the code was in force at some time of ``year``."""
    return any(
        entry.from_year <= year and (entry.to_year is None or year <= entry.to_year)
        for entry in entries().get(code, ())
    )


def name(code: str, year: int | None = None) -> str | None:
    """The division's own name, the latest or that of ``year``; None for an unlisted code."""
    named = entries().get(code, ())
    if year is not None:
        named = tuple(entry for entry in named if entry.from_year <= year) or named[:1]
    return named[-1].name if named else None


def full_name(code: str) -> str | None:
    """The name preceded by those of prefecture and province (浙江省杭州市西湖区); None for an unlisted code."""
    own = name(code)
    if own is None:
        return None
    above = [name(upper) for upper in (code[:2] + "0000", code[:4] + "00") if upper != code]
    return "".join(dict.fromkeys([*filter(None, above), own]))


def is_delta(code: str) -> bool:
    """Whether the code lies in Shanghai, Jiangsu, Zhejiang or Anhui, listed or not."""
    return code[:2] in DELTA


def successors(code: str) -> tuple[str, ...]:
    """What a retired code became, one step on; empty for a code that is in force or has no heir."""
    named = entries().get(code, ())
    return () if not named or named[-1].to_year is None else named[-1].successors


def current(code: str) -> tuple[str, ...]:
    """The codes in force today that a code leads to over all its successors, in order; itself when in force."""
    found: dict[str, None] = {}
    seen: set[str] = set()
    waiting = [code]
    while waiting:
        here = waiting.pop(0)
        if here in seen:
            continue
        seen.add(here)
        if status(here) == "listed":
            found[here] = None
        waiting.extend(successors(here))
    return tuple(found)


@functools.cache
def tables() -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Look-up tables by the number a code is, both of shape (1,000,000,): index into STATUSES, and first year."""
    import numpy as np

    statuses = np.zeros(1_000_000, dtype=np.uint8)
    years = np.zeros(1_000_000, dtype=np.uint16)
    for code in entries():
        statuses[int(code)] = STATUSES.index(status(code))
        years[int(code)] = first_year(code)
    return statuses, years
