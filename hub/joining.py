"""How rows of a batch are joined with a large table: row by row through its key, or all at once.

The planner has no statistics of a source that has only just come, and would go through the whole ledger for a handful of
rows, or through it once for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

# What the planner may not do.
BY_LOOKUP = ("hashjoin", "mergejoin", "material", "seqscan", "bitmapscan")
AT_ONCE = ("nestloop",)
BYTES_PER_LOOKUP = 15_000  # what a scan reads in the time that one look through the index takes
_SIZE = "SELECT sum(pg_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = CAST(:table AS regclass)"


class Join:
    """Writes a join of a statement. ``lookup``: each row of what stands before it is looked up in turn."""

    def __init__(self, *, lookup: bool) -> None:
        self.lookup = lookup

    def __call__(self, table: str, alias: str, on: str, *, left: bool = False) -> str:
        if not self.lookup:
            return f"{'LEFT ' if left else ''}JOIN {table} AS {alias} ON {on}"
        # The planner may neither turn round nor take apart what has an offset.
        each = f"LATERAL (SELECT * FROM {table} AS {alias} WHERE {on} OFFSET 0) AS {alias}"
        return f"LEFT JOIN {each} ON true" if left else f"CROSS JOIN {each}"


@contextmanager
def joined(connection: sa.Connection, rows: int, table: str = "row_ledger") -> Iterator[Join]:
    """Queries that join ``rows`` rows of the batch with the ledger, or with another partitioned ``table``."""
    with forced(connection, lookup=_few(connection, rows, table)) as join:
        yield join


@contextmanager
def forced(connection: sa.Connection, *, lookup: bool) -> Iterator[Join]:
    """Queries that join row by row, or all at once, as the caller knows it has to be."""
    methods = () if lookup else AT_ONCE
    _allow(connection, "off", methods)
    yield Join(lookup=lookup)
    _allow(connection, "on", methods)


@contextmanager
def looked_up(connection: sa.Connection, rows: int, table: str = "row_ledger") -> Iterator[None]:
    """Statements that change, by ``rows`` rows of the batch, the ledger or another partitioned ``table``."""
    methods = BY_LOOKUP if _few(connection, rows, table) else AT_ONCE
    _allow(connection, "off", methods)
    yield
    _allow(connection, "on", methods)


def _few(connection: sa.Connection, rows: int, table: str) -> bool:
    size: int = connection.scalar(sa.text(_SIZE), {"table": table}) or 0
    return rows * BYTES_PER_LOOKUP < size


def _allow(connection: sa.Connection, how: str, methods: tuple[str, ...]) -> None:
    if methods:
        connection.execute(sa.text("".join(f"SET LOCAL enable_{method} = {how};" for method in methods)))


def count(connection: sa.Connection, table: str) -> int:
    """The rows of a temporary table."""
    return int(connection.scalar(sa.text(f"SELECT count(*) FROM {table}")) or 0)
