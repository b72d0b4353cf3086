"""Records of the ledger (docs/protocol/20-ledger.md): how one is written, and its digest, in SQL and here.

A record is written in the transaction of what it is about. It takes no lock that another writer waits for: its place in the
chain comes later (:mod:`hub.exchange.ledger`).
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

import orjson
import sqlalchemy as sa

from connectors import envelope
from connectors.envelope import Envelope, Message
from hub import records
from hub.mentions import names_somebody

FORM = "yici-record/1"  # what is digested begins with this line
DIRECTIONS = ("asked", "answered", "noted")
LONGEST = 200  # characters of what a stranger says of itself
FIELDS = (  # of a record, in the order of its digest
    "id", "recorded_at", "peer", "direction", "message", "kind", "agreement", "outcome", "detail", "request", "reply",
)  # fmt: skip
FIXED = {"id": 36, "recorded_at": 27, "message": 36}  # characters, where they are always as many


def _text(row: str, name: str) -> str:
    if name == "recorded_at":
        return f"""to_char({row}.{name} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
    return f"{row}.{name}::text"


def columns(row: str) -> str:
    """The SELECT list of a record as it is shown: every field as text. ``row``: what the statement calls ``exchange_record``."""
    return ", ".join(f"{_text(row, name)} AS {name}" for name in FIELDS)


def digest(row: str) -> str:
    """The SQL expression of the digest of a record: every field behind its length in bytes; one that is null has none."""
    parts = []
    for name in FIELDS:
        text = _text(row, name)
        known = FIXED.get(name)
        parts.append(f"coalesce('{known}:' || {text}, ':')" if known else f"octet_length({text}), ':', {text}")
    return f"sha256(convert_to(concat('{FORM}', chr(10), {', chr(10), '.join(parts)}, chr(10)), 'UTF8'))"


def digest_of(record: Mapping[str, str | None]) -> bytes:
    """The same of a record as it is shown."""
    parts = [FORM.encode() + b"\n"]
    for name in FIELDS:
        data = (record[name] or "").encode()
        parts.append(b":\n" if record[name] is None else b"%d:%s\n" % (len(data), data))
    return sha256(b"".join(parts)).digest()


def moment(at: dt.datetime) -> str:
    """As digests and checkpoints have it: UTC, to the microsecond."""
    return at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def record(
    connection: sa.Connection,
    *,
    peer: str,
    direction: str,
    kind: str,
    outcome: str,
    message: uuid.UUID | str | None = None,
    agreement: str | None = None,
    detail: Mapping[str, Any] | None = None,
    request: Message | str | None = None,
    reply: Message | str | None = None,
    kept: bytes | None = None,
) -> uuid.UUID:
    """Write a record, in the caller's transaction; its id is returned.

    ``peer``, ``kind``, ``agreement`` may be what a stranger said: they are cut, and what does not print is replaced.
    ``request``, ``reply``: messages, or envelopes as they came (kept as :func:`_sealed` says). ``detail``: anything JSON; no person in it. ValueError for
    another ``direction`` than ``asked``, ``answered``, ``noted``. ``kept``: the reply as it stays for a repeat of ``message``,
    written by the same statement.
    """
    if direction not in DIRECTIONS:
        raise ValueError(direction)
    now = dt.datetime.now(dt.UTC)
    named = records.key(now)
    values = {
        "id": named,
        "recorded_at": now,
        "peer": _printed(peer),
        "direction": direction,
        "message": uuid.UUID(message) if isinstance(message, str) else message,
        "kind": _printed(kind),
        "agreement": None if agreement is None else _printed(agreement),
        "outcome": outcome,
        "detail": orjson.dumps(detail or {}, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z).decode(),
        "request": _own(request) if direction == "asked" else _sealed(request),
        "reply": _own(reply) if direction == "answered" else _sealed(reply),
    }
    if kept is None:
        connection.execute(_RECORD, values)
    else:
        connection.execute(_RECORD_AND_KEEP, {**values, "kept": kept})
    return named


def _printed(text: str) -> str:
    return "".join(one if one.isprintable() else "\ufffd" for one in text[:LONGEST])


def _own(message: Message | str | None) -> str | None:
    """What this hub has just signed: it says nothing that it does not know."""
    return message.sealed if isinstance(message, Message) else _sealed(message)


def _sealed(message: Message | str | None) -> str | None:
    """An envelope as it came, where all that stands in it is known and names nobody; of anything else nothing is kept."""
    text = message.sealed if isinstance(message, Message) else message
    if text is None or not text.isascii() or not text.isprintable():
        return None
    told = envelope.known(text)
    return None if told is None or any(map(names_somebody, _words(told, text))) else text


def _words(told: Envelope, sealed: str) -> Iterator[str]:
    """What is written freely in an envelope, or can be where it is not signed."""
    yield from (told.sender, told.receiver, told.type, sealed.rpartition(".")[2])
    yield from (label for label in (told.purpose, told.case, told.status) if label)


def _recording(beside: str) -> sa.TextClause:
    statement = f"""WITH written AS (
      INSERT INTO exchange_record ({", ".join(FIELDS)}) VALUES ({", ".join(f":{name}" for name in FIELDS)})){beside}
    INSERT INTO exchange_pending (record, recorded_at) VALUES (:id, :recorded_at)"""
    return sa.text(statement).bindparams(*(sa.bindparam(name, type_=_TYPES.get(name, sa.Text())) for name in FIELDS))


_TYPES: Mapping[str, Any] = {"id": sa.Uuid(), "message": sa.Uuid(), "recorded_at": sa.DateTime(timezone=True)}
_KEPT = """, kept AS (
      UPDATE exchange_message SET reply = :kept WHERE peer = :peer AND message = :message)"""
_RECORD, _RECORD_AND_KEEP = _recording(""), _recording(_KEPT)
