"""Versions of shared tables as they are kept: which are served, and the files each of them is.

Served is what was made under the scope that counts now, from the latest change of scope on. What a version changed is in its
change files; of a version that was made from nothing (``whole``), all of its rows are new.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from connectors.errors import UsageError
from hub.exchange.shares import Share, Shared
from hub.schema_exchange import share_file, share_version

_version, _file = share_version, share_file


@dataclass(frozen=True)
class Version:
    """One version. ``made_at`` to the millisecond, rising with ``number``."""

    number: int
    made_at: dt.datetime
    rows: int
    whole: bool

    @property
    def milliseconds(self) -> int:
        """Since 1970, as Delta counts."""
        return round(self.made_at.timestamp() * 1000)


@dataclass(frozen=True)
class File:
    """One Parquet file. ``path`` is below the folder of the agreement; ``size`` in bytes."""

    path: str
    size: int
    rows: int

    @property
    def id(self) -> str:
        """Says which content it is, and nothing else."""
        return self.path.rpartition("/")[2].removesuffix(".parquet")


@dataclass(frozen=True)
class Change:
    """A file of changes of ``version``; ``inserted``: of rows that are all new, which say no more of it."""

    version: Version
    file: File
    inserted: bool


def served(connection: sa.Connection, share: Share, table: Shared) -> list[Version]:
    """By number. UsageError ``share-not-published`` when there is none."""
    query = sa.select(_version).where(_of(_version, share.agreement.id, table.name)).order_by(_version.c.version)
    found: list[Version] = []
    for row in connection.execute(query):
        if row.scope != table.scope:
            found.clear()
        else:
            found.append(Version(row.version, row.made_at, row.rows, row.whole))
    if not found:
        raise UsageError("share-not-published")
    return found


def chosen(versions: Sequence[Version], number: int | None = None, at: dt.datetime | None = None) -> Version:
    """The version ``number``, the one that was the latest ``at`` a time, or the latest. UsageError
    ``share-version-unknown``."""
    if number is not None and at is not None:
        raise UsageError("share-parameters")
    if number is not None:
        found = [one for one in versions if one.number == number]
    else:
        found = [one for one in versions if at is None or one.made_at <= at]
    if not found:
        raise _unknown(versions)
    return found[-1]


def since(versions: Sequence[Version], at: dt.datetime) -> Version:
    """The first version made ``at`` a time or later. UsageError ``share-version-unknown``."""
    found = next((one for one in versions if one.made_at >= at), None)
    if found is None:
        raise _unknown(versions)
    return found


def files(connection: sa.Connection, share: Share, table: Shared, version: Version) -> list[File]:
    """The files of rows that make up ``version``, in the order of holding keys."""
    query = (
        sa.select(_file.c.path, _file.c.size, _file.c.rows)
        .where(_of(_file, share.agreement.id, table.name), _file.c.kind == "rows")
        .where(_file.c.from_version <= version.number)
        .where(sa.or_(_file.c.to_version.is_(None), _file.c.to_version > version.number))
        .order_by(_file.c.bucket)
    )
    return [File(*row) for row in connection.execute(query)]


def changes(
    connection: sa.Connection, share: Share, table: Shared, versions: Sequence[Version], first: int, last: int
) -> list[Change]:
    """What the versions from ``first`` to ``last`` changed, by version."""
    wanted = {one.number: one for one in versions if first <= one.number <= last}
    kind = sa.case((_file.c.kind == "changes", False), else_=True).label("inserted")
    whole = [number for number, one in wanted.items() if one.whole]
    query = (
        sa.select(_file.c.from_version, kind, _file.c.path, _file.c.size, _file.c.rows)
        .where(_of(_file, share.agreement.id, table.name), _file.c.from_version.in_(list(wanted)))
        .where(sa.or_(_file.c.kind == "changes", _file.c.from_version.in_(whole)))
        .order_by(_file.c.from_version, _file.c.bucket)
    )
    return [
        Change(wanted[row.from_version], File(row.path, row.size, row.rows), row.inserted)
        for row in connection.execute(query)
    ]


def kept(connection: sa.Connection, agreement: uuid.UUID) -> dict[str, Version]:
    """The latest version of each table of an agreement, served or not, by material."""
    query = sa.select(_version).where(_version.c.agreement == agreement).order_by(_version.c.version)
    return {row.material: Version(row.version, row.made_at, row.rows, row.whole) for row in connection.execute(query)}


def _unknown(versions: Sequence[Version]) -> UsageError:
    first, last = versions[0], versions[-1]
    return UsageError(
        "share-version-unknown", first=first.number, last=last.number, at=_shown(first), until=_shown(last)
    )


def _shown(version: Version) -> str:
    return version.made_at.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _of(table: sa.Table, agreement: uuid.UUID, material: str) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.agreement == agreement, table.c.material == material)
