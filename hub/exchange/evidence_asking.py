"""Evidence on demand, the side that asks (docs/evidence.md): a certificate that a partner hub holds, for the case of an answer.

All that counts for what is held here counts first; then the agreement with the partner. Its reply is passed on as it signed it,
once it is what was asked for and no more, and written down before it leaves. A failure uses nothing up.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import sqlalchemy as sa

from connectors.envelope import Message
from connectors.errors import FatalError, UsageError, YiciError
from hub import agreements as clients
from hub import evidence, schema_evidence, signing
from hub.exchange import agreements, caller, evidence_grants, peers
from hub.exchange.agreement_terms import shareable
from hub.exchange.agreements import Agreement
from hub.exchange.evidence import REQUEST, Consent, Handle, Holder, Question, agreeing
from hub.exchange.evidence_grants import Opening, Wanted
from mappings import model

SECONDS, LONGEST = 20.0, 60.0  # that a client waits
# What a reply is refused for: no word of that partner, or not about this.
UNACCEPTABLE = ("message-malformed", "message-body", "message-signature", "message-foreign", "protocol-unknown",
                "reply-foreign", "message-stale", "message-altered")  # fmt: skip


@dataclass(frozen=True)
class Relayed:
    """The bytes that ``hub`` gave, and its signed envelope around their digest (docs/protocol/10-messages.md)."""

    hub: str
    body: bytes = field(repr=False)
    envelope: str

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


class _Shown(msgspec.Struct, forbid_unknown_fields=True):
    """Evidence, as far as it is looked at here."""

    holding: Handle
    material: str
    certificate: dict[str, Any]
    fields: tuple[str, ...]
    version: Handle
    source: dict[str, Any]
    given: dict[str, Any]


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
            shown = _require_no_more(case, found)
        relayed = Relayed(case.opening.hub, found.body, found.sealed)
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
    return _Case(answer, opening, agreement, columns, agreeing(agreement.terms, wanted.consent, now))


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


def _require_no_more(case: _Case, found: Message) -> _Shown:
    """That the reply is evidence of what was asked for, and shows nothing that was not. FatalError ``partner-reply``."""
    opening, answer = case.opening, case.answer
    try:
        shown = msgspec.json.decode(found.body, type=_Shown)
        columns = set(_columns(shown.certificate))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise FatalError("partner-reply", peer=opening.hub, reason="evidence") from None
    to = {"hub": opening.hub, "client": signing.own_name(), "purpose": answer.purpose, "case": answer.case}
    right = (
        shown.material == opening.material
        and opening.handle in (None, shown.holding)
        and columns <= set(shown.fields) <= set(case.columns)
        and to.items() <= shown.given.items()
    )
    if not right:
        raise FatalError("partner-reply", peer=opening.hub, reason="evidence")
    return shown


def _columns(certificate: Mapping[str, Any]) -> Iterator[str]:
    """What a certificate as evidence shows, as columns of the exchange table."""
    for name, value in certificate.items():
        if name == "holders":
            for holder in value:
                if not set(holder) <= {"role", "scheme", "value", "name"}:
                    raise ValueError(name)
                yield f"holder.{holder['role']}"
        elif name == "attributes":
            yield from (f"attributes.{attribute}" for attribute in value)
        else:
            yield name


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
_GIVEN = sa.select(_table.answer).where(
    _table.answer == sa.bindparam("answer"),
    _table.holding == sa.bindparam("holding"),
    _table.asked_at == sa.bindparam("at"),
)
