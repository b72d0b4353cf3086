"""Dates and times in any spelling: ``2020-6-18``, ``20200316``, ``2019-9-18 0:00``, ``2019年9月18日``, ``9999-9-9``.

What is written as ISO 8601 says is read as digits in their places; all else runs over the distinct values of a column.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mappings import cleaning

NO_END_YEAR = 9999
FIRST_YEAR = 1000  # 0001-01-01 and the like are what software writes for want of a date
FARTHEST = 14 * 60  # minutes from UTC to the farthest zone
UTC = pa.timestamp("us", "UTC")
_NO_END = ("长期", "长期有效", "永久", "永久有效", "无固定期限", "无期限", "无限期")

# 20200316, 20200316123456 and 20200316 12:34 are given separators first.
_RUN_TOGETHER = r"^([0-9]{4})([0-9]{2})([0-9]{2})(?:([0-9]{2})([0-9]{2})([0-9]{2}))?((?:[ T].*)?)$"
_SPELLING = (
    r"^(?P<year>[0-9]{4})\s*[-/.年]\s*(?P<month>[0-9]{1,2})\s*[-/.月]\s*(?P<day>[0-9]{1,2})日?"
    r"(?:[\sT]*(?P<hour>[0-9]{1,2})\s*[:时点]\s*(?P<minute>[0-9]{1,2})\s*分?"
    r"(?::?(?P<second>[0-9]{1,2})(?:[.,](?P<fraction>[0-9]{1,9}))?秒?)?\s*(?P<zone>[Zz]|[+-][0-9]{2}:?(?:[0-9]{2})?)?)?$"
)
# ISO 8601 by length; 0 stands for a digit.
_SHAPES = {
    10: "0000-00-00", 19: "0000-00-00T00:00:00", 20: "0000-00-00T00:00:00Z", 25: "0000-00-00T00:00:00+00:00",
}  # fmt: skip
_ALIKE = {"T": "T ", "+": "+-"}
_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 29], dtype=np.int64)


# Days of a spreadsheet count from here, as though 1900 had been a leap year. Only five digits are read (1927-05-18 to
# 2173-10-13) and the year 9999: 2019 is a year and 201903 a month, not a day in 1905 or 2452.
_SERIAL = r"^(?:[0-9]{5}|29584[0-9]{2}|2958[1-3][0-9]{2})(?:\.[0-9]{1,17})?$"
_SERIAL_ZERO = np.datetime64("1899-12-30", "us")


def date(values: pa.Array | pa.ChunkedArray, serial: bool = False) -> tuple[pa.Date32Array, pa.StringArray]:
    """The day of each value, as date32 (n,), and problem codes (n,), null where all is well.

    ``date-unreadable``: no date, or an impossible one; the value is null. ``long-term``: 长期 or the year 9999, which as
    the end of a validity means that there is none; the value is null. What says "nothing" is null without a problem. A
    time of day is left out, and the date taken as written, whatever its zone. ``serial``: 45123 is the day of that number
    in a spreadsheet of the 1900 date system.
    """
    if _is_temporal(values):
        return _no_end(values, cleaning.whole(values).cast(pa.date32(), safe=False))
    text = cleaning.strings(values)
    days, known, _ = _plain(text, timed=False)
    return _completed(text, days.astype(np.int32), known, pa.date32(), lambda odd: _dates(odd, serial))


def _dates(values: pa.StringArray, serial: bool) -> tuple[pa.Date32Array, pa.StringArray]:
    found, text, problems = _distinct(_unserial(values) if serial else values)
    return pa.array(_epoch_days(found).astype(np.int32), mask=~_good(problems, text)).cast(pa.date32()), problems


def timestamp(
    values: pa.Array | pa.ChunkedArray, tz: str = "Asia/Shanghai", serial: bool = False
) -> tuple[pa.TimestampArray, pa.StringArray]:
    """The moment of each value, as timestamp[us, UTC] (n,), and problem codes as :func:`date`.

    A value without zone is local time of ``tz``; a date alone is its first moment. An impossible time of day is
    ``date-unreadable`` too. ``serial``: as :func:`date`; the fraction of a day is the time.
    """
    if _is_temporal(values):
        written = cleaning.whole(values).cast(pa.timestamp("us", getattr(values.type, "tz", None)))
        if written.type.tz is None:
            written = pc.assume_timezone(written, tz, ambiguous="earliest", nonexistent="latest")
        return _no_end(values, written.cast(UTC))
    text = cleaning.strings(values)
    micros, known, zoned = _plain(text, timed=True)
    local = known & ~zoned
    if local.any():
        micros[local] = _utc(pa.array(micros[local]).cast(pa.timestamp("us")), tz).cast(pa.int64()).to_numpy()
    return _completed(text, micros, known, UTC, lambda odd: _timestamps(odd, tz, serial))


def _timestamps(values: pa.StringArray, tz: str, serial: bool) -> tuple[pa.TimestampArray, pa.StringArray]:
    found, text, problems = _distinct(_unserial(values) if serial else values)
    hour, minute, second = (_number(found, part) for part in ("hour", "minute", "second"))
    away, zoned = _zone(found)
    possible = (hour < 24) & (minute < 60) & (second < 60) & (np.abs(away) <= FARTHEST)
    good = _good(problems, text) & possible
    problems = pc.if_else(pa.array(_good(problems, text) & ~possible), "date-unreadable", problems)
    fraction = pc.utf8_rpad(pc.fill_null(pc.struct_field(found, "fraction"), ""), 9, "0")
    micros = pc.cast(fraction, pa.int64()).to_numpy() // 1000
    seconds = ((_epoch_days(found) * 24 + hour) * 60 + minute - np.where(zoned, away, 0)) * 60 + second
    written = pa.array(seconds * 1_000_000 + micros, mask=~good).cast(pa.timestamp("us"))
    moments = pc.if_else(pa.array(zoned), pc.assume_timezone(written, "UTC").cast(UTC), _utc(written, tz))
    return moments, problems


def _utc(written: pa.TimestampArray, tz: str) -> pa.TimestampArray:
    """Where summer time repeats or leaves out an hour (China, 1986 to 1991), the earlier and the later moment is taken."""
    return pc.assume_timezone(written, tz, ambiguous="earliest", nonexistent="latest").cast(UTC)


def _completed(
    text: pa.StringArray,
    numbers: NDArray[np.int64] | NDArray[np.int32],
    known: NDArray[np.bool_],
    kind: pa.DataType,
    read: Callable[[pa.StringArray], tuple[pa.Array, pa.StringArray]],
) -> tuple[pa.Array, pa.StringArray]:
    """The ``known`` numbers as ``kind`` with what ``read`` makes of the distinct others, and the problems of those."""
    nothing = pa.nulls(len(text), pa.string())
    found = pa.array(numbers).cast(kind)
    if known.all():
        return found, nothing
    odd = pa.array(~known)
    encoded = text.filter(odd).dictionary_encode()
    others, problems = (part.take(encoded.indices) for part in read(encoded.dictionary))
    return pc.replace_with_mask(found, odd, others), pc.replace_with_mask(nothing, odd, problems)


def _plain(text: pa.StringArray, timed: bool) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Values written ``2020-06-18``, and with ``timed`` ``2020-06-18 09:30:00`` too, with ``T`` or a zone (``Z``,
    ``+08:00``): days or, ``timed``, microseconds since 1970-01-01 (n,); which values are so written and real; which have
    a zone, and that worked in."""
    numbers = np.zeros(len(text), dtype=np.int64)
    known, zoned = np.zeros(len(text), dtype=bool), np.zeros(len(text), dtype=bool)
    offsets, data = cleaning.buffers(text)
    lengths = np.diff(offsets)
    for length in (10, 19, 20, 25) if timed else (10,):
        rows = np.flatnonzero(lengths == length)
        if not len(rows):
            continue
        matrix = cleaning.matrix(data, offsets, rows, length)
        year, month, day = _digits(matrix[:4]), _digits(matrix[5:7]), _digits(matrix[8:10])
        good = _shaped(matrix, _SHAPES[length]) & _real(year, month, day) & (year != NO_END_YEAR)
        found = _days(year, month, day)
        if timed:
            found *= 86_400
        if length > 10:
            hour, minute, second = (_digits(matrix[place : place + 2]) for place in (11, 14, 17))
            good &= (hour < 24) & (minute < 60) & (second < 60)
            found += (hour * 60 + minute) * 60 + second
        if length == 25:
            away = _digits(matrix[20:22]) * 60 + _digits(matrix[23:25])
            good &= away <= FARTHEST
            found -= np.where(matrix[19] == ord("-"), -away, away) * 60
        numbers[rows], known[rows], zoned[rows] = found * (1_000_000 if timed else 1), good, length >= 20
    if text.null_count:
        known &= text.is_valid().to_numpy(zero_copy_only=False)
    return numbers, known, zoned & known


def _shaped(matrix: NDArray[np.uint8], shape: str) -> NDArray[np.bool_]:
    """Which columns of characters have digits where ``shape`` has 0, and elsewhere its character or one it stands for."""
    good = np.ones(matrix.shape[1], dtype=bool)
    for row, character in zip(matrix, shape, strict=True):
        if character == "0":
            good &= row - np.uint8(48) <= 9
        else:
            good &= np.logical_or.reduce([row == ord(other) for other in _ALIKE.get(character, character)])
    return good


def _digits(matrix: NDArray[np.uint8]) -> NDArray[np.int64]:
    number = np.zeros(matrix.shape[1], dtype=np.int64)
    for row in matrix:
        number = number * 10 + (row - np.uint8(48))
    return number


def _is_temporal(values: pa.Array | pa.ChunkedArray) -> bool:
    return pa.types.is_date(values.type) or pa.types.is_timestamp(values.type)


def _no_end(values: pa.Array | pa.ChunkedArray, found: pa.Array) -> tuple[pa.Array, pa.StringArray]:
    """What a source gave as dates can only say that there is no end."""
    ends = pc.fill_null(pc.equal(pc.year(cleaning.whole(values)), NO_END_YEAR), False)
    return pc.if_else(ends, None, found), pc.if_else(ends, "long-term", pa.scalar(None, pa.string()))


def _unserial(values: pa.StringArray) -> pa.StringArray:
    """Day numbers as dates with a time to the millisecond, beyond which a fraction of that size holds nothing."""
    text = cleaning.trimmed(values)
    numbers = pc.if_else(pc.match_substring_regex(text, _SERIAL), text, None).cast(pa.float64())
    days = pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False)
    moments = _SERIAL_ZERO + np.rint(days * 86_400_000).astype("timedelta64[ms]")
    written = pa.array(moments.astype("datetime64[us]")).cast(pa.string())
    return pc.if_else(numbers.is_valid(), written, values)


def _distinct(values: pa.StringArray) -> tuple[pa.StructArray, pa.StringArray, pa.StringArray]:
    """Parts of the spelling, the text (null where it says nothing), and problem codes."""
    text = cleaning.trimmed(values)
    apart = pc.replace_substring_regex(text, _RUN_TOGETHER, r"\1-\2-\3 \4:\5:\6\7")
    apart = pc.replace_substring_regex(apart, r" ::", "")
    found = pc.extract_regex(apart, _SPELLING)
    month, day = _number(found, "month"), _number(found, "day")
    year = _number(found, "year")
    real = pa.array(_real(year, month, day))
    endless = pc.or_(pa.array(year == NO_END_YEAR), pc.fill_null(pc.is_in(text, value_set=pa.array(_NO_END)), False))
    problems = pc.if_else(endless, "long-term", pc.if_else(real, pa.scalar(None, pa.string()), "date-unreadable"))
    return found, text, pc.if_else(text.is_valid(), problems, None)


def _good(problems: pa.StringArray, text: pa.StringArray) -> NDArray[np.bool_]:
    return pc.and_(text.is_valid(), problems.is_null()).to_numpy(zero_copy_only=False)


def _number(found: pa.StructArray, part: str) -> NDArray[np.int64]:
    """A part as numbers (n,); 0 where it is missing."""
    digits = pc.fill_null(pc.struct_field(found, part), "")
    return pc.if_else(pc.equal(digits, ""), "0", digits).cast(pa.int64()).to_numpy()


def _epoch_days(found: pa.StructArray) -> NDArray[np.int64]:
    """Days since 1970-01-01; meaningless where the parts are no date."""
    return _days(_number(found, "year"), _number(found, "month"), _number(found, "day"))


def _real(year: NDArray[np.int64], month: NDArray[np.int64], day: NDArray[np.int64]) -> NDArray[np.bool_]:
    leap = (month == 2) & (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    days = _DAYS[np.where(leap, 13, np.where(month > 12, 0, month))]
    return (year >= FIRST_YEAR) & (day >= 1) & (day <= days)


def _days(year: NDArray[np.int64], month: NDArray[np.int64], day: NDArray[np.int64]) -> NDArray[np.int64]:
    months = (year - 1970) * 12 + np.clip(month, 1, 12) - 1
    return months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + day - 1


def _zone(found: pa.StructArray) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Minutes east of UTC (n,), and where a zone is written at all."""
    zone = pc.fill_null(pc.struct_field(found, "zone"), "")
    digits = pc.replace_substring_regex(zone, "[^0-9]", "")
    digits = pc.utf8_rpad(pc.if_else(pc.equal(digits, ""), "0", digits), 4, "0").cast(pa.int64()).to_numpy()
    minutes = digits // 100 * 60 + digits % 100
    west = pc.starts_with(zone, "-").to_numpy(zero_copy_only=False)
    return np.where(west, -minutes, minutes), pc.not_equal(zone, "").to_numpy(zero_copy_only=False)
