"""hub/direct.py: the short way ends in the state of the long way, however the batch is cut into chunks and runs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa

from hub import diff, direct, mapped_rows, pipeline, quarantine, review, staging
from hub.direct import Direct
from hub.workspace import Workspace
from tests import deliveries
from tests.deliveries import BAD, RUINED, File, Row, World, migrated, world
from tests.test_mapped_rows import fetched, finish, founded

__all__ = ["migrated", "world"]

# Most tell of a licence of their own, some of one that others know; then contradicting versions, the same again, bad ones.
ROWS = (
    *(Row(key, key, 0, 1) for key in range(1, 20)),
    Row(20, 1, 1, 2), Row(21, 1, 1, 3), Row(22, 2), Row(23, 23, 0, 1), Row(23, 23, 1, 1), Row(24, 24), Row(24, 24),
    Row(25, 25, 0, 1, BAD), Row(26, 26, 0, 1, RUINED),
)  # fmt: skip
# All that must be alike, which names no block and no place in the feed: those are given out as they come.
TABLES = {
    "row_ledger": "source, row_key, digest, contract, verdict, in_force, timed, updated_at, as_of, lacked, holding, authority, "
    "said_digest, said_at, said_as_of, \"row\"",
    "observation": "source, row_key, holding, digest, updated_at, authority, \"row\", document::text",
    "held": "key, material, source, row_key, digest, updated_at, authority, observations, conflicting, status, issued_on, "
    "valid_from, valid_to, region, document::text",
    "holding_holder": "identifier, holding, role",
    "holding_past": "holding, material, digest, source, row_key, identifiers, document::text",
    "feed": "holding, material, change, digest",
    "quarantine": "source, row_key, original_key, digest, verdict, state, reasons, raw, \"row\"",
    "source": "name, as_of, listed_as_of, merges",
}  # fmt: skip


def everything(world: World) -> dict[str, list[str]]:
    with world.engine.connect() as connection:
        return {
            table: sorted(str(tuple(row)) for row in connection.execute(sa.text(f"SELECT {columns} FROM {table}")))
            for table, columns in TABLES.items()
        }


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """How many rows went which way."""
    counted = {"short": 0, "long": 0}
    real = Direct.select

    def counting(self: Direct, chunk: int, table: pa.Table) -> np.ndarray:
        mask = real(self, chunk, table)
        counted["short"] += int(mask.sum())
        counted["long"] += int((~mask).sum())
        return mask

    monkeypatch.setattr(Direct, "select", counting)
    yield counted


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """How many rows a chunk has, how many are worth a start of the gate, and how many are sorted together."""

    def set(chunk: int, enough: int, run: int) -> None:
        monkeypatch.setattr(staging, "CHUNK_ROWS", chunk)
        monkeypatch.setattr(diff, "ENOUGH", enough)
        monkeypatch.setattr(direct, "RUN", run)

    return set


def load(world: World, source: str, *files: File | str) -> dict[str, Any]:
    """A batch in this process alone: all chunks mapped one after the other."""
    batch = fetched(world, source, *files, run_id=f"run-{next(world.numbers)}")
    for chunk in batch["chunks"]:
        pipeline.map_and_gate(batch["batch"], chunk)
    return finish(batch["batch"])


def test_both_ways_end_in_the_same_state(world: World, ways: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    source = world.source("xx-rows")
    load(world, source, File(1, ROWS))
    assert ways == {"short": 24, "long": 4}, "what did not pass goes the long way"
    expected = everything(world)
    assert founded(world) == 24
    world.reset()
    with monkeypatch.context() as patch:
        patch.setattr(Direct, "select", lambda self, chunk, table: np.zeros(len(table), dtype=bool))
        load(world, source, File(1, ROWS))
    assert everything(world) == expected and founded(world) == 24
    world.reset()
    # the rows are new to the ledger, but no holding is taken for new
    monkeypatch.setattr(Direct, "_repeated", lambda self: np.array([0], dtype=np.uint64))
    monkeypatch.setattr(direct, "leading", lambda keys: np.zeros(len(keys), dtype=np.uint64))
    load(world, source, File(1, ROWS))
    assert everything(world) == expected and founded(world) == 24


@pytest.mark.parametrize(
    ("chunk", "enough", "run"), [(4, 1, 3), (4, 1, 8), (5, 9, 1), (1, 4, 5), (3, 1000, 2), (1000, 1000, 7)]
)
def test_chunks_gathered_and_sorted_in_several_runs(
    world: World, cut: Callable[..., None], chunk: int, enough: int, run: int
) -> None:
    """With lines that are no rows, contradicting rows and repeated ones among them, in any order."""
    source = world.source("xx-rows")
    load(world, source, File(1, ROWS, torn=3))
    expected = everything(world)
    world.reset()
    cut(chunk, enough, run)
    summary = load(world, source, File(1, ROWS, torn=3))
    assert everything(world) == expected and founded(world) == 24
    counts = [summary[name] for name in ("fetched", "unchanged", "accepted", "quarantined", "rejected")]
    assert counts == [32, 1, 24, 3, 4]
    numbered = world.count("SELECT count(*) FROM feed"), world.count("SELECT max(position) FROM feed")
    assert numbered[0] == numbered[1] == world.count("SELECT position FROM feed_head")


def test_runs_are_of_about_their_size_and_each_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "RUN", 10)
    choose = random.Random(5)
    keys = [[choose.randbytes(16) for _ in range(size)] for size in (4, 4, 4, 1, 25, 3)]
    tables = (pa.table({"key": pa.array(part, pa.binary(16))}) for part in keys)
    runs = [run["key"].to_pylist() for run in direct._sorted(tables, "key")]
    assert [len(run) for run in runs] == [12, 26, 3]
    assert runs == [sorted([*keys[0], *keys[1], *keys[2]]), sorted(keys[3] + keys[4]), sorted(keys[5])]
    counts = {number: len(part) for number, part in enumerate(keys)}
    chosen = {number: np.packbits(np.ones(count, dtype=bool)) for number, count in counts.items()}
    short = Direct(None, "x", 1, None, [], pa.array([]), None, counts=counts, chosen=chosen)  # type: ignore[arg-type]
    assert list(short._groups()) == [[0, 1, 2], [3, 4], [5]]


def test_a_load_split_in_two_ends_as_one(world: World, ways: dict[str, int]) -> None:
    """The second half meets holdings that the first one made."""
    source = world.source("xx-rows")
    load(world, source, File(1, ROWS))
    digest = world.digest()
    world.reset()
    for half in (ROWS[10:], ROWS[:10]):
        load(world, source, File(1, half))
    assert world.digest() == digest and founded(world) == 24
    assert world.count("SELECT count(*) FROM feed WHERE change = 'added'") == world.count(
        "SELECT count(*) FROM holding"
    )


def test_a_row_whose_versions_contradicted_each_other_takes_the_long_way_and_settles_them(
    world: World, ways: dict[str, int]
) -> None:
    source = world.source("xx-rows")
    load(world, source, File(1, (Row(1, 1, 0, 1), Row(1, 1, 1, 1))))
    ways.update(short=0, long=0)
    load(world, source, File(2, (Row(1, 1, 0, 2), Row(2, 2, 0, 2))))
    assert ways == {"short": 2, "long": 1}
    assert world.count("SELECT count(*) FROM quarantine WHERE state = 'open'") == 0 and founded(world) == 4
    settled = everything(world)["held"]
    world.reset()
    load(world, source, File(1, ()), File(2, (Row(1, 1, 0, 2), Row(2, 2, 0, 2))))
    assert everything(world)["held"] == settled


@pytest.mark.parametrize("gated", [False, True])
def test_a_release_after_the_diff_is_not_met_by_surprise(world: World, gated: bool) -> None:
    """It makes the ledger know a key that the diff did not find there. The later version wins, whichever came first."""
    source = world.source("xx-rows")
    load(world, source, File(1, (Row(1, 1, 1, 1), Row(1, 1, 2, 1))))
    batch = fetched(world, source, File(2, (Row(1, 1, 0, 2), Row(2, 2, 0, 2))))["batch"]
    pipeline.map_and_gate(batch, 0)
    if gated:
        pipeline.gate_batch(batch)
    with world.engine.connect() as connection:
        entry = quarantine.listed(connection)[0].id
    review.release([entry], actor="tester")
    assert finish(batch)["accepted"] == 3 and founded(world) == 4
    assert world.held()[1].word == 0


def test_rows_of_a_delivery_that_a_snapshot_overtook_take_the_long_way(world: World, ways: dict[str, int]) -> None:
    source = world.source("xx-listed", extent="snapshot")
    load(world, source, File(3, (Row(1, 1),)))
    assert world.count("SELECT count(*) FROM source WHERE listed_as_of IS NOT NULL") == 1
    ways.update(short=0, long=0)
    assert load(world, source, File(2, (Row(1, 1), Row(2, 2))))["reasons"] == {"older": 2}
    assert ways == {"short": 0, "long": 2} and founded(world) == 2
    ways.update(short=0, long=0)
    load(world, source, File(3, (Row(1, 1), Row(2, 2))))
    assert ways["short"] == 1, "of the same day: no snapshot lacks it"
    assert set(world.held()) == {1, 2, deliveries.MARKS + 3}


def test_a_fresh_holding_is_announced_once_and_those_of_others_with_it(world: World, cut: Callable[..., None]) -> None:
    cut(2, 1, 2)
    weak = world.source("xx-weak", authority=10)
    load(world, weak, File(1, tuple(Row(key, key) for key in range(1, 6))))
    strong = world.source("xx-strong")
    load(world, strong, File(2, tuple(Row(key, key, 1) for key in range(4, 9))))
    feed = world.feed()
    assert [entry.position for entry in feed] == list(range(1, len(feed) + 1))
    assert [entry.change for entry in feed].count("changed") == 2, "what both know changed, and was announced before"
    assert len({entry.recorded_at for entry in feed}) == 2
    assert world.replayed() == world.documents() and founded(world) == 12


def test_counts_of_chunks_that_are_not_there_stop_the_merge(world: World, cut: Callable[..., None]) -> None:
    cut(2, 1, 100)
    source = world.source("xx-rows")
    batch = fetched(world, source, File(1, ROWS))
    for chunk in batch["chunks"]:
        pipeline.map_and_gate(batch["batch"], chunk)
    pipeline.gate_batch(batch["batch"])
    gone = batch["chunks"][3]
    Workspace(batch["batch"]).path("mapped", gone).unlink()
    with pytest.raises(pipeline.RetriableError) as refused:
        pipeline.merge(batch["batch"])
    assert refused.value.code == "chunk-missing" and world.count("SELECT count(*) FROM row_ledger") == 0
    pipeline.map_and_gate(batch["batch"], gone)
    finish(batch["batch"])
    assert founded(world) == 24


def test_blocks_are_those_of_the_rows_that_have_one() -> None:
    ids = pa.chunked_array([pa.array([5 << 20, None, 5 << 20 | 7]), pa.array([], pa.int64()), pa.array([9 << 20])])
    assert mapped_rows.blocks(ids) == {5, 9}


def test_a_time_far_ahead_is_not_believed(world: World) -> None:
    """A year mistyped would else stand against every correction to come."""
    source = world.source("xx-rows")
    load(world, source, File(1, (Row(1, 1, 0, 30_000), Row(2, 2, 0, 1))))
    load(world, source, File(2, (Row(1, 1, 1, 2), Row(2, 2, 1, 2))))
    assert {number: said.word for number, said in world.held().items() if number < 3} == {1: 1, 2: 1}
