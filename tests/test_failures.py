"""What happens below a stage gets the runner's words, and only what may pass by itself is retriable."""

from __future__ import annotations

import errno

import psycopg
import pytest
import sqlalchemy as sa

from connectors.errors import FatalError, RetriableError
from hub import failures


def test_a_connection_that_the_server_ended(store: sa.Engine) -> None:
    @failures.named
    def asking() -> None:
        with store.connect() as one, store.connect() as other:
            pid = one.scalar(sa.text("SELECT pg_backend_pid()"))
            other.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            one.execute(sa.text("SELECT pg_sleep(5)"))

    with pytest.raises(RetriableError) as lost:
        asking()
    assert lost.value.code == "store-lost"


def test_a_lock_that_was_not_given(store: sa.Engine) -> None:
    @failures.named
    def asking() -> None:
        with store.begin() as one, store.begin() as other:
            one.execute(sa.text("LOCK TABLE feed_head"))
            other.execute(sa.text("SET LOCAL lock_timeout = '50ms'"))
            other.execute(sa.text("SELECT * FROM feed_head"))

    with pytest.raises(RetriableError) as busy:
        asking()
    assert busy.value.code == "store-busy"


def test_a_full_disk() -> None:
    assert failures.code(OSError(errno.ENOSPC, "No space left on device")) == "disk-full"
    assert failures.code(psycopg.errors.DiskFull("x")) == "store-disk-full"
    assert failures.code(OSError(errno.ENOENT, "x")) is None


def test_mistakes_and_named_errors_stay_what_they_are(store: sa.Engine) -> None:
    @failures.named
    def asking() -> None:
        with store.connect() as connection:
            connection.execute(sa.text("SELECT nothing FROM nowhere"))

    with pytest.raises(sa.exc.ProgrammingError):
        asking()

    @failures.named
    def named() -> None:
        raise FatalError("batch-state", batch="b", state="open", run="yici run s")

    with pytest.raises(FatalError):
        named()
