"""hub/sha256.py: what Python's own SHA-256 says, for every lane and over several blocks."""

from __future__ import annotations

import hashlib
import random

import numpy as np

from hub import sha256


def test_lanes_agree_with_hashlib() -> None:
    chance = random.Random(1)
    messages = [chance.randbytes(64 * 3 - 9) for _ in range(100)]
    ended = [message + b"\x80" + (len(message) * 8).to_bytes(8) for message in messages]
    state = sha256.START
    for block in range(3):
        words = np.frombuffer(b"".join(text[block * 64 :][:64] for text in ended), ">u4").reshape(-1, 16).T
        state = sha256.after(state, np.ascontiguousarray(words).astype(np.uint32))
    found = np.stack(state, axis=1).astype(">u4")
    assert [row.tobytes() for row in found] == [hashlib.sha256(message).digest() for message in messages]
