"""`make exchange-faults`: schedules come again from their seed, the network does what it is told, accounts tell what is missing, and
defects are caught."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.exchange_faults import accounts, lies, operations, schedules, truth
from bench.exchange_faults.__main__ import Report
from bench.exchange_faults.accounts import Account
from bench.exchange_faults.board import Board
from bench.exchange_faults.defects import DEFECTS
from bench.exchange_faults.network import Network, Weather
from bench.exchange_faults.stage import Outcome
from bench.exchange_faults.truth import Register
from hub import index_keys
from mappings import scalars
from tests.conftest import ROOT

FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def test_schedules_come_again_and_hold_everything() -> None:
    many = [schedules.draw(1, number) for number in range(400)]
    assert many[:40] == [schedules.draw(1, number) for number in range(40)] != [schedules.draw(2, n) for n in range(40)]
    kinds = Counter(weather.kind for one in many for each in one.rounds for _, weather in each.weather)
    assert all(kinds[kind] > 10 for kind in ("partition", "silence", "delay", "reorder", "cut", "stall", "trickle")), (
        kinds
    )
    rounds = [each for one in many for each in one.rounds]
    for happens in ("kills", "sent", "skews", "rotates"):
        assert sum(bool(getattr(each, happens)) for each in rounds) > 20, happens
    assert sum(any(work.fuse for work in each.works) for each in rounds) > 50
    works = Counter(work.what for each in rounds for work in each.works)
    assert (
        set(works) == {"read", "evidence", "correct", "reconcile", "renew", "act", "repeat"}
        and min(works.values()) > 20
    )
    liars = [one for one in many if one.liar]
    assert 60 < len(liars) < 180 and all(one.liar in one.givers and one.deceived not in ("", one.liar) for one in liars)
    assert {name for one in liars for name in one.told} == set(lies.TOLD)
    assert {name for one in liars for name in one.given} == set(lies.GIVEN)


class Test_truth:
    def test_ids_are_those_of_the_protocol(self) -> None:
        register = Register("zj")
        [one, *_] = register.first()
        agreed, reader = bytes(range(32)), bytes(range(32, 64))
        key = index_keys.epoch_key(agreed, "20260101T000000Z-00")
        assert truth.epoch_key(agreed, "20260101T000000Z-00") == key
        assert truth.handle(key, one) == index_keys.handle(key, one.key.hex()).hex()
        [line] = [
            line for line in register.entries("20260101T000000Z-00", agreed, reader) if truth.handle(key, one) in line
        ]
        assert line.split("|")[1:6] == ["business-licence", one.region, "in_force", "2015-01-01", "2099-12-31"]

    def test_registers_change_and_some_is_never_announced(self) -> None:
        register, rng = Register("sh"), random.Random(1)
        register.first()
        made = [one for _ in range(40) for one in register.change(rng)]
        held = register.known.values()
        assert any(one.withdrawn for one in held) and any(one.status == "revoked" for one in held)
        assert any(one.version for one in held) and len(register.known) > truth.FIRST
        assert any(not one.withdrawn and not one.announced for one in held)
        assert not {one.number for one in made} & set(truth.AWAY), "what lies are told about stays as it is"
        assert len({one.digest for one in made}) > 40

    def test_holders_are_valid(self) -> None:
        for number in range(40):
            assert scalars.parse(f"cn.uscc:{truth.credit_code('js', number)}").verdict != "invalid"


EXPECTED = Counter({"aa|one": 1, "bb|two": 1})


class Test_accounts:
    def account(self, *lines: str) -> tuple[int, int, int]:
        account = Account()
        accounts.beside(account, EXPECTED, Counter(lines), "here")
        return account.lost, account.twice, account.accepted

    def test_the_same_is_the_same(self) -> None:
        assert self.account("aa|one", "bb|two") == (0, 0, 0)

    @pytest.mark.parametrize(("lines", "lost", "twice", "accepted"), [
        (("aa|one",), 1, 0, 0),
        (("aa|one", "bb|before"), 1, 0, 0),
        (("aa|one", "bb|two", "cc|gone"), 1, 0, 0),
        (("aa|one", "bb|two", "bb|two"), 0, 1, 0),
        (("aa|one", "bb|two", "bb|before"), 0, 1, 0),
        (("aa|one", "bb|two", f"{lies.FALSE}|made up"), 0, 0, 1),
    ])  # fmt: skip
    def test_what_differs_is_counted(self, lines: tuple[str, ...], lost: int, twice: int, accepted: int) -> None:
        assert self.account(*lines) == (lost, twice, accepted)


@FORKS
class Test_a_board:
    def test_a_process_dies_where_it_is_told_to(self) -> None:
        board, (reading, writing) = Board(), os.pipe()
        board.arm("commit", 3)
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            for point in ("commit", "statement", "commit", "statement", "commit", "statement"):
                board.passed(point)
                os.write(writing, point[:1].encode())
            os._exit(0)
        os.close(writing)
        _, status = os.waitpid(pid, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL and os.read(reading, 100) == b"cscs" and not board.armed()
        os.close(reading)

    def test_a_process_lives_by_its_clock(self) -> None:
        code = """
import datetime as dt, json
from bench.exchange_faults import board as boards
before, board = dt.datetime, boards.Board()
boards.live_by(board)
board.seconds = 600
now = dt.datetime.now(dt.UTC)
assert type(now) is before and isinstance(now, dt.datetime), type(now)
assert 599 < (now - before.now(dt.UTC)).total_seconds() < 601
for made in (dt.datetime.fromisoformat("2026-03-01T08:00:00Z"), dt.datetime.combine(now.date(), dt.time()), dt.datetime(2026, 1, 1),
             dt.datetime.strptime("2026", "%Y")):
    assert type(made) is before, made
board.clear()
assert (dt.datetime.now(dt.UTC) - before.now(dt.UTC)).total_seconds() < 1
"""
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
        assert dt.datetime.__name__ == "datetime"


@FORKS
class Test_the_network:
    @pytest.fixture
    def network(self) -> Iterator[Network]:
        with Network(("one", "other")) as network, echo() as port:
            network.route("other", port)
            yield network

    def say(self, network: Network, data: bytes, seconds: float = 2.0) -> bytes:
        """What comes back, until the connection ends or nothing comes any more."""
        found = b""
        try:
            with socket.create_connection(("127.0.0.1", network.ports["one", "other"]), timeout=seconds) as wire:
                wire.sendall(data)
                wire.shutdown(socket.SHUT_WR)
                while part := wire.recv(1 << 16):
                    found += part
        except TimeoutError:
            return found + b"..."
        except OSError:
            return found + b"!"
        return found

    def keep_saying(self, network: Network, data: bytes, wanted: int) -> bytes:
        """So many bytes that come back, however late, and what comes in half a second more. This side does not end: of one
        that did the proxy would end the other two seconds later, which on a busy machine may be before anything came."""
        found = b""
        with socket.create_connection(("127.0.0.1", network.ports["one", "other"]), timeout=60) as wire:
            wire.sendall(data)
            while len(found) < wanted and (part := wire.recv(1 << 16)):
                found += part
            wire.settimeout(0.5)
            try:
                while part := wire.recv(1 << 16):
                    found += part
            except TimeoutError:
                return found + b"..."
        return found

    def test_bytes_go_through(self, network: Network) -> None:
        data = random.Random(1).randbytes(300_000)
        assert self.say(network, data) == data
        network.set(("one", "other"), Weather("trickle", count=50_000))
        assert self.say(network, data) == data

    def test_a_partition_is_of_one_direction_and_passes(self, network: Network) -> None:
        network.set(("other", "one"), Weather("partition"))
        assert self.say(network, b"hello") == b"hello"
        network.set(("one", "other"), Weather("partition"))
        assert self.say(network, b"hello") in (b"!", b"")
        network.clear()
        assert self.say(network, b"hello") == b"hello"

    def test_a_partition_cuts_off_whoever_is_through(self, network: Network) -> None:
        with socket.create_connection(("127.0.0.1", network.ports["one", "other"]), timeout=5) as wire:
            wire.sendall(b"a")
            assert wire.recv(1) == b"a"
            network.set(("one", "other"), Weather("partition"))
            with pytest.raises(ConnectionResetError):
                wire.recv(1)

    def test_bytes_are_cut_off_or_never_arrive(self, network: Network) -> None:
        link = ("one", "other")
        network.set(link, Weather("cut", count=3, back=True, times=1))
        assert self.say(network, b"hello") in (b"hel", b"hel!", b"!")
        assert self.say(network, b"hello") == b"hello", "it happens once"
        network.set(link, Weather("stall", count=3, times=1))
        assert self.keep_saying(network, b"hello", 3) == b"hel..."
        network.set(link, Weather("silence"))
        assert self.keep_saying(network, b"hello", 0) == b"..."

    def test_later_ones_overtake(self, network: Network) -> None:
        network.set(("one", "other"), Weather("reorder", seconds=0.5), "a seed")
        order: list[int] = []

        def one(number: int) -> None:
            self.say(network, b"hello")
            order.append(number)

        threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
            time.sleep(0.02)
        for thread in threads:
            thread.join()
        assert sorted(order) == list(range(8)) != order

    def test_all_comes_later(self, network: Network) -> None:
        network.set(("one", "other"), Weather("delay", seconds=0.2))
        began = time.monotonic()
        assert self.say(network, b"hello") == b"hello"
        assert time.monotonic() - began >= 0.4


class echo:
    """A server that says what it was told."""

    def __enter__(self) -> int:
        self.listening = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()
        return int(self.listening.getsockname()[1])

    def __exit__(self, *given: object) -> None:
        self.listening.close()

    def _serve(self) -> None:
        while True:
            try:
                wire, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._say, args=(wire,), daemon=True).start()

    def _say(self, wire: socket.socket) -> None:
        with wire:
            try:
                while part := wire.recv(1 << 16):
                    wire.sendall(part)
            except OSError:
                pass


def test_the_last_line_and_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(1, 2)
    report.add(Outcome(0, killed=1, lies=2, messages=30))
    assert report.end() == 0
    report.add(Outcome(1, account=Account(lost=3, twice=1, accepted=2, unrecorded=4, why=["lost 3: something"])))
    assert report.end() == 1
    shown = capsys.readouterr()
    assert "make exchange-faults SEED=1 ONLY=1" in shown.err and "lost 3: something" in shown.err
    found = json.loads(shown.out.splitlines()[-1])
    assert list(found)[:5] == ["schedules", "lost", "twice", "accepted_from_liar", "unrecorded_refusals"]
    assert list(found.values())[:5] == [2, 3, 1, 2, 4]


def test_trouble_and_unclear_errors_fail_too(capsys: pytest.CaptureFixture[str]) -> None:
    for outcome in (Outcome(0, trouble=["it does not recover"]), Outcome(0, unclear=["KeyError in x.py:1"])):
        report = Report(1, 1)
        report.add(outcome)
        assert report.end() == 1
    assert Report(1, 0).end() == 1, "no schedule at all is no success"


def test_every_operation_that_is_drawn_is_there() -> None:
    assert {"read", "reconcile", "evidence", "correct", "act", "propose", "renew", "repeat", "rotate"} <= set(
        operations.OPERATIONS
    )


def rig(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.exchange_faults", *options], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def numbers(process: subprocess.Popen[str]) -> tuple[int, dict[str, int], str]:
    out, err = process.communicate(timeout=800)
    return process.returncode, json.loads(out.splitlines()[-1]), err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sample_agrees_with_the_truth() -> None:
    code, found, err = numbers(rig("8", "--seed", "3"))
    wrong = ("lost", "twice", "accepted_from_liar", "unrecorded_refusals", "wrong", "unclear_errors")
    assert code == 0 and not any(found[name] for name in wrong), err
    assert found["schedules"] == 8 and found["killed"] and found["lies"] and found["messages"] > 200, err


# A schedule of seed 1 that meets the defect, and where it shows.
CAUGHT = {
    "agreement-unverified": (201, "accepted"),
    "cursor-before-merge": (242, "lost"),
    "digest-unchecked": (201, "accepted"),
    "refusals-unrecorded": (201, "unrecorded"),
    "region-unchecked": (201, "accepted"),
    "replay-unchecked": (405, "twice"),
    "reply-unkept": (6546, "lost"),
}
PLAYED = """
import json, os, sys
from pathlib import Path
from bench import lanes
from bench.exchange_faults import __main__ as rig
from bench.exchange_faults.lane import Lane

folder = Path(sys.argv[1])
folder.chmod(0o711)
with lanes.interruptible():
    rig._prepare(folder)
    lane = Lane(folder / "lane", 1)
    try:
        for number, defect in json.loads(sys.argv[2]):
            lane.defect = defect
            outcome = lane.play(number)
            print(json.dumps([number, defect, vars(outcome.account), outcome.trouble, outcome.unclear]), flush=True)
    finally:
        lane.close()
"""


@pytest.fixture(scope="module")
def played() -> dict[tuple[int, str], Any]:
    """Each of these schedules with its defect and without: what came of it. From one beginning, which takes longer than a schedule."""
    wanted = [(number, defect) for defect, (number, _) in CAUGHT.items()]
    wanted += [(number, "") for number in sorted({number for number, _ in wanted})]
    with tempfile.TemporaryDirectory(prefix="yici-exchange-faults-") as folder:
        command = [sys.executable, "-c", PLAYED, folder, json.dumps(wanted)]
        done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr
    return {(number, defect): rest for number, defect, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.slow
@pytest.mark.timeout(1600)
@pytest.mark.parametrize("defect", sorted(DEFECTS))
def test_a_defect_is_caught(played: dict[tuple[int, str], Any], defect: str) -> None:
    number, where = CAUGHT[defect]
    account, _, _ = played[number, defect]
    assert account[where] > 0, account
    assert not [other for other in ("lost", "twice", "accepted", "unrecorded") if played[number, ""][0][other]], (
        "it is the defect that shows"
    )
    assert played[number, ""][1:] == [[], []]


def left() -> tuple[set[str], set[int]]:
    """Folders and processes of rigs, whoever started them."""
    folders = {path.name for path in Path(tempfile.gettempdir()).glob("yici-exchange-faults-*")}
    return folders, {process.pid for process in psutil.process_iter() if _of_a_rig(process)}


def _of_a_rig(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
        return "yici-exchange-faults-" in command or "bench.exchange_faults" in command
    except psutil.Error:
        return False


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_interrupted_rig_leaves_nothing() -> None:
    before = left()
    process = rig("50", "--seed", "4")
    deadline = time.monotonic() + 120
    while len(left()[1] - before[1]) < 12 and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(5)
    assert len(left()[1] - before[1]) > 8, "hubs should be up"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    time.sleep(1)
    after = left()
    assert after[0] <= before[0] and after[1] <= before[1]
