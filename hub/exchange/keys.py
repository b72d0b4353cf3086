"""What this hub proves itself with to other hubs: message keys (Ed25519) and TLS certificates, each with its time.

``keys/exchange.json`` of the home says which there are; each secret stands in a file of its own (0600). A new key or
certificate is announced first and used once the old one ends, so that peers have the time between to learn of it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import functools
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import OKPKey

from connectors import signature
from connectors.envelope import SKEW
from connectors.errors import FatalError, UsageError
from hub import home
from hub.exchange import certificates
from hub.home import Home, replace_json, write_secret

FILE = "exchange.json"
OVERLAP = dt.timedelta(days=14)
EARLIER = dt.timedelta(days=1)  # than it was made a key counts: what is wrong with a clock is said of the clock
MOST = 8  # keys, or certificates, that count at once


@dataclass(frozen=True)
class Timed:
    """A key or certificate, good ``since`` until ``until`` (None: until further notice). ``name``: its kid, or the SHA-256
    fingerprint of the certificate in hex; ``public``: base64url of the key, or the certificate as PEM; ``file``: its secret
    in ``keys/``, gone once it has ended."""

    name: str
    public: str
    file: str
    since: dt.datetime
    until: dt.datetime | None = None

    def valid(self, moment: dt.datetime) -> bool:
        return self.since <= moment and (self.until is None or moment < self.until)


@dataclass(frozen=True)
class Keys:
    """All that this hub has had, oldest first. ``changed_at``: when last a key came or went."""

    home: Home
    changed_at: dt.datetime
    keys: tuple[Timed, ...]
    certificates: tuple[Timed, ...]

    def signing(self, moment: dt.datetime) -> OKPKey:
        """The key that messages are signed with at ``moment``."""
        return _private(self.home, _used(self.keys, moment).file)

    def public(self) -> list[OKPKey]:
        """Every key this hub ever signed with: what it said stays verifiable."""
        return [signature.public_key(key.public) for key in self.keys]

    def certificate(self, moment: dt.datetime) -> Path:
        """The PEM file, key and certificate, that is shown over TLS at ``moment``."""
        return self.home.keys / _used(self.certificates, moment).file


def own(here: Home | None = None) -> Keys:
    """Those of this home, made on first use. FatalError ``exchange-keys-unreadable``."""
    here = here or home.current()
    path = here.keys / FILE
    if not path.exists():
        _begin(here)
    stamp = path.stat()
    mark = stamp.st_ino, stamp.st_mtime_ns
    known = _read.get(here)
    if known is None or known[0] != mark:
        known = _read[here] = mark, _load(here)
    return known[1]


def rotate(overlap: dt.timedelta = OVERLAP, now: dt.datetime | None = None) -> Keys:
    """A new message key and a new certificate; the ones until now stay good for ``overlap``. UsageError ``keys-many``."""
    here, moment = home.current(), now or dt.datetime.now(dt.UTC)
    own(here)
    with _locked(here):
        known = _load(here)
        if sum(key.valid(moment) for key in known.keys) >= MOST:
            raise UsageError("keys-many", most=MOST)
        end = moment + overlap
        made = Keys(
            here,
            moment,
            (*(_ending(key, end) for key in known.keys), _new_key(here, moment)),
            (*(_ending(entry, end) for entry in known.certificates), _new_certificate(here, moment)),
        )
        _write(made)
    for past in (*made.keys, *made.certificates):
        if past.until is not None and past.until + 2 * SKEW < moment:
            (here.keys / past.file).unlink(missing_ok=True)
    return own(here)


def _used(entries: tuple[Timed, ...], moment: dt.datetime) -> Timed:
    """The oldest that is good for a while yet: by then others have heard of the next. Near its end another clock may be
    past it already."""
    good = [entry for entry in entries if entry.until is None or entry.until - 2 * SKEW > moment]
    return good[0] if good else entries[-1]


def _ending(entry: Timed, end: dt.datetime) -> Timed:
    return entry if entry.until is not None and entry.until < end else replace(entry, until=end)


def _new_key(here: Home, moment: dt.datetime) -> Timed:
    file = f"exchange-{moment:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}.key"
    here.secret(file)
    key = _private(here, file)
    return Timed(key.thumbprint(), str(key.as_dict(private=False)["x"]), file, moment - EARLIER)


def _new_certificate(here: Home, moment: dt.datetime) -> Timed:
    made = certificates.make(here.identity("hub") or "hub", moment)
    file = f"exchange-{made.fingerprint[:12]}.pem"
    write_secret(here.keys / file, made.private.encode() + made.pem.encode())
    return Timed(made.fingerprint, made.pem, file, moment - EARLIER)


def _begin(here: Home) -> None:
    here.create()
    with _locked(here):
        if not (here.keys / FILE).exists():
            now = dt.datetime.now(dt.UTC)
            _write(Keys(here, now, (_new_key(here, now),), (_new_certificate(here, now),)))


@contextlib.contextmanager
def _locked(here: Home) -> Iterator[None]:
    descriptor = os.open(here.keys / "exchange.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(keys: Keys) -> None:
    replace_json(
        keys.home.keys / FILE,
        {
            "changed_at": keys.changed_at.isoformat(),
            "keys": [_shown(entry) for entry in keys.keys],
            "certificates": [_shown(entry) for entry in keys.certificates],
        },
    )


def _shown(entry: Timed) -> dict[str, Any]:
    return {
        "name": entry.name,
        "public": entry.public,
        "file": entry.file,
        "from": entry.since.isoformat(),
        "to": entry.until.isoformat() if entry.until else None,
    }


def _load(here: Home) -> Keys:
    path = here.keys / FILE
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        keys, shown = (
            tuple(
                Timed(entry["name"], entry["public"], entry["file"], _moment(entry["from"]), _end(entry["to"]))
                for entry in told[part]
            )
            for part in ("keys", "certificates")
        )
        return Keys(here, _moment(told["changed_at"]), keys, shown)
    except (OSError, ValueError, KeyError, TypeError):
        raise FatalError("exchange-keys-unreadable", file=path) from None


def _moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


def _end(text: str | None) -> dt.datetime | None:
    return _moment(text) if text else None


@functools.lru_cache(maxsize=64)
def _private(here: Home, file: str) -> OKPKey:
    """FatalError ``key-missing``."""
    private = Ed25519PrivateKey.from_private_bytes(here.secret(file, make=False))
    public, raw = private.public_key().public_bytes_raw(), private.private_bytes_raw()
    return OKPKey.import_key(
        {"kty": "OKP", "crv": "Ed25519", "x": signature.base64url(public), "d": signature.base64url(raw)}
    )


_read: dict[Home, tuple[tuple[int, int], Keys]] = {}  # as long as the file is the same one
