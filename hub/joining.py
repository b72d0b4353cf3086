"""How rows of a batch are joined with the ledger: row by row through its key, or all at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

BYTES_PER_LOOKUP = 15_000  # what a scan reads in the time that one look through the index takes
_SIZE = "SELECT sum(pg_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = CAST(:table AS regclass)"


@contextmanager
def looked_up(connection: sa.Connection, rows: int, table: str = "row_ledger") -> Iterator[None]:
    """Statements that join ``rows`` rows of the batch with the ledger, or with another partitioned ``table``: row by row
    through its key where they are few, all at once where they are many. The planner has no statistics of a source that has
    only just come, and would go through the whole ledger for a handful of rows."""
    size = connection.scalar(sa.text(_SIZE), {"table": table}) or 0
    few = rows * BYTES_PER_LOOKUP < size
    for method in ("hashjoin", "mergejoin") if few else ("nestloop",):
        connection.execute(sa.text(f"SET LOCAL enable_{method} = off"))
    yield
    for method in ("hashjoin", "mergejoin", "nestloop"):
        connection.execute(sa.text(f"SET LOCAL enable_{method} = on"))


def count(connection: sa.Connection, table: str) -> int:
    """The rows of a temporary table."""
    return int(connection.scalar(sa.text(f"SELECT count(*) FROM {table}")) or 0)
