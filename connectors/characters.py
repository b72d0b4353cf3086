"""Rows whose text no database can hold, told apart from the others: broken UTF-8 and NUL characters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from connectors.block import Block, malformed_table, table_schema

REASONS = ("", "nul-character", "undecodable")


def block(columns: Sequence[pa.BinaryArray], names: Sequence[str], rows: NDArray[np.int64]) -> Block:
    """The columns (n,) as text under ``names``, rows numbered ``rows`` (n,); what cannot be text is malformed."""
    texts = [column.cast(pa.binary()) for column in columns]
    reasons = np.zeros(len(rows), dtype=np.int8)
    for column in texts:
        reasons = np.maximum(reasons, _faults(column))
    lost = np.flatnonzero(reasons)
    if len(lost):
        kept = pa.array(np.flatnonzero(reasons == 0))
        bad = [pc.fill_null(column.take(pa.array(lost)), b"") for column in texts]
        raw = pc.binary_join_element_wise(*bad, b"\t").to_pylist()
        malformed = malformed_table(rows[lost].tolist(), raw, [REASONS[place] for place in reasons[lost]])
        texts, rows = [column.take(kept) for column in texts], rows[reasons == 0]
    else:
        malformed = malformed_table([], [], [])
    arrays = [column.view(pa.string()) for column in texts]
    return Block(pa.table([*arrays, pa.array(rows)], schema=table_schema(names)), malformed)


def _faults(column: pa.BinaryArray) -> NDArray[np.int8]:
    """Place in ``REASONS`` (n,) for each value. Walks the values only of a column that is known to be broken."""
    faults = np.zeros(len(column), dtype=np.int8)
    if pc.any(nul := pc.match_substring(column, "\0")).as_py():
        faults[pc.fill_null(nul, False).to_numpy(zero_copy_only=False)] = 1
    try:
        column.view(pa.string()).validate(full=True)
    except pa.ArrowInvalid:
        faults[[place for place, value in enumerate(column.to_pylist()) if value and not _decodes(value)]] = 2
    return faults


def _decodes(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
