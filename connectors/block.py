"""A block of raw rows: what every reader yields and the mapping engine takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

ROW = "_row"
MALFORMED = pa.schema([(ROW, pa.int64()), ("raw", pa.binary()), ("reason", pa.string())])


@dataclass(frozen=True)
class Block:
    """``table``: string columns as found, plus ``_row``. ``malformed``: ``_row``, ``raw`` bytes, ``reason``.

    Reasons: ``column-count``, ``quote``, ``undecodable``, ``nul-character``, ``carriage-return``, ``not-an-object``.
    ``open_end``: the file ends without a line end after a row that reads well; its last value may have been cut.
    """

    table: pa.Table
    malformed: pa.Table
    open_end: bool = False


def table_schema(columns: Sequence[str]) -> pa.Schema:
    """Every column a string, then the row number."""
    return pa.schema([*((name, pa.string()) for name in columns), (ROW, pa.int64())])


def malformed_table(rows: Sequence[int], raw: Sequence[bytes], reasons: Sequence[str]) -> pa.Table:
    return pa.table([rows, raw, reasons], schema=MALFORMED)


def regrouped(blocks: Iterable[Block], block_rows: int) -> Iterator[Block]:
    """The same rows in blocks of ``block_rows`` (the last one shorter), with as many malformed lines at most. The first block
    always comes, even if empty."""
    held: list[Block] = []
    yielded = False
    for block in blocks:
        held.append(block)
        while max(_rows(part.table for part in held), _rows(part.malformed for part in held)) >= block_rows:
            # Cut before the rows are brought together, so that none is copied twice.
            table = pa.concat_tables([part.table for part in held])
            malformed = pa.concat_tables([part.malformed for part in held]).combine_chunks()
            yield Block(table.slice(0, block_rows).combine_chunks(), malformed.slice(0, block_rows))
            yielded = True
            open_end = any(part.open_end for part in held)
            held = [Block(table.slice(block_rows), malformed.slice(block_rows), open_end)]
    if held and (not yielded or any(part.table.num_rows or part.malformed.num_rows or part.open_end for part in held)):
        yield _joined(held)


def _rows(tables: Iterable[pa.Table]) -> int:
    return sum(table.num_rows for table in tables)


def _joined(parts: Sequence[Block]) -> Block:
    return Block(
        pa.concat_tables([part.table for part in parts]).combine_chunks(),
        pa.concat_tables([part.malformed for part in parts]).combine_chunks(),
        any(part.open_end for part in parts),
    )
