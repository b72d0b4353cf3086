"""Rows that stand several times in one batch."""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from pathlib import Path

import pyarrow as pa
import pytest

from hub import repeats
from hub.staging import KEYS
from hub.workspace import Workspace

DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def key(name: str) -> bytes:
    return hashlib.md5(name.encode(), usedforsecurity=False).digest()


@pytest.fixture
def fated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Fates by ordinal of deliveries, each a day and its rows as (key, version)."""
    monkeypatch.setenv("YICI_HOME", str(tmp_path))

    def told(*deliveries: tuple[int | None, list[tuple[str, str]]], snapshot: bool = False, latest: bool = False):
        workspace = Workspace("b")
        workspace.clear()
        ordinal = 0
        noted = []
        for chunk, (day, rows) in enumerate(deliveries):
            count = len(rows)
            columns = [
                range(ordinal, ordinal + count), [chunk] * count, [key(name) for name, _ in rows],
                [key(version) for _, version in rows], [None] * count,
            ]  # fmt: skip
            workspace.write(
                "keys", chunk, pa.table([pa.array(c, f.type) for c, f in zip(columns, KEYS, strict=True)], schema=KEYS)
            )
            ordinal += count
            as_of = (DAY + dt.timedelta(day)).isoformat() if day is not None else None
            noted.append({"file": chunk + 1, "first": chunk, "last": chunk, "as_of": as_of})
        workspace.note(deliveries=noted)
        found = repeats.fates(workspace, repeats.deliveries(workspace), snapshot=snapshot, latest=latest)
        return workspace, dict(zip(found["ordinal"].to_pylist(), found["fate"].to_pylist(), strict=True)), found

    return told


def test_nothing_repeated_has_no_fate(fated) -> None:
    assert fated((1, [("a", "1"), ("b", "1")]))[1] == {}
    assert fated()[1] == {}


def test_the_same_again_counts_once_in_its_latest_delivery(fated) -> None:
    assert fated((2, [("a", "1"), ("a", "1")]), (1, [("a", "1")]))[1] == {1: "repeated", 2: "repeated"}


def test_versions_in_one_delivery_conflict_under_keys_of_their_own(fated) -> None:
    workspace, fates, found = fated((1, [("a", "1"), ("a", "2"), ("b", "1")]))
    assert fates == {0: "conflicting", 1: "conflicting"}
    text = str(uuid.UUID(bytes=key("a"))) + str(uuid.UUID(bytes=key("1")))
    assert found["ledger_key"].to_pylist()[0] == key(text), (
        "as PostgreSQL once made them: md5(key::text || digest::text)"
    )
    rows = repeats.compared(workspace.read("keys", 0), found)
    assert rows.conflicting.tolist() == [True, True, False]
    assert rows.keys["row_key"].to_pylist() == [*found["ledger_key"].to_pylist(), key("b")]


def test_versions_in_several_deliveries_are_all_weighed(fated) -> None:
    workspace, fates, found = fated((1, [("a", "1")]), (2, [("a", "2"), ("b", "1")]), (None, [("a", "3")]))
    assert fates == {0: "several", 1: "several", 3: "several"}
    assert repeats.compared(workspace.read("keys", 1), found).several.tolist() == [True, False]


def test_what_only_a_replaced_snapshot_lists_is_older(fated) -> None:
    fates = fated((1, [("a", "1"), ("b", "1"), ("c", "1")]), (2, [("a", "1"), ("b", "2")]), snapshot=True)[1]
    assert fates == {0: "repeated", 1: "several", 2: "older", 4: "several"}
    assert fated((1, [("c", "1")]), (2, [("a", "1")]), snapshot=False)[1] == {}


def test_a_row_that_any_later_snapshot_lacks_is_older(fated) -> None:
    days = ((1, [("a", "1"), ("b", "1")]), (2, [("b", "1")]), (3, [("a", "2"), ("b", "1")]))
    assert fated(*days, snapshot=True)[1] == {0: "older", 1: "repeated", 2: "repeated"}


def test_where_the_latest_of_conflicting_rows_counts_all_are_weighed(fated) -> None:
    assert fated((1, [("a", "1"), ("a", "2")]), latest=True)[1] == {0: "several", 1: "several"}


def test_leading_halves_sort_as_keys_do() -> None:
    keys = pa.array([bytes([i, 255 - i]) * 8 for i in range(256)], pa.binary(16))
    assert repeats.leading(keys).tolist() == sorted(repeats.leading(keys).tolist())
    assert repeats.leading(keys.slice(5, 3)).tolist() == repeats.leading(keys).tolist()[5:8]
    assert repeats.leading(keys.slice(0, 0)).tolist() == []


@pytest.mark.parametrize("at_once", [1, 7, 100, 5000])
def test_repeated_halves_are_found_in_as_many_passes_as_it_takes(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(repeats, "AT_ONCE", at_once)
    names = [key(str(number % 700)) for number in range(1000)] + [b"\0" * 16] * 2 + [b"\xff" * 16] * 3
    parts = [pa.array(names[start : start + 90], pa.binary(16)) for start in range(0, len(names), 90)]
    twice = pa.array([*map(key, map(str, range(300))), b"\0" * 16, b"\xff" * 16], pa.binary(16))
    assert repeats.repeated(lambda: parts, len(names)).tolist() == sorted(repeats.leading(twice).tolist())
    assert repeats.repeated(lambda: [], 0).tolist() == []
