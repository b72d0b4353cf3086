"""Evidence: one certificate for one case, opened by the answer that found it (docs/evidence.md).

The answer is the grant: its id, given by the client that asked, opens what it found held, once each, for the minutes of the
agreement. All is checked and recorded in one transaction before a byte leaves. What partner hubs hold is asked of them
(:mod:`hub.exchange.evidence_asking`); what a certificate looks like as evidence is said here for all.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from connectors import signature
from connectors.errors import UsageError
from hub import agreements, deposit_sources, home, records, schema, signing
from hub.agreements import Agreement
from hub.clock import CHINA
from hub.findings import PRESENT
from hub.knowledge import Shape
from hub.schema_evidence import evidence
from mappings import model

# What the uses of an option are where it satisfies its requirement, by what the requirement came to.
SATISFIED = {"held": ("held",), "alternative_held": ("held",), "held_elsewhere": PRESENT}
COMPLETED = ("submit", "expired", "deferred")  # the preferred option is what the applicant is asked to complete


@dataclass(frozen=True)
class Evidence:
    """The bytes that were recorded, and this hub's signature of them (:func:`connectors.signature.detached`)."""

    body: bytes
    signature: str

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.body).digest()


def fetch(engine: sa.Engine, client: str, holding: str, grant: str, wanted: Sequence[str] | None = None) -> Evidence:
    """What ``client`` may see of ``holding`` (32 hex digits) under ``grant``, the id of its answer.

    ``wanted``: columns (:func:`hub.agreements.columns`) to narrow it to. UsageError ``agreement-ended``, ``item-not-agreed``,
    ``purpose-not-agreed``, ``field-not-agreed``; ``grant-unknown``, ``grant-expired``, ``grant-not-for-holding``,
    ``grant-fact-missing``, ``grant-used``; ``holding-changed`` when it is no longer as the answer found it.
    """
    now = dt.datetime.now(dt.UTC)
    with engine.begin() as connection:
        agreement = agreed(connection, client, now)
        answer = answered(connection, client, grant)
        require_open(agreement, answer, now)
        key, shape, whose = _granted(connection, answer, holding)
        row = _unchanged(connection, key, shape, whose, now)
        shown = narrowed(agreement.shows(model.load(row.material)), row.material, wanted)
        given = {
            "client": client, "purpose": answer.purpose, "case": answer.case, "item": answer.item, "answer": str(answer.id),
        }  # fmt: skip
        body = orjson.dumps(told(row, shown, given, now))
        found = Evidence(body, signing.sign_detached(body, signature.EVIDENCE))
        record(
            connection, answer=answer.id, holding=key, asked_at=answer.asked_at, given_at=now, client=client,
            purpose=answer.purpose, case=answer.case, item=answer.item, applicant=answer.applicant, material=row.material,
            fields=list(shown), digest=found.digest,
        )  # fmt: skip
    return found


def agreed(connection: sa.Connection, client: str, now: dt.datetime) -> Agreement:
    """The agreement of ``client``, which nobody ends before the transaction does. UsageError ``agreement-ended``."""
    agreement = agreements.of(connection, client, held=True)
    if agreement is None or not agreement.in_force(now):
        raise UsageError("agreement-ended")
    return agreement


def opened(trace: Mapping[str, Any]) -> Iterable[str]:
    """Keys of the holdings here that count for a requirement of an answer (:func:`counting`)."""
    for rule in trace["requirements"]:
        for use in counting(rule):
            yield from (one["holding"] for one in use.get("holdings", ()))


def counting(rule: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What was found for a requirement that is known to apply, as its trace has it: all of the first option that satisfies it, or
    what is there of the option that the applicant is asked to complete; nothing of any other.

    Whether a requirement applies must be known: who leaves facts out is shown no more than who states them.
    """
    return found(rule) if rule["condition"]["value"] is True else ()


def found(rule: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The same, also where it is not known whether the requirement applies."""
    if rule["disposition"] in COMPLETED:
        return [use for use in rule["options"][0] if use["state"] in PRESENT]
    states = SATISFIED.get(rule["disposition"])
    if states is None:
        return ()
    option: Sequence[Mapping[str, Any]]
    option = next(option for option in rule["options"] if all(use["state"] in states for use in option))
    return option


def refusal(rules: Iterable[Mapping[str, Any]], certificate: str) -> UsageError:
    """Why no requirement of an answer opens ``certificate``, here or at a partner hub: ``grant-fact-missing`` where one might, if it were
    known to apply; else ``grant-not-for-holding``."""
    might = [rule for rule in rules if any(certificate in _keys(use) for use in found(rule))]
    facts = dict.fromkeys(name for rule in might for name in rule["condition"]["deciding"])  # none where it is known
    return UsageError("grant-fact-missing", facts=", ".join(facts)) if facts else UsageError("grant-not-for-holding")


def _keys(use: Mapping[str, Any]) -> list[str]:
    return [one["holding"] for one in use.get("holdings", ())] + [one["entry"] for one in use.get("entries", ())]


def answered(connection: sa.Connection, client: str, grant: str) -> sa.Row[Any]:
    """The answer ``grant``, given to ``client``; one of before inputs were kept opens nothing. UsageError ``grant-unknown``."""
    try:
        named = uuid.UUID(grant)
    except ValueError:
        raise UsageError("grant-unknown") from None
    table = schema.answer.c
    row = connection.execute(
        sa.select(schema.answer).where(table.id == named, table.client == client, table.inputs.is_not(None))
    ).first()
    if row is None:
        raise UsageError("grant-unknown")
    return row


def require_open(agreement: Agreement, answer: sa.Row[Any], now: dt.datetime) -> None:
    """That ``answer`` opens anything still under ``agreement``. UsageError ``grant-expired``, ``item-not-agreed``,
    ``purpose-not-agreed``."""
    ends = answer.asked_at + dt.timedelta(minutes=agreement.evidence_minutes)
    if ends < now or answer.asked_at < agreement.valid_from:  # given under an agreement that has ended
        raise UsageError("grant-expired", minutes=agreement.evidence_minutes)
    agreement.admit([answer.item], answer.purpose, now)


def _granted(connection: sa.Connection, answer: sa.Row[Any], holding: str) -> tuple[bytes, Shape, list[bytes]]:
    """The holding's key, what it was when the answer was given, and whose: keyed hashes of the parties it was found for."""
    inputs = orjson.loads(answer.inputs)
    if inputs["as_of"] is not None:  # about the past
        raise UsageError("grant-not-for-holding")
    trace = records.trace(connection, answer)
    shapes = {role: shape for role, known in inputs["known"].items() for key, shape, _ in known if key == holding}
    if not shapes or holding not in opened(trace):
        raise refusal(trace["requirements"], holding)
    whose = [bytes.fromhex(inputs["parties"][role][0]) for role in shapes]
    return bytes.fromhex(holding), Shape(*next(iter(shapes.values()))), whose


def _unchanged(
    connection: sa.Connection, key: bytes, shape: Shape, whose: list[bytes], now: dt.datetime
) -> sa.Row[Any]:
    """The holding, still as it was and still of one of ``whose``."""
    row = connection.execute(sa.text(_HOLDING), {"key": key, "whose": whose}).first()
    if row is None or (row.material, row.status, _day(row.valid_from), _day(row.valid_to)) != (
        shape.material, shape.status, shape.valid_from, shape.valid_to,
    ):  # fmt: skip
        raise UsageError("holding-changed")
    if row.valid_to is not None and row.valid_to < now.astimezone(CHINA).date():
        raise UsageError("holding-changed")
    return row


def _day(day: dt.date | None) -> str | None:
    return day.isoformat() if day else None


def narrowed(allowed: Sequence[str], code: str, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The columns of material ``code`` that are shown: all that are ``allowed``, or those ``wanted`` of them.

    UsageError ``field-not-agreed`` when one wanted is not allowed, or nothing is.
    """
    if not allowed or not set(wanted or ()) <= set(allowed):
        raise UsageError("field-not-agreed", material=code, known=", ".join(allowed) or "-")
    if wanted is None:
        return tuple(allowed)
    return tuple(column for column in allowed if column in wanted)


def told(
    row: Any, shown: Sequence[str], given: Mapping[str, Any], now: dt.datetime, *, holding: str = "", apart: str = ""
) -> dict[str, Any]:
    """A certificate as evidence: of its document the columns ``shown``, where it comes from, and to whom it is ``given``.

    ``row``: ``key``, ``material``, ``document`` (JSON) and columns of the holding and its source. ``holding``: what it is called
    where its key is not told; ``apart``: for whom versions are told apart, so that two who compare them learn nothing.
    """
    # What was handed in is as of its verification, whenever others were verified.
    heard = row.updated_at if row.source.startswith(deposit_sources.PREFIX) else row.last_success_at
    late = heard is None or heard + dt.timedelta(seconds=row.promise_seconds) < now
    return {
        "holding": holding or row.key.hex(),
        "material": row.material,
        "certificate": _certificate(orjson.loads(row.document), shown),
        "fields": list(shown),
        # Tells versions apart without telling what was not shown: nobody else can compute it.
        "version": home.keyed_hash().of(f"version{apart}\x1f{row.document}").hex(),
        "source": {
            "source": row.source,
            "file": row.file,
            "row": row.row,
            "updated_at": _at(row.updated_at),
            "as_of": _at(heard) if heard else None,
            "late": late,
            "conflicting": row.conflicting,
        },
        "given": {"hub": home.current().identity("hub") or "hub", **given, "at": _at(now)},
    }


def _certificate(document: Mapping[str, Any], shown: Sequence[str]) -> dict[str, Any]:
    """Of ``document`` what stands in the columns ``shown``, and nothing else."""
    attributes = document.get("attributes") or {}
    named = [column.partition(".") for column in shown]
    roles = {role for kind, _, role in named if kind == "holder"}
    certificate = {kind: document.get(kind) for kind, point, _ in named if not point}
    if roles:
        certificate["holders"] = [holder for holder in document["holders"] if holder["role"] in roles]
    if said := {name: attributes[name] for kind, _, name in named if kind == "attributes" and name in attributes}:
        certificate["attributes"] = said
    return certificate


def _at(time: dt.datetime) -> str:
    return time.astimezone(dt.UTC).isoformat()


def record(connection: sa.Connection, **values: Any) -> None:
    """A row of the table ``evidence``. UsageError ``grant-used`` when it stands there already: of two callers at once one is told
    so."""
    written = connection.execute(insert(evidence).values(values).on_conflict_do_nothing().returning(evidence.c.answer))
    if written.first() is None:
        raise UsageError("grant-used")


_HOLDING = """
SELECT h.key, h.material, h.status, h.valid_from, h.valid_to, h.conflicting, h.source, h.updated_at, m.document,
  (SELECT name FROM landed_file WHERE id = m.file) AS file, m."row", s.last_success_at, s.promise_seconds
FROM holding AS h JOIN mapped_row AS m ON m.holding = h.key AND m.id = h.mapped JOIN source AS s ON s.name = h.source
WHERE h.key = :key AND EXISTS (
  SELECT FROM holding_holder AS w WHERE w.holding = h.key AND w.identifier = ANY(ARRAY(
    SELECT unnest(CAST(:whose AS bytea[]))
    UNION
    SELECT m.identifier FROM identity_member AS k JOIN identity_member AS m USING (component, cluster)
    WHERE k.identifier = ANY(CAST(:whose AS bytea[])))))
"""
