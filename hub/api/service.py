"""``/healthz``: the process lives. ``/readyz``: it can answer now. ``/metrics``: what it did. All public, none tells more."""

from __future__ import annotations

import functools

import sqlalchemy as sa
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from connectors.errors import FatalError
from hub import catalogue, catalogue_standing, database
from hub.api.metrics import CONTENT_TYPE
from hub.api.responses import Json, documented

router = APIRouter()
_OK = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["alive", "ready"]},
        "catalogue": {"type": "string", "description": "SHA-256 of the catalogue that the process has loaded."},
    },
    "required": ["status", "catalogue"],
}
_200 = {"description": "Yes", "content": {"application/json": {"schema": _OK}}}


@router.get("/healthz", summary="Is the process alive", tags=["service"], responses={200: _200}, response_class=Json)
async def healthz() -> Response:
    """Answers as long as the process runs, whatever the database does."""
    return _yes("alive")


@router.get(
    "/readyz",
    summary="Can it answer lookups",
    tags=["service"],
    responses={200: _200, **documented(503)},
    response_class=Json,
)
def readyz() -> Response:
    """Asks the database: that its tables are of this version, and that this process has loaded what was published."""
    with database.engine().connect() as connection:
        if connection.scalar(sa.text("SELECT version_num FROM alembic_version")) != _head():
            raise FatalError("store-not-migrated")
        standing = catalogue_standing.standing(connection)
    if standing != "published":
        raise FatalError("catalogue-behind" if standing == "behind" else "catalogue-unpublished")
    return _yes("ready")


def _yes(status: str) -> Response:
    return Json({"status": status, "catalogue": catalogue.digest()}, headers={"Cache-Control": "no-store"})


@router.get(
    "/metrics",
    summary="Counters in Prometheus format",
    tags=["service"],
    responses={200: {"description": "Counters", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    response_class=Response,
)
def metrics(request: Request) -> Response:
    """Lookups by disposition, requests by route; runs, rows by state and freshness against promise. No identifiers."""
    return Response(request.app.state.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


@functools.cache
def _head() -> str | None:
    """The newest revision that this version knows."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "hub:migrations")
    return ScriptDirectory.from_config(config).get_current_head()
