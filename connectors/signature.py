"""What a hub signs: a compact JWS (RFC 7515) under an Ed25519 key (RFC 8037), of evidence (docs/evidence.md), cards and
agreements (docs/protocol.md) with what is signed beside it (RFC 7515, Appendix F).

Both sides use this: the hub that signs, whoever verifies. Which key it was is told by ``kid``, the key's thumbprint
(RFC 7638); what was signed by ``typ``, so that nothing signed as one passes for the other.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
from collections.abc import Sequence
from typing import cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from connectors.errors import FatalError

EVIDENCE = "yici-evidence+jws"
ALGORITHM = "Ed25519"  # RFC 9864 names the curve; the older `EdDSA` left it open
PUBLIC_KEY_BYTES = 32
LARGEST = 64 * 1024 * 1024  # characters of a payload; who fetches bounds it sooner


def public_key(text: str) -> OKPKey:
    """The key written as base64url of its 32 raw bytes. ValueError when it is none."""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise ValueError("not base64url") from None
    if len(raw) != PUBLIC_KEY_BYTES:
        raise ValueError(f"{len(raw)} bytes, not {PUBLIC_KEY_BYTES}")
    return OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": base64url(raw)})


def base64url(data: bytes) -> str:
    """Without padding, as everywhere in JOSE."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(payload: bytes, key: OKPKey, kind: str) -> str:
    """``payload`` as a compact JWS; ``kind``: what it is."""
    signed = f"{_header(key.thumbprint(), kind)}.{base64url(payload)}"
    return f"{signed}.{base64url(cast(Ed25519PrivateKey, key.get_op_key('sign')).sign(signed.encode()))}"


def detached(payload: bytes, key: OKPKey, kind: str) -> str:
    """The signature of ``payload`` as a compact JWS without it: what stands between the two points is left out."""
    header, _, signed = sign(payload, key, kind).split(".")
    return f"{header}..{signed}"


def verify_detached(payload: bytes, beside: str, keys: Sequence[OKPKey], kind: str, name: str) -> None:
    """That one of ``keys`` made the signature ``beside`` of exactly these bytes. Errors as :func:`verify`."""
    header, points, signed = beside.partition("..")
    if not points:
        raise FatalError("signature-wrong", file=name)
    verify(f"{header}.{base64url(payload)}.{signed}".encode(), keys, name, kind)


def verify(signed: bytes, keys: Sequence[OKPKey], name: str, kind: str) -> bytes:
    """The payload of ``signed``, whose signature one of ``keys`` made.

    FatalError ``signature-key-unknown`` when it names another key, ``signature-wrong`` when anything else is wrong.
    """
    try:
        header, payload, written = signed.strip().split(b".")
        kid = _named(header, kind)
        key = next((key for key in keys if key.thumbprint() == kid), None)
        if key is None:
            raise FatalError("signature-key-unknown", file=name, known=", ".join(key.thumbprint() for key in keys))
        made = base64.urlsafe_b64decode(written + b"==")
        # The last character of a base64 text has bits that say nothing: only one way of writing it is good.
        if written != base64url(made).encode() or len(payload) > LARGEST:
            raise ValueError("not the one way of writing it")
        cast(Ed25519PublicKey, key.get_op_key("verify")).verify(made, b"%b.%b" % (header, payload))
        return base64.b64decode(payload.translate(_URLSAFE) + b"=" * (-len(payload) % 4), validate=True)
    except (JoseError, InvalidSignature, ValueError, TypeError, RecursionError):
        raise FatalError("signature-wrong", file=name) from None


@functools.lru_cache(maxsize=256)
def _header(kid: str, kind: str) -> str:
    told = {"alg": ALGORITHM, "kid": kid, "typ": kind}
    return base64url(json.dumps(told, separators=(",", ":")).encode())


@functools.lru_cache(maxsize=256)
def _named(header: bytes, kind: str) -> str | None:
    """The key that a header names: as good as all messages of a hub have the same. JoseError or ValueError when it is none of
    this algorithm and ``kind``, or says what we do not understand (RFC 7515, 4.1.11)."""
    registry = jws.JWSRegistry(algorithms=[ALGORITHM])
    registry.validate_header_size(header)
    told = json.loads(base64.urlsafe_b64decode(header + b"=" * (-len(header) % 4)))
    if not isinstance(told, dict) or told.get("alg") != ALGORITHM or told.get("typ") != kind:
        raise ValueError("another algorithm, or kind")
    registry.check_header(told)
    return told.get("kid")


_URLSAFE = bytes.maketrans(b"-_+/", b"+/--")
