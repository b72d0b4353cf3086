"""The network between the hubs: a proxy for every directed link, in a process of its own, that does to connections what networks do.

Bytes go through as they are, mutual TLS from end to end: what a proxy cannot see it cannot repeat either. Messages that come
twice or in another order are sent so by a process that has the sender's keys (:mod:`bench.exchange_faults.seams`).
"""

# ruff: noqa: S311 - drawn from a seed so that it comes again, nothing is kept secret with it
from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bench import lanes

HOST = "127.0.0.1"
CHUNK = 1 << 16
Link = tuple[str, str]  # who calls, who is called

# partition: nobody gets through, who was through is cut off. silence: connections are taken and nothing moves in them.
# delay: so many seconds for every piece. reorder: up to so many, other ones for each connection, so that later ones overtake.
# cut: the connection ends after so many bytes in one direction. stall: what comes after them never arrives.
# trickle: in pieces of a few bytes.
KINDS = ("partition", "silence", "delay", "reorder", "cut", "stall", "trickle")


@dataclass(frozen=True)
class Weather:
    """What happens on a link. ``back``: counted on the way back. ``times``: connections that it happens to."""

    kind: str
    seconds: float = 0.0
    count: int = 0  # bytes
    back: bool = False
    times: int = 1

    def __str__(self) -> str:
        if self.kind in ("cut", "stall"):
            return f"{self.kind} after {self.count} bytes {'back' if self.back else 'there'}, {self.times} times"
        return f"{self.kind} {self.seconds:.2f} s" if self.seconds else self.kind


class Network:
    """The proxies as the harness sees them. ``ports``: where each link is taken up."""

    def __init__(self, names: Iterable[str]) -> None:
        links = [(one, other) for one in names for other in names if one != other]
        self._said, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._said.close()
            lanes.child(signal.SIGKILL)
            try:
                asyncio.run(_Proxies(theirs, links).run())
            finally:
                os._exit(0)
        theirs.close()
        self._answers = self._said.makefile("rb")
        self.ports: dict[Link, int] = {(one, other): port for one, other, port in json.loads(self._answers.readline())}

    def route(self, to: str, port: int) -> None:
        """``to`` listens there."""
        self._say(to=to, port=port)

    def set(self, link: Link, weather: Weather, seed: str = "") -> None:
        self._say(link=link, weather=vars(weather), seed=seed)

    def clear(self) -> None:
        """Every link is whole again; connections that were taken stay as they are."""
        self._say(clear=True)

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *given: object) -> None:
        self.close()

    def close(self) -> None:
        self._said.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _say(self, **command: Any) -> None:
        self._said.sendall(json.dumps(command).encode() + b"\n")
        if not self._answers.readline():
            raise RuntimeError("the network is gone")


@dataclass
class _State:
    """One link."""

    weather: Weather | None = None
    rng: random.Random = field(default_factory=random.Random)
    left: int = 0
    open: set[asyncio.StreamWriter] = field(default_factory=set)


@dataclass
class _Way:
    """One connection: bytes that went either way, and what it has drawn."""

    passed: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})
    late: float = 0.0
    stalled: set[bool] = field(default_factory=set)  # ways in which nothing arrives any more


class _Proxies:
    def __init__(self, said: socket.socket, links: list[Link]) -> None:
        self.said, self.links = said, links
        self.states = {link: _State() for link in links}
        self.routes: dict[str, int] = {}

    async def run(self) -> None:
        ports = []
        for one, other in self.links:

            async def taken(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link = (one, other)
            ) -> None:
                await self._taken(link, reader, writer)

            server = await asyncio.start_server(taken, HOST, 0)
            ports.append((one, other, server.sockets[0].getsockname()[1]))
        reader, writer = await asyncio.open_connection(sock=self.said)
        writer.write(json.dumps(ports).encode() + b"\n")
        while line := await reader.readline():
            self._hear(json.loads(line))
            writer.write(b"ok\n")

    def _hear(self, told: dict[str, Any]) -> None:
        match told:
            case {"to": to, "port": port}:
                self.routes[to] = port
            case {"clear": _}:
                for state in self.states.values():
                    state.weather = None
            case {"link": [one, other], "weather": weather, "seed": seed}:
                state = self.states[one, other]
                state.weather, state.rng = Weather(**weather), random.Random(seed)
                state.left = state.weather.times
                if state.weather.kind == "partition":
                    for open_ in list(state.open):
                        _reset(open_)

    async def _taken(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state, way = self.states[link], _Way()
        kind = state.weather.kind if state.weather else ""
        if kind == "partition":
            _reset(writer)
            return
        try:
            there, back = await asyncio.open_connection(HOST, self.routes[link[1]])
        except (OSError, KeyError):  # nobody listens
            _reset(writer)
            return
        if kind == "reorder" and state.weather:
            way.late = state.rng.random() * state.weather.seconds
        state.open |= {writer, back}
        try:
            pumps = [
                asyncio.create_task(self._pump(state, way, reader, back, False)),
                asyncio.create_task(self._pump(state, way, there, writer, True)),
            ]
            done, rest = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if not any(task.result() for task in done):  # one side has ended in order: what is on its way arrives
                done, rest = await asyncio.wait(pumps, timeout=2)
            for task in rest:
                task.cancel()
        finally:
            state.open -= {writer, back}
            for each in (writer, back):
                each.transport.abort() if way.stalled else each.close()

    async def _pump(
        self, state: _State, way: _Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: bool
    ) -> bool:
        """Bytes one way until they end; whether they were cut off."""
        try:
            while data := await reader.read(CHUNK):
                weather = state.weather
                await self._wait(weather, way)
                if back in way.stalled or (weather is not None and weather.kind in ("silence", "partition")):
                    way.stalled.add(back)
                    continue
                if weather is not None and weather.kind in ("cut", "stall") and weather.back == back and state.left > 0:
                    room = weather.count - way.passed[back]
                    if room < len(data):
                        state.left -= 1
                        writer.write(data[: max(0, room)])
                        await writer.drain()
                        way.stalled.add(back)
                        if weather.kind == "cut":
                            return True
                        continue
                way.passed[back] += len(data)
                step = max(1, weather.count) if weather is not None and weather.kind == "trickle" else len(data)
                for start in range(0, len(data), step):
                    writer.write(data[start : start + step])
                    await writer.drain()
                    if step < len(data):
                        await asyncio.sleep(0)
            if back not in way.stalled and writer.can_write_eof():
                writer.write_eof()
        except (OSError, RuntimeError):
            return True
        return False

    async def _wait(self, weather: Weather | None, way: _Way) -> None:
        if way.late:
            await asyncio.sleep(way.late)
            way.late = 0.0
        elif weather is not None and weather.kind == "delay":
            await asyncio.sleep(weather.seconds)


def _reset(writer: asyncio.StreamWriter) -> None:
    """The connection is gone, as far as whoever was on it can tell: RST, not an end in order."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
