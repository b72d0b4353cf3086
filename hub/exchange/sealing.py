"""What the exchange keeps readable by this hub alone: AES-256-GCM under ``keys/exchange.key`` of the home."""

from __future__ import annotations

import functools
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from connectors.errors import FatalError
from hub import home
from hub.home import Home

KEY = "exchange.key"
NONCE_BYTES = 12  # NIST SP 800-38D: 96 bits, random for every sealing


def seal(secret: bytes, about: str) -> bytes:
    """``secret`` encrypted and bound to ``about``: nonce, then ciphertext."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + _cipher(home.current(), True).encrypt(nonce, secret, about.encode())


def unseal(sealed: bytes, about: str) -> bytes:
    """What :func:`seal` took. FatalError ``key-missing``, or ``exchange-key-unreadable`` under another key or about another."""
    try:
        return _cipher(home.current(), False).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], about.encode())
    except (InvalidTag, ValueError):
        raise FatalError("exchange-key-unreadable", folder=home.current().keys, key=KEY) from None


@functools.lru_cache(maxsize=16)
def _cipher(here: Home, make: bool) -> AESGCM:
    return AESGCM(here.secret(KEY, make=make))
