"""The descent of a reconciliation 对账: from digests over parts of what two hubs hold to the records in which they differ.

Records are parted by the leading bytes of their handles: 256 parts, each of 256 parts and so on. Only where the digests of
both sides differ is a part looked into, and one that holds few records is listed record by record. What is asked costs the
same however much is equal. Pure: how digests are come by is the caller's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

HANDLE = 32  # hex digits of a handle
LISTED = 256  # a part with so many records or fewer is listed: about what its own parts' digests would weigh
WITHIN = 256  # parts looked into by one message
RECORDS = 20_000  # records listed by one message
MOST = 10_000  # differing records after which it is no longer worth naming them


class Part(NamedTuple):
    """How many records, and their digests added up; one record is a part of its own."""

    records: int
    digest: str


Parts = Mapping[str, Part]  # by the leading hex digits of the handles


class Asked(NamedTuple):
    """``within``: parts whose parts are wanted. ``listed``: parts whose records are wanted. All prefixes of one length."""

    within: tuple[str, ...]
    listed: tuple[str, ...]


@dataclass
class Found:
    """Handles of the records in which both sides differ. ``here``, ``there``: how many records either has. ``whole``: false
    when there are so many, ``least`` or more, that only some are named."""

    here: int = 0
    there: int = 0
    missing_here: list[str] = field(default_factory=list)
    missing_there: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    whole: bool = True
    least: int = 0

    @property
    def count(self) -> int:
        return len(self.missing_here) + len(self.missing_there) + len(self.differing)

    @property
    def handles(self) -> list[str]:
        return [*self.missing_here, *self.missing_there, *self.differing]


def descend(compare: Callable[[Asked], tuple[Parts, Parts]], most: int = MOST) -> Found:
    """``compare``: what either side says to a question, this one first, of parts that are not empty."""
    found = Found()
    within: dict[str, int] = {"": 0}
    listed: dict[str, int] = {}
    root = True
    while within or listed:
        deeper: dict[str, int] = {}
        small: dict[str, int] = {}
        for asked in _messages(within, listed):
            here, there = compare(asked)
            if root:
                found.here, found.there = (sum(part.records for part in side.values()) for side in (here, there))
                root = False
            for prefix in sorted(here.keys() | there.keys()):
                mine, theirs = here.get(prefix), there.get(prefix)
                if mine == theirs:
                    continue
                if len(prefix) == HANDLE:
                    _note(found, prefix, mine, theirs)
                else:
                    size = max(part.records for part in (mine, theirs) if part)
                    (small if size <= LISTED else deeper)[prefix] = size
            # Each part that differs holds a record that does.
            if found.count + len(deeper) + len(small) > most:
                found.whole, found.least = False, found.count + len(deeper) + len(small)
                return found
        within, listed = deeper, small
    found.least = found.count
    return found


def _note(found: Found, handle: str, mine: Part | None, theirs: Part | None) -> None:
    if mine is None:
        found.missing_here.append(handle)
    elif theirs is None:
        found.missing_there.append(handle)
    else:
        found.differing.append(handle)


def _messages(within: Mapping[str, int], listed: Mapping[str, int]) -> Iterator[Asked]:
    """The questions of one level, as few messages as their bounds allow."""
    for parts, records in itertools.zip_longest(_runs(sorted(within), WITHIN), _weighed(listed), fillvalue=()):
        yield Asked(tuple(parts), tuple(records))


def _runs(values: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _weighed(listed: Mapping[str, int]) -> Iterator[list[str]]:
    """Parts to list, about :data:`RECORDS` records together."""
    run: list[str] = []
    weight = 0
    for prefix, size in sorted(listed.items()):
        if run and weight + size > RECORDS:
            yield run
            run, weight = [], 0
        run.append(prefix)
        weight += size
    if run:
        yield run
