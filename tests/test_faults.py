"""`make faults`: plans and schedules come again from their seed, accounts tell what is missing, and a defect is caught."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bench.faults import accounts, plans, probe, records, schedules, worker
from bench.faults.__main__ import Report
from bench.faults.accounts import Account
from bench.faults.lane import unmount
from bench.faults.plans import Decision, Delivery
from bench.faults.player import Outcome
from bench.faults.schedules import Fault, Point, Trace
from bench.faults.worker import Place
from connectors import source as sources
from mappings import scalars
from tests.conftest import ROOT

TRACE = Trace(
    points=tuple(
        Point(stage, category, index)
        for stage in ("review:0", "fetch:0", "map_and_gate:0", "merge:0")
        for category in schedules.PLACED
        for index in range(5)
    ),
    stages=(("review:0", 0.9), ("fetch:0", 0.3), ("map_and_gate:0", 0.3), ("merge:0", 0.2)),
)


def drawn(count: int, seed: int = 1, can_mount: bool = True) -> list[tuple[schedules.Schedule, bool]]:
    return [schedules.draw(seed, number, 12, lambda step: TRACE, can_mount) for number in range(count)]


def test_a_plan_comes_again_from_its_seed_and_number() -> None:
    assert plans.draw(1, 3) == plans.draw(1, 3)
    assert plans.draw(1, 3) != plans.draw(1, 4) and plans.draw(1, 3) != plans.draw(2, 3)


def test_plans_hold_all_extents_decisions_and_dirt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans.write_sources(tmp_path)
    monkeypatch.setenv("YICI_SOURCES", str(tmp_path))
    steps = [step for number in range(8) for step in plans.draw(1, number)]
    names = {step.source for step in steps}
    assert names == set(plans.SOURCES)
    assert {sources.load(name).extent for name in names} == {"partial", "changes", "snapshot"}
    assert {sources.load(name).duplicates for name in names} == {"quarantine", "latest", "halt"}
    assert {step.kind for step in steps if isinstance(step, Decision)} == {
        "approve", "release", "reject", "identity-merge", "identity-split"
    }  # fmt: skip
    text = "".join(content.decode() for step in steps if isinstance(step, Delivery) for _, content in step.files)
    assert "9.13E+17" in text and "\n只有,两列\n" in text


def test_the_identifiers_of_good_rows_are_valid() -> None:
    for number in range(40):
        assert scalars.check(records.credit_code(number), "cn.uscc").verdict != "invalid"
        assert scalars.check(records.resident_id(number), "cn.ric").verdict != "invalid"


def test_schedules_come_again_and_most_kill() -> None:
    assert drawn(40) == drawn(40) and drawn(40) != drawn(40, seed=2)
    many = [schedule for schedule, _ in drawn(400)]
    killing = [one for one in many if any(fault.kind in ("kill", "stop-store") for fault in one.faults)]
    assert len(killing) > 0.7 * len(many)
    kinds = Counter(one.faults[0].kind for one in many)
    assert all(kinds[kind] > 20 for kind in schedules.KINDS)
    assert {one.driver for one in many} == {"run", "tasks"}
    assert any(fault.point is None for one in many for fault in one.faults)


def test_a_disk_that_cannot_be_mounted_is_replaced_and_counted() -> None:
    with_mounts, without = drawn(100), drawn(100, can_mount=False)
    replaced = [schedule for schedule, was in without if was]
    assert len(replaced) == sum(schedule.faults[0].kind == "fill-disk" for schedule, _ in with_mounts) > 0
    assert all(schedule.mounted == "" and schedule.faults[0].kind == "kill" for schedule in replaced)


WHOLE = Account(
    digest={"holdings": "a", "all": "b"},
    things={kind: Counter({"one": 1, "two": 1}) for kind in accounts._THINGS},
    fetched=Counter({"xx-partial": 30}),
    uncounted=(),
    gaps=0,
    repeats=0,
)


def without(kind: str, key: str) -> dict[str, Counter[str]]:
    return WHOLE.things | {kind: Counter({name: 1 for name in ("one", "two") if name != key})}


def test_an_account_equals_itself() -> None:
    same = accounts.compare(WHOLE, WHOLE)
    assert (same.lost, same.twice, same.parts) == (0, 0, [])


@pytest.mark.parametrize(
    ("found", "lost", "twice"),
    [
        (replace(WHOLE, things=without("holding", "two")), 1, 0),
        (replace(WHOLE, things=without("ledger", "one")), 1, 0),
        (replace(WHOLE, things=WHOLE.things | {"feed": Counter({"one": 2, "two": 1})}), 0, 1),
        (replace(WHOLE, fetched=Counter({"xx-partial": 27})), 3, 0),
        (replace(WHOLE, fetched=Counter({"xx-partial": 34})), 0, 4),
        (replace(WHOLE, uncounted=(5, -2)), 5, 2),
        (replace(WHOLE, gaps=2, repeats=1), 2, 1),
    ],
)
def test_what_is_missing_and_what_is_there_twice_is_counted(found: Account, lost: int, twice: int) -> None:
    difference = accounts.compare(WHOLE, found)
    assert (difference.lost, difference.twice) == (lost, twice)


def test_parts_that_differ_are_named() -> None:
    assert accounts.compare(WHOLE, replace(WHOLE, digest={"holdings": "c", "all": "d"})).parts == ["all", "holdings"]


def test_an_account_of_a_store(store: object) -> None:
    from hub import database

    with database.engine().connect() as connection:
        empty = accounts.take(connection)
    assert set(empty.things) == set(accounts._THINGS) and not any(empty.things.values())
    assert (empty.gaps, empty.repeats, empty.uncounted) == (0, 0, ())


@pytest.mark.parametrize("how", ["truncate", "flip", "delete"])
def test_damage_changes_a_file(tmp_path: Path, how: str) -> None:
    path = tmp_path / "chunk"
    content = bytes(range(200))
    path.write_bytes(content)
    probe.damage(path, how, random.Random(1))
    if how == "delete":
        assert not path.exists()
    elif how == "truncate":
        assert len(path.read_bytes()) < 200
    else:
        changed = path.read_bytes()
        assert len(changed) == 200 and sum(one != other for one, other in zip(content, changed, strict=True)) == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
class TestWorker:
    """Attempts at work that is no pipeline's."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(tmp_path, {"FAULTS_SAID": "yes"})

    def test_it_tells_what_came_of_it_and_where_it_passed(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        def perform(name: str) -> str:
            (place.home / "draft").touch()
            (place.home / "draft").rename(place.home / name)
            return os.environ["FAULTS_SAID"]

        monkeypatch.setattr(worker, "perform", perform)
        made = worker.attempt(("done",), place)
        assert (made.ending, made.value, made.killed) == ("done", "yes", False)
        assert [(point.category, point.index) for point in made.trace.points] == [("file", 0), ("file", 1)]
        assert (place.home / "done").exists() and "FAULTS_SAID" not in os.environ

    @pytest.mark.parametrize("index", [0, 1])
    def test_it_is_killed_at_a_point(self, place: Place, monkeypatch: pytest.MonkeyPatch, index: int) -> None:
        (place.home / "draft").touch()
        monkeypatch.setattr(worker, "perform", lambda: (place.home / "draft").rename(place.home / "done"))
        made = worker.attempt((), place, Fault("kill", point=Point("review:0", "file", index)))
        assert made.ending == "killed" and made.killed and made.landed
        assert (place.home / "done").exists() == bool(index)

    def test_it_is_killed_at_an_instant(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(worker, "perform", lambda: time.sleep(30))
        start = time.monotonic()
        made = worker.attempt((), place, Fault("kill", stage="review:0", after=0.1))
        assert made.killed and time.monotonic() - start < 10

    def test_what_ended_before_the_instant_was_not_killed(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(worker, "perform", lambda: "quick")
        made = worker.attempt((), place, Fault("kill", stage="review:0", after=20))
        assert (made.ending, made.killed, made.landed) == ("done", False, False)

    def test_an_error_that_says_nothing_is_not_clear(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(worker, "perform", lambda: 1 / 0)
        made = worker.attempt((), place)
        assert (made.ending, made.clear) == ("error", False) and "ZeroDivisionError" in made.text


def test_the_last_line_and_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(1, 2)
    report.add(Outcome(0, killed=True))
    assert report.end() == 0
    report.add(Outcome(1, difference=accounts.Difference(lost=3, twice=1, parts=["all"])))
    assert report.end() == 1
    shown = capsys.readouterr()
    assert "make faults SEED=1 ONLY=1" in shown.err
    assert json.loads(shown.out.splitlines()[-1]) == {
        "schedules": 2,
        "killed": 1,
        "lost": 3,
        "twice": 1,
        "digest_mismatches": 1,
    }


def test_nothing_is_done_when_nothing_is_mounted(tmp_path: Path) -> None:
    unmount(tmp_path)


def faults(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.faults", *options], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def left() -> tuple[set[str], set[int], list[str]]:
    """Folders, server processes and mounts of harnesses, whoever started them."""
    folders = {path.name for path in Path(tempfile.gettempdir()).glob("yici-faults-*")}
    servers = {process.pid for process in psutil.process_iter() if "yici-faults-" in " ".join(_command(process))}
    return folders, servers, [line for line in Path("/proc/mounts").read_text().splitlines() if "yici-faults-" in line]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def numbers(process: subprocess.Popen[str]) -> tuple[int, dict[str, int], str]:
    out, err = process.communicate(timeout=800)
    return process.returncode, json.loads(out.splitlines()[-1]), err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sample_is_whole() -> None:
    code, found, err = numbers(faults("10", "--seed", "3"))
    assert (code, found["lost"], found["twice"], found["digest_mismatches"]) == (0, 0, 0, 0), err
    assert found["schedules"] == 10 and found["killed"] >= 5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cursor_that_moves_before_the_merge_is_caught() -> None:
    code, found, err = numbers(faults("8", "--seed", "3", "--defect", "cursor-before-merge"))
    assert code == 1 and found["digest_mismatches"] > 0 and found["lost"] > 0, err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_interrupted_harness_leaves_nothing() -> None:
    before = left()
    process = faults("50", "--seed", "4")
    deadline = time.monotonic() + 300
    while not (left()[1] - before[1]) and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(4)
    assert left()[1] - before[1], "a server should be up"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert process.returncode == 130
    after = left()
    assert after[0] <= before[0] and after[1] <= before[1] and len(after[2]) <= len(before[2])
