"""The way to a partner hub whose index is read: what a connector is handed (:mod:`connectors.channel`), and what the merge needs.

The partner's keys come from what is known of the peer; of a store that is made anew from the landing zone alone, from the
manifest of the batch. The key of an epoch is asked for once and goes, sealed, with the cursor: a rebuild needs nobody for it.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import sqlalchemy as sa
from joserfc.jwk import OKPKey

from connectors import channel, connect
from connectors.channel import Agreed, Partner
from connectors.envelope import Message
from connectors.errors import RetriableError, UsageError, YiciError
from connectors.fetched import Cursor, Diagnosis, Fetched, failed
from connectors.landing import Manifest
from connectors.source import Source
from hub import database, home, index_keys, signing
from hub.exchange import agreements, announced, caller, checking, epoch_keys, peers
from hub.exchange.agreements import Agreement
from hub.exchange.peers import Peer


def of(source: Source) -> IndexChannel:
    """To the hub whose index ``source`` reads; one that was removed as a peer is asked nothing, what it signed stays good.

    UsageError ``peer-unknown``.
    """
    with database.engine().connect() as connection:
        known = peers.find(connection, source.peer)
    if known is None:
        raise UsageError("peer-unknown", peer=source.peer)
    return IndexChannel(source.name, known)


def of_landed(source: Source, landed: Manifest) -> Partner:
    """Who signed what is replayed: as the store knows it, or as it is written beside. UsageError ``peer-unknown``."""
    try:
        return of(source)
    except UsageError:
        if "partner" not in landed.request:
            raise
        return channel.stated(landed.request["partner"], f"{landed.source}/{landed.batch}")


def check(source: Source) -> list[Diagnosis]:
    """:func:`connectors.connect.check` of a source that reads an index."""
    try:
        opened = of(source)
    except YiciError as error:
        return [failed("peer", error)]
    return connect.check(source, opened)


class IndexChannel:
    """A :class:`connectors.channel.Channel` for one run of the source ``source``."""

    def __init__(self, source: str, peer: Peer) -> None:
        self.source, self.peer = source, peer
        self.hub, self.own, self.region = peer.name, signing.own_name(), peer.region
        self._agreement: Agreement | None = None
        self._kept: Cursor = {}

    def keys_at(self, moment: dt.datetime) -> Sequence[OKPKey]:
        return peers.keys_at(self.peer, moment)

    def agreed(self, cursor: Cursor | None) -> Agreed:
        now = dt.datetime.now(dt.UTC)
        with database.engine().connect() as connection:
            self._agreement = (
                self._same(connection, cursor, now)
                or self._unread(connection, now)
                or agreements.choose(connection, self.hub, mode="index", provider=False, now=now)
            )
        self._kept = cursor or {}
        return announced.agreed(self._agreement)

    def _same(self, connection: sa.Connection, cursor: Cursor | None, now: dt.datetime) -> Agreement | None:
        """The agreement that ``cursor`` was told under, in the version that is in force."""
        try:
            named = uuid.UUID(str((cursor or {}).get("agreement")))
        except ValueError:
            return None
        return self._admitted(connection, agreements.versions(connection, named), now)

    def _unread(self, connection: sa.Connection, now: dt.datetime) -> Agreement | None:
        """Where other sources read this hub: an agreement that none of them reads under, the latest."""
        taken = set(connection.scalars(_TAKEN, {"hub": self.hub, "source": self.source}))
        if not taken:
            return None
        rows = sorted(agreements.every(connection, self.hub), key=lambda row: row.changed_at, reverse=True)
        return self._admitted(connection, [row for row in rows if str(row.id) not in taken], now)

    def _admitted(self, connection: sa.Connection, rows: Iterable[sa.Row[Any]], now: dt.datetime) -> Agreement | None:
        for row in rows:
            try:
                return agreements.admit(
                    connection, self.hub, f"{row.id}/{row.version}", mode="index", provider=False, now=now
                )
            except UsageError:
                continue
        return None

    def ask(self, kind: str, body: Mapping[str, Any], seconds: float) -> Message:
        return caller.ask(self.hub, kind, body, agreement=self._agreement, seconds=seconds)

    def refused(self, message: Message, error: YiciError) -> None:
        caller.refused(message, error)

    def steps(self) -> Iterator[Diagnosis]:
        """As far as the two hubs as such are concerned: of all agreements only the one that is read under matters."""
        for step in checking.steps(self.hub):
            if step.step == "agreement":
                return
            yield step

    def completed(self, fetched: Fetched) -> Fetched:
        """``fetched`` with what a merge and a rebuild need beside the pages: the epoch's key in the cursor, the partner's keys in
        the manifest. RetriableError ``index-epoch-changed`` when the partner has just begun another epoch."""
        said = {"hub": self.hub, "own": self.own, "keys": msgspec.to_builtins(self.peer.keys)}
        fetched = replace(fetched, request={**fetched.request, "partner": said})
        if fetched.cursor is None:
            return fetched
        here, epoch = home.current(), str(fetched.cursor["epoch"])
        key = self._kept.get(index_keys.CURSOR_KEY)
        if not index_keys.readable(here, index_keys.of_cursor(self._kept), self.source, epoch):
            assert self._agreement is not None  # it was read under one
            told = epoch_keys.ask(self._agreement)
            if told.name != epoch:
                raise RetriableError("index-epoch-changed", source=self.source)
            key = index_keys.for_cursor(here, self.source, epoch, told.key)
        return replace(fetched, cursor={**fetched.cursor, index_keys.CURSOR_KEY: key})


_TAKEN = sa.text(
    "SELECT cursor ->> 'agreement' FROM source WHERE hub = :hub AND name <> :source AND cursor ->> 'agreement' <> ''"
)
