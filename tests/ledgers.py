"""The ledger of a hub ``sh`` that exchanges with ``zj``: records signed by both, and a ledger changed behind its back."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import orjson
import sqlalchemy as sa
from joserfc.jwk import OKPKey

from connectors import envelope
from connectors.envelope import Message
from hub import database, home, records
from hub.exchange import checkpoints, entries, keys, ledger, peers
from hub.exchange.peers import Peer
from hub.home import Home
from tests.conftest import _passing

KIND = "index.page"
TABLES = ("exchange_record", "exchange_pending", "exchange_chain", "exchange_checkpoint", "exchange_head")


@contextlib.contextmanager
def acting(folder: Path, name: str, region: str, url: str | None = None) -> Iterator[None]:
    """As the hub ``name`` whose home is ``folder``."""
    told = {"YICI_HOME": str(folder), "YICI_HUB": name, "YICI_REGION": region, "YICI_LANG": "en"}
    with mock.patch.dict(os.environ, {**told, **({"YICI_DATABASE_URL": url} if url else {})}):
        yield


def partner(connection: sa.Connection, folder: Path, name: str = "zj", region: str = "330000") -> Peer:
    """The hub whose home is ``folder`` as a peer."""
    with acting(folder, name, region):
        card = orjson.dumps(peers.card())
    return peers.add(connection, card)


def key_of(folder: Path) -> OKPKey:
    return keys.own(home.Home(folder)).signing(dt.datetime.now(dt.UTC))


def said(
    sender: str, receiver: str, key: OKPKey, body: bytes, reply_to: Message | None = None, status: str = "ok"
) -> Message:
    now = dt.datetime.now(dt.UTC)
    link = {"reply_to": reply_to.envelope.id, "request": reply_to.digest.hex(), "status": status} if reply_to else {}
    told = envelope.of(
        body, id=records.key(now), kind=KIND, sender=sender, receiver=receiver, at=now, type="application/json", **link
    )
    return envelope.signed(told, body, key)


def exchanged(
    connection: sa.Connection, own: OKPKey, other: OKPKey, number: int, peer: str = "zj", outcome: str = "ok"
) -> uuid.UUID:
    """Record one question and its answer; odd ones this hub asked, even ones it answered."""
    asked = bool(number % 2)
    first, second = (own, other) if asked else (other, own)
    one, two = ("sh", peer) if asked else (peer, "sh")
    request = said(one, two, first, b'{"after":%d}' % number)
    reply = said(two, one, second, b'{"entries":%d}' % number, request, outcome)
    return entries.record(
        connection,
        peer=peer,
        direction="asked" if asked else "answered",
        message=request.envelope.id,
        kind=KIND,
        agreement=None,
        outcome=outcome,
        detail={"entries": number, "purpose": "办理"},
        request=request,
        reply=reply,
    )


def filled(engine: sa.Engine, folder: Path, count: int = 12, every: int = 4) -> list[uuid.UUID]:
    """A ledger of ``count`` records with ``zj``, signed after each ``every``; their ids in order."""
    own, other = key_of(home.current().path), key_of(folder)
    made = []
    for number in range(count):
        with engine.begin() as connection:
            made.append(exchanged(connection, own, other, number))
        time.sleep(0.002)  # ids of one millisecond sort as they like
        if (number + 1) % every == 0:
            ledger.chain(engine)
    ledger.chain(engine)
    return made


@dataclass
class Kept:
    """A store of ``sh`` whose ledger is kept aside as it was. ``made``: the ids of its records; ``folder``: of both homes."""

    engine: sa.Engine
    folder: Path
    made: list[uuid.UUID]

    def restore(self) -> None:
        for table in TABLES:
            changed(self.engine, f"DELETE FROM {table}", f"INSERT INTO {table} TABLE kept_{table}")


@contextlib.contextmanager
def kept(server_home: Home, template: str, folder: Path, count: int) -> Iterator[Kept]:
    """As this hub: ``count`` records with ``zj``, to be changed by tests and put back."""
    with contextlib.contextmanager(_passing)(server_home, template) as url, acting(folder / "sh", "sh", "310000", url):
        database.upgrade()
        engine = database.engine()
        with engine.begin() as connection:
            partner(connection, folder / "zj")
        made = filled(engine, folder / "zj", count)
        changed(engine, *(f"CREATE TABLE kept_{table} AS TABLE {table}" for table in TABLES))
        yield Kept(engine, folder, made)
        engine.dispose()


def plain(engine: sa.Engine, count: int, start: int = 0) -> None:
    """``count`` records without envelopes, each in a transaction of its own."""
    for number in range(start, start + count):
        with engine.begin() as connection:
            detail = {"entries": number}
            entries.record(connection, peer="zj", direction="asked", kind=KIND, outcome="ok", detail=detail)


def many(engine: sa.Engine, count: int) -> None:
    """``count`` records in one statement, with envelopes of the usual length that say nothing; they wait for their places."""
    with engine.begin() as connection:
        connection.execute(
            sa.text("""
            WITH made AS (
              INSERT INTO exchange_record (id, recorded_at, peer, direction, message, kind, outcome, detail, request, reply)
              SELECT CAST(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || right(md5(n || 'a'), 3)
                  || '8' || right(md5(n || 'b'), 15) AS uuid),
                at, 'zj', 'asked', gen_random_uuid(), 'evidence.request', 'ok', '{"fields":["name"]}',
                (SELECT string_agg(md5(n || 'x' || i), '') FROM generate_series(1, 27) AS i),
                (SELECT string_agg(md5(n || 'y' || i), '') FROM generate_series(1, 30) AS i)
              FROM (SELECT n, clock_timestamp() - interval '1 minute' + n * interval '10 microseconds' AS at
                FROM generate_series(1, :count) AS n) AS g
              RETURNING id, recorded_at)
            INSERT INTO exchange_pending (record, recorded_at) SELECT id, recorded_at FROM made"""),
            {"count": count},
        )


@contextlib.contextmanager
def living(at: str) -> Iterator[None]:
    """Records and checkpoints are made at this moment."""
    moment = dt.datetime.fromisoformat(at)

    class Then(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            return moment

    told = SimpleNamespace(datetime=Then, UTC=dt.UTC)
    with mock.patch.object(entries, "dt", told), mock.patch.object(checkpoints, "dt", told):
        yield


def changed(engine: sa.Engine, *statements: str) -> None:
    """Behind the hub's back."""
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def written_anew(engine: sa.Engine) -> None:
    """What who has the hub's key can do: all places made again from the records as they are now, and signed again."""
    with engine.begin() as connection:
        own = {"hub": "sh"}
        positions = list(connection.scalars(sa.text("SELECT position FROM exchange_checkpoint WHERE hub = :hub"), own))
        connection.execute(sa.text("DELETE FROM exchange_checkpoint WHERE hub = :hub"), own)
        connection.execute(
            sa.text(f"""
            UPDATE exchange_chain AS c SET entry = w.entry, chain = w.chain
            FROM (SELECT position, entry, chained(entry, decode(repeat('00', 32), 'hex')) OVER (ORDER BY position) AS chain
              FROM (SELECT c.position, {entries.digest("r")} AS entry
                FROM exchange_chain AS c JOIN exchange_record AS r ON r.id = c.record) AS e) AS w
            WHERE w.position = c.position""")
        )
        ends = "UPDATE exchange_head SET chain = c.chain FROM exchange_chain AS c WHERE c.position = exchange_head.position"
        connection.execute(sa.text(ends))
        query = sa.text("SELECT position, chain FROM exchange_chain WHERE position = ANY(:positions) ORDER BY position")
        for row in connection.execute(query, {"positions": positions}).all():
            checkpoints.sign(connection, row.position, row.chain)
