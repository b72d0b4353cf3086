"""hub/digests.py: what tells rows apart, and what does not."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from hub import digests


def rows(*columns: list[str | None]) -> list[str]:
    return digests.of_columns([pa.chunked_array([pa.array(column, pa.string())]) for column in columns]).to_pylist()


def test_null_empty_and_moved_values_differ() -> None:
    found = rows(["a", "a", None, "", "ab", "2:a"], ["b", None, "a", "a", "", "b"])
    assert len(set(found)) == len(found) and all(len(digest) == 32 for digest in found)
    assert rows(["a"], ["b"]) == rows(["a"], ["b"])


def test_names_are_part_of_it() -> None:
    column = pa.chunked_array([["a"]])
    assert digests.of_columns([column], ["x"]).to_pylist() != digests.of_columns([column], ["y"]).to_pylist()


def test_bytes_that_are_no_text() -> None:
    raw = b"\xff\x00,"
    (found,) = digests.of_bytes(pa.chunked_array([pa.array([raw], pa.binary())]), "malformed").to_pylist()
    assert found == hashlib.md5(b"malformed" + raw.hex().upper().encode()).hexdigest()


def test_spelling_makes_no_other_key() -> None:
    column = pa.chunked_array([["９１３１a ", "9131A"]])
    assert digests.folded(column).to_pylist() == ["9131A", "9131A"]


def test_threads_do_not_disturb_each_other() -> None:
    values = [[str(number)] * 5000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda column: rows(column)[0], values))
    assert found == [rows(column)[0] for column in values]
