"""Problem details (RFC 9457): for every stable code its status and whose fault it is.

``title`` and the sentences of a code stand in ``hub/messages``; ``detail`` repeats nothing that the caller sent but
what has the form of a code or a name of the catalogue (:func:`hub.catalogue.shown`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from connectors import messages
from connectors.errors import YiciError
from connectors.messages import Language

MEDIA_TYPE = "application/problem+json"
Fault = Literal["caller", "hub", "partner"]


@dataclass(frozen=True)
class Kind:
    """Status of a problem and whose fault it is."""

    status: int
    fault: Fault = "caller"


KINDS: Mapping[str, Kind] = {
    "body-malformed": Kind(400),
    "body-repeats": Kind(400),
    "message-malformed": Kind(400),
    "message-altered": Kind(400),
    "message-body": Kind(400),
    "protocol-unknown": Kind(400),
    "kind-unknown": Kind(400),
    "card-invalid": Kind(400),
    "multipart-malformed": Kind(400),
    "grant-unsupported": Kind(400),
    "scope-unsupported": Kind(400),
    "share-columns": Kind(400),
    "share-format": Kind(400),
    "share-parameters": Kind(400),
    "share-predicate-column": Kind(400),
    "share-predicate-type": Kind(400),
    "share-predicate-unreadable": Kind(400),
    "share-time-invalid": Kind(400),
    "client-refused": Kind(401),
    "token-missing": Kind(401),
    "token-invalid": Kind(401),
    "share-token-expired": Kind(401),
    "agreement-ended": Kind(403),
    "agreement-not-in-force": Kind(403),
    "agreement-suspended": Kind(403),
    "agreement-unknown": Kind(403),
    "agreement-version-old": Kind(403),
    "correction-not-agreed": Kind(403),
    "mode-not-agreed": Kind(403),
    "peer-unknown": Kind(403),
    "certificate-foreign": Kind(403),
    "message-signature": Kind(403),
    "message-foreign": Kind(403),
    "message-stale": Kind(403),
    "card-foreign": Kind(403),
    "card-signature": Kind(403),
    "item-not-agreed": Kind(403),
    "own-view-not-agreed": Kind(403),
    "purpose-not-agreed": Kind(403),
    "deposit-not-agreed": Kind(403),
    "answer-outdated": Kind(403),
    "field-not-agreed": Kind(403),
    "agreement-foreign": Kind(403),
    "agreement-own": Kind(403),
    "agreement-signature": Kind(403),
    "material-not-agreed": Kind(403),
    "region-not-agreed": Kind(403),
    "grant-unknown": Kind(403),
    "grant-expired": Kind(403),
    "grant-fact-missing": Kind(403),
    "grant-not-for-holding": Kind(403),
    "grant-not-for-material": Kind(403),
    "agreement-none": Kind(403),
    "consent-required": Kind(403),
    "share-address-expired": Kind(403),
    "share-address-invalid": Kind(403),
    "answer-unknown": Kind(404),
    "correction-record-unknown": Kind(404),
    "correction-unknown": Kind(404),
    "deposit-unknown": Kind(404),
    "holding-unknown": Kind(404),
    "item-unknown": Kind(404),
    "page-unknown": Kind(404),
    "share-address-unknown": Kind(404),
    "share-file-gone": Kind(404),
    "share-not-published": Kind(404),
    "share-table-unknown": Kind(404),
    "share-unknown": Kind(404),
    "share-version-unknown": Kind(404),
    "share-made-anew": Kind(404),
    "method-not-allowed": Kind(405),
    "body-slow": Kind(408),
    "agreement-accepted": Kind(409),
    "announced-unread": Kind(409),
    "correction-answered": Kind(409),
    "correction-filed": Kind(409),
    "correction-taken": Kind(409),
    "correction-version-old": Kind(409),
    "index-epoch-over": Kind(409),
    "reconcile-ahead": Kind(409),
    "reconcile-behind": Kind(409),
    "reconcile-epoch": Kind(409),
    "reconcile-read-on": Kind(409),
    "agreement-altered": Kind(409),
    "agreement-crossed": Kind(409),
    "agreement-declined": Kind(409),
    "agreement-swapped": Kind(409),
    "agreement-taken": Kind(409),
    "deadline-over": Kind(408),
    "deposit-not-asked": Kind(409),
    "card-old": Kind(409),
    "message-repeated": Kind(409),
    "grant-used": Kind(409),
    "holding-changed": Kind(409),
    "certificate-not-in-force": Kind(409),
    "evidence-under-way": Kind(409),
    "identity-undecided": Kind(409, "hub"),
    "idempotency-conflict": Kind(409),
    "notice-impossible": Kind(409),
    "body-too-large": Kind(413),
    "deposit-too-large": Kind(413),
    "file-mislabelled": Kind(415),
    "media-type-unsupported": Kind(415),
    "agreement-document": Kind(422),
    "agreement-over": Kind(422),
    "agreement-terms": Kind(422),
    "share-range": Kind(416),
    "as-of-dropped": Kind(422),
    "as-of-future": Kind(422),
    "as-of-invalid": Kind(422),
    "body-invalid": Kind(422),
    "case-names-somebody": Kind(422),
    "case-missing": Kind(422),
    "consent-invalid": Kind(422),
    "evidence-not-party": Kind(422),
    "deposit-attribute": Kind(422),
    "deposit-dates": Kind(422),
    "deposit-incomplete": Kind(422),
    "deposit-not-party": Kind(422),
    "fact-type": Kind(422),
    "fact-unknown": Kind(422),
    "idempotency-key-invalid": Kind(422),
    "identifier-invalid": Kind(422),
    "identifier-unfit": Kind(422),
    "item-not-in-force": Kind(422),
    "item-retired": Kind(422),
    "item-without-requirements": Kind(422, "hub"),
    "period-invalid": Kind(422),
    "position-invalid": Kind(422),
    "purpose-missing": Kind(422),
    "query-invalid": Kind(422),
    "role-same": Kind(422),
    "role-unknown": Kind(422),
    "rate-exceeded": Kind(429),
    "agreement-too-many": Kind(429),
    "correction-too-many": Kind(429),
    "too-many-attempts": Kind(429),
    "internal": Kind(500, "hub"),
    "partner-certificate": Kind(502, "partner"),
    "partner-plain": Kind(502, "partner"),
    "partner-refused": Kind(502, "partner"),
    "partner-reply": Kind(502, "partner"),
    "partner-away": Kind(503, "partner"),
    "partner-failed": Kind(503, "partner"),
    "partner-resting": Kind(503, "partner"),
    "hub-region-missing": Kind(503, "hub"),
    "share-slow": Kind(503, "hub"),
    "share-unavailable": Kind(503, "hub"),
    "hub-busy": Kind(503, "hub"),
    "catalogue-altered": Kind(503, "hub"),
    "catalogue-behind": Kind(503, "hub"),
    "catalogue-unpublished": Kind(503, "hub"),
    "store-not-migrated": Kind(503, "hub"),
    "correction-calendar": Kind(503, "hub"),
    "reconcile-busy": Kind(503, "hub"),
    "store-unavailable": Kind(503, "hub"),
}
# Errors of the store name hosts and folders; the caller only learns that the hub cannot answer now.
_OTHERWISE = {"store-empty": "store-not-migrated", "items-altered": "catalogue-altered"}
STORE = ("store-", "embedded-", "key-", "index-key-", "landing-full", "landing-unreachable")


def code_of(error: YiciError) -> str:
    """The code under which ``error`` is shown to a caller; what is not meant for callers becomes a general one."""
    if error.code in KINDS:
        return error.code
    if error.code in _OTHERWISE:
        return _OTHERWISE[error.code]
    return "store-unavailable" if error.code.startswith(STORE) else "internal"


def document(code: str, lang: Language, values: Mapping[str, object] | None = None, **more: Any) -> dict[str, Any]:
    """The problem document of ``code``; ``more`` are further members."""
    kind = KINDS[code]
    detail = [messages.text(code, lang, **(values or {})), messages.advice(code, lang, **(values or {}))]
    return {
        "type": f"urn:yici:problem:{code}",
        "title": messages.sentences()[code]["title"][lang],
        "status": kind.status,
        "detail": " ".join(part for part in detail if part),
        "code": code,
        "fault": kind.fault,
        **more,
    }


def of(error: YiciError, lang: Language) -> dict[str, Any]:
    """The problem document of ``error``."""
    code = code_of(error)
    if code == "item-retired":
        successor = error.values["successor"]
        return document(code, lang, error.values, successor=None if successor == "-" else successor)
    return document(code, lang, error.values if code == error.code else None)


SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "Problem details (RFC 9457) with a stable code and whose fault it is.",
    "type": "object",
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted(KINDS)},
        "fault": {"type": "string", "enum": ["caller", "hub", "partner"]},
        "error": {"type": "string", "description": "OAuth 2.0 error code (RFC 6749), token endpoint only."},
        "successor": {"type": ["string", "null"], "description": "With `item-retired`: the item to ask for instead."},
        "partner": {
            "description": "What the partner hub said: its name, its code, and whose fault it says it is.",
            "type": "object",
            "properties": {
                "hub": {"type": "string"},
                "code": {"type": "string"},
                "fault": {"type": "string", "enum": ["caller", "hub", "partner"]},
            },
            "required": ["hub", "code", "fault"],
            "additionalProperties": False,
        },
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"place": {"type": "string"}, "reason": {"type": "string"}},
                "required": ["place", "reason"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["type", "title", "status", "detail", "code", "fault"],
    "additionalProperties": False,
}
