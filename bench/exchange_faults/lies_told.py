"""Lies that a hub tells by itself: messages, made with its keys."""

# ruff: noqa: S311 - drawn from a seed so that it comes again, nothing is kept secret with it
from __future__ import annotations

import base64
import datetime as dt
import json
import random
import uuid
from typing import Any

from bench.exchange_faults import seams
from bench.exchange_faults.lies import FALSE
from bench.exchange_faults.seams import Place
from bench.exchange_faults.truth import MATERIAL


def told(place: Place, name: str, peer: str, seed: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Tell ``peer`` the lie ``name``: the id of the message, the status of the reply, and what was said to be refused."""
    from connectors import envelope
    from connectors.errors import FatalError
    from hub import database
    from hub.exchange import keys, peers

    wire = _Message(place, peer, random.Random(seed), facts).say(name)
    now = dt.datetime.now(dt.UTC)
    with database.engine().connect() as connection:
        pems = peers.pems(peers.of(connection, peer), now)
    try:
        asked = envelope.read(wire).envelope.id
    except FatalError:
        asked = None
    answer = seams.again(peer, seams.address(peer), keys.own().certificate(now), pems, wire, seams.PATIENT)
    try:
        reply = envelope.read(answer)
        status = reply.envelope.status
    except FatalError:
        status = json.loads(answer)["code"]
    return {"message": str(asked) if asked else None, "status": status}


class _Message:
    """A message of the liar; ``facts``: what the harness knows that makes a good lie."""

    def __init__(self, place: Place, peer: str, rng: random.Random, facts: dict[str, Any]) -> None:
        self.place, self.peer, self.rng, self.facts = place, peer, rng, facts

    def say(self, name: str) -> bytes:
        from connectors import envelope
        from hub import records

        now = dt.datetime.now(dt.UTC)
        ask = {"kind": "peer.check"}
        match name:
            case "altered-body":
                return self._signed(b'{"one": 1}', **ask).replace(b'{"one": 1}', b'{"one": 2}')
            case "altered-envelope":
                head, payload, rest = self._signed(b"{}", **ask).split(b".", 2)
                said = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
                said["kind"] = "index.page"
                payload = base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=")
                return b".".join((head, payload, rest))
            case "foreign-key":
                return self._signed(b"{}", key=self._strange(), **ask)
            case "other-sender":
                return self._signed(b"{}", sender=self.facts["third"], **ask)
            case "other-receiver":
                return self._signed(b"{}", receiver=self.facts["third"], **ask)
            case "same-id":
                wire = self._sent()
                return self._signed(b'{"again": 1}', id=envelope.read(wire).envelope.id, **ask)
            case "replayed":
                return self._sent()
            case "old":
                return self._signed(b"{}", at=now - dt.timedelta(minutes=11), **ask)
            case "evidence-beyond" | "evidence-fields" | "evidence-purpose":
                return self._evidence(name)
            case "correction-of-nothing":
                return self._filing()
            case "answer-of-nothing":
                said = {
                    "correction": str(records.key(now)),
                    "outcome": "refused",
                    "at": now.isoformat(),
                    "reason": "no",
                }
                return self._signed(said, kind="correction.answer")
            case "restated-beyond":
                said = {"epoch": "29990101T000000Z-00000000", "records": [[FALSE, None]]}
                return self._signed(said, kind="reconcile.records", agreement=self.facts["agreement"])
            case "card-of-another" | "card-forged":
                return self._card(name)
            case "head-false" | "head-back":
                return self._signed(b"{}", head=self._head(name), **ask)
            case _:
                return self._agreement(name)

    def _signed(self, body: bytes | dict[str, Any], **members: Any) -> bytes:
        from connectors import envelope
        from hub import records
        from hub.exchange import keys

        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        now = dt.datetime.now(dt.UTC)
        key = members.pop("key", None) or keys.own().signing(now)
        said = {"id": records.key(now), "sender": self.place.name, "receiver": self.peer, "at": now,
                "type": "application/json", **members}  # fmt: skip
        return envelope.seal(envelope.of(data, **said), data, key)

    def _sent(self) -> bytes:
        """Something that was said before, and answered."""
        wire = self._signed(b"{}", kind="peer.check")
        from hub import database
        from hub.exchange import keys, peers

        now = dt.datetime.now(dt.UTC)
        with database.engine().connect() as connection:
            pems = peers.pems(peers.of(connection, self.peer), now)
        seams.again(self.peer, seams.address(self.peer), keys.own().certificate(now), pems, wire, seams.PATIENT)
        return wire

    def _strange(self) -> Any:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from joserfc.jwk import OKPKey

        from connectors import signature

        private = Ed25519PrivateKey.from_private_bytes(self.rng.randbytes(32))
        raw = {"x": private.public_key().public_bytes_raw(), "d": private.private_bytes_raw()}
        said = {name: signature.base64url(value) for name, value in raw.items()}
        return OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", **said})

    def _evidence(self, name: str) -> bytes:
        said: dict[str, Any] = {
            "material": MATERIAL,
            "holders": [
                {"scheme": "cn.uscc", "value": self.facts["beyond" if name == "evidence-beyond" else "within"]}
            ],
            "item": "demo-food-permit",
        }
        if name == "evidence-fields":
            said["fields"] = ["issuer_name"]
        purpose = "other" if name == "evidence-purpose" else "handle-application"
        return self._signed(
            said, kind="evidence.request", agreement=self.facts["agreement"], purpose=purpose, case="lie-1"
        )

    def _filing(self) -> bytes:
        from hub import records

        said = {
            "correction": str(records.key(dt.datetime.now(dt.UTC))), "epoch": self.facts["epoch"], "handle": FALSE, "version": FALSE, "material": MATERIAL,
            "field": "status", "said": {"expected": "revoked", "why": "lie"},
        }  # fmt: skip
        return self._signed(said, kind="correction.file", agreement=self.facts["agreement"])

    def _card(self, name: str) -> bytes:
        from connectors import signature
        from hub.exchange import cards, keys

        card = cards.own()
        card.pop("signature")
        if name == "card-of-another":
            card["hub"] = self.facts["third"]
            key = keys.own().signing(dt.datetime.now(dt.UTC))
        else:
            key = self._strange()
            public = key.as_dict(private=False)["x"]
            card["keys"] = [{**card["keys"][0], "kid": key.thumbprint(), "public_key": public}]
        signed = signature.detached(cards._canonical(card), key, cards.TYPE)
        return self._signed({**card, "signature": signed}, kind="peer.card")

    def _head(self, name: str) -> dict[str, Any]:
        from hub import database
        from hub.exchange import checkpoints, keys

        with database.engine().connect() as connection:
            position = int(self.facts["witnessed"])
            last = checkpoints.head(connection)
        assert last is not None
        if name == "head-false":
            return {**last, "chain": "00" * 32}
        # Signed, of a place that the other has witnessed, and another chain.
        now = dt.datetime.now(dt.UTC)
        made = checkpoints.made(self.place.name, position, self.rng.randbytes(32), now, keys.own().signing(now))
        return made.told()

    def _agreement(self, name: str) -> bytes:
        from connectors import signature
        from hub.exchange import agreement_terms, keys

        now = dt.datetime.now(dt.UTC)
        own = keys.own().signing(now)
        said: dict[str, Any]
        if name == "agreement-unheard":
            return self._signed({"after": 0}, kind="index.page", agreement=f"{uuid.uuid4()}/1")
        if name == "agreement-accepted-forged":
            reference = self.facts["agreement"]
            document = base64.b64decode(self.facts["document"])
            forged = signature.detached(document, self._strange(), agreement_terms.TYPE)
            said = {
                "agreement": reference,
                "digest": agreement_terms.digest(document),
                "signature": forged,
                "at": now.isoformat(),
            }
            return self._signed(said, kind="agreement.accept")
        document = base64.b64decode(self.facts["document"])
        terms = json.loads(document)
        terms["id"] = str(uuid.uuid4())
        terms["version"] = 1
        if name == "agreement-of-others":
            terms["provider"], terms["receiver"] = self.facts["third"], self.place.name
        text = agreement_terms.canonical(
            agreement_terms.parse(json.dumps(terms, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
        )
        key = self._strange() if name == "agreement-forged" else own
        said = {
            "document": text.decode(),
            "signature": signature.detached(text, key, agreement_terms.TYPE),
            "at": now.isoformat(),
        }
        return self._signed(said, kind="agreement.propose")
