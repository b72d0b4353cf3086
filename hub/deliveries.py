"""What a fetch brings, before anybody looks into it: as of when it is, under which numbers its files are known, whose it is."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import sqlalchemy as sa

from connectors import source
from connectors.errors import UsageError
from connectors.landing import LandedFile, Manifest
from connectors.source import FileOptions, Source
from hub import clock
from hub.workspace import Workspace

if TYPE_CHECKING:
    from connectors.channel import Partner
    from hub.exchange.index_channel import IndexChannel

EARLIEST = dt.datetime.combine(source.EARLIEST, dt.time(), clock.CHINA)


def stated(as_of: str | None) -> dt.datetime | None:
    """When a person says that a delivery shows its source. UsageError ``as-of-unreadable``; ``as-of-beyond`` before
    :data:`EARLIEST` or later than is believed of a date in the data: all that comes after would be older than that."""
    from hub import staging

    stated = time_of(as_of)
    latest = dt.datetime.now(clock.CHINA) + staging.FAR_FUTURE
    if stated and not EARLIEST <= stated <= latest:
        raise UsageError("as-of-beyond", since=EARLIEST.date(), until=latest.isoformat(timespec="minutes"))
    return stated


def time_of(text: str | None) -> dt.datetime | None:
    """A time without zone is meant in China Standard Time, as everywhere in the sources."""
    if not text:
        return None
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError("as-of-unreadable") from error
    return found if found.tzinfo else found.replace(tzinfo=clock.CHINA)


def delivered(described: Source, batch: str) -> bool:
    """Whether a delivery came at all: a folder without a new file brought none, an answer without rows is one."""
    from hub import repeats

    return not isinstance(described.options, FileOptions) or bool(repeats.deliveries(Workspace(batch)))


def register(connection: sa.Connection, source: str, files: list[LandedFile]) -> list[tuple[int, LandedFile]]:
    """Numbers of landed files, the same for the same bytes under the same name."""
    registered = []
    for landed in files:
        number = connection.scalar(
            sa.text(
                """INSERT INTO landed_file (source, digest, name, size) VALUES (:source, :digest, :name, :size)
                ON CONFLICT (source, digest, name) DO UPDATE SET size = excluded.size RETURNING id"""
            ),
            {"source": source, "digest": landed.digest, "name": landed.name, "size": landed.size},
        )
        registered.append((int(number or 0), landed))
    return registered


def channel(described: Source) -> IndexChannel | None:
    """To the partner hub whose index the source reads, where it does."""
    if described.connector != "hub":
        return None
    from hub.exchange import index_channel

    return index_channel.of(described)


def partner(described: Source, landed: Manifest | None) -> Partner | None:
    """Whose signed pages the source landed, where it reads an index. ``landed``: what is replayed."""
    if described.connector != "hub" or landed is None:
        return channel(described)
    from hub.exchange import index_channel

    return index_channel.of_landed(described, landed)
