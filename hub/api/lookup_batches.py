"""``POST /v1/lookups/batch``: the same question about up to 1,000 subjects, answered as it goes, a line for each."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
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
from hub.api import bodies, language
from hub.api.guard import Caller, bearer_of
from hub.api.hot import Hot, in_force
from hub.api.lanes import LOST, Lanes
from hub.api.lookups import Answer, Plain, body_errors, existing
from hub.api.responses import documented, problem
from hub.home import KeyedHash, keyed_hash
from hub.tokens import Bearer
from mappings.items import FactValue, Item

MOST = 1000
SLICE = 100  # subjects in one statement: answers of the first are on their way while the next are decided
AHEAD = 3  # slices begun before the one that is sent next
LINES = "application/x-ndjson"

Lines = Callable[[int], Awaitable[bytes]]
"""The lines of the slice that begins at a place."""

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
    hashing = keyed_hash()

    async def slice_of(start: int) -> bytes:
        """The lines of one slice."""
        lanes = await hot.lanes_here()
        find = functools.cache(in_force)
        told: list[Asked | dict[str, Any]] = [
            _prepared(items, subject, bearer.client, purpose, lang, find, hashing)
            for subject in asked.subjects[start : start + SLICE]
        ]
        ready = [one for one in told if isinstance(one, Asked)]
        given = iter(await _together(lanes, bearer, ready)) if ready else iter(())
        lines = []
        for place, one in enumerate(told, start=start):
            if isinstance(one, Asked):
                found = next(given)
                if found is None:  # the agreement ended meanwhile
                    lines.append(_line(place, problems.document("agreement-ended", lang)))
                    continue
                hot.metrics.decided(found)
                bodies = b",".join([each.body for each in found])
                lines.append(b'{"subject":%d,"answers":[%s]}\n' % (place, bodies))
            else:
                lines.append(_line(place, one))
        return b"".join(lines)

    async def line_by_line(start: int) -> bytes:
        """The lines of a slice behind the first: where the store is away each subject is told so."""
        try:
            return await slice_of(start)
        except LOST:
            away = problems.document("store-unavailable", lang)
            return b"".join(_line(place, away) for place in range(start, min(start + SLICE, len(asked.subjects))))

    slices = _in_order(slice_of, line_by_line, len(asked.subjects))
    try:  # the first slice decides whether this can be answered at all
        first = await anext(slices)
    except LOST:
        return problem("store-unavailable", lang)
    return StreamingResponse(
        _all(first, slices),
        media_type=LINES,
        headers={"Content-Language": lang, "Cache-Control": "no-store"},
    )


async def _together(lanes: Lanes, bearer: Bearer, ready: Sequence[Asked]) -> list[list[Answered] | None]:
    """The answers, asked for once more where the connection was lost: what was stored and not heard stays stored beside them."""
    try:
        return await lanes.together(bearer, ready)
    except LOST:
        return await lanes.together(bearer, ready)


async def _in_order(first: Lines, others: Lines, count: int) -> AsyncGenerator[bytes]:
    """The lines of slice after slice; the next are decided while one waits for the store or is sent."""
    starts = iter(range(SLICE, count, SLICE))
    under_way = [asyncio.ensure_future(first(0))]
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


def _prepared(
    items: tuple[str, ...],
    subject: Subject,
    client: str,
    purpose: str,
    lang: Language,
    find: Callable[[str, dt.date], Item],
    hashing: KeyedHash,
) -> Asked | dict[str, Any]:
    """The question about one subject, or the problem with it."""
    try:
        if subject.case is not None and mentions.names_somebody(subject.case):
            raise UsageError("case-names-somebody")
        question = Question(items, subject.id, client, purpose, subject.facts, subject.roles, subject.case, None, lang)
        return answers.prepare(question, dt.datetime.now(dt.UTC), find, hashing)
    except YiciError as error:
        return problems.of(error, lang)


def _colons(subject: Subject) -> int:
    return (
        len(subject.model_fields_set) + len(subject.facts) + len(subject.roles) + subject.id.count(":")
        + sum([text.count(":") for text in subject.roles.values()])
    )  # fmt: skip


def _line(place: int, document: dict[str, Any]) -> bytes:
    return orjson.dumps({"subject": place, "problem": document}) + b"\n"
