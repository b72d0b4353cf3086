"""The index feed of a partner hub (docs/protocol.md, protocol v0), read page by page up to where it stood at the start.

Cursor: ``{"epoch", "position", "materials", "regions"}``. Every page is verified before it lands: its signature, that it is the partner's, for us,
fresh, and goes on exactly where we asked. In a new epoch all ids are new ones, so the feed is read again from 0.
"""

from __future__ import annotations

import datetime as dt

import pyarrow.compute as pc

from connectors import indexpages, reach
from connectors.connections import Connection
from connectors.department import Department
from connectors.errors import FatalError, RetriableError, YiciError
from connectors.fetched import Cursor, Diagnosis, Fetched, Progress, failed
from connectors.indexpages import Page, Terms
from connectors.landing import LandedFile, Landing
from connectors.source import HubOptions, Source

PATH = "/v1/index"
SKEW = dt.timedelta(minutes=10)  # a page made longer ago, by our clock, may be an old one played again


def fetch(
    source: Source, connection: Connection, cursor: Cursor | None, landing: Landing, progress: Progress | None = None
) -> Fetched:
    """Lands what was announced since ``cursor``, each page as it came.

    FatalError when a page is not what the protocol promises; from then on nothing lands and nothing is merged.
    RetriableError when the partner does not answer, or changed its epoch while we were reading.
    """
    options, agreed = _options(source), indexpages.terms(connection)
    files: list[LandedFile] = []
    with Department(source, connection) as department:
        department.log_in()
        body, page = _first(department, source, agreed, cursor)
        start, until = page, max(page.head, page.to)
        while True:
            files.append(landing.put(body, f"{source.name}-{page.epoch}-{page.after:012d}.jws"))
            if progress:
                progress(page.to - start.after, until - start.after)
            if page.to >= until:
                break
            body, following = _page(department, source, agreed, page.to, until)
            if following.epoch != start.epoch:
                raise RetriableError("index-epoch-changed", source=source.name)
            if following.head < page.head or following.to == page.to:
                raise FatalError("index-page-order", source=source.name, after=page.to)
            page = following
    request = {"path": PATH, "epoch": start.epoch, "after": start.after, "until": until, "limit": options.page_size}
    # What may be announced is kept with the position: of that, silence means that there is none.
    scope = {"materials": list(start.materials), "regions": list(start.regions)}
    return Fetched(files, {"epoch": start.epoch, "position": until, **scope}, department.requests, request)


def check(source: Source, connection: Connection) -> list[Diagnosis]:
    """Name, port, certificate, login, one signed page, what it announces, the clocks; stops at the first that fails."""
    steps = list(reach.steps(source, connection, _options(source).connect_seconds))
    if not all(step.ok for step in steps):
        return steps
    step = "agreement"
    try:
        agreed = indexpages.terms(connection)
        steps.append(Diagnosis(step, True, f"{agreed.hub} → {agreed.peer}"))
        with Department(source, connection) as department:
            step = "login"
            department.log_in()
            steps.append(Diagnosis(step, True, agreed.peer))
            step = "signature"
            _, page = _page(department, source, agreed, 0, None, limit=1, fresh=False)
    except YiciError as error:
        return [*steps, failed(step, error)]
    steps.append(Diagnosis(step, True, ", ".join(key.thumbprint() for key in agreed.keys)))
    announced = f"{page.hub} {', '.join(page.regions) or page.region}: {', '.join(page.materials) or '-'}"
    steps.append(Diagnosis("announced", True, f"{announced}; epoch {page.epoch}, {page.head}"))
    try:
        _require_fresh(source, page)
    except FatalError as error:
        return [*steps, failed("clock", error)]
    return [*steps, Diagnosis("clock", True, f"{_ahead(page):+.1f} s")]


def _first(department: Department, source: Source, agreed: Terms, cursor: Cursor | None) -> tuple[bytes, Page]:
    """The page to begin with: after the cursor, or after 0 when the partner's epoch is a new one."""
    position = int(cursor["position"]) if cursor else 0
    body, page = _page(department, source, agreed, position, None)
    if cursor and page.epoch != cursor["epoch"]:
        if page.epoch < cursor["epoch"]:
            raise FatalError("index-epoch-back", source=source.name, found=page.epoch, known=cursor["epoch"])
        return _page(department, source, agreed, 0, None) if position else (body, page)
    if page.head < position:
        raise FatalError("index-head-back", source=source.name, found=page.head, known=position)
    return body, page


def _page(
    department: Department,
    source: Source,
    agreed: Terms,
    after: int,
    until: int | None,
    limit: int | None = None,
    fresh: bool = True,
) -> tuple[bytes, Page]:
    """One page that may be landed: opened, and judged against what was asked for."""
    parameters: dict[str, str | int] = {"after": after, "limit": limit or _options(source).page_size}
    if until is not None:
        parameters["until"] = until

    def read(body: bytes) -> tuple[bytes, Page]:
        page = indexpages.opened(body, agreed, source.name)
        if page.region != source.region:
            raise FatalError("index-page-foreign", file=source.name, what="region", expected=source.region)
        if fresh:
            _require_fresh(source, page)
        if page.restated or page.after != after or (until is not None and page.to > until):
            raise FatalError("index-page-order", source=source.name, after=after)
        if after <= page.head:  # behind our cursor its other positions mean nothing: the caller decides
            _require_order(source, page)
        return body, page

    return department.get(PATH, parameters, read)


def _require_fresh(source: Source, page: Page) -> None:
    if abs(_ahead(page)) > SKEW.total_seconds():
        raise FatalError(
            "index-page-stale", source=source.name, issued_at=page.issued_at.isoformat(), seconds=round(_ahead(page))
        )


def _ahead(page: Page) -> float:
    """Seconds by which the partner's clock is ahead of ours, the way of the page included."""
    return (page.issued_at - dt.datetime.now(dt.UTC)).total_seconds()


def _require_order(source: Source, page: Page) -> None:
    """The page goes on from where it says, its entries lie within, each later than the one before."""
    positions = indexpages.positions(indexpages.block(page, source.name))
    steps = pc.subtract(positions.slice(1), positions.slice(0, max(len(positions) - 1, 0)))
    within = not len(positions) or (positions[0].as_py() > page.after and positions[-1].as_py() <= page.to)
    rising = not len(steps) or pc.min(steps).as_py() > 0
    if not (page.after <= page.to <= page.head and within and rising):
        raise FatalError("index-page-order", source=source.name, after=page.after)


def _options(source: Source) -> HubOptions:
    assert isinstance(source.options, HubOptions)
    return source.options
