"""Who this hub is to other hubs: its name, its region, and the key it signs with.

``YICI_HUB``, or ``hub`` in ``hub.json`` of the home, names it (``hub`` by default); ``YICI_REGION``, or ``region`` there, is its
division code of six digits; a hub that gives nothing to others needs neither. The key is an Ed25519 key in the home (0600), made on first use.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import OKPKey

from connectors import signature
from connectors.errors import FatalError
from hub import home
from hub.home import Home

KEY = "index-signing.key"
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LONGEST_NAME = 80


@dataclass(frozen=True)
class Publisher:
    """``hub``: the name others know this hub by. ``region``: six digits, what its word counts for."""

    hub: str
    region: str


def publisher() -> Publisher:
    """FatalError ``hub-name-invalid``, or ``hub-region-missing`` when ``YICI_REGION`` is not a division code."""
    here = home.current()
    hub, region = here.identity("hub") or "hub", here.identity("region") or ""
    if not NAME.fullmatch(hub) or len(hub) > LONGEST_NAME:
        raise FatalError("hub-name-invalid")
    if not re.fullmatch(r"[1-9][0-9]{5}", region):
        raise FatalError("hub-region-missing")
    return Publisher(hub, region)


def own_name() -> str:
    """What this hub calls itself, whether or not it may."""
    return home.current().identity("hub") or "hub"


def key(path: str, name: str) -> OKPKey:
    """The Ed25519 key ``name`` of the home at ``path``."""
    private = Ed25519PrivateKey.from_private_bytes(Home(Path(path)).secret(name))
    public = signature.base64url(private.public_key().public_bytes_raw())
    return OKPKey.import_key(
        {"kty": "OKP", "crv": "Ed25519", "x": public, "d": signature.base64url(private.private_bytes_raw())}
    )


def public_key() -> str:
    """base64url of the 32 raw bytes, as partners write it into their connection."""
    return str(_own(str(home.current().path)).as_dict(private=False)["x"])


def sign_detached(payload: bytes, kind: str) -> str:
    """The signature of this hub under ``payload``, to be given beside it (:func:`connectors.signature.detached`)."""
    return signature.detached(payload, _own(str(home.current().path)), kind)


@functools.cache
def _own(path: str) -> OKPKey:
    return key(path, KEY)
