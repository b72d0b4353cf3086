"""Check characters against the implementations of python-stdnum, and against published identifiers."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from stdnum.cn import ric, uscc
from stdnum.iso7064 import mod_11_10, mod_37_36

from mappings import checksums


def matrix(bodies: list[str]) -> checksums.Bytes:
    return np.frombuffer("".join(bodies).encode("ascii"), dtype=np.uint8).reshape(len(bodies), -1)


def strings(alphabet: str, length: int, count: int = 3000) -> list[str]:
    chance = random.Random(length)
    return ["".join(chance.choices(alphabet, k=length)) for _ in range(count)]


@pytest.mark.parametrize(
    ("function", "alphabet", "length", "oracle"),
    [
        (checksums.mod_11_2, checksums.DIGITS, 17, lambda body: ric.calc_check_digit(body + "0")),
        (checksums.mod_31, checksums.GB_32100, 17, uscc.calc_check_digit),
        (checksums.mod_11_10, checksums.DIGITS, 14, mod_11_10.calc_check_digit),
        (checksums.mod_37_36, checksums.ALPHANUMERIC, 50, mod_37_36.calc_check_digit),
    ],
)
def test_equals_stdnum(
    function: Callable[[checksums.Bytes], checksums.Bytes], alphabet: str, length: int, oracle: Callable[[str], str]
) -> None:
    bodies = [alphabet[0] * length, alphabet[-1] * length, *strings(alphabet, length)]
    found = function(matrix(bodies))
    assert found.dtype == np.uint8
    assert bytes(found).decode() == "".join(oracle(body) for body in bodies)


@pytest.mark.parametrize(
    ("function", "identifier"),
    [
        (checksums.mod_11_2, "440524188001010014"),
        (checksums.mod_31, "91350100M000100Y43"),
        (checksums.mod_37_36, "11100000000013338W01111430000006122244L20230000403001U"),
        (checksums.mod_37_36, "11100000000013338W00911330105002500287C20250522010020"),
    ],
)
def test_published_identifiers(function: Callable[[checksums.Bytes], checksums.Bytes], identifier: str) -> None:
    assert bytes(function(matrix([identifier[:-1]]))).decode() == identifier[-1]


def test_no_rows() -> None:
    for function, length in ((checksums.mod_11_2, 17), (checksums.mod_37_36, 9)):
        assert function(np.zeros((0, length), dtype=np.uint8)).shape == (0,)


def test_a_wrong_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match="17"):
        checksums.mod_11_2(np.zeros((2, 18), dtype=np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        checksums.mod_37_36(np.zeros((2, 3), dtype=np.int64))
