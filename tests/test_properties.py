"""State is a pure function of what was delivered: orders, splittings and repetitions that hypothesis thinks of.

Each example is many rows with histories of their own; a few on every run, always the same, and many random ones under
``-m slow``. What must be held is computed a second time, row by row, in tests/deliveries.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import BatchHalted
from hub import pipeline, quarantine, review
from tests import deliveries
from tests.deliveries import (
    BAD,
    DAYS,
    GONE,
    GOOD,
    KEYS,
    RUINED,
    File,
    Row,
    World,
    migrated,
    profile,
    rows,
    sizes,
    world,
)

__all__ = ["migrated", "world"]


@st.composite
def histories(draw: st.DrawFn) -> list[File]:
    """What a source says of its rows on some days; on each at most one thing about a row.

    All that a row says for one time is good, or it is one and the same bad version: of a good and a bad version of one
    time the last delivered is what an operator has to look at, so there the order matters by design.
    """
    places = st.tuples(st.integers(1, KEYS), st.integers(0, DAYS))
    faults = draw(st.dictionaries(places, st.tuples(st.sampled_from([BAD, RUINED]), st.booleans()), max_size=KEYS))
    files = []
    for as_of in draw(st.lists(st.integers(1, DAYS), min_size=1, max_size=3, unique=True)):
        said = []
        for row in draw(st.lists(rows(), max_size=KEYS, unique_by=lambda row: row.key)):
            effective = as_of if row.time is None else row.time
            fault, timed = faults.get((row.key, effective), (GOOD, True))
            if fault == GOOD:
                said.append(row)
            elif timed or row.time is None:
                said.append(Row(row.key, row.key, 0, effective if timed else None, fault))
        files.append(File(as_of, tuple(said), draw(st.integers(0, 1))))
    return files


@st.composite
def arrangements(draw: st.DrawFn, files: list[File], *, cut: bool = True) -> list[list[File]]:
    """Batches in which the files may come: cut in two, some twice, in any order, some together.

    Not ``cut``: rosters. One with a line that cannot be read comes alone: fetched with others, it keeps them too from
    taking anything back.
    """
    parts = []
    for file in files:
        place = draw(st.integers(0, len(file.rows))) if cut else 0
        parts.append(file._replace(rows=file.rows[place:]))
        if place:
            parts.append(File(file.as_of, file.rows[:place]))
    parts = list(draw(st.permutations(parts + draw(st.lists(st.sampled_from(parts), max_size=2)))))
    batches = [[parts[0]]]
    for part in parts[1:]:
        if draw(st.booleans()) or (not cut and (part.torn or batches[-1][0].torn)):
            batches.append([part])
        else:
            batches[-1].append(part)
    return batches


def expected(source: str, authority: int, extent: str, files: Iterable[File]) -> list[tuple[str, int, str, File]]:
    return [(source, authority, extent, file) for file in files]


K, BAD_K, OTHER = Row(1, 1, 1), Row(1, 1, 0, None, BAD), Row(2, 2, 1)
KNOWN = {
    "a late roster brings what a later one lacks": ("snapshot", [File(1, (K,)), File(3), File(2, (OTHER,))]),
    "a late cut-off roster too": ("snapshot", [File(3), File(1, (K,), torn=1)]),
    "a roster in between lacks what stands behind a bad version": ("snapshot", [File(1, (K,)), File(3, (BAD_K,)), File(2)]),
    "the same, fetched with the newest": ("snapshot", [File(1, (K, OTHER)), File(2, (OTHER,)), File(3, (BAD_K, OTHER))]),
    "a bad version in the newest roster": ("snapshot", [File(2, (BAD_K,)), File(1, (K,))]),
    "a bad version that the next roster lacks": ("snapshot", [File(1, (BAD_K,)), File(2)]),
    "own times that go back": ("snapshot", [File(1, (Row(1, 1, 1, 4),)), File(3, (Row(1, 1, 2, 3),)), File(2)]),
    "a newer own time in an older file": ("partial", [File(1, (Row(1, 1, 1, 3),)), File(2, (Row(1, 1, 2, 1),))]),
    "a good version before a bad one": ("partial", [File(1, (K,)), File(2, (BAD_K,))]),
}  # fmt: skip


@pytest.mark.slow
def test_orders_that_once_mattered(world: World) -> None:
    """The smallest examples of what was wrong, in the order of their days, as they stand here, and in one batch."""
    wrong = []
    for what, (extent, files) in KNOWN.items():
        world.source(name := f"xx-{extent}", extent=extent)
        must, states = deliveries.held(expected(name, 100, extent, files)), []
        apart = [[file] for file in files]
        for batches in (sorted(apart), apart, [files], [*apart[:1], files[1:]], [files[:1], *apart]):
            if len(batches) < len(files) and any(file.torn for file in files):
                continue  # fetched with others it keeps them from taking anything back
            world.reset()
            for batch in batches:
                world.deliver(name, batch)
            states.append((world.held(), world.digest()))
        wrong += [what] if any(state != (must, states[0][1]) for state in states) else []
    assert not wrong


def test_a_good_version_counts_though_the_latest_in_its_batch_is_bad(world: World) -> None:
    """``duplicates: latest``, together or apart."""
    world.source("xx-feed", extent="changes", duplicates="latest", as_of=deliveries.TIME)
    versions, states = (Row(1, 1, 1, 1), Row(1, 1, 0, 4, BAD)), []
    for batches in ([versions], [versions[:1], versions[1:]], [versions[1:], versions[:1]]):
        world.reset()
        for rows_ in batches:
            world.deliver("xx-feed", [File(0, rows_)])
        states.append((world.held(), world.digest()))
    assert states == [states[-1]] * 3 and states[0][0][1].word == 1


@sizes(3, 150)
def test_any_order_splitting_and_repetition_ends_in_one_state(world: World, examples: int) -> None:
    """Two sources of different authority speak of the same licences; rows move from one licence to another."""
    sources = {"xx-strong": (100, "partial"), "xx-weak": (10, "changes")}
    for name, (authority, extent) in sources.items():
        world.source(name, authority=authority, extent=extent)

    @profile(examples)
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        said = {name: data.draw(histories(), label=name) for name in sources}
        must = deliveries.held([one for name in sources for one in expected(name, *sources[name], said[name])])
        world.reset()
        for name in sources:
            for file in said[name]:
                world.deliver(name, [file])
        assert world.held() == must
        state = world.digest()
        world.reset()
        batches = [(name, batch) for name in sources for batch in data.draw(arrangements(said[name]), label=name)]
        for name, batch in data.draw(st.permutations(batches), label="order"):
            world.deliver(name, batch)
        assert world.held() == must
        assert world.digest() == state
        assert world.replayed() == world.documents()

    holds()


@sizes(2, 100)
def test_the_latest_of_several_versions_wins_wherever_the_cuts_are(world: World, examples: int) -> None:
    """``duplicates: latest``: a change feed that repeats itself. Together or apart, good and bad, ends the same."""
    world.source("xx-feed", extent="changes", duplicates="latest", as_of=deliveries.TIME)
    timed = rows(times=st.integers(0, DAYS))

    @profile(examples)
    @given(said=st.lists(timed, min_size=1, max_size=8), faults=st.sets(st.tuples(st.integers(1, KEYS), st.integers(0, DAYS)), max_size=3), data=st.data())  # fmt: skip
    def holds(said: list[Row], faults: set[tuple[int, int]], data: st.DataObject) -> None:
        spoilt = [Row(row.key, row.key, 0, row.time, BAD) if (row.key, row.time) in faults else row for row in said]
        # a mark of one day in every file: its own time is that of nothing else
        must = deliveries.held(expected("xx-feed", 100, "changes", [File(0, tuple(spoilt))]))
        states = []
        for batches in ([[row] for row in spoilt], data.draw(_cut(spoilt), label="batches")):
            world.reset()
            for batch in batches:
                world.deliver("xx-feed", [File(0, tuple(batch))])
            assert world.held() == must
            states.append(world.digest())
        assert states[0] == states[1]

    holds()


@sizes(3, 150)
def test_what_a_source_takes_back_counts_no_more_whatever_came_first(world: World, examples: int) -> None:
    """A feed that says which rows are void, between good and bad versions, beside a weaker source that stands when it does so."""
    world.source("xx-feed", extent="changes", duplicates="latest", as_of=deliveries.TIME, retracts=True)
    world.source("xx-weak", authority=10)
    weak = File(1, tuple(Row(20 + licence, licence, 1) for licence in range(1, 3)))
    timed = rows(times=st.integers(0, DAYS))
    places = st.tuples(st.integers(1, KEYS), st.integers(0, DAYS))

    @profile(examples)
    @given(
        said=st.lists(st.tuples(timed, st.booleans()), min_size=2, max_size=8),
        faults=st.sets(places, max_size=3),
        data=st.data(),
    )
    def holds(said: list[tuple[Row, bool]], faults: set[tuple[int, int]], data: st.DataObject) -> None:
        spoilt = [
            Row(row.key, row.key, 0, row.time, GONE if gone else BAD) if gone or (row.key, row.time) in faults else row
            for row, gone in said
        ]
        must = deliveries.held(
            [
                *expected("xx-feed", 100, "changes", [File(0, tuple(spoilt))]),
                *expected("xx-weak", 10, "partial", [weak]),
            ]
        )
        states = []
        for batches in ([[row] for row in spoilt], data.draw(_cut(spoilt), label="batches")):
            world.reset()
            world.deliver("xx-weak", [weak])
            for batch in batches:
                world.deliver("xx-feed", [File(0, tuple(batch))])
            assert world.held() == must
            assert world.replayed() == world.documents()
            states.append(world.digest())
        assert states[0] == states[1]

    holds()


@st.composite
def _cut(draw: st.DrawFn, said: list[Row]) -> list[list[Row]]:
    order = list(draw(st.permutations(said)))
    places = sorted(draw(st.sets(st.integers(1, len(order)), max_size=2)) | {0, len(order)})
    return [order[start:end] for start, end in itertools.pairwise(places)]


@st.composite
def snapshots(draw: st.DrawFn) -> list[File]:
    """Rosters of several days, some with a line that cannot be read, so that they prove no absence. What a row says of its
    own time may be anything, also earlier than what it said before."""
    files = []
    for as_of in range(1, draw(st.integers(2, DAYS)) + 1):
        listed = []
        for row in draw(st.lists(rows(), max_size=KEYS, unique_by=lambda row: row.key)):
            bad = draw(st.sampled_from([False, False, False, True]))
            listed.append(Row(row.key, row.key, 0, row.time, BAD) if bad else row)
        files.append(File(as_of, tuple(listed), draw(st.sampled_from([0, 0, 0, 1]))))
    return files


@sizes(4, 200)
def test_snapshots_end_as_the_latest_says_whatever_order_they_come_in(world: World, examples: int) -> None:
    world.source("xx-roster", extent="snapshot")

    @profile(examples)
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        files = data.draw(snapshots(), label="files")
        must = deliveries.held(expected("xx-roster", 100, "snapshot", files))
        world.reset()
        for file in files:
            world.deliver("xx-roster", [file])
        assert world.held() == must
        state = world.digest()
        world.reset()
        for batch in data.draw(arrangements(files, cut=False), label="batches"):
            world.deliver("xx-roster", batch)
        assert world.held() == must
        assert world.digest() == state
        assert world.replayed() == world.documents()

    holds()


@sizes(2, 60)
def test_good_bad_good_ends_good(world: World, examples: int) -> None:
    """As if nothing had happened, and nothing is left to look at."""
    world.source("xx-s")
    good = File(DAYS, tuple(Row(key, key, 1, DAYS if key % 2 else None) for key in range(1, KEYS + 1)))
    spoilt = st.builds(
        Row,
        key=st.integers(1, KEYS),
        licence=st.integers(1, 3),
        word=st.just(0),
        time=st.none() | st.integers(0, DAYS),
        fault=st.sampled_from([BAD, RUINED]),
    )
    bad = st.lists(spoilt, max_size=KEYS, unique_by=lambda row: row.key)

    @profile(examples)
    @given(st.lists(bad, min_size=1, max_size=2))
    def holds(between: list[list[Row]]) -> None:
        world.reset()
        world.deliver("xx-s", [good])
        state = world.digest()
        for said in between:
            world.deliver("xx-s", [good._replace(rows=tuple(said))])
        world.deliver("xx-s", [good])
        assert world.digest() == state
        assert world.count("SELECT count(*) FROM quarantine WHERE state = 'open'") == 0

    holds()


@sizes(2, 60)
def test_a_halted_batch_loses_nothing_when_it_is_superseded(
    world: World, examples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of a drop folder: while one file's columns are wrong nothing moves; once it is right all of it is there."""
    world.source("xx-s")
    folder = tmp_path / "drop"
    folder.mkdir()
    monkeypatch.setenv("YICI_CONN_XX_S", str(folder))

    @profile(examples)
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        files = data.draw(histories(), label="files")
        wrong = data.draw(st.integers(0, len(files) - 1), label="wrong")
        world.reset()
        for path in folder.iterdir():
            path.unlink()
        for number, file in enumerate(files[: wrong + 1]):
            content = deliveries.text(file)
            if number < wrong:
                world.drop(folder, number, content)
                pipeline.run("xx-s")
                continue
            before = world.digest()
            world.drop(folder, number, content.replace(deliveries.NAME, "名称"))
            for later, more in enumerate(files[wrong + 1 :], start=wrong + 1):
                world.drop(folder, later, deliveries.text(more))
            for _ in range(data.draw(st.integers(1, 2), label="tries")):
                with pytest.raises(BatchHalted):
                    pipeline.run("xx-s")
            assert world.digest() == before
            world.drop(folder, number, content)
            pipeline.run("xx-s")
        assert world.held() == deliveries.held(expected("xx-s", 100, "partial", files))
        assert world.count("SELECT count(*) FROM batch WHERE state = 'halted'") == 0

    holds()


@sizes(2, 60)
def test_a_conflict_ends_the_same_however_often_and_in_what_order_it_comes(world: World, examples: int) -> None:
    """Two versions of a row in one file: neither counts, until a later file says which; an earlier one says nothing."""
    world.source("xx-s")
    one, other = Row(1, 1, 1), Row(1, 2, 2)
    around = st.lists(rows(), max_size=2, unique_by=lambda row: row.key).map(
        lambda said: tuple(row for row in said if row.key != 1)
    )

    @profile(examples)
    @given(around=around, solved=st.sampled_from([None, one, other, Row(1, 3, 0)]), data=st.data())
    def holds(around: tuple[Row, ...], solved: Row | None, data: st.DataObject) -> None:
        conflict = File(2, (one, *around, other))
        batches = [conflict, File(2, (other, *around, one, one)), File(1, (Row(1, 3, 1),))]
        batches += [File(3, (solved,))] if solved else []
        states = []
        for order in (batches, data.draw(st.permutations(batches), label="order")):
            world.reset()
            for file in order:
                world.deliver("xx-s", [file])
            states.append((world.held(), world.digest()))
            undecided = world.count(
                "SELECT count(*) FROM quarantine WHERE state = 'open' AND reasons @> '{conflicting-duplicate}'"
            )
            assert undecided == (0 if solved else 2)
        assert states[0] == states[1]

    holds()


@sizes(2, 60)
def test_a_release_holds_whatever_else_comes_before_or_after_it(world: World, examples: int) -> None:
    """A person lets a row pass: deliveries of other rows, of the same licence too, may come before or after that, and
    later versions of the row itself in any order after it."""
    world.source("xx-s")
    released = Row(1, 1, 0, None, BAD)
    others = rows().filter(lambda row: row.key != 1).map(lambda row: File(2, (row,)))
    own = st.builds(Row, st.just(1), st.integers(1, 3), st.integers(0, 2), st.just(None))

    def deliver(files: Iterable[File]) -> None:
        for file in files:
            world.deliver("xx-s", [file])

    def release() -> None:
        with world.engine.connect() as connection:
            entries = [entry.id for entry in quarantine.listed(connection, source="xx-s")]
        review.release(entries, actor="tester")

    @profile(examples)
    @given(data=st.data(), others=st.lists(others, max_size=2), versions=st.lists(own, max_size=2, unique=True))
    def holds(data: st.DataObject, others: list[File], versions: list[Row]) -> None:
        later = [File(1 + place * 2, (row,)) for place, row in enumerate(versions, start=1)]
        states = []
        for _ in range(2):
            cut = data.draw(st.integers(0, len(others)), label="release after")
            world.reset()
            deliver([File(2, (released,)), *others[:cut]])
            release()
            deliver(data.draw(st.permutations(others[cut:] + later), label="then"))
            states.append((world.held(), world.digest()))
        assert states[0] == states[1]
        if not later:
            assert world.held()[1].voices >= 1, "held on a person's word"

    holds()
