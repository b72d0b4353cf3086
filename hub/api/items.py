"""``GET /v1/items``: the catalogue, as far as the caller's agreement goes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from starlette.requests import Request

from connectors.errors import UsageError
from hub import catalogue, database
from hub.api import language
from hub.api.guard import Caller
from hub.api.responses import Json, documented

router = APIRouter()

_SUMMARY: dict[str, Any] = {
    "item": {"type": "string"},
    "item_name": {"type": "string"},
    "region": {"type": ["string", "null"]},
    "requirements_published": {"type": "boolean"},
}
_ITEM = {"type": "object", "properties": _SUMMARY, "required": list(_SUMMARY)}
_BUNDLED: dict[str, Any] = {
    "bundle": {"type": "string"},
    "bundle_name": {"type": "string"},
    "items": {"type": "array", "items": {"type": "string"}},
}
_BUNDLE = {"type": "object", "properties": _BUNDLED, "required": list(_BUNDLED)}
_ITEMS = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": _ITEM}, "bundles": {"type": "array", "items": _BUNDLE}},
    "required": ["items", "bundles"],
}


@router.get(
    "/v1/items",
    summary="List the items of the agreement",
    tags=["items"],
    responses={
        200: {"description": "Items", "content": {"application/json": {"schema": _ITEMS}}},
        **documented(401, 403, 408, 413, 500, 503),
    },
    response_class=Json,
)
def list_items(request: Request, caller: Caller) -> Response:
    """Every item the caller may ask about, and every bundle of such items."""
    lang = language.of(request.headers)
    found = []
    with database.engine().connect() as connection:
        for code in sorted(caller.items):
            if item := catalogue.published().get(code):
                found.append(catalogue.summary(item, lang))
            elif listed := catalogue.listed(connection, code):
                found.append(catalogue.listed_summary(listed))
    whole = [bundle for bundle in catalogue.bundled().values() if set(bundle.items) <= set(caller.items)]
    bundles = [catalogue.bundle_summary(bundle, lang) for bundle in whole]
    return Json({"items": found, "bundles": bundles}, headers={"Content-Language": lang, "Vary": "Accept-Language"})


@router.get(
    "/v1/items/{code}",
    summary="Show one item",
    tags=["items"],
    responses={
        200: {"description": "An item with its requirements", "content": {"application/json": {"schema": _ITEM}}},
        **documented(401, 403, 404, 408, 413, 422, 500, 503),
    },
    response_class=Json,
)
def show_item(request: Request, code: str, caller: Caller) -> Response:
    """Requirements, options, facts and roles of one item."""
    lang = language.of(request.headers)
    item = catalogue.published().get(code)
    listed = None
    if item is None:
        with database.engine().connect() as connection:
            listed = catalogue.listed(connection, code)
        if listed is None:
            raise UsageError("item-unknown", item=catalogue.shown(code))
    if code not in caller.items:
        raise UsageError("item-not-agreed", item=catalogue.shown(code))
    body = catalogue.described(item, lang) if item else catalogue.listed_summary(listed)  # type: ignore[arg-type]
    return Json(body, headers={"Content-Language": lang, "Vary": "Accept-Language"})
