"""What is kept of every answer: who asked and why, all that it was decided from, rule by rule how, and what it said.

How and what stand in texts that many answers share (:mod:`hub.answer_texts`). An answer is a pure function of what is kept, so
it is made again from there whenever somebody wants to see it (:func:`explain`), and has to come out the same. No identifier
is kept, only keyed hashes.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import sqlalchemy as sa

from connectors.errors import UsageError
from connectors.messages import Language
from hub import answer_sources, answer_texts, catalogue, knowledge, papers, rendering, resolver, schema
from hub.answer_texts import Kept
from hub.clock import CHINA
from hub.findings import Party
from hub.holdings import Freshness, Holding, Known, Provenance
from hub.identity_lookup import People
from hub.knowledge import Found, Snapshot
from mappings.items import APPLICANT, Item

if TYPE_CHECKING:
    from hub.answers import Asked, Compiled
    from hub.sketches import Case, Moment, Person


class Record(NamedTuple):
    """A row of ``answer``, in the order of its columns. ``must_submit``: joined by spaces, which codes of materials hold none of;
    ``inputs`` and ``trace`` as JSON; ``others``: keyed hashes of whoever is named beside the applicant."""

    id: bytes
    asked_at: dt.datetime
    client: str
    purpose: str
    case: str | None
    item: str
    version: int
    language: str
    applicant: bytes
    must_submit: str
    inputs_digest: bytes
    inputs: str
    trace: str | None
    rules: bytes
    said: bytes
    others: tuple[bytes, ...] | None

    def row(self) -> dict[str, Any]:
        """By column."""
        return {
            **self._asdict(),
            "id": uuid.UUID(bytes=self.id),
            "must_submit": self.must_submit.split(),
            "others": None if self.others is None else list(self.others),
        }


def key(at: dt.datetime) -> uuid.UUID:
    """A new key that sorts by time, so that what bears it is written one after the other (RFC 9562, version 7)."""
    number = int(at.timestamp() * 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    return uuid.UUID(int=number & ~(0xF000 << 64 | 0xC000 << 48) | 0x7000 << 64 | 0x8000 << 48)


def numbered(at: dt.datetime, number: int) -> bytes:
    """A new key as :func:`key`, of answer ``number`` to one question: they sort as they were asked for (RFC 9562, 6.2: a counter
    in ``rand_a``). 16 bytes."""
    chance = int.from_bytes(_chance(), "big") & (1 << 62) - 1
    return (int(at.timestamp() * 1000) << 80 | (0x7000 | number & 0xFFF) << 64 | 1 << 63 | chance).to_bytes(16, "big")


_DRAWN = 512  # at a time: to ask the system for a few bytes takes longer than making a key of them
_drawn: list[bytes] = []
os.register_at_fork(after_in_child=_drawn.clear)


def _chance() -> bytes:
    """8 bytes that nobody can foretell, given to one caller alone."""
    try:
        return _drawn.pop()
    except IndexError:
        many = os.urandom(8 * _DRAWN)
        _drawn.extend(many[start : start + 8] for start in range(0, len(many), 8))
        return os.urandom(8)


def record(
    answer: bytes,
    asked: Asked,
    case: Case,
    people: Mapping[str, Person],
    compiled: Compiled,
    moment: Moment,
    asked_at: dt.datetime,
    purpose: str,
    asked_for: Sequence[str],
    instead: Sequence[str],
    once: Sequence[str],
    texts: tuple[Kept, Kept],
) -> Record:
    """What is kept of one answer. ``asked_for``: what answers before it to the same question ask for (:func:`hub.papers.written`);
    ``instead``: what those after it ask for in place of what this one wants (:func:`hub.papers.instead`); ``once``: what it asks to submit; ``texts``: why, and what it says (:meth:`Moment.texts`)."""
    question = asked.question
    digests = asked.digests
    known: dict[str, list[Any]] = {role: [] for role in people}
    for holder, material in compiled.looked_at:
        if holder in people and (found := people[holder].of(material)):
            known[holder] += [(key, tuple(shape), rows) for key, shape, rows in found]
    text = orjson.dumps(
        {
            "item": case.item.code,
            "version": case.item.version,
            "catalogue": compiled.digest,
            "facts": dict(case.facts),
            "parties": {role: (digests[role].hex(), one.province) for role, one in people.items()},
            "as_of": question.as_of,
            "asked_for": asked_for,
            **({"asked_instead": instead} if instead else {}),
            "known": known,
            "undecided": sorted([role for role, one in people.items() if one.subject.undecided]),
            "sources": moment.known.hex,
        },
        option=orjson.OPT_SORT_KEYS,
    )
    through = {role: one.subject.through for role, one in people.items() if one.subject.through}
    more = orjson.dumps({"identity": through}, default=dict).decode() if through else None
    rules, words = texts
    others = None
    if len(people) > 1 and (named := {digests[role] for role in people} - {digests[APPLICANT]}):
        others = tuple(sorted(named))
    return Record(
        answer, asked_at, question.client, purpose, question.case, case.item.code, case.item.version, question.language,
        digests[APPLICANT], " ".join(once), hashlib.sha256(text).digest(), text.decode(), more, rules.digest, words.digest,
        others,
    )  # fmt: skip


def said(requirements: bytes, once: Sequence[str]) -> str:
    """Digest of what an answer says, in its language: its requirements as a JSON list, and what it asks to submit."""
    return hashlib.sha256(requirements + orjson.dumps(once)).hexdigest()


def keep(connection: sa.Connection, rows: Sequence[Record], known: Snapshot, texts: Iterable[Kept]) -> None:
    """Store ``rows``, the texts they refer to, and the sources they were decided under."""
    answer_texts.keep(connection, texts)
    answer_sources.keep(connection, known)
    connection.execute(sa.insert(schema.answer), [row.row() for row in rows])


def explain(engine: sa.Engine, answer: str, lang: Language | None = None) -> dict[str, Any]:
    """The stored answer ``answer`` with its trace, what comes out when it is made again, and the evidence fetched under it; its body in
    ``lang``, else in the language in which it was given. UsageError ``answer-unknown``."""
    with engine.connect() as connection:
        row = found(connection, answer)
        known = sources(connection, row)
        why = trace(connection, row)
        evidence = [_given(one) for one in connection.execute(_EVIDENCE, {"answer": row.id, "at": row.asked_at})]
    return {**shown(row, why, known, lang), "evidence": evidence}


def sources(connection: sa.Connection, row: sa.Row[Any]) -> list[Freshness] | None:
    """The sources that the answer of ``row`` was decided under; None where they are gone or altered, or it is older than such
    records."""
    return answer_sources.read(connection, bytes.fromhex(orjson.loads(row.inputs)["sources"])) if row.inputs else None


def _given(row: sa.Row[Any]) -> dict[str, Any]:
    return {
        "holding": row.holding.hex(),
        "material": row.material,
        "fields": list(row.fields),
        "at": row.given_at.astimezone(dt.UTC).isoformat(),
        "provider": row.provider,
        "message": str(row.message) if row.message else None,
    }


# By its time too: evidence lies in months by that of the answer.
_EVIDENCE = sa.text("""
SELECT holding, material, fields, given_at, provider, message FROM evidence
WHERE answer = :answer AND asked_at = :at AND receiver IS NULL ORDER BY given_at, holding
""").bindparams(sa.bindparam("answer", type_=sa.Uuid()), sa.bindparam("at", type_=sa.DateTime(timezone=True)))


def found(connection: sa.Connection, answer: str) -> sa.Row[Any]:
    """The row of ``answer``. UsageError ``answer-unknown``."""
    try:
        named = uuid.UUID(answer)
    except ValueError:
        raise UsageError("answer-unknown") from None
    row = connection.execute(sa.select(schema.answer).where(schema.answer.c.id == named)).first()
    if row is None:
        raise UsageError("answer-unknown")
    return row


def trace(connection: sa.Connection, row: sa.Row[Any]) -> dict[str, Any]:
    """Rule by rule why the answer of ``row`` says what it says (``requirements``), the digest of what it says (``said``; not of
    before it was kept), and who is one with whom on whose word (``identity``), where anybody is.

    Without requirements where the text that they stand in, the inputs, or the sources that they were decided under are gone or
    altered: then nothing is to be taken from them. Without words (``said`` is empty) likewise.
    """
    proven = row.inputs is None or (_intact(row) and sources(connection, row) is not None)
    if row.rules is None:  # of before texts were shared: all of it stands in the row
        whole: dict[str, Any] = orjson.loads(row.trace)
        return whole if proven else {**whole, "requirements": []}
    texts = answer_texts.read(connection, row.rules, row.said) if proven else {}
    known = orjson.loads(row.inputs)["known"]
    rules, words = ((answer_texts.filled(texts[one], known) if one in texts else None) for one in (row.rules, row.said))
    return {
        **(orjson.loads(rules) if rules is not None else {"requirements": []}),
        "said": said(words, row.must_submit) if words is not None else "",
        **(orjson.loads(row.trace) if row.trace else {}),
    }


def shown(
    row: sa.Row[Any], trace: Mapping[str, Any], sources: Sequence[Freshness] | None, lang: Language | None = None
) -> dict[str, Any]:
    """A stored answer as people see it, with its :func:`trace` and its :func:`sources`.

    ``replay``: same; differs, when the rules or words behind it have changed since, or what the catalogue says of the item's version, or
    what is kept of it; impossible, when its item's version is no longer in the catalogue, or it is older than such records.
    """
    entry = {
        "answer": str(row.id),
        "item": row.item,
        "asked_at": row.asked_at.astimezone(dt.UTC).isoformat(),
        "client": row.client,
        "purpose": row.purpose,
        "case": row.case,
        "inputs_digest": row.inputs_digest.hex(),
    }
    if row.inputs is None:
        return {**entry, "trace": trace, "body": row.body, "replay": "impossible"}
    inputs = orjson.loads(row.inputs)
    told = sources or []
    moment = dt.datetime.fromisoformat(inputs["as_of"]) if inputs["as_of"] else row.asked_at
    item = next((one for one in catalogue.published().get(row.item, ()) if one.version == row.version), None)
    whole = {
        "item": row.item,
        "version": row.version,
        "day": moment.astimezone(CHINA).date().isoformat(),
        "facts": inputs["facts"],
        "sources": [
            {
                "source": one.source,
                "material": one.material,
                "last_success_at": one.last_success_at.isoformat() if one.last_success_at else None,
                "late": one.late(moment),
                **({"hub": one.hub, "region": one.region} if one.hub else {}),
            }
            for one in told
            if item is None or one.material in item.materials()
        ],
        **trace,
    }
    if item is None:
        return {**entry, "trace": whole, "body": None, "replay": "impossible"}
    resolution = _again(item, inputs, told, moment)
    same = orjson.loads(orjson.dumps([rule.trace for rule in resolution.decisions])) == trace["requirements"]
    body = _body(row, resolution, inputs, moment, lang)
    # Answers of before these digests were kept have none.
    told_of = inputs.get("catalogue") in (None, item.digest())
    given = body if (lang or row.language) == row.language else _body(row, resolution, inputs, moment, None)
    told_so = trace.get("said") in (None, said(orjson.dumps(given["requirements"]), given["must_submit"]))
    replay = "same" if same and _intact(row) and sources is not None and told_of and told_so else "differs"
    return {**entry, "trace": whole, "body": body, "replay": replay}


def _intact(row: sa.Row[Any]) -> bool:
    return hashlib.sha256(row.inputs.encode()).digest() == bytes(row.inputs_digest)


def _again(item: Item, inputs: Mapping[str, Any], sources: Sequence[Any], moment: dt.datetime) -> resolver.Resolution:
    """The decision made anew from what was kept, without any sketch."""
    parties = {role: Party(bytes.fromhex(digest), province) for role, (digest, province) in inputs["parties"].items()}
    # One certificate of several parties is kept with each of them, as what it names them.
    named: dict[str, dict[bytes, tuple[str, ...]]] = {}
    certificates: dict[str, Found] = {}
    for role, found in inputs["known"].items():
        for key, said, rows in found:
            one = certificates[key] = Found(key, knowledge.Shape(*said), tuple(map(tuple, rows)))
            named.setdefault(key, {})[parties[role].digest] = tuple(one.shape.roles)
    holdings = [_holding(one, named[key]) for key, one in certificates.items()]
    undecided = frozenset(parties[role].digest for role in inputs["undecided"])
    known = Known(tuple(holdings), tuple(sources), People(undecided=undecided))
    return resolver.resolve(item, inputs["facts"], parties, known, catalogue.volatile(), moment)


def _holding(found: Found, holders: Mapping[bytes, tuple[str, ...]]) -> Holding:
    shape = found.shape
    return Holding(
        key=found.key,
        material=shape.material,
        source=shape.source,
        status=shape.status,
        valid_from=_date(shape.valid_from),
        valid_to=_date(shape.valid_to),
        region=shape.region,
        conflicting=shape.conflicting,
        holders=holders,
        provenance=tuple(Provenance(*row) for row in found.rows),
        hub=shape.hub,
        epoch=shape.epoch,
        as_of=dt.datetime.fromisoformat(shape.as_of) if isinstance(shape.as_of, str) else None,
        issued_on=_date(shape.issued_on),
        tests=tuple((name, value) for name, value in shape.tests),
    )


def _date(value: object) -> dt.date | None:
    return dt.date.fromisoformat(value) if isinstance(value, str) else None


def _body(
    row: sa.Row[Any],
    resolution: resolver.Resolution,
    inputs: Mapping[str, Any],
    moment: dt.datetime,
    lang: Language | None,
) -> dict[str, Any]:
    lang = lang or ("zh" if row.language == "zh" else "en")
    people = {role: digest for role, (digest, _) in inputs["parties"].items()}
    before = inputs["asked_for"]
    others = papers.read([*before, *inputs.get("asked_instead", ())], people)
    once = papers.codes(papers.new(resolution.asked, people, others))
    return {
        "answer": str(row.id),
        "item": row.item,
        "item_name": getattr(resolution.item.name, lang),
        "asked_at": row.asked_at.astimezone(dt.UTC).isoformat(),
        "as_of": moment.astimezone(dt.UTC).isoformat(),
        "requirements": [rendering.requirement(resolution.item, one, lang) for one in resolution.decisions],
        # Of before papers were told apart, what was asked for before are codes of materials alone.
        "must_submit": [code for code in once if code not in before],
    }
