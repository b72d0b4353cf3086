"""Parquet files: every column as text, row group by row group.

What a column becomes: a date is ``2025-03-01``; a moment ``2025-03-01 12:00:00``, with its fraction and, where the column
has a zone, its offset; numbers are written exactly, the shortest text that reads back as the same; a truth value is
``true`` or ``false``; NaN is null. A struct gives a column per field, ``holder.name``; a list or map is JSON. Bytes that
nobody marked as text are text if they are UTF-8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors import characters, spooled
from connectors.block import ROW, Block, regrouped
from connectors.errors import FatalError
from connectors.source import FileOptions
from connectors.textfile import Opener

BUFFER = 1 << 20  # bytes of each column read ahead: memory does not grow with the size of a row group
_types = pa.types


def blocks(opener: Opener, name: str, options: FileOptions, block_rows: int = 65536) -> Iterator[Block]:
    """The rows of one file, in order, in bounded memory; the first block comes even when there is no row.

    The first record is row 1. FatalError: ``file-empty``, ``file-is-html``, ``parquet-unreadable``, ``parquet-column``,
    ``columns-repeated``.
    """
    with spooled.seekable(opener, name) as stream:
        spooled.head(stream, name)
        try:
            with pq.ParquetFile(
                stream, buffer_size=BUFFER, pre_buffer=False, coerce_int96_timestamp_unit="us",
                page_checksum_verification=True, arrow_extensions_enabled=False,
            ) as file:  # fmt: skip
                yield from regrouped(_blocks(file, name, block_rows), block_rows)
        except (pa.ArrowException, OSError, UnicodeDecodeError):  # the message may quote a value
            raise FatalError("parquet-unreadable", file=name) from None


def _blocks(file: pq.ParquetFile, name: str, block_rows: int) -> Iterator[Block]:
    columns = [column for field in file.schema_arrow for column in _columns(field, name)]
    if repeated := sorted({column for column in columns if columns.count(column) > 1} | ({ROW} & set(columns))):
        raise FatalError("columns-repeated", file=name, columns=", ".join(repeated))
    yield characters.block([pa.array([], pa.binary()) for _ in columns], columns, np.empty(0, np.int64))
    row = 1
    for batch in file.iter_batches(min(block_rows, 65536)):
        texts = [text for column in batch.columns for text in _texts(column)]
        yield characters.block(texts, columns, np.arange(row, row + batch.num_rows))
        row += batch.num_rows


def _columns(field: pa.Field, name: str, prefix: str = "") -> Iterator[str]:
    """The columns that ``field`` becomes. FatalError ``parquet-column`` for a type that has no text."""
    here = prefix + field.name
    if _types.is_struct(field.type):
        for part in field.type:
            yield from _columns(part, name, f"{here}.")
    elif _nested(field.type) or _writer(field.type):
        yield here
    else:
        raise FatalError("parquet-column", file=name, column=here, type=str(field.type))


def _texts(values: pa.Array) -> Iterator[pa.Array]:
    """One array of text (or bytes) for each name of :func:`_columns`."""
    if _types.is_struct(values.type):
        for part in values.flatten():  # the null of a struct is that of its fields
            yield from _texts(part)
    elif _nested(values.type):
        yield _json(values)
    else:
        writer = _writer(values.type)
        assert writer is not None
        yield writer(values)


def _nested(kind: pa.DataType) -> bool:
    return _types.is_list(kind) or _types.is_large_list(kind) or _types.is_fixed_size_list(kind) or _types.is_map(kind)


def _json(values: pa.Array) -> pa.Array:
    import duckdb

    with duckdb.connect(config={"threads": 1}) as engine:
        engine.register("t", pa.table({"v": values}))
        text = engine.sql("SELECT to_json(v)::VARCHAR AS j FROM t").to_arrow_table()["j"]
    written = pa.concat_arrays(text.chunks) if text.num_chunks else pa.array([], pa.string())
    return pc.if_else(values.is_valid(), written.cast(pa.string()), pa.scalar(None, pa.string()))


def _writer(kind: pa.DataType) -> Callable[[pa.Array], pa.Array] | None:
    """What writes a column of this type; None where nothing does."""
    if _types.is_dictionary(kind):
        inner = _writer(kind.value_type)
        return (lambda values: inner(values.dictionary_decode())) if inner else None
    return next((write for known, write in _WRITERS if known(kind)), None)


def _plain(values: pa.Array) -> pa.Array:
    return values.cast(pa.string())


def _bytes(values: pa.Array) -> pa.Array:
    return values.cast(pa.binary())


def _dates(values: pa.Array) -> pa.Array:
    return values.cast(pa.date32()).cast(pa.string())


def _moments(values: pa.Array) -> pa.Array:
    """Without a fraction that is zero."""
    return pc.replace_substring_regex(values.cast(pa.string()), r"\.0+(Z|[+-]\d+|$)", r"\1")


def _floats(values: pa.Array) -> pa.Array:
    """Above 2^53 whole numbers are not exact, and are written as ``3.10101199003071E+17``, which no identifier is."""
    text = pc.replace_substring(values.cast(pa.string()), "e", "E")
    return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.string()), text)


def _is_text(kind: pa.DataType) -> bool:
    return _types.is_string(kind) or _types.is_large_string(kind) or _types.is_string_view(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return _types.is_binary(kind) or _types.is_large_binary(kind) or _types.is_binary_view(kind)


_WRITERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], pa.Array]], ...] = (
    (lambda kind: _is_text(kind) or _is_bytes(kind), _bytes),
    (_types.is_date, _dates),
    (lambda kind: _types.is_timestamp(kind) or _types.is_time(kind), _moments),
    (_types.is_floating, _floats),
    (lambda kind: _types.is_integer(kind) or _types.is_decimal(kind) or _types.is_boolean(kind), _plain),
    (_types.is_null, _plain),
)
