"""Conditions over scenario facts: true, false, or open because facts are missing.

An open condition is decided by trying every combination of what the missing facts could be: if all come to one result,
the missing facts do not matter, and only facts that can change the result are worth a question.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from mappings.items import Condition, Fact, FactValue


@dataclass(frozen=True)
class Outcome:
    """``value`` is None while open; ``deciding``: the missing facts that can change the result, as declared."""

    value: bool | None
    deciding: tuple[str, ...] = ()


def evaluate(condition: Condition | None, facts: Mapping[str, FactValue], declared: Mapping[str, Fact]) -> Outcome:
    """What ``condition`` comes to under the known ``facts``. No condition is always true."""
    if condition is None:
        return Outcome(True)
    tried = condition.combinations(declared)
    missing = [name for name in declared if name in tried and name not in facts]
    results = {
        values: condition.holds({**facts, **dict(zip(missing, values, strict=True))})
        for values in itertools.product(*(tried[name] for name in missing))
    }
    if len(set(results.values())) == 1:
        return Outcome(next(iter(results.values())))
    return Outcome(None, tuple(name for place, name in enumerate(missing) if _matters(results, place)))


def _matters(results: Mapping[tuple[FactValue, ...], bool], place: int) -> bool:
    """Whether two combinations that differ only at ``place`` come to different results."""
    seen: dict[tuple[FactValue, ...], bool] = {}
    for values, result in results.items():
        if seen.setdefault(values[:place] + values[place + 1 :], result) != result:
            return True
    return False
