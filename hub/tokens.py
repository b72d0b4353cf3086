"""Access tokens: short-lived JWTs signed with Ed25519 (RFC 9068, RFC 8037) under a key of the home."""

from __future__ import annotations

import base64
import functools
import secrets
import time
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from connectors.errors import UsageError
from hub import home

SECONDS = 30 * 60
ISSUER = AUDIENCE = "yici"
KEY = "token.key"
ALGORITHM = "Ed25519"
# RFC 9068: tells an access token from any other JWT under this key.
TYPE = "at+jwt"


@dataclass(frozen=True)
class Token:
    """An access token and the seconds it lives."""

    text: str
    seconds: int


def issue(client: str) -> Token:
    """A token for ``client``."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": client,
        "client_id": client,
        "iat": now,
        "exp": now + SECONDS,
        "jti": secrets.token_hex(16),
    }
    text = jwt.encode({"alg": ALGORITHM, "typ": TYPE}, claims, _key(str(home.current().path)), algorithms=[ALGORITHM])
    return Token(text, SECONDS)


def client_of(token: str) -> str:
    """The client that ``token`` was issued to. UsageError ``token-invalid`` whatever is wrong with it."""
    try:
        found = jwt.decode(token, _key(str(home.current().path)), algorithms=[ALGORITHM])
        _CLAIMS.validate(found.claims)
    except (JoseError, ValueError, TypeError, RecursionError):
        raise UsageError("token-invalid") from None
    subject = found.claims["sub"]
    if found.header.get("typ") != TYPE or not isinstance(subject, str):
        raise UsageError("token-invalid")
    return subject


_CLAIMS = jwt.JWTClaimsRegistry(
    iss={"essential": True, "value": ISSUER},
    aud={"essential": True, "value": AUDIENCE},
    exp={"essential": True},
    sub={"essential": True},
)


@functools.cache
def _key(path: str) -> OKPKey:
    """The signing key of the home at ``path``, made on first use. A new one only ends the tokens given out."""
    key = Ed25519PrivateKey.from_private_bytes(home.current().secret(KEY))
    return OKPKey.import_key(
        {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": _base64url(key.public_key().public_bytes_raw()),
            "d": _base64url(key.private_bytes_raw()),
        }
    )


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
