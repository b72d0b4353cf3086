"""What a failure of the store is called is the same whichever library heard it."""

from __future__ import annotations

import asyncpg
import psycopg
import pytest
import sqlalchemy as sa

from hub.api.store_failures import code_of, named

STATES = {
    "08006": "store-unavailable",  # connection failure
    "42703": "store-not-migrated",  # undefined column
    "42P01": "store-not-migrated",  # undefined table
    "53100": "store-unavailable",  # disk full
    "53300": "store-unavailable",  # too many connections
    "57014": "store-unavailable",  # query cancelled
    "57P01": "store-unavailable",  # admin shutdown
    "57P03": "store-unavailable",  # cannot connect now
    "22000": None,  # data exception
    "23514": None,  # check violation
    "ZZ999": None,
}


@pytest.mark.parametrize("state", STATES)
def test_by_sqlstate(state: str) -> None:
    heard = asyncpg.PostgresError.new({"C": state, "M": "somebody"})
    assert heard.sqlstate == state and code_of(heard) == STATES[state]
    assert "somebody" not in named(heard) and state in named(heard)
    if state == "ZZ999":
        return
    other = psycopg.errors.lookup(state)("somebody")
    assert code_of(other) == code_of(sa.exc.DBAPIError("SELECT", {}, other)) == STATES[state]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (asyncpg.InternalClientError("got result for unknown protocol state 3"), "store-unavailable"),
        (asyncpg.InterfaceError("connection is closed"), "store-unavailable"),
        (FileNotFoundError(), "store-unavailable"),
        (TimeoutError(), "store-unavailable"),
        (sa.exc.TimeoutError(), "store-unavailable"),
        (sa.exc.DBAPIError("SELECT", {}, Exception(), connection_invalidated=True), "store-unavailable"),
        (sa.exc.ArgumentError(), None),
        (KeyError(), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_without_sqlstate(error: Exception, code: str | None) -> None:
    assert code_of(error) == code
