"""Two hubs beside each other for a measurement: each with a home and a database, their listeners processes of their own, an
agreement that lets one ask the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import orjson
import sqlalchemy as sa

from bench import measuring
from hub.home import Home

ROOT = Path(__file__).parent.parent
WAIT = 120.0  # seconds for a listener
Variables = Mapping[str, str]  # of the environment of a hub


@contextlib.contextmanager
def exchanging(
    provider: Variables, receiver: Variables, materials: Sequence[str], regions: Sequence[str] = ()
) -> Iterator[str]:
    """The reference of an agreement in force; both hubs answer as long as it lasts. Their stores are migrated already.
    ``regions``: which of the provider's; by default all."""
    from hub.exchange import agreement_acts

    with contextlib.ExitStack() as stack:
        cards = [stack.enter_context(_served(variables)) for variables in (provider, receiver)]
        _introduce(provider, cards[1])
        _introduce(receiver, cards[0])
        terms = Path(provider["YICI_HOME"]) / "terms.json"
        terms.write_text(json.dumps(_terms(provider, receiver, materials, regions)), encoding="utf-8")
        with acting(provider):
            reference = agreement_acts.propose(receiver["YICI_HUB"], terms, "bench").agreement
        with acting(receiver):
            done = agreement_acts.accept(uuid.UUID(reference.partition("/")[0]), "bench")
        if done.problem is not None:
            raise done.problem
        yield reference


@contextlib.contextmanager
def hub(here: Home, name: str, hub: str, region: str) -> Iterator[Variables]:
    """A hub with a home of its own and an empty, migrated database ``name`` on the server of ``here``."""
    from hub import database

    folder = Path(tempfile.mkdtemp(prefix=f"yici-{hub}-"))
    try:
        with measuring.database(here, f"bench_{name}") as url:
            variables = {"YICI_HOME": str(folder), "YICI_DATABASE_URL": url, "YICI_HUB": hub, "YICI_REGION": region}
            with acting(variables):
                database.upgrade()
            yield variables
            with acting(variables):
                database.engine().dispose()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def acting(hub: Variables) -> Iterator[None]:
    """This process is that hub."""
    with mock.patch.dict(os.environ, hub):
        yield


@dataclass
class Wire:
    """What went over it."""

    bytes: int = 0
    messages: int = 0


@contextlib.contextmanager
def wired() -> Iterator[Wire]:
    """Counts messages that this process asks of hubs, both ways, as HTTP bodies."""
    from hub.exchange import wire

    counted, post, alone = Wire(), wire.post, threading.Lock()

    def counting(
        peer: str, address: str, own: Path, pems: Sequence[str], sent: bytes, *more: Any, **named: Any
    ) -> bytes:
        answer = post(peer, address, own, pems, sent, *more, **named)
        with alone:
            counted.bytes += len(sent) + len(answer)
            counted.messages += 1
        return answer

    with mock.patch.object(wire, "post", counting):
        yield counted


def store(hub: Variables) -> sa.Engine:
    """The engine of that hub's database, which the whole process shares."""
    from hub import database

    with acting(hub):
        return database.engine()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def listening(hub: Variables, command: Sequence[str], port: int) -> Iterator[None]:
    """``command`` (arguments of Python) as a process, from when it answers on ``port`` as a listener of ``hub``."""
    from hub.exchange import wire

    here = Home(Path(hub["YICI_HOME"]))
    log = here.path / f"exchange-{port}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, *command], env={**os.environ, **hub, "PYTHONPATH": str(ROOT)}, stdout=errors, stderr=errors
        )
    try:
        end = time.monotonic() + WAIT
        while not wire.alive(here, port):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(log.read_text(encoding="utf-8"))
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def _served(hub: Variables) -> Iterator[bytes]:
    """The hub's card, while its listener runs."""
    from hub.exchange import cards

    port = free_port()
    Home(Path(hub["YICI_HOME"])).create()
    with acting(hub):
        cards.settle(exchange_port=str(port))
        card = orjson.dumps(cards.own())
    with listening(hub, ["-m", "hub", "exchange", "serve", "--port", str(port)], port):
        yield card


def _introduce(hub: Variables, card: bytes) -> None:
    from hub import database
    from hub.exchange import peers

    with acting(hub), database.engine().begin() as connection:
        peers.add(connection, card, replace=True)


def _terms(
    provider: Variables, receiver: Variables, materials: Sequence[str], regions: Sequence[str]
) -> dict[str, object]:
    return {
        "provider": provider["YICI_HUB"],
        "receiver": receiver["YICI_HUB"],
        "basis": {"zh": "测量", "en": "a measurement"},
        "scenario": {"zh": "测量", "en": "a measurement"},
        "materials": dict.fromkeys(materials, "*"),
        "regions": list(regions) or [provider["YICI_REGION"]],
        "modes": ["evidence", "index", "share"],
        "purposes": ["measurement"],
        "valid_from": "2020-01-01",
        "valid_to": "2999-12-31",
        "consent": "none",
        "epoch_days": 366,
        "correction": True,
    }
