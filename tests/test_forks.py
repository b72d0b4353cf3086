"""Work spread over processes: all of it is done, or the first error is raised and the rest stops."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from connectors.errors import BatchHalted, FatalError, RetriableError
from hub import forks


@pytest.fixture(autouse=True)
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YICI_WORKERS", "2")


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_each_item_is_worked_once(tmp_path: Path, count: int) -> None:
    told: list[int] = []
    forks.each(lambda item: (tmp_path / str(item)).write_text(str(os.getpid())), range(count), told.append)
    assert {path.name for path in tmp_path.iterdir()} == set(map(str, range(count)))
    assert told == list(range(1, count + 1))
    assert len({path.read_text() for path in tmp_path.iterdir()}) == min(count, 2)


def test_a_process_gives_way_after_some_items(tmp_path: Path) -> None:
    """Its memory with it; no more of them at once than cores."""
    beside: list[int] = []

    def work(item: int) -> None:
        (tmp_path / f"{item}-{os.getpid()}").touch()

    forks.each(work, range(40), lambda _: beside.append(len(multiprocessing.active_children())))
    worked = [path.name.split("-") for path in tmp_path.iterdir()]
    assert sorted(int(item) for item, _ in worked) == list(range(40))
    by_process = Counter(process for _, process in worked)
    assert len(by_process) == -(-40 // forks.SPAN) and max(by_process.values()) == forks.SPAN
    assert max(beside) <= 2


def test_an_error_comes_back_as_it_was(tmp_path: Path) -> None:
    def work(item: int) -> None:
        if item == 3:
            raise BatchHalted("batch-columns-missing", columns="a", batch="b", source="s")

    with pytest.raises(BatchHalted) as halted:
        forks.each(work, range(6), lambda _: None)
    assert halted.value.code == "batch-columns-missing" and halted.value.values["batch"] == "b"


def test_an_error_that_cannot_travel_names_its_place() -> None:
    class Local(Exception):
        pass

    def work(item: int) -> None:
        raise Local("personal data")

    with pytest.raises(FatalError) as failed:
        forks.each(work, range(2), lambda _: None)
    assert failed.value.code == "worker-failed" and "personal" not in str(failed.value)


def test_a_killed_worker_is_noticed() -> None:
    def work(item: int) -> None:
        if item == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RetriableError) as died:
        forks.each(work, range(4), lambda _: None)
    assert died.value.code == "worker-died"


def test_one_worker_is_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YICI_WORKERS", "1")
    seen: list[int] = []
    forks.each(lambda item: seen.append(os.getpid()), range(3), lambda _: None)
    assert seen == [os.getpid()] * 3
