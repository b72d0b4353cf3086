"""Versions of shared tables: a version is the store as of one position of the feed (:mod:`hub.exchange.share_making`).

Where nothing differs from the last version there is no other one. All holdings are read again where positions mean something
else now: another scope, a store that was rebuilt, a feed whose months are gone. Everything of one version is read under one
snapshot and becomes known in one commit. One maker at a time for a table; another one that waited finds nothing left to do.
What is no longer served goes: versions under another scope at once, old ones after :data:`KEPT`.
"""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from connectors.errors import UsageError
from hub import database
from hub.exchange import share_files, share_making, shares
from hub.exchange.share_folder import Folder
from hub.exchange.share_making import Progress, Run, quiet
from hub.exchange.shares import Share, Shared
from hub.schema_exchange import share_file, share_version

KEPT = dt.timedelta(days=30)  # older versions go, but for the latest
STORE = "share-store"  # setting: what positions of the feed are positions of
_version, _file = share_version, share_file
log = logging.getLogger("yici.shares")


@dataclass(frozen=True)
class Made:
    """What became of one table. ``new``: whether ``version`` was made; ``changed``: rows in its changes, all of them where it
    was made from nothing; ``parts``: files of rows written."""

    agreement: str
    material: str
    version: int
    new: bool
    position: int
    rows: int
    changed: int
    parts: int


def publish(
    named: uuid.UUID | None = None, *, anew: bool = False, progress: Progress = quiet, engine: sa.Engine | None = None
) -> list[Made]:
    """Bring the tables of an agreement, or of all in force, up to date; what is no longer served or needed goes.

    ``anew``: read all holdings, not only what the feed names. UsageError as :func:`hub.exchange.shares.of` when the agreement is
    named; of all, those that allow nothing now are left out.
    """
    engine = engine or database.engine()
    with engine.connect() as connection:
        agreements = [named] if named else shares.every(connection)
    made: list[Made] = []
    for agreement in agreements:
        try:
            with engine.connect() as connection:
                share = shares.of(connection, agreement, _now())
        except UsageError:
            if named:
                raise
            continue
        for material in share.tables:
            with _alone(engine, share.name, material):
                found = _publish(engine, share.agreement.id, material, anew, progress)
            made += [found] if found else []
        _withdrawn(engine, share)
    if named is None:
        drop(engine)
    return made


def behind(engine: sa.Engine | None = None) -> list[uuid.UUID]:
    """Agreements in force of which a table is not as the store is now, or something is kept that is to go."""
    engine = engine or database.engine()
    store, found = _store(engine), []
    with engine.connect() as connection:
        position = int(connection.scalar(sa.text("SELECT position FROM feed_head")) or 0)
        for agreement in shares.every(connection):
            try:
                share = shares.of(connection, agreement, _now())
            except UsageError:
                continue
            since = _now() - KEPT
            rows = connection.execute(_LATEST, {"agreement": share.agreement.id, "since": since}).all()
            wanted = {(name, table.scope, store, position, False) for name, table in share.tables.items()}
            if {(row.material, row.scope, row.store, row.position, row.old) for row in rows} != wanted:
                found.append(agreement)
    return found


def _publish(engine: sa.Engine, agreement: uuid.UUID, material: str, anew: bool, progress: Progress) -> Made | None:
    store = _store(engine)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        share = shares.of(
            connection, agreement, _now()
        )  # under the snapshot: it may have changed while this one waited
        shared = share.tables.get(material)
        if shared is None:
            return None
        folder = Folder(share_files.zone(), share_files.folder(agreement), material)
        last = _last(connection, agreement, material)
        position = int(connection.scalar(sa.text("SELECT position FROM feed_head")) or 0)
        same = last is not None and last.scope == shared.scope
        known = same and last is not None and last.store == store and not anew
        if known and last is not None and last.position == position:
            made = Made(share.name, material, last.version, False, position, last.rows, 0, 0)
        else:
            base = last if same else None
            try:
                run = share_making.make(connection, agreement, shared, folder, base, position, progress, anew=not known)
            except FileNotFoundError:  # somebody cleared the landing zone: what was before is lost
                log.error("share-files-lost agreement=%s material=%s", agreement, material)
                run = share_making.make(connection, agreement, shared, folder, None, position, progress, anew=True)
            made = _kept(run, share, last, position, store)
        _prune(connection, agreement, shared)
        needed = _paths(connection, agreement, material)
    folder.sweep(needed)  # after the commit: until then the version before needs what it has
    share_files.drop_answered(folder.zone, agreement, _now())
    return made


def _kept(run: Run, share: Share, last: sa.Row[Any] | None, position: int, store: str) -> Made:
    """What was made as the next version, where anything differs; the last one is what the store says at ``position`` otherwise."""
    agreement, material = share.agreement.id, run.shared.name
    if run.last is not None and not run.changed:
        same = sa.update(_version).where(_version.c.agreement == agreement, _version.c.material == material)
        connection = run.connection
        connection.execute(same.where(_version.c.version == run.last.version).values(position=position, store=store))
        return Made(share.name, material, run.last.version, False, position, run.last.rows, 0, 0)
    number = last.version + 1 if last is not None else 0
    _keep(run, agreement, number, last, position, store)
    return Made(share.name, material, number, True, position, run.rows, run.changed, len(run.written))


def _last(connection: sa.Connection, agreement: uuid.UUID, material: str) -> sa.Row[Any] | None:
    query = sa.select(_version).where(_version.c.agreement == agreement, _version.c.material == material)
    return connection.execute(query.order_by(_version.c.version.desc()).limit(1)).first()


def _keep(run: Run, agreement: uuid.UUID, number: int, last: sa.Row[Any] | None, position: int, store: str) -> None:
    """The version and its files, for the commit that follows."""
    connection, material = run.connection, run.shared.name
    whole, resplit = run.last is None, run.last is not None and run.bits != run.last.bits
    made_at = _now().replace(microsecond=_now().microsecond // 1000 * 1000)
    if last is not None:
        made_at = max(made_at, last.made_at + dt.timedelta(milliseconds=1))
    version = {"agreement": agreement, "material": material, "version": number, "position": position, "store": store,
               "made_at": made_at, "scope": run.shared.scope, "whole": whole, "bits": run.bits, "rows": run.rows}  # fmt: skip
    connection.execute(sa.insert(_version), [version])
    ended = sa.update(_file).where(_file.c.agreement == agreement, _file.c.material == material)
    ended = ended.where(_file.c.kind == "rows", _file.c.to_version.is_(None))
    if not (whole or resplit):
        ended = ended.where(_file.c.path.in_(run.gone))
    connection.execute(ended.values(to_version=number))
    common = {"agreement": agreement, "material": material, "from_version": number}
    files = [
        {
            **common,
            "path": rows.path,
            "kind": "rows",
            "bucket": bucket,
            "size": rows.size,
            "rows": rows.rows,
            "key_path": keys.path,
        }
        for bucket, (rows, keys) in run.written.items()
    ]
    files += [
        {
            **common,
            "path": one.path,
            "kind": "changes",
            "bucket": place,
            "size": one.size,
            "rows": one.rows,
            "key_path": None,
        }
        for place, one in enumerate(run.changes.files)
    ]
    if files:
        connection.execute(sa.insert(_file), files)


def _prune(connection: sa.Connection, agreement: uuid.UUID, shared: Shared) -> None:
    """Versions under another scope or before one that was made from nothing, and old ones, are no longer kept; the latest
    always is."""
    bind = {"agreement": agreement, "material": shared.name, "scope": shared.scope, "since": _now() - KEPT}
    for statement in _PRUNE:
        connection.execute(statement, bind)


def _paths(connection: sa.Connection, agreement: uuid.UUID, material: str) -> set[str]:
    query = sa.select(_file.c.path, _file.c.key_path).where(
        _file.c.agreement == agreement, _file.c.material == material
    )
    return {path for row in connection.execute(query) for path in row if path}


def _withdrawn(engine: sa.Engine, share: Share) -> None:
    """Tables of an agreement whose material it no longer covers go whole."""
    known = sa.select(_version.c.material).where(_version.c.agreement == share.agreement.id).distinct()
    with engine.connect() as connection:
        gone = set(connection.scalars(known)) - set(share.tables)
    for material in sorted(gone):
        with _alone(engine, share.name, material):
            _forget(engine, share.agreement.id, material)
            share_files.zone().remove(f"{share_files.folder(share.name)}/{material}")


def drop(engine: sa.Engine | None = None) -> None:
    """What is kept of agreements that are over goes."""
    engine = engine or database.engine()
    with engine.connect() as connection:
        over = shares.over(connection, _now())
    for agreement in over:
        _forget(engine, agreement, None)
        share_files.zone().remove(share_files.folder(agreement))


def _forget(engine: sa.Engine, agreement: uuid.UUID, material: str | None) -> None:
    with engine.begin() as connection:
        for table in (_file, _version):
            gone = sa.delete(table).where(table.c.agreement == agreement)
            connection.execute(gone if material is None else gone.where(table.c.material == material))


def _store(engine: sa.Engine) -> str:
    """What tells this database from every other, also from one that is built to take its place."""
    with engine.begin() as connection:
        made = sa.text("INSERT INTO setting (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING")
        connection.execute(made, {"name": STORE, "value": uuid.uuid4().hex})
        return str(connection.scalar(sa.text("SELECT value FROM setting WHERE name = :name"), {"name": STORE}))


@contextmanager
def _alone(engine: sa.Engine, agreement: str, material: str) -> Iterator[None]:
    """One maker of a table at a time: a session lock, which ends with the process at the latest."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as guard:
        bind = {"name": f"yici-share {agreement} {material}"}
        guard.execute(sa.text("SELECT pg_advisory_lock(hashtextextended(:name, 7))"), bind)
        try:
            yield
        finally:
            guard.execute(sa.text("SELECT pg_advisory_unlock(hashtextextended(:name, 7))"), bind)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


# The latest version of each table, and whether older ones have been kept for long enough.
_LATEST = sa.text("""
SELECT DISTINCT ON (material) material, scope, store, position,
  (SELECT count(*) > 0 FROM share_version AS w
    WHERE w.agreement = v.agreement AND w.material = v.material AND w.version < v.version AND w.made_at < :since) AS old
FROM share_version AS v WHERE agreement = :agreement ORDER BY material, version DESC
""").bindparams(sa.bindparam("agreement", type_=sa.Uuid()), sa.bindparam("since", type_=sa.DateTime(timezone=True)))
_PRUNE = [
    sa.text(text).bindparams(
        sa.bindparam("agreement", type_=sa.Uuid()), sa.bindparam("since", type_=sa.DateTime(timezone=True))
    ) if "since" in text else sa.text(text).bindparams(sa.bindparam("agreement", type_=sa.Uuid()))
    for text in (
        """DELETE FROM share_version AS v WHERE agreement = :agreement AND material = :material
        AND (scope <> :scope OR made_at < :since OR version < (SELECT max(version) FROM share_version AS w
            WHERE w.agreement = v.agreement AND w.material = v.material AND w.whole))
        AND version < (SELECT max(version) FROM share_version AS l WHERE l.agreement = v.agreement AND l.material = v.material)""",
        """DELETE FROM share_file AS f WHERE agreement = :agreement AND material = :material
        AND (CASE WHEN kind = 'changes' THEN from_version ELSE to_version - 1 END)
          < (SELECT min(version) FROM share_version AS v WHERE v.agreement = f.agreement AND v.material = f.material)""",
    )
]  # fmt: skip
