"""How a catalogue stands to what was published of it: what may not be published, what is not yet, what it does not know.

What was published stays. A version says what it said, an end that has come is over, and a change takes effect on the day of
its publication or later: whoever asks what was known on a day (``as_of``) is answered by what was known then.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from connectors.errors import FatalError
from connectors.marks import Defect
from hub import catalogue, catalogue_changes
from hub.catalogue_changes import DAY, Change
from mappings import items
from mappings.items import Item

Version = tuple[str, int]
End = tuple[str, dt.date, str | None]
Standing = Literal["published", "behind", "unpublished"]


@dataclass(frozen=True)
class Feed:
    """What was published: the digest of each version (hex), and its ends (kind, first day without it, successor) in the order in which
    they were published, of which the last counts. ``position``: the last one."""

    digests: dict[Version, str] = field(default_factory=dict)
    ends: dict[Version, list[End]] = field(default_factory=dict)
    position: int = 0

    def holds(self, change: Change) -> bool:
        """Whether ``change`` was published: a version once, whether as the first or a later one; of ends the last one."""
        version = (change.item, change.version)
        if change.kind in ("added", "changed"):
            return version in self.digests
        return version in self.ends and self.ends[version][-1] == _end(change)


def read(connection: sa.Connection) -> Feed:
    """Everything that was published."""
    feed, position = Feed(), 0
    for row in connection.execute(sa.text(_READ)):
        version, position = (row.item, row.version), row.position
        if row.kind in ("added", "changed"):
            feed.digests[version] = row.digest
        else:
            feed.ends.setdefault(version, []).append((row.kind, row.effective_on, row.successor))
    return Feed(feed.digests, feed.ends, position)


def unpublished(feed: Feed, changes: Sequence[Change]) -> list[Change]:
    """Those of ``changes`` that were not published, in their order."""
    return [change for change in changes if not feed.holds(change)]


def refused(
    feed: Feed,
    versions: Mapping[str, tuple[Item, ...]],
    folder: Path = items.FOLDER,
    today: dt.date | None = None,
    unread: Collection[str] = (),
) -> list[Defect]:
    """What keeps the files from being published on a day, each with file, line and reason. ``unread``: codes of items whose files
    have flaws, about which nothing is said."""
    day = today or catalogue.today()
    known = {(item.code, item.version): item for each in versions.values() for item in each}
    found = list(_altered(feed, known, folder, unread))
    for version, ends in feed.ends.items():
        if version in known:
            followers = [each for each in versions[version[0]] if each.version > version[1]]
            found += _ended(known[version], ends, followers, folder, day)
    published = {code for code, _ in feed.digests}
    for change in unpublished(feed, catalogue_changes.authored(versions)):
        item, ends = known[change.item, change.version], feed.ends.get((change.item, change.version), [])
        if change.item in published and change.effective_on < day:
            found += _late(item, change, ends, folder, day)
        if _end(change) in ends:
            said = f"version {item.version}: this end was published and replaced by {ends[-1][1] - DAY} since: name another day"
            found.append(items.defect(item, ("in_force",), said, folder))
    return sorted(set(found))


def require(connection: sa.Connection) -> None:
    """That nothing of the catalogue of this process is refused: it must not be answered by. FatalError ``items-altered`` says with
    file, line and reason what is."""
    if not sa.inspect(connection).has_table("catalogue_change"):
        return  # not migrated yet; /readyz says so
    raise_any(refused(read(connection), catalogue.published()))


def raise_any(defects: Sequence[Defect]) -> None:
    """FatalError ``items-altered`` about ``defects``, where there are any."""
    if defects:
        raise FatalError("items-altered", count=len(defects), defects="\n".join(str(defect) for defect in defects))


def standing(connection: sa.Connection) -> Standing:
    """How the catalogue of this process stands to the feed: ``behind`` where something was published that it does not know,
    ``unpublished`` where it knows what was not. Of a hub that never published anything there is nothing to tell."""
    key = (id(catalogue.published()), *connection.execute(sa.text(_END)).one())
    if key not in _told:  # asked every few seconds, by anybody
        found = _standing(read(connection), catalogue.changes())
        _told.clear()
        _told[key] = found
    return _told[key]


_told: dict[tuple[object, ...], Standing] = {}


def _standing(feed: Feed, changes: Sequence[Change]) -> Standing:
    if not feed.position:
        return "published"
    own = {(change.item, change.version): change.digest for change in changes}
    if feed.digests.items() - own.items():
        return "behind"
    new = unpublished(feed, changes)
    if any(change.kind in ("added", "changed") or _unheard(feed, change) for change in new):
        return "unpublished"
    versions = {(item.code, item.version): item for each in catalogue.published().values() for item in each}
    moved = any(versions[version].in_force.to is None for version in feed.ends)
    return "behind" if new or moved else "published"


def _unheard(feed: Feed, change: Change) -> bool:
    """Whether an end was never published; one that was, and is not the last, is of before the last."""
    return _end(change) not in feed.ends.get((change.item, change.version), ())


def _end(change: Change) -> End:
    return change.kind, change.effective_on, change.successor


def _altered(feed: Feed, known: Mapping[Version, Item], folder: Path, unread: Collection[str]) -> Iterator[Defect]:
    """Versions that say something else than they did, or are gone."""
    for (code, version), digest in feed.digests.items():
        item = known.get((code, version))
        if item is None:
            if code not in unread:
                said = f"version {version} was published and is gone: end it with `in_force.to`"
                yield Defect(str(folder / f"{code}.yml"), 0, said)
        elif item.digest() != digest:
            said = f"version {version} was published and says something else now: give the change a new version"
            yield items.defect(item, ("version",), said, folder)


def _ended(item: Item, ends: Sequence[End], followers: Sequence[Item], folder: Path, day: dt.date) -> Iterator[Defect]:
    """An end that was published and is not what the files say: none, or another although it has come."""
    first = ends[-1][1]
    if item.in_force.to is None:
        said = f"version {item.version} was published as ended: let it go on as a new version"
        yield items.defect(item, ("in_force",), said, folder)
    elif first < day and item.in_force.to + DAY != first:
        if any(each.in_force.from_ <= first for each in followers):
            return  # a later version began before that end came
        said = (
            f"version {item.version} ended on {first - DAY}, as published: that is over; let it go on as a new version"
        )
        yield items.defect(item, ("in_force",), said, folder)


def _late(item: Item, change: Change, ends: Sequence[End], folder: Path, day: dt.date) -> Iterator[Defect]:
    """A change that would have taken effect before anybody was told. Who follows on an item that has ended may be said later."""
    if change.kind in ("added", "changed"):
        said = (
            f"version {change.version} takes effect on {change.effective_on}, before the day of its publication ({day})"
        )
    elif ends and change.effective_on == ends[-1][1]:
        return
    else:
        said = f"version {change.version} ends on {change.effective_on - DAY}, before its end is published ({day})"
    more = "what was answered since cannot change any more: let it take effect that day or later"
    yield items.defect(item, ("in_force",), f"{said}; {more}", folder)


_END = "SELECT count(*), max(position), max(published_at) FROM catalogue_change"
_READ = """
SELECT position, item, version, kind, effective_on, successor, encode(digest, 'hex') AS digest FROM catalogue_change
ORDER BY position
"""
