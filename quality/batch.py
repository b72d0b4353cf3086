"""Checks of a batch as a whole: pure functions from counts and names to findings. A ``halt`` stops before the merge."""

from __future__ import annotations

import difflib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from connectors.source import Volume

COUNTED = ("unchanged", "accepted", "quarantined", "rejected")
# Below this a tenfold batch is no sign of anything: small sources jump.
USUAL_MATTERS_FROM = 1000


@dataclass(frozen=True)
class Finding:
    """``code`` is a message code of quality/messages; ``values`` fill its sentence and hold no personal identifier."""

    code: str
    severity: Literal["halt", "warn"]
    values: dict[str, object] = field(default_factory=dict)


def columns(expected: Sequence[str], seen: Sequence[str]) -> list[Finding]:
    """Drift of the raw columns: what is missing and what is new, with a hint where a column looks renamed.

    Where hardly any column is known the header is missing, and what stands in its place is somebody's record: then no
    name found is repeated.
    """
    missing = [name for name in expected if name not in seen]
    unknown = [name for name in seen if name not in expected and not name.startswith("_")]
    if len(missing) > len(expected) / 2:
        return [Finding("batch-header-missing", "halt", {"columns": ", ".join(missing), "found": len(unknown)})]
    findings = []
    if missing:
        hint = ", ".join(f"{old} → {new}" for old, new in _renamed(missing, unknown, expected, seen)) or "-"
        values: dict[str, object] = {"columns": ", ".join(missing), "renamed": hint}
        findings.append(Finding("batch-columns-missing", "halt", values))
    if unknown:
        findings.append(Finding("batch-columns-unknown", "halt", {"columns": ", ".join(map(repr, unknown))}))
    return findings


def _renamed(
    missing: Sequence[str], unknown: Sequence[str], expected: Sequence[str], seen: Sequence[str]
) -> list[tuple[str, str]]:
    """Pairs that look like one column under two names: alike in spelling, else in the same place."""
    pairs = []
    left = list(unknown)
    for old in missing:
        close = difflib.get_close_matches(old.strip().lower(), [name.strip().lower() for name in left], 1, 0.6)
        alike = [name for name in left if close and name.strip().lower() == close[0]]
        placed = [name for name in left if seen.index(name) == expected.index(old)]
        if found := (alike or placed):
            pairs.append((old, found[0]))
            left.remove(found[0])
    return pairs


def volume(bounds: Volume, fetched: int, usual: Sequence[int], extent: str, delivered: bool = True) -> list[Finding]:
    """Whether the batch has a believable size.

    ``usual``: rows fetched by the last merged batches; their median (empty ones left out) is what is usual. An empty
    snapshot would withdraw everything and halts; an empty ``changes`` or ``partial`` batch is fine, and so is a run to
    which nothing was ``delivered``.
    """
    if fetched == 0:
        return [Finding("batch-empty-snapshot", "halt")] if extent == "snapshot" and delivered else []
    findings = []
    if fetched > bounds.max:
        findings.append(Finding("batch-too-large", "halt", {"fetched": fetched, "max": bounds.max}))
    if fetched < bounds.min:
        findings.append(Finding("batch-too-small", "halt", {"fetched": fetched, "min": bounds.min}))
    filled = [rows for rows in usual if rows > 0]
    middle = statistics.median(filled) if filled else 0
    if filled and fetched >= USUAL_MATTERS_FROM and fetched >= bounds.times_usual * middle:
        values: dict[str, object] = {"fetched": fetched, "usual": int(middle), "times": round(fetched / middle)}
        findings.append(Finding("batch-unusual-volume", "halt", values))
    return findings


def duplicates(policy: str, conflicting: int) -> list[Finding]:
    """Row keys that occur with different rows in one batch, where the source says ``halt``."""
    if policy == "halt" and conflicting:
        return [Finding("batch-conflicting-keys", "halt", {"rows": conflicting})]
    return []


def conservation(counts: Mapping[str, int]) -> list[Finding]:
    """``fetched = unchanged + accepted + quarantined + rejected``: nothing lost, nothing counted twice."""
    found = {name: int(counts.get(name, 0)) for name in COUNTED}
    fetched = int(counts["fetched"])
    if fetched == sum(found.values()) and min(found.values()) >= 0:
        return []
    return [Finding("batch-rows-not-conserved", "halt", {"fetched": fetched, "counted": sum(found.values()), **found})]


def bad_share(mapped: int, bad: int, max_share: float = 0.5, min_rows: int = 20) -> list[Finding]:
    """Mass failure: more than ``max_share`` of at least ``min_rows`` mapped rows were quarantined or rejected.

    Then the source changed, not the rows: quarantining them one by one would hide it.
    """
    if mapped < min_rows or bad <= max_share * mapped:
        return []
    values: dict[str, object] = {"bad": bad, "mapped": mapped, "percent": round(100 * bad / mapped)}
    return [Finding("batch-mass-failure", "halt", values)]


def withdrawals(withdrawn: int, known: int, max_share: float = 0.1, min_rows: int = 20) -> list[Finding]:
    """Mass withdrawal: a snapshot lacks more than ``max_share`` of at least ``min_rows`` rows that earlier ones had.

    Then it was more likely cut off, or its keys renamed, than that so many came to an end.
    """
    if known < min_rows or withdrawn <= max_share * known:
        return []
    values: dict[str, object] = {"withdrawn": withdrawn, "known": known, "percent": round(100 * withdrawn / known)}
    return [Finding("batch-mass-withdrawal", "halt", values)]


def keys(before: Sequence[str] | None, now: Sequence[str], known: int) -> list[Finding]:
    """Other key columns than those under which the ``known`` rows were merged (``before``; None: not known).

    Then no row is known again: each is a new one, and the old one goes on saying what it said.
    """
    if before is None or not known or sorted(before) == sorted(now):
        return []
    values: dict[str, object] = {"before": ", ".join(before), "now": ", ".join(now) or "-", "known": known}
    return [Finding("batch-keys-changed", "halt", values)]


def flag_shares(
    mapped: int, flags: Mapping[str, int], max_share: Mapping[str, float], min_rows: int = 20
) -> list[Finding]:
    """A flag that is fine on some rows and alarming on most, such as another province in a province's own register."""
    return [
        Finding("batch-flag-share", "halt", {"flag": flag, "rows": flags[flag], "mapped": mapped})
        for flag, share in sorted(max_share.items())
        if mapped >= min_rows and flags.get(flag, 0) > share * mapped
    ]
