"""Digests of columns of values, set-based. MD5 tells rows apart, it protects nothing; what protects is the keyed hash."""

from __future__ import annotations

import functools
import os
import threading

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hub import sha256
from hub.home import KeyedHash

DIGEST = pa.binary(16)
MOST = 2  # blocks of SHA-256 that a text and its ending may take over lanes: 119 bytes
ENDING = 9  # bytes after a text, at least: a mark and its length
FEW = 512  # texts for which setting out over lanes does not pay


def of_columns(columns: list[pa.ChunkedArray], names: list[str] | None = None) -> pa.FixedSizeBinaryArray:
    """MD5 of each row over string columns; lengths go in, so that null and empty differ and no value can pass for two."""
    table = pa.table({f"c{place}": column for place, column in enumerate(columns)})
    parts = ["$header"]
    for name, column in zip(table.column_names, table.columns, strict=True):
        value = f"length({name}), ':', {name}"
        parts += ["chr(31)", f"coalesce(length({name}) || ':' || {name}, '-')" if column.null_count else value]
    return _md5(f"concat({', '.join(parts)})", table, header="\x1f".join(names or []))


def of_texts(texts: pa.ChunkedArray) -> pa.FixedSizeBinaryArray:
    """MD5 of each text, as ``md5`` of PostgreSQL has it."""
    return _md5("text", pa.table({"text": texts}))


def of_bytes(values: pa.ChunkedArray, prefix: str) -> pa.FixedSizeBinaryArray:
    """MD5 of ``prefix`` and each of ``values`` in hex."""
    return _md5("$prefix || hex(raw)", pa.table({"raw": values}), prefix=prefix)


def keyed(texts: pa.Array | pa.ChunkedArray, hashing: KeyedHash) -> pa.FixedSizeBinaryArray:
    """``hashing.of`` each text; null stays null. Texts up to 119 bytes of UTF-8 go over lanes of numpy, others to DuckDB."""
    whole = (texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts).cast(pa.binary())
    if len(whole) < FEW:
        return _keyed(whole, hashing)
    offsets = np.frombuffer(whole.buffers()[1], np.int32, len(whole) + 1, whole.offset * 4)
    lengths = np.diff(offsets)
    blocks = (lengths + ENDING - 1) // 64 + 1
    # Room after the last text, so that a window stays within the data.
    room = np.zeros(64 * MOST, np.uint8)
    text = np.concatenate([np.frombuffer(whole.buffers()[2] or b"", np.uint8)[: offsets[-1]], room])
    key_blocks = np.frombuffer(hashing.inner + hashing.outer, ">u4").reshape(2, 16).T.astype(np.uint32)
    inner, outer = zip(*sha256.after(sha256.START, key_blocks), strict=True)
    found = np.empty((len(whole), 4), ">u4")
    for count in range(1, MOST + 1):
        windows = np.lib.stride_tricks.sliding_window_view(text, 64 * count)
        alike = np.flatnonzero(blocks == count)
        for start in range(0, len(alike), sha256.LANES):
            rows = alike[start : start + sha256.LANES]
            found[rows] = _short_keyed(inner, outer, windows[offsets[rows]], lengths[rows])
    if len(long := np.flatnonzero(blocks > MOST)):
        found[long] = np.frombuffer(_keyed(whole.take(pa.array(long)), hashing).buffers()[1], ">u4").reshape(-1, 4)
    values = pa.Array.from_buffers(DIGEST, len(whole), [None, pa.py_buffer(found)])
    return pc.if_else(whole.is_valid(), values, pa.scalar(None, DIGEST)) if whole.null_count else values


def _keyed(texts: pa.BinaryArray, hashing: KeyedHash) -> pa.FixedSizeBinaryArray:
    sql = "SELECT unhex(sha256($outer || unhex(sha256($inner || text))))[1:16] AS d FROM t"
    return _query(sql, pa.table({"text": texts}), inner=hashing.inner, outer=hashing.outer).cast(DIGEST)


def _short_keyed(
    inner: sha256.State, outer: sha256.State, texts: NDArray[np.uint8], lengths: NDArray[np.int32]
) -> NDArray[np.uint32]:
    """``inner``, ``outer``: the states after the key. ``texts`` (n, 64 a block), ``lengths`` (n,) → (n, 4)."""
    middle = _ended(inner, texts, lengths)
    digest = np.zeros((len(lengths), 64), np.uint8)
    digest[:, :32] = np.stack(middle, axis=1).astype(">u4").view(np.uint8)
    return np.stack(_ended(outer, digest, np.full(len(digest), 32))[:4], axis=1)


def _ended(state: sha256.State, texts: NDArray[np.uint8], lengths: NDArray[np.int32]) -> sha256.State:
    """The state after the first ``lengths`` bytes of ``texts`` and the ending by the rule: of messages with one block before."""
    width = texts.shape[1]
    texts[np.arange(width) >= lengths[:, None]] = 0
    texts[np.arange(len(texts)), lengths] = 0x80
    texts[:, width - 2] = (64 + lengths) >> 5
    texts[:, width - 1] = ((64 + lengths) << 3) & 0xFF
    for start in range(0, width, 64):
        block = texts[:, start : start + 64].view(">u4")
        state = sha256.after(state, np.ascontiguousarray(block.T).astype(np.uint32))
    return state


def folded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Spelling of a key that does not make another row: width, case and surrounding space."""
    return pc.utf8_upper(pc.utf8_trim_whitespace(pc.utf8_normalize(column, form="NFKC")))


def _md5(expression: str, table: pa.Table, **parameters: object) -> pa.FixedSizeBinaryArray:
    """As a number of 128 bits it comes without the way over hex, and its bytes in memory are those of the digest."""
    number = _query(f"SELECT md5_number({expression}) AS d FROM t", table, **parameters)
    return pa.Array.from_buffers(DIGEST, len(number), number.buffers(), offset=number.offset)


def _query(sql: str, t: pa.Table, **parameters: object) -> pa.Array:
    """The only column of a question about ``t``."""
    engine = _engine(os.getpid(), threading.get_ident())
    engine.register("t", t)
    try:
        found = engine.sql(sql, params=parameters or None).to_arrow_table().column(0)
    finally:
        engine.unregister("t")
    return found.combine_chunks()


@functools.cache
def _engine(process: int, thread: int) -> duckdb.DuckDBPyConnection:
    """Kept from question to question, since opening costs more than hashing a page; no fork or other thread uses it."""
    return duckdb.connect(config={"threads": 1})
