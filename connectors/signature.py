"""What a hub signs: a compact JWS (RFC 7515) under an Ed25519 key (RFC 8037), of evidence (docs/evidence.md), cards and
agreements (docs/protocol.md) with what is signed beside it (RFC 7515, Appendix F).

Both sides use this: the hub that signs, whoever verifies. Which key it was is told by ``kid``, the key's thumbprint
(RFC 7638); what was signed by ``typ``, so that nothing signed as one passes for the other.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from connectors.errors import FatalError

EVIDENCE = "yici-evidence+jws"
ALGORITHM = "Ed25519"  # RFC 9864 names the curve; the older `EdDSA` left it open
PUBLIC_KEY_BYTES = 32


class _Registry(jws.JWSRegistry):
    max_payload_length = 64 * 1024 * 1024  # evidence is far larger than tokens; who fetches bounds it sooner


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
    header = {"alg": ALGORITHM, "kid": key.thumbprint(), "typ": kind}
    return jws.serialize_compact(header, payload, key, algorithms=[ALGORITHM], registry=_registry())


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
        found = jws.extract_compact(signed.strip(), None, _registry())
        header = found.protected
        if header.get("alg") != ALGORITHM or header.get("typ") != kind:
            raise FatalError("signature-wrong", file=name)
        key = next((key for key in keys if key.thumbprint() == header.get("kid")), None)
        if key is None:
            raise FatalError("signature-key-unknown", file=name, known=", ".join(key.thumbprint() for key in keys))
        written = found.segments["signature"].decode()
        # The last character of a base64 text has bits that say nothing: only one way of writing it is good.
        if written != base64url(base64.urlsafe_b64decode(written + "==")) or not jws.validate_compact(
            found, key, [ALGORITHM], _registry()
        ):
            raise FatalError("signature-wrong", file=name)
    except (JoseError, ValueError, TypeError, RecursionError):
        raise FatalError("signature-wrong", file=name) from None
    return bytes(found.payload)


def _registry() -> jws.JWSRegistry:
    return _Registry(algorithms=[ALGORITHM])
