"""Two hubs beside each other for a measurement: their listeners are processes of their own, an agreement lets one read the
other's index.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

import orjson

ROOT = Path(__file__).parent.parent
WAIT = 120.0  # seconds for a listener
Variables = Mapping[str, str]  # of the environment of a hub


@contextlib.contextmanager
def exchanging(provider: Variables, receiver: Variables, materials: Sequence[str]) -> Iterator[str]:
    """The reference of an agreement in force; both hubs answer as long as it lasts. Their stores are migrated already."""
    from hub.exchange import agreement_acts

    with contextlib.ExitStack() as stack:
        cards = [stack.enter_context(_served(variables)) for variables in (provider, receiver)]
        _introduce(provider, cards[1])
        _introduce(receiver, cards[0])
        terms = Path(provider["YICI_HOME"]) / "terms.json"
        terms.write_text(json.dumps(_terms(provider, receiver, materials)), encoding="utf-8")
        with mock.patch.dict(os.environ, provider):
            reference = agreement_acts.propose(receiver["YICI_HUB"], terms, "bench").agreement
        with mock.patch.dict(os.environ, receiver):
            done = agreement_acts.accept(uuid.UUID(reference.partition("/")[0]), "bench")
        if done.problem is not None:
            raise done.problem
        yield reference


@contextlib.contextmanager
def _served(variables: Variables) -> Iterator[bytes]:
    """The hub's card, while its listener runs."""
    from hub.exchange import cards, wire
    from hub.home import Home

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = Home(Path(variables["YICI_HOME"]))
    here.create()
    with mock.patch.dict(os.environ, variables):
        cards.settle(exchange_port=str(port))
        card = orjson.dumps(cards.own())
    command = [sys.executable, "-m", "hub", "exchange", "serve", "--port", str(port)]
    environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
    with open(here.path / "exchange.log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        end = time.monotonic() + WAIT
        while not wire.alive(here, port):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit((here.path / "exchange.log").read_text(encoding="utf-8"))
            time.sleep(0.1)
        yield card
    finally:
        process.terminate()
        process.wait(30)


def _introduce(hub: Variables, card: bytes) -> None:
    from hub import database
    from hub.exchange import peers

    with mock.patch.dict(os.environ, hub), database.engine().begin() as connection:
        peers.add(connection, card, replace=True)


def _terms(provider: Variables, receiver: Variables, materials: Sequence[str]) -> dict[str, object]:
    return {
        "provider": provider["YICI_HUB"],
        "receiver": receiver["YICI_HUB"],
        "basis": {"zh": "测量", "en": "a measurement"},
        "scenario": {"zh": "测量", "en": "a measurement"},
        "materials": dict.fromkeys(materials, "*"),
        "regions": [provider["YICI_REGION"]],
        "modes": ["evidence", "index", "share"],
        "purposes": ["measurement"],
        "valid_from": "2020-01-01",
        "valid_to": "2999-12-31",
        "consent": "none",
        "epoch_days": 366,
        "correction": True,
    }
