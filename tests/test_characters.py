"""connectors/characters.py: text that no database can hold is told apart."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from connectors import characters

NUMBERS = np.array([3, 4, 5, 9])


def test_sound_rows_pass_as_text() -> None:
    block = characters.block([pa.array(["甲", None, "", "b"]), pa.array([b"1", b"2", None, b"4"])], ["a", "b"], NUMBERS)
    assert block.table.to_pydict() == {"a": ["甲", None, "", "b"], "b": ["1", "2", None, "4"], "_row": [3, 4, 5, 9]}
    assert block.table.schema.field("a").type == pa.string()
    assert block.malformed.num_rows == 0


def test_broken_rows_keep_number_bytes_and_reason() -> None:
    first = pa.array([b"x", b"a\0b", b"\xff", None])
    second = pa.array([b"1", b"\xfe", None, b"4"])
    block = characters.block([first, second], ["a", "b"], NUMBERS)
    assert block.table.to_pydict() == {"a": ["x", None], "b": ["1", "4"], "_row": [3, 9]}
    assert block.malformed.to_pylist() == [
        {"_row": 4, "raw": b"a\0b\t\xfe", "reason": "undecodable"},
        {"_row": 5, "raw": b"\xff\t", "reason": "undecodable"},
    ]
    block = characters.block([pa.array(["a\0"])], ["a"], np.array([7]))
    assert block.malformed.to_pylist() == [{"_row": 7, "raw": b"a\0", "reason": "nul-character"}]


def test_slices_are_judged_by_their_own_rows() -> None:
    sliced = pa.array([b"\xff", b"good", b"\xff"]).slice(1, 1)
    assert characters.block([sliced], ["a"], np.array([1])).table.num_rows == 1
