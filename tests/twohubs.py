"""Two hubs in one process, each with its home and database: what one sends is carried to the other's receiver as it is.

Everything but the network is real: messages are signed, verified, recorded and kept. ``wire`` says what becomes of one.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import orjson
import sqlalchemy as sa

from connectors import envelope
from connectors.errors import FatalError, RetriableError
from hub import database, embedded
from hub.exchange import agreement_acts, agreements, caller, certificates, keys, kinds, peers, service, wire
from hub.exchange.agreement_acts import Done
from hub.exchange.agreements import Agreement
from hub.home import Home
from tests import terms
from tests.emptying import empty

TABLES = "exchange_agreement, exchange_message, exchange_record, exchange_pending, exchange_chain, exchange_checkpoint"
REGIONS = {"zj": "330000", "sh": "310000", "js": "320000"}


@dataclass
class Hub:
    """Inside ``acting()`` this process is it. ``away``: nobody reaches it."""

    name: str
    variables: dict[str, str]
    away: bool = False

    @contextmanager
    def acting(self) -> Iterator[sa.Engine]:
        with mock.patch.dict(os.environ, self.variables):
            yield database.engine()

    @property
    def fingerprint(self) -> str:
        with self.acting():
            return keys.own().certificates[-1].name


@dataclass
class Pair:
    """``fate``: what becomes of a message that is on its way, by default that it arrives and its reply comes back."""

    hubs: dict[str, Hub]
    fate: Callable[[Hub, bytes, Callable[[], bytes]], bytes] = field(default=lambda to, wire, carry: carry())
    sent: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def zj(self) -> Hub:
        return self.hubs["zj"]

    @property
    def sh(self) -> Hub:
        return self.hubs["sh"]

    @property
    def js(self) -> Hub:
        return self.hubs["js"]

    def post(
        self, peer: str, address: str, own: Path, pems: Any, message: bytes, seconds: float, limit: int = envelope.LIMIT
    ) -> bytes:
        to = self.hubs[peer]
        if to.away:
            raise RetriableError("partner-away", peer=peer, reason="away")
        pem = own.read_text().partition("-----BEGIN CERTIFICATE-----")
        shown = certificates.fingerprint("".join(pem[1:]))
        self.sent.append((peer, message))
        return self.fate(to, message, lambda: self.carry(to, message, shown))

    def carry(self, to: Hub, message: bytes, shown: str) -> bytes:
        with to.acting() as engine:
            return service.receive(engine, message, shown)

    def say(self, sender: Hub, to: Hub, kind: str, body: Any, **members: Any) -> dict[str, Any]:
        """A message that ``sender`` really signs, whatever it says: what the reply says."""
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        told = {"kind": kind, "sender": sender.name, "receiver": to.name, "type": service.JSON, **members}
        with sender.acting():
            message = caller.signed(told, data).wire
        reply = envelope.read(self.carry(to, message, sender.fingerprint))
        return {"status": reply.envelope.status, **orjson.loads(reply.body)}

    def forget(self) -> None:
        for hub in self.hubs.values():
            hub.away = False
            with hub.acting() as engine, engine.begin() as connection:
                empty(connection, TABLES)
                connection.execute(
                    sa.text("UPDATE exchange_head SET position = 0, chain = decode(repeat('00', 32), 'hex')")
                )
                connection.execute(sa.text("UPDATE exchange_peer SET removed_at = NULL"))
        self.rested()
        self.forget_fate()
        self.sent.clear()

    def rested(self) -> None:
        """Peers that failed are called again."""
        for hub in self.hubs.values():
            with hub.acting() as engine, engine.begin() as connection:
                connection.execute(sa.text("UPDATE exchange_peer SET failures = 0, rests_until = NULL"))

    def forget_fate(self) -> None:
        """Messages arrive again."""
        self.fate = lambda to, message, carry: carry()

    def propose(self, by: Hub, to: Hub, **changes: Any) -> Done:
        """What ``by`` proposes, from a file."""
        with tempfile.TemporaryDirectory() as folder, by.acting():
            path = Path(folder) / "agreement.yml"
            path.write_bytes(orjson.dumps(terms.said(**changes)))  # JSON is YAML
            return agreement_acts.propose(to.name, path, "tester")

    def agree(self, by: Hub | None = None, to: Hub | None = None, **changes: Any) -> uuid.UUID:
        """An agreement in force on both sides."""
        by, to = by or self.zj, to or self.sh
        named = agreements.parsed(self.propose(by, to, **changes).agreement)
        assert named is not None
        with to.acting():
            done = agreement_acts.accept(named[0], "tester")
        assert done.state in agreements.LIVE and done.problem is None, done
        return named[0]

    def states(self, named: uuid.UUID) -> dict[str, dict[int, str]]:
        """By hub the state of each version."""
        return {
            hub.name: {row.version: row.state for row in self.rows(hub, named)}
            for hub in self.hubs.values() if hub.name != "js"
        }  # fmt: skip

    def rows(self, hub: Hub, named: uuid.UUID) -> list[Any]:
        with hub.acting() as engine, engine.connect() as connection:
            return agreements.versions(connection, named)

    def agreement(self, hub: Hub, named: uuid.UUID) -> Agreement:
        with hub.acting():
            return agreements.opened(self.rows(hub, named)[0])

    def outcomes(self, hub: Hub, kind: str) -> list[str]:
        """Of the messages of this kind that ``hub`` answered, in their order."""
        query = (
            "SELECT outcome FROM exchange_record WHERE direction = 'answered' AND kind = :kind ORDER BY recorded_at, id"
        )
        with hub.acting() as engine, engine.connect() as connection:
            return list(connection.scalars(sa.text(query), {"kind": kind}))


@contextmanager
def pair(server_home: Home, template: str, names: tuple[str, ...] = ("zj", "sh", "js")) -> Iterator[Pair]:
    """Hubs that are peers of each other, on databases of the session's server."""
    kinds.register()
    admin = sa.create_engine(embedded.url(server_home, "postgres"), isolation_level="AUTOCOMMIT")
    with ExitStack() as stack:
        hubs = {}
        for name in names:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            called = f"hub_{uuid.uuid4().hex}"
            with admin.connect() as connection:
                connection.execute(sa.text(f"CREATE DATABASE {called} TEMPLATE {template}"))
            stack.callback(_drop, admin, called)
            variables = {
                "YICI_HOME": folder,
                "YICI_DATABASE_URL": embedded.url(server_home, called),
                "YICI_HUB": name,
                "YICI_REGION": REGIONS[name],
                "YICI_LANG": "en",
            }
            hubs[name] = Hub(name, variables)
            with hubs[name].acting():
                database.upgrade()
                stack.callback(database.engine().dispose)
        made = Pair(hubs)
        introduce(hubs)
        stack.enter_context(mock.patch.object(wire, "post", made.post))
        stack.enter_context(mock.patch.object(caller, "ATTEMPTS", 1))
        yield made


def introduce(hubs: dict[str, Hub]) -> None:
    """Each takes the cards of all others."""
    cards = {}
    for hub in hubs.values():
        with hub.acting():
            cards[hub.name] = orjson.dumps(peers.card())
    for hub in hubs.values():
        with hub.acting() as engine, engine.begin() as connection:
            for name, card in cards.items():
                if name != hub.name:
                    peers.add(connection, card, replace=True)


def _drop(admin: sa.Engine, name: str) -> None:
    with contextlib.suppress(FatalError), admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
