"""The wire to a department's REST interface: token, deadlines, retries, rate; knows nothing of pages.

A request is repeated when repeating may help, with growing pauses and jitter or as long as ``Retry-After`` says. Redirects
are not followed, so the token never goes to another host. One thread uses one :class:`Department`; nothing is shared.
"""

from __future__ import annotations

import datetime as dt
import http.client
import io
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote_plus, urlsplit

import msgspec
import requests
from requests.adapters import HTTPAdapter
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential
from urllib3 import exceptions as urllib3_errors

from connectors.connections import Connection
from connectors.errors import FatalError, RetriableError, YiciError
from connectors.pace import Pace
from connectors.source import RestOptions, Source

Parsed = TypeVar("Parsed")
LONGEST_PAUSE = 30.0
PIECE = 65536  # bytes asked for at once
ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e\x80-\xff]{0,500}"')  # RFC 9110, 8.8.3; a longer one is left unused


class Again(Exception):
    """This answer is no good, another try may be; ``error`` is raised when the tries are used up."""

    def __init__(self, error: YiciError, after: float | None = None) -> None:
        super().__init__(error.code)
        self.error, self.after = error, after


@dataclass(frozen=True)
class Answer:
    """What a server said. ``etag``: its name for what it answered with, when it gives one."""

    status: int
    body: bytes
    etag: str | None


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float = 300


class _Wire(io.RawIOBase):
    """A socket as http.client wants it, read against a deadline: a time-out alone begins anew with every byte."""

    def __init__(self, connected: socket.socket, silence: float, ends: float) -> None:
        self._socket, self._silence, self._ends = connected, silence, ends
        self._raw = connected.makefile("rb", buffering=0)

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(min(left, self._silence))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Adapter(HTTPAdapter):
    """Reads every answer, from its first header on, before ``ends`` (monotonic seconds)."""

    def __init__(self, silence: float) -> None:
        super().__init__()
        self.silence, self.ends = silence, 0.0

    def get_connection_with_tls_context(self, *arguments: Any, **named: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*arguments, **named)
        if "ConnectionCls" not in vars(pool):
            kind = pool.ConnectionCls

            def connection(**options: Any) -> Any:
                made = kind(**options)
                made.response_class = self._response
                return made

            pool.ConnectionCls = connection
        return pool

    def _response(self, connected: socket.socket, *arguments: Any, **named: Any) -> http.client.HTTPResponse:
        timed: Any = _Wire(connected, self.silence, self.ends)
        return http.client.HTTPResponse(timed, *arguments, **named)


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: else requests reads the whole body of a redirect, of any size, even when it is not to follow it."""


class Department:
    """One session with the server of ``source``; use as a context manager."""

    def __init__(self, source: Source, connection: Connection) -> None:
        assert isinstance(source.options, RestOptions)
        self.source, self.options, self.connection = source, source.options, connection
        self.base = connection.url.rstrip("/")
        self.requests = 0
        self.clock: dt.datetime | None = None
        self._token, self._token_ends = "", 0.0
        self._pace = Pace(self.options.requests_per_second)
        self._adapter = _Adapter(self.options.read_seconds)
        self._session = _Session()
        self._session.trust_env = False  # a proxy meant for the internet must not see this
        self._session.verify = connection.extra.get("ca_file") or True
        if proxy := connection.extra.get("proxy"):
            self._session.proxies = {"all": proxy}
        self._session.headers.update({"user-agent": "yici", "accept": "application/json"})
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def get(self, path: str, parameters: dict[str, str | int], read: Callable[[bytes], Parsed]) -> Parsed:
        """What ``read`` makes of the body; ``read`` raises :class:`Again` for a body that another try may better."""
        return self._repeated(lambda: read(self._answer(path, parameters, None).body))

    def get_unless(
        self, etag: str | None, path: str, parameters: dict[str, str | int], read: Callable[[Answer], Parsed]
    ) -> Parsed | None:
        """As :meth:`get`, but None when the server says that it is still as it was under ``etag``."""

        def once() -> Parsed | None:
            answer = self._answer(path, parameters, etag)
            return None if answer.status == 304 else read(answer)

        return self._repeated(once)

    def _answer(self, path: str, parameters: dict[str, str | int], etag: str | None) -> Answer:
        """Status 200, or 304 where ``etag`` was sent; the token is renewed once when it is refused."""
        for renewed in (False, True):
            bearer = f"Bearer {self._authorise()}".encode()  # bytes: http.client refuses text beyond Latin-1
            headers: dict[str, str | bytes] = {"authorization": bearer}
            if etag:
                headers["if-none-match"] = etag
            answer = self._send("GET", self.base + path, params=parameters, headers=headers)
            if answer.status != 401 or renewed:
                break
            self._token = ""
        if answer.status == 401:
            raise self._fatal("rest-unauthorised")
        if answer.status == 403:
            raise self._fatal("rest-forbidden", path=path)
        if answer.status != 200 and not (answer.status == 304 and etag):
            raise self._fatal("rest-status", status=answer.status, path=path)
        return answer

    def log_in(self) -> None:
        """Gets a token, and with it the server's clock."""
        self._repeated(self._authorise)

    def _authorise(self) -> str:
        if self._token and time.monotonic() < self._token_ends:
            return self._token
        name, secret = self.connection.username or "", self.connection.password or ""
        form = {"grant_type": "client_credentials"}
        if self.options.scope:
            form["scope"] = self.options.scope
        basic = self.options.client_authentication == "basic"
        if not basic:
            form |= {"client_id": name, "client_secret": secret}
        answer = self._send(
            "POST",
            self.connection.extra.get("token_url") or self.base + self.options.token_path,
            data=form,
            # RFC 6749, 2.3.1: both are form-encoded before they are joined
            **({"auth": (quote_plus(name), quote_plus(secret))} if basic else {}),
        )
        if answer.status in (400, 401, 403):
            raise self._fatal("rest-login", connection=self.connection.name)
        if answer.status != 200:
            raise self._fatal("rest-status", status=answer.status, path=self.options.token_path)
        try:
            token = msgspec.json.decode(answer.body, type=_Token, strict=False)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Again(
                RetriableError("rest-not-json", source=self.source.name, path=self.options.token_path)
            ) from None
        self._token = token.access_token
        # renewed a little early: an expiry on the way would cost a request
        self._token_ends = time.monotonic() + token.expires_in * 0.9
        return self._token

    def _send(self, method: str, url: str, **arguments: Any) -> Answer:
        """One request within its deadline, however slowly the bytes drip. Raises :class:`Again` or an error."""
        self._pace.wait()
        self.requests += 1
        options = self.options
        self._adapter.ends = time.monotonic() + options.request_seconds
        patience = (min(options.connect_seconds, options.request_seconds), options.read_seconds)
        try:
            with self._session.request(
                method, url, timeout=patience, stream=True, allow_redirects=False, **arguments
            ) as response:
                self._judge(response)
                body = bytearray()
                while piece := response.raw.read1(PIECE, decode_content=True):
                    body += piece
                    if len(body) > options.page_bytes:
                        raise self._fatal("rest-page-too-big", bytes=options.page_bytes)
                return Answer(response.status_code, bytes(body), _etag(response.headers.get("etag")))
        except (requests.Timeout, urllib3_errors.TimeoutError):
            raise Again(RetriableError("rest-slow", source=self.source.name, seconds=options.request_seconds)) from None
        except (requests.ConnectionError, urllib3_errors.ProtocolError, urllib3_errors.SSLError) as error:
            raise Again(RetriableError("rest-unreachable", source=self.source.name, reason=_reason(error))) from None
        except (
            OSError,
            urllib3_errors.HTTPError,
        ) as error:  # requests' own are OSErrors; a missing ca_file is a plain one
            raise self._fatal("rest-unusable", reason=type(error).__name__) from None

    def _judge(self, response: requests.Response) -> None:
        status = response.status_code
        if self.clock is None and (date := _date(response.headers.get("date"))):
            self.clock = date
        if status == 429 or (status == 503 and "retry-after" in response.headers):
            after = _retry_after(response.headers.get("retry-after"))
            error = RetriableError("rest-busy", source=self.source.name, seconds=round(after or 0))
            if after and after > self.options.retry_after_seconds:
                raise error  # longer than a run should sleep: the runner comes back later
            raise Again(error, after)
        if status >= 500:
            raise Again(RetriableError("rest-server", source=self.source.name, status=status))
        if 300 <= status < 400 and status != 304:
            raise self._fatal("rest-redirected", status=status, host=_host(response.headers.get("location", "")) or "-")

    def _repeated(self, action: Callable[[], Parsed]) -> Parsed:
        growing = wait_random_exponential(multiplier=self.options.backoff_seconds, max=LONGEST_PAUSE)

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            told = error.after if isinstance(error, Again) else None
            return growing(state) if told is None else told

        try:
            return Retrying(
                stop=stop_after_attempt(self.options.attempts),
                wait=pause,
                retry=retry_if_exception_type(Again),
                reraise=True,
            )(action)
        except Again as again:
            raise again.error from None

    def _fatal(self, code: str, **values: object) -> FatalError:
        return FatalError(code, source=self.source.name, **values)


def _etag(value: str | None) -> str | None:
    return value if value and ETAG.fullmatch(value) else None


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _reason(error: Exception) -> str:
    """The kind of the failure; requests calls every one of them a ConnectionError."""
    inner = error.args[0] if error.args else None
    inner = getattr(inner, "reason", None) or inner
    return type(inner if isinstance(inner, Exception) else error).__name__


def _date(value: str | None) -> dt.datetime | None:
    try:
        moment = parsedate_to_datetime(value or "")
    except ValueError:
        return None
    return moment.astimezone(dt.UTC) if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _retry_after(value: str | None) -> float | None:
    """Seconds from now; the header holds seconds or a date."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    date = _date(value)
    return max(0.0, (date - dt.datetime.now(dt.UTC)).total_seconds()) if date else None
