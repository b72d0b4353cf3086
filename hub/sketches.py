"""Decisions made once and used again: many answers differ in nothing but the keys of their certificates.

What a requirement comes to depends on the facts, the day, which sources are late and the shapes of the certificates found
(:class:`hub.knowledge.Shape`), not on whose they are, and of their dates on little (:func:`_outline`). So each case is decided by
:mod:`hub.resolver` the first time it comes up, written down with holes where keys, rows and dates go, and only filled in
afterwards. The resolver stays the only place that decides; a test holds what is filled in to what it says without this.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from connectors.messages import Language
from hub import answer_texts, catalogue, rendering, resolver
from hub.answer_texts import Kept, Part
from hub.clock import CHINA
from hub.findings import Party
from hub.holdings import Holding, Known, Provenance
from hub.identity_lookup import People
from hub.knowledge import Found, Shape, Snapshot, Subject
from mappings.items import FactValue, Item, Requirement, Use

STOOD_IN = 300  # places of a case, at most, that a day in place of another can tell: less than the days of a year
MOST = 10_000  # cases kept of one moment; each takes two or three kilobytes
MOST_KEPT = 4_000  # texts of whole answers; each takes five
_MARK = f"~{secrets.token_hex(8)}"  # in place of what differs; nobody can write it into the catalogue
# Dates in place of those that only have to be before or after; a few in the years of no calendar that anybody keeps.
_LATER = dt.date(5000 + secrets.randbelow(4000), 1, 1)
_EARLIER = dt.date(100 + secrets.randbelow(1000), 1, 1)
_HOLES = re.compile(
    rf'{_MARK}k(\d+);|"{_MARK}r([\d,]*);"|((?:{_LATER.year:04d}|{_EARLIER.year:04d})-\d\d-\d\d)'.encode()
)


class Want(NamedTuple):
    """Certificates that a requirement looks at: the party's role in the question, and the material. ``left``: the longest
    validity that must be left of one; ``aged``: whether its age matters; ``beside``: other roles of the question that one may
    have to name as well."""

    holder: str
    material: str
    left: dt.timedelta = dt.timedelta(0)
    aged: bool = False
    beside: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Person:
    """A party of a question as a decision sees it: the province of the identifier, and what is known of whom it names."""

    province: str | None
    subject: Subject
    by_material: dict[str, tuple[Found, ...]] = field(default_factory=dict)

    def of(self, material: str) -> tuple[Found, ...]:
        known = self.by_material.get(material)
        if known is None:
            known = self.by_material[material] = tuple(
                [one for one in self.subject.found if one.shape.material == material]
            )
        return known


@dataclass(frozen=True)
class Sketch:
    """A requirement decided, with holes. ``asked``: what the applicant is to hand in; ``names``: of the certificates at the places of holes;
    ``number``: no other sketch of this process has it."""

    disposition: str
    asked: tuple[Use, ...]
    trace: tuple[Part, ...]
    names: tuple[str, ...]
    decision: resolver.Decision
    item: Item
    texts: dict[Language, tuple[Part, ...]] = field(default_factory=dict)
    number: int = field(default_factory=itertools.count().__next__)

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
        self.kept: dict[tuple[Language, tuple[int, ...]], tuple[Kept, Kept]] = {}

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
        for want in wants:
            person = people.get(want.holder)
            if person is None:
                # Who else is named still decides whom the answer asks for.
                views.append(tuple([role in people for role in want.beside]) or None)
                continue
            here = person.of(want.material)
            if here:
                found = found + here if found else here
                alone = len(here) == 1 and len(found) <= STOOD_IN
                shapes = tuple([_outline(one.shape, want, self.day, alone) for one in here])
                views.append((person.province, person.subject.undecided, shapes))
            else:
                views.append((person.province, person.subject.undecided))
            if want.beside:
                views.append(tuple([_beside(people.get(role), want.material, here) for role in want.beside]))
        # The item itself is compared by identity: there is one of each version in the catalogue.
        key = (id(case.item), place, case.facts, *views)
        known = self.sketches.get(key)
        if known is None:
            if len(self.sketches) >= MOST:
                self.sketches.clear()
            known = self.sketches[key] = self._decided(case, place, wants, people)
        return known, found

    def texts(self, decided: Sequence[Sketch], lang: Language) -> tuple[Kept, Kept]:
        """Why an answer of these requirements says what it says, and its words, as they are kept for all like it."""
        key = lang, tuple([sketch.number for sketch in decided])
        known = self.kept.get(key)
        if known is None:
            if len(self.kept) >= MOST_KEPT:
                self.kept.clear()
            rules = b",".join(answer_texts.marked(sketch.trace, sketch.names) for sketch in decided)
            words = b",".join(answer_texts.marked(sketch.text(lang), sketch.names) for sketch in decided)
            known = self.kept[key] = Kept(b'{"requirements":[%b]}' % rules), Kept(b"[%b]" % words)
        return known

    def _decided(self, case: Case, place: int, wants: Sequence[Want], people: Mapping[str, Person]) -> Sketch:
        parties: dict[str, Party] = {}
        holdings, undecided = [], set()
        names: list[str] = []
        for want in wants:
            person = people.get(want.holder)
            for role in want.beside:
                if role in people:
                    parties.setdefault(role, Party(role.encode(), people[role].province, _named(role)))
            if person is None:
                continue
            digest = want.holder.encode()
            parties[want.holder] = Party(digest, person.province, _named(want.holder))
            if person.subject.undecided:
                undecided.add(digest)
            here = person.of(want.material)
            others = {}
            for role in want.beside:
                other = people.get(role)
                if (seen := _beside(other, want.material, here)) is not None:
                    assert other is not None
                    others[_named(role)] = seen[1]
                    if other.subject.undecided:
                        undecided.add(role.encode())
            # Places count in the order of the keys, so that of equals the same one comes first.
            for place_, one in enumerate(here):
                beside = {name: roles[place_] for name, roles in others.items() if roles[place_]}
                shape = _outline(one.shape, want, self.day, len(here) == 1 and len(names) < STOOD_IN)
                holdings.append(_stand_in(len(names), shape, {digest: shape.roles, **beside}))
                names.append(answer_texts.name(want.holder, want.material, place_))
        known = Known(tuple(holdings), self.known.sources, People(undecided=frozenset(undecided)))
        requirement = case.item.requirements[place]
        decision = resolver.decide(
            case.item, requirement, dict(case.facts), parties, known, catalogue.volatile(), self.moment
        )
        asked = decision.lacking if decision.must_submit else ()
        return Sketch(decision.disposition, asked, _parts(decision.trace), tuple(names), decision, case.item)


def wants(requirement: Requirement) -> tuple[Want, ...]:
    """What ``requirement`` looks at, each once."""
    found: dict[tuple[str, str], Want] = {}
    for use in (use for option in requirement.options for use in option.materials):
        known = found.get((use.holder, use.material), Want(use.holder, use.material))
        found[use.holder, use.material] = known._replace(
            left=max(known.left, use.valid_left),
            aged=known.aged or use.max_age is not None,
            beside=tuple(dict.fromkeys((*known.beside, *use.beside))),
        )
    return tuple(found.values())


def filled(parts: Sequence[Part], found: Sequence[Found]) -> bytes:
    """JSON text with its holes filled from ``found``."""
    if len(parts) == 1 and isinstance(parts[0], bytes):
        return parts[0]
    return b"".join([part if isinstance(part, bytes) else _hole(part, found) for part in parts])


def _hole(part: int | tuple[int, ...] | str, found: Sequence[Found]) -> bytes:
    if isinstance(part, int):
        return found[part].key.encode()
    if isinstance(part, str):
        return str(found[int(part)].shape.valid_to).encode()
    rows = sorted({row for place in part for row in found[place].rows})
    return orjson.dumps([{"source": source, "file": file, "row": row} for source, file, row in rows])


def _outline(shape: Shape, want: Want, today: dt.date, alone: bool) -> Shape:
    """``shape`` without what a decision about it on this day cannot depend on: the day since which it is valid, when that has
    come; the day of issue, where age does not matter; and of the only one of its kind the day until which it is valid, when
    that is past, or far enough. Of several the order of these days decides."""
    valid_from, valid_to = shape.valid_from, shape.valid_to
    if valid_from is not None and valid_from <= today:
        valid_from = None
    if alone and valid_to is not None:
        if valid_to < today:
            valid_to = _EARLIER
        elif valid_to >= today + want.left:
            valid_to = _LATER
    return Shape(
        shape.material, shape.source, shape.status, valid_from, valid_to, shape.region, shape.conflicting, shape.hub,
        shape.epoch, shape.as_of, shape.issued_on if want.aged else None, shape.tests, shape.roles,
    )  # fmt: skip


Beside = tuple[bool, tuple[tuple[str, ...], ...]]
"""Of another party of the question: whether it is contradictory, and its roles in each of somebody's certificates."""


def _beside(other: Person | None, material: str, here: Sequence[Found]) -> Beside | None:
    if other is None:
        return None
    theirs = {one.key: one.shape.roles for one in other.of(material)} if here else {}
    return other.subject.undecided, tuple([theirs.get(one.key, ()) for one in here])


def _named(role: str) -> bytes:
    """Whom a certificate names beside the party as whose it is looked at: no certificate is found twice, as both parties'."""
    return b"beside:" + role.encode()


def _stand_in(place: int, shape: Shape, holders: Mapping[bytes, tuple[str, ...]]) -> Holding:
    valid_to = shape.valid_to
    if valid_to in (_LATER, _EARLIER):  # as many days on as tell its place
        valid_to += dt.timedelta(days=place)
    return Holding(
        key=f"{_MARK}k{place:06d};",
        material=shape.material,
        source=shape.source,
        status=shape.status,
        valid_from=shape.valid_from,
        valid_to=valid_to,
        region=shape.region,
        conflicting=shape.conflicting,
        holders=holders,
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
        elif hole[2] is not None:
            parts.append(tuple(int(place) for place in hole[2].split(b",")))
        else:
            day = dt.date.fromisoformat(hole[3].decode())
            parts.append(str((day - (_LATER if day.year == _LATER.year else _EARLIER)).days))
        ended = hole.end()
    parts.append(text[ended:])
    return tuple(parts)
