"""Two hubs that know each other, each with its home and database; their listeners are processes of their own."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import sqlalchemy as sa

from connectors import envelope
from connectors.envelope import Message
from hub import database, embedded, records
from hub.exchange import cards, keys, kinds, peers, wire
from hub.home import Home
from tests import exchange_server
from tests.conftest import ROOT, _database

NAMES = {"sh": "310000", "zj": "330000"}


class Hub:
    """One hub. Inside ``acting()`` this process is it; ``serving()`` runs its listener."""

    def __init__(self, folder: Path, name: str, database_url: str) -> None:
        self.name, self.home = name, Home(folder / name)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"https://127.0.0.1:{self.port}"
        self.variables = {
            "YICI_HOME": str(self.home.path),
            "YICI_DATABASE_URL": database_url,
            "YICI_HUB": name,
            "YICI_REGION": NAMES[name],
            "YICI_LANG": "en",
        }
        self.process: subprocess.Popen[bytes] | None = None
        with mock.patch.dict(os.environ, self.variables):
            database.upgrade()  # keeps the fingerprint of this home's key
            cards.settle(title=f"Hub {name}", exchange_addresses=self.address)

    @contextlib.contextmanager
    def acting(self) -> Iterator[sa.Engine]:
        with mock.patch.dict(os.environ, self.variables):
            yield database.engine()

    def card(self) -> bytes:
        with self.acting():
            return json.dumps(cards.own()).encode()

    def knows(self, other: Hub) -> None:
        with self.acting() as engine, engine.begin() as connection:
            peers.add(connection, other.card(), replace=True)

    def peer(self, name: str) -> peers.Peer:
        with self.acting() as engine, engine.connect() as connection:
            found = peers.find(connection, name)
        assert found is not None
        return found

    def key(self) -> Any:
        return keys.own(self.home).signing(dt.datetime.now(dt.UTC))

    def certificate(self) -> Path:
        return keys.own(self.home).certificate(dt.datetime.now(dt.UTC))

    def start(self, *, module: str = "tests.exchange_server") -> None:
        self.home.create()
        command = [sys.executable, "-m", module, str(self.port)]
        with open(self.home.path / "exchange.log", "ab") as log:
            environment = {**os.environ, **self.variables, "PYTHONPATH": str(ROOT)}
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=ROOT)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            assert self.process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def stop(self, *, kill: bool = False) -> None:
        if self.process is not None:
            (self.process.kill if kill else self.process.terminate)()
            self.process.wait(20)
            self.process = None

    def log(self) -> str:
        return (self.home.path / "exchange.log").read_text(encoding="utf-8")

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        self.start()
        try:
            yield
        finally:
            self.stop()

    def rows(self, query: str, **values: Any) -> list[Any]:
        with self.acting() as engine, engine.connect() as connection:
            return list(connection.execute(sa.text(query), values))

    def outcomes(self, message: uuid.UUID | None, direction: str = "answered") -> list[str]:
        """Of the records about a message, in order."""
        query = (
            "SELECT outcome FROM exchange_record WHERE message IS NOT DISTINCT FROM :id AND direction = :d ORDER BY id"
        )
        return [row.outcome for row in self.rows(query, id=message, d=direction)]


def question(sender: Hub, receiver: Hub, kind: str = "test.echo", body: bytes = b"{}", /, **members: Any) -> Message:
    """A message of ``sender``, signed with its key or that of ``members["key"]``."""
    key = members.pop("key", None) or sender.key()
    now = dt.datetime.now(dt.UTC)
    told: dict[str, Any] = {
        "id": records.key(now), "kind": kind, "sender": sender.name, "receiver": receiver.name, "at": now,
        "type": "application/json", **members,
    }  # fmt: skip
    return envelope.signed(envelope.of(body, **told), body, key)


def send(sender: Hub, receiver: Hub, data: Message | bytes, *, own: Path | None = None, pems: Any = None) -> Message:
    """What ``receiver`` replies to these bytes, sent with the certificate of ``sender`` or ``own``; nothing is verified."""
    if pems is None:
        pems = [keys.own(receiver.home).certificates[0].public]
    data = data.wire if isinstance(data, Message) else data
    return envelope.read(wire.post(receiver.name, receiver.address, own or sender.certificate(), pems, data, 20))


def problem(reply: Message) -> dict[str, Any]:
    """The problem of a reply that is not ``ok``."""
    told: dict[str, Any] = json.loads(reply.body)
    assert told["code"] == reply.envelope.status and told["fault"] in ("caller", "hub", "partner") and told["detail"]
    return told


@contextlib.contextmanager
def two_hubs(server_home: Home, template: str, folder: Path) -> Iterator[tuple[Hub, Hub]]:
    """Shanghai's and Zhejiang's, peers of each other, on databases of the session's server, copied from ``template``."""
    kinds.register().update(exchange_server.KINDS)
    folder.chmod(0o711)
    admin = sa.create_engine(embedded.url(server_home, "postgres"), isolation_level="AUTOCOMMIT")
    with contextlib.ExitStack() as stack:
        hubs = []
        for name in NAMES:
            database_name = f"exchange_{name}_{uuid.uuid4().hex}"
            url = stack.enter_context(_database(server_home, database_name, template))
            hubs.append(Hub(folder, name, url))
        hubs[0].knows(hubs[1])
        hubs[1].knows(hubs[0])
        try:
            yield hubs[0], hubs[1]
        finally:
            for hub in hubs:
                hub.stop()
                with hub.acting() as engine:
                    engine.dispose()
                with admin.connect() as connection:
                    name = sa.make_url(hub.variables["YICI_DATABASE_URL"]).database
                    connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
            admin.dispose()
