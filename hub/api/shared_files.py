"""``/delta/files``: the bytes behind the signed addresses of a share, whole or a range of them (RFC 9110, 14)."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from connectors.errors import UsageError
from hub import database
from hub.api.sharing import AskingShare, SharingRoute, trying
from hub.exchange import share_files

router = APIRouter(prefix="/delta", route_class=SharingRoute, include_in_schema=False)

CHUNK = 1 << 20
MEDIA_TYPE = "application/vnd.apache.parquet"
_RANGE = re.compile(r"bytes=([0-9]{1,18})?-([0-9]{1,18})?")
Parameter = Annotated[str, Query(max_length=100)]


def signed(request: Request, agreement: str, path: str, until: Parameter = "", sig: Parameter = "") -> str:
    """The place in the landing zone of the file whose address was signed, while the agreement opens it."""
    now = dt.datetime.now(dt.UTC)
    with trying(request), database.engine().connect() as connection:
        share = share_files.admitted(connection, agreement, path, until, sig, now, request.state.told.about)
    return f"{share_files.folder(share.name)}/{path}"


@router.api_route("/files/{agreement}/{path:path}", methods=["GET", "HEAD"], name="file")
def read(request: Request, path: str, place: Annotated[str, Depends(signed)]) -> Response:
    told = request.state.told
    zone = share_files.zone()
    size = zone.size(place)
    if size is None:
        raise UsageError("share-file-gone")
    start, end = _asked(request.headers.get("range"), size)
    partial = (start, end) != (0, size)
    table, _, name = path.partition("/")
    told.detail |= {
        "file": name.rpartition("/")[2].removesuffix(".parquet"), "bytes": 0 if request.method == "HEAD" else end - start,
    }  # fmt: skip
    if table != share_files.ANSWERS:
        told.detail["table"] = table
    headers = {"Content-Length": str(end - start), "Accept-Ranges": "bytes", "Cache-Control": "no-store"}
    if partial:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    if request.method == "HEAD":
        return Response(status_code=206 if partial else 200, media_type=MEDIA_TYPE, headers=headers)

    stream = zone.open(place)

    def parts() -> Iterator[bytes]:
        with stream:
            stream.seek(start)
            left = end - start
            while left and (part := stream.read(min(CHUNK, left))):
                left -= len(part)
                yield part

    return StreamingResponse(parts(), 206 if partial else 200, headers, MEDIA_TYPE)


@router.api_route("/{rest:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"], name="other")
def other(asked: AskingShare, rest: str) -> Response:
    """What the protocol has and this hub does not."""
    raise UsageError("share-address-unknown")


def _asked(header: str | None, size: int) -> tuple[int, int]:
    """Which bytes are asked for: all where the header is none that is understood. UsageError ``share-range``."""
    found = _RANGE.fullmatch(header.replace(" ", "")) if header else None
    if found is None or found.groups() == (None, None):
        return 0, size
    first, last = found.groups()
    if first is None:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), size if last is None else min(size, int(last) + 1)
    if start >= end:
        raise UsageError("share-range", size=size)
    return start, end
