"""Evidence on demand, the side that holds it (docs/protocol/27-evidence.md): one certificate of one person, for one case.

Found by the keyed hash of the identifiers, as :mod:`hub.knowledge` finds what is held; given within the agreement, as few columns
of it as will do. Who was given what of whom, and why, is written down in the transaction in which the reply is signed.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA

from connectors.envelope import SKEW, Moment
from connectors.errors import FatalError, UsageError
from hub import evidence, home
from hub.clock import CHINA
from hub.exchange import epochs
from hub.exchange.agreement_terms import Terms, shareable
from hub.exchange.agreements import Agreement
from hub.exchange.service import Answer, Context, Kind
from hub.home import identifier_text
from hub.mentions import names_somebody
from mappings import scalars

REQUEST = "evidence.request"
IDENTIFIERS = 8  # of one person
FIELDS = 200
UNNAMED = "-"  # instead of a file's name that names somebody

Code = Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9]*(-[a-z0-9]+)*\Z", max_length=80)]
Item = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z][0-9A-Za-z._-]{0,79}\Z")]
Role = Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9_]*\Z", max_length=80)]
Epoch = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Za-z][0-9A-Za-z.:_+-]{0,79}\Z")]
Handle = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Column = Annotated[str, msgspec.Meta(max_length=130)]
Plain = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"\A[^\x00-\x1f\x7f]+\Z")]


class Holder(msgspec.Struct, frozen=True):
    """An identifier, normalised (mappings/schemes.py)."""

    scheme: Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
    value: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


class Consent(msgspec.Struct, frozen=True, omit_defaults=True):
    """That the person agrees: where that is written down, since when, and how it was given."""

    reference: Plain
    at: Moment
    method: Code


class Question(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is asked for. ``holders``: identifiers of one person; ``role``: what that person is in the certificate.

    ``handle`` and ``epoch``: as the index announced it; without them the best one in force. ``item``: for which service.
    ``fields``: columns (:func:`hub.agreements.columns`); None: all that are agreed.
    """

    material: Code
    holders: Annotated[tuple[Holder, ...], msgspec.Meta(min_length=1, max_length=IDENTIFIERS)]
    item: Item
    role: Role | None = None
    handle: Handle | None = None
    epoch: Epoch | None = None
    fields: Annotated[tuple[Column, ...], msgspec.Meta(max_length=FIELDS)] | None = None
    consent: Consent | None = None


def answer(context: Context) -> Answer:
    """The certificate, recorded.

    UsageError ``case-missing``, ``identifier-invalid``, ``holding-unknown``, ``certificate-not-in-force``, ``consent-required``,
    ``consent-invalid``, and those of :meth:`Agreement.covers`; FatalError ``identity-undecided``, ``message-body``,
    ``deadline-over``.
    """
    asked, agreement, told = context.decoded(Question), context.agreement, context.message.envelope
    assert agreement is not None and told.purpose is not None  # neither gets here otherwise
    if names_somebody(asked.item) or (asked.handle is None) != (asked.epoch is None):
        raise FatalError("message-body")
    if not told.case:
        raise UsageError("case-missing")
    columns = covered(agreement, asked.material, told.purpose, asked.fields)
    consent = agreeing(agreement.terms, asked.consent, context.now)
    whose = identified(asked.holders)
    row = _held(context, agreement, asked, whose)
    given = {
        "client": context.peer.name, "purpose": told.purpose, "case": told.case, "item": asked.item, "answer": str(told.id),
    }  # fmt: skip
    shown = evidence.told(
        row,
        columns,
        given,
        context.now,
        holding=asked.handle or _called(agreement, row.key),
        apart=str(agreement.id),
    )
    if names_somebody(shown["source"]["file"]):  # a file may be called after whom it is about
        shown["source"]["file"] = UNNAMED
    body = orjson.dumps(shown)
    evidence.record(
        context.connection, answer=told.id, holding=row.key, asked_at=told.at, given_at=context.now, client=context.peer.name,
        purpose=told.purpose, case=told.case, item=asked.item, applicant=whose[0], material=asked.material,
        fields=list(columns), digest=hashlib.sha256(body).digest(), receiver=context.peer.name,
        message=told.id,
    )  # fmt: skip
    if context.deadline <= dt.datetime.now(dt.UTC):  # nobody waits for it any more
        raise FatalError("deadline-over")
    detail: dict[str, Any] = {"material": asked.material, "fields": columns, "item": asked.item, "case": told.case}
    if consent is not None:
        detail["consent"] = {"reference": consent.reference, "at": consent.at, "method": consent.method}
    return Answer(body, detail=detail)


def covered(agreement: Agreement, code: str, purpose: str, fields: Sequence[str] | None) -> tuple[str, ...]:
    """The columns of material ``code`` that are shown: those agreed, or ``fields`` of them. UsageError of
    :meth:`Agreement.covers`."""
    agreement.covers(mode="evidence", purpose=purpose, materials=[code], fields={code: fields or ()})
    material = shareable(code)
    assert material is not None  # what is covered is
    return evidence.narrowed(agreement.terms.shows(material), code, fields)


def agreeing(terms: Terms, consent: Consent | None, now: dt.datetime) -> Consent | None:
    """The consent, where the terms want one. UsageError ``consent-required``, ``consent-invalid``.

    It says where the consent is kept and since when it counts; whether it is good is known to who took it.
    """
    if terms.consent == "none":
        return None
    if consent is None:
        raise UsageError("consent-required")
    if consent.at > now + SKEW or names_somebody(consent.reference) or names_somebody(consent.method):
        raise UsageError("consent-invalid")
    return consent


def identified(holders: Sequence[Holder]) -> list[bytes]:
    """Keyed hashes of the identifiers, which have to be normalised. UsageError ``identifier-invalid``."""
    hashing, found = home.keyed_hash(), []
    for holder in holders:
        parsed = scalars.parse(identifier_text(holder.scheme, holder.value))
        if parsed.verdict == "invalid" or (parsed.scheme, parsed.normalised) != (holder.scheme, holder.value):
            raise UsageError("identifier-invalid", who="holder", reasons=parsed.reason or "-")
        found.append(hashing.of(identifier_text(holder.scheme, holder.value)))
    return found


def _held(context: Context, agreement: Agreement, asked: Question, whose: Sequence[bytes]) -> sa.Row[Any]:
    """The holding, in force: the one that is named, or the one that lasts longest.

    Of what lies outside the agreed regions nothing is told, not even that it is there.
    """
    bind: dict[str, Any] = {
        "identifiers": list(dict.fromkeys(whose)),
        "material": asked.material,
        "role": asked.role,
        "regions": list(agreement.terms.regions),
        "today": context.now.astimezone(CHINA).date(),
    }
    if asked.handle is None or asked.epoch is None:
        row = context.connection.execute(_ANY, bind).one()
    else:
        known = epochs.keys(context.connection, context.peer.name, asked.epoch)
        bind |= {"inner": [key.inner for key in known], "outer": [key.outer for key in known]}
        row = context.connection.execute(_NAMED, {**bind, "handle": bytes.fromhex(asked.handle)}).one()
    if row.undecided or row.persons > 1:
        raise FatalError("identity-undecided")
    if row.key is None:
        raise UsageError("holding-unknown")
    if not row.good:
        raise UsageError("certificate-not-in-force")
    return row


def _called(agreement: Agreement, key: bytes) -> str:
    """What a certificate that no index announces is called, under this agreement alone."""
    return home.keyed_hash().of(f"evidence\x1f{agreement.id}\x1f{key.hex()}").hex()


# One row always: whether the identifiers are of one person, and of that person's certificates the best one. Whoever is in no
# cluster stands alone. A holding that names no region is of its source's, as in the index.
_FIND = """
WITH asked AS MATERIALIZED (
  SELECT unnest(CAST(:identifiers AS bytea[])) AS identifier
), linked AS MATERIALIZED (
  SELECT a.identifier AS asked, m.identifier, m.cluster, m.state FROM asked AS a
    CROSS JOIN LATERAL (SELECT * FROM identity_member AS i WHERE i.identifier = a.identifier OFFSET 0) AS s
    CROSS JOIN LATERAL (
      SELECT * FROM identity_member AS i WHERE i.component = s.component AND i.cluster = s.cluster OFFSET 0) AS m
), wanted AS MATERIALIZED (
  SELECT identifier, cluster AS person FROM linked
  UNION SELECT identifier, identifier FROM asked WHERE identifier NOT IN (SELECT asked FROM linked)
), found AS MATERIALIZED (
  SELECT w.person, h.key, h.mapped, h.material, h.source, h.valid_to, h.updated_at, h.conflicting, s.last_success_at,
    s.promise_seconds, h.status = 'in_force' AND coalesce(h.valid_to >= :today, true)
      AND coalesce(h.valid_from <= :today, true) AS good
  FROM wanted AS w
    CROSS JOIN LATERAL (SELECT * FROM holding_holder AS i WHERE i.identifier = w.identifier OFFSET 0) AS o
    CROSS JOIN LATERAL (SELECT * FROM holding AS i WHERE i.key = o.holding OFFSET 0) AS h
    JOIN source AS s ON s.name = h.source
  WHERE h.material = :material AND coalesce(CAST(:role AS text) = o.role, true)
    AND EXISTS (SELECT FROM unnest(CAST(:regions AS text[])) AS r WHERE starts_with(coalesce(h.region, s.region), r)){named}
)
SELECT (SELECT coalesce(bool_or(state <> 'joined'), false) OR count(DISTINCT cluster) > 1 FROM linked) AS undecided,
  (SELECT count(DISTINCT person) FROM found WHERE good) AS persons, b.*, m.document, m."row",
  (SELECT name FROM landed_file WHERE id = m.file) AS file
FROM (SELECT) AS always
  LEFT JOIN (SELECT * FROM found ORDER BY good DESC, valid_to DESC NULLS FIRST, key LIMIT 1) AS b ON true
  LEFT JOIN LATERAL (SELECT * FROM mapped_row AS i WHERE i.holding = b.key AND i.id = b.mapped OFFSET 0) AS m ON true
"""
_HANDLE = """
    AND :handle IN (
      SELECT keyed_hash('holding:' || encode(h.key, 'hex'), k.inner_key, k.outer_key)
      FROM unnest(CAST(:inner AS bytea[]), CAST(:outer AS bytea[])) AS k (inner_key, outer_key))"""


def _statement(named: str, arrays: Mapping[str, Any]) -> sa.TextClause:
    bound = (sa.bindparam(name, type_=kind) for name, kind in arrays.items())
    return sa.text(_FIND.format(named=named)).bindparams(*bound, sa.bindparam("today", type_=sa.Date()))


_ARRAYS = {"identifiers": ARRAY(BYTEA), "regions": ARRAY(sa.Text)}
_ANY = _statement("", _ARRAYS)
_NAMED = _statement(_HANDLE, {**_ARRAYS, "inner": ARRAY(BYTEA), "outer": ARRAY(BYTEA), "handle": sa.LargeBinary()})
KINDS = {REQUEST: Kind(answer, mode="evidence", once=True)}
