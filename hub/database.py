"""Where the store is, and bringing it up to date.

With ``YICI_DATABASE_URL`` the operator's own PostgreSQL (15 or later) is used as it is; otherwise the embedded one is
started, its database made and migrated.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from hashlib import sha256

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine, make_url

from connectors.errors import FatalError
from hub import embedded, home, partitions, schema

OLDEST_POSTGRES = 15
POOL = 10  # connections kept; few processes ever open so many


def url() -> URL:
    """SQLAlchemy URL of the store; starts the embedded database when there is no external one."""
    here = home.current()
    named = make_url(here.database_url or embedded.url(here))
    if named.get_backend_name() != "postgresql":
        raise FatalError("store-kind", kind=named.get_backend_name())
    return named.set(drivername="postgresql+psycopg")


@functools.cache
def _engine(home_path: str, external: str | None, process: int) -> Engine:
    engine = sa.create_engine(
        url(), pool_pre_ping=True, pool_size=POOL, hide_parameters=True, connect_args={"connect_timeout": 10}
    )
    try:
        if external is None:
            upgrade(engine)
        else:
            _check(engine)
        for check in _required:
            with engine.connect() as connection:
                check(connection)
    except BaseException:
        engine.dispose()
        raise
    return engine


_required: list[Callable[[sa.Connection], None]] = []


def require(check: Callable[[sa.Connection], None]) -> None:
    """Let this process not use the store before ``check`` is content with it: :func:`engine` raises what it raises, whenever the
    store is reached for the first time."""
    _required.append(check)


def engine() -> Engine:
    """The engine of this process. The embedded store is migrated first; an external one must have been."""
    here = home.current()
    return _engine(str(here.path), here.database_url, os.getpid())


def upgrade(to: Engine | None = None) -> str:
    """Make the database if it is the embedded one, run the migrations, keep the key's fingerprint. Returns the revision."""
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext

    here = home.current()
    if here.database_url is None:
        _create_database(url())
    target = to or sa.create_engine(url(), hide_parameters=True)
    config = Config()
    config.set_main_option("script_location", "hub:migrations")
    with _connected(target) as connection:
        # One migration at a time; the lock ends with the connection.
        connection.execute(sa.text("SELECT pg_advisory_lock(hashtext('yici-migrations'))"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
        keep_fingerprint(connection, here)
        partitions.ensure(connection)
        connection.commit()
        revision = MigrationContext.configure(connection).get_current_revision()
        connection.execute(sa.text("SELECT pg_advisory_unlock_all()"))
        connection.commit()
    if to is None:
        target.dispose()  # a session left behind would be in the way of whoever renames the database
    return revision or ""


def _connected(engine_: Engine) -> sa.Connection:
    try:
        return engine_.connect()
    except sa.exc.OperationalError as error:
        raise FatalError("store-unreachable", host=engine_.url.host or "socket", name=engine_.url.database) from error


def _create_database(target: URL) -> None:
    admin = sa.create_engine(target.set(database="postgres"), isolation_level="AUTOCOMMIT", hide_parameters=True)
    try:
        with _connected(admin) as connection:
            known = connection.scalar(
                sa.text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": target.database}
            )
            if not known:
                # Another process may make it at the same moment.
                with contextlib.suppress(sa.exc.ProgrammingError, sa.exc.IntegrityError):
                    connection.execute(sa.text(f'CREATE DATABASE "{target.database}"'))
    finally:
        admin.dispose()


def _check(engine_: Engine) -> None:
    with _connected(engine_) as connection:
        version = connection.connection.driver_connection.info.server_version // 10000  # type: ignore[union-attr]
        if version < OLDEST_POSTGRES:
            raise FatalError("store-old", version=version, oldest=OLDEST_POSTGRES)
        if not sa.inspect(connection).has_table("alembic_version"):
            raise FatalError("store-empty", name=engine_.url.database)
        keep_fingerprint(connection, home.current())
        connection.commit()


def keep_fingerprint(connection: sa.Connection, here: home.Home) -> None:
    """The identifier index is only readable under one key: remember which, and refuse another."""
    key = here.secret("pseudonym.key", make=here.database_url is None or not _has_fingerprint(connection))
    fingerprint = sha256(b"yici pseudonym key" + key).hexdigest()
    connection.execute(
        sa.text("INSERT INTO setting (name, value) VALUES ('pseudonym-key', :value) ON CONFLICT (name) DO NOTHING"),
        {"value": fingerprint},
    )
    if (
        connection.scalar(sa.select(schema.setting.c.value).where(schema.setting.c.name == "pseudonym-key"))
        != fingerprint
    ):
        raise FatalError("key-differs", folder=here.keys)


def _has_fingerprint(connection: sa.Connection) -> bool:
    return bool(connection.scalar(sa.text("SELECT 1 FROM setting WHERE name = 'pseudonym-key'")))
