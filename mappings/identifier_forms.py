"""The rules of each scheme over a byte matrix.

A matrix holds plain values (digits and capital letters) of one length: uint8 ASCII codes of shape (length, m), one
value a column. A rule gives for each value the index of its scheme in ``SCHEMES`` (or ``UNKNOWN``) and the bits of its
reasons, both of shape (m,). :mod:`mappings.scalars` says the same of one value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mappings import checksums, regions, schemes
from mappings.cleaning import Bytes, Mask
from mappings.schemes import BITS, INVALID, SCHEMES

Bits = NDArray[np.uint32]
Judged = tuple[Bytes, Bits]

UNKNOWN = 255
RIC, PERMIT, FPR, PASSPORT, USCC, REGNO, ORGCODE, TAX = range(len(SCHEMES))

# Days of a month, with February of a leap year as month 13.
_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 29], dtype=np.int32)

_ORGANISATION_WEIGHTS = np.array(schemes.ORGANISATION_CODE_WEIGHTS, dtype=np.int32)[:, None]


def _table(characters: str) -> Mask:
    table = np.zeros(256, dtype=bool)
    table[list(characters.encode("ascii"))] = True
    return table


_DIGITS = _table(checksums.DIGITS)
_GB_32100 = _table(checksums.GB_32100)
_AUTHORITIES = _table(schemes.AUTHORITIES)
_FIRST = _table(checksums.DIGITS + schemes.AUTHORITY_LETTERS)
_PASSPORT_FIRST = _table(schemes.PASSPORT_FIRST)
_ORGANISATION_CHECKS = np.frombuffer(schemes.ORGANISATION_CODE_CHECKS.encode(), dtype=np.uint8)
_LETTER_VALUES = np.zeros(256, dtype=np.int32)
_LETTER_VALUES[list(checksums.ALPHANUMERIC.encode())] = np.arange(36)


def _when(mask: Mask | np.bool_, reason: str) -> Bits:
    return np.asarray(mask).astype(np.uint32) * np.uint32(BITS[reason])


def _all(matrix: Bytes, scheme: int, reason: str) -> Judged:
    return _of(matrix, scheme), np.full(matrix.shape[1], BITS[reason], dtype=np.uint32)


def _of(matrix: Bytes, scheme: int) -> Bytes:
    return np.full(matrix.shape[1], scheme, dtype=np.uint8)


def _digits(matrix: Bytes) -> Mask:
    return np.logical_and.reduce(matrix - np.uint8(48) <= 9, axis=0)


def _number(matrix: Bytes) -> NDArray[np.int32]:
    """The number that digits stand for; 0 where a character is none."""
    number = np.zeros(matrix.shape[1], dtype=np.int32)
    for row in matrix:
        number = number * 10 + (row - np.uint8(48))
    return np.where(_digits(matrix), number, 0)


def _only(reasons: Bits, usable: Mask, otherwise: str) -> Bits:
    return np.where(usable, reasons, np.uint32(BITS[otherwise]))


# -- persons


def _resident_form(matrix: Bytes) -> Mask:
    last = matrix[17]
    return _digits(matrix[:17]) & (_DIGITS[last] | (last == ord("X")))


def _person(matrix: Bytes, latest: int) -> Bits:
    """Check digit and birth date of 18 characters."""
    wrong = checksums.mod_11_2(matrix[:17].T) != matrix[17]
    birth = _birth(_number(matrix[6:10]), _number(matrix[10:12]), _number(matrix[12:14]), latest)
    return _when(wrong, "check-digit") | birth


def _birth(year: NDArray[np.int32], month: NDArray[np.int32], day: NDArray[np.int32], latest: int) -> Bits:
    leap = (month == 2) & (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    days = _DAYS[np.where(leap, 13, np.where(month > 12, 0, month))]
    real = (year > 0) & (day >= 1) & (day <= days)
    plausible = (year >= schemes.OLDEST_BIRTH_YEAR) & (year * 10000 + month * 100 + day <= latest)
    return _when(~real, "birth-date") | _when(real & ~plausible, "birth-date-implausible")


def _region(number: NDArray[np.int32]) -> Bits:
    statuses, _ = regions.tables()
    return _REGION_BITS[statuses[number]]


_REGION_BITS = np.array([BITS.get(f"region-{status}", 0) for status in regions.STATUSES], dtype=np.uint32)


def _birth_region(number: NDArray[np.int32], year: NDArray[np.int32]) -> Bits:
    _, first_years = regions.tables()
    return _region(number) | _when(first_years[number] > year, "region-younger-than-bearer")


def _listed_province(number: NDArray[np.int32]) -> Mask:
    known = np.zeros(100, dtype=bool)
    known[[int(code) for code in regions.provinces()]] = True
    return known[number]


def _is_permit(region: NDArray[np.int32]) -> Mask:
    return np.isin(region, [int(code) for code in schemes.PERMIT_REGIONS])


def _resident(matrix: Bytes, latest: int) -> Judged:
    if len(matrix) == 15:
        return _resident_15(matrix, latest)
    if len(matrix) != 18:
        return _all(matrix, RIC, "length")
    form = _resident_form(matrix)
    region, year = _number(matrix[:6]), _number(matrix[6:10])
    foreign, permit = form & (matrix[0] == ord("9")), form & _is_permit(region)
    extra = np.where(foreign, _province(matrix), np.where(permit, np.uint32(0), _birth_region(region, year)))
    scheme = np.where(foreign, FPR, np.where(permit, PERMIT, RIC)).astype(np.uint8)
    return scheme, _only(_person(matrix, latest) | extra, form, "alphabet")


def _resident_15(matrix: Bytes, latest: int) -> Judged:
    digits, foreign = _digits(matrix), _old_foreign_form(matrix)
    year = 1900 + _number(matrix[6:8])
    birth = _birth(year, _number(matrix[8:10]), _number(matrix[10:12]), latest)
    rest = _birth_region(_number(matrix[:6]), year) | np.uint32(BITS["upgraded-15"])
    old = np.where(birth & INVALID, birth, birth | rest)
    bits = np.where(digits, old, np.where(foreign, _old_foreign(matrix), np.uint32(BITS["alphabet"])))
    return np.where(foreign, FPR, RIC).astype(np.uint8), bits


def _old_foreign_form(matrix: Bytes) -> Mask:
    return (matrix[:3] >= ord("A")).all(axis=0) & _digits(matrix[3:])


def _old_foreign(matrix: Bytes) -> Bits:
    listed = _listed_province(_number(matrix[3:5]))
    birth = _birth(2000 + _number(matrix[7:9]), _number(matrix[9:11]), _number(matrix[11:13]), 99991231)
    return _when(~listed, "region-unlisted") | birth


def _province(matrix: Bytes) -> Bits:
    return _when(~_listed_province(_number(matrix[1:3])), "province")


def _permit(matrix: Bytes, latest: int) -> Judged:
    if len(matrix) != 18:
        return _all(matrix, PERMIT, "length")
    bits = _person(matrix, latest) | _when(~_is_permit(_number(matrix[:6])), "form")
    return _of(matrix, PERMIT), _only(bits, _resident_form(matrix), "alphabet")


def _foreign(matrix: Bytes, latest: int) -> Judged:
    if len(matrix) == 15:
        return _of(matrix, FPR), _only(_old_foreign(matrix), _old_foreign_form(matrix), "alphabet")
    if len(matrix) != 18:
        return _all(matrix, FPR, "length")
    bits = _person(matrix, latest) | _when(matrix[0] != ord("9"), "form") | _province(matrix)
    return _of(matrix, FPR), _only(bits, _resident_form(matrix), "alphabet")


def _passport(matrix: Bytes, latest: int) -> Judged:
    if not 5 <= len(matrix) <= 15:
        return _all(matrix, PASSPORT, "length")
    digit = np.logical_or.reduce(_DIGITS[matrix], axis=0)
    bits = _only(_when(np.full(len(digit), len(matrix) > 9), "form-unusual"), digit, "form")
    return _of(matrix, PASSPORT), bits


# -- organisations


def _credit(matrix: Bytes, latest: int) -> Judged:
    if len(matrix) != 18:
        return _all(matrix, USCC, "length")
    form = _FIRST[matrix[0]] & _digits(matrix[1:8]) & _GB_32100[matrix[8:]].all(axis=0)
    wrong = checksums.mod_31(matrix[:17].T) != matrix[17]
    pilot = wrong & (matrix[8] == ord("M")) & (matrix[9:12] == ord("0")).all(axis=0)
    bits = (
        _when(~_AUTHORITIES[matrix[0]], "authority-unlisted")
        | _when(pilot, "early-pilot-batch")
        | _when(wrong & ~pilot, "check-digit")
        | _office(_number(matrix[2:8]))
    )
    return _of(matrix, USCC), _only(bits, form, "alphabet")


def _office(region: NDArray[np.int32]) -> Bits:
    return np.where(region == int(schemes.NATIONWIDE), np.uint32(0), _region(region))


def _registration(matrix: Bytes, latest: int) -> Judged:
    length, digits = len(matrix), _digits(matrix)
    scheme, number = _of(matrix, REGNO), np.full(matrix.shape[1], BITS["length"], dtype=np.uint32)
    if length in (13, 15):
        number = _office(_number(matrix[:6]))
    if length == 15:
        number |= _when(checksums.mod_11_10(matrix[:14].T) != matrix[14], "check-digit")
    if not 10 <= length <= 16:
        return scheme, _only(number, digits, "form")
    unusual = _digits(matrix[:6])
    letters = np.where(unusual, np.uint32(BITS["form-unusual"]), np.uint32(BITS["form"]))
    if length == 15:
        letters = np.where(_cooperative(matrix), _office(_number(matrix[:6])), letters)
    return scheme, np.where(digits, number, letters)


def _cooperative(matrix: Bytes) -> Mask:
    last = _DIGITS[matrix[14]] | (matrix[14] == ord("X"))
    letter = (matrix[6] == ord("N")) & (matrix[7] >= ord("A"))
    return _digits(matrix[:6]) & letter & _digits(matrix[8:14]) & last


def _organisation_code(matrix: Bytes, latest: int) -> Judged:
    if len(matrix) != 9:
        return _all(matrix, ORGCODE, "length")
    form = _DIGITS[matrix[8]] | (matrix[8] == ord("X"))
    return _of(matrix, ORGCODE), _only(
        _when(_organisation_check(matrix[:8]) != matrix[8], "check-digit"), form, "alphabet"
    )


def _organisation_check(body: Bytes) -> Bytes:
    return _ORGANISATION_CHECKS[(_LETTER_VALUES[body] * _ORGANISATION_WEIGHTS).sum(axis=0) % 11]


def _tax(matrix: Bytes, latest: int) -> Judged:
    scheme = _of(matrix, TAX)
    if len(matrix) == 18:
        credit, resident = _credit(matrix, latest)[1], _resident(matrix, latest)[1]
        return scheme, np.where((credit & INVALID > 0) & (resident & INVALID == 0), resident, credit)
    if len(matrix) == 15:
        form = _digits(matrix[:6]) & (_DIGITS[matrix[14]] | (matrix[14] == ord("X")))
        odd = _organisation_check(matrix[6:14]) != matrix[14]
        return scheme, _only(_office(_number(matrix[:6])) | _when(odd, "form-unusual"), form, "alphabet")
    return scheme, _when(np.full(matrix.shape[1], len(matrix) not in (17, 20)), "length")


def _organisation(matrix: Bytes, latest: int) -> Judged:
    if len(matrix) == 18:
        return _credit(matrix, latest)
    if len(matrix) == 9:
        return _organisation_code(matrix, latest)
    scheme, bits = _registration(matrix, latest)
    usable = bits & INVALID == 0
    if len(matrix) in (13, 15):
        usable |= _digits(matrix)
    return np.where(usable, scheme, USCC).astype(np.uint8), _only(bits, usable, "length")


# -- without a scheme


def _recognise(matrix: Bytes, latest: int) -> Judged:
    if len(matrix) == 18:
        return _recognise_18(matrix, latest)
    if len(matrix) == 15:
        return _recognise_15(matrix, latest)
    if len(matrix) == 13:
        scheme, bits = _registration(matrix, latest)
        return _or_unknown(scheme, bits, _digits(matrix))
    if len(matrix) == 9:
        form = _PASSPORT_FIRST[matrix[0]] & _digits(matrix[2:])
        passport, code = _passport(matrix, latest), _organisation_code(matrix, latest)
        bits = np.where(form, passport[1], code[1])
        return _or_unknown(np.where(form, passport[0], code[0]), bits, bits & INVALID == 0)
    return _all(matrix, UNKNOWN, "scheme-unrecognised")


def _or_unknown(scheme: Bytes, bits: Bits, usable: Mask) -> Judged:
    return np.where(usable, scheme, UNKNOWN).astype(np.uint8), _only(bits, usable, "scheme-unrecognised")


def _recognise_15(matrix: Bytes, latest: int) -> Judged:
    person, number = _resident(matrix, latest), _registration(matrix, latest)
    is_person = person[1] & INVALID == 0
    is_number = _digits(matrix) | (number[1] & (INVALID | BITS["form-unusual"]) == 0)
    bits = np.where(is_person, person[1], number[1])
    return _or_unknown(np.where(is_person, person[0], number[0]), bits, is_person | is_number)


def _recognise_18(matrix: Bytes, latest: int) -> Judged:
    """Resident ID or credit code: what validates decides, then what looks like a person with a birth date."""
    person, credit = _resident(matrix, latest), _credit(matrix, latest)
    nine = matrix[0] == ord("9")
    is_person = person[1] & (INVALID | BITS["birth-date-implausible"]) == 0
    is_credit = credit[1] & INVALID == 0
    looks = (person[1] & BITS["alphabet"] == 0) & (~nine | (person[1] & BITS["birth-date"] == 0))
    looks |= person[1] & INVALID == 0
    choice = np.where(is_person | is_credit, is_person & ~(is_credit & nine), looks)
    return np.where(choice, person[0], credit[0]).astype(np.uint8), np.where(choice, person[1], credit[1])


@dataclass(frozen=True, slots=True)
class Rule:
    """How a column is judged; ``scheme`` is what stands where nothing else is found; ``texts``: textual
    registration numbers are known here."""

    scheme: int
    judge: Callable[[Bytes, int], Judged]
    texts: bool = False


# By scheme; None: recognised by form; "organisation": a credit-code column.
RULES: dict[str | None, Rule] = {
    "cn.ric": Rule(RIC, _resident),
    "cn.permit": Rule(PERMIT, _permit),
    "cn.fpr": Rule(FPR, _foreign),
    "passport": Rule(PASSPORT, _passport),
    "cn.uscc": Rule(USCC, _credit),
    "cn.regno": Rule(REGNO, _registration, texts=True),
    "cn.orgcode": Rule(ORGCODE, _organisation_code),
    "cn.tax": Rule(TAX, _tax),
    "organisation": Rule(USCC, _organisation, texts=True),
    None: Rule(UNKNOWN, _recognise, texts=True),
}
