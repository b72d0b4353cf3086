"""A paged REST interface, asked for what changed between two moments.

The server sorts by watermark, then by id. The upper bound is the server's own clock at the start, so that pages stay put
while they are read; cursor: ``{"watermark": that moment}``. A record updated meanwhile leaves the window and everything
behind it moves up: the total shrinks, and the pages it may have moved out of are read again.
"""

from __future__ import annotations

import codecs
import datetime as dt
import hashlib
import math
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

from connectors.connections import Connection
from connectors.department import Again, Department
from connectors.errors import FatalError, RetriableError, YiciError
from connectors.fetched import Cursor, Diagnosis, Fetched, Progress, columns_expected, failed
from connectors.landing import LandedFile, Landing
from connectors.source import RestOptions, Source

STEPS_BACK = 100

_envelope = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list = msgspec.json.Decoder(list[msgspec.Raw])
_keys = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


@dataclass(frozen=True)
class Page:
    """One page as it came: how many records it holds, how many the whole answer has, the size of a full page."""

    body: bytes
    records: int
    total: int
    size: int
    digest: str


def fetch(
    source: Source, connection: Connection, cursor: Cursor | None, landing: Landing, progress: Progress | None = None
) -> Fetched:
    """Lands every page of what changed since ``cursor``, each as it came.

    RetriableError when the server does not answer, is busy or answers rubbish to every try; FatalError when it refuses
    or its answers contradict each other.
    """
    options = _options(source)
    with Department(source, connection) as department:
        department.log_in()
        until = (department.clock or dt.datetime.now(dt.UTC)).replace(microsecond=0)
        window: dict[str, str | int] = {
            options.until_parameter: _written(until),
            options.size_parameter: options.page_size,
        }
        if cursor:
            since = dt.datetime.fromisoformat(cursor["watermark"]) - options.overlap
            window[options.since_parameter] = _written(since)
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


def _get(department: Department, window: dict[str, str | int], number: int, previous: Page | None) -> Page:
    options = department.options
    parameters = {**window, options.page_parameter: number}
    return department.get(options.path, parameters, _reader(department.source, number, previous))


def _reader(source: Source, number: int, previous: Page | None) -> Callable[[bytes], Page]:
    options = _options(source)

    def read(body: bytes) -> Page:
        try:
            parts = _parts(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            code = "rest-html" if body.lstrip()[:1] == b"<" else "rest-not-json"
            raise Again(RetriableError(code, source=source.name, path=options.path)) from None
        try:
            records = _list.decode(parts[options.records])
            total = msgspec.json.decode(parts[options.total], type=int)
            size = msgspec.json.decode(parts.get(options.size_parameter, b"0"), type=int) or options.page_size
            told = msgspec.json.decode(parts.get(options.page_parameter, b"0"), type=int) or number
        except (msgspec.DecodeError, KeyError):
            raise FatalError(
                "rest-form", source=source.name, path=options.path, keys=f"{options.records}, {options.total}"
            ) from None
        expected = max(0, min(size, total - (number - 1) * size))
        if size < 1 or told != number or len(records) != expected:
            raise Again(
                FatalError("rest-page-count", source=source.name, page=number, expected=expected, records=len(records))
            )
        digest = hashlib.sha256(bytes(parts[options.records])).hexdigest()
        if previous and records and digest == previous.digest:
            raise Again(FatalError("rest-page-repeats", source=source.name, page=number))
        return Page(body, len(records), total, size, digest)

    return read


def check(source: Source, connection: Connection) -> list[Diagnosis]:
    """Name, port, certificate, login, one record, its columns; stops at the first that fails."""
    steps: list[Diagnosis] = []
    step = "name"
    try:
        host, port, secure = _address(connection)
        addresses = _resolved(source, host, port)
        steps.append(Diagnosis(step, True, f"{host}: {addresses}"))
        step = "port"
        with _dialled(source, host, port) as wire:
            steps.append(Diagnosis(step, True, f"{host}:{port}"))
            if secure:
                step = "certificate"
                steps.append(Diagnosis(step, True, _secured(source, connection, wire, host)))
        step = "login"
        page = _one_record(source, connection, steps)
        step = "record"
        found = _found(source, page)
    except YiciError as error:
        done = steps[-1].step if steps else ""
        return [*steps, failed("record" if done == "login" else step, error)]
    steps.append(Diagnosis("record", True, f"{page.total}"))
    return [*steps, columns_expected(source, found)] if found else steps


def _parts(body: bytes) -> dict[str, msgspec.Raw]:
    return _envelope.decode(body.removeprefix(codecs.BOM_UTF8))  # some servers send the mark although JSON has none


def _found(source: Source, page: Page) -> list[str]:
    options = _options(source)
    try:
        records = _keys.decode(_parts(page.body)[options.records])
    except msgspec.DecodeError:
        raise FatalError("rest-form", source=source.name, path=options.path, keys=options.records) from None
    return list(dict.fromkeys(key for record in records for key in record))


def _one_record(source: Source, connection: Connection, steps: list[Diagnosis]) -> Page:
    options = _options(source)
    with Department(source, connection) as department:
        department.log_in()
        steps.append(Diagnosis("login", True, connection.username or "-"))
        until = _written(department.clock or dt.datetime.now(dt.UTC))
        return _get(department, {options.until_parameter: until, options.size_parameter: 1}, 1, None)


def _options(source: Source) -> RestOptions:
    assert isinstance(source.options, RestOptions)
    return source.options


def _written(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _address(connection: Connection) -> tuple[str, int, bool]:
    try:
        url = urlsplit(connection.url)
        scheme, host, port = url.scheme, url.hostname, url.port
    except ValueError:  # a port beyond 65535, a bracket never closed
        scheme, host, port = "", None, None
    if scheme not in ("http", "https") or not host:
        raise FatalError("rest-address", connection=connection.name)
    secure = scheme == "https"
    return host, port or (443 if secure else 80), secure


def _resolved(source: Source, host: str, port: int) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # the latter for a name that no name server could hold
        raise RetriableError("host-unknown", source=source.name, host=host) from None
    return ", ".join(sorted({str(entry[4][0]) for entry in found}))


def _dialled(source: Source, host: str, port: int) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout=_options(source).connect_seconds)
    except OSError as error:
        raise RetriableError(
            "port-closed", source=source.name, host=host, port=port, reason=type(error).__name__
        ) from None


def _secured(source: Source, connection: Connection, wire: socket.socket, host: str) -> str:
    try:
        context = ssl.create_default_context(cafile=connection.extra.get("ca_file"))
        with context.wrap_socket(wire, server_hostname=host) as secured:
            return secured.version() or "TLS"
    except OSError as error:  # ssl.SSLError is one
        reason = getattr(error, "verify_message", "") or type(error).__name__
        raise FatalError("certificate-refused", source=source.name, host=host, reason=reason) from None
