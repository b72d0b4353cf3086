"""Paging by token: each page names the token of the next, the last page names none.

What this asks of a server (the keys and parameters are named in source.yml):

* ``GET path?limit=n[&updated_since=moment]`` begins a reading of what was updated at or after that moment, earliest first;
  the same question with ``cursor=<next>`` goes on. A token stands for a place in that order, not for a page number: a
  record updated meanwhile moves to the end and comes again there, so nothing is missed. Two versions of a record in one
  reading are the rule then: ``duplicates: latest``.
* The last page may hold a ``resume`` token: ``GET path?limit=n&cursor=<resume>`` reads on from where this reading ended,
  whatever the clocks say. A token the server has forgotten is answered with 410 Gone: then the moment counts again.
* ``ETag``, if it sends one, stands for all its records and not for the page alone: any change of any record changes it. It
  comes back as ``If-None-Match`` with the first question of the next reading, and 304 says that nothing changed.

Cursor: ``{"watermark": the server's clock at the start, "etag": that of the first page, "resume": token}``, the latter two
only where the server gives them. The first page's, because what changes after it may not be in what was read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from connectors import restpages
from connectors.department import Again, Answer, Department
from connectors.errors import FatalError, RetriableError
from connectors.fetched import Cursor, Fetched, Progress
from connectors.landing import LandedFile, Landing
from connectors.restpages import Question, options_of
from connectors.source import Source

MOST_PAGES = 100_000
MOST_EMPTY = 100  # pages without a record, one after the other
LONGEST_TOKEN = 4096
GONE = 410

_list = msgspec.json.Decoder(list[msgspec.Raw])
_token = msgspec.json.Decoder(str | None)


@dataclass(frozen=True)
class Page:
    """One page as it came. ``next``: token of the page behind it; ``resume``: where a later reading goes on."""

    body: bytes
    records: int
    next: str | None
    resume: str | None
    etag: str | None
    digest: str


@dataclass
class Reading:
    """What was seen so far, as digests: a server that goes round in circles is found out."""

    source: Source
    pages: int = 0
    records: int = 0
    empty: int = 0
    seen: set[str] = field(default_factory=set)
    used: set[bytes] = field(default_factory=set)

    def judge(self, page: Page) -> None:
        """``Again`` when the page was there before or leads back to one."""
        number = self.pages + 1
        if page.records and page.digest in self.seen:
            raise Again(FatalError("rest-records-repeat", source=self.source.name, page=number))
        if page.next and _short(page.next) in self.used:
            raise Again(FatalError("rest-token-repeats", source=self.source.name, page=number))

    def take(self, page: Page) -> None:
        """FatalError ``rest-endless``: nobody needs so many pages, or so many without a record."""
        self.pages += 1
        self.records += page.records
        self.empty = 0 if page.records else self.empty + 1
        if page.records:
            self.seen.add(page.digest)
        if page.next:
            self.used.add(_short(page.next))
            if self.pages >= MOST_PAGES or self.empty >= MOST_EMPTY:
                raise FatalError("rest-endless", source=self.source.name, pages=self.pages, empty=self.empty)


def fetch(department: Department, cursor: Cursor | None, landing: Landing, progress: Progress | None = None) -> Fetched:
    """Lands every page of what changed since ``cursor``, each as it came; no page when the server says that nothing did.

    Errors as :func:`connectors.rest.fetch`.
    """
    source, options = department.source, options_of(department.source)
    department.log_in()
    watermark = restpages.clock(department)
    reading = Reading(source)
    question, page = _first(department, cursor, reading)
    request = {"path": options.path, "resumed": options.cursor_parameter in question}
    request |= {key: str(value) for key, value in question.items() if key != options.cursor_parameter}
    if page is None:
        return Fetched([], None, department.requests, {**request, "unchanged": True})
    etag = page.etag
    files: list[LandedFile] = []
    while True:
        reading.take(page)
        files.append(landing.put(page.body, f"{source.name}-{reading.pages:06d}.json"))
        if progress:
            progress(reading.records, None)
        if not page.next:
            break
        page = _following(department, {**question, options.cursor_parameter: page.next}, reading)
    kept = {"watermark": watermark.isoformat(), "etag": etag, "resume": page.resume}
    return Fetched(files, {key: value for key, value in kept.items() if value}, department.requests, request)


def one(department: Department) -> tuple[bytes, str]:
    """A page of one record, for a check, and how many there are at least."""
    options = options_of(department.source)
    page = department.get_unless(None, options.path, {options.size_parameter: 1}, _reader(Reading(department.source)))
    assert page is not None  # no ETag was sent
    return page.body, f"≥ {page.records}" if page.next else str(page.records)


def _first(department: Department, cursor: Cursor | None, reading: Reading) -> tuple[Question, Page | None]:
    """The question this reading asks, and its first page; None when nothing changed since ``cursor``."""
    source, options = department.source, options_of(department.source)
    known = cursor or {}
    question: Question = {options.size_parameter: options.page_size}
    read = _reader(reading)
    if resume := known.get("resume"):
        resumed: Question = {**question, options.cursor_parameter: str(resume)}
        try:
            return resumed, department.get_unless(known.get("etag"), options.path, resumed, read)
        except FatalError as error:
            if error.values.get("status") != GONE:
                raise
    if cursor:
        question[options.since_parameter] = restpages.since(source, cursor)
    return question, department.get_unless(known.get("etag"), options.path, question, read)


def _following(department: Department, question: Question, reading: Reading) -> Page:
    try:
        page = department.get_unless(None, options_of(department.source).path, question, _reader(reading))
    except FatalError as error:
        if error.values.get("status") == GONE:
            raise RetriableError("rest-token-gone", source=department.source.name, page=reading.pages + 1) from None
        raise
    assert page is not None  # no ETag was sent
    return page


def _reader(reading: Reading) -> Callable[[Answer], Page]:
    source, options = reading.source, options_of(reading.source)

    def read(answer: Answer) -> Page:
        parts = restpages.parts(source, answer.body)
        try:
            records = len(_list.decode(parts[options.records]))
            following, resume = (_token.decode(parts.get(key, b"null")) for key in (options.next, options.resume))
            if max(len(following or ""), len(resume or "")) > LONGEST_TOKEN:
                raise ValueError
        except (ValueError, KeyError):  # msgspec's own are ValueErrors
            raise FatalError(
                "rest-form", source=source.name, path=options.path, keys=f"{options.records}, {options.next}"
            ) from None
        digest = restpages.digest(parts[options.records])
        page = Page(answer.body, records, following or None, resume or None, answer.etag, digest)
        reading.judge(page)
        return page

    return read


def _short(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
