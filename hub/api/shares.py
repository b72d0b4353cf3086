"""``/delta``: bulk shares over the open Delta Sharing protocol (docs/protocol/40-shares.md), for its stock clients.

Not among the OpenAPI operations: the protocol is described by others, and its errors have another form. The bearer token of
an agreement opens these addresses and nothing else, and no other token opens them.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import functools
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import sqlalchemy as sa
from anyio import to_thread
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from connectors.errors import UsageError
from hub import state
from hub.api import bodies
from hub.api.responses import Json
from hub.api.sharing import Asking, AskingShare, SharingRoute
from hub.clock import CHINA
from hub.exchange import share_files, share_lines, share_predicates, share_selection, share_versions
from hub.exchange.share_lines import Form
from hub.exchange.share_selection import Selection
from hub.exchange.share_versions import File, Version
from hub.exchange.shares import SCHEMA, Shared

router = APIRouter(prefix="/delta", route_class=SharingRoute, include_in_schema=False)

LINES = "application/x-ndjson; charset=utf-8"
CAPABILITIES = "delta-sharing-capabilities"
VERSION = "Delta-Table-Version"
LARGEST = 2**63 - 1  # what Arrow and PostgreSQL count to
LONGEST_MOMENT = 40
TABLE = "/shares/{share}/schemas/{schema}/tables/{table}"
_MOMENT = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{1,2}-[0-9]{1,2})[T ](?P<time>[0-9]{1,2}:[0-9]{2}:[0-9]{2})(?P<part>\.[0-9]{1,9})?"
    r"(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?"
)

Most = Annotated[int | None, Query(alias="maxResults", ge=0, le=2**31 - 1)]
Page = Annotated[str | None, Query(alias="pageToken", max_length=400)]
Number = Annotated[int | None, Query(ge=0, le=LARGEST)]
Moment = Annotated[str | None, Query(max_length=LONGEST_MOMENT)]
Count = Annotated[int | None, Field(ge=0, le=LARGEST)]


class Question(BaseModel):
    """The body of a query. What is not known here could mean anything, so it is refused; that an answer may come in parts
    (``maxFiles``) or be renewed (``includeRefreshToken``) changes nothing of what is in it. ``columns`` is ours."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    predicateHints: Annotated[list[str] | None, Field(max_length=100)] = None
    jsonPredicateHints: str | None = None
    limitHint: Count = None
    version: Count = None
    timestamp: Annotated[str | None, Field(max_length=LONGEST_MOMENT)] = None
    columns: Annotated[list[str] | None, Field(max_length=1000)] = None
    maxFiles: Count = None
    includeRefreshToken: bool | None = None


@router.get("/shares", name="list")
def list_shares(asked: AskingShare, most: Most = None, page: Page = None) -> Response:
    return _listed([{"name": asked.share.name, "id": asked.share.name}], most, page)


@router.get("/shares/{share}", name="list")
def get_share(asked: AskingShare, share: str) -> Response:
    _require(asked, share)
    return Json({"share": {"name": asked.share.name, "id": asked.share.name}}, headers=_PRIVATE)


@router.get("/shares/{share}/schemas", name="list")
def list_schemas(asked: AskingShare, share: str, most: Most = None, page: Page = None) -> Response:
    _require(asked, share)
    return _listed([{"name": SCHEMA, "share": asked.share.name}], most, page)


@router.get("/shares/{share}/schemas/{schema}/tables", name="list")
def list_tables(asked: AskingShare, share: str, schema: str, most: Most = None, page: Page = None) -> Response:
    _require(asked, share, schema)
    return _listed(_tables(asked), most, page)


@router.get("/shares/{share}/all-tables", name="list")
def list_all_tables(asked: AskingShare, share: str, most: Most = None, page: Page = None) -> Response:
    _require(asked, share)
    return _listed(_tables(asked), most, page)


@router.get(TABLE + "/version", name="version")
def version(asked: AskingShare, share: str, schema: str, table: str, startingTimestamp: Moment = None) -> Response:
    at = _moment(startingTimestamp)
    with state.snapshot() as connection:
        _, versions = _versions(connection, asked, share, schema, table)
    found = versions[-1] if at is None else share_versions.since(versions, at)
    asked.told.detail["version"] = found.number
    return Response(headers={VERSION: str(found.number), **_PRIVATE})


@router.get(TABLE + "/metadata", name="metadata")
def metadata(request: Request, asked: AskingShare, share: str, schema: str, table: str) -> Response:
    form = _form(request)
    with state.snapshot() as connection:
        known, versions = _versions(connection, asked, share, schema, table)
        files = share_versions.files(connection, asked.share, known, found := versions[-1])
    asked.told.detail["version"] = found.number
    return _lines(form, found, share_lines.head(form, asked.share, known, tuple(known.columns), found, files))


@router.post(TABLE + "/query", name="query")
async def query(request: Request, asked: AskingShare, share: str, schema: str, table: str) -> Response:
    """Cutting files is slow: few at once, so that it takes no thread from anybody else."""
    question = _question(await request.body())
    answer = functools.partial(_queried, request, asked, _form(request), question, (share, schema, table))
    return await to_thread.run_sync(answer, limiter=request.app.state.sharing)


def _queried(request: Request, asked: Asking, form: Form, question: Question, names: tuple[str, str, str]) -> Response:
    with state.snapshot() as connection:
        known, versions = _versions(connection, asked, *names)
        found = share_versions.chosen(versions, question.version, _moment(question.timestamp))
        files = share_versions.files(connection, asked.share, known, found)
    asked.told.detail["version"] = found.number
    hints = question.predicateHints or (), question.jsonPredicateHints
    wanted = Selection(
        share_selection.columns(known, question.columns),
        share_predicates.read(*hints, known.columns),
        question.limitHint,
    )
    asked.told.detail["columns"] = len(wanted.columns)
    if wanted.predicate is not None:
        asked.told.detail["where"] = sorted(share_predicates.named(wanted.predicate))
    if wanted.limit is not None:
        asked.told.detail["limit"] = wanted.limit
    chosen, cut = share_selection.selected(asked.share, known, files, wanted, asked.now)
    asked.told.detail |= {"files": len(chosen), "rows": sum(one.rows for one in chosen), "cut": cut}
    lines = share_lines.head(form, asked.share, known, wanted.columns, found, files)
    lines += share_lines.row_files(form, found, _addressed(request, asked, chosen), _expires(asked))
    return _lines(form, found, lines)


@router.get(TABLE + "/changes", name="changes")
def changes(
    request: Request, asked: AskingShare, share: str, schema: str, table: str,
    startingVersion: Number = None, startingTimestamp: Moment = None,
    endingVersion: Number = None, endingTimestamp: Moment = None,
) -> Response:  # fmt: skip
    form, starting, ending = _form(request), _moment(startingTimestamp), _moment(endingTimestamp)
    if (startingVersion is None) == (starting is None):
        raise UsageError("share-parameters")
    with state.snapshot() as connection:
        known, versions = _versions(connection, asked, share, schema, table)
        first = (
            share_versions.since(versions, starting) if starting else share_versions.chosen(versions, startingVersion)
        )
        last = share_versions.chosen(versions, endingVersion, ending)
        if last.number < first.number:
            raise UsageError("share-parameters")
        if first.whole and first.number:  # nothing leads to it from what the caller has
            raise UsageError("share-made-anew", version=first.number)
        found = share_versions.changes(connection, asked.share, known, versions, first.number, last.number)
    asked.told.detail |= {"version": first.number, "until": last.number, "files": len(found)}
    asked.told.detail["rows"] = sum(one.file.rows for one in found)
    addresses = (url for _, url in _addressed(request, asked, [one.file for one in found]))
    lines = share_lines.head(form, asked.share, known, tuple(known.columns), first)
    lines += share_lines.change_files(form, zip(found, addresses, strict=True), _expires(asked))
    return _lines(form, first, lines)


def _require(asked: Asking, share: str, schema: str = SCHEMA) -> None:
    """Names are those of the protocol: upper and lower case are the same."""
    if share.lower() != asked.share.name or schema.lower() != SCHEMA:
        raise UsageError("share-unknown")


def _versions(
    connection: sa.Connection, asked: Asking, share: str, schema: str, table: str
) -> tuple[Shared, list[Version]]:
    """The table, and its versions that are served. ``connection``: in one snapshot with what is read of them after."""
    _require(asked, share, schema)
    known = asked.share.tables.get(table.lower())
    if known is None:
        raise UsageError("share-table-unknown")
    asked.told.detail["table"] = known.name
    return known, share_versions.served(connection, asked.share, known)


def _tables(asked: Asking) -> list[dict[str, str]]:
    share = asked.share
    return [
        {
            "name": name,
            "schema": SCHEMA,
            "share": share.name,
            "shareId": share.name,
            "id": share_lines.table_id(share, table),
        }
        for name, table in sorted(share.tables.items())
    ]


def _listed(items: Sequence[dict[str, str]], most: int | None, page: str | None) -> Response:
    """One page of ``items``, which have names and rise by them. A page token is the name that the page before ended with."""
    after = _page(page)
    left = [item for item in items if after is None or item["name"] > after]
    given = left if most is None else left[:most]
    body: dict[str, Any] = {"items": given}
    if len(given) < len(left):
        last = given[-1]["name"] if given else after or ""
        body["nextPageToken"] = base64.urlsafe_b64encode(f"after:{last}".encode()).decode()
    return Json(body, headers=_PRIVATE)


def _page(token: str | None) -> str | None:
    if not token:
        return None
    try:
        kind, _, name = base64.b64decode(token, b"-_", validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        kind = name = ""
    if kind != "after":
        raise UsageError("share-parameters")
    return name


def _question(body: bytes) -> Question:
    try:
        return bodies.read(Question, body or b"{}")
    except (ValueError, UsageError):  # pydantic's is one
        raise UsageError("share-parameters") from None


def _moment(text: str | None) -> dt.datetime | None:
    """A time of the protocol or of its Python client; one without a zone is China's. UsageError ``share-time-invalid``."""
    if text is None:
        return None
    found = _MOMENT.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        day = dt.date(*map(int, found["date"].split("-")))
        hour, minute, second = map(int, found["time"].split(":"))
        micros = int((found["part"] or ".")[1:7].ljust(6, "0"))
        zone = found["zone"]
        offset = CHINA if zone is None else dt.datetime.strptime(zone, "%z").tzinfo
        return dt.datetime.combine(day, dt.time(hour, minute, second, micros), offset).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise UsageError("share-time-invalid") from None


def _form(request: Request) -> Form:
    """The form of the answer: ``parquet`` where the client takes it. UsageError ``share-format``."""
    said = dict(part.strip().partition("=")[::2] for part in request.headers.get(CAPABILITIES, "").lower().split(";"))
    wanted = [one.strip() for one in said.get("responseformat", "parquet").split(",")]
    forms: tuple[Form, ...] = ("parquet", "delta")
    for form in forms:
        if form in wanted:
            return form
    raise UsageError("share-format")


def _addressed(request: Request, asked: Asking, files: Iterable[File]) -> list[tuple[File, str]]:
    base = f"{str(request.base_url).rstrip('/')}{router.prefix}/files/"
    return [(one, base + share_files.address(asked.share, one.path, asked.now)) for one in files]


def _expires(asked: Asking) -> int:
    return round(share_files.end(asked.now).timestamp() * 1000)


def _lines(form: Form, found: Version, lines: Sequence[bytes]) -> Response:
    headers = {VERSION: str(found.number), CAPABILITIES: f"responseformat={form}", **_PRIVATE}
    return Response(b"".join(lines), media_type=LINES, headers=headers)


_PRIVATE = {"Cache-Control": "no-store"}
