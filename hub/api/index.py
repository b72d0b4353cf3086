"""``GET /v1/index``: one page of the index feed, signed, for the peer that asks (docs/protocol.md)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from connectors.signature import MEDIA_TYPE
from hub import database, index_feed
from hub.api.guard import CallingPeer
from hub.api.responses import documented

router = APIRouter()
LATEST = 2**63 - 1
Position = Annotated[int, Query(ge=0, le=LATEST)]


@router.get(
    "/v1/index",
    summary="Read the index feed",
    tags=["peers"],
    responses={
        200: {
            "description": "A signed page: a compact JWS, described in docs/protocol.md",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
        },
        **documented(401, 403, 408, 413, 422, 500, 503),
    },
    response_class=Response,
)
def read(
    peer: CallingPeer,
    after: Position = 0,
    limit: Annotated[int, Query(ge=1, le=index_feed.LARGEST)] = index_feed.LIMIT,
    until: Annotated[int | None, Query(ge=0, le=LATEST)] = None,
) -> Response:
    """What was announced after a position, up to `limit` entries and not beyond `until`. Each page given is recorded."""
    with database.engine().begin() as connection:
        page = index_feed.page(connection, peer, after, limit, until)
    return Response(page.body, media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})
