"""Asking another hub (docs/protocol/10-messages.md): a signed message, a verified reply, a record of it, whatever comes.

The same message goes out again, with the same id, until somebody answers or the time is over: it is carried out once. Whom
nobody reaches is left to rest (:mod:`hub.exchange.reach`). What must not happen twice is in the ledger before it leaves: whatever
ends this process, there is a trace of what may have been carried out.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec
import orjson
import sqlalchemy as sa
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_before_delay, wait_exponential_jitter

from connectors import envelope
from connectors.envelope import OK, PROTOCOL, SKEW, Message
from connectors.errors import FatalError, RetriableError, UsageError, YiciError
from connectors.messages import Language, sentences, text
from hub import database, interrupts, mentions, problems, records, signing
from hub.exchange import agreements, keys, kinds, ledger, peers, reach, wire
from hub.exchange.agreements import Agreement
from hub.exchange.peers import Peer
from hub.exchange.service import JSON

ATTEMPTS = 8
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds, growing, with jitter
SENT = "sent"  # outcome of the record before a question leaves: what came of it is the next one of this message
INTERRUPTED = "interrupted"  # outcome: whoever asked waits no more, and heard nothing
T = TypeVar("T")


class PartnerProblem(FatalError):
    """The partner refuses: asking the same again does not help. ``values``: ``peer``, ``code``, ``fault``, ``reason``; ``told``: what
    the partner filled in."""


class PartnerFailed(RetriableError):
    """The partner could not; it may later. ``values`` as :class:`PartnerProblem`."""


class _Problem(msgspec.Struct):
    code: str
    fault: Literal["caller", "hub", "partner"]
    values: dict[str, str | int | float | bool | None] = {}


@dataclass
class _Asked:
    """One question and how it goes. ``once``: it must not happen twice. ``ended``: what came of it is recorded."""

    peer: Peer
    members: Mapping[str, Any]
    body: bytes
    message: Message
    once: bool
    reply: Message | None = None
    attempts: int = 0
    ended: bool = False


def ask(
    peer: str,
    kind: str,
    body: bytes | Mapping[str, Any],
    *,
    agreement: Agreement | None = None,
    purpose: str | None = None,
    case: str | None = None,
    seconds: float = 30.0,
    type: str = JSON,
    deadline: dt.datetime | None = None,
    head: bool = True,
) -> Message:
    """The reply of ``peer``, verified, its status ``ok``. All is recorded, also when this is interrupted. ``head``: whether the
    question tells the end of this hub's chain.

    At most ``seconds``, and not beyond ``deadline`` where somebody waits for whoever asks. UsageError ``peer-unknown`` and
    those of :func:`hub.exchange.agreements.admit`. RetriableError ``partner-away``, ``partner-plain``, ``partner-resting``,
    ``deadline-over``, :class:`PartnerFailed`; FatalError ``partner-certificate``, ``message-…`` and ``reply-foreign`` for what
    was no reply of that peer to this message, :class:`PartnerProblem`.
    """
    now = dt.datetime.now(dt.UTC)
    until = now + dt.timedelta(seconds=seconds)
    until = min(until, deadline) if deadline else until
    if until <= now:
        raise RetriableError("deadline-over")
    if any(mentions.names_somebody(label) for label in (purpose, case) if label):
        raise UsageError("case-names-somebody")
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    if len(data) > envelope.LIMIT - envelope.LONGEST:
        raise FatalError("body-too-large", limit=envelope.LIMIT - envelope.LONGEST)
    engine = database.engine()
    with engine.begin() as connection:
        known = peers.of(connection, peer)
        _admit(connection, peer, kind, agreement, purpose, now)
        reach.permit(connection, known, now, (until - now).total_seconds())
        members = {
            "kind": kind,
            "sender": signing.own_name(),
            "receiver": peer,
            "type": type,
            "agreement": agreement.reference if agreement else None,
            "purpose": purpose,
            "case": case,
            "deadline": until,
            "head": ledger.head(connection) if head else None,
        }
        asked = _Asked(known, members, data, signed(members, data), kinds.register()[kind].once)
        _sent(connection, asked)
    with _recorded(engine, asked):
        try:
            reply = _answered(engine, asked, until)
        except YiciError as error:
            with engine.begin() as connection:
                if isinstance(error, PartnerProblem) or error.values.get("code") == "internal":  # it lives
                    reach.answered(connection, known, now)
                else:
                    reach.failed(connection, known, dt.datetime.now(dt.UTC))
                _record(connection, asked, str(error.values["code"]) if "code" in error.values else error.code)
            asked.ended = True
            raise
        with engine.begin() as connection:
            if reply.envelope.head is not None:
                ledger.witness(connection, known, reply.envelope.head)
            reach.answered(connection, known, now)
            _record(connection, asked, OK)
        asked.ended = True
    return reply


def _sent(connection: sa.Connection, asked: _Asked) -> None:
    """That it is about to leave, where it must not happen twice: before it does, so that nothing ends this without a trace."""
    if asked.once:
        interrupts.asked.add(asked.peer.name)
        _record(connection, asked, SENT)


@contextmanager
def _recorded(engine: sa.Engine, asked: _Asked) -> Iterator[None]:
    """Record that nobody waits any more for what came of a question, whatever ended that."""
    try:
        yield
    except BaseException:
        if not asked.ended:
            with suppress(sa.exc.SQLAlchemyError), engine.begin() as connection:
                _record(connection, asked, INTERRUPTED)
        raise


def refused(reply: Message, error: YiciError) -> None:
    """Record that a reply, signed by a peer and to the question, was refused all the same for what it says."""
    told = reply.envelope
    with database.engine().begin() as connection:
        ledger.record(
            connection,
            peer=told.sender,
            direction="noted",
            message=told.reply_to,
            kind=told.kind,
            agreement=told.agreement,
            outcome=error.code,
            detail={"reason": error.values["reason"]} if "reason" in error.values else {},
            reply=reply,
        )


@contextmanager
def judged(reply: Message) -> Iterator[None]:
    """:func:`refused` where what is done with ``reply`` ends in an error."""
    try:
        yield
    except YiciError as error:
        refused(reply, error)
        raise


def decoded(reply: Message, kind: type[T]) -> T:
    """The reply's body as JSON of this form. FatalError ``message-body``, recorded."""
    with judged(reply):
        try:
            return msgspec.json.decode(reply.body, type=kind)
        except (ValueError, RecursionError):
            raise FatalError("message-body") from None


def _admit(
    connection: sa.Connection, peer: str, kind: str, agreement: Agreement | None, purpose: str | None, now: dt.datetime
) -> None:
    """What the other side will check, checked here first: nothing leaves that is not agreed."""
    known = kinds.register().get(kind)
    if known is None:
        raise FatalError("kind-unknown", known=", ".join(sorted(kinds.register())))
    if not known.needs_agreement:  # one that is named is what is spoken of
        return
    if agreement is not None:
        agreements.admit(
            connection,
            peer,
            agreement.reference,
            mode=known.mode,
            purpose=purpose,
            provider=agreement.provider,
            now=now,
        )
    else:
        raise UsageError("agreement-unknown")


def signed(members: Mapping[str, Any], body: bytes) -> Message:
    """A new message; ``members``: of its envelope, but ``id`` and ``at``."""
    now = dt.datetime.now(dt.UTC)
    return envelope.signed(envelope.of(body, id=records.key(now), at=now, **members), body, keys.own().signing(now))


def _answered(engine: sa.Engine, asked: _Asked, until: dt.datetime) -> Message:
    """The reply, its status ``ok``, tried until ``until``."""
    retrying = Retrying(
        retry=retry_if_exception_type(RetriableError),
        stop=stop_before_delay((until - dt.datetime.now(dt.UTC)).total_seconds()) | stop_after_attempt(ATTEMPTS),
        wait=wait_exponential_jitter(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE, jitter=FIRST_PAUSE),
        reraise=True,
    )
    reply: Message = retrying(_tried, engine, asked, until)
    return reply


def _tried(engine: sa.Engine, asked: _Asked, until: dt.datetime) -> Message:
    asked.attempts += 1
    asked.reply = None
    try:
        return _once(asked, until)
    except PartnerProblem as problem:
        if problem.values["code"] != "message-repeated" or asked.attempts == 1:
            raise
    # It was carried out, its reply was lost and is not kept: such a question may be asked anew.
    with engine.begin() as connection:
        _record(connection, asked, "message-repeated")
        asked.message, asked.reply = signed(asked.members, asked.body), None
        _sent(connection, asked)
    return _once(asked, until)


def _once(asked: _Asked, until: dt.datetime) -> Message:
    """Each address in turn; the first reply counts, whatever it says."""
    peer, failure = asked.peer, None
    now = dt.datetime.now(dt.UTC)
    for address in peer.addresses:
        left = (until - dt.datetime.now(dt.UTC)).total_seconds()
        if left <= 0:
            break
        try:
            answer = wire.post(
                peer.name, address, keys.own().certificate(now), peers.pems(peer, now), asked.message.wire, left
            )
        except (RetriableError, FatalError) as error:
            failure = failure if isinstance(failure, FatalError) else error
            continue
        return _verified(asked, answer)
    raise failure or RetriableError("partner-away", peer=peer.name, reason="timeout")


def _verified(asked: _Asked, answer: bytes) -> Message:
    reply = envelope.read(answer)
    asked.reply = reply
    verify(asked.peer, asked.message, reply, dt.datetime.now(dt.UTC))
    if reply.envelope.status != OK:
        raise problem(asked.peer.name, reply)
    return reply


def verify(peer: Peer, question: Message, reply: Message, now: dt.datetime) -> None:
    """That ``reply`` is what ``peer`` replied to ``question``, just now. FatalError ``message-…``, ``protocol-unknown``,
    ``reply-foreign``."""
    told, asked = reply.envelope, question.envelope
    envelope.verify(reply, peers.keys_at(peer, told.at), peer.name)
    if (told.sender, told.receiver) != (peer.name, asked.sender):
        raise FatalError("message-foreign", peer=peer.name)
    if told.protocol != PROTOCOL:
        raise FatalError("protocol-unknown", known=PROTOCOL)
    if (told.reply_to, told.request, told.kind) != (asked.id, question.digest.hex(), asked.kind) or not told.status:
        raise FatalError("reply-foreign", peer=peer.name)
    # A kept reply is as old as its question may be.
    if not asked.at - SKEW <= told.at <= now + SKEW:
        raise FatalError(
            "message-stale", now=now.isoformat(timespec="seconds"), minutes=int(SKEW.total_seconds() // 60)
        )
    if not reply.intact:
        raise FatalError("message-altered", peer=peer.name)


def problem(peer: str, reply: Message) -> YiciError:
    """What a reply says that is not ``ok``: :class:`PartnerProblem`, :class:`PartnerFailed`, or ``message-body``."""
    try:
        told = msgspec.json.decode(reply.body, type=_Problem)
    except (ValueError, RecursionError):
        return FatalError("message-body")
    # It is what the ledger will say came of it.
    if told.code != reply.envelope.status or mentions.names_somebody(told.code):
        return FatalError("message-body")
    known = problems.KINDS.get(told.code)
    # What people have to settle over there stays as it is, however often it is asked.
    passing = told.fault != "caller" and (known is None or known.status >= 500)
    kind, code = (PartnerFailed, "partner-failed") if passing else (PartnerProblem, "partner-refused")
    return kind(
        code, peer=peer, code=told.code, fault=told.fault, reason=reason(told.code, told.values), told=told.values
    )


def reason(code: str, values: Mapping[str, Any], lang: Language | None = None) -> str:
    """The sentence of a partner's ``code`` in this hub's words, as far as it has some; what the partner filled in is shown where
    it names nobody."""
    if code not in sentences():
        return code
    shown = {name: str(value)[:200] for name, value in values.items()}
    if any(mentions.names_somebody(value) or not value.isprintable() for value in shown.values()):
        return code
    try:
        return f"{code}: {text(code, lang, **shown)}"
    except (KeyError, IndexError, ValueError):
        return code


def _record(connection: sa.Connection, asked: _Asked, outcome: str) -> None:
    told = asked.message.envelope
    ledger.record(
        connection,
        peer=asked.peer.name,
        direction="asked",
        message=told.id,
        kind=told.kind,
        agreement=told.agreement,
        outcome=outcome,
        detail={"attempts": asked.attempts, **({"purpose": told.purpose} if told.purpose else {})},
        request=asked.message,
        reply=asked.reply,
    )
