"""hub/mapped_rows.py: whatever happens to a batch, every mapped row is one that a ledger row stands on, or goes."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from connectors.errors import BatchHalted, FatalError, RetriableError
from hub import batches, copying, diff, incoming, mapped_rows, pipeline, quarantine, review, staging, verify
from hub.workspace import Workspace
from tests import deliveries
from tests.deliveries import BAD, DAYS, File, Row, World, migrated, world

__all__ = ["migrated", "world"]

STAGES = (pipeline.gate_batch, pipeline.merge, pipeline.publish)
# As often as a mapped row is referred to; and ledger rows that refer to none.
REFERRED = """
SELECT (SELECT count(*) FROM row_ledger AS l WHERE l.mapped = m.id AND l.holding = m.holding AND l.source = m.source
  AND l.row_key = m.row_key) AS times, count(*) FROM mapped_row AS m GROUP BY 1
"""


@pytest.fixture
def source(world: World) -> str:
    return world.source("xx-rows")


def founded(world: World, blocks: int = 0) -> int:
    """The mapped rows, each of them referred to once; ``blocks``: of batches that are not merged."""
    with world.engine.connect() as connection:
        referred = {row.times: row.count for row in connection.execute(sa.text(REFERRED))}
        assert not verify.of_store(connection)
    assert world.count("SELECT count(*) FROM mapped_block") == blocks
    if not blocks:
        assert set(referred) <= {1}, referred
        assert world.count("SELECT count(*) FROM row_ledger WHERE mapped IS NOT NULL") == sum(referred.values())
    return sum(referred.values())


def fetched(world: World, source: str, *files: File | str, run_id: str = "run-1") -> dict[str, Any]:
    """A batch as Airflow begins it, mapped by nobody yet."""
    folder = world.folder / f"fetched-{next(world.numbers)}"
    folder.mkdir()
    for number, file in enumerate(files):
        content = file if isinstance(file, str) else deliveries.text(file)
        (folder / f"{number}.csv").write_text(content, encoding="utf-8")
    return pipeline.fetch(source, run_id=run_id, input=folder)


def finish(batch: str) -> dict[str, Any]:
    return [stage(batch) for stage in STAGES][-1]


def rows(number: int, word: int = 0, time: int = 1) -> tuple[Row, ...]:
    return tuple(Row(key, key, word, time) for key in range(1, number + 1))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """How many rows a chunk has at most; each is mapped by itself."""

    def set(size: int) -> None:
        monkeypatch.setattr(staging, "CHUNK_ROWS", size)
        monkeypatch.setattr(diff, "ENOUGH", 1)

    return set


@pytest.mark.slow
def test_what_no_longer_stands_goes(world: World, source: str) -> None:
    steps: list[tuple[tuple[Row, ...], int]] = [
        (rows(3), 4),  # with the row that carries the day
        ((Row(1, 1, 1, 2), Row(2, 2, 0, 1)), 5),  # corrected; and the same again
        ((Row(1, 1, 2, 0),), 5),  # older
        ((Row(2, 2, 1, 1),), 5),  # another version of the same time
        ((Row(2, 2, 2, 1),), 5),
        ((Row(3, 3, 0, 4, BAD),), 5),  # what stood before a bad version stands on
        ((Row(3, 3, 1, 3),), 5),  # behind the bad one
        ((Row(3, 3, 2, 2),), 5),  # behind that
        ((Row(1, 2, 0, 4),), 5),  # about another licence
        ((Row(1, 2, 1, 4), Row(1, 2, 2, 4)), 5),  # contradicting each other
        ((Row(1, 2, 1, 4),), 5),  # settled
        ((Row(4, 1), Row(4, 1)), 6),
    ]
    for number, (delivered, expected) in enumerate(steps):
        # each delivery has its day, but what says its own time is no older for that
        world.deliver(source, [File(1 + (number > 0), delivered)])
        assert founded(world) == expected, (number, delivered)


def test_what_a_snapshot_lacks_goes_and_comes_back(world: World) -> None:
    name = world.source("xx-listed", extent="snapshot")
    for as_of, listed, expected in [
        (1, rows(4), 5),
        (2, rows(2), 3),
        (3, (*rows(2), Row(3, 3, 0, 1, BAD)), 3),  # a row that was withdrawn comes back bad: nothing stands
        (4, (Row(1, 1, 0, 1, BAD), Row(2, 2, 0, 1)), 3),
        (5, (Row(2, 2, 0, 1),), 2),  # what stood behind the bad version is denied
        (4, rows(4, word=1), 2),  # late: it brings nobody back
        (6, rows(4), 5),
    ]:
        world.deliver(name, [File(as_of, listed)])
        assert founded(world) == expected, as_of
    world.deliver(name, [File(7, rows(3)), File(8, rows(2, word=2)), File(8, (), torn=1)])
    founded(world)


@pytest.mark.parametrize(
    ("seed", "steps"),
    [
        pytest.param(0, 6, marks=pytest.mark.slow),
        *(pytest.param(seed, 20, marks=[pytest.mark.slow, pytest.mark.soak]) for seed in (1, 2, 3)),
    ],
)
def test_any_history_leaves_nothing_behind(world: World, seed: int, steps: int, small: Callable[[int], None]) -> None:
    """Good, bad, contradicting and withdrawn rows of three sources, in chunks of one row and of many."""
    choose = random.Random(seed)
    sources_ = [world.source("xx-rows"), world.source("xx-rows-latest", authority=50, duplicates="latest"),
                world.source("xx-listed", extent="snapshot", authority=70)]  # fmt: skip
    good = [row for row in deliveries.UNIVERSE if row.fault == deliveries.GOOD]
    bad = [row for row in deliveries.UNIVERSE if row.fault != deliveries.GOOD]
    for _ in range(steps):
        small(choose.choice([1, 3, 1000]))
        files = [
            File(
                choose.randint(1, DAYS), tuple(choose.choices(good, k=4) + choose.choices(bad, k=choose.randint(0, 2)))
            )
            for _ in range(choose.randint(1, 2))
        ]
        world.deliver(choose.choice(sources_), files)
        founded(world)
        if choose.random() < 0.3:
            with world.engine.connect() as connection:
                waiting = [row.id for row in quarantine.listed(connection) if row.verdict == "quarantined"]
            if waiting:
                review.release([choose.choice(waiting)], actor="tester")
                founded(world)


def test_a_chunk_mapped_twice_is_merged_once(world: World, source: str, small: Callable[[int], None]) -> None:
    small(2)
    batch = fetched(world, source, File(1, rows(3)))
    assert batch["chunks"] == [0, 1]
    for chunk in batch["chunks"] * 2:
        pipeline.map_and_gate(batch["batch"], chunk)
    assert founded(world, blocks=4) == 8
    finish(batch["batch"])
    assert founded(world) == 4
    assert finish(batch["batch"])["accepted"] == 4 and founded(world) == 4


def test_ids_say_the_block_and_the_place(world: World, source: str, small: Callable[[int], None]) -> None:
    small(2)
    batch = fetched(world, source, File(1, (*rows(2), Row(3, 3, 0, 1, BAD))))
    kept = {}
    for chunk in batch["chunks"]:
        pipeline.map_and_gate(batch["batch"], chunk)
        kept[chunk] = Workspace(batch["batch"]).read("mapped", chunk)
    assert [len(mapped_rows.blocks(table["mapped"])) for table in kept.values()] == [1, 1]
    assert not mapped_rows.blocks(kept[0]["mapped"]) & mapped_rows.blocks(kept[1]["mapped"])
    assert mapped_rows.blocks(pa.chunked_array([pa.array([None, None], pa.int64())])) == set()
    assert sum(table["mapped"].null_count for table in kept.values()) == 1, "a row that did not pass has none"
    assert all("document" not in table.column_names for table in kept.values())
    said = {row["mapped"]: row["holding"] for table in kept.values() for row in table.to_pylist() if row["mapped"]}
    with world.engine.connect() as connection:
        stored = connection.execute(sa.text("SELECT id, holding FROM mapped_row"))
        assert {row.id: bytes(row.holding) for row in stored} == said


def test_lines_that_are_no_rows_take_no_places(
    world: World, source: str, small: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk has as many of them as there are: only rows are counted into chunks."""
    monkeypatch.setattr(mapped_rows, "PLACES", 3)
    small(4)
    text = deliveries.text(File(1, rows(3), torn=20))
    summary = world.deliver(source, [text])
    assert (summary["accepted"], summary["rejected"]) == (4, 20)
    assert founded(world) == 4


def test_a_chunk_of_more_rows_than_a_block_holds(world: World, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release may bring them."""
    monkeypatch.setattr(mapped_rows, "PLACES", 2)
    batch = fetched(world, source, File(1, rows(20)))["batch"]
    pipeline.map_and_gate(batch, 0)
    assert world.count("SELECT count(*) FROM mapped_block") == 6
    assert finish(batch)["accepted"] == 21 and founded(world) == 21


def test_an_attempt_cut_off_before_its_chunk_file_leaves_nothing(world: World, source: str) -> None:
    batch = fetched(world, source, File(1, rows(3)))["batch"]
    with world.engine.connect() as connection:
        row = batches.get(connection, batch)
    pipeline.map_and_gate(batch, 0)
    first = Workspace(batch).read("mapped", 0)
    # the process dies here: its rows are there, the chunk file is another attempt's
    mapped_rows.write(row, first.drop_columns(["mapped"]).append_column("document", pa.repeat("{}", 4)))
    assert world.count("SELECT count(*) FROM mapped_row WHERE document::text = '{}'") == 4
    pipeline.map_and_gate(batch, 0)
    assert finish(batch)["accepted"] == 4 and founded(world) == 4
    assert world.count("SELECT count(*) FROM mapped_row WHERE document = '{}'") == 0


def test_a_fetch_repeated_with_other_chunks_leaves_nothing(
    world: World, source: str, small: Callable[[int], None]
) -> None:
    small(1)
    first = fetched(world, source, File(1, rows(3)))
    for chunk in first["chunks"]:
        pipeline.map_and_gate(first["batch"], chunk)
    assert len(first["chunks"]) == 4 and founded(world, blocks=4) == 4
    small(1000)
    again = fetched(world, source, File(1, rows(3)))
    assert again == {"batch": first["batch"], "chunks": [0]}
    pipeline.map_and_gate(again["batch"], 0)
    assert founded(world, blocks=5) == 8
    assert finish(again["batch"])["accepted"] == 4 and founded(world) == 4


def test_the_chunk_file_says_which_attempt_counts(world: World, source: str) -> None:
    world.deliver(source, [File(1, rows(1))])
    before = world.digest()
    batch = fetched(world, source, File(2, rows(3, word=1, time=2)))["batch"]
    pipeline.map_and_gate(batch, 0)
    pipeline.gate_batch(batch)
    stale = Workspace(batch).path("mapped", 0).read_bytes()
    pipeline.map_and_gate(batch, 0)
    Workspace(batch).path("mapped", 0).write_bytes(stale)
    with world.engine.begin() as connection:
        block = connection.execute(sa.text("DELETE FROM mapped_block RETURNING *")).mappings().all()
    with pytest.raises(RetriableError) as refused:
        pipeline.merge(batch)
    assert refused.value.code == "chunk-missing" and world.digest() == before
    with world.engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO mapped_block VALUES (:block, :batch)"), list(map(dict, block)))
    assert finish(batch)["accepted"] == 4 and founded(world) == 5


def test_a_batch_that_is_done_with_takes_no_more_rows(world: World, source: str) -> None:
    merged = fetched(world, source, File(1, rows(2)))["batch"]
    pipeline.map_and_gate(merged, 0)
    mapped = Workspace(merged).read("mapped", 0)
    said = mapped.drop_columns(["mapped"]).append_column("document", pa.repeat("{}", 3))
    pipeline.gate_batch(merged)
    pipeline.merge(merged)
    superseded = fetched(world, source, File(2, rows(2, time=2)), run_id="run-2")["batch"]
    fetched(world, source, File(2, rows(2, time=2)), run_id="run-3")
    for batch, state in ((merged, "merged"), (superseded, "superseded")):
        with world.engine.connect() as connection:
            row = batches.get(connection, batch)
        assert row.state == state
        with pytest.raises(FatalError) as refused:
            pipeline.map_and_gate(batch, 0)
        with pytest.raises(FatalError) as late:
            mapped_rows.write(row, said)
        assert refused.value.code == late.value.code == "batch-state"
        with world.engine.connect() as connection:
            assert batches.get(connection, batch).state == state
    assert founded(world) == 3


@pytest.fixture
def halted(world: World) -> Iterator[tuple[str, str]]:
    """A source, and a batch of it that waits for a person."""
    name = world.source("xx-few", most=3)
    with pytest.raises(BatchHalted) as caught:
        world.deliver(name, [File(1, rows(4))])
    batch = str(caught.value.values["batch"])
    assert world.count("SELECT count(*) FROM mapped_row") == 5 and founded(world, blocks=1) == 5
    yield name, batch


def test_a_halted_batch_that_is_approved_stands(world: World, halted: tuple[str, str]) -> None:
    assert review.approve(halted[1], actor="tester")["accepted"] == 5
    assert founded(world) == 5


def test_a_halted_batch_that_another_replaced_is_removed(world: World, halted: tuple[str, str]) -> None:
    name, batch = halted
    world.deliver(name, [File(1, rows(1))])
    with world.engine.connect() as connection:
        assert batches.get(connection, batch).state == "superseded"
    assert founded(world) == 2


def test_a_late_attempt_at_a_chunk_leaves_a_halted_batch_to_be_approved(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that was thought dead comes to its end after its twin, and after the gate."""
    name = world.source("xx-few", most=3)
    batch = fetched(world, name, File(1, rows(4)))["batch"]
    real = pipeline._map_rows

    def overtaken(*args: Any) -> Any:
        monkeypatch.setattr(pipeline, "_map_rows", real)
        pipeline.map_and_gate(batch, 0)
        with pytest.raises(BatchHalted):
            pipeline.gate_batch(batch)
        return real(*args)

    monkeypatch.setattr(pipeline, "_map_rows", overtaken)
    with pytest.raises(FatalError) as refused:
        pipeline.map_and_gate(batch, 0)
    assert refused.value.code == "batch-state"
    assert review.approve(batch, actor="tester")["accepted"] == 5
    assert founded(world) == 5


def test_a_failed_batch_is_cleared_by_the_next(world: World, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*args: Any, **options: Any) -> None:
        raise FatalError("batch-rows-not-conserved", batch="?", fetched=0, counted=1)

    with monkeypatch.context() as patch:
        patch.setattr("hub.merge.merge", failing)
        with pytest.raises(FatalError):
            world.deliver(source, [File(1, rows(3))])
    assert founded(world, blocks=1) == 4
    world.deliver(source, [File(1, rows(1))])
    assert founded(world) == 2


def test_a_released_row_stands_and_one_that_cannot_be_released_leaves_nothing(world: World, source: str) -> None:
    world.deliver(source, [File(1, (*rows(2), Row(3, 3, 0, 1, BAD)))])
    assert founded(world) == 3
    with world.engine.connect() as connection:
        (entry,) = quarantine.listed(connection)
    assert review.release([entry.id], actor="tester")[0]["accepted"] == 1
    assert founded(world) == 4
    world.deliver(source, [File(2, (Row(3, 3, 1, 2),))])
    assert founded(world) == 5


def test_a_release_that_fails_in_the_merge_is_cleared_by_the_next_run(
    world: World, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.deliver(source, [File(1, (*rows(2), Row(3, 3, 0, 1, BAD)))])
    with world.engine.connect() as connection:
        (entry,) = quarantine.listed(connection)

    def failing(*args: Any, **options: Any) -> None:
        raise RetriableError("chunk-missing", batch="?", chunk=0)

    with monkeypatch.context() as patch:
        patch.setattr("hub.merge.merge", failing)
        with pytest.raises(RetriableError):
            review.release([entry.id], actor="tester")
    assert founded(world, blocks=1) == 4
    assert review.release([entry.id], actor="tester")[0]["accepted"] == 1, "the one after takes it away"
    assert founded(world) == 4


def _waits(world: World, thread: threading.Thread) -> bool:
    """Whether a session of this database comes to wait for a lock, before the thread ends."""
    for _ in range(300):
        if world.count(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ):
            return True
        if not thread.is_alive():
            return False
        time.sleep(0.02)
    return False


class Attempt(threading.Thread):
    """A stage in another session; what it raised is kept."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__()
        self.work, self.error = work, None

    def run(self) -> None:
        try:
            self.work()
        except Exception as error:
            self.error: Any = error


def test_who_maps_while_the_merge_is_under_way_comes_too_late(
    world: World, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = fetched(world, source, File(1, rows(3)))["batch"]
    pipeline.map_and_gate(batch, 0)
    pipeline.gate_batch(batch)
    mapping = Attempt(lambda: pipeline.map_and_gate(batch, 0))
    waited = []
    real = incoming.quarantine

    def paused(run: incoming.Run) -> None:
        mapping.start()
        waited.append(_waits(world, mapping))
        real(run)

    monkeypatch.setattr(incoming, "quarantine", paused)
    pipeline.merge(batch)
    mapping.join()
    assert waited == [True] and mapping.error.code == "batch-state"
    assert pipeline.publish(batch)["accepted"] == 4 and founded(world) == 4


def test_a_merge_that_begins_while_a_chunk_is_mapped_again_waits_and_takes_what_was_there(
    world: World, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = fetched(world, source, File(1, rows(3)))["batch"]
    pipeline.map_and_gate(batch, 0)
    pipeline.gate_batch(batch)
    merging = Attempt(lambda: pipeline.merge(batch))
    waited = []
    real = Workspace.write

    def paused(self: Workspace, kind: Any, chunk: int, table: pa.Table) -> None:
        """The rows are committed, the chunk file is not yet there."""
        if kind == "mapped":
            merging.join()
        real(self, kind, chunk, table)

    load = copying.load

    def loading(*given: Any) -> int:
        if threading.current_thread() is threading.main_thread():
            merging.start()
            waited.append(_waits(world, merging))
        return load(*given)

    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "write", paused)
        patch.setattr(copying, "load", loading)
        pipeline.map_and_gate(batch, 0)
    assert waited == [True] and merging.error is None, "the attempt that was there counts"
    assert pipeline.publish(batch)["accepted"] == 4 and founded(world) == 4


def test_sources_that_map_and_merge_at_once_take_nothing_from_each_other(world: World) -> None:
    names = [world.source(f"xx-rows-{number}", authority=10 + number) for number in range(3)]
    for turn in range(3):
        attempts = [
            Attempt(
                lambda name=name, turn=turn: world.deliver(name, [File(1 + turn, rows(4, word=turn % 3, time=turn))])
            )
            for name in names
        ]
        for attempt in attempts:
            attempt.start()
        for attempt in attempts:
            attempt.join()
            assert attempt.error is None
        assert founded(world) == 3 * (4 + turn + 1)
