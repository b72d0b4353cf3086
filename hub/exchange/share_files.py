"""Short-lived addresses of the files of a share: whoever has one may read that file, and nothing else, for some minutes.

The signature (HMAC-SHA256 under a key of the home) is over the file, the end, the version of the agreement and its token:
another version, a new token, a suspension or the end of the agreement takes back every address that was given out.
``sp`` says nothing here; clients built on delta-kernel-rs take an address for a signed one by such a name.

::

    shares/<agreement>/<material>/rows/<part>-<digest>.parquet   in the landing zone: rows of a version, by holding key
    shares/<agreement>/<material>/keys/<digest>.parquet          which holdings these rows are; never served
    shares/<agreement>/<material>/changes/<digest>.parquet       what a version changed
    shares/<agreement>/answers/<end>/<digest>.parquet            what one question selected; gone after its end
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import sqlalchemy as sa

from connectors.errors import UsageError
from hub import home
from hub.exchange import shares
from hub.exchange.shares import Share

if TYPE_CHECKING:
    from connectors.zone import Zone

KEY = "share-address.key"
MINUTES = 15
FOLDER = "shares"
ANSWERS = "answers"
END = "%Y%m%dT%H%M%SZ"


def address(share: Share, path: str, now: dt.datetime) -> str:
    """Path and query of a file's address below ``/delta/files/``. ``path``: below the agreement's folder."""
    until = f"{end(now):{END}}"
    signed = _signature(share.agreement.reference, share.bearer or b"", path, until).decode()
    return f"{share.name}/{path}?{urlencode({'until': until, 'sp': 'r', 'sig': signed})}"


def end(now: dt.datetime) -> dt.datetime:
    """When an address that is given out now ends."""
    return (now + dt.timedelta(minutes=MINUTES)).astimezone(dt.UTC).replace(microsecond=0)


def admitted(
    connection: sa.Connection, named: str, path: str, until: str, signature: str, now: dt.datetime,
    about: Callable[[str, str], None],
) -> Share:  # fmt: skip
    """The share whose file may be read. ``about``: told of the peer and the agreement once it is sure whose address it is.

    UsageError ``share-address-invalid``, ``share-address-expired``, and those of :func:`hub.exchange.agreements.admit`.
    """
    try:
        ends = dt.datetime.strptime(until, END).replace(tzinfo=dt.UTC)
        agreement = uuid.UUID(named)
        peer, reference = shares.parties(connection, agreement, now)
    except (ValueError, UsageError):
        raise UsageError("share-address-invalid") from None
    bearer = shares.bearer(connection, agreement, now)
    if bearer is None or not hmac.compare_digest(_signature(reference, bearer, path, until), signature.encode()):
        raise UsageError("share-address-invalid")
    about(peer, reference)
    if now >= ends:
        raise UsageError("share-address-expired", minutes=MINUTES)
    return shares.of(connection, agreement, now)


def zone() -> Zone:
    """Where the files lie."""
    from connectors.zone import Zone  # fsspec: not before a share is read

    return Zone(home.current().landing_url)


def folder(named: uuid.UUID | str) -> str:
    """Of an agreement, in the landing zone."""
    return f"{FOLDER}/{named}"


def answers(now: dt.datetime) -> str:
    """The folder for what a question asked now selects, below that of its agreement."""
    return f"{ANSWERS}/{end(now) + dt.timedelta(minutes=1):{END}}"


def drop_answered(lying: Zone, named: uuid.UUID | str, now: dt.datetime) -> None:
    """Remove what questions selected whose addresses have ended."""
    kept = f"{folder(named)}/{ANSWERS}"
    for name in lying.names(kept):
        if name < f"{now.astimezone(dt.UTC):{END}}":
            lying.remove(f"{kept}/{name}")


def _signature(reference: str, bearer: bytes, path: str, until: str) -> bytes:
    said = "\n".join((reference, bearer.hex(), path, until))
    return hmac.new(home.current().secret(KEY), said.encode(), hashlib.sha256).hexdigest().encode()
