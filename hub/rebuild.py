"""``yici rebuild``: the store made anew from the landing zone (:mod:`hub.replay`), beside the old one until it is complete.

The home's own store is built in a database of its own, ``<name>_rebuild``, and takes the old one's name at the end, in one
step; another database (``--into``) is filled in place and must be fresh. A database being rebuilt carries a mark: a rebuild
that was killed is continued when it is started again, or begun anew where it had begun with another checkpoint. What no source ever said (agreements, peers, answers given, the exchange
and its ledger) is carried over from the old store, where there is one.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from connectors.errors import FatalError, RetriableError
from connectors.landing import Landing
from hub import database, home, partitions, rebuild_start, replay, schema, state
from hub.exchange import epochs
from hub.rebuild_start import MARK
from hub.replay import Progress, Replayed, quiet

CARRIED = (
    "agreement", "answer", "answer_sources", "answer_text", "evidence", "subject_view",
    "exchange_peer", "exchange_agreement", "exchange_message", "exchange_record", "exchange_pending", "exchange_chain",
    "exchange_checkpoint", "exchange_head", "index_position", "correction", "reconciliation", "share_version", "share_file",
)  # fmt: skip
# Where a store in use has rows; the end of the ledger is in every store.
_HELD = ("source", "batch", "decision", *(table for table in CARRIED if table != "exchange_head"))
IDLE_WITHIN = 3  # seconds
_LOCK = "yici-rebuild"


@dataclass
class Rebuilt:
    """``database``: what was filled. ``before``: the name the old store has now. ``carried``: rows carried over by table,
    None without an old store. ``other``: parts of the state digest in which the old store differed. ``anew``: the checkpoint, or
    ``-``, that a half-made store had been begun with, which was given up."""

    database: str
    replayed: Replayed
    digest: dict[str, str]
    checkpoint: str | None = None
    before: str | None = None
    carried: dict[str, int] | None = None
    other: list[str] = field(default_factory=list)
    anew: str | None = None

    def shown(self) -> dict[str, Any]:
        return {
            "database": self.database,
            "digest": self.digest[state.ALL],
            "checkpoint": self.checkpoint,
            **{name: self.replayed.counts[name] for name in ("batches", "rows", "released", "decisions")},
            "never_merged": self.replayed.idle,
            "approved_again": self.replayed.approved,
            "contracts_changed": sorted(self.replayed.changed),
            "carried_over": self.carried,
            "differs_from_before": self.other,
            "before": self.before,
            "given_up": self.anew,
        }


def rebuild(
    into: str | None = None,
    *,
    replace: bool = False,
    from_checkpoint: str | None = None,
    drop_old: bool = False,
    confirm: Callable[[str], bool] = lambda name: True,
    progress: Progress = quiet,
) -> Rebuilt:
    """Fill ``into`` (a PostgreSQL URL; the home's own store without it) from the landing zone.

    ``replace``: the target may hold something; ``confirm`` is asked with its name. ``from_checkpoint``: a name, or
    ``latest``. FatalError ``rebuild-not-empty``, ``rebuild-declined``, ``rebuild-in-use``, ``rebuild-begun-otherwise``, and those
    of :func:`hub.replay.replay`; RetriableError ``rebuild-busy``.
    """
    landing = Landing(home.current().landing_url)
    own = database.url()
    target = make_url(into).set(drivername="postgresql+psycopg") if into else own
    found = _condition(target)
    if found == "full":
        if not replace:
            raise FatalError("rebuild-not-empty", name=target.database)
        _require_idle(target)
        if not confirm(str(target.database)):
            raise FatalError("rebuild-declined")
    aside = found == "full" or _same(target, own)
    work = target.set(database=f"{target.database}_rebuild") if aside else target
    if aside and _condition(work) == "full":
        raise FatalError("rebuild-not-empty", name=work.database)
    old = target if found == "full" else None if _same(target, own) or _condition(own) != "full" else own
    before = None
    with _store(work, landing) as engine, _alone(engine):
        loaded, anew = rebuild_start.begin(engine, landing, from_checkpoint, old, progress)
        done = replay.replay(landing, progress, due=_due(old, landing))
        while (more := replay.replay(landing, progress)).counts:  # merged meanwhile
            done.counts += more.counts
        progress("carry over", 0, 0)
        carried = _carry_over(old, engine)
        epochs.renew_all(dt.datetime.now(dt.UTC))  # positions in the feed are others now
        progress("digest", 0, 0)
        with state.snapshot(engine) as connection:
            digest = state.digest(connection)
        other = _differing(old, digest) if old is not None else []
        with engine.begin() as connection:
            rebuild_start.unmark(connection)
    if aside:
        try:
            before = _swap(work, target, keep=found == "full" and not drop_old)
        except FatalError:  # somebody is in it: the same command again goes on from here
            with sa.create_engine(work, poolclass=sa.NullPool, hide_parameters=True).begin() as connection:
                rebuild_start.mark(connection, landing, loaded)
            raise
    return Rebuilt(str(target.database), done, digest, loaded, before, carried, other, anew)


def _due(old: URL | None, landing: Landing) -> dict[str, int]:
    """Merges by source, as the old store and the latest checkpoint count them: what retention dropped is not left out in
    silence."""
    from hub import checkpoint

    found: dict[str, int] = {}
    if names := checkpoint.names(landing):
        found = dict(checkpoint.read(landing, names[-1]).merges)
    if old is not None:
        with sa.create_engine(old, poolclass=sa.NullPool, hide_parameters=True).connect() as connection:
            for row in connection.execute(sa.select(schema.source.c.name, schema.source.c.merges)):
                found[row.name] = max(row.merges, found.get(row.name, 0))
    return found


def _condition(target: URL) -> str:
    """``missing``, ``empty``, ``begun`` (by a rebuild) or ``full``."""
    with _admin(target) as admin:
        if not admin.scalar(sa.text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": target.database}):
            return "missing"
    engine = sa.create_engine(target, poolclass=sa.NullPool, hide_parameters=True)
    with engine.connect() as connection:
        tables = set(sa.inspect(connection).get_table_names())
        if not tables:
            return "empty"
        if "alembic_version" not in tables:
            return "full"
        if "setting" in tables and connection.scalar(
            sa.select(schema.setting.c.value).where(schema.setting.c.name == MARK)
        ):
            return "begun"
        held = (connection.scalar(sa.text(f"SELECT EXISTS (SELECT FROM {name})")) for name in _HELD if name in tables)
        return "full" if any(held) else "empty"


def _same(one: URL, other: URL) -> bool:
    """Whether two addresses name one database, as far as they say."""
    return _place(one) == _place(other)


def _place(url: URL) -> tuple[object, ...]:
    return url.host or url.query.get("host"), url.port or 5432, url.database


@contextlib.contextmanager
def _admin(target: URL) -> Iterator[sa.Connection]:
    engine = sa.create_engine(
        target.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool, hide_parameters=True
    )
    try:
        with engine.connect() as connection:
            yield connection
    except sa.exc.OperationalError as error:
        raise FatalError("store-unreachable", host=target.host or "socket", name=target.database) from error


@contextlib.contextmanager
def _store(work: URL, landing: Landing) -> Iterator[sa.Engine]:
    """``work``, made and migrated, as the store of this process."""
    with _admin(work) as admin:
        known = admin.scalar(sa.text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": work.database})
        if not known:
            admin.execute(sa.text(f"CREATE DATABASE {_quoted(work.database)}"))
    before = os.environ.get("YICI_DATABASE_URL")
    os.environ["YICI_DATABASE_URL"] = work.render_as_string(hide_password=False)
    try:
        database.upgrade()
        engine = database.engine()
        try:
            yield engine
        finally:
            engine.dispose()
    finally:
        if before is None:
            del os.environ["YICI_DATABASE_URL"]
        else:
            os.environ["YICI_DATABASE_URL"] = before


@contextlib.contextmanager
def _alone(engine: sa.Engine) -> Iterator[None]:
    """One rebuild of a store at a time: a session lock, which ends with the process at the latest."""
    own = sa.create_engine(
        engine.url, poolclass=sa.NullPool, hide_parameters=True
    )  # ended, it leaves no session behind
    with own.connect().execution_options(isolation_level="AUTOCOMMIT") as guard:
        if not guard.scalar(sa.text("SELECT pg_try_advisory_lock(hashtext(:name))"), {"name": _LOCK}):
            raise RetriableError("rebuild-busy", name=engine.url.database)
        try:
            yield
        finally:
            guard.execute(sa.text("SELECT pg_advisory_unlock_all()"))


def _require_idle(target: URL) -> None:
    """A session that has just ended may be seen for a moment."""
    query = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = :name AND pid <> pg_backend_pid()")
    with _admin(target) as admin:
        for _ in range(IDLE_WITHIN * 10):
            if not (sessions := admin.scalar(query, {"name": target.database})):
                return
            time.sleep(0.1)
    raise FatalError("rebuild-in-use", name=target.database, sessions=sessions)


def _swap(work: URL, target: URL, *, keep: bool) -> str | None:
    """Give the new store the old one's name, in one transaction; returns the name of the old one when it is kept."""
    before = f"{target.database}_before_{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}"
    engine = sa.create_engine(target.set(database="postgres"), poolclass=sa.NullPool, hide_parameters=True)
    try:
        with engine.begin() as connection:
            known = connection.scalar(
                sa.text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": target.database}
            )
            if known:
                connection.execute(sa.text(f"ALTER DATABASE {_quoted(target.database)} RENAME TO {_quoted(before)}"))
            connection.execute(sa.text(f"ALTER DATABASE {_quoted(work.database)} RENAME TO {_quoted(target.database)}"))
    except sa.exc.OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != "55006":  # object_in_use
            raise
        raise FatalError("rebuild-in-use", name=target.database, sessions="?") from error
    if known and not keep:
        with _admin(target) as admin:
            admin.execute(sa.text(f"DROP DATABASE {_quoted(before)}"))
        return None
    return before if known else None


def _carry_over(old: URL | None, engine: sa.Engine) -> dict[str, int] | None:
    """Copy what no source says out of the old store, in place of what is there; returns rows by table."""
    if old is None:
        return None
    counts = {}
    source = sa.create_engine(old, poolclass=sa.NullPool, hide_parameters=True)
    # As of one moment: records and their places in the chain belong together, and the old store may be in use.
    with (
        source.connect().execution_options(isolation_level="REPEATABLE READ") as there,
        engine.begin() as here,
    ):
        for table in CARRIED:
            known, wanted = _columns(there, table), _columns(here, table)
            if not known:
                continue
            names = [name for name in wanted if name in known]
            here.execute(sa.text(f"DELETE FROM {table}"))
            counts[table] = _copied(there, here, table, names)
        for table, day in rebuild_start.since(old, *CARRIED).items():
            partitions.note_since(here, table, day)
    return counts


def _columns(connection: sa.Connection, table: str) -> list[str]:
    """Without those the database numbers itself."""
    query = """SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped
      AND attidentity = '' AND attgenerated = '' ORDER BY attnum"""
    return list(connection.scalars(sa.text(query), {"table": table}))


def _copied(there: sa.Connection, here: sa.Connection, table: str, names: list[str]) -> int:
    reading, writing = there.connection.driver_connection, here.connection.driver_connection
    assert isinstance(reading, psycopg.Connection) and isinstance(writing, psycopg.Connection)
    columns, named = sql.SQL(", ").join(map(sql.Identifier, names)), sql.Identifier(table)
    read = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT binary)").format(columns, named)
    write = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(named, columns)
    with reading.cursor() as source, writing.cursor() as sink:
        with source.copy(read) as parts, sink.copy(write) as copy:
            for part in parts:
                copy.write(part)
        return sink.rowcount


def _differing(old: URL, digest: dict[str, str]) -> list[str]:
    """Parts of the state digest in which the old store differs; all where it is of another release."""
    try:
        with state.snapshot(sa.create_engine(old, poolclass=sa.NullPool, hide_parameters=True)) as connection:
            before = state.digest(connection)
    except sa.exc.ProgrammingError:
        return sorted(digest)
    return sorted(part for part in digest.keys() | before.keys() if digest.get(part) != before.get(part))


def _quoted(name: str | None) -> str:
    return '"' + str(name).replace('"', '""') + '"'
