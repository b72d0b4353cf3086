"""Text as people type it, folded to plain characters, byte by byte over whole Arrow buffers.

Arrow has no character translation and its regular expressions cost a microsecond a row, so the UTF-8 bytes are
translated with look-up tables instead. :func:`mappings.schemes.compact` does the same to one value.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mappings import schemes

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_PLAIN = np.zeros(256, dtype=bool)
_PLAIN[list(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")] = True

_UPPER = np.arange(256, dtype=np.uint8)
_UPPER[ord("a") : ord("z") + 1] -= 32

_DROPPED = np.zeros(256, dtype=bool)
_DROPPED[list(schemes.DROPPED.encode())] = True

SELDOM = 8  # one in so many: below that, what is odd is looked at alone


def whole(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The chunks of an array as one."""
    if not isinstance(values, pa.ChunkedArray):
        return values
    return pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)


def strings(values: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """Any array of text as one ``string`` array; raises ``TypeError`` for what is no text."""
    values = whole(values)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_null(values.type) or pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
        values = values.cast(pa.string())
    if not pa.types.is_string(values.type):
        raise TypeError(f"expected text, got {values.type}")
    return values


def buffers(values: pa.StringArray) -> tuple[NDArray[np.int64], Bytes]:
    """Offsets (n + 1,) from 0 and the bytes they point into. Nulls must have been filled."""
    if len(values) == 0:
        return np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.uint8)
    _, offset_buffer, data_buffer = values.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int32)[values.offset : values.offset + len(values) + 1]
    data = np.frombuffer(data_buffer, dtype=np.uint8) if data_buffer is not None else np.zeros(0, dtype=np.uint8)
    return offsets.astype(np.int64) - offsets[0], data[offsets[0] : offsets[-1]]


def from_buffers(offsets: NDArray[np.int64], data: Bytes) -> pa.StringArray:
    """The string array of bytes that are known to be UTF-8."""
    return pa.StringArray.from_buffers(
        len(offsets) - 1, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(np.ascontiguousarray(data))
    )


def rows_with(marked: Mask, offsets: NDArray[np.int64]) -> Mask:
    """Rows (n,) in which any byte is marked."""
    places = np.flatnonzero(marked)
    if len(places) * SELDOM < len(marked):
        found = np.zeros(len(offsets) - 1, dtype=bool)
        found[np.searchsorted(offsets, places, side="right") - 1] = True
        return found
    running = np.concatenate(([0], np.cumsum(marked, dtype=np.int32)))
    return running[offsets[1:]] > running[offsets[:-1]]


def patched(
    values: pa.StringArray,
    marked: Mask,
    offsets: NDArray[np.int64],
    change: Callable[[pa.StringArray], pa.StringArray],
) -> pa.StringArray:
    """``values`` with ``change`` done to the rows in which a byte is marked; to all of them when they are many."""
    if not marked.any():
        return values
    rows = rows_with(marked, offsets)
    if np.count_nonzero(rows) * 2 > len(rows):
        return change(values)
    return pc.replace_with_mask(values, pa.array(rows), change(values.filter(pa.array(rows))))


def stripped(values: pa.StringArray) -> pa.StringArray:
    """Without white space at both ends; nulls stay null."""
    offsets, data = buffers(values)
    # bytes that white space of any script consists of or begins with
    marked = (data <= 0x20) | (data == 0xC2) | (data - np.uint8(0xE1) <= 2)
    return patched(values, marked, offsets, pc.utf8_trim_whitespace)


def without(values: pa.StringArray, words: pa.StringArray) -> pa.StringArray:
    """Null where a value is one of ``words``, which are short."""
    offsets, _ = buffers(values)
    rows = np.flatnonzero(np.diff(offsets) <= pc.max(pc.binary_length(words)).as_py())
    if not len(rows):
        return values
    nothing = np.zeros(len(values), dtype=bool)
    nothing[rows] = pc.is_in(values.take(pa.array(rows)), value_set=words).to_numpy(zero_copy_only=False)
    return pc.if_else(pa.array(nothing), pa.scalar(None, pa.string()), values) if nothing.any() else values


def matrix(data: Bytes, offsets: NDArray[np.int64], rows: NDArray[np.int64], length: int) -> Bytes:
    """Characters of the rows, all of one length, with shape (length, rows): a character's place is contiguous."""
    if len(rows) == len(offsets) - 1:
        return np.ascontiguousarray(data.reshape(-1, length).T)
    starts = offsets[rows].astype(np.int32)
    return data[starts[None, :] + np.arange(length, dtype=np.int32)[:, None]]


def half_width(values: pa.Array) -> pa.StringArray:
    """Full-width letters and digits, odd spaces and dashes as their ASCII counterparts; nulls stay null."""
    values = strings(values)
    filled = pc.fill_null(values, "") if values.null_count else values
    offsets, data = buffers(filled)
    if not (data >= 0x80).any():
        return values
    folded, keep = _fold(data)
    plain = _keep(folded, keep, offsets)
    return pc.if_else(values.is_valid(), plain, None) if values.null_count else plain


def compact(values: pa.StringArray) -> tuple[pa.StringArray, Mask]:
    """As :func:`mappings.schemes.compact`, with a mask (n,) of rows that hold nothing but digits and letters.

    Nulls must have been filled.
    """
    offsets, data = buffers(values)
    plain = np.ones(len(values), dtype=bool)
    odd = (data - np.uint8(ord("0")) > 9) & (data - np.uint8(ord("A")) > 25)
    if not odd.any():
        return values, plain
    rows = rows_with(odd, offsets)
    if rows.all():
        return _compacted(values)
    clean, plain[rows] = _compacted(values.filter(pa.array(rows)))
    return pc.replace_with_mask(values, pa.array(rows), clean), plain


def _compacted(values: pa.StringArray) -> tuple[pa.StringArray, Mask]:
    offsets, data = buffers(values)
    folded, keep = _fold(data) if (data >= 0x80).any() else (data, np.ones(len(data), dtype=bool))
    folded = _UPPER[folded]
    keep &= ~_DROPPED[folded]
    hyphens = folded == ord("-")
    if hyphens.any():
        ascii_rows = ~rows_with((folded >= 0x80) & keep, offsets)
        keep &= ~(hyphens & np.repeat(ascii_rows, np.diff(offsets)))
    clean = _keep(folded, keep, offsets)
    offsets, data = buffers(clean)
    return clean, ~rows_with(~_PLAIN[data], offsets)


def _keep(data: Bytes, keep: Mask, offsets: NDArray[np.int64]) -> pa.StringArray:
    kept = np.concatenate(([0], np.cumsum(keep, dtype=np.int64)))
    return from_buffers(kept[offsets], data[keep])


def _fold(data: Bytes) -> tuple[Bytes, Mask]:
    """Bytes with the first of each folded sequence replaced, and a mask that leaves the others out."""
    folded, keep = data.copy(), np.ones(len(data), dtype=bool)
    padded = np.concatenate((data, np.zeros(2, dtype=np.uint8)))
    second, third = padded[1:-1], padded[2:]

    def replace(here: Mask, by: Bytes | int, length: int) -> None:
        places = np.flatnonzero(here)
        folded[places] = by if isinstance(by, int) else by[places]
        for step in range(1, length):
            keep[places + step] = False

    # U+FF01-FF3F and U+FF40-FF5E: the full-width forms of ASCII, two runs in UTF-8.
    wide = data == 0xEF
    replace(wide & (second == 0xBC) & (third >= 0x81), third - np.uint8(0x60), 3)
    replace(wide & (second == 0xBD) & (third <= 0x9E), third - np.uint8(0x20), 3)
    for characters, by in ((schemes.SPACES, 0x20), (schemes.DASHES, 0x2D)):
        for encoded in (chr(code).encode() for code in characters):
            here = data == encoded[0]
            if here.any():
                here &= second == encoded[1]
                replace(here & (third == encoded[2]) if len(encoded) == 3 else here, by, len(encoded))
    return folded, keep


# What sources write for "nothing", folded and upper-case. The fifth is a backslash and a letter, two characters.
NULL_TOKENS = ("", "-", "--", "/", "\\N", "N/A", "#N/A", "NA", "NULL", "NONE", "NAN", "NIL", "无")


def trimmed(values: pa.Array) -> pa.StringArray:
    """Half-width and without space at both ends; null where the text says that there is nothing."""
    text = pc.utf8_trim_whitespace(half_width(values))
    nothing = pc.is_in(pc.ascii_upper(text), value_set=pa.array(NULL_TOKENS))
    return pc.if_else(nothing, None, text)
