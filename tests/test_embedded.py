"""The embedded server: starts, is shared, is stopped by the last who leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from connectors.errors import FatalError
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
    os.kill(server, signal.SIGKILL)  # its zombie is a child of this process and keeps the process number
    while embedded._postmaster(home):
        pass
    embedded.release(home)
    with connect(home) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (7,)


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
