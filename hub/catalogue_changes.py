"""The feed of the catalogue's changes 动态调整: what follows from the files, what of it was published, and one page of it.

The files under review are the catalogue; a change of theirs takes effect at its own date and is published once, in one
order that every channel reads (:mod:`hub.publication`). Kinds: ``added`` the first version of an item, ``changed`` a later
one, ``ended`` a version that none follows on the next day, ``retired`` the last version, with its successor.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from mappings.items import Item

Kind = Literal["added", "changed", "ended", "retired"]
LARGEST = 1000
LIMIT = 100
DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Change:
    """One change; ``effective_on`` is the first day on which it is so, ``digest`` that of the version (hex)."""

    item: str
    version: int
    kind: Kind
    effective_on: dt.date
    successor: str | None
    digest: str

    def said(self) -> dict[str, Any]:
        return {**vars(self), "effective_on": self.effective_on.isoformat()}


def authored(published: Mapping[str, tuple[Item, ...]]) -> list[Change]:
    """Every change that the files say, whether published or not, in the order of their dates."""
    found = [change for versions in published.values() for change in _of(versions)]
    return sorted(found, key=lambda change: (change.effective_on, change.item, change.version, change.kind))


def _of(versions: tuple[Item, ...]) -> Iterator[Change]:
    for place, item in enumerate(versions):
        kind: Kind = "changed" if place else "added"
        digest = item.digest()
        yield Change(item.code, item.version, kind, item.in_force.from_, None, digest)
        if item.in_force.to is None:
            continue
        after = item.in_force.to + DAY
        if item is versions[-1]:
            yield Change(item.code, item.version, "retired", after, item.successor, digest)
        elif versions[place + 1].in_force.from_ != after:
            yield Change(item.code, item.version, "ended", after, None, digest)


def page(connection: sa.Connection, after: int, limit: int) -> dict[str, Any]:
    """Up to ``limit`` changes behind the position ``after``. ``next`` is where to go on, also from the last page."""
    rows = connection.execute(sa.text(_PAGE), {"after": after, "limit": limit + 1}).mappings().all()
    changes = [_shown(row) for row in rows[:limit]]
    return {
        "changes": changes,
        "next": changes[-1]["position"] if changes else after,
        "more": len(rows) > limit,
    }


def _shown(row: sa.RowMapping) -> dict[str, Any]:
    return {
        **row,
        "effective_on": row["effective_on"].isoformat(),
        "published_at": row["published_at"].astimezone(dt.UTC).isoformat(),
    }


_PAGE = """
SELECT position, item, version, kind, effective_on, successor, encode(digest, 'hex') AS digest, published_at
FROM catalogue_change WHERE position > :after ORDER BY position LIMIT :limit
"""
