"""Identifiers of a column: schemes, normalised forms, verdicts; vectorised over Arrow.

A column goes block by block through byte matrices of one row per character and one column per value, one matrix for
each length; no value is ever touched alone. Rules and reasons are those of :mod:`mappings.schemes`; one value at a time
is judged, to the same verdict, by :mod:`mappings.scalars`.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mappings import checksums, cleaning, schemes
from mappings.cleaning import Bytes, Mask
from mappings.identifier_forms import RULES, UNKNOWN, Rule
from mappings.schemes import BITS, FLAG, INVALID, REASONS, SCHEMES

BLOCK = 65_536  # rows: the matrices of a block stay in the processor's cache

SCHEMA = pa.schema(
    [
        ("scheme", pa.string()),
        ("normalised", pa.string()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
    ]
)


def check(
    values: pa.Array | pa.ChunkedArray,
    scheme: str | pa.Array | pa.ChunkedArray | None = None,
    *,
    organisation_column: bool = False,
    today: dt.date | None = None,
) -> pa.Table:
    """Judge ``values`` (n,) under one scheme, one scheme a value, or by their form (None).

    Returns a table of n rows: ``scheme`` (null when none was given and none fits), ``normalised`` (the cleaned form,
    also of an invalid value; null when unrecoverable), ``verdict`` (``valid``, ``flagged``, ``invalid``), ``reason``
    (codes of :data:`mappings.schemes.REASONS` joined with ``;``, or null). A null value has nulls everywhere.

    The scheme found can differ from the one given: a residence permit given as ``cn.ric`` is ``cn.permit``. With
    ``organisation_column`` a credit-code column may hold registration numbers and organisation codes too. Raises
    ``ValueError`` for an unknown scheme, ``TypeError`` for values that are no text.
    """
    text = cleaning.strings(values)
    if organisation_column:
        if scheme not in (None, "cn.uscc"):
            raise ValueError("an organisation column holds cn.uscc and what stood in its place")
        return _check(text, "organisation", today)
    if scheme is None or isinstance(scheme, str):
        return _check(text, _known(scheme), today)
    return _check_each(text, cleaning.strings(scheme), today)


def check_organisation(values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Judge a credit-code column: each value is ``cn.uscc``, ``cn.orgcode`` or ``cn.regno``. Result as ``check``."""
    return check(values, organisation_column=True)


def split(values: pa.Array | pa.ChunkedArray) -> tuple[pa.StringArray, pa.StringArray]:
    """``scheme:value`` apart: schemes (n,), null where none is given, and values (n,)."""
    text = cleaning.strings(values)
    found = pc.extract_regex(text, schemes.PREFIXED)
    given = pc.utf8_lower(pc.struct_field(found, "scheme"))
    return given, pc.if_else(found.is_valid(), pc.struct_field(found, "value"), text)


def _known(scheme: str | None) -> str | None:
    if scheme is not None and scheme not in SCHEMES:
        raise ValueError(f"no such scheme; known are {', '.join(SCHEMES)}")
    return scheme


def _check_each(text: pa.StringArray, given: pa.StringArray, today: dt.date | None) -> pa.Table:
    """One pass per distinct scheme, put together again in the order given."""
    if len(given) != len(text):
        raise ValueError(f"{len(text)} values but {len(given)} schemes")
    parts: list[pa.Table] = []
    places: list[NDArray[np.int64]] = []
    for scheme in pc.unique(given).to_pylist():  # a handful of schemes, not rows
        mask = given.is_null() if scheme is None else pc.fill_null(pc.equal(given, scheme), False)
        parts.append(_check(pc.filter(text, mask), _known(scheme), today))
        places.append(np.flatnonzero(mask.to_numpy(zero_copy_only=False)))
    if not parts:
        return _check(text, None, today)
    return pa.concat_tables(parts).combine_chunks().take(np.argsort(np.concatenate(places), kind="stable"))


def _check(text: pa.StringArray, rule: str | None, today: dt.date | None) -> pa.Table:
    latest = schemes.latest_birth(today)
    found = np.full(len(text), UNKNOWN, dtype=np.uint8)
    bits = np.zeros(len(text), dtype=np.uint32)
    normalised: list[pa.Array] = []
    for start in range(0, len(text), BLOCK):
        block = text.slice(start, BLOCK)
        here = slice(start, start + len(block))
        found[here], bits[here], clean = _block(block, RULES[rule], latest)
        normalised.append(clean)
    arrays = [_schemes(found), pa.concat_arrays(normalised or [pa.array([], pa.string())]), _verdicts(bits)]
    arrays.append(_reasons(bits))
    if text.null_count:
        arrays = [pc.if_else(text.is_valid(), array, None) for array in arrays]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _block(block: pa.StringArray, rule: Rule, latest: int) -> tuple[Bytes, NDArray[np.uint32], pa.StringArray]:
    clean, plain = cleaning.compact(pc.fill_null(block, "") if block.null_count else block)
    offsets, data = cleaning.buffers(clean)
    lengths = np.diff(offsets)
    found = np.full(len(clean), rule.scheme, dtype=np.uint8)
    bits = np.zeros(len(clean), dtype=np.uint32)
    bits[lengths == 0] = BITS["empty"]
    for length in np.unique(lengths[plain & (lengths > 0)]):
        rows = np.flatnonzero(plain & (lengths == length))
        matrix = cleaning.matrix(data, offsets, rows, int(length))
        found[rows], bits[rows] = rule.judge(matrix, latest)
    if not plain.all():
        rows = np.flatnonzero(~plain & (lengths > 0))
        found[rows], bits[rows] = _texts(clean.take(pa.array(rows)), rule)
    return found, bits, _normalised(clean, offsets, data, bits)


def _texts(texts: pa.StringArray, rule: Rule) -> tuple[Bytes, NDArray[np.uint32]]:
    """What holds more than digits and letters."""

    def matches(pattern: str) -> Mask:
        return pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False)

    found = np.full(len(texts), rule.scheme, dtype=np.uint8)
    bits = np.full(len(texts), BITS["scheme-unrecognised" if rule.scheme == UNKNOWN else "alphabet"], dtype=np.uint32)
    if rule.texts:
        usual = matches(schemes.REGISTRATION_TEXT)
        unusual = ~usual & matches(schemes.REGISTRATION_TEXT_UNUSUAL)
        found[usual | unusual] = SCHEMES.index("cn.regno")
        bits[usual], bits[unusual] = 0, BITS["form-unusual"]
    bits[matches(schemes.SCIENTIFIC)] = BITS["unrecoverable"]
    return found, bits


def _normalised(
    clean: pa.StringArray, offsets: NDArray[np.int64], data: Bytes, bits: NDArray[np.uint32]
) -> pa.StringArray:
    upgraded = (bits & BITS["upgraded-15"]) > 0
    if upgraded.any():
        old = cleaning.matrix(data, offsets, rows := np.flatnonzero(upgraded), 15)
        century = np.broadcast_to(np.frombuffer(b"19", dtype=np.uint8)[:, None], (2, len(rows)))
        body = np.concatenate((old[:6], century, old[6:]))
        whole = np.concatenate((body, checksums.mod_11_2(body.T)[None, :]))
        places = np.arange(len(rows) + 1, dtype=np.int64) * 18
        clean = pc.replace_with_mask(clean, pa.array(upgraded), cleaning.from_buffers(places, whole.T.ravel()))
    lost = (bits & BITS["unrecoverable"]) > 0
    return pc.if_else(pa.array(lost), None, clean) if lost.any() else clean


def _schemes(found: Bytes) -> pa.StringArray:
    indices = pa.array(found.astype(np.int8), mask=found == UNKNOWN)
    return pa.DictionaryArray.from_arrays(indices, pa.array(SCHEMES)).dictionary_decode()


def _verdicts(bits: NDArray[np.uint32]) -> pa.StringArray:
    indices = np.where(bits & INVALID, 2, np.where(bits & FLAG, 1, 0)).astype(np.int8)
    return pa.DictionaryArray.from_arrays(indices, pa.array(["valid", "flagged", "invalid"])).dictionary_decode()


def _reasons(bits: NDArray[np.uint32]) -> pa.StringArray:
    """Few combinations occur: name each once."""
    combinations = np.flatnonzero(np.bincount(bits, minlength=1))
    place = np.zeros(1 << len(REASONS), dtype=np.int32)
    place[combinations] = np.arange(len(combinations))
    names = pa.array([schemes.reason_text(int(combination)) for combination in combinations], pa.string())
    return names.take(pa.array(place[bits]))
