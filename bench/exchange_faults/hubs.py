"""A hub of a schedule: its home and database, its listener, and processes that do something for it, all forked from a warm one."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench import lanes
from bench.exchange_faults import seams
from bench.exchange_faults.board import Board
from bench.exchange_faults.network import HOST, Network
from bench.exchange_faults.seams import Fuse, Place
from bench.exchange_faults.truth import HUBS, REGIONS

HUNG_SECONDS = 90.0
READY_SECONDS = 60.0


@dataclass
class Done:
    """How something that a hub did went. ``ending``: done, error, killed or hung. ``clear``: the error says what to do."""

    what: str
    hub: str
    given: tuple[Any, ...] = ()
    ending: str = "killed"
    value: Any = None
    code: str = ""
    told: str = ""  # the partner's code, where it was the partner that refused
    passing: bool = False  # it may be tried again
    clear: bool = True
    text: str = ""

    @property
    def ok(self) -> bool:
        return self.ending == "done"

    def __str__(self) -> str:
        code = f" {self.code}{f' ({self.told})' if self.told else ''}" if self.code else ""
        return f"{self.hub}: {self.what} {' '.join(map(str, self.given))[:160]}: {self.ending}{code}"


@dataclass
class Hub:
    """``name`` in the folder of a schedule."""

    name: str
    folder: Path
    url: str
    network: Network
    board: Board
    defects: Sequence[Callable[[], None]] = ()
    lies: Sequence[Callable[[], None]] = ()  # of its listener alone
    port: int = 0
    listener: int | None = None
    doing: list[int] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / self.name

    @property
    def place(self) -> Place:
        variables = {
            "YICI_HOME": str(self.home),
            "YICI_DATABASE_URL": self.url,
            "YICI_HUB": self.name,
            "YICI_REGION": REGIONS[self.name],
            "YICI_LANG": "en",
            "YICI_SOURCES": os.environ["YICI_SOURCES"],
            "YICI_WORKERS": "1",
        }
        ports = {other: self.network.ports[self.name, other] for other in HUBS if other != self.name}
        return Place(self.name, variables, ports, self.board, self.folder, self.defects)

    # The listener

    def start(self, *, seconds: float = seams.SECONDS) -> None:
        """Its listener, in a process of its own."""
        if not self.port:
            with socket.socket() as probe:
                probe.bind((HOST, 0))
                self.port = probe.getsockname()[1]
        pid = os.fork()
        if pid == 0:
            self._listen(seconds)
        self.listener = pid
        self.network.route(self.name, self.port)

    def ready(self) -> None:
        """Wait until it listens."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
                return
            if not self.alive() or time.monotonic() > deadline:
                raise SystemExit(f"the listener of {self.name} does not start: {self.log()}")
            time.sleep(0.01)

    def alive(self) -> bool:
        """Whether its listener still runs; one that was killed is put away."""
        if self.listener is None:
            return False
        if os.waitpid(self.listener, os.WNOHANG)[0]:
            self.listener = None
        return self.listener is not None

    def kill(self) -> None:
        """SIGKILL to the listener."""
        if self.alive() and self.listener is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.listener, signal.SIGKILL)
            os.waitpid(self.listener, 0)
            self.listener = None

    def close(self) -> None:
        """Nothing of it lives on."""
        self.kill()
        for group in self.doing:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        self.doing.clear()

    def log(self) -> str:
        path = self.folder / f"{self.name}.log"
        return path.read_text(encoding="utf-8", errors="replace")[-2000:] if path.exists() else ""

    def _listen(self, seconds: float) -> None:
        """In the child: never returns."""
        try:
            self._alone()
            self.listener, place = None, self.place
            seams.install(place, self.board.passed, seconds=seconds)
            from hub.exchange import serve, service

            receive = service.receive

            def received(*given: Any) -> bytes:
                reply = receive(*given)
                self.board.passed("reply")
                return reply

            service.receive = received  # type: ignore[assignment]
            for lie in self.lies:
                lie()
            serve.serve(HOST, self.port)
        except BaseException:
            traceback.print_exc()
        os._exit(1)

    def _alone(self) -> None:
        lanes.child(signal.SIGKILL)
        log = os.open(self.folder / f"{self.name}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False, buffering=1)

    # What it does

    def begin(self, what: str, *given: Any, fuse: Fuse | None = None, seconds: float = seams.SECONDS) -> Doing:
        """Begin to do something in a process of its own (:mod:`bench.exchange_faults.operations`)."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            self._do(what, given, fuse or Fuse(), seconds, writing)
        os.close(writing)
        self.doing.append(pid)
        return Doing(self, pid, reading, Done(what, self.name, given))

    def do(self, what: str, *given: Any, seconds: float = seams.SECONDS) -> Done:
        return together([self.begin(what, *given, seconds=seconds)])[0]

    def _do(self, what: str, given: tuple[Any, ...], fuse: Fuse, seconds: float, pipe: int) -> None:
        """In the child: never returns."""
        try:
            self._alone()
            seams.install(self.place, fuse.passed, seconds=seconds)
            if fuse.at == "stage":
                seams.stages(fuse.passed)
            from bench.exchange_faults import operations

            told = operations.told(what, given, self.place)
            data = json.dumps(told, default=str).encode()
            while data:
                data = data[os.write(pipe, data) :]
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    # What is kept of it

    @contextlib.contextmanager
    def connected(self) -> Iterator[sa.Connection]:
        """Its store, as the harness looks at it."""
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            yield connection

    def rows(self, query: str, **bind: Any) -> list[Any]:
        with self.connected() as connection:
            return list(connection.execute(sa.text(query), bind))

    def secret(self, name: str) -> bytes:
        from hub.home import Home

        return Home(self.home).secret(name, make=False)


@dataclass
class Doing:
    """Something under way."""

    hub: Hub
    pid: int
    reading: int
    done: Done
    said: bytes = b""


def together(doings: Sequence[Doing]) -> list[Done]:
    """Wait until all have ended."""
    deadline = time.monotonic() + HUNG_SECONDS
    rest = {doing.reading: doing for doing in doings}
    while rest:
        ready, _, _ = select.select(list(rest), [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            for doing in rest.values():
                doing.done.ending = "hung"
                os.killpg(doing.pid, signal.SIGKILL)
            ready = list(rest)
        for reading in ready:
            doing = rest[reading]
            if doing.done.ending != "hung" and (data := os.read(reading, 1 << 16)):
                doing.said += data
                continue
            os.close(rest.pop(reading).reading)
            _, status = os.waitpid(doing.pid, 0)
            _ended(doing, status)
    return [doing.done for doing in doings]


def _ended(doing: Doing, status: int) -> None:
    done = doing.done
    doing.hub.doing.remove(doing.pid)
    if done.ending == "hung":
        return
    if doing.said and os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
        for name, value in json.loads(doing.said).items():
            setattr(done, name, value)
    elif not os.WIFSIGNALED(status):
        raise RuntimeError(f"{done.what} of {done.hub} ended by itself, with status {status}: {doing.hub.log()}")
