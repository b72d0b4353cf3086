"""How a rebuild begins: a store that carries its mark, empty or with a checkpoint, or one that an earlier attempt left half made."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from sqlalchemy.engine import URL

from connectors.errors import FatalError
from connectors.landing import Landing
from hub import checkpoint, database, partitions, schema
from hub.replay import Progress

MARK = "rebuild"  # setting: the landing zone that the store is being made from
START = "rebuild-from"  # with it: the checkpoint that it began with


def begin(
    engine: sa.Engine, landing: Landing, name: str | None, old: URL | None, progress: Progress
) -> tuple[str | None, str | None]:
    """Mark the store as being rebuilt and load the checkpoint, unless that was done before; a store that was begun with another
    one, or with none, is begun anew. Returns the checkpoint, and what was given up (:attr:`hub.rebuild.Rebuilt.anew`).

    FatalError ``rebuild-begun-otherwise`` where it is of another landing zone, ``rebuild-checkpoint-unknown``, and those of
    :func:`hub.checkpoint.load`.
    """
    chosen = _chosen(landing, name)
    with engine.connect() as connection:
        marks = sa.select(schema.setting.c.name, schema.setting.c.value).where(schema.setting.c.name.in_((MARK, START)))
        known = {row.name: row.value for row in connection.execute(marks)}
    if known.get(MARK, landing.zone.shown) != landing.zone.shown:
        raise FatalError("rebuild-begun-otherwise", name=engine.url.database, landing=known[MARK])
    anew = None
    if MARK in known:
        if known.get(START) == chosen:
            return chosen, None
        anew = known.get(START, "-")
        progress("begin anew", 0, 0)
        _empty(engine)
    with engine.begin() as connection:
        mark(connection, landing, chosen)
        if chosen is not None:
            checkpoint.load(connection, landing, chosen)
        for day in (landing.since(), since(old, "landing").get("landing")):
            if day is not None:
                partitions.note_since(connection, "landing", day)
    return chosen, anew


def mark(connection: sa.Connection, landing: Landing, chosen: str | None) -> None:
    """Write into a store that it is being made from ``landing``, begun with the checkpoint ``chosen``."""
    for name, value in ((MARK, landing.zone.shown), (START, chosen)):
        if value is not None:
            connection.execute(sa.insert(schema.setting).values(name=name, value=value))


def unmark(connection: sa.Connection) -> None:
    connection.execute(sa.delete(schema.setting).where(schema.setting.c.name.in_((MARK, START))))


def _chosen(landing: Landing, name: str | None) -> str | None:
    """The checkpoint meant. FatalError ``rebuild-checkpoint-unknown``."""
    if name is None:
        return None
    names = checkpoint.names(landing)
    if not names or (name != "latest" and name not in names):
        raise FatalError("rebuild-checkpoint-unknown", checkpoint=name, known=", ".join(names) or "-")
    return names[-1] if name == "latest" else name


def _empty(engine: sa.Engine) -> None:
    """A half-made store as it was when its database was fresh, and migrated."""
    with engine.begin() as connection:
        schema_ = str(connection.scalar(sa.text("SELECT current_schema()")))
        named = engine.dialect.identifier_preparer.quote_identifier(schema_)
        for statement in ("DROP SCHEMA {} CASCADE", "CREATE SCHEMA {}", "GRANT USAGE ON SCHEMA {} TO PUBLIC"):
            connection.execute(sa.text(statement.format(named)))
    engine.dispose()
    database.upgrade()


def since(old: URL | None, *kept: str) -> dict[str, dt.date]:
    """What retention left in the old store (:func:`hub.partitions.since`)."""
    if old is None:
        return {}
    with sa.create_engine(old, poolclass=sa.NullPool, hide_parameters=True).connect() as connection:
        found = {one: partitions.since(connection, one) for one in kept}
    return {one: day for one, day in found.items() if day is not None}
