"""Access tokens: short-lived JWTs signed with Ed25519 (RFC 9068, RFC 8037) under a key of the home."""

from __future__ import annotations

import datetime as dt
import functools
import math
import secrets
import time
from dataclasses import dataclass

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from connectors.errors import UsageError
from hub import home, signing

SCOPE = "lookup"
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
    now = time.time()
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": client,
        "client_id": client,
        "scope": SCOPE,
        "iat": now,
        "exp": int(now) + SECONDS,
        "jti": secrets.token_hex(16),
    }
    text = jwt.encode({"alg": ALGORITHM, "typ": TYPE}, claims, _key(str(home.current().path)), algorithms=[ALGORITHM])
    return Token(text, SECONDS)


@dataclass(frozen=True)
class Bearer:
    """Whom a token was issued to, and when."""

    client: str
    issued_at: dt.datetime
    expires_at: dt.datetime

    def since(self, agreed_at: dt.datetime) -> bool:
        """Whether the token was issued under an agreement made at ``agreed_at``, and not under one before it."""
        return self.issued_at >= agreed_at


def client_of(token: str) -> str:
    """The client that ``token`` was issued to; errors as :func:`bearer`."""
    return bearer(token).client


def bearer(token: str) -> Bearer:
    """Whom ``token`` was issued to. UsageError ``token-invalid`` whatever is wrong with it."""
    try:
        found = jwt.decode(token, _key(str(home.current().path)), algorithms=[ALGORITHM])
        _CLAIMS.validate(found.claims)
    except (JoseError, ValueError, TypeError, RecursionError):
        raise UsageError("token-invalid") from None
    subject = found.claims["sub"]
    if found.header.get("typ") != TYPE or not isinstance(subject, str):
        raise UsageError("token-invalid")
    issued, expires = (dt.datetime.fromtimestamp(found.claims[name], dt.UTC) for name in ("iat", "exp"))
    return Bearer(subject, issued, expires)


_CLAIMS = jwt.JWTClaimsRegistry(
    now=lambda: math.ceil(time.time()),  # `iat` has fractions: a token of this very second is not of the future
    iss={"essential": True, "value": ISSUER},
    aud={"essential": True, "value": AUDIENCE},
    iat={"essential": True},
    exp={"essential": True},
    sub={"essential": True},
    scope={"essential": True, "value": SCOPE},
)


@functools.cache
def _key(path: str) -> OKPKey:
    """The signing key of the home at ``path``, made on first use. A new one only ends the tokens given out."""
    return signing.key(path, KEY)
