"""What a failure of the store is called: one rule for all that speaks to it, over psycopg, SQLAlchemy or asyncpg."""

from __future__ import annotations

import asyncpg
import psycopg
import sqlalchemy as sa

AWAY = "store-unavailable"

_UNMIGRATED = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn)
_AWAY = (
    psycopg.OperationalError, psycopg.InterfaceError, sa.exc.TimeoutError,
    # asyncpg: a connection cut inside COPY is an InternalClientError, one that cannot be made an OSError.
    asyncpg.InterfaceError, asyncpg.InternalClientError, OSError,
)  # fmt: skip


def code_of(error: BaseException) -> str | None:
    """``store-not-migrated``, ``store-unavailable`` (gone, busy, full, a query cancelled), or None: a fault of ours.

    What PostgreSQL says is judged by its SQLSTATE, whichever library heard it.
    """
    cause = getattr(error, "orig", None) or error
    kind = _kind(cause.sqlstate) if isinstance(cause, asyncpg.PostgresError) else type(cause)
    if issubclass(kind, _UNMIGRATED):
        return "store-not-migrated"
    if issubclass(kind, _AWAY) or getattr(error, "connection_invalidated", False):
        return AWAY
    return None


def named(error: BaseException) -> str:
    """Type and SQLSTATE for the log: a message could carry what was sent."""
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__} {getattr(cause, 'sqlstate', None) or ''}".rstrip()


def _kind(state: str | None) -> type[Exception]:
    """psycopg's class for a SQLSTATE."""
    try:
        return psycopg.errors.lookup(state or "")
    except KeyError:
        return psycopg.DatabaseError
