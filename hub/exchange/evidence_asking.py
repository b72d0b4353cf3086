"""Evidence on demand, the side that asks (docs/evidence.md): a certificate that a partner hub holds, for the case of an answer.

All that counts for what is held here counts first; then the agreement with the partner. Its reply is passed on as it signed it,
once it is what was asked for and no more, and written down before it leaves. A failure uses nothing up.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import sqlalchemy as sa

from connectors import signature
from connectors.envelope import Message
from connectors.errors import FatalError, UsageError, YiciError
from hub import agreements as clients
from hub import evidence, schema_evidence, signing
from hub.exchange import agreements, caller, evidence_grants, evidence_shown, peers
from hub.exchange.agreement_terms import shareable
from hub.exchange.agreements import Agreement
from hub.exchange.evidence import REQUEST, Consent, Holder, Question, agreeing
from hub.exchange.evidence_grants import Opening, Wanted
from hub.exchange.evidence_shown import Expected, Shown, Unacceptable
from mappings import model

SECONDS, LONGEST = 20.0, 60.0  # that a client waits
# What a reply is refused for: no word of that partner, or not about this.
UNACCEPTABLE = ("message-malformed", "message-body", "message-signature", "message-foreign", "protocol-unknown",
                "reply-foreign", "message-stale", "message-altered")  # fmt: skip


@dataclass(frozen=True)
class Relayed:
    """The bytes that ``hub`` gave, and its signed envelope around their digest (docs/protocol/10-messages.md).

    Where it gave members that are not known here, the bytes are the rest of them, and ``signature`` is this hub's
    (:func:`connectors.signature.detached`).
    """

    hub: str
    body: bytes = field(repr=False)
    envelope: str
    signature: str | None = None

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.body).digest()


@dataclass(frozen=True)
class _Case:
    """All that is known of one question before it is asked."""

    answer: sa.Row[Any]
    opening: Opening
    agreement: Agreement
    columns: tuple[str, ...]
    consent: Consent | None
    person: frozenset[bytes]


def fetch(
    engine: sa.Engine, client: str, grant: str, wanted: Wanted, until: dt.datetime, *, operator: bool = False
) -> Relayed:
    """What ``client`` may see of a certificate that a partner hub holds, under ``grant``, the id of its answer.

    ``until``: it waits no longer. ``operator``: who asks is no client but runs this hub; what partners agreed to binds it as well. Errors as
    :func:`hub.evidence.fetch` and :func:`hub.exchange.evidence_grants.opening`; ``evidence-under-way`` while another asks the
    same; ``case-missing``, ``consent-required``, ``consent-invalid``, ``agreement-none`` and those of
    :meth:`Agreement.covers`; ``partner-…`` when the partner is away, refuses, or replies what it must not.
    """
    try:
        named = uuid.UUID(grant)
    except ValueError:
        raise UsageError("grant-unknown") from None
    with _alone((named, wanted.handle, wanted.hub, wanted.material)):
        with engine.begin() as connection:
            case = _allowed(connection, client, grant, wanted, operator=operator)
        found = _asked(case, until)
        with caller.judged(found):
            shown, body = _acceptable(case, found)
        own = None if body == found.body else signing.sign_detached(body, signature.EVIDENCE)
        relayed = Relayed(case.opening.hub, body, found.sealed, own)
        with engine.begin() as connection:
            now = dt.datetime.now(dt.UTC)
            if not operator:  # it may have ended meanwhile
                evidence.agreed(connection, client, now)
            answer, opening = case.answer, case.opening
            evidence.record(
                connection, answer=answer.id, holding=opening.key, asked_at=answer.asked_at, given_at=now, client=client,
                purpose=answer.purpose, case=answer.case, item=answer.item, applicant=answer.applicant,
                material=opening.material, fields=list(shown.fields), digest=relayed.digest, provider=opening.hub,
                subject=opening.subject, message=found.envelope.reply_to,
            )  # fmt: skip
    return relayed


def _allowed(connection: sa.Connection, client: str, grant: str, wanted: Wanted, *, operator: bool) -> _Case:
    """The question, if it may be asked: by the agreement with the client first, then by that with the partner."""
    now = dt.datetime.now(dt.UTC)
    agreed = None if operator else evidence.agreed(connection, client, now)
    answer = evidence.answered(connection, client, grant)
    agreed = agreed or _operators(client, answer)
    evidence.require_open(agreed, answer, now)
    opening = evidence_grants.opening(connection, answer, wanted)
    if connection.execute(_GIVEN, {"answer": answer.id, "holding": opening.key, "at": answer.asked_at}).first():
        raise UsageError("grant-used")
    if not answer.case:
        raise UsageError("case-missing")
    if (peer := peers.find(connection, opening.hub)) is None or peer.removed:
        raise UsageError("peer-unknown", peer="…")
    allowed = evidence.narrowed(agreed.shows(model.load(opening.material)), opening.material, wanted.fields)
    agreement = agreements.choose(
        connection, opening.hub, mode="evidence", purpose=answer.purpose, materials=[opening.material],
        fields={opening.material: wanted.fields or ()}, region=opening.region, provider=False, now=now,
    )  # fmt: skip
    material = shareable(opening.material)
    assert material is not None  # what is covered is
    shows = agreement.terms.shows(material)
    columns = tuple(column for column in allowed if column in shows)
    if not columns:  # what this client may see is not what that hub shows
        raise UsageError("field-not-agreed", material=opening.material, known="-")
    consent = agreeing(agreement.terms, wanted.consent, now)
    return _Case(answer, opening, agreement, columns, consent, _one_with(connection, opening.subject))


def _one_with(connection: sa.Connection, subject: bytes) -> frozenset[bytes]:
    """The identifiers that this hub holds to be of the same person, as keyed hashes."""
    return frozenset((subject, *connection.scalars(_ALIKE, {"subject": subject})))


def _operators(client: str, answer: sa.Row[Any]) -> clients.Agreement:
    """Whoever runs the hub asks for what they asked about, and may see all that partners show."""
    every = {material.code: (clients.EVERY,) for material in model.all_materials()}
    since = dt.datetime.min.replace(tzinfo=dt.UTC)
    return clients.Agreement(client, client, (answer.item,), (answer.purpose,), since, None, every)


def _asked(case: _Case, until: dt.datetime) -> Message:
    opening = case.opening
    question = Question(
        opening.material, (Holder(opening.scheme, opening.value),), case.answer.item, opening.role, opening.handle,
        opening.epoch if opening.handle else None, case.columns, case.consent,
    )  # fmt: skip
    try:
        return caller.ask(
            opening.hub, REQUEST, msgspec.json.encode(question), agreement=case.agreement, purpose=case.answer.purpose,
            case=case.answer.case, deadline=until, seconds=LONGEST,
        )  # fmt: skip
    except YiciError as error:
        if error.code in UNACCEPTABLE:
            raise FatalError("partner-reply", peer=opening.hub, reason=error.code) from None
        raise


def _acceptable(case: _Case, found: Message) -> tuple[Shown, bytes]:
    """The evidence, where it is what was asked for, and what of it may be passed on. FatalError ``partner-reply``."""
    opening, answer, told = case.opening, case.answer, found.envelope
    assert told.reply_to is not None  # a reply was verified to have it
    wanted = Expected(
        hub=opening.hub,
        client=signing.own_name(),
        purpose=answer.purpose,
        case=answer.case,
        item=answer.item,
        message=told.reply_to,
        at=told.at,
        material=opening.material,
        handle=opening.handle,
        columns=case.columns,
        person=case.person,
        roles=(opening.role,) if opening.role else opening.told,
        regions=case.agreement.terms.regions,
    )
    try:
        return evidence_shown.read(found.body, wanted)
    except Unacceptable as error:
        raise FatalError("partner-reply", peer=opening.hub, reason=str(error)) from None


@contextmanager
def _alone(mark: tuple[Any, ...]) -> Iterator[None]:
    """Nobody asks twice at once. UsageError ``evidence-under-way``; of two processes one is told so when it is recorded."""
    with _guard:
        if mark in _under_way:
            raise UsageError("evidence-under-way")
        _under_way.add(mark)
    try:
        yield
    finally:
        with _guard:
            _under_way.discard(mark)


_under_way: set[tuple[Any, ...]] = set()
_guard = threading.Lock()
_table = schema_evidence.evidence.c
_ALIKE = sa.text("""
SELECT m.identifier FROM identity_member AS k JOIN identity_member AS m USING (component, cluster)
WHERE k.identifier = :subject AND m.state = 'joined'
""")
_GIVEN = sa.select(_table.answer).where(
    _table.answer == sa.bindparam("answer"),
    _table.holding == sa.bindparam("holding"),
    _table.asked_at == sa.bindparam("at"),
)
