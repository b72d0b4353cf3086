"""What hubs say to each other about agreements (docs/protocol/30-agreements.md): bodies, and the receiver's side of each kind.

The sender is who signed the envelope; nobody speaks for another. Each handler works in the transaction of its message.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import msgspec

from connectors.envelope import Digest, Moment, Reference
from connectors.errors import FatalError, UsageError
from hub import signing
from hub.exchange import agreement_states, agreement_terms, agreements, epochs
from hub.exchange.agreement_states import ACCEPT, DECLINE, END, PROPOSE, RESUME, SUSPEND, Rows, Step
from hub.exchange.service import Answer, Context, Kind

LONGEST_REASON = 500

Signature = Annotated[str, msgspec.Meta(max_length=1000)]


class Proposal(msgspec.Struct, frozen=True):
    """``document``: canonical JSON, as text; ``signature``: of the sender, beside it; ``at``: when it signed."""

    document: str
    signature: Signature
    at: Moment


class Acceptance(msgspec.Struct, frozen=True):
    """``digest``: SHA-256 of the document that is signed."""

    agreement: Reference
    digest: Digest
    signature: Signature
    at: Moment


class Declined(msgspec.Struct, frozen=True):
    """The receiver of a proposal declines it, or its sender withdraws it."""

    agreement: Reference
    digest: Digest
    reason: str | None = None


class Word(msgspec.Struct, frozen=True):
    """One side suspends the agreement, lets it go on or wants its end; ``at``: when it decided, later with each."""

    agreement: Reference
    at: Moment
    reason: str | None = None


class Standing(msgspec.Struct, frozen=True):
    """A reply: how the agreement stands with the receiver."""

    agreement: str
    state: str


def plain(reason: str | None) -> str | None:
    """``reason`` as it may be kept and shown; None where it may not."""
    try:
        said = agreement_terms.plain(" ".join((reason or "").split()))
    except ValueError:
        return None
    return said if 0 < len(said) <= LONGEST_REASON else None


def proposed(context: Context) -> Answer:
    """A peer proposes: kept to be looked at, when it could be agreed at all."""
    told = context.decoded(Proposal)
    peer, now = context.peer.name, context.now
    document = told.document.encode("utf-8", "replace")
    terms = agreement_terms.parse(document)
    rows = agreement_states.locked(context.connection, terms.id)
    if any(row.peer != peer for row in rows):
        raise UsageError("agreement-taken")
    parties = _parties(context)
    if {terms.provider, terms.receiver} != set(parties):
        raise UsageError("agreement-foreign")
    agreements.verify(document, told.signature, (key.public_key for key in context.peer.keys))
    if reasons := agreement_terms.flaws(terms, parties):
        raise UsageError("agreement-terms", reasons="; ".join(reason for _, reason in reasons)[:4000])
    step = Step(PROPOSE, peer, _utc(told.at))
    agreement_states.file(
        context.connection, rows, terms, document, step, peer=peer, peer_signature=told.signature, now=now
    )
    return _answer(terms.reference, "proposed")


def accepted(context: Context) -> Answer:
    """The peer accepts what this hub proposed: it is in force."""
    told = context.decoded(Acceptance)
    rows, number = _rows(context, told.agreement)
    row = agreement_states.waiting(rows, number, ours=True, digest=told.digest)
    agreements.verify(bytes(row.document), told.signature, (key.public_key for key in context.peer.keys))
    if row.valid_to <= context.now:
        raise UsageError("agreement-over")
    step = Step(ACCEPT, context.peer.name, _utc(told.at))
    state = agreement_states.begin(context.connection, rows, row, context.now, step, peer_signature=told.signature)
    return _answer(told.agreement, state)


def declined(context: Context) -> Answer:
    """The peer declines what this hub proposed, or withdraws what it proposed itself."""
    told = context.decoded(Declined)
    rows, number = _rows(context, told.agreement)
    row = agreement_states.version(rows, number)
    if told.digest != agreement_terms.digest(bytes(row.document)):
        raise UsageError("agreement-altered")
    if row.state == "proposed":
        step = Step(DECLINE, context.peer.name, context.now, plain(told.reason))
        agreement_states.decline(context.connection, row, context.now, step, owed=False)
    elif row.state != "declined":
        raise UsageError(agreement_states.past(row.state))
    return _answer(told.agreement, "declined")


def stated(context: Context) -> Answer:
    """The peer suspends the agreement, lets it go on, or wants it to end; without its reason where that cannot be shown."""
    told = context.decoded(Word)
    rows, number = _rows(context, told.agreement)
    accepting = agreement_states.accepting(rows)
    if accepting is not None and accepting.version == number:  # it speaks of it, so it has heard the acceptance
        signed = accepting.peer_signature
        agreement_states.begin(context.connection, rows, accepting, context.now, peer_signature=signed)
        rows, _ = _rows(context, told.agreement)
    step = Step(context.message.envelope.kind, context.peer.name, _utc(told.at), plain(told.reason))
    state = agreement_states.state(context.connection, rows, step, context.now, ours=False)
    return _answer(told.agreement, state)


def _utc(at: dt.datetime) -> dt.datetime:
    """FatalError ``message-body`` for one outside of all years."""
    try:
        return at.astimezone(dt.UTC)
    except OverflowError:
        raise FatalError("message-body") from None


def keyed(context: Context) -> Answer:
    """The receiver of an agreement asks for the key of its index."""
    if context.agreement is None:
        raise UsageError("agreement-unknown")
    epoch = epochs.current(context.connection, context.agreement, context.now)
    return Answer(epoch.told(), detail={"epoch": epoch.name})


def _parties(context: Context) -> dict[str, str]:
    own = signing.publisher()
    return {own.hub: own.region, context.peer.name: context.peer.region}


def _rows(context: Context, reference: str) -> tuple[Rows, int]:
    """All versions of the agreement with this peer, and which one is spoken of."""
    named = agreements.parsed(reference)
    rows = agreement_states.locked(context.connection, named[0]) if named else []
    if named is None or not rows or rows[0].peer != context.peer.name:
        raise UsageError("agreement-unknown")
    return rows, named[1]


def _answer(reference: str, state: str) -> Answer:
    return Answer.of(Standing(reference, state), agreement=reference, state=state)


KINDS = {
    PROPOSE: Kind(proposed, once=True, needs_agreement=False),
    ACCEPT: Kind(accepted, once=True, needs_agreement=False),
    DECLINE: Kind(declined, once=True, needs_agreement=False),
    SUSPEND: Kind(stated, once=True, needs_agreement=False),
    RESUME: Kind(stated, once=True, needs_agreement=False),
    END: Kind(stated, once=True, needs_agreement=False),
    epochs.KIND: Kind(keyed, mode="index"),
}
