"""What is done to odd rows alone is what doing it to every row gives."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st

from mappings import cleaning, schemes

# mostly plain values, some with white space of any script, quotes, hyphens and full-width characters
ODD = st.text(st.sampled_from(" \t\u0085\u00a0\u1680\u2003\u2028\u205f\u3000-'\"ａＺ９A0b张–"), max_size=6)
COLUMN = st.lists(st.none() | ODD | st.sampled_from(["310105198204067685", "91310117MA1XKY001Q", "2"]), max_size=30)


@given(COLUMN, st.integers(0, 3))
def test_stripped_like_every_row_by_itself(values: list[str | None], start: int) -> None:
    column = pa.array(values, pa.string()).slice(start)
    assert cleaning.stripped(column).equals(pc.utf8_trim_whitespace(column))


@given(COLUMN)
def test_compact_like_one_value_at_a_time(values: list[str | None]) -> None:
    filled = ["" if value is None else value for value in values]
    found, plain = cleaning.compact(pa.array(filled, pa.string()))
    assert found.to_pylist() == [schemes.compact(value) for value in filled]
    assert plain.tolist() == [all(c.isascii() and (c.isdigit() or c.isupper()) for c in v.as_py()) for v in found]


@given(COLUMN)
def test_without_words_for_nothing(values: list[str | None]) -> None:
    words = pa.array(["", "2", "--"])
    found = cleaning.without(pa.array(values, pa.string()), words)
    assert found.to_pylist() == [None if value in ("", "2", "--") else value for value in values]


@given(st.lists(st.text("ab#", max_size=4), min_size=1, max_size=60))
def test_rows_with_a_marked_byte(values: list[str]) -> None:
    offsets, data = cleaning.buffers(pa.array(values))
    assert cleaning.rows_with(data == ord("#"), offsets).tolist() == ["#" in value for value in values]
