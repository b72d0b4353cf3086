"""Proofs (docs/protocol/20-ledger.md): one record of the ledger with its signed envelopes and its place in the chain, as a file
that anybody verifies offline with public keys alone.

A key proves what was signed with it: of the partner's, what the partner said; of the owner's, what the owner said, and that
the record stood in its ledger when it signed the checkpoint.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import sqlalchemy as sa
from joserfc.jwk import OKPKey

from connectors import envelope, messages, signature
from connectors.errors import FatalError, RetriableError, UsageError
from hub import signing
from hub.exchange import checkpoints
from hub.exchange.entries import FIELDS, columns, digest_of

FORM = "yici-proof/1"
GOOD, BAD, UNCHECKED = "good", "bad", "unchecked"
ENVELOPES = ("request", "reply")


@dataclass(frozen=True)
class Check:
    """``code``: of ``messages/exchange_ledger.yml``, its sentence says what is so. ``result``: ``good``: a given key proves it; ``bad``: it is
    not so; ``unchecked``: it may have been made up, only a key of ``needs`` could tell."""

    code: str
    result: str
    values: Mapping[str, object] = field(default_factory=dict)
    needs: str | None = None

    def sentence(self) -> str:
        said = messages.text(self.code, None, **self.values)
        return messages.text("proof-unchecked", None, hub=self.needs, said=said) if self.needs else said

    def shown(self) -> dict[str, Any]:
        return {"check": self.code, "result": self.result, "needs": self.needs, "message": self.sentence()}


@dataclass(frozen=True)
class Checked:
    """``signed_by``: the hubs whose keys were given."""

    record: Mapping[str, Any]
    signed_by: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return bool(self.signed_by) and all(check.result != BAD for check in self.checks)

    @property
    def needs(self) -> tuple[str, ...]:
        """The hubs whose keys would check the rest."""
        return tuple(sorted({check.needs for check in self.checks if check.needs}))

    def shown(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "complete": self.ok and not self.needs,
            "record": self.record,
            "signed_by": list(self.signed_by),
            "needs": list(self.needs),
            "checks": [check.shown() for check in self.checks],
        }


def find(connection: sa.Connection, named: str) -> sa.Row[Any]:
    """The record with the id ``named``, or the latest about the message with that id. UsageError ``record-unknown``."""
    try:
        wanted = uuid.UUID(named)
    except ValueError:
        raise UsageError("record-unknown") from None
    row = connection.execute(_RECORD, {"named": wanted}).first()
    if row is None:
        raise UsageError("record-unknown")
    return row


def export(connection: sa.Connection, named: str) -> dict[str, Any]:
    """The proof of a record. UsageError ``record-unknown``; RetriableError ``record-not-signed`` while no checkpoint is
    after it; FatalError ``record-altered`` when it is not what its place says: there is nothing to prove then."""
    record = {name: getattr(find(connection, named), name) for name in FIELDS}
    hub = signing.own_name()
    place = connection.execute(_PLACE, {"record": uuid.UUID(record["id"]), "hub": hub}).first()
    row = place and connection.execute(_CHECKPOINT, {"hub": hub, "position": place.position}).first()
    if place is None or row is None:
        raise RetriableError("record-not-signed", record=record["id"])
    signed = checkpoints.of(row)
    links = connection.scalars(_LINKS, {"position": place.position, "last": signed.position})
    proof = {
        "protocol": FORM,
        "hub": hub,
        "record": record,
        "chain": {
            "position": place.position,
            "before": (place.before or bytes(checkpoints.CHAIN_BYTES)).hex(),
            "entries": [entry.hex() for entry in links],
        },
        "checkpoint": signed.told(),
    }
    if _end(proof) != signed.chain:
        raise FatalError("record-altered", record=record["id"], position=place.position)
    return proof


def verify_proof(proof: object, keys: Sequence[OKPKey], body: bytes | None = None) -> Checked:
    """Verify a proof with ``keys`` alone; ``body``: what was sent or came, to be compared with its digest.

    FatalError ``proof-form`` when it is none. What none of the keys proves is ``unchecked``, though it be of one piece: whoever has no
    key can make that up. With no signature by any of them nothing is proved.
    """
    try:
        return _verified(_form(proof), keys, body)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError):
        raise FatalError("proof-form") from None


def _form(proof: Any) -> dict[str, Any]:
    if proof["protocol"] != FORM or set(proof["record"]) != set(FIELDS):
        raise ValueError("another form")
    texts = [value for value in proof["record"].values() if value is not None]
    if not all(isinstance(text, str) for text in (proof["hub"], *texts)):
        raise ValueError("not text")
    return dict(proof)


def _verified(proof: dict[str, Any], keys: Sequence[OKPKey], body: bytes | None) -> Checked:
    hub, record, told = proof["hub"], proof["record"], proof["checkpoint"]
    said = {name: _payload(record[name]) for name in ENVELOPES if record[name] is not None}
    signatures, checks = _Signatures(keys), []
    for name, payload in said.items():
        values = {"hub": payload["from"], **{member: payload[member] for member in ("to", "at", "kind")}}
        checks.append(signatures.check(f"proof-{name}-signed", record[name], envelope.TYPE, values))
    proved = {name for name, check in zip(said, checks, strict=True) if check.result == GOOD}
    if len(said) == len(ENVELOPES):
        digest = hashlib.sha256(record["request"].encode()).hexdigest()
        linked = (said["reply"]["reply_to"], said["reply"]["request"]) == (said["request"]["id"], digest)
        checks.append(_so("proof-reply-linked", linked, "reply" in proved, said["reply"]["from"]))
        if linked and "reply" in proved:
            proved.add("request")  # the reply's signature is one of exactly this request
    signed = checkpoints.read(told["signature"], hub)
    values = {"hub": hub, "position": signed.position, "at": told["at"]}
    checkpoint = signatures.check("proof-checkpoint-signed", signed.signature, checkpoints.TYPE, values)
    linked = signed.told() == told and (_end(proof), _last(proof)) == (signed.chain, signed.position)
    stands = linked and checkpoint.result == GOOD
    agreed = bool(said) and proved == set(said) and record["outcome"] == envelope.OK
    checks.append(_so("proof-record-agrees", _agrees(hub, record, said), stands or agreed, hub))
    if body is not None:
        checks.append(_body(said, proved, body))
    position = {"position": proof["chain"]["position"]}
    checks += [_so("proof-chain-linked", linked, stands, hub, position), checkpoint]
    shown = {name: value for name, value in record.items() if name not in ENVELOPES}
    signed_by, keys_wrong = signatures.conclude()
    return Checked(shown, signed_by, (*checks, *keys_wrong))


def _so(code: str, so: bool, proved: bool, hub: str, values: Mapping[str, object] | None = None) -> Check:
    """``so``: whether it is as it should be; ``proved``: whether a given key says that it is no invention, else one of ``hub`` would."""
    if so and not proved:
        return Check(code, UNCHECKED, values or {}, hub)
    return Check(code, GOOD if so else BAD, values or {})


class _Signatures:
    """What each key signed, and as which hub."""

    def __init__(self, keys: Sequence[OKPKey]) -> None:
        self._keys = keys
        self._hubs: dict[str, set[str]] = {}

    def check(self, code: str, text: str, kind: str, values: dict[str, object]) -> Check:
        """That one of the keys signed ``text`` as ``values["hub"]``; by another key it is unchecked."""
        for key in self._keys:
            try:
                signature.verify(text.encode(), [key], code, kind)
            except FatalError as error:
                if error.code == "signature-key-unknown":
                    continue
                return Check(code, BAD, values)
            self._hubs.setdefault(key.thumbprint(), set()).add(str(values["hub"]))
            return Check(code, GOOD, values)
        return Check(code, UNCHECKED, values, str(values["hub"]))

    def conclude(self) -> tuple[tuple[str, ...], list[Check]]:
        """The hubs whose keys these are, and what is wrong with them. A key belongs to one hub."""
        wrong = [
            Check("proof-key-shared", BAD, {"hubs": ", ".join(sorted(hubs))})
            for hubs in self._hubs.values() if len(hubs) > 1
        ]  # fmt: skip
        if not self._hubs:
            wrong.append(Check("proof-nothing-signed", BAD))
        return tuple(sorted(set().union(*self._hubs.values()))), wrong


def _agrees(hub: str, record: Mapping[str, Any], said: Mapping[str, Any]) -> bool:
    """Whether the record tells what its envelopes say. A refusal may be about just that, and is told by the code alone."""
    if record["outcome"] != envelope.OK:
        return True
    own, others = (said.get(name, {}) for name in (ENVELOPES if record["direction"] == "asked" else ENVELOPES[::-1]))
    sides = all(
        payload["from"] == sender and payload["to"] == receiver and payload["kind"] == record["kind"]
        for payload, sender, receiver in ((own, hub, record["peer"]), (others, record["peer"], hub))
        if payload
    )
    request, reply = said.get("request"), said.get("reply", {})
    # An envelope with members of a later version is not kept: then the reply says what it was to.
    asked = (request["id"], request.get("agreement")) if request else (reply.get("reply_to"), reply.get("agreement"))
    return sides and asked == (record["message"], record["agreement"]) and reply.get("status") == record["outcome"]


def _body(said: Mapping[str, Any], proved: Collection[str], body: bytes) -> Check:
    """Whose body it is: of an envelope that is proved, where there is one."""
    found = hashlib.sha256(body).hexdigest()
    named = [name for name, told in said.items() if told["digest"] == found and told["size"] == len(body)]
    for name in sorted(named, key=lambda name: name not in proved):
        hub = said[name]["from"]
        return _so(f"proof-{name}-body", True, name in proved, hub, {"hub": hub, "bytes": len(body)})
    return Check("proof-body-differs", BAD, {"digest": found})


def _end(proof: Mapping[str, Any]) -> bytes:
    """The chain that follows from the record and the entries after it."""
    chain = bytes.fromhex(proof["chain"]["before"])
    for entry in (digest_of(proof["record"]), *map(bytes.fromhex, proof["chain"]["entries"])):
        chain = hashlib.sha256(chain + entry).digest()
    return chain


def _last(proof: Mapping[str, Any]) -> int:
    """The position of the last entry."""
    return int(proof["chain"]["position"]) + len(proof["chain"]["entries"])


def _payload(sealed: str) -> dict[str, Any]:
    part = sealed.split(".")[1]
    return dict(orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


_RECORD = sa.text(f"""
SELECT {columns("r")} FROM exchange_record AS r WHERE r.id = :named OR r.message = :named
ORDER BY r.id = :named DESC, r.direction = 'noted', r.id DESC LIMIT 1
""").bindparams(sa.bindparam("named", type_=sa.Uuid()))
# Before the first that is kept there is only the checkpoint.
_PLACE = sa.text("""
SELECT c.position, coalesce(
  (SELECT b.chain FROM exchange_chain AS b WHERE b.position = c.position - 1),
  (SELECT k.chain FROM exchange_checkpoint AS k WHERE k.hub = :hub AND k.position = c.position - 1)) AS before
FROM exchange_chain AS c WHERE c.record = :record ORDER BY c.position LIMIT 1
""").bindparams(sa.bindparam("record", type_=sa.Uuid()))
_CHECKPOINT = sa.text("""
SELECT position, chain, signed_at, signature FROM exchange_checkpoint WHERE hub = :hub AND position >= :position
ORDER BY position LIMIT 1
""")
_LINKS = sa.text("SELECT entry FROM exchange_chain WHERE position > :position AND position <= :last ORDER BY position")
