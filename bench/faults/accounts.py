"""What a store says after a schedule, beside what it says after the undisturbed run of the same steps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import sqlalchemy as sa

from hub import state


@dataclass(frozen=True)
class Account:
    """``digest``: of the state, by part; of decisions only what is in force counts, not when and how often it was tried.
    ``things``: how often each ledger row, holding, … is there, by kind. ``fetched``:
    rows of merged runs, by source. ``uncounted``: rows of merged batches without a fate (below zero: with two)."""

    digest: dict[str, str]
    things: dict[str, Counter[str]]
    fetched: Counter[str]
    uncounted: tuple[int, ...]
    gaps: int  # positions that the feed has not, below the one it is at
    repeats: int  # positions that it has twice, holdings with two versions in force


@dataclass
class Difference:
    """What a schedule lost and what it has twice, in rows, holdings and feed entries; which parts of the state differ."""

    lost: int = 0
    twice: int = 0
    parts: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)


def take(connection: sa.Connection) -> Account:
    """Read a store. Small ones: a line for each thing in it comes here."""
    things: dict[str, Counter[str]] = {
        kind: Counter(dict(iter(connection.execute(sa.text(query))))) for kind, query in _THINGS.items()
    }
    fetched = Counter({source: int(rows) for source, rows in connection.execute(sa.text(_FETCHED))})
    digest = {part: value for part, value in state.digest(connection).items() if part not in ("decided", state.ALL)}
    return Account(
        digest,
        things,
        fetched,
        tuple(connection.scalars(sa.text(_UNCOUNTED))),
        connection.scalar(sa.text(_GAPS)) or 0,
        connection.scalar(sa.text(_REPEATS)) or 0,
    )


def compare(expected: Account, found: Account) -> Difference:
    """``lost``: fetched rows without a fate, rows, holdings, versions or feed entries that should be there. ``twice``: rows
    fetched or decided twice, holdings and feed entries counted more often than once."""
    difference = Difference()
    for kind in _THINGS:
        lost = expected.things[kind] - found.things[kind]
        extra = found.things[kind] - expected.things[kind]
        twice = sum(count for key, count in extra.items() if expected.things[kind][key])
        if lost or extra:
            difference.kinds[kind] = sum(lost.values()) + sum(extra.values())
        difference.lost += sum(lost.values())
        difference.twice += twice
    difference.lost += sum((expected.fetched - found.fetched).values()) + found.gaps
    difference.twice += sum((found.fetched - expected.fetched).values()) + found.repeats
    difference.lost += sum(count for count in found.uncounted if count > 0)
    difference.twice -= sum(count for count in found.uncounted if count < 0)
    difference.parts = sorted(part for part in expected.digest if expected.digest[part] != found.digest.get(part))
    return difference


_THINGS = {
    "ledger": "SELECT source || ' ' || row_key::text, count(*) FROM row_ledger GROUP BY 1",
    "holding": "SELECT encode(key, 'hex'), count(*) FROM holding GROUP BY 1",
    "link": "SELECT encode(link, 'hex'), count(*) FROM identity_link GROUP BY 1",
    "decided": "SELECT kind || ' ' || side || ' ' || encode(member, 'hex'), count(*) FROM identity_decision WHERE ended_by IS NULL GROUP BY 1",
    "open": "SELECT source || ' ' || row_key::text || ' ' || digest::text, count(*) FROM quarantine WHERE state = 'open' GROUP BY 1",
    "version": "SELECT encode(holding, 'hex') || ' ' || digest::text, count(*) FROM holding_version GROUP BY 1",
    "feed": "SELECT encode(holding, 'hex') || ' ' || change || ' ' || coalesce(digest::text, ''), count(*) FROM feed GROUP BY 1",
}
_FETCHED = "SELECT source, sum(fetched) FROM batch WHERE state = 'merged' AND kind = 'run' GROUP BY source"
_UNCOUNTED = """SELECT fetched - unchanged - accepted - quarantined - rejected FROM batch
WHERE state = 'merged' AND fetched <> unchanged + accepted + quarantined + rejected"""
_GAPS = "SELECT (SELECT max(position) FROM feed_head) - (SELECT count(DISTINCT position) FROM feed)"
_REPEATS = """SELECT (SELECT count(*) - count(DISTINCT position) FROM feed)
  + (SELECT count(*) - count(DISTINCT holding) FROM holding_version WHERE recorded_to IS NULL)"""
