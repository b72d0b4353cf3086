"""Secrets of clients and peers: made here, shown once, kept only as a hash that is slow to try."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

# scrypt (RFC 7914): 16 MiB and some 50 ms a try.
COST, BLOCK, PARALLEL, SALT_BYTES, HASH_BYTES = 2**14, 8, 1, 16, 32


def made() -> str:
    """A new secret, 256 random bits."""
    return secrets.token_urlsafe(32)


def hashed(secret: str) -> str:
    """What is kept of ``secret``."""
    salt = secrets.token_bytes(SALT_BYTES)
    derived = _derive(secret, salt, COST, BLOCK, PARALLEL)
    parts = (base64.b64encode(part).decode() for part in (salt, derived))
    return "$".join(("scrypt", str(COST), str(BLOCK), str(PARALLEL), *parts))


def matches(secret: str, kept: str | None) -> bool:
    """Whether ``kept`` is the hash of ``secret``. ``None``, of a client nobody knows, takes as long as a wrong secret."""
    _, cost, block, parallel, salt, derived = (kept or _NOBODY).split("$")
    tried = _derive(secret, base64.b64decode(salt), int(cost), int(block), int(parallel))
    return hmac.compare_digest(tried, base64.b64decode(derived)) and kept is not None


def _derive(secret: str, salt: bytes, cost: int, block: int, parallel: int) -> bytes:
    return hashlib.scrypt(secret.encode(errors="replace"), salt=salt, n=cost, r=block, p=parallel, dklen=HASH_BYTES)


# The hash of a secret nobody knows, tried when there is no such client.
_NOBODY = "$".join(
    ("scrypt", str(COST), str(BLOCK), str(PARALLEL), base64.b64encode(secrets.token_bytes(SALT_BYTES)).decode(),
     base64.b64encode(secrets.token_bytes(HASH_BYTES)).decode())
)  # fmt: skip
