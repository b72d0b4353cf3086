"""What all stages of the pipeline have in common: whose turn it is, how long it took, why it stopped, who is told of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import sqlalchemy as sa

from connectors.errors import BatchHalted, RetriableError, YiciError
from hub import batches, database, releases

# First the source, then its batches, as whoever begins one.
SOURCE_FIRST = "SELECT FROM source WHERE name = (SELECT source FROM batch WHERE id = :batch) FOR UPDATE"


class Progress(Protocol):
    """Told of each stage: ``done`` of ``total`` parts (total 0: not known)."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def quiet(stage: str, done: int, total: int) -> None:
    """No progress shown."""


@contextmanager
def alone(source: str) -> Iterator[None]:
    """No other whole run of the source, and no release, meanwhile; a release that was cut off is taken back first."""
    with releases.locked(database.engine(), source) as free:
        if not free:
            raise RetriableError("source-busy", source=source)
        releases.settle(database.engine(), source)
        yield


def take_back(connection: sa.Connection, source: str) -> None:
    """Releases that were cut off while the source's tasks run one by one. Asked of a merge under the lock of the source's row:
    none can be cut off later and still come before it in the journal."""
    if releases.unmerged(connection, source):
        releases.take_back(database.engine(), source)


@contextmanager
def timed(batch: str, stage: str) -> Iterator[None]:
    """Seconds of a stage that succeeded, added to the batch's record."""
    import pyarrow as pa

    start = time.monotonic()
    yield
    pa.default_memory_pool().release_unused()  # what a stage leaves with the allocator would be counted for the next
    with database.engine().begin() as connection:
        batches.took(connection, batch, stage, time.monotonic() - start)


@contextmanager
def recorded(batch: str) -> Iterator[None]:
    """Keep in the batch's record why it stopped; the error goes on to the caller."""
    try:
        yield
    except YiciError as error:
        state = "halted" if isinstance(error, BatchHalted) else "failed"
        refused = error.code == "batch-state"  # others took the batch further: what became of it stands
        if not refused and (not isinstance(error, RetriableError) or not _goes_on(batch)):
            finding = {"code": error.code, "severity": "halt", "values": {k: str(v) for k, v in error.values.items()}}
            with database.engine().begin() as connection:
                row = batches.get(connection, batch)
                if row.state not in ("merged", "superseded"):
                    known = [item for item in row.findings if item["code"] != error.code]
                    batches.update(
                        connection, batch, state=state, findings=[*known, finding], finished_at=sa.func.now()
                    )
        raise


def _goes_on(batch: str) -> bool:
    """Whether the batch is Airflow's, which repeats the task that may succeed later; nobody repeats a run by hand."""
    try:
        with database.engine().connect() as connection:
            return batches.get(connection, batch).run_id is not None
    except sa.exc.DBAPIError:  # the store itself is away: nothing can be noted in it
        return True
