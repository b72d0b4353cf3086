"""The embedded server: starts, is shared, is stopped by the last who leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from connectors.errors import FatalError, RetriableError
from hub import embedded
from hub.home import Home

HOLD = """
import sys
from pathlib import Path
from hub import embedded
from hub.home import Home
embedded.hold(Home(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""


def connect(home: Home) -> psycopg.Connection:
    return psycopg.connect(embedded.url(home, "postgres").replace("+psycopg", ""))


@pytest.fixture
def home() -> Iterator[Home]:
    # Not below pytest's own folder: each session closes that to others, and as root the server runs as its own user.
    folder = Path(tempfile.mkdtemp(prefix="yici-embedded-"))
    here = Home(folder)
    yield here
    embedded.release(here)
    embedded.stop(here)
    shutil.rmtree(folder, ignore_errors=True)


def test_data_survive_a_stop(home: Home) -> None:
    with connect(home) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    embedded.release(home)
    assert embedded._postmaster(home) is None
    with connect(home) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (7,)


def test_the_last_user_stops_the_server(home: Home) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(home.path)], stdin=-1, stdout=-1, text=True)
    assert other.stdout and other.stdin and other.stdout.readline() == "held\n"
    embedded.hold(home)
    embedded.release(home)
    assert embedded._postmaster(home), "still used by the other process"
    other.stdin.close()
    other.wait(30)
    assert embedded._postmaster(home) is None


DONE = """
import os, signal, sys
from pathlib import Path
from hub import cli, embedded
from hub.home import Home
home = Home(Path(sys.argv[1]))
embedded.hold(home)
server = embedded._postmaster(home)
os.kill(server, signal.SIGSTOP)  # it will take its time to stop
print(server, flush=True)
sys.argv = ["yici", "--help"]
cli.main()
"""


def test_ctrl_c_while_a_command_that_is_done_waits_for_the_server_ends_it_quietly(home: Home) -> None:
    """It has said what it did; nothing is left to interrupt, and the server has been told to stop."""
    command = subprocess.Popen([sys.executable, "-c", DONE, str(home.path)], stdout=-1, stderr=-1, text=True)
    assert command.stdout is not None
    server = psutil.Process(int(command.stdout.readline()))
    try:
        status = Path(f"/proc/{server.pid}/status")
        deadline = time.monotonic() + 60
        while not int(status.read_text().split("ShdPnd:")[1].split()[0], 16) & 1 << signal.SIGINT - 1:
            assert time.monotonic() < deadline and command.poll() is None
            time.sleep(0.05)
        time.sleep(0.2)
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=30)
    finally:
        command.kill()
        server.send_signal(signal.SIGCONT)
    assert (command.returncode, err) == (0, "") and "yici" in out
    server.wait(60)


def test_a_killed_user_leaves_a_server_that_the_next_one_stops(home: Home) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(home.path)], stdin=-1, stdout=-1, text=True)
    assert other.stdout and other.stdout.readline() == "held\n"
    other.kill()
    other.wait(30)
    with connect(home) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    embedded.release(home)
    assert embedded._postmaster(home) is None


def test_a_server_that_was_killed_starts_again(home: Home) -> None:
    with connect(home) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    server = embedded._postmaster(home)
    assert server
    # One of its children takes longer to notice: nobody may start beside it.
    child = next(one for one in psutil.Process(server).children() if "checkpointer" in "".join(one.cmdline()))
    child.suspend()
    later = threading.Timer(1, child.resume)
    later.start()
    os.kill(server, signal.SIGKILL)  # its zombie is a child of this process and keeps the process number
    while embedded._postmaster(home):
        pass
    embedded.release(home)
    with connect(home) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (7,)
    later.join()


def test_a_start_that_fails_is_told_at_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded.hold(home)
    embedded.release(home)
    monkeypatch.setitem(embedded.SETTINGS, "shared_buffers", "none")
    began = time.monotonic()
    with pytest.raises(FatalError) as said:
        embedded.hold(home)
    assert said.value.code == "embedded-start" and time.monotonic() - began < embedded.ORPHAN_SECONDS


def pid_file(home: Home) -> Path:
    return embedded.data_folder(home) / "postmaster.pid"


def held_elsewhere(home: Home) -> tuple[subprocess.Popen[str], int]:
    """Another process that uses the server, and the server's number."""
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(home.path)], stdin=-1, stdout=-1, text=True)
    assert other.stdout and other.stdout.readline() == "held\n"
    server = embedded._postmaster(home)
    assert server
    return other, server


def test_a_server_that_lives_is_not_taken_for_dead(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was stopped, or is very slow: its lock stays, no second one starts, and what is wrong is said."""
    monkeypatch.setattr(embedded, "SILENT_SECONDS", 1)
    other, server = held_elsewhere(home)
    os.kill(server, signal.SIGSTOP)
    try:
        before, log = pid_file(home).read_bytes(), (home.path / "logs" / "postgres.log").read_bytes()
        for _ in range(2):
            with pytest.raises(RetriableError, match=f"kill -CONT {server}") as said:
                embedded.hold(home)
            assert said.value.code == "embedded-silent" and said.value.values["pid"] == server
            assert str(server) in said.value.message("zh") and "CONT" in said.value.advice("zh")
        assert embedded._postmaster(home) == server and home.path not in embedded._held
        assert pid_file(home).read_bytes() == before
        assert (home.path / "logs" / "postgres.log").read_bytes() == log, "nothing was started"
    finally:
        os.kill(server, signal.SIGCONT)
    with connect(home) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert embedded._postmaster(home) == server
    assert other.stdin
    other.stdin.close()
    other.wait(30)


def test_a_slow_server_is_waited_for(home: Home) -> None:
    other, server = held_elsewhere(home)
    os.kill(server, signal.SIGSTOP)
    again = threading.Timer(1.5, os.kill, (server, signal.SIGCONT))
    again.start()
    embedded.hold(home)
    again.join()
    assert embedded._postmaster(home) == server
    other.kill()
    other.wait(30)


def test_a_server_that_ends_while_it_is_waited_for_starts_again(home: Home) -> None:
    other, server = held_elsewhere(home)
    os.kill(server, signal.SIGSTOP)

    def ends() -> None:
        os.kill(server, signal.SIGINT)
        os.kill(server, signal.SIGCONT)

    end = threading.Timer(1.0, ends)
    end.start()
    with connect(home) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert embedded._postmaster(home) not in (None, server)
    end.join()
    other.kill()
    other.wait(30)


@pytest.mark.parametrize("named", ["this program", "another server", "nobody", "nothing"])
def test_a_lock_that_is_a_leftover_is_cleared(home: Home, named: str) -> None:
    with connect(home) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    embedded.release(home)
    folder = Path(tempfile.mkdtemp(prefix="yici-embedded-"))
    neighbour = Home(folder)
    try:
        if named == "another server":
            embedded.hold(neighbour)
        gone = subprocess.Popen(["true"])
        gone.wait()
        pids = {"this program": os.getpid(), "another server": embedded._postmaster(neighbour), "nobody": gone.pid}
        pid_file(home).write_text(f"{pids[named]}\n{embedded.data_folder(home)}\n" if named in pids else "")
        assert embedded._postmaster(home) is None
        with connect(home) as connection:
            assert connection.execute("SELECT value FROM kept").fetchone() == (7,)
        if named == "another server":
            assert embedded._answers(neighbour), "it is left alone"
    finally:
        embedded.release(neighbour)
        embedded.stop(neighbour)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_home_that_was_moved_still_has_its_server(home: Home) -> None:
    other, server = held_elsewhere(home)
    moved = Home(home.path.rename(home.path.with_name(home.path.name + "-moved")))
    try:
        assert embedded._postmaster(moved) == server and embedded._postmaster(home) is None
    finally:
        moved.path.rename(home.path)
        other.kill()
        other.wait(30)


def test_no_password_no_entry(home: Home) -> None:
    url = embedded.url(home, "postgres").replace("+psycopg", "")
    before, after = url.split("://yici:")[0], url.split("@", 1)[1]
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"{before}://yici@{after}").close()


def test_secrets_are_readable_by_their_owner_only(home: Home) -> None:
    embedded.hold(home)
    assert {path.stat().st_mode & 0o777 for path in home.keys.iterdir()} == {0o600}
    assert home.keys.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_no_database_is_refused(home: Home) -> None:
    home.create()
    (home.path / "postgres").mkdir()
    (home.path / "postgres" / "letter.txt").write_text("keep me")
    with pytest.raises(FatalError, match=r"letter\.txt"):
        embedded.hold(home)
    assert (Path(home.path) / "postgres" / "letter.txt").read_text() == "keep me"
