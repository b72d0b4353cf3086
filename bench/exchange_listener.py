"""``yici exchange serve`` with something left out, to measure what that costs: ``python -m bench.exchange_listener LESS PORT``.

``LESS``: ``trust`` (no signature is made or verified, no repeat is looked for, nothing goes into the ledger; who asks is whose
certificate it is, and the reply is the body alone), ``writes`` (neither is it written down who was given what: nothing is written
at all), ``ledger`` (messages are signed, verified and carried out once, but neither recorded nor chained).
"""

from __future__ import annotations

import datetime as dt
import sys
from typing import Any

import sqlalchemy as sa

from connectors import envelope
from connectors.errors import FatalError
from hub import evidence
from hub.exchange import ledger, peers, serve, service


def plain(engine: sa.Engine, wire: bytes, shown: str | None, came: dt.datetime | None = None) -> bytes:
    """The body that the kind's handler answers with: agreement and holding are looked at as ever."""
    now = dt.datetime.now(dt.UTC)
    message = envelope.read(wire)
    asked = message.envelope
    with engine.begin() as connection:
        peer = peers.find(connection, asked.sender)
        if peer is None or peer.removed or shown not in peers.fingerprints(peer, now):
            raise FatalError("certificate-foreign", peer=asked.sender)
        kind = service.KINDS[asked.kind]
        agreement = service._agreed(connection, peer, asked, kind, now)
        deadline = now + service.LONGEST
        return kind.handler(service.Context(connection, peer, message, message.body, agreement, now, deadline)).body


def keeping(connection: sa.Connection, *, kept: bytes | None = None, **told: Any) -> None:
    """Of a record only the reply that stays for a repeat."""
    if kept is not None:
        connection.execute(_KEEP, {"peer": told["peer"], "message": told["message"], "kept": kept})


def without(less: str) -> None:
    """From now on this process does without ``less``."""

    def nothing(*_: Any, **__: Any) -> None:
        return None

    if less == "ledger":
        for name, instead in (("record", keeping), ("head", nothing), ("witness", nothing)):
            setattr(ledger, name, instead)
    elif less in ("trust", "writes"):
        service.receive = plain
        if less == "writes":
            evidence.record = nothing
    else:
        raise SystemExit(f"without what? {less}")
    ledger.Chainer._once = nothing  # type: ignore[method-assign]


_KEEP = sa.text("UPDATE exchange_message SET reply = :kept WHERE peer = :peer AND message = :message").bindparams(
    sa.bindparam("message", type_=sa.Uuid())
)

if __name__ == "__main__":
    without(sys.argv[1])
    serve.serve("127.0.0.1", int(sys.argv[2]))
