"""hub/exchange/share_making.py: how many parts, and which of them are read together. The rest: test_exchange_share_tables.py."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from hub.exchange import share_making
from hub.exchange.share_making import PART_ROWS, _bits, _within
from hub.exchange.share_rows import KEY, Range


@pytest.mark.parametrize(
    ("rows", "before", "bits"),
    [
        (0, None, 0), (1, None, 0), (PART_ROWS, None, 0), (PART_ROWS + 1, None, 1), (2 * PART_ROWS, None, 1), (2 * PART_ROWS + 1, None, 2),
        (10_000_000, None, 9), (10**12, None, share_making.MOST_BITS),
        (2 * PART_ROWS, 0, 0), (2 * PART_ROWS + 1, 0, 2), (0, 5, 5), (10_000_000, 8, 8), (20_000_000, 8, 10),
    ],
)  # fmt: skip
def test_bits(rows: int, before: int | None, bits: int) -> None:
    assert _bits(rows, before) == bits
    if before is None and rows < 10**12:
        assert rows / 2**bits <= PART_ROWS


def test_touched_keys_within_a_part() -> None:
    keys = sorted(np.random.default_rng(1).bytes(16) for _ in range(200))
    keys = sorted({*keys, bytes(16), b"\xff" * 16, b"\x40" + bytes(15), b"\x3f" + b"\xff" * 15})
    touched = pa.array(keys, KEY)
    parts = [_within(touched, Range(2, number, number)).to_pylist() for number in range(4)]
    assert [key for part in parts for key in part] == keys
    assert all(key[0] >> 6 == number for number, part in enumerate(parts) for key in part)
    assert b"\x40" + bytes(15) in parts[1] and b"\x3f" + b"\xff" * 15 in parts[0]
