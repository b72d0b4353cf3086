"""``POST /v1/lookups/batch``: the same question about up to 1,000 subjects, answered as it goes, a line for each."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import itertools
import logging
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from connectors.errors import UsageError, YiciError
from connectors.messages import Language
from hub import answers, catalogue, clock, database, mentions, problems, tokens
from hub.answers import Answered, Asked, Question
from hub.api import bodies, guard, language, store_failures
from hub.api.guard import Caller, bearer_of
from hub.api.hot import Hot, NotHere, in_force
from hub.api.lanes import Lanes
from hub.api.lookups import Answer, Plain, body_errors, existing
from hub.api.responses import documented, problem
from hub.home import KeyedHash, keyed_hash
from hub.tokens import Bearer
from mappings.items import FactValue, Item

log = logging.getLogger("yici.api")

MOST = 1000
SLICE = 100  # subjects in one statement: answers of the first are on their way while the next are decided
AHEAD = 3  # slices begun before the one that is sent next
LINES = "application/x-ndjson"

Lines = Callable[[int], Awaitable[bytes]]
"""The lines of the slice that begins at a place."""
Problem = dict[str, Any]
Told = list[Answered] | Problem
"""What is said of one subject."""

router = APIRouter()


class Subject(BaseModel):
    """Somebody asked about, with what differs from case to case."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: Annotated[Plain, Field(description="The applicant, scheme:value")]
    facts: Annotated[dict[Plain, FactValue], Field(max_length=50)] = {}
    roles: Annotated[dict[Plain, Plain], Field(max_length=20)] = {}
    case: Annotated[str | None, StringConstraints(pattern=r"^[0-9A-Za-z._-]{1,64}$")] = None


class LookupBatch(BaseModel):
    """One question about many. Identifiers stand in the body only."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    items: Annotated[list[Plain], Field(min_length=1, max_length=answers.MAX_ITEMS)]
    purpose: Plain | None = None
    subjects: Annotated[list[Subject], Field(min_length=1, max_length=MOST)]


class SubjectAnswered(BaseModel):
    """One line: the answers about the subject at this place (from 0), or the problem with its question."""

    subject: int
    answers: list[Answer] | None = None
    problem: dict[str, Any] | None = None


@router.post(
    "/v1/lookups/batch",
    summary="Ask the same about many, answered line by line",
    tags=["lookups"],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/LookupBatch"}}},
        }
    },
    responses={
        200: {
            "description": "One JSON object a line, in the order of the subjects; stored before it is given",
            "content": {LINES: {"schema": {"$ref": "#/components/schemas/SubjectAnswered"}}},
        },
        **documented(400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503),
    },
)
async def lookup_batch(request: Request, caller: Caller) -> Response:
    """Up to 1,000 subjects. What is wrong with one is said on its line; the others are answered."""
    lang = language.of(request.headers)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return problem("media-type-unsupported", lang, {"expected": "application/json"})
    try:
        body = await request.body()
        asked = LookupBatch.model_validate_json(body)
        if not bodies.plain(body, len(asked.model_fields_set) + sum(map(_colons, asked.subjects))):
            bodies.require_unrepeated(body)
    except ValidationError as error:
        if error.errors(include_url=False, include_input=False, include_context=False)[0]["type"] == "json_invalid":
            return problem("body-malformed", lang)
        return problem("body-invalid", lang, errors=body_errors(error, LookupBatch, Subject))
    items = catalogue.expand(asked.items)
    now = dt.datetime.now(dt.UTC)
    if not all(code in caller.items and catalogue.in_force(code, clock.today(now)) for code in items):
        await run_in_threadpool(_offered, items, caller, now)  # the store knows more of them
    purpose = caller.admit(items, asked.purpose, now)
    request.app.state.rates.take(caller.client, caller.rate, len(asked.subjects) - 1)
    hot: Hot = request.app.state.hot
    bearer = tokens.bearer(bearer_of(request.headers.get("authorization")))
    batch = Batch(items, tuple(asked.subjects), purpose, bearer, lang, hot, keyed_hash())
    slices = _in_order(batch.first, batch.lines, len(asked.subjects))
    try:  # the first slice decides whether this can be answered at all
        first = await anext(slices)
    except Exception as error:
        code = store_failures.code_of(error)
        if code is None:
            raise
        log.error("%s", store_failures.named(error))
        return problem(code, lang)
    return StreamingResponse(
        _all(first, slices),
        media_type=LINES,
        headers={"Content-Language": lang, "Cache-Control": "no-store"},
    )


@dataclass(frozen=True)
class Batch:
    """What is asked about whom, by whom."""

    items: tuple[str, ...]
    subjects: tuple[Subject, ...] = field(repr=False)
    purpose: str
    bearer: Bearer
    lang: Language
    hot: Hot
    hashing: KeyedHash = field(repr=False)

    async def first(self) -> bytes:
        """The lines of the first slice. Errors of the store come through."""
        return await self._slice(0)

    async def lines(self, start: int) -> bytes:
        """The lines of the slice behind the first that begins at ``start``: what fails it is told to each of its subjects."""
        try:
            return await self._slice(start)
        except Exception as error:  # the stream has begun: cut off, it would say nothing
            frame = traceback.extract_tb(error.__traceback__)[-1]
            log.error("%s at %s:%s", store_failures.named(error), frame.filename, frame.lineno)
            if isinstance(error, YiciError):
                told = problems.of(error, self.lang)
            else:
                told = problems.document(store_failures.code_of(error) or "internal", self.lang)
            return b"".join(_line(place, told) for place in range(start, min(start + SLICE, len(self.subjects))))

    async def _slice(self, start: int) -> bytes:
        lanes = await self.hot.lanes_here()
        find = functools.cache(in_force)
        told: list[Told | Asked | Question] = [
            self._prepared(subject, find) for subject in self.subjects[start : start + SLICE]
        ]
        ready = [(place, one) for place, one in enumerate(told) if isinstance(one, Asked)]
        if ready:
            given = await _together(lanes, self.bearer, [one for _, one in ready])
            for (place, one), found in zip(ready, given, strict=True):
                told[place] = one.question if found is None else found
        if left := [(place, one) for place, one in enumerate(told) if isinstance(one, Question)]:
            heard = await run_in_threadpool(self._slowly, [one for _, one in left])
            for (place, _), answer in zip(left, heard, strict=True):
                told[place] = answer
        lines = []
        for place, said in enumerate(told, start=start):
            if isinstance(said, list):
                self.hot.metrics.decided(said)
                lines.append(b'{"subject":%d,"answers":[%s]}\n' % (place, b",".join([each.body for each in said])))
            else:
                assert isinstance(said, dict)
                lines.append(_line(place, said))
        return b"".join(lines)

    def _prepared(self, subject: Subject, find: Callable[[str, dt.date], Item]) -> Problem | Asked | Question:
        """The question about one subject, or the problem with it; not yet prepared where only the slow way can tell."""
        question = Question(
            self.items, subject.id, self.bearer.client, self.purpose, subject.facts, subject.roles, subject.case, None,
            self.lang,
        )  # fmt: skip
        try:
            if subject.case is not None and mentions.names_somebody(
                subject.case, (subject.id, *subject.roles.values())
            ):
                raise UsageError("case-names-somebody")
            return answers.prepare(question, dt.datetime.now(dt.UTC), find, self.hashing)
        except NotHere:
            return question
        except YiciError as error:
            return problems.of(error, self.lang)

    def _slowly(self, questions: Sequence[Question]) -> list[Told]:
        """As :mod:`hub.api.lookups` takes each: what is no longer in order since the batch began (the agreement, an item after
        midnight) it answers as things are now, or says what is wrong. Errors of the store come through."""
        engine = database.engine()
        try:
            agreed = guard.agreed(self.bearer)
            existing(self.items, agreed)
            agreed.admit(self.items, self.purpose, dt.datetime.now(dt.UTC))
        except YiciError as error:
            return [problems.of(error, self.lang)] * len(questions)
        told: list[Told] = []
        for question in questions:
            try:
                told.append(answers.answered_now(engine, question))
            except YiciError as error:
                told.append(problems.of(error, self.lang))
        return told


async def _together(lanes: Lanes, bearer: Bearer, ready: Sequence[Asked]) -> list[list[Answered] | None]:
    """The answers, asked for once more where the store failed: what was stored and not heard stays stored beside them."""
    try:
        return await lanes.together(bearer, ready)
    except Exception as error:
        if store_failures.code_of(error) != store_failures.AWAY:
            raise
        return await lanes.together(bearer, ready)


async def _in_order(first: Callable[[], Awaitable[bytes]], others: Lines, count: int) -> AsyncGenerator[bytes]:
    """The lines of slice after slice; the next are decided while one waits for the store or is sent."""
    starts = iter(range(SLICE, count, SLICE))
    under_way = [asyncio.ensure_future(first())]
    under_way += [asyncio.ensure_future(others(start)) for start in itertools.islice(starts, AHEAD)]
    try:
        while under_way:
            lines = await under_way.pop(0)
            if (start := next(starts, None)) is not None:
                under_way.append(asyncio.ensure_future(others(start)))
            yield lines
    finally:
        for one in under_way:
            one.cancel()


async def _all(first: bytes, others: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(others):
        yield first
        async for lines in others:
            yield lines


def _offered(items: Sequence[str], caller: Any, now: dt.datetime) -> None:
    """Refuse at once what no subject could be answered about."""
    existing(tuple(items), caller)
    with database.engine().connect() as connection:
        for code in items:
            catalogue.find(connection, code, clock.today(now))


def _colons(subject: Subject) -> int:
    return (
        len(subject.model_fields_set) + len(subject.facts) + len(subject.roles) + subject.id.count(":")
        + sum([text.count(":") for text in subject.roles.values()])
    )  # fmt: skip


def _line(place: int, document: dict[str, Any]) -> bytes:
    return orjson.dumps({"subject": place, "problem": document}) + b"\n"
