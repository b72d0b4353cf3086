"""The journal of merges in the landing zone: which batches were merged, in which order. A rebuild replays it.

::

    merges/<yyyy-mm>/<source>/<number>.json           the merge that moved ``source.merges`` to ``number``
    merges/<yyyy-mm>/<source>/<number>-<batch>.json   a release of quarantined rows, done after that merge

An entry is written inside the transaction of the merge, under the lock of the source's row: before it commits, so that no
merge is ever missing, and under the merge's number, so that an attempt that came to nothing gives way to the next.
When it became known is added after the commit; where that was cut off, ``at`` stands in.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import orjson
import sqlalchemy as sa

from connectors.errors import FatalError, YiciError
from connectors.landing import Landing
from connectors.zone import Zone
from hub import home, partitions

log = logging.getLogger(__name__)

FOLDER = "merges"
RELEASE = "release"


@dataclass(frozen=True)
class Entry:
    """One merge. ``number``: the source's merges with it; ``started_at``: of the batch; ``at``: when the entry was written;
    ``recorded_at``: None when the process ended before it was added."""

    source: str
    number: int
    batch: str
    kind: str
    started_at: dt.datetime
    at: dt.datetime
    recorded_at: dt.datetime | None = None

    @property
    def known_at(self) -> dt.datetime:
        return self.recorded_at or self.at

    @property
    def path(self) -> str:
        told_apart = f"-{self.batch}" if self.kind == RELEASE else ""
        return f"{FOLDER}/{self.at.astimezone(dt.UTC):%Y-%m}/{self.source}/{self.number:010d}{told_apart}.json"


@contextlib.contextmanager
def noted(connection: sa.Connection, batch: sa.Row, replayed: dt.datetime | None = None) -> Iterator[Entry | None]:
    """Around the merge of ``batch``, in its transaction: writes the entry first, and takes it back when the merge fails.

    Nothing is written of a batch that another has overtaken, nor of one that is ``replayed``. What becomes of an entry
    whose database went away is settled by the next merge of the source.
    """
    merges = connection.scalar(
        sa.text("SELECT merges FROM source WHERE name = :source FOR UPDATE"), {"source": batch.source}
    )
    run = batch.kind != RELEASE
    if replayed is not None or merges is None or (run and merges != batch.merges_seen):
        yield None
        return
    entry = Entry(batch.source, merges + run, batch.id, batch.kind, batch.started_at, dt.datetime.now(dt.UTC))
    _write(entry)
    try:
        yield entry
    except sa.exc.DBAPIError:
        raise
    except BaseException:
        _landing().zone.remove(entry.path)
        raise


def complete(entry: Entry | None, recorded_at: dt.datetime | None) -> None:
    """After the commit: when the merge became known. What is committed does not fail over it: ``at`` stands in."""
    if entry is not None and recorded_at is not None:
        try:
            _write(replace(entry, recorded_at=recorded_at))
        except (OSError, YiciError) as error:
            log.warning("the journal of merges keeps the earlier time of %s: %s", entry.batch, type(error).__name__)


def entries(landing: Landing | None = None) -> list[Entry]:
    """All merges, in the order in which they became known; those of one source in the order of their numbers."""
    zone = (landing or _landing()).zone
    folders = [
        f"{FOLDER}/{month}/{source}" for month in zone.names(FOLDER) for source in zone.names(f"{FOLDER}/{month}")
    ]
    found: dict[tuple[str, int, str], Entry] = {}
    for entry in (_read(zone, f"{folder}/{name}") for folder in folders for name in zone.names(folder)):
        key = (entry.source, entry.number, entry.batch if entry.kind == RELEASE else "")
        if key not in found or found[key].at < entry.at:  # an attempt of last month came to nothing
            found[key] = entry
    # Within a source the number rules, whatever a clock said: a time never lies before that of an earlier number.
    latest: dict[str, dt.datetime] = {}
    placed = []
    for entry in sorted(found.values(), key=lambda one: (one.source, one.number, one.kind == RELEASE, one.known_at)):
        latest[entry.source] = max(entry.known_at, latest.get(entry.source, entry.known_at))
        placed.append((latest[entry.source], entry))
    return [entry for _, entry in sorted(placed, key=lambda pair: pair[0])]


def missing(connection: sa.Connection, landing: Landing | None = None) -> list[Entry]:
    """Merged batches of the store that have no entry, as from a release of this software that kept no journal. What
    retention dropped is not missed."""
    known = {entry.batch for entry in entries(landing)}
    rows = connection.execute(
        sa.text(
            "SELECT id, source, kind, merges_seen, started_at, finished_at, recorded_at FROM batch WHERE state = 'merged'"
        )
    )
    since = partitions.since(connection, "landing")
    return [
        Entry(
            row.source,
            row.merges_seen + (row.kind != RELEASE),
            row.id,
            row.kind,
            row.started_at,
            row.finished_at,
            row.recorded_at,
        )
        for row in rows
        if row.id not in known and (since is None or row.finished_at.astimezone(dt.UTC).date() >= since)
    ]


def mend(connection: sa.Connection) -> int:
    """Write the entries that are :func:`missing`; returns how many."""
    found = missing(connection)
    for entry in found:
        _write(entry)
    return len(found)


def _write(entry: Entry) -> None:
    _landing().zone.write(entry.path, orjson.dumps(asdict(entry), option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z))


def _read(zone: Zone, path: str) -> Entry:
    try:
        data = orjson.loads(zone.read(path))
        recorded_at = data["recorded_at"]
        return Entry(
            source=data["source"],
            number=int(data["number"]),
            batch=data["batch"],
            kind=data["kind"],
            started_at=dt.datetime.fromisoformat(data["started_at"]),
            at=dt.datetime.fromisoformat(data["at"]),
            recorded_at=dt.datetime.fromisoformat(recorded_at) if recorded_at else None,
        )
    except (ValueError, KeyError, TypeError):
        raise FatalError("journal-invalid", entry=path, landing=zone.shown) from None


def _landing() -> Landing:
    return Landing(home.current().landing_url)
