"""Messages between hubs (docs/protocol/10-messages.md): a signed envelope, a line feed, the body.

The envelope signs the body's digest, so the envelope alone, which names nobody, proves what was said once the body is
shown: it is what both sides keep in their ledgers.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any

import msgspec
from joserfc.jwk import OKPKey

from connectors import signature
from connectors.errors import FatalError

PROTOCOL = "yici/1"
MEDIA_TYPE = "application/vnd.yici.message"
TYPE = "yici-message+jws"
SKEW = dt.timedelta(minutes=10)  # between the clocks of two hubs, and how long a message may be on its way
LIMIT = 8 * 1024 * 1024  # bytes of a message
LONGEST = 16 * 1024  # bytes of an envelope
OK = "ok"

Name = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9]+(-[a-z0-9]+)*\Z", max_length=80)]
Code = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9]+(-[a-z0-9]+)*\Z", max_length=80)]
KindName = Annotated[str, msgspec.Meta(pattern=r"\A[a-z]+(-[a-z]+)*(\.[a-z]+(-[a-z]+)*)+\Z", max_length=80)]
Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Reference = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/[1-9][0-9]{0,8}\Z")]
MediaType = Annotated[str, msgspec.Meta(pattern=r"\A[!-:<-~]+(; ?[!-:<-~]+)*\Z", max_length=120)]
Protocol = Annotated[str, msgspec.Meta(pattern=r"\A[a-z]+(-[a-z]+)*/[0-9]{1,3}(\.[0-9]{1,3})?\Z", max_length=40)]
Label = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00-\x1f\x7f]*\Z", max_length=200)]
Moment = Annotated[dt.datetime, msgspec.Meta(tz=True)]


class Envelope(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"sender": "from", "receiver": "to"}
):
    """What is signed, in the words of the protocol; ``from`` and ``to`` are words of Python. Moments are UTC."""

    protocol: Protocol
    id: uuid.UUID
    kind: KindName
    sender: Name
    receiver: Name
    at: Moment
    digest: Digest
    size: Annotated[int, msgspec.Meta(ge=0)]
    type: MediaType
    agreement: Reference | None = None
    purpose: Label | None = None
    case: Label | None = None
    deadline: Moment | None = None
    reply_to: uuid.UUID | None = None
    request: Digest | None = None
    status: Code | None = None
    head: dict[str, Any] | None = None


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A checkpoint as messages carry it (docs/protocol/20-ledger.md), by its form alone."""

    position: Annotated[int, msgspec.Meta(ge=1)]
    chain: Digest
    at: Moment
    signature: Annotated[str, msgspec.Meta(pattern=r"\A[\w-]+\.[\w-]+\.[\w-]+\Z", max_length=4096)]


@dataclass(frozen=True)
class Message:
    """``sealed``: the envelope as it was sent, one line. Nothing of it is verified by being read."""

    envelope: Envelope
    body: bytes
    sealed: str

    @property
    def intact(self) -> bool:
        """Whether the body is the one that the envelope speaks of."""
        return len(self.body) == self.envelope.size and sha256(self.body).hexdigest() == self.envelope.digest

    @property
    def digest(self) -> bytes:
        """SHA-256 of the envelope as it was sent: what a reply names as its ``request``."""
        return sha256(self.sealed.encode()).digest()

    @property
    def wire(self) -> bytes:
        return b"\n".join((self.sealed.encode(), self.body))


def of(body: bytes, /, **members: Any) -> Envelope:
    """An envelope around ``body``; ``members`` without ``protocol``, ``digest`` and ``size``."""
    return Envelope(protocol=PROTOCOL, digest=sha256(body).hexdigest(), size=len(body), **members)


def signed(envelope: Envelope, body: bytes, key: OKPKey) -> Message:
    return Message(envelope, body, signature.sign(_encoder.encode(envelope), key, TYPE))


def seal(envelope: Envelope, body: bytes, key: OKPKey) -> bytes:
    """The message as it goes out."""
    return signed(envelope, body, key).wire


def read(wire: bytes, limit: int = LIMIT) -> Message:
    """A message as it came, nothing verified. FatalError ``message-malformed`` when it is none, or longer than ``limit``."""
    sealed, newline, body = wire.partition(b"\n")
    found = _COMPACT.fullmatch(sealed) if newline and len(wire) <= limit and len(sealed) <= LONGEST else None
    if found is None:
        raise FatalError("message-malformed")
    payload = found[1]
    try:
        envelope = _decoder.decode(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    except (ValueError, msgspec.MsgspecError, RecursionError):
        raise FatalError("message-malformed") from None
    if not ordered(envelope.id):
        raise FatalError("message-malformed")
    return Message(envelope, body, sealed.decode("ascii"))


def ordered(named: uuid.UUID) -> bool:
    """Whether it is a UUID of version 7 (RFC 9562), as all ids are that hubs make for each other."""
    return named.version == 7 and named.variant == uuid.RFC_4122


def known(sealed: str) -> Envelope | None:
    """The envelope, where it says nothing but what this version knows: each member once, in its form; header and head too.

    What else stands in it nobody here has read, so it is kept nowhere.
    """
    try:
        header, payload, _ = _KEPT.fullmatch(sealed).groups()  # type: ignore[union-attr]
        said, told = (json.loads(_part(part), object_pairs_hook=_single) for part in (header, payload))
        if not (said.keys() <= _HEADER.keys() and told.keys() <= _MEMBERS):
            return None
        if not all(_HEADER[name].fullmatch(value) for name, value in said.items()):
            return None
        if "head" in told:
            msgspec.convert(told["head"], Head)
        return _decoder.decode(_part(payload))
    except (ValueError, TypeError, AttributeError, msgspec.MsgspecError, RecursionError):
        return None


def _single(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise ValueError("a member twice")
    return found


def _part(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verify(message: Message, keys: Sequence[OKPKey], name: str) -> None:
    """That one of ``keys`` signed the envelope; ``name``: whose they are. FatalError ``message-signature``."""
    try:
        signature.verify(message.sealed.encode(), keys, name, TYPE)
    except FatalError:
        raise FatalError("message-signature", peer=name) from None


_COMPACT = re.compile(rb"[\w-]+\.([\w-]+)\.[\w-]+")  # RFC 7515, 7.1
_KEPT = re.compile(r"([\w-]+)\.([\w-]+)\.([\w-]{86})", re.ASCII)  # an Ed25519 signature is 64 bytes
_HEADER = {
    "alg": re.compile("[A-Za-z0-9]{1,16}"),
    "kid": re.compile(r"[\w-]{43}", re.ASCII),
    "typ": re.compile("[a-z]+(-[a-z]+)*[+]jws|at[+]jwt"),
}
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Envelope)
_MEMBERS = frozenset(field.encode_name for field in msgspec.structs.fields(Envelope))
