"""Findings about a batch as a whole, from the checks of :mod:`quality.batch`: its columns, its keys, its counts, its age."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from connectors.errors import BatchHalted
from connectors.source import Source
from hub import batches, clock

if TYPE_CHECKING:
    from hub.merge import Merged


def check_columns(described: Source, batch: str, staged: Any) -> None:
    """Schema drift halts before mapping: with a column missing nothing can be judged. What this hub wrote itself has the
    columns that there was something for, by the model of its day."""
    from hub import deposit_sources
    from mappings import engine as mapping_engine
    from quality import batch as batch_checks

    if described.name.startswith(deposit_sources.PREFIX):
        return
    mapping = mapping_engine.mapping_of(described)
    for header in sorted(staged.headers):
        for finding in batch_checks.columns(mapping.columns(), header):
            if finding.severity == "halt":
                raise BatchHalted(finding.code, **{**finding.values, "batch": batch, "source": described.name})


def keys(connection: sa.Connection, described: Source) -> list[Any]:
    """Finding of other key columns than at the last merge."""
    from quality import batch as checks

    before = batches.key(connection, described.name)
    if before is None or sorted(before) == sorted(described.row_key):
        return []
    return checks.keys(before, described.row_key, batches.known_rows(connection, described.name))


def judge(
    described: Source,
    counts: dict[str, int],
    flags: Counter[str],
    usual: list[int],
    conflicting: int,
    absence: Any,
    delivered: bool,
) -> list[Any]:
    """Findings of all checks of the batch as a whole."""
    from quality import batch as checks
    from quality import suite

    bounds = suite.load(described).batch
    bad = counts["quarantined"] + counts["rejected"]
    return [
        *checks.conservation(counts),
        *checks.volume(described.volume, counts["fetched"], usual, described.extent, delivered),
        *checks.duplicates(described.duplicates, conflicting),
        *checks.bad_share(counts["fetched"], bad, bounds.max_bad_share, bounds.min_rows),
        *checks.withdrawals(absence.rows, absence.known, bounds.max_withdrawn_share, bounds.min_rows),
        *checks.flag_shares(counts["accepted"] + bad, flags, bounds.max_flag_share, bounds.min_rows),
    ]


def merged(batch: sa.Row, done: Merged) -> list[dict[str, Any]]:
    """Findings of what the merge itself came to."""
    return [*_behind(batch, done), *_tied(batch, done)]


def _tied(batch: sa.Row, done: Merged) -> list[dict[str, Any]]:
    """Of accepted rows that do not count: another version says the same time and stands."""
    if batch.kind != "run" or not done.tied:
        return []
    return [{"code": "versions-tied", "severity": "warn", "values": {"rows": done.tied}}]


def _behind(batch: sa.Row, done: Merged) -> list[dict[str, Any]]:
    """Finding of a run that changed nothing because what it brought is older than what is known: a late delivery, or one
    before it came with a date that is still to come."""
    if batch.kind != "run" or not done.behind:
        return []
    times = {
        name: time.astimezone(clock.CHINA).isoformat() if time else "-"
        for name, time in (("as_of", batch.as_of), ("known", done.known_as_of))
    }
    return [{"code": "delivery-older", "severity": "warn", "values": {"rows": done.older, **times}}]
