"""What operators see of the ledger: records by peer, kind and outcome, and all of one."""

from __future__ import annotations

import base64
import datetime as dt
import uuid
from typing import Any

import orjson
import sqlalchemy as sa

from hub import signing
from hub.exchange import proofs
from hub.exchange.entries import FIELDS, moment


def listed(
    connection: sa.Connection,
    *,
    peer: str | None = None,
    kind: str | None = None,
    outcome: str | None = None,
    refused: bool = False,
    since: dt.datetime | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """The latest ``limit`` records, newest first. ``refused``: those that did not go well; a question of which nothing was heard
    any more is one."""
    bind = {"peer": peer, "kind": kind, "outcome": outcome, "since": since, "limit": limit}
    conditions = [text for name, text in _CONDITIONS.items() if bind[name] is not None]
    if refused:
        conditions.append(_REFUSED)
    query = _LISTED.format(where=" AND ".join(conditions) or "true")
    return [
        {**row._mapping, "recorded_at": moment(row.recorded_at), "detail": orjson.loads(row.detail)}
        for row in connection.execute(sa.text(query), bind)
    ]


def shown(connection: sa.Connection, named: str) -> dict[str, Any]:
    """All of the record ``named`` (:func:`hub.exchange.proofs.find`), its envelopes opened. UsageError ``record-unknown``."""
    row = proofs.find(connection, named)
    place = connection.execute(_PLACE, {"record": uuid.UUID(row.id), "hub": signing.own_name()}).first()
    plain = {name: getattr(row, name) for name in FIELDS if name not in proofs.ENVELOPES}
    return {
        **plain,
        "detail": orjson.loads(row.detail),
        "position": place.position if place else None,
        "signed_at": place.signed_at.astimezone(dt.UTC).isoformat() if place and place.signed_at else None,
        **{name: _opened(getattr(row, name)) for name in proofs.ENVELOPES},
    }


def _opened(sealed: str | None) -> dict[str, Any] | None:
    """What an envelope says; as it came where it cannot be read."""
    if sealed is None:
        return None
    try:
        part = sealed.split(".")[1]
        return {**orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))), "sealed": sealed}
    except (ValueError, IndexError, TypeError):
        return {"sealed": sealed}


_CONDITIONS = {
    "peer": "r.peer = :peer", "kind": "r.kind = :kind", "outcome": "r.outcome = :outcome", "since": "r.recorded_at >= :since",
}  # fmt: skip
_REFUSED = """r.outcome <> 'ok' AND (r.outcome <> 'sent' OR NOT EXISTS (
  SELECT FROM exchange_record AS o WHERE o.message = r.message AND o.direction = r.direction AND o.id > r.id))"""
# By id, which is by time, along the index.
_LISTED = """
WITH latest AS (SELECT r.* FROM exchange_record AS r WHERE {where} ORDER BY r.id DESC LIMIT :limit)
SELECT r.id AS record, r.recorded_at, r.peer, r.direction, r.kind, r.outcome, r.agreement, r.message, r.detail, c.position
FROM latest AS r LEFT JOIN exchange_chain AS c ON c.record = r.id AND c.recorded_at = r.recorded_at ORDER BY r.id DESC
"""
_PLACE = sa.text("""
SELECT c.position, (
  SELECT k.signed_at FROM exchange_checkpoint AS k WHERE k.hub = :hub AND k.position >= c.position ORDER BY k.position LIMIT 1
) AS signed_at
FROM exchange_chain AS c WHERE c.record = :record ORDER BY c.position LIMIT 1
""").bindparams(sa.bindparam("record", type_=sa.Uuid()))
