"""``/v1/items``: the catalogue as far as the caller's agreement goes, its guides, and the feed of its changes.

Every read has an ETag and is as of a day: today in China, or ``?on=``.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BeforeValidator
from starlette.requests import Request

from connectors.errors import UsageError
from hub import catalogue, catalogue_changes, database, guides
from hub.agreements import Agreement
from hub.api import conditional, item_schemas, language
from hub.api.conditional import NOT_MODIFIED, Known
from hub.api.guard import Caller
from hub.api.responses import documented
from mappings.items import Item

router = APIRouter()
LARGEST = 500
LATEST = 2**63 - 1


def iso(given: object) -> object:
    """A date of a query in the one form that is understood."""
    if isinstance(given, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", given, re.ASCII):
        raise ValueError("not a date as ISO 8601 writes it")
    return given


On = Annotated[dt.date | None, BeforeValidator(iso), Query(description="The day, yyyy-mm-dd; today without it.")]


@router.get(
    "/v1/items",
    summary="List the items of the agreement",
    tags=["items"],
    responses={
        200: {"description": "Items", "content": {"application/json": {"schema": item_schemas.ITEMS}}},
        **NOT_MODIFIED,
        **documented(401, 403, 408, 413, 422, 429, 500, 503),
    },
    response_class=Response,
)
def list_items(
    request: Request,
    caller: Caller,
    on: On = None,
    after: Annotated[str, Query(max_length=80, description="`next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=LARGEST)] = 100,
    known: Known = None,
) -> Response:
    """Every item the caller may ask about, page by page, and on the first page every bundle of such items."""
    lang = language.of(request.headers)
    codes = [code for code in sorted(caller.items) if code > after]
    with database.engine().connect() as connection:
        found = catalogue.summaries(connection, codes[:limit], on or catalogue.today(), lang)
    whole = [] if after else [each for each in catalogue.bundled().values() if set(each.items) <= set(caller.items)]
    body = {
        "items": found,
        "bundles": [catalogue.bundle_summary(bundle, lang) for bundle in whole],
        "next": codes[limit - 1] if len(codes) > limit else None,
    }
    return conditional.json(body, known, lang)


@router.get(
    "/v1/items/changes",
    summary="Read the changes of the catalogue",
    tags=["items"],
    responses={
        200: {"description": "Changes", "content": {"application/json": {"schema": item_schemas.CHANGES}}},
        **NOT_MODIFIED,
        **documented(401, 403, 408, 413, 422, 429, 500, 503),
    },
    response_class=Response,
)
def changes(
    request: Request,
    caller: Caller,
    after: Annotated[int, Query(ge=0, le=LATEST)] = 0,
    limit: Annotated[int, Query(ge=1, le=catalogue_changes.LARGEST)] = catalogue_changes.LIMIT,
    known: Known = None,
) -> Response:
    """What was published after a position, each change once, also of items outside the agreement: the catalogue is public."""
    with database.engine().connect() as connection:
        page = catalogue_changes.page(connection, after, limit)
    return conditional.json(page, known, language.of(request.headers))


@router.get(
    "/v1/items/{code}",
    summary="Show one item",
    tags=["items"],
    responses={
        200: {
            "description": "An item with its requirements",
            "content": {"application/json": {"schema": item_schemas.ITEM}},
        },
        **NOT_MODIFIED,
        **documented(401, 403, 404, 408, 413, 422, 429, 500, 503),
    },
    response_class=Response,
)
def show_item(request: Request, code: str, caller: Caller, on: On = None, known: Known = None) -> Response:
    """Requirements, options, facts and roles of one item, in the version of the day."""
    lang = language.of(request.headers)
    with database.engine().connect() as connection:
        if code not in catalogue.published() and (listed := catalogue.listed(connection, code)):
            _agreed(caller, code)
            return conditional.json(catalogue.listed_summary(listed), known, lang)
    return conditional.json(catalogue.described(_version(caller, code, on), lang), known, lang)


@router.get(
    "/v1/items/{code}/guide",
    summary="Read the guide of an item",
    tags=["items"],
    responses={
        200: {
            "description": "The guide: a page that prints well, or the same as JSON",
            "content": {
                "application/json": {"schema": item_schemas.GUIDE},
                guides.HTML: {"schema": {"type": "string"}},
            },
        },
        **NOT_MODIFIED,
        **documented(401, 403, 404, 408, 413, 422, 429, 500, 503),
    },
    response_class=Response,
)
def guide(
    request: Request,
    code: str,
    caller: Caller,
    on: On = None,
    format: Annotated[Literal["html", "json"] | None, Query(description="Without it, by Accept.")] = None,
    known: Known = None,
) -> Response:
    """What an applicant has to know, in the version of the day: the same bytes as `yici items guide` writes."""
    lang = language.of(request.headers)
    item = _version(caller, code, on)
    kind = format or ("html" if prefers_html(request.headers.get("accept", "")) else "json")
    vary = "Accept, Accept-Language"
    if kind == "json":
        return conditional.answer(guides.json(item, lang), "application/json", known, lang, vary=vary)
    return conditional.answer(
        guides.html(item, lang), guides.HTML, known, lang, vary=vary, headers={"Content-Security-Policy": guides.POLICY}
    )


def _version(caller: Agreement, code: str, on: dt.date | None) -> Item:
    """The version of the day, once it is agreed; that there is no such item is said to everybody."""
    with database.engine().connect() as connection:
        if code in catalogue.published() or catalogue.listed(connection, code):
            _agreed(caller, code)
        return catalogue.find(connection, code, on or catalogue.today())


def _agreed(caller: Agreement, code: str) -> None:
    if code not in caller.items:
        raise UsageError("item-not-agreed", item=catalogue.shown(code))


def prefers_html(accept: str) -> bool:
    """Whether ``Accept`` weighs HTML above JSON."""
    weights: dict[str, float] = {}
    for part in accept[:500].split(","):
        kind, _, parameter = part.strip().partition(";")
        weights[kind.strip().lower()] = language.weight(parameter)
    html, json = (
        max(weights.get(kind, 0), weights.get(kind.split("/")[0] + "/*", 0), weights.get("*/*", 0))
        for kind in ("text/html", "application/json")
    )
    return html > json
