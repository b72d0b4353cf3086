"""A hub's card (docs/protocol/10-messages.md): who it is, where it is reached, and the keys and certificates it is known by.

The first card of a peer comes by a channel of its own and is confirmed by people; a later one is signed with a key of the
one before. The signature covers the card's canonical bytes: JSON without it, members sorted, nothing between them.
"""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Protocol
from urllib.parse import urlsplit

import msgspec
import orjson

from connectors import signature
from connectors.envelope import SKEW, Moment, Name
from connectors.errors import FatalError, UsageError
from hub import home, signing
from hub.exchange import certificates, keys
from hub.home import Home

_TITLE = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
TYPE = "yici-card+jws"
LARGEST = 64 * 1024
PORT = 8490


class Key(msgspec.Struct, frozen=True, rename={"since": "from", "until": "to"}):
    kid: Annotated[str, msgspec.Meta(max_length=60)]
    public_key: Annotated[str, msgspec.Meta(max_length=60)]
    since: Moment
    until: Moment | None


class Certificate(msgspec.Struct, frozen=True, rename={"since": "from", "until": "to"}):
    fingerprint: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    pem: Annotated[str, msgspec.Meta(max_length=8000)]
    since: Moment
    until: Moment | None


class Card(msgspec.Struct, frozen=True):
    """``at``: when it was signed. Of two of one hub the later counts."""

    hub: Name
    title: Annotated[str, msgspec.Meta(pattern=r"\A[^\x00-\x1f\x7f]+\Z", max_length=200)]
    region: Annotated[str, msgspec.Meta(pattern=r"\A[1-9][0-9]{5}\Z")]
    addresses: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=8)]
    keys: Annotated[tuple[Key, ...], msgspec.Meta(min_length=1, max_length=keys.MOST)]
    certificates: Annotated[tuple[Certificate, ...], msgspec.Meta(min_length=1, max_length=keys.MOST)]
    at: Moment
    signature: Annotated[str, msgspec.Meta(max_length=1000)]


class _Timed(Protocol):
    @property
    def since(self) -> dt.datetime: ...

    @property
    def until(self) -> dt.datetime | None: ...


def valid(entry: _Timed, moment: dt.datetime) -> bool:
    """Whether a key or certificate of a card is good at ``moment``."""
    return entry.since <= moment and (entry.until is None or moment < entry.until)


def own(now: dt.datetime | None = None) -> dict[str, Any]:
    """This hub's card, signed now. FatalError as :func:`hub.signing.publisher`."""
    here, publisher, known = home.current(), signing.publisher(), keys.own()
    moment = now or dt.datetime.now(dt.UTC)  # never before that of the keys, which may have been made just now
    told = {
        "hub": publisher.hub,
        "title": here.identity("title") or publisher.hub,
        "region": publisher.region,
        "addresses": addresses(),
        "keys": [
            {"kid": key.name, "public_key": key.public, "from": _text(key.since), "to": _text(key.until)}
            for key in known.keys
            if key.until is None or key.until > moment
        ],
        "certificates": [
            {"fingerprint": entry.name, "pem": entry.public, "from": _text(entry.since), "to": _text(entry.until)}
            for entry in known.certificates
            if entry.until is None or entry.until > moment
        ],
        "at": _text(moment),
    }
    return {**told, "signature": signature.detached(_canonical(told), known.signing(moment), TYPE)}


def changed_at() -> dt.datetime:
    """Since when this hub's card says what it says."""
    changed = keys.own().changed_at
    said = home.current().identity("card_changed_at")
    return max(changed, dt.datetime.fromisoformat(said)) if said else changed


def settle(here: Home | None = None, /, **said: str) -> None:
    """Remember, in this home or ``here``, ``title``, ``exchange_addresses`` (separated by spaces) or ``exchange_port``; peers hear of a change.

    UsageError ``card-address``, ``card-title``.
    """
    here = here or home.current()
    try:
        for address in said.get("exchange_addresses", "").split():
            address_of(address)
    except ValueError:
        raise UsageError("card-address") from None
    if not _TITLE.fullmatch(said.get("title", "x")):
        raise UsageError("card-title")
    if any(here.identity(name) != value for name, value in said.items()):
        here.remember(**said, card_changed_at=dt.datetime.now(dt.UTC).isoformat())


def addresses() -> list[str]:
    """Where this hub is reached: ``exchange_addresses`` of ``hub.json``, else this machine at the exchange's port."""
    here = home.current()
    if named := here.identity("exchange_addresses"):
        return named.split()
    return [f"https://127.0.0.1:{here.identity('exchange_port') or PORT}"]


def read(text: bytes) -> Card:
    """A card whose keys and certificates are what they are said to be, not of the future; its signature is not looked at.

    FatalError ``card-invalid`` names what is wrong.
    """
    if len(text) > LARGEST:
        raise FatalError("card-invalid", reason=f"> {LARGEST} bytes")
    try:
        card = _decoder.decode(text)
        if card.at > dt.datetime.now(dt.UTC) + SKEW:  # none could come after it
            raise ValueError("at: of the future")
        for address in card.addresses:
            address_of(address)
        for key in card.keys:
            if signature.public_key(key.public_key).thumbprint() != key.kid:
                raise ValueError("keys: kid")
        for entry in card.certificates:
            if certificates.fingerprint(entry.pem) != entry.fingerprint:
                raise ValueError("certificates: fingerprint")
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise FatalError("card-invalid", reason=str(error)[:200]) from None
    return card


def verify(text: bytes, card: Card, known: Iterable[Key]) -> None:
    """That a key of ``known``, good when the card was signed, signed it. FatalError ``card-signature``."""
    told = orjson.loads(text)
    told.pop("signature")
    good: Sequence[Any] = [signature.public_key(key.public_key) for key in known if valid(key, card.at)]
    try:
        signature.verify_detached(_canonical(told), card.signature, good, TYPE, card.hub)
    except FatalError:
        raise FatalError("card-signature", peer=card.hub) from None


def signer(card: Card) -> str:
    """The kid of the key that is said to have signed it: who knows that key to be the hub's may take all the card says."""
    try:
        header = orjson.loads(base64.urlsafe_b64decode(card.signature.partition(".")[0] + "=="))
        return str(header["kid"])
    except (ValueError, KeyError, TypeError):
        raise FatalError("card-signature", peer=card.hub) from None


def address_of(text: str) -> tuple[str, int]:
    """Host and port of ``https://host:port``. ValueError when it is anything else."""
    url = urlsplit(text)
    host, port = url.hostname, url.port
    if url.scheme != "https" or not host or not text.isascii() or text.lower() not in _written(host, port):
        raise ValueError(f"addresses: {text[:100]!r}")
    return host, port or 443


def _written(host: str, port: int | None) -> tuple[str, ...]:
    try:
        shown = f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        shown = host
    base = f"https://{shown}" + (f":{port}" if port is not None else "")
    return base, base + "/"


def _canonical(told: dict[str, Any]) -> bytes:
    return orjson.dumps(told, option=orjson.OPT_SORT_KEYS)


def _text(moment: dt.datetime | None) -> str | None:
    return moment.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z") if moment else None


_decoder = msgspec.json.Decoder(Card)
