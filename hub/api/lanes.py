"""Lanes: questions of many callers that wait at the same moment are answered together.

One statement reads what is known of all their subjects, one stores all their answers, and nobody hears an answer before it
is committed. A question that comes alone goes alone, at once. What is not in order in a question (its agreement, the
snapshot) is left to the slow way (:mod:`hub.api.lookups`), which says what is wrong.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg
from sqlalchemy.engine import Engine

from connectors.errors import UsageError
from hub import answer_rows, answer_sources, answer_texts, answers, knowledge
from hub.agreements import Agreement
from hub.answer_texts import Kept
from hub.answers import Answered, Asked
from hub.api import store_failures
from hub.api.rates import Rates
from hub.api.store_failures import AWAY
from hub.knowledge import Gathered, Snapshot
from hub.records import Record
from hub.sketches import Moment
from hub.tokens import Bearer

log = logging.getLogger("yici.api")

LANES = 3  # while one waits for the store another decides
BATCHES = 3  # slices of batches under way, beside the lanes: batches must not crowd out single questions
TOGETHER = 48  # questions in one statement: more only make each wait longer
KEPT = 10_000  # agreements
TEXTS = 20_000  # digests of texts

_PLACES = {
    "identifiers": "($1::bytea[])",
    "materials": "($2::text[])",
    "documented": "($3::text[])",
    "foreign": "($5::bytea[])",
}
# Which agreements are still the ones known, in the same statement: an end takes effect at once.
_AGREED = """
UNION ALL
SELECT 'a', NULL, xmin::text, NULL, NULL, client, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM agreement WHERE client = ANY({clients})
"""
_READ = knowledge.NOW.format(**_PLACES) + _AGREED.format(clients="$4::text[]")
_READ_ALONE = knowledge.NOW_ALONE.format(
    each=", ".join(f"${place}::bytea" for place in range(4, 4 + knowledge.ALONE)),
    materials="($1::text[])",
    documented="($2::text[])",
) + _AGREED.format(clients="$3::text[]")
_READ_MORE = _READ + knowledge.ENTRIES.format(**_PLACES)
_THROUGH = knowledge.THROUGH.format(members="($1::bytea[])")
_AGREEMENTS = (
    "SELECT xmin::text, client, name, items, purposes, valid_from, valid_to, rate FROM agreement WHERE client = ANY($1)"
)
# Of one alone: a COPY would be one more message to wait for.
_KEEP_ONE = "INSERT INTO answer ({}) VALUES ({})".format(
    ", ".join(f'"{name}"' for name in Record._fields),
    ", ".join(f"${place + 1}" for place in range(len(Record._fields))),
)
_KEEP_TEXTS = answer_texts.KEEP.format(digests="$1::bytea[]", texts="$2::text[]")
_KEEP_SOURCES = answer_sources.KEEP.format(digest="$1", sources="$2")


Tell = Callable[[list[Answered] | None], None]


@dataclass(eq=False)
class Waiting:
    """A question under way. ``tell`` hears its answers, or None when the slow way has to say what is wrong. ``counted``: towards what
    its client may ask a second."""

    bearer: Bearer
    asked: Asked
    tell: Tell | None = None
    counted: bool = True


@dataclass
class Lanes:
    """Connections of one event loop, and the questions that wait for one."""

    engine: Engine
    rates: Rates
    count: int = LANES
    waiting: list[Waiting] = field(default_factory=list)
    running: int = 0
    known: Snapshot = field(default_factory=lambda: Snapshot("", ()))
    agreements: dict[str, tuple[str, Agreement]] = field(default_factory=dict)
    idle: list[asyncpg.Connection] = field(default_factory=list)
    moment: Moment | None = None
    stored: set[bytes] = field(default_factory=set)  # digests of texts and sources in the store, as used in ``moment``
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(BATCHES))

    async def answer(self, one: Waiting) -> list[Answered] | None:
        """The answers to a question, stored; None where there are none this way."""
        answered: asyncio.Future[list[Answered] | None] = asyncio.get_running_loop().create_future()
        one.tell = lambda found: None if answered.done() else answered.set_result(found)
        self.submit(one)
        return await answered

    def submit(self, one: Waiting) -> None:
        """Have a question answered soon, in this loop; its ``tell`` hears what :meth:`answer` returns."""
        self.waiting.append(one)
        if self.running < self.count:
            self.running += 1
            task = asyncio.get_running_loop().create_task(self._run())
            self.tasks.add(task)  # a loop alone does not keep its tasks
            task.add_done_callback(self.tasks.discard)

    async def together(self, bearer: Bearer, asked: Sequence[Asked]) -> list[list[Answered] | None]:
        """The answers to several questions of one caller, in one go, when there is room. Errors of the store come through."""
        async with self.room:
            return await self._answered([Waiting(bearer, one) for one in asked])

    async def _run(self) -> None:
        """One lane, as long as anybody waits."""
        try:
            while self.waiting:
                together, self.waiting = self.waiting[:TOGETHER], self.waiting[TOGETHER:]
                try:
                    given = await self._answered(together)
                except Exception as error:  # the slow way finds it again, and says what it is
                    log.warning("a lane failed: %s", type(error).__name__)
                    given = [None] * len(together)
                for one, answered in zip(together, given, strict=True):
                    try:
                        if one.tell:
                            one.tell(answered)
                    except Exception as error:  # the others still hear theirs
                        log.error("an answer was not told: %s", type(error).__name__)
        finally:
            self.running -= 1

    async def _answered(self, together: Sequence[Waiting]) -> list[list[Answered] | None]:
        while self.idle and self.idle[-1].is_closed():
            self.idle.pop()
        connection = self.idle.pop() if self.idle else await self._connect()
        try:
            given = await self._asked(connection, together)
        except BaseException as error:
            cut = connection.is_closed() and isinstance(error, Exception)
            connection.terminate()
            if cut or store_failures.code_of(error) == AWAY:
                while self.idle:  # of the same store: the next question tries a new one
                    self.idle.pop().terminate()
                self.moment = None  # it may come back with less in it
            if cut and store_failures.code_of(error) is None:  # inside COPY the loop notices first, in its own words
                raise asyncpg.ConnectionDoesNotExistError("cut") from error
            raise
        self.idle.append(connection)
        return given

    async def _connect(self) -> asyncpg.Connection:
        dsn = self.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        # One plan for any question: making one takes longer than the answer.
        settings = {"plan_cache_mode": "force_generic_plan", "jit": "off", "application_name": "yici-lanes"}
        return await asyncpg.connect(dsn, timeout=10, server_settings=settings, command_timeout=30)

    async def _asked(self, connection: asyncpg.Connection, together: Sequence[Waiting]) -> list[list[Answered] | None]:
        found, agreed = await self._read(connection, together)
        read_at = dt.datetime.now(dt.UTC)
        moment = answers.at(found.known, read_at)
        if moment is not self.moment or len(self.stored) > TEXTS:
            self.moment, self.stored = moment, set()
        stored = self.stored
        given: list[list[Answered] | None] = []
        rows: list[Record] = []
        new: dict[bytes, Kept] = {}
        for place, one in enumerate(together):
            # Answers of one question have one time, and no other question has it.
            asked_at = read_at + dt.timedelta(microseconds=place)
            purpose = self._purpose(one, agreed, asked_at)
            current = all(case.item.in_force.covers(moment.day) for case in one.asked.cases)  # midnight has passed
            if purpose is None or not current or not (one.counted or self._count(one, agreed)):
                given.append(None)
                continue
            subjects = {role: found.subject(digest) for role, digest in one.asked.digests.items()}
            answered = answers.complete(one.asked, subjects, moment, asked_at, purpose)
            for answer in answered:
                rows.append(answer.record)
                for text in answer.texts:
                    if text.digest not in stored:
                        new[text.digest] = text
            given.append(answered)
        if rows and found.known.digest not in stored:  # before what refers to them, and once a day
            await connection.execute(_KEEP_SOURCES, found.known.digest, found.known.text)
            stored.add(found.known.digest)
        if new:
            await connection.execute(_KEEP_TEXTS, list(new), [text.text.decode() for text in new.values()])
            stored.update(new)
        if len(rows) == 1:
            await connection.execute(_KEEP_ONE, *rows[0].row().values())
        elif rows:
            await connection.copy_to_table(
                "answer", source=answer_rows.copied(rows), columns=Record._fields, format="binary"
            )
        return given

    async def _read(
        self, connection: asyncpg.Connection, together: Sequence[Waiting]
    ) -> tuple[Gathered, Mapping[str, Agreement]]:
        """What is known of everybody asked about, and the callers' agreements.

        Other lanes may bring a newer snapshot meanwhile: what is read goes with the one it was asked under.
        """
        holders: dict[bytes, tuple[str, str]] = {}
        materials: set[str] = set()
        for one in together:
            holders |= one.asked.holders
            materials.update(one.asked.materials())
        clients = list({one.bearer.client for one in together})
        bind = [list(holders), list(materials), knowledge.documented(), clients]
        while True:
            known = self.known
            foreign = knowledge.foreign(known, holders)
            if foreign:
                rows = await connection.fetch(_READ_MORE, *bind, list(foreign))
            elif len(together) > 1 or len(holders) > knowledge.ALONE:
                rows = await connection.fetch(_READ, *bind)
            else:
                each = [*holders] * knowledge.ALONE
                rows = await connection.fetch(_READ_ALONE, *bind[1:], *each[: knowledge.ALONE])
                if any(row[0] == "m" or row[13] == knowledge.MORE for row in rows):
                    rows = await connection.fetch(_READ, *bind)
            versions = {row[5]: row[2] for row in rows if row[0] == "a"}
            found = Gathered((row for row in rows if row[0] != "a"), known, foreign)
            if found.version != known.version:
                newer = knowledge.snapshot(*(await connection.fetchrow(knowledge.SNAPSHOT)))
                self.known = newer
                continue
            if any(self.agreements.get(client, ("",))[0] != version for client, version in versions.items()):
                await self._agree(connection, list(versions))
                continue
            agreed = {client: self.agreements[client][1] for client in versions}
            if members := found.joined():
                found.tell(await connection.fetch(_THROUGH, members))
            return found, agreed

    async def _agree(self, connection: asyncpg.Connection, clients: list[str]) -> None:
        if len(self.agreements) > KEPT:
            self.agreements.clear()
        for version, client, name, items, purposes, valid_from, valid_to, rate in await connection.fetch(
            _AGREEMENTS, clients
        ):
            agreement = Agreement(client, name, tuple(items), tuple(purposes), valid_from, valid_to, rate=rate)
            self.agreements[client] = version, agreement

    def _count(self, one: Waiting, agreed: Mapping[str, Agreement]) -> bool:
        """Count a question that came before it was known how many its client may ask. False: too many, and it was not."""
        try:
            self.rates.take(one.bearer.client, agreed[one.bearer.client].rate)
        except UsageError:
            return False
        one.counted = True
        return True

    def _purpose(self, one: Waiting, agreed: Mapping[str, Agreement], now: dt.datetime) -> str | None:
        """The purpose under which the agreement allows the question; None where it does not."""
        question = one.asked.question
        agreement = agreed.get(one.bearer.client)
        if agreement is None or not one.bearer.since(agreement.valid_from):
            return None
        try:
            return agreement.admit(question.items, question.purpose, now)
        except UsageError:
            return None
