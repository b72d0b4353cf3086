"""``yici peer check``: from this hub to a peer and back, step by step, and what to do about the first that fails."""

from __future__ import annotations

import datetime as dt
import re
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import sqlalchemy as sa

from connectors import envelope
from connectors.envelope import OK, SKEW, Message
from connectors.errors import FatalError, RetriableError, YiciError
from connectors.fetched import Diagnosis, failed
from connectors.messages import text
from hub import database, signing
from hub.exchange import caller, calls, cards, keys, ledger, peer_messages, peers, reach, tls, wire
from hub.exchange.agreement_states import ENDED
from hub.exchange.peer_messages import Agreed, Checked
from hub.exchange.peers import Peer
from hub.exchange.service import FORGED, JSON

SECONDS = 10.0
LONGEST_LINE = 1024  # bytes of the line an answer begins with
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})\b")


def steps(name: str, *, introduce: bool = False) -> Iterator[Diagnosis]:
    """``name``, ``port``, ``certificate``, ``accepted`` for its addresses until one serves; then ``clock``, ``key``,
    ``message``, ``card`` and every ``agreement``. Ends where going on makes no sense.

    ``introduce``: send this hub's card where the peer has an older one. UsageError ``peer-unknown``.
    """
    with database.engine().connect() as connection:
        peer = peers.of(connection, name)
    for address in peer.addresses:
        reached = True
        for step in _reached(peer, address):
            reached = reached and step.ok
            yield step
        if reached:
            yield from _spoken(peer, address, introduce)
            return


def _reached(peer: Peer, address: str) -> Iterator[Diagnosis]:
    now = dt.datetime.now(dt.UTC)
    host, port = cards.address_of(address)
    step = "name"
    try:
        yield Diagnosis(step, True, f"{host}: {_resolved(peer, host, port)}")
        step = "port"
        with _dialled(peer, host, port) as plain:
            yield Diagnosis(step, True, f"{host}:{port}")
            step = "certificate"
            with _secured(peer, host, port, plain, now) as secured:
                yield Diagnosis(step, True, _shown(secured))
                step = "accepted"
                yield Diagnosis(step, True, _accepted(peer, host, port, secured, keys.own().certificate(now)))
    except YiciError as error:
        yield failed(step, error)


def _resolved(peer: Peer, host: str, port: int) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise RetriableError("check-name", peer=peer.name, host=host) from None
    return ", ".join(sorted({str(entry[4][0]) for entry in found}))


def _dialled(peer: Peer, host: str, port: int) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout=SECONDS)
    except OSError as error:
        reason = type(error).__name__
        raise RetriableError("check-port", peer=peer.name, host=host, port=port, reason=reason) from None


def _secured(peer: Peer, host: str, port: int, plain: socket.socket, now: dt.datetime) -> ssl.SSLSocket:
    context = tls.client_context(keys.own().certificate(now), peers.pems(peer, now))
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError:
        pinned = ", ".join(peers.fingerprints(peer, now)) or "-"
        shown = _looked_at(host, port)
        raise FatalError(
            "check-certificate", peer=peer.name, host=host, port=port, shown=shown, pinned=pinned
        ) from None
    except OSError as error:  # ssl.SSLError is one
        reason = getattr(error, "reason", None) or type(error).__name__
        raise FatalError("check-tls", host=host, port=port, reason=reason) from None


def _looked_at(host: str, port: int) -> str:
    """The fingerprint of whoever answers there; nothing is sent to it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), timeout=SECONDS) as plain, context.wrap_socket(plain) as secured:
            return _shown(secured)
    except OSError:
        return "?"


def _shown(secured: ssl.SSLSocket) -> str:
    return sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()


def _accepted(peer: Peer, host: str, port: int, secured: ssl.SSLSocket, own: Path) -> str:
    """Under TLS 1.3 the other side judges our certificate after we believe to be through: its first answer tells."""
    used = next(entry.name for entry in keys.own().certificates if entry.file == own.name)
    answer = b""
    try:
        with calls.until(time.monotonic() + SECONDS):
            secured.sendall(b"GET /healthz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % host.encode("idna"))
            while b"\n" not in answer and len(answer) < LONGEST_LINE:
                secured.settimeout(calls.left())
                if not (part := secured.recv(LONGEST_LINE)):
                    break
                answer += part
    except TimeoutError:
        raise RetriableError("check-silent", peer=peer.name, host=host, port=port, seconds=int(SECONDS)) from None
    except OSError:  # what came before it counts
        pass
    if not answer:
        raise FatalError("check-refused", peer=peer.name, own=used)
    status = _STATUS.match(answer)
    if status is None or status[1] != b"200":
        shown = f"HTTP {status[1].decode()}" if status else "-"
        raise FatalError("check-other", peer=peer.name, host=host, port=port, answer=shown)
    return used


def _spoken(peer: Peer, address: str, introduce: bool) -> Iterator[Diagnosis]:
    """A question of kind ``peer.check`` and what its reply tells; recorded as any other."""
    sent = dt.datetime.now(dt.UTC)
    members = {
        "kind": peer_messages.CHECK, "sender": signing.own_name(), "receiver": peer.name, "type": JSON,
        "deadline": sent + dt.timedelta(seconds=SECONDS),
    }  # fmt: skip
    question = caller.signed(members, b"{}")
    reply: Message | None = None
    outcome, step = OK, "message"
    try:
        own, pems = keys.own().certificate(sent), peers.pems(peer, sent)
        reply = envelope.read(wire.post(peer.name, address, own, pems, question.wire, SECONDS))
        step = "clock"
        yield Diagnosis(step, True, f"{_difference(peer, reply, sent):+.1f} s")
        step = "key"
        caller.verify(peer, question, reply, dt.datetime.now(dt.UTC))
        yield Diagnosis(step, True, ", ".join(key.kid for key in peer.keys if cards.valid(key, reply.envelope.at)))
        step = "message"
        if reply.envelope.status in FORGED:
            raise FatalError("check-unknown", peer=peer.name, code=reply.envelope.status)
        if reply.envelope.status != OK:
            raise caller.problem(peer.name, reply)
        told = caller.decoded(reply, Checked)
        yield Diagnosis(step, True, f"{question.envelope.id}")
    except YiciError as error:
        outcome = str(error.values.get("code", error.code))
        yield failed(step, error)
        return
    finally:
        with database.engine().begin() as connection:
            if outcome == OK:
                reach.answered(connection, peer, sent)
            ledger.record(
                connection, peer=peer.name, direction="asked", message=question.envelope.id, kind=peer_messages.CHECK,
                agreement=None, outcome=outcome, detail={}, request=question,
                reply=reply,
            )  # fmt: skip
    yield _known(peer, told, introduce)
    with database.engine().connect() as connection:
        yield from _agreed(connection, peer, told)


def _difference(peer: Peer, reply: Message, sent: dt.datetime) -> float:
    """Seconds that the peer's clock is ahead, as its signature says: counted from the middle of question and reply."""
    now = dt.datetime.now(dt.UTC)
    ahead = (reply.envelope.at - (sent + (now - sent) / 2)).total_seconds()
    if abs(ahead) > SKEW.total_seconds():
        raise FatalError("check-clock", peer=peer.name, seconds=round(ahead), limit=int(SKEW.total_seconds()))
    return ahead


def _known(peer: Peer, told: Checked, introduce: bool) -> Diagnosis:
    """Whether the peer knows this hub as it is now."""
    card = cards.own()
    missing = {key["kid"] for key in card["keys"]} - set(told.keys)
    missing |= {entry["fingerprint"] for entry in card["certificates"]} - set(told.certificates)
    if not missing and told.card_at >= cards.changed_at():
        with database.engine().begin() as connection:
            peers.told(connection, peer.name, told.card_at)
        return Diagnosis("card", True, told.card_at.isoformat(timespec="seconds"))
    if introduce:
        try:
            return Diagnosis("card", True, peer_messages.introduce(peer.name).isoformat(timespec="seconds"))
        except YiciError as error:
            return failed("card", error)
    missed = ", ".join(sorted(missing)) or "-"
    return failed("card", FatalError("check-card", peer=peer.name, missing=missed))


def _agreed(connection: sa.Connection, peer: Peer, told: Checked) -> Iterator[Diagnosis]:
    """Every agreement that either side knows: its state here and there, and the days that are left. That none is in force, or that
    one is over, is no fault: it is said, with what to do."""
    now = dt.datetime.now(dt.UTC)
    here = {entry.agreement: entry for entry in peer_messages.standing(connection, peer.name, now)}
    there = {entry.agreement: entry for entry in told.agreements}
    if not here and not there:
        yield _noticed(FatalError("check-agreement-none", peer=peer.name))
        return
    over = 0
    for reference in sorted(here.keys() | there.keys()):
        known = here.get(reference), there.get(reference)
        over += (gone := _over(known, now))
        yield _gone(reference, known) if gone else _stands(peer, reference, *known, now)
    if over == len(here.keys() | there.keys()):
        yield _noticed(FatalError("check-agreement-idle", peer=peer.name))


def _over(known: Sequence[Agreed | None], now: dt.datetime) -> bool:
    """Whether nothing can be done under it any more, whoever knows of it."""
    return all(entry is None or entry.state == ENDED or entry.valid_to <= now for entry in known)


def _gone(reference: str, known: Sequence[Agreed | None]) -> Diagnosis:
    """One that is over: where both ended it nothing is left to do."""
    entries = [entry for entry in known if entry]
    if all(entry.state == ENDED for entry in entries):
        return Diagnosis("agreement", True, text("check-agreement-ended", None, agreement=reference))
    until = min(entry.valid_to for entry in entries).isoformat(timespec="minutes")
    return _noticed(FatalError("check-agreement-over", agreement=reference, until=until))


def _stands(peer: Peer, reference: str, here: Agreed | None, there: Agreed | None, now: dt.datetime) -> Diagnosis:
    states = [entry.state if entry else "-" for entry in (here, there)]
    if states[0] != states[1]:
        error = FatalError(
            "check-agreement-differs", agreement=reference, here=states[0], there=states[1], peer=peer.name
        )
        return failed("agreement", error)
    entry = here or there
    assert entry is not None  # one of them named it
    if entry.state == "proposed":
        return _noticed(FatalError("check-agreement-proposed", agreement=reference))
    if entry.state != "in_force":
        return failed("agreement", FatalError("check-agreement-waits", agreement=reference, state=entry.state))
    left = f"{(entry.valid_to - now).days} d"
    if now < entry.valid_from:
        left = f"from {entry.valid_from.isoformat(timespec='minutes')} on"
    return Diagnosis("agreement", True, f"{reference} {entry.provider} → {entry.receiver}: {entry.state}, {left}")


def _noticed(error: YiciError) -> Diagnosis:
    """Nothing failed, but somebody may want to do something."""
    return Diagnosis("agreement", True, error.message(), error.advice())
