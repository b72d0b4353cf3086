"""Decisions made once and used again: many answers differ in nothing but the keys of their certificates.

What a requirement comes to depends on the facts, the day, which sources are late and the shapes of the certificates found
(:class:`hub.knowledge.Shape`), not on whose they are. So each case is decided by :mod:`hub.resolver` the first time it comes
up, written down with holes where keys and rows go, and only filled in afterwards. The resolver stays the only place that
decides; a test holds what is filled in to what it says without this.
"""

from __future__ import annotations

import datetime as dt
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from connectors.messages import Language
from hub import catalogue, rendering, resolver
from hub.clock import CHINA
from hub.findings import Party
from hub.holdings import Holding, Known, Provenance
from hub.identity_lookup import People
from hub.knowledge import Found, Shape, Snapshot, Subject
from mappings.items import FactValue, Item, Requirement

MOST = 10_000  # cases kept of one moment; each takes two or three kilobytes
_MARK = f"~{secrets.token_hex(8)}"  # in place of what differs; nobody can write it into the catalogue
_HOLES = re.compile(rf'{_MARK}k(\d+);|"{_MARK}r([\d,]*);"'.encode())

Part = bytes | int | tuple[int, ...]
"""Text as it is, the key of the certificate at a place, or the rows of those at the places."""


class Want(NamedTuple):
    """Certificates that a requirement looks at: the party's role in the question, and the material."""

    holder: str
    material: str


@dataclass(slots=True, eq=False)
class Person:
    """A party of a question as a decision sees it: the province of the identifier, and what is known of whom it names."""

    province: str | None
    subject: Subject
    by_material: dict[str, tuple[tuple[Shape, ...], tuple[Found, ...]]] = field(default_factory=dict)

    def of(self, material: str) -> tuple[tuple[Shape, ...], tuple[Found, ...]]:
        known = self.by_material.get(material)
        if known is None:
            found = tuple(one for one in self.subject.found if one.shape.material == material)
            known = self.by_material[material] = tuple(one.shape for one in found), found
        return known


@dataclass(frozen=True)
class Sketch:
    """A requirement decided, with holes. ``asked``, ``deferred``: material codes."""

    disposition: str
    asked: tuple[str, ...]
    trace: tuple[Part, ...]
    decision: resolver.Decision
    item: Item
    texts: dict[Language, tuple[Part, ...]] = field(default_factory=dict)

    def text(self, lang: Language) -> tuple[Part, ...]:
        """What the answer says of it, as JSON."""
        if lang not in self.texts:
            self.texts[lang] = _parts(rendering.requirement(self.item, self.decision, lang))
        return self.texts[lang]


class Case(NamedTuple):
    """What all requirements of one item have in common in one question. ``facts``: those the item knows, by name."""

    item: Item
    facts: tuple[tuple[str, FactValue], ...]


class Moment:
    """Cases decided under one snapshot on one day, while no further source falls behind its promise."""

    def __init__(self, known: Snapshot, moment: dt.datetime) -> None:
        self.known = known
        self.moment = moment
        self.passed = known.passed(moment)
        self.day = moment.astimezone(CHINA).date()
        self.sketches: dict[tuple[Any, ...], Sketch] = {}

    def holds(self, known: Snapshot, moment: dt.datetime) -> bool:
        return (
            self.known is known and self.day == moment.astimezone(CHINA).date() and self.passed == known.passed(moment)
        )

    def sketch(
        self, case: Case, place: int, wants: Sequence[Want], people: Mapping[str, Person]
    ) -> tuple[Sketch, tuple[Found, ...]]:
        """Requirement number ``place`` decided, and the certificates that its holes are about."""
        views: list[object] = []
        found: tuple[Found, ...] = ()
        for holder, material in wants:
            person = people.get(holder)
            if person is None:
                views.append(None)
                continue
            shapes, here = person.of(material)
            views.append((person.province, person.subject.undecided, shapes))
            if here:
                found = found + here if found else here
        # The item itself is compared by identity: there is one of each version in the catalogue.
        key = (id(case.item), place, case.facts, *views)
        known = self.sketches.get(key)
        if known is None:
            if len(self.sketches) >= MOST:
                self.sketches.clear()
            known = self.sketches[key] = self._decided(case, place, wants, people)
        return known, found

    def _decided(self, case: Case, place: int, wants: Sequence[Want], people: Mapping[str, Person]) -> Sketch:
        parties, holdings, undecided = {}, [], set()
        count = 0
        for holder, material in wants:
            person = people.get(holder)
            if person is None:
                continue
            digest = holder.encode()
            parties[holder] = Party(digest, person.province)
            if person.subject.undecided:
                undecided.add(digest)
            # Places count in the order of the keys, so that of equals the same one comes first.
            for shape in person.of(material)[0]:
                holdings.append(_stand_in(count, shape, digest))
                count += 1
        known = Known(tuple(holdings), self.known.sources, People(undecided=frozenset(undecided)))
        requirement = case.item.requirements[place]
        decision = resolver.decide(
            case.item, requirement, dict(case.facts), parties, known, catalogue.volatile(), self.moment
        )
        return Sketch(decision.disposition, decision.must_submit, _parts(decision.trace), decision, case.item)


def wants(requirement: Requirement) -> tuple[Want, ...]:
    """What ``requirement`` looks at, each once."""
    uses = (use for option in requirement.options for use in option.materials)
    return tuple(dict.fromkeys(Want(use.holder, use.material) for use in uses))


def filled(parts: Sequence[Part], found: Sequence[Found]) -> bytes:
    """JSON text with its holes filled from ``found``."""
    if len(parts) == 1 and isinstance(parts[0], bytes):
        return parts[0]
    return b"".join([part if isinstance(part, bytes) else _hole(part, found) for part in parts])


def _hole(part: int | tuple[int, ...], found: Sequence[Found]) -> bytes:
    if isinstance(part, int):
        return found[part].key.encode()
    rows = sorted({row for place in part for row in found[place].rows})
    return orjson.dumps([{"source": source, "file": file, "row": row} for source, file, row in rows])


def _stand_in(place: int, shape: Shape, digest: bytes) -> Holding:
    return Holding(
        key=f"{_MARK}k{place:06d};",
        material=shape.material,
        source=shape.source,
        status=shape.status,
        valid_from=shape.valid_from,
        valid_to=shape.valid_to,
        region=shape.region,
        conflicting=shape.conflicting,
        holders={digest: shape.roles},
        provenance=(Provenance(_MARK, "", place),),
        hub=shape.hub,
        epoch=shape.epoch,
        as_of=shape.as_of,
        issued_on=shape.issued_on,
        tests=shape.tests,
    )


def _parts(entry: Mapping[str, Any]) -> tuple[Part, ...]:
    """``entry`` as JSON, cut at its holes."""
    if rows := entry.get("provenance"):
        entry = {**entry, "provenance": f"{_MARK}r{','.join(str(row['row']) for row in rows)};"}
    text = orjson.dumps(entry)
    parts: list[Part] = []
    ended = 0
    for hole in _HOLES.finditer(text):
        parts.append(text[ended : hole.start()])
        if hole[1] is not None:
            parts.append(int(hole[1]))
        else:
            parts.append(tuple(int(place) for place in hole[2].split(b",")))
        ended = hole.end()
    parts.append(text[ended:])
    return tuple(parts)
