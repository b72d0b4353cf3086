"""SHA-256 (FIPS 180-4) over many short messages at once: each lane of a numpy array is one message.

It is here for keyed hashes, whose two key blocks are the same for every value: what is left to do is one block of the
text and one of the outer hash, half of what a hash function called with the whole message does.
"""

from __future__ import annotations

from itertools import count, islice
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
State = tuple[Any, ...]  # eight arrays (n,), or numbers, of 32 bits

LANES = 16_384  # a round's operands stay in the second-level cache


def _cube_root(value: int) -> int:
    """Rounded down."""
    root = round(value ** (1 / 3))
    while root**3 > value:
        root -= 1
    while (root + 1) ** 3 <= value:
        root += 1
    return root


_PRIMES = list(islice((n for n in count(2) if all(n % d for d in range(2, isqrt(n) + 1))), 64))
_ROUND = [np.uint32(_cube_root(prime << 96) & 0xFFFFFFFF) for prime in _PRIMES]
START: State = tuple(np.array([isqrt(prime << 64) & 0xFFFFFFFF], np.uint32) for prime in _PRIMES[:8])


def after(state: State, words: Words) -> State:
    """The state after one more block. ``words``: (16, n), the blocks as big-endian numbers; they are overwritten."""
    shape = words.shape[1]
    one, two, both = (np.empty(shape, np.uint32) for _ in range(3))
    a, b, c, d, e, f, g, h = (np.broadcast_to(part, shape).copy() for part in state)
    np.bitwise_xor(b, c, out=both)
    for place in range(64):
        word = words[place % 16]
        if place >= 16:
            word += _mixed(words[(place - 15) % 16], 7, 18, 3, one, two, shifted=True)
            word += _mixed(words[(place - 2) % 16], 17, 19, 10, one, two, shifted=True)
            word += words[(place - 7) % 16]
        h += _mixed(e, 6, 11, 25, one, two)
        np.bitwise_xor(f, g, out=one)
        one &= e
        one ^= g
        h += one
        h += word
        h += _ROUND[place]
        d += h
        h += _mixed(a, 2, 13, 22, one, two)
        np.bitwise_xor(a, b, out=one)  # the majority of a, b, c is b, unless a and c agree against it
        both &= one
        both ^= b
        h += both
        both, one = one, both
        a, b, c, d, e, f, g, h = h, a, b, c, d, e, f, g
    return tuple(part + before for part, before in zip((a, b, c, d, e, f, g, h), state, strict=True))


def _mixed(x: Words, one: int, two: int, three: int, out: Words, spare: Words, shifted: bool = False) -> Words:
    """``x`` rotated right by each of three distances, xored; the third time it is only shifted if ``shifted``."""
    np.right_shift(x, one, out=out)
    for right, left in ((two, 32 - one), (three, 32 - two)):
        np.left_shift(x, left, out=spare)
        out ^= spare
        np.right_shift(x, right, out=spare)
        out ^= spare
    if not shifted:
        np.left_shift(x, 32 - three, out=spare)
        out ^= spare
    return out
