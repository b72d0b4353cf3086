"""From a question to a stored answer: who is meant, what is known, what follows, in the asked language.

Three steps that ask nobody anything (:func:`prepare`, :func:`complete`) around one that asks the store
(:mod:`hub.knowledge`), so that the command line takes them one after the other and the API many questions at once.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from connectors.errors import UsageError
from connectors.messages import Language
from hub import catalogue, clock, findings, holdings, knowledge, papers, records, sketches
from hub.answer_texts import Kept
from hub.home import KeyedHash, identifier_text, keyed_hash
from hub.knowledge import Snapshot, Subject
from hub.papers import Paper
from hub.records import Record
from hub.sketches import Case, Moment, Person, Sketch, Want
from mappings import scalars
from mappings.items import APPLICANT, FactValue, Item, Use

MAX_ITEMS = 20
EARLIEST_YEAR = 1900  # nothing was recorded before, and the calendar's ends have no other time zone
CLOCK_SKEW = dt.timedelta(seconds=5)
CASES_KEPT = 10_000  # sets of facts that were found right


@dataclass(slots=True)  # not frozen, as the next two: each lookup makes one, and freezing takes longer than filling
class Question:
    """What a client asks. ``applicant`` and ``roles`` are identifiers, ``scheme:value`` or a value that tells its scheme."""

    items: tuple[str, ...]
    applicant: str = field(repr=False)
    client: str
    purpose: str | None  # None: the only one of the client's agreement
    facts: Mapping[str, Any] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict, repr=False)
    case: str | None = None
    as_of: dt.datetime | None = None
    language: Language = "en"


@dataclass(slots=True)
class Asked:
    """A question that can be answered. ``holders``: keyed hash -> scheme and value of everybody named, by role in
    ``digests``; ``provinces``: where their identifiers were issued."""

    question: Question
    cases: tuple[Case, ...]
    digests: Mapping[str, bytes]
    provinces: Mapping[str, str | None]
    holders: Mapping[bytes, tuple[str, str]] = field(repr=False)

    def materials(self) -> list[str]:
        return sorted({code for case in self.cases for code in _materials(case.item)})


@dataclass(slots=True)
class Answered:
    """One answer for one item: the JSON that is given, and what is kept; ``texts``: that the record refers to.
    ``dispositions``: of its requirements."""

    body: bytes
    record: Record
    texts: tuple[Kept, Kept]
    dispositions: tuple[str, ...]


def ask(engine: sa.Engine, question: Question) -> list[dict[str, Any]]:
    """Answer every item once, in order, and store each answer before it is given.

    UsageError says what is wrong with the question: an unknown item, an invalid identifier, a fact of the wrong type, an
    ``as_of`` still to come.
    """
    return [orjson.loads(answered.body) for answered in answered_now(engine, question)]


def answered_now(engine: sa.Engine, question: Question) -> list[Answered]:
    """As :func:`ask`, with the JSON as it is given."""
    asked_at = dt.datetime.now(dt.UTC)
    with engine.begin() as connection:
        asked = prepare(question, asked_at, lambda code, on: catalogue.find(connection, code, on), keyed_hash())
        if question.as_of is None:
            found, known = knowledge.current(connection, asked.holders, asked.materials())
            subjects = {role: found.subject(digest) for role, digest in asked.digests.items()}
            moment = at(known, asked_at)
        else:
            then = holdings.recorded(connection, asked.holders, asked.materials(), question.as_of)
            subjects = knowledge.parties(then, asked.digests)
            moment = Moment(Snapshot("", then.sources), question.as_of)
        assert question.purpose is not None
        answers = complete(asked, subjects, moment, asked_at, question.purpose)
        texts = [text for answered in answers for text in answered.texts]
        records.keep(connection, [answered.record for answered in answers], moment.known, texts)
    return answers


def prepare(
    question: Question, asked_at: dt.datetime, find: Callable[[str, dt.date], Item], hashing: KeyedHash
) -> Asked:
    """Check ``question`` against the catalogue; ``find`` says which version of an item is in force on a day.

    UsageError as :func:`ask`, and what ``find`` raises.
    """
    if question.as_of is not None:
        if question.as_of.year < EARLIEST_YEAR:
            raise UsageError("as-of-invalid")
        if question.as_of > asked_at + CLOCK_SKEW:
            raise UsageError("as-of-future")
    day = clock.today(question.as_of or asked_at)
    if APPLICANT in question.roles:
        raise UsageError("role-unknown", role=APPLICANT, known="-")
    digests, provinces, holders, kinds = {}, {}, {}, []
    today = day if question.as_of is None else None
    for role, text in ((APPLICANT, question.applicant), *question.roles.items()):
        found = scalars.parse(text, today=today)
        scheme, value = found.scheme, found.normalised
        if found.verdict == "invalid" or scheme is None or not value:
            raise UsageError("identifier-invalid", who=catalogue.shown(role), reasons=found.reason or "-")
        digests[role] = digest = hashing.of(identifier_text(scheme, value))
        provinces[role] = findings.province(scheme, value)
        holders[digest] = scheme, value
        kinds.append((role, scheme))
    items = tuple(find(code, day) for code in dict.fromkeys(question.items))
    if len(holders) < len(digests):
        for role, other in (pair for item in items for pair in _of(item).related):
            if role in digests and digests[role] == digests.get(other):
                raise UsageError("role-same", role=role, other=other)
    given = tuple(sorted((name, type(value), value) for name, value in question.facts.items()))
    return Asked(question, _cases(items, given, tuple(kinds)), digests, provinces, holders)


def complete(
    asked: Asked, subjects: Mapping[str, Subject], moment: Moment, asked_at: dt.datetime, purpose: str
) -> list[Answered]:
    """The answers to ``asked`` from what is known; each paper of each person is asked for once over all its items."""
    people = {role: Person(asked.provinces[role], subjects[role]) for role in asked.digests}
    answers = []
    asked_for: list[Paper] = []
    question = asked.question
    lang = question.language
    at = asked_at.isoformat()
    as_of = at if question.as_of is None else moment.moment.astimezone(dt.UTC).isoformat()
    worked = [_decided(case, people, moment, lang) for case in asked.cases]
    for number, (case, (concerned, parts, decided, must)) in enumerate(zip(asked.cases, worked, strict=True)):
        item = case.item
        compiled = _of(item)
        others = [one.must for one in worked[number + 1 :]]
        later = papers.instead(must, asked.digests, others) if must and others else []
        fresh = papers.new(must, asked.digests, [*asked_for, *later] if later else asked_for) if must else []
        once = papers.codes(fresh)
        key = records.numbered(asked_at, number)
        named = key.hex()
        body = b'{"answer":"%s","item":%s,"asked_at":"%s","as_of":"%s","requirements":[%s],"must_submit":%s}' % (
            f"{named[:8]}-{named[8:12]}-{named[12:16]}-{named[16:20]}-{named[20:]}".encode(), _named(item, lang), at.encode(),
            as_of.encode(), b",".join(parts), orjson.dumps(once),
        )  # fmt: skip
        texts = moment.texts(decided, lang)
        before = papers.written(asked_for, _named_as(asked, concerned)) if asked_for else []
        after = papers.written(later, _named_as(asked, concerned)) if later else []
        record = records.record(
            key, asked, case, concerned, compiled, moment, asked_at, purpose, before, after, once, texts
        )
        answers.append(Answered(body, record, texts, tuple([sketch.disposition for sketch in decided])))
        asked_for += fresh
    return answers


class _Decided(NamedTuple):
    """One item decided: the parties it is about, what the answer says of each requirement, and what they ask for."""

    concerned: dict[str, Person]
    parts: list[bytes]
    decided: list[Sketch]
    must: list[Use]


def _decided(case: Case, people: Mapping[str, Person], moment: Moment, lang: Language) -> _Decided:
    item = case.item
    concerned = {role: one for role, one in people.items() if role == APPLICANT or role in item.roles}
    parts, decided = [], []
    must: list[Use] = []
    for place, wanted in enumerate(_of(item).wants):
        sketch, found = moment.sketch(case, place, wanted, concerned)
        parts.append(sketches.filled(sketch.text(lang), found))
        decided.append(sketch)
        must += sketch.asked
    return _Decided(concerned, parts, decided, must)


def _named_as(asked: Asked, concerned: Iterable[str]) -> dict[str, bytes]:
    """Keyed hashes by role, those of an item's own parties first: what it says of them it says by their role there."""
    return {role: asked.digests[role] for role in (*concerned, *asked.digests)}


def at(known: Snapshot, moment: dt.datetime) -> Moment:
    """The cases decided under ``known``, kept while nothing that they depend on changes by itself."""
    kept = known.decided
    if not isinstance(kept, Moment) or not kept.holds(known, moment):
        kept = known.decided = Moment(known, moment)
    return kept


def fact_from_text(items: Iterable[Item], name: str, text: str) -> FactValue:
    """A fact typed on a command line, by the declaration of the item that knows it. UsageError when it does not fit."""
    items = tuple(items)
    fact = next((item.facts[name] for item in items if name in item.facts), None)
    if fact is None:
        raise _unknown_fact(items, name)
    value: object = text
    if fact.type == "boolean":
        value = {"true": True, "yes": True, "是": True, "false": False, "no": False, "否": False}.get(text.lower())
    elif fact.type == "integer":
        value = int(text) if text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 16 else None
    if not fact.accepts(value):
        raise UsageError("fact-type", fact=name, type=_expected(fact))
    assert isinstance(value, bool | int | str)
    return value


_right: dict[tuple[Any, ...], tuple[Case, ...]] = {}


def _cases(
    items: tuple[Item, ...], given: tuple[tuple[str, type, Any], ...], kinds: tuple[tuple[str, str], ...]
) -> tuple[Case, ...]:
    """Checked once for all questions that give the same facts and kinds of identifiers."""
    key = tuple(map(id, items)), given, kinds
    try:
        found = _right.get(key)
    except TypeError:  # a value that is no fact's: refused below
        return _checked(items, given, kinds)
    if found is None:
        found = _checked(items, given, kinds)
        if len(_right) >= CASES_KEPT:
            _right.clear()
        _right[key] = found
    return found


def _checked(
    items: tuple[Item, ...], given: Sequence[tuple[str, type, Any]], kinds: Sequence[tuple[str, str]]
) -> tuple[Case, ...]:
    """Facts and roles must be declared by an item, and of the kind declared."""
    for name, _, value in given:
        declared = [item.facts[name] for item in items if name in item.facts]
        if not declared:
            raise _unknown_fact(items, name)
        for fact in declared:
            if not fact.accepts(value):
                raise UsageError("fact-type", fact=name, type=_expected(fact))
    for role, scheme in kinds:
        parties = [item.party(role) for item in items if role == APPLICANT or role in item.roles]
        if not parties:
            known = ", ".join(sorted({name for item in items for name in item.roles})) or "-"
            raise UsageError("role-unknown", role=catalogue.shown(role), known=known)
        for party in parties:
            if scheme not in party.schemes:
                raise UsageError("identifier-unfit", who=role, scheme=scheme, kind=party.kind)
    return tuple(Case(item, tuple((name, value) for name, _, value in given if name in item.facts)) for item in items)


def _unknown_fact(items: Sequence[Item], name: str) -> UsageError:
    known = ", ".join(sorted({fact for item in items for fact in item.facts})) or "-"
    return UsageError("fact-unknown", fact=catalogue.shown(name), known=known)


def _expected(fact: Any) -> str:
    return f"{fact.type} ({', '.join(fact.values)})" if fact.values else str(fact.type)


class Compiled:
    """What is the same in every answer about one version of an item. ``looked_at``: roles and materials; ``digest``: of what
    the catalogue says of it."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.digest = item.digest()
        self.materials = item.materials()
        self.wants = tuple(sketches.wants(requirement) for requirement in item.requirements)
        self.looked_at = tuple(
            dict.fromkeys(
                (role, want.material)
                for wanted in self.wants
                for want in wanted
                for role in (want.holder, *want.beside)
            )
        )
        # Roles of which one certificate has to name both: two people.
        self.related = tuple(
            dict.fromkeys(
                pair for _, use in item.uses() for pair in itertools.combinations((use.holder, *use.beside), 2)
            )
        )
        self.named: dict[Language, bytes] = {}


_compiled: dict[int, Compiled] = {}


def _of(item: Item) -> Compiled:
    found = _compiled.get(id(item))
    if found is None:
        found = _compiled[id(item)] = Compiled(item)
    return found


def _materials(item: Item) -> tuple[str, ...]:
    return _of(item).materials


def _wants(item: Item) -> tuple[tuple[Want, ...], ...]:
    return _of(item).wants


def _named(item: Item, lang: Language) -> bytes:
    """Code and name of an item, as they stand in an answer."""
    known = _of(item).named
    if lang not in known:
        known[lang] = b'%s,"item_name":%s' % (orjson.dumps(item.code), orjson.dumps(getattr(item.name, lang)))
    return known[lang]
