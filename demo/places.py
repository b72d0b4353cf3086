"""Division codes that people are born under and companies are registered under: real ones, with their years."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa

from demo.columns import Integers, pick
from mappings import regions

HOME = "31"  # the population lives in Shanghai
HOME_SHARE = 0.65  # of those who live there, how many were born there
RETIRED_WEIGHT = 0.15  # a code that has since been retired, against one that is still in force

# Development zones use codes that were never in the ministry's list.
_UNLISTED = ("310191", "320191", "320594", "330201", "330191", "340191")


@functools.cache
def unlisted() -> tuple[str, ...]:
    return tuple(code for code in _UNLISTED if regions.status(code) == "unlisted")


@functools.cache
def in_year(year: int, prefix: str = "") -> tuple[Integers, Integers]:
    """County-level codes of the delta in force in ``year``, and which of them have been retired since."""
    codes = [
        code
        for code, named in sorted(regions.entries().items())
        if regions.is_delta(code)
        and code.startswith(prefix)
        and any(e.level == "county" and e.from_year <= year and (e.to_year is None or year < e.to_year) for e in named)
    ]
    gone = [regions.status(code) == "retired" for code in codes]
    return np.array([int(code) for code in codes], dtype=np.int64), np.array(gone, dtype=np.int64)


def homes(rng: np.random.Generator, count: int) -> Integers:
    """Districts of today to live in."""
    codes, _ = in_year(2024, HOME)
    return rng.choice(codes, size=count)


def birthplaces(rng: np.random.Generator, years: Integers) -> Integers:
    """A code that was in force in each year of birth; before the list begins, one as old as the list."""
    result = np.zeros(len(years), dtype=np.int64)
    known = np.maximum(years, regions.LIST_BEGINS)
    for year in np.unique(known):
        here = known == year
        codes, gone = in_year(int(year))
        weights = np.where(gone == 1, RETIRED_WEIGHT, 1.0)
        local = codes // 10_000 == int(HOME)
        shares = np.where(
            local,
            HOME_SHARE * weights / weights[local].sum(),
            (1 - HOME_SHARE) * weights / weights[~local].sum(),
        )
        result[here] = rng.choice(codes, size=int(here.sum()), p=shares / shares.sum())
    return result


def registered(rng: np.random.Generator, prefix: str, year: int, count: int) -> Integers:
    """Codes of one province that companies of a year are registered under; some have since been retired."""
    codes, gone = in_year(year, prefix)
    kept = np.array([regions.name(f"{code // 100}00") is not None or prefix == HOME for code in codes])
    weights = np.where(gone == 1, 0.3, 1.0)[kept]
    return rng.choice(codes[kept], size=count, p=weights / weights.sum())


def full_names(codes: Integers) -> pa.StringArray:
    """上海市松江区 for 310117."""
    known, places = np.unique(codes, return_inverse=True)
    return pick([regions.full_name(f"{code:06d}") or "" for code in known], places)


def cities(codes: Integers) -> pa.StringArray:
    """The short name registers use: the district in Shanghai (松江), the prefecture elsewhere (苏州)."""
    known, places = np.unique(codes, return_inverse=True)
    return pick([_city(f"{code:06d}") for code in known], places)


def statuses(codes: Integers) -> pa.StringArray:
    """``listed``, ``retired`` or ``unlisted`` for each code."""
    known, places = np.unique(codes, return_inverse=True)
    return pick([regions.status(f"{code:06d}") for code in known], places)


def _city(code: str) -> str:
    if code.startswith(HOME):
        name = regions.name(code) or ""
        return "浦东" if name.startswith("浦东") else name.rstrip("区县")
    name = regions.name(code[:4] + "00") or ""
    return name.removesuffix("市").removesuffix("地区")
