"""Paging by number: the server sorts by watermark, then by id, and says how many records there are in all.

The upper bound is the server's own clock at the start, so that pages stay put while they are read; cursor:
``{"watermark": that moment}``. A record updated meanwhile leaves the window and everything behind it moves up: the total
shrinks, and the pages it may have moved out of are read again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from connectors import restpages
from connectors.department import Again, Department
from connectors.errors import FatalError, RetriableError
from connectors.fetched import Cursor, Fetched, Progress
from connectors.landing import LandedFile, Landing
from connectors.restpages import Question, options_of
from connectors.source import Source

STEPS_BACK = 100

_list = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True)
class Page:
    """One page as it came: how many records it holds, how many the whole answer has, the size of a full page."""

    body: bytes
    records: int
    total: int
    size: int
    digest: str


def fetch(department: Department, cursor: Cursor | None, landing: Landing, progress: Progress | None = None) -> Fetched:
    """Lands every page of what changed since ``cursor``, each as it came. Errors as :func:`connectors.rest.fetch`."""
    source, options = department.source, options_of(department.source)
    department.log_in()
    until = restpages.clock(department)
    window: Question = {options.until_parameter: restpages.written(until), options.size_parameter: options.page_size}
    if cursor:
        window[options.since_parameter] = restpages.since(source, cursor)
    files: list[LandedFile] = []
    number, steps_back = 1, 0
    previous: Page | None = None
    while True:
        page = _get(department, window, number, previous)
        files.append(landing.put(page.body, f"{source.name}-{len(files) + 1:06d}.json"))
        if previous and page.total < previous.total and number > 1:
            steps_back += 1
            if steps_back > STEPS_BACK:
                raise RetriableError("rest-changing", source=source.name)
            number = max(1, number - math.ceil((previous.total - page.total) / page.size))
            previous = Page(b"", 0, page.total, page.size, "")
            continue
        if progress:
            progress(min(number * page.size, page.total), page.total)
        if number * page.size >= page.total:
            break
        number, previous = number + 1, page
    request = {"path": options.path, **{key: str(value) for key, value in window.items()}}
    return Fetched(files, {"watermark": until.isoformat()}, department.requests, request)


def one(department: Department) -> tuple[bytes, str]:
    """A page of one record, for a check, and how many there are."""
    options = options_of(department.source)
    until = restpages.written(restpages.clock(department))
    page = _get(department, {options.until_parameter: until, options.size_parameter: 1}, 1, None)
    return page.body, str(page.total)


def _get(department: Department, window: Question, number: int, previous: Page | None) -> Page:
    options = options_of(department.source)
    parameters = {**window, options.page_parameter: number}
    return department.get(options.path, parameters, _reader(department.source, number, previous))


def _reader(source: Source, number: int, previous: Page | None) -> Callable[[bytes], Page]:
    options = options_of(source)

    def read(body: bytes) -> Page:
        parts = restpages.parts(source, body)
        try:
            records = len(_list.decode(parts[options.records]))
            total = msgspec.json.decode(parts[options.total], type=int)
            size = msgspec.json.decode(parts.get(options.size_parameter, b"0"), type=int) or options.page_size
            told = msgspec.json.decode(parts.get(options.page_parameter, b"0"), type=int) or number
        except (msgspec.DecodeError, KeyError):
            raise FatalError(
                "rest-form", source=source.name, path=options.path, keys=f"{options.records}, {options.total}"
            ) from None
        expected = max(0, min(size, total - (number - 1) * size))
        if size < 1 or told != number or records != expected:
            raise Again(
                FatalError("rest-page-count", source=source.name, page=number, expected=expected, records=records)
            )
        digest = restpages.digest(parts[options.records])
        if previous and records and digest == previous.digest:
            raise Again(FatalError("rest-page-repeats", source=source.name, page=number))
        return Page(body, records, total, size, digest)

    return read
