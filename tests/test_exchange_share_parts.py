"""hub/exchange/share_parts.py: what changed between two states, and how a state is brought to the next."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.zone import Zone
from hub.exchange import share_parts
from hub.exchange.share_folder import Folder
from hub.exchange.share_parts import CHANGE_TYPE, Changes
from hub.exchange.share_rows import KEY, Range, Rows
from mappings import arrow

SCHEMA = pa.schema([("name", pa.string()), ("capital", arrow.TYPES["money"])])
State = dict[bytes, tuple[str | None, dict[str, Any] | None]]

keys = st.integers(0, 12).map(lambda number: bytes([number * 20]) + bytes(14) + bytes([number]))
money = st.sampled_from([None, {"amount": None, "currency": None}, {"amount": Decimal("1.5000"), "currency": "CNY"},
                         {"amount": Decimal("1.5000"), "currency": None}])  # fmt: skip
states = st.dictionaries(keys, st.tuples(st.sampled_from([None, "", "a", "b"]), money))


def rows(state: State) -> Rows:
    ordered = sorted(state.items())
    values = [{"name": name, "capital": capital} for _, (name, capital) in ordered]
    return Rows(pa.array([key for key, _ in ordered], KEY), pa.Table.from_pylist(values, SCHEMA))


def value(row: dict[str, Any]) -> tuple[str | None, dict[str, Any] | None]:
    return row["name"], row["capital"]


def counted(values: list[Any]) -> list[str]:
    return sorted(map(repr, values))


@settings(deadline=None)
@given(states, states)
def test_changes_are_what_makes_one_state_of_the_other(old: State, new: State) -> None:
    found = share_parts.between(rows(old), rows(new)).to_pylist()
    by_kind = {kind: [value(row) for row in found if row[CHANGE_TYPE] == kind]
               for kind in ("insert", "delete", "update_preimage", "update_postimage")}  # fmt: skip
    assert sum(map(len, by_kind.values())) == len(found)
    changed = [key for key in old if key in new and old[key] != new[key]]
    assert counted(by_kind["insert"]) == counted([new[key] for key in new if key not in old])
    assert counted(by_kind["delete"]) == counted([old[key] for key in old if key not in new])
    pairs = list(zip(by_kind["update_preimage"], by_kind["update_postimage"], strict=True))
    assert counted(pairs) == counted([(old[key], new[key]) for key in changed])


@settings(deadline=None)
@given(states, states, st.sets(keys))
def test_what_was_touched_is_replaced(old: State, fresh: State, more: set[bytes]) -> None:
    touched = sorted(set(fresh) | more)
    found = share_parts.overlaid(rows(old), pa.array(touched, KEY), rows(fresh))
    wanted = {key: row for key, row in old.items() if key not in touched} | fresh
    assert found.keys.equals(rows(wanted).keys) and found.table.equals(rows(wanted).table)


@settings(deadline=None)
@given(states, st.integers(0, 16))
def test_parts_hold_the_keys_of_their_range(state: State, bits: int) -> None:
    found = list(share_parts.split(rows(state), bits))
    assert [key for _, part in found for key in part.keys.to_pylist()] == sorted(state)
    for number, part in found:
        within = Range(bits, number, number)
        assert all(within.low <= key <= within.high for key in part.keys.to_pylist()) and len(part)


def test_ranges_cover_all_keys_once() -> None:
    assert (Range(0, 0, 0).low, Range(0, 0, 0).high) == (bytes(16), b"\xff" * 16)
    parts = [Range(3, number, number) for number in range(8)]
    assert parts[0].low == bytes(16) and parts[-1].high == b"\xff" * 16
    for one, other in pairwise(parts):
        assert int.from_bytes(one.high, "big") + 1 == int.from_bytes(other.low, "big")
    assert Range(3, 2, 5).low == parts[2].low and Range(3, 2, 5).high == parts[5].high


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(Zone(tmp_path), "shares/a", "t")


def test_a_part_is_what_was_written(folder: Folder) -> None:
    state = rows({bytes(16): ("a", None), b"\xff" * 16: (None, {"amount": Decimal("1.5000"), "currency": None})})
    written, known = folder.write(state.table, "rows"), folder.write(pa.table({"key": state.keys}), "keys")
    again = share_parts.stored(folder, written.path, known.path, SCHEMA)
    assert again.keys.equals(state.keys) and again.table.equals(state.table)


def test_many_changes_are_several_files(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when their contents are the same."""
    monkeypatch.setattr(share_parts, "CHANGES_ROWS", 2)
    changes = Changes(folder)
    part = share_parts.between(rows({}), rows({bytes(16): ("a", None)}))
    for _ in range(5):
        changes.add(part)
    changes.flush()
    assert [one.rows for one in changes.files] == [2, 2, 1] and len({one.path for one in changes.files}) == 3
