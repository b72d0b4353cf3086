"""Check characters of Chinese identifiers, vectorised.

Every function takes ``body``, a uint8 array of ASCII codes of shape (n, k) without the check character, and returns the
check characters that belong to it as a uint8 array of ASCII codes of shape (n,). Characters outside the alphabet count
as zero and raise nothing: whether a value is well formed is for the caller to say. ``ValueError`` when k does not fit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

DIGITS = "0123456789"
GB_32100 = "0123456789ABCDEFGHJKLMNPQRTUWXY"
ALPHANUMERIC = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_WEIGHTS_11_2 = np.array([2 ** (17 - i) % 11 for i in range(17)], dtype=np.float32)
_WEIGHTS_31 = np.array([3**i % 31 for i in range(17)], dtype=np.float32)


def mod_11_2(body: Bytes) -> Bytes:
    """ISO 7064 MOD 11-2 of a resident ID (GB 11643); k = 17."""
    return _weighted(body, DIGITS, _WEIGHTS_11_2, _REMAINDER_11_2)


def mod_31(body: Bytes) -> Bytes:
    """The check character of a unified social credit code (GB 32100); k = 17."""
    return _weighted(body, GB_32100, _WEIGHTS_31, _REMAINDER_31)


def mod_11_10(body: Bytes) -> Bytes:
    """ISO 7064 MOD 11,10 of an old business registration number; k = 14 there, any k here."""
    return _hybrid(body, DIGITS)


def mod_37_36(body: Bytes) -> Bytes:
    """ISO 7064 MOD 37,36 of an electronic certificate identifier (GB/T 36904), dots left out; any k."""
    return _hybrid(body, ALPHANUMERIC)


def _values(alphabet: str) -> Bytes:
    """ASCII code -> value, as an array of shape (256,)."""
    table = np.zeros(256, dtype=np.uint8)
    table[[ord(character) for character in alphabet]] = np.arange(len(alphabet), dtype=np.uint8)
    return table


def _codes(characters: str) -> Bytes:
    return np.frombuffer(characters.encode("ascii"), dtype=np.uint8)


# Remainder of the weighted sum -> check character; the largest sum (17 × 30 × 30) is exact in float32.
_REMAINDER_11_2 = _codes("10X98765432")
_REMAINDER_31 = _codes("".join(GB_32100[(31 - remainder) % 31] for remainder in range(31)))


def _weighted(body: Bytes, alphabet: str, weights: NDArray[np.float32], characters: Bytes) -> Bytes:
    _expect(body, len(weights))
    sums = _values(alphabet)[body].astype(np.float32) @ weights  # BLAS knows floats, not bytes
    return characters[sums.astype(np.int32) % len(characters)]


def _hybrid(body: Bytes, alphabet: str) -> Bytes:
    """Hybrid systems of ISO 7064: one table look-up a column, with the state as row and the character as column."""
    _expect(body, None)
    size = len(alphabet)
    state, value = np.ogrid[:size, :size]
    doubled = (np.where(state == 0, size, state) * 2) % (size + 1)
    step = ((doubled + value) % size).astype(np.uint16).ravel()
    values = _values(alphabet).astype(np.uint16)
    states = np.full(len(body), size // 2, dtype=np.uint16)
    for column in range(body.shape[1]):
        states = step[states * size + values[body[:, column]]]
    last = np.where(np.arange(size) == 0, size, np.arange(size)) * 2 % (size + 1)
    return _codes(alphabet)[(1 - last) % size][states]


def _expect(body: Bytes, columns: int | None) -> None:
    if body.ndim != 2 or body.dtype != np.uint8 or (columns is not None and body.shape[1] != columns):
        raise ValueError(f"expected a uint8 array of shape (n, {columns or 'k'}), got {body.dtype} {body.shape}")
