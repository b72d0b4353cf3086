"""hub/digests.py: what tells rows apart, and what does not."""

from __future__ import annotations

import hashlib
import hmac
import random
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from hub import digests, sha256
from hub.home import KeyedHash


def rows(*columns: list[str | None]) -> list[bytes]:
    return digests.of_columns([pa.chunked_array([pa.array(column, pa.string())]) for column in columns]).to_pylist()


def test_null_empty_and_moved_values_differ() -> None:
    found = rows(["a", "a", None, "", "ab", "2:a"], ["b", None, "a", "a", "", "b"])
    assert len(set(found)) == len(found) and all(len(digest) == 16 for digest in found)
    assert rows(["a"], ["b"]) == rows(["a"], ["b"])


def test_names_are_part_of_it() -> None:
    column = pa.chunked_array([["a"]])
    assert digests.of_columns([column], ["x"]).to_pylist() != digests.of_columns([column], ["y"]).to_pylist()


def test_a_digest_stays_what_it_was() -> None:
    """Ledgers of earlier releases hold these."""
    columns = [pa.chunked_array([pa.array(values, pa.string())]) for values in (["上海", "", None], ["ab", "c", "d"])]
    texts = ["x\x1fy\x1f2:上海\x1f2:ab", "x\x1fy\x1f0:\x1f1:c", "x\x1fy\x1f-\x1f1:d"]
    found = digests.of_columns(columns, ["x", "y"])
    assert found.to_pylist() == [hashlib.md5(text.encode()).digest() for text in texts]
    assert digests.of_columns(columns[:1])[1].as_py() == hashlib.md5(b"\x1f0:").digest()


@pytest.mark.parametrize("count", [0, 1, digests.FEW, sha256.LANES + 700])
def test_keyed_hashes_are_those_of_one_value(count: int) -> None:
    hashing = KeyedHash(bytes(range(32)))
    chance = random.Random(count)
    texts = [
        "".join(chance.choices("0123456789X上:", k=chance.choice((0, 18, 40, 55, 56, 63, 64, 76, 119, 120, 200))))
        for _ in range(count)
    ]
    values: list[str | None] = [text if chance.random() < 0.9 else None for text in texts]
    expected = [None if text is None else hmac.digest(hashing.key, text.encode(), "sha256")[:16] for text in values]
    assert [hashing.of(text) for text in values if text is not None] == [one for one in expected if one is not None]
    found = digests.keyed(pa.array(values, pa.string()), hashing)
    assert (found.type, found.to_pylist()) == (pa.binary(16), expected)
    halves = pa.chunked_array([pa.array(values, pa.string()).slice(count // 3), pa.array(["x"])])
    assert digests.keyed(halves, hashing).to_pylist() == [*expected[count // 3 :], hashing.of("x")]


def test_bytes_that_are_no_text() -> None:
    raw = b"\xff\x00,"
    (found,) = digests.of_bytes(pa.chunked_array([pa.array([raw], pa.binary())]), "malformed").to_pylist()
    assert found == hashlib.md5(b"malformed" + raw.hex().upper().encode()).digest()


def test_spelling_makes_no_other_key() -> None:
    column = pa.chunked_array([["９１３１a ", "9131A"]])
    assert digests.folded(column).to_pylist() == ["9131A", "9131A"]


def test_threads_do_not_disturb_each_other() -> None:
    values = [[str(number)] * 5000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda column: rows(column)[0], values))
    assert found == [rows(column)[0] for column in values]
