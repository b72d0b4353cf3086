"""Accepted rows as they were mapped: written chunk by chunk before the gate, in force once the ledger refers to them.

A row here that no ledger row refers to says nothing. So the documents of a batch, most of its bytes, are copied by as many
processes as map chunks, and the merge, which is one transaction, only decides which of them stand. Each chunk's rows are
a block, or several where they are many: ``id = block << 20 | place``. Each has a digest of its document as it was written: no
other table repeats what a document says, so nothing else would tell that one was altered (:mod:`hub.verify`). What an attempt that was cut off left behind goes with
the merge, or once the batch is given up.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from connectors.errors import RetriableError
from hub import batches, copying, database, digests
from hub.repeats import leading

PLACES = 20  # bits of an id that say the place in its block
BLOCKS = 43
COLUMNS = {
    "holding": "bytea", "id": "int8", "source": "text", "row_key": "uuid", "file": "int8", "row": "int8",
    "document": "text", "document_digest": "uuid",
}  # fmt: skip
VARYING = [name for name in COLUMNS if name != "source"]


def write(batch: sa.Row, rows: pa.Table) -> pa.Table:
    """Copy the accepted ones of ``rows`` (:data:`hub.outcome.SCHEMA`) into the store, beside what an earlier attempt wrote:
    the chunk file that is there in the end says which of them count; returns ``rows`` with ``mapped``, the id, instead of ``document``."""
    accepted = pc.is_valid(rows["holding"]).combine_chunks().to_numpy(zero_copy_only=False)
    places = np.cumsum(accepted)
    own = np.array([secrets.randbits(BLOCKS) for _ in range(1 + (int(accepted.sum()) >> PLACES))])
    ids = own[places >> PLACES] << PLACES | places & (1 << PLACES) - 1
    rows = rows.append_column("mapped", pa.array(ids, mask=~accepted))
    with database.engine().begin() as connection:
        bind = {"batch": batch.id}
        connection.execute(sa.text("SELECT FROM batch WHERE id = :batch FOR KEY SHARE"), bind)  # no merge meanwhile
        batches.require(batches.get(connection, batch.id), "open", "gated")
        if accepted.any():
            connection.execute(sa.text(_BLOCK), [{**bind, "block": int(block)} for block in own])
            said = rows.filter(pa.array(accepted))
            said = said.take(pa.array(np.argsort(leading(said["holding"]))))
            made = {"id": said["mapped"], "document_digest": digests.of_texts(said["document"])}
            columns = [made[name] if name in made else said[name] for name in VARYING]
            copying.load(
                connection, "mapped_row", COLUMNS, iter([pa.table(columns, VARYING)]), {"source": batch.source}
            )
    return rows.drop_columns(["document"])


def blocks(ids: pa.ChunkedArray) -> set[int]:
    """The blocks that ``ids`` are of."""
    return {int(block) for block in np.unique(pc.drop_null(ids).to_numpy() >> PLACES)}


def settle(connection: sa.Connection, batch: str, used: set[int]) -> None:
    """Called by the merge: the blocks ``used`` are its rows' from now on, what other attempts left goes.

    RetriableError ``chunk-missing`` when a block is gone: the batch was given up meanwhile."""
    written = set(connection.scalars(sa.text(_TAKEN_OVER), {"batch": batch}))
    if used - written:
        raise RetriableError("chunk-missing", batch=batch, chunk="?")
    _drop(connection, written - used)


def clear(connection: sa.Connection, given_up: Iterable[str]) -> None:
    """Remove what batches wrote that will never be merged."""
    _drop(connection, connection.scalars(sa.text(_GIVEN_UP), {"batches": list(given_up)}).all())


def _drop(connection: sa.Connection, dropped: Iterable[int]) -> None:
    """No index leads to a block: all of them in one go through the table."""
    if gone := list(dropped):
        query = sa.text("DELETE FROM mapped_row WHERE id >> :places = ANY(:blocks)")
        connection.execute(query, {"places": PLACES, "blocks": gone})


_BLOCK = "INSERT INTO mapped_block (block, batch) VALUES (:block, :batch)"
_TAKEN_OVER = "DELETE FROM mapped_block WHERE batch = :batch RETURNING block"
_GIVEN_UP = "DELETE FROM mapped_block WHERE batch = ANY(:batches) RETURNING block"
