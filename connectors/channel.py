"""The way to a partner hub as a connector sees it: the hub hands it in. Who a peer is, what it signs with and what is agreed
with it is known there; here nothing is believed that one of its keys did not sign.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from joserfc.jwk import OKPKey

from connectors import signature
from connectors.envelope import Message, Moment, Name
from connectors.errors import FatalError, YiciError
from connectors.fetched import Cursor, Diagnosis


@dataclass(frozen=True)
class Agreed:
    """What an agreement lets a partner announce now. ``reference``: ``<uuid>/<version>``; ``regions``: prefixes of division codes."""

    reference: str
    materials: tuple[str, ...]
    regions: tuple[str, ...]


class Partner(Protocol):
    """Whose messages were landed. ``hub``: the partner; ``own``: this hub, as partners call it."""

    @property
    def hub(self) -> str: ...

    @property
    def own(self) -> str: ...

    def keys_at(self, moment: dt.datetime) -> Sequence[OKPKey]:
        """The keys of the partner that were good then."""


class Channel(Partner, Protocol):
    """Asks the partner, under the agreement that lets this hub read its index. Opened for one run of a source."""

    @property
    def region(self) -> str:
        """The partner's, six digits."""

    def agreed(self, cursor: Cursor | None) -> Agreed:
        """The agreement to read under: the one that ``cursor`` was told under, as long as it allows that.

        An error of the hub's where none does.
        """

    def ask(self, kind: str, body: Mapping[str, Any], seconds: float) -> Message:
        """The partner's reply under that agreement: verified, recorded, its status ``ok``. From any thread."""

    def refused(self, message: Message, error: YiciError) -> None:
        """Record that a reply, well signed as it was, was refused for what it says."""

    def steps(self) -> Iterable[Diagnosis]:
        """From here to the partner and back, up to the first step that fails."""


class Key(msgspec.Struct, frozen=True, rename={"since": "from", "until": "to"}):
    """A key with its time, as a hub's card has it; ``public_key``: base64url of 32 bytes."""

    public_key: str
    since: Moment
    until: Moment | None = None


class _Written(msgspec.Struct, frozen=True):
    hub: Name
    own: Name
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class Stated:
    """A partner as it is written beside what it signed: in a sample, in the manifest of a batch."""

    hub: str
    own: str
    keys: tuple[Key, ...]

    def keys_at(self, moment: dt.datetime) -> Sequence[OKPKey]:
        return [
            _imported(key.public_key)
            for key in self.keys
            if key.since <= moment and (key.until is None or moment < key.until)
        ]


def stated(told: object, place: str) -> Stated:
    """The partner that ``told`` describes: ``{"hub", "own", "keys": [{"public_key", "from", "to"}]}``.

    FatalError ``index-partner-unreadable`` names ``place``.
    """
    try:
        written = msgspec.convert(told, _Written)
        for key in written.keys:
            _imported(key.public_key)
    except (msgspec.ValidationError, ValueError):
        raise FatalError("index-partner-unreadable", place=place) from None
    return Stated(written.hub, written.own, written.keys)


@functools.lru_cache(maxsize=256)
def _imported(public_key: str) -> OKPKey:
    return signature.public_key(public_key)
