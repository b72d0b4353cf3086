"""What becomes of a message of another hub (docs/protocol/10-messages.md): looked at in a fixed order, refused with a code, or
carried out in one transaction with its record and, where it must not happen twice, the reply kept for a repeat.

Nothing is told that is not recorded: refusals are too.
"""

from __future__ import annotations

import datetime as dt
import logging
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import orjson
import sqlalchemy as sa

from connectors import envelope
from connectors.envelope import OK, PROTOCOL, SKEW, Envelope, Message
from connectors.errors import FatalError, UsageError, YiciError
from connectors.messages import advice, text
from hub import mentions, problems, records, signing
from hub.exchange import agreements, ledger, peers, sealing
from hub.exchange.agreement_terms import Mode
from hub.exchange.agreements import Agreement
from hub.exchange.peers import Peer

log = logging.getLogger("yici.exchange")

JSON = "application/json"
UNKNOWN = "-"  # the kind of what could not be read
LONGEST = dt.timedelta(minutes=2)  # that a statement may take, whatever the asker allows
FORGED = ("peer-unknown", "certificate-foreign", "message-signature")
T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """What a handler is given. All it does in the store, it does through ``connection``; it commits nothing itself.

    ``deadline``: when nobody waits any more, by this hub's clock; whoever is asked for the sake of the answer is told of it.
    """

    connection: sa.Connection
    peer: Peer
    message: Message
    body: bytes
    agreement: Agreement | None
    now: dt.datetime
    deadline: dt.datetime

    def decoded(self, kind: type[T]) -> T:
        """The body as JSON of this form. FatalError ``message-body``."""
        try:
            return msgspec.json.decode(self.body, type=kind)
        except (ValueError, RecursionError):
            raise FatalError("message-body") from None


@dataclass(frozen=True)
class Answer:
    """``detail``: what the ledger says of it beside the envelopes: counts, fields; no person."""

    body: bytes
    type: str = JSON
    detail: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, **detail: Any) -> Answer:
        """``value`` as JSON."""
        return cls(msgspec.json.encode(value), detail=detail)


@dataclass(frozen=True)
class Kind:
    """``mode``: what an agreement has to allow. ``once``: must not happen twice, so the reply is kept for a repeat; otherwise a
    repeat is refused. ``provider``: whether the hub that receives the message is the one that gives under the agreement;
    None: either."""

    handler: Callable[[Context], Answer]
    mode: Mode | None = None
    once: bool = False
    needs_agreement: bool = True
    provider: bool | None = True


KINDS: dict[str, Kind] = {}  # filled by hub.exchange.kinds


@dataclass
class _Way:
    """How far a message came. ``first``: it must not happen twice, and was the first with its id to be looked at."""

    first: bool = False


class Repeated(Exception):
    """The message was carried out before; ``wire``: what was replied."""

    def __init__(self, wire: bytes) -> None:
        self.wire = wire


class _Stranger(Exception):
    """The message is of no hub that is known here."""


def receive(engine: sa.Engine, wire: bytes, shown: str | None, came: dt.datetime | None = None) -> bytes:
    """The reply to ``wire``, which ``came`` over TLS with the certificate ``shown`` (fingerprint).

    FatalError ``message-malformed`` when there is nothing to reply to: it is recorded, and said in plain.
    """
    now = dt.datetime.now(dt.UTC)
    came = came or now
    try:
        message = envelope.read(wire)
        if message.envelope.reply_to or message.envelope.request or message.envelope.status:
            raise FatalError("message-malformed")
    except FatalError as error:
        unread(engine, shown, error.code, {"bytes": len(wire)})
        raise
    way = _Way()
    try:
        with engine.begin() as connection:
            return _carried_out(connection, message, shown, now, came, way)
    except Repeated as repeated:
        return repeated.wire
    except _Stranger:
        return _strange(engine, message, shown)
    except YiciError as error:
        return _refused(engine, message, error, shown, way)
    except Exception as error:
        return _refused(engine, message, _classified(error, message.envelope), shown, way)


def unread(engine: sa.Engine, shown: str | None, code: str, detail: dict[str, Any]) -> None:
    """Record that something was refused before it was read; the certificate says whose it was."""
    now = dt.datetime.now(dt.UTC)
    with engine.begin() as connection:
        ledger.record(
            connection,
            peer=_shown(connection, shown, now),
            direction="answered",
            message=None,
            kind=UNKNOWN,
            agreement=None,
            outcome=code,
            detail=detail,
            request=None,
            reply=None,
        )


def _shown(connection: sa.Connection, shown: str | None, now: dt.datetime) -> str:
    """Whose certificate it is, where nothing else is known."""
    known = [pin.peer for pin in peers.pinned(connection, now) if pin.fingerprint == shown]
    return known[0] if known else f"certificate {shown}"


def _carried_out(
    connection: sa.Connection, message: Message, shown: str | None, now: dt.datetime, came: dt.datetime, way: _Way
) -> bytes:
    asked = message.envelope
    peer = admitted(connection, message, shown, now)
    if asked.head is not None:
        ledger.witness(connection, peer, asked.head)
    # Clocks differ by more than most wait: the time that the asker gives counts from when the message came.
    given = asked.deadline - asked.at if asked.deadline else LONGEST
    deadline = (came if asked.deadline else now) + max(min(given, LONGEST), -LONGEST)  # whatever year it names
    kept = _first(connection, message, deadline - now)
    kind = KINDS.get(asked.kind)
    if kind is None:
        raise FatalError("kind-unknown", known=", ".join(sorted(KINDS)))
    way.first = kind.once and kept is None
    # For a repeat as well: what was given while an agreement stood is not given out again once it does not.
    agreement = _agreed(connection, peer, asked, kind, now) if kind.needs_agreement else None
    if kept is not None:
        raise Repeated(sealing.unseal(kept, _about(asked)))
    if deadline <= now:
        raise FatalError("deadline-over")
    answer = kind.handler(Context(connection, peer, message, message.body, agreement, now, deadline))
    if len(answer.body) > envelope.LIMIT - envelope.LONGEST:  # whoever asks would not take it
        raise ValueError(f"{asked.kind}: a reply of {len(answer.body)} bytes")
    reply = _sealed(message, OK, answer.body, answer.type, ledger.head(connection))
    wire = reply.wire
    _record(connection, message, OK, answer.detail, reply, sealing.seal(wire, _about(asked)) if kind.once else None)
    return wire


def admitted(connection: sa.Connection, message: Message, shown: str | None, now: dt.datetime) -> Peer:
    """The peer that sent ``message`` to this hub, now and unaltered, over TLS with the certificate ``shown``.

    FatalError ``peer-unknown``, ``certificate-foreign``, ``message-signature``, ``message-foreign``, ``protocol-unknown``,
    ``message-stale``, ``message-altered``, ``case-names-somebody``.
    """
    told = message.envelope
    peer = peers.find(connection, told.sender)
    if peer is None:
        raise _Stranger
    if peer.removed:
        raise FatalError("peer-unknown", peer=peer.name)
    if shown not in peers.fingerprints(peer, now):
        raise FatalError("certificate-foreign", peer=peer.name)
    envelope.verify(message, peers.keys_at(peer, told.at), peer.name)
    if told.receiver != signing.own_name():
        raise FatalError("message-foreign", peer=peer.name)
    if told.protocol != PROTOCOL:
        raise FatalError("protocol-unknown", known=PROTOCOL)
    if abs(told.at - now) > SKEW:
        raise FatalError(
            "message-stale", now=now.isoformat(timespec="seconds"), minutes=int(SKEW.total_seconds() // 60)
        )
    if not message.intact:
        raise FatalError("message-altered", peer=peer.name)
    if _names_somebody(told):
        raise FatalError("case-names-somebody")
    return peer


def _names_somebody(told: Envelope) -> bool:
    return any(mentions.names_somebody(label) for label in (told.case, told.purpose) if label)


def _first(connection: sa.Connection, message: Message, within: dt.timedelta) -> bytes | None:
    """Only the first to come does it; another waits for its end. Statements take no longer than ``within``.

    None for the first, else the reply as it is kept. FatalError ``message-repeated`` where none is, or it is another message.
    """
    told = message.envelope
    bind = {
        "peer": told.sender,
        "message": told.id,
        "digest": message.digest,
        "milliseconds": str(max(1, int(within.total_seconds() * 1000))),
    }
    if connection.execute(_FIRST, bind).first() is not None:
        return None
    known = connection.execute(_KNOWN, bind).first()
    if known is None or known.digest != message.digest or known.reply is None:
        raise FatalError("message-repeated")
    reply: bytes = known.reply
    return reply


def _agreed(connection: sa.Connection, peer: Peer, asked: Envelope, kind: Kind, now: dt.datetime) -> Agreement:
    sides = (True, False) if kind.provider is None else (kind.provider,)
    refused: UsageError | None = None
    for provider in sides:
        try:
            return agreements.admit(
                connection,
                peer.name,
                asked.agreement,
                mode=kind.mode,
                purpose=asked.purpose,
                provider=provider,
                now=now,
            )
        except UsageError as error:
            if refused is None or refused.code == "agreement-unknown":
                refused = error
    raise refused or UsageError("agreement-unknown")


def _classified(error: Exception, asked: Envelope) -> YiciError:
    """What a partner may know of an error that no handler named: whether to try again."""
    cause = getattr(error, "orig", error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    state = getattr(cause, "sqlstate", None)
    # Only where it happened: a message or a traceback could carry what was sent.
    log.error("%s %s at %s:%s", type(cause).__name__, state or "", frame.filename, frame.lineno)
    if state == "57014" and asked.deadline is not None:  # query_canceled
        return FatalError("deadline-over")
    if isinstance(error, sa.exc.OperationalError | sa.exc.TimeoutError | sa.exc.InterfaceError):
        return FatalError("store-unavailable")
    return FatalError("internal")


def _refused(engine: sa.Engine, message: Message, error: YiciError, shown: str | None, way: _Way) -> bytes:
    """The reply that says so, once it is recorded; what cannot be recorded is said to be the store's.

    Whoever hears that something that must not happen twice is refused for good relies on it: a copy that comes later, when
    it might be carried out, gets the same reply.
    """
    code = problems.code_of(error)
    known = problems.KINDS[code]
    for_good = way.first and (known.fault == "caller" or known.status < 500)
    if code == "internal" and error.code != "internal":
        log.error("%s", error.code)
    try:
        with engine.begin() as connection:
            if for_good:
                try:
                    other = _first(connection, message, LONGEST)
                except FatalError:  # another message under this id was carried out meanwhile
                    for_good = False
                else:
                    if other is not None:  # a copy was
                        return sealing.unseal(other, _about(message.envelope))
            reply = _problem(message, code, error, ledger.head(connection))
            # Whose certificate it came under, where that need not be the sender's.
            detail = {"certificate": shown} if code in FORGED else {}
            kept = sealing.seal(reply.wire, _about(message.envelope)) if for_good else None
            _record(connection, message, code, detail, reply, kept)
    except sa.exc.SQLAlchemyError as failure:
        log.error("a refusal was not recorded: %s", type(failure).__name__)
        reply = _problem(message, "store-unavailable", error, None)
    return reply.wire


def _strange(engine: sa.Engine, message: Message, shown: str | None) -> bytes:
    """The reply that the sender is no peer; what it calls itself is kept nowhere, nor told back but as whom it is for."""
    error = FatalError("peer-unknown", peer="…")
    try:
        with engine.begin() as connection:
            reply = _problem(message, error.code, error, ledger.head(connection))
            ledger.record(
                connection, peer=_shown(connection, shown, dt.datetime.now(dt.UTC)), direction="answered",
                message=message.envelope.id, kind=message.envelope.kind, outcome=error.code,
            )  # fmt: skip
    except sa.exc.SQLAlchemyError as failure:
        log.error("a refusal was not recorded: %s", type(failure).__name__)
        reply = _problem(message, "store-unavailable", error, None)
    return reply.wire


def _problem(message: Message, code: str, error: YiciError, head: dict[str, Any] | None) -> Message:
    known = problems.KINDS[code]
    values: Mapping[str, object] = error.values if code == error.code and known.fault == "caller" else {}
    shown = {name: value if isinstance(value, int) else str(value) for name, value in values.items()}
    sentences = (text(code, "en", **shown), advice(code, "en", **shown))
    told = {"code": code, "fault": known.fault, "detail": " ".join(filter(None, sentences)), "values": shown}
    return _sealed(message, code, orjson.dumps(told), JSON, head)


def _sealed(message: Message, status: str, body: bytes, kind: str, head: dict[str, Any] | None) -> Message:
    """The reply to ``message``, signed."""
    asked, now = message.envelope, dt.datetime.now(dt.UTC)
    told = envelope.of(
        body,
        id=records.key(now),
        kind=asked.kind,
        sender=signing.own_name(),
        receiver=asked.sender,
        at=now,
        type=kind,
        agreement=asked.agreement,
        reply_to=asked.id,
        request=message.digest.hex(),
        status=status,
        head=head,
    )
    return envelope.signed(told, body, peers.own_key(now))


def _record(
    connection: sa.Connection,
    message: Message,
    outcome: str,
    detail: dict[str, Any],
    reply: Message,
    kept: bytes | None = None,
) -> uuid.UUID:
    asked = message.envelope
    named = _names_somebody(asked)  # that is not kept, nor is the envelope (hub/exchange/entries.py)
    return ledger.record(
        connection,
        peer=asked.sender,
        direction="answered",
        message=asked.id,
        kind=asked.kind,
        agreement=asked.agreement,
        outcome=outcome,
        detail={**({"purpose": asked.purpose} if asked.purpose and not named else {}), **detail},
        request=message,
        reply=reply,
        kept=kept,
    )


def _about(told: Envelope) -> str:
    """What a kept reply is bound to."""
    return f"{told.sender} {told.id}"


_FIRST = sa.text("""
INSERT INTO exchange_message (peer, message, digest)
SELECT :peer, :message, :digest FROM set_config('statement_timeout', :milliseconds, true)
ON CONFLICT DO NOTHING RETURNING message
""").bindparams(sa.bindparam("message", type_=sa.Uuid()))
_KNOWN = sa.text("SELECT digest, reply FROM exchange_message WHERE peer = :peer AND message = :message").bindparams(
    sa.bindparam("message", type_=sa.Uuid())
)
