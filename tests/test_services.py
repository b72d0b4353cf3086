"""Background services: started once, found again, and stopped without a trace, strays and stubborn ones included."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from connectors.errors import FatalError
from hub import embedded, services
from hub.home import Home

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
# Leaves its session and its parent, as a daemon does; only the environment still tells where it belongs.
STRAY = [
    sys.executable,
    "-c",
    "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\ntime.sleep(600)",
]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(600)",
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home whose services need no embedded database."""
    monkeypatch.setenv("YICI_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    here = Home(tmp_path / "home")
    here.create()
    yield here
    services.stop_all(here, grace=1)
    assert services.processes(here) == []


def eventually(condition: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def test_a_service_is_started_once_and_found_again(home: Home) -> None:
    first = services.start(home, "sleeper", SLEEP)
    assert services.start(home, "sleeper", SLEEP) == first
    assert services.running(home) == {"sleeper": first}
    assert services.stop_all(home) == 1
    assert first.process() is None
    assert services.running(home) == {}


def test_stopping_when_nothing_runs_is_fine(home: Home, tmp_path: Path) -> None:
    assert services.stop_all(home) == 0
    assert services.stop_all(Home(tmp_path / "never made")) == 0
    assert not (tmp_path / "never made").exists()


def test_a_stray_grandchild_is_stopped(home: Home) -> None:
    service = services.start(home, "stray", STRAY)
    eventually(
        lambda: service.pid not in [process.pid for process in services.processes(home)] and services.processes(home)
    )
    stray = services.processes(home)
    assert stray and service.pid not in [process.pid for process in stray]
    services.stop_all(home)
    assert not any(process.is_running() for process in stray)


def test_a_service_deaf_to_sigterm_is_killed(home: Home) -> None:
    service = services.start(home, "stubborn", STUBBORN)
    eventually(lambda: "deaf" in Path(service.log).read_text())
    services.stop_all(home, grace=0.5)
    assert service.process() is None


def test_a_reused_process_number_is_left_alone(home: Home) -> None:
    other = subprocess.Popen(SLEEP)
    try:
        noted = [
            {
                "name": "old",
                "pid": other.pid,
                "created": psutil.Process(other.pid).create_time() - 1000,
                "port": None,
                "log": "-",
            }
        ]
        (home.path / "services.json").write_text(json.dumps(noted))
        assert services.running(home) == {}
        services.stop_all(home)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_services_of_another_home_are_left_alone(home: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    other.create()
    service = services.start(other, "sleeper", SLEEP)
    try:
        services.stop_all(home)
        assert service.process() is not None
    finally:
        services.stop_all(other, grace=1)


def test_readiness_is_waited_for_over_http(home: Home) -> None:
    port = services.free_port(18470)
    command = [sys.executable, "-m", "http.server", "--bind", services.HOST, str(port)]
    service = services.start(home, "web", command, port=port)
    services.wait(service, lambda: services.answers(service.address))
    assert service.address == f"http://127.0.0.1:{port}"


ANSWERING = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


@contextmanager
def foreign(wanted: int) -> Iterator[int]:
    """Something that is no part of this hub and says to everything that it is well: its port."""
    port = services.free_port(wanted)
    process = subprocess.Popen([sys.executable, "-c", ANSWERING, str(port)])
    try:
        eventually(lambda: services.answers(f"http://{services.HOST}:{port}"))
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def stranger() -> Iterator[int]:
    """The port on which a program that is no service of this home answers everything with 200."""
    with foreign(18570) as port:
        yield port


def test_who_else_answers_on_its_port_is_not_taken_for_the_service(home: Home, stranger: int) -> None:
    service = services.start(home, "sleeper", SLEEP, port=stranger)
    assert services.answers(service.address)
    with pytest.raises(FatalError) as caught:
        services.wait(service, lambda: services.answers(service.address), seconds=0.5)
    assert caught.value.code == "service-slow"
    ended = services.start(home, "web", [sys.executable, "-c", ANSWERING, str(stranger)], port=stranger)
    with pytest.raises(FatalError) as caught:
        services.wait(ended, lambda: services.answers(ended.address))
    assert caught.value.code == "port-lost" and str(stranger) in caught.value.message("en")


def test_a_port_that_another_got_first_is_replaced_by_the_next_free_one(home: Home, stranger: int) -> None:
    def start(port: int) -> services.Running:
        return services.start(home, "web", [sys.executable, "-c", ANSWERING, str(port)], port=port)

    def again(lost: list[int]) -> services.Running:
        assert lost == [stranger]
        return start(services.free_port(stranger, taken=lost))

    settled = services.settled(start(stranger), lambda service: services.answers(service.address), again)
    assert settled.port != stranger and services.running(home) == {"web": settled} and settled.listens()


def test_a_service_may_leave_listening_to_a_process_of_its_own(home: Home) -> None:
    port = services.free_port(18670)
    service = services.start(home, "parent", [sys.executable, "-c", PARENT, ANSWERING, str(port)], port=port)
    services.wait(service, lambda: services.answers(service.address))
    assert not services._listens(psutil.Process(service.pid), port)
    services.stop([service])
    eventually(lambda: not services.answers(service.address))


def test_a_service_that_ends_at_once_is_named_with_its_log(home: Home) -> None:
    service = services.start(home, "broken", [sys.executable, "-c", "raise SystemExit('no such thing')"])
    with pytest.raises(FatalError) as caught:
        services.wait(service, lambda: False)
    assert caught.value.code == "service-ended"
    assert service.log in caught.value.message("en") + caught.value.advice("en")
    assert "no such thing" in Path(service.log).read_text()


def test_a_service_that_is_never_ready_is_given_up(home: Home) -> None:
    service = services.start(home, "slow", SLEEP)
    with pytest.raises(FatalError) as caught:
        services.wait(service, lambda: False, seconds=0.3)
    assert caught.value.code == "service-slow"


def test_a_port_in_use_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind((services.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert services.free_port(port, taken=[port + 1]) > port + 1


def test_only_one_starts_and_down_ends_the_one_that_does(home: Home) -> None:
    script = """
import sys, time
from pathlib import Path
from hub import interrupts, services
from hub.home import Home
here = Home(Path(sys.argv[1]))
with interrupts.interruptible(), services.exclusive(here):
    try:
        print("starting", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        print("cleared up", flush=True)
"""
    starter = subprocess.Popen([sys.executable, "-c", script, str(home.path)], stdout=-1, text=True)
    assert starter.stdout and starter.stdout.readline() == "starting\n"
    with pytest.raises(FatalError) as caught, services.exclusive(home):
        pass
    assert caught.value.code == "services-busy" and str(starter.pid) in caught.value.message("en")
    services.stop_all(home)
    assert starter.wait(10) == 0
    assert starter.stdout.read() == "cleared up\n"
    with services.exclusive(home):
        pass


def test_logs_and_state_are_the_owners_alone(home: Home) -> None:
    service = services.start(home, "sleeper", SLEEP)
    assert Path(service.log).stat().st_mode & 0o777 == 0o600
    assert (home.path / "services.json").stat().st_mode & 0o777 == 0o600


def test_a_service_keeps_the_embedded_database_up_after_its_starter_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YICI_DATABASE_URL", raising=False)
    folder = tempfile.mkdtemp(prefix="yici-test-")  # pytest's own folder is closed to the database's user
    home = Home(Path(folder) / "home")
    script = """
import sys
from pathlib import Path
from hub import embedded, services
from hub.home import Home
here = Home(Path(sys.argv[1]))
embedded.hold(here)
services.start(here, "sleeper", [sys.executable, "-c", "import time; time.sleep(600)"])
"""
    try:
        subprocess.run([sys.executable, "-c", script, str(home.path)], check=True, timeout=120)
        assert embedded._postmaster(home), "the service still uses it"
        assert services.stop_all(home) == 1
        assert embedded._postmaster(home) is None
    finally:
        services.stop_all(home, grace=1)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_home_remembers_who_it_is(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("YICI_HUB", "YICI_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert home.identity("hub") is None
    home.remember(hub="zj", region="330000", api_port="8570")
    assert (home.identity("hub"), home.identity("region"), home.identity("api_port")) == ("zj", "330000", "8570")
    monkeypatch.setenv("YICI_HUB", "other")
    assert home.identity("hub") == "other", "the environment comes first"
    (home.path / "hub.json").write_text("[]")
    with pytest.raises(FatalError) as refused:
        home.identity("region")
    assert refused.value.code == "identity-invalid" and "hub.json" in refused.value.message("en")
