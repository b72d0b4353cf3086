"""Keys of the index feed (docs/protocol/25-index.md): pure derivations both sides share, and sealing a key for the store.

Two hubs agree on one key; each epoch has its own key made from it, and ids made under one epoch say nothing under another.
An id is HMAC-SHA256 cut to 16 bytes, so SQL computes it set-based too: ``keyed_hash(text, inner, outer)`` with the padded
keys of ``KeyedHash(epoch_key)`` (:mod:`hub.home`).
"""

from __future__ import annotations

import base64
import binascii
import functools
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from connectors.errors import FatalError
from hub.home import KEY_BYTES, Home, KeyedHash, identifier_text

SEALING_KEY = "index.key"
CURSOR_KEY = "key"
NONCE_BYTES = 12  # NIST SP 800-38D: 96 bits, random for every sealing


def epoch_key(agreement_key: bytes, epoch: str) -> bytes:
    """The key of one epoch: 32 bytes, HKDF-SHA256 (RFC 5869) of the key agreed between two hubs."""
    info = f"yici-index epoch {epoch}".encode()
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(agreement_key)


def subject_id(epoch_key: bytes, scheme: str, value: str) -> bytes:
    """What stands for an identifier in the feed of an epoch: 16 bytes. ``value`` is normalised."""
    return KeyedHash(epoch_key).of(identifier_text(scheme, value))


def handle(epoch_key: bytes, holding: str) -> bytes:
    """What stands for a holding (its key, hex) in the feed of an epoch: 16 bytes."""
    return KeyedHash(epoch_key).of(f"holding:{holding}")


def sealed_for(source: str, epoch: str) -> str:
    """What a sealed epoch key is bound to."""
    return f"{source} {epoch}"


def local_text(source: str, epoch: str, subject: str) -> str:
    """The text whose keyed hash is ``index_entry.identifier``; ``subject`` is an id in hex, SQL builds the same."""
    return f"index:{source}:{epoch}:{subject}"


def seal(home: Home, secret: bytes, about: str = "") -> bytes:
    """``secret`` encrypted under a key of this home (AES-256-GCM), bound to ``about``: nonce, then ciphertext."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(home.secret(SEALING_KEY)).encrypt(nonce, secret, about.encode())


def unseal(home: Home, sealed: bytes, about: str = "") -> bytes:
    """What :func:`seal` took. FatalError ``key-missing`` or, under another key, ``index-key-unreadable``."""
    key = home.secret(SEALING_KEY, make=False)
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], about.encode())
    except (InvalidTag, ValueError):
        raise FatalError("index-key-unreadable", folder=home.keys, key=SEALING_KEY) from None


def for_cursor(home: Home, source: str, epoch: str, key: bytes) -> str:
    """The key of an epoch as a cursor holds it, sealed: it goes with what it is needed for, also into a rebuild."""
    return base64.b64encode(seal(home, key, sealed_for(source, epoch))).decode()


def of_cursor(cursor: object) -> bytes | None:
    """The sealed key that came with ``cursor``, if one did."""
    text = cursor.get(CURSOR_KEY) if isinstance(cursor, dict) else None
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        return None


def readable(home: Home, sealed: bytes | None, source: str, epoch: str) -> bool:
    """Whether ``sealed`` is the key of that epoch, sealed under the key of this home."""
    try:
        return bool(sealed) and bool(unseal(home, sealed or b"", sealed_for(source, epoch)))
    except FatalError:
        return False


class SealedKey(NamedTuple):
    """The key of one epoch of a partner hub's index, as ``index_key`` keeps it."""

    source: str
    epoch: str
    sealed: bytes


def asked_as(
    home: Home, keys: Iterable[SealedKey], holders: Mapping[bytes, tuple[str, str]], hashing: KeyedHash
) -> dict[bytes, bytes]:
    """``index_entry.identifier`` of everybody asked about, under each of ``keys`` -> keyed hash of the identifier itself.

    ``holders``: keyed hash -> (scheme, normalised value). Raises as :func:`unseal`.
    """
    found = {}
    for source, epoch, sealed in keys:
        key = _unsealed(home, sealed, sealed_for(source, epoch))
        for digest, (scheme, value) in holders.items():
            text = local_text(source, epoch, subject_id(key, scheme, value).hex())
            found[hashing.of(text)] = digest
    return found


@functools.lru_cache(maxsize=256)
def _unsealed(home: Home, sealed: bytes, about: str) -> bytes:
    return unseal(home, sealed, about)
