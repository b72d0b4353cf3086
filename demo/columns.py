"""Columns of text made from numbers, whole arrays at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Integers = NDArray[np.integer[Any]]
Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def digits(numbers: Integers, width: int) -> Bytes:
    """ASCII codes of the last ``width`` decimal digits, shape (n, width)."""
    powers = 10 ** np.arange(width - 1, -1, -1, dtype=np.int64)
    return (numbers.astype(np.int64)[:, None] // powers % 10 + ord("0")).astype(np.uint8)


def written(numbers: Integers, alphabet: str, width: int) -> Bytes:
    """The same in the base of an alphabet of any length."""
    powers = len(alphabet) ** np.arange(width - 1, -1, -1, dtype=np.int64)
    letters = np.frombuffer(alphabet.encode("ascii"), dtype=np.uint8)
    codes: Bytes = letters[numbers.astype(np.int64)[:, None] // powers % len(alphabet)]
    return codes


def strings(codes: Bytes) -> pa.StringArray:
    """Shape (n, k) of ASCII codes -> n strings of k characters."""
    count, width = codes.shape
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(width)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(codes)))


def constant(text: str, count: int) -> Bytes:
    """The same ASCII text in ``count`` rows."""
    return np.tile(np.frombuffer(text.encode("ascii"), dtype=np.uint8), (count, 1))


def same(text: str, count: int) -> pa.StringArray:
    return pick((text,), np.zeros(count, dtype=np.int64))


def concat(*parts: pa.Array) -> pa.Array:
    """The parts end to end."""
    return pa.concat_arrays(parts)


def pick(values: Sequence[str | None], indices: Integers) -> pa.StringArray:
    """``values[i]`` for every index."""
    return pa.array(values, pa.string()).take(pa.array(indices))


def reworded(values: pa.StringArray, words: dict[str, str]) -> pa.StringArray:
    """What ``words`` says for each value."""
    places = pc.index_in(values, value_set=pa.array(list(words)))
    return pa.array(list(words.values())).take(places)


def join(*parts: pa.StringArray | str) -> pa.StringArray:
    """The parts of a row, one after the other; a null part counts as empty."""
    return pc.binary_join_element_wise(*parts, "", null_handling="replace", null_replacement="")


def dates(days: Integers) -> pa.Array:
    """Days since 1970 -> date32."""
    return pa.array(days.astype(np.int32)).cast(pa.date32())


def spaced(seconds: Integers) -> pa.StringArray:
    """Local seconds since 1970 in China -> ``2025-03-01 12:00:00``, as most departments write it."""
    return pa.array(seconds.astype(np.int64)).cast(pa.timestamp("s")).cast(pa.string())


def moments(seconds: Integers) -> pa.StringArray:
    """Local seconds since 1970 in China -> ISO 8601 with +08:00."""
    return join(pc.replace_substring(spaced(seconds), " ", "T"), "+08:00")


def day(text: str) -> int:
    """Days since 1970 of an ISO date."""
    return int(np.datetime64(text, "D").astype(np.int64))


def calendar(days: Integers) -> tuple[Integers, Integers, Integers]:
    """Days since 1970 -> year, month, day of the month."""
    dated = days.astype("datetime64[D]")
    months = dated.astype("datetime64[M]")
    years = months.astype("datetime64[Y]")
    return (
        years.astype(np.int64) + 1970,
        (months - years).astype(np.int64) + 1,
        (dated - months).astype(np.int64) + 1,
    )


def years_later(days: Integers, years: Integers) -> Integers:
    """The same calendar day ``years`` on; 29 February becomes 28 February where the year has none."""
    year, month, dom = calendar(days)
    leap = (month == 2) & (dom == 29)
    moved = (year + years - 1970).astype("datetime64[Y]").astype("datetime64[M]") + (month - 1)
    return moved.astype("datetime64[D]").astype(np.int64) + np.where(leap, 28, dom) - 1


def replaced(values: pa.StringArray, rows: Integers, texts: pa.StringArray) -> pa.StringArray:
    """``values`` with ``texts`` in the places ``rows`` (ascending)."""
    mask = np.zeros(len(values), dtype=bool)
    mask[rows] = True
    return pc.replace_with_mask(values, pa.array(mask), texts)
