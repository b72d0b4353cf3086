"""What is put into the processes of a hub, from the outside of the code under test: where names lead, which clock counts, how
long is waited, where it is killed, what goes out twice; defects and lies.

Only times are shorter than they are in life: waiting for somebody who is away is most of what retries do.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import urllib3

from bench.exchange_faults import board as boards
from bench.exchange_faults.board import Board
from bench.exchange_faults.network import HOST

PORT = 8490
SECONDS = 2.0  # for one question, while there are faults
PATIENT = 20.0  # afterwards
SENT, AGAIN = "sent.jsonl", "again.jsonl"
STAGES = ("fetch", "map_and_gate", "gate_batch", "merge", "publish")
_ADDRESSES = socket.getaddrinfo


def address(name: str) -> str:
    """Where a hub says that it is reached. What it leads to is the link from whoever asks."""
    return f"https://{name}.hub.example:{PORT}"


@dataclass(frozen=True)
class Place:
    """A hub in a schedule, as its processes find it. ``ports``: where it reaches others; ``sent``: the folder in which what was
    sent is kept."""

    name: str
    variables: Mapping[str, str]
    ports: Mapping[str, int]
    board: Board
    sent: Path
    defects: Sequence[Callable[[], None]] = ()


@dataclass
class Fuse:
    """Kills the process that does something for the hub. ``at``: the point, ``statement``, ``commit``, ``post`` (before or after a
    message goes out), ``stage`` (where one of a run begins or ends); the ``count``-th time."""

    at: str = ""
    count: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def passed(self, point: str) -> None:
        if point == self.at:
            with self._guard:
                self.count -= 1
                over = self.count == 0
            if over:
                boards.die()


def install(place: Place, passed: Callable[[str], None], *, seconds: float = SECONDS) -> None:
    """In a process of the hub ``place``. ``passed``: told of each point; ``seconds``: for one question."""
    for name in [name for name in os.environ if name.startswith("YICI_")]:
        del os.environ[name]
    os.environ.update(place.variables)
    boards.live_by(place.board)
    _names(place.ports)
    _times(seconds)
    _points(passed)
    _sending(place, passed)
    for defect in place.defects:
        defect()


def _names(ports: Mapping[str, int]) -> None:
    known = {address(name).removeprefix("https://").partition(":")[0]: port for name, port in ports.items()}

    def resolved(host: Any, port: Any, *given: Any, **more: Any) -> Any:
        if host in known:
            return _ADDRESSES(HOST, known[host], *given, **more)
        return _ADDRESSES(host, port, *given, **more)

    socket.getaddrinfo = resolved


def _times(seconds: float) -> None:
    from hub.exchange import (
        caller,
        checkpoints,
        evidence_asking,
        ledger,
        reach,
        reconciliation_asking,
        serve,
        upkeep,
        wire,
    )

    caller.ATTEMPTS, caller.FIRST_PAUSE, caller.LONGEST_PAUSE = 4, 0.05, 0.3
    reach.SECONDS, reach.LONGEST = 0.2, 0.4
    wire.CONNECT_SECONDS = seconds
    reconciliation_asking.SECONDS = evidence_asking.LONGEST = seconds
    checkpoints.FRESH = 0.2
    ledger.Chainer = functools.partial(ledger.Chainer, seconds=0.4)  # type: ignore[misc,assignment]
    serve.Upkeep = functools.partial(upkeep.Upkeep, 0.7)  # type: ignore[misc,assignment]
    ask = caller.ask

    def briefly(*given: Any, **more: Any) -> Any:
        return ask(*given, **{**more, "seconds": min(more.get("seconds", seconds), seconds)})

    caller.ask = briefly


def _points(passed: Callable[[str], None]) -> None:
    def statement(*context: Any) -> None:
        passed(_kind("statement"))

    def commit(*context: Any) -> None:
        passed(_kind("commit"))

    sa.event.listen(sa.Engine, "before_cursor_execute", statement)
    sa.event.listen(sa.Engine, "commit", commit)


def stages(passed: Callable[[str], None]) -> None:
    """Where a stage of a run begins or ends is a point too."""
    from hub import pipeline

    def staged(stage: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(stage)
        def between(*given: Any, **more: Any) -> Any:
            passed("stage")
            done = stage(*given, **more)
            passed("stage")
            return done

        return between

    for name in STAGES:
        setattr(pipeline, name, staged(getattr(pipeline, name)))


def _kind(point: str) -> str:
    """The ledger is chained by a thread of its own in a listener, beside what is answered; what goes on beside that is no point."""
    name = threading.current_thread().name
    return {"yici-ledger": "chain", "yici-exchange-upkeep": ""}.get(
        name, "" if name.startswith("exchange-tls") else point
    )


def _sending(place: Place, passed: Callable[[str], None]) -> None:
    """Every message that goes out is kept as it went, and goes out twice while the board says so."""
    from hub.exchange import wire

    post = wire.post

    def sent(peer: str, address: str, own: Path, pems: Any, message: bytes, seconds: float, *more: Any) -> bytes:
        keep(place, peer, message)
        passed("post")
        beside = None
        if place.board.sent == "beside":
            beside = threading.Thread(
                target=_once_more, args=(place, peer, address, own, pems, message, seconds), daemon=True
            )
            beside.start()
        try:
            answer = post(peer, address, own, pems, message, seconds, *more)
        finally:
            if beside is not None:
                beside.join(seconds)
            if place.board.sent == "again":
                _once_more(place, peer, address, own, pems, message, seconds)
        passed("post")
        return answer

    wire.post = sent  # type: ignore[assignment]


def keep(place: Place, peer: str, message: bytes) -> None:
    _append(place, SENT, {"to": peer, "message": base64.b64encode(message).decode()})


def kept(place: Place) -> list[tuple[str, bytes]]:
    """All that the hub has sent in this schedule: to whom, and what."""
    return [(told["to"], base64.b64decode(told["message"])) for told in _lines(place, SENT)]


def answered_again(place: Place) -> list[dict[str, Any]]:
    """What was answered to messages that went out twice, as :func:`said_of` tells it."""
    return _lines(place, AGAIN)


def said_of(peer: str, message: bytes, answer: bytes) -> dict[str, Any]:
    """Who answered which message how. FatalError when it is no signed reply."""
    from connectors import envelope

    asked, reply = envelope.read(message).envelope, envelope.read(answer)
    digest = sha256(reply.sealed.encode()).hexdigest()
    return {"to": peer, "id": str(asked.id), "kind": asked.kind, "status": reply.envelope.status, "reply": digest}


def _append(place: Place, file: str, told: Mapping[str, Any]) -> None:
    descriptor = os.open(place.sent / f"{place.name}.{file}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps(told).encode() + b"\n")
    finally:
        os.close(descriptor)


def _lines(place: Place, file: str) -> list[dict[str, Any]]:
    path = place.sent / f"{place.name}.{file}"
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def _once_more(place: Place, peer: str, address: str, own: Path, pems: Any, message: bytes, seconds: float) -> None:
    """Whatever comes of it, it changes nothing for who sent the message; what was answered is kept."""
    from connectors.errors import FatalError

    with contextlib.suppress(urllib3.exceptions.HTTPError, OSError, FatalError):
        _append(place, AGAIN, said_of(peer, message, again(peer, address, own, pems, message, seconds)))


def again(peer: str, address: str, own: Path, pems: Sequence[str], message: bytes, seconds: float) -> bytes:
    """``message`` as it is over a connection of its own, with the sender's certificate: as a network might repeat it that can
    see into it. What is answered. HTTPError, OSError."""
    from connectors import envelope
    from hub.exchange import cards, tls, wire

    host, port = cards.address_of(address)
    context = tls.client_context(own, pems)
    with urllib3.HTTPSConnectionPool(host, port, ssl_context=context, assert_hostname=False, retries=False) as pool:
        answer = pool.urlopen("POST", wire.PATH, body=message, headers={"Content-Type": envelope.MEDIA_TYPE},
                              timeout=seconds, redirect=False)  # fmt: skip
        return bytes(answer.data)
