"""The wire to a department's REST interface: token, deadlines, retries, rate; knows nothing of pages.

A request is repeated when repeating may help, with growing pauses and jitter or as long as ``Retry-After`` says. Redirects
are not followed, so the token never goes to another host.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote_plus

import httpx
import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from connectors.connections import Connection
from connectors.errors import FatalError, RetriableError, YiciError
from connectors.source import RestOptions, Source

Parsed = TypeVar("Parsed")
LONGEST_PAUSE = 30.0


class Again(Exception):
    """This answer is no good, another try may be; ``error`` is raised when the tries are used up."""

    def __init__(self, error: YiciError, after: float | None = None) -> None:
        super().__init__(error.code)
        self.error, self.after = error, after


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float = 300


class Department:
    """One session with the server of ``source``; use as an async context manager."""

    def __init__(self, source: Source, connection: Connection) -> None:
        assert isinstance(source.options, RestOptions)
        self.source, self.options, self.connection = source, source.options, connection
        self.base = connection.url.rstrip("/")
        self.requests = 0
        self.clock: dt.datetime | None = None
        self._token, self._token_ends, self._next_slot = "", 0.0, 0.0
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(self.options.read_seconds, connect=self.options.connect_seconds),
            verify=connection.extra.get("ca_file") or True,
            proxy=connection.extra.get("proxy"),
            trust_env=False,  # a proxy meant for the internet must not see this
            headers={"user-agent": "yici", "accept": "application/json"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def get(self, path: str, parameters: dict[str, str | int], read: Callable[[bytes], Parsed]) -> Parsed:
        """What ``read`` makes of the body; ``read`` raises :class:`Again` for a body that another try may better."""
        renewed = False

        async def once() -> Parsed:
            nonlocal renewed
            token = await self._authorise()
            status, body = await self._send(
                "GET", self.base + path, params=parameters, headers={"authorization": f"Bearer {token}"}
            )
            if status == 401 and not renewed:
                renewed, self._token = True, ""
                return await once()
            if status == 401:
                raise self._fatal("rest-unauthorised")
            if status == 403:
                raise self._fatal("rest-forbidden", path=path)
            if status != 200:
                raise self._fatal("rest-status", status=status, path=path)
            return read(body)

        return await self._repeated(once)

    async def log_in(self) -> None:
        """Gets a token, and with it the server's clock."""
        await self._repeated(self._authorise)

    async def _authorise(self) -> str:
        if self._token and time.monotonic() < self._token_ends:
            return self._token
        name, secret = self.connection.username or "", self.connection.password or ""
        form = {"grant_type": "client_credentials"}
        if self.options.scope:
            form["scope"] = self.options.scope
        basic = self.options.client_authentication == "basic"
        if not basic:
            form |= {"client_id": name, "client_secret": secret}
        status, body = await self._send(
            "POST",
            self.connection.extra.get("token_url") or self.base + self.options.token_path,
            data=form,
            # RFC 6749, 2.3.1: both are form-encoded before they are joined
            **({"auth": (quote_plus(name), quote_plus(secret))} if basic else {}),
        )
        if status in (400, 401, 403):
            raise self._fatal("rest-login", connection=self.connection.name)
        if status != 200:
            raise self._fatal("rest-status", status=status, path=self.options.token_path)
        try:
            token = msgspec.json.decode(body, type=_Token, strict=False)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Again(
                RetriableError("rest-not-json", source=self.source.name, path=self.options.token_path)
            ) from None
        self._token = token.access_token
        # renewed a little early: an expiry on the way would cost a request
        self._token_ends = time.monotonic() + token.expires_in * 0.9
        return self._token

    async def _send(self, method: str, url: str, **arguments: Any) -> tuple[int, bytes]:
        """One request within its deadline, however slowly the bytes drip. Raises :class:`Again` or an error."""
        await self._wait_for_slot()
        self.requests += 1
        try:
            async with (
                asyncio.timeout(self.options.request_seconds),
                self._client.stream(method, url, **arguments) as response,
            ):
                self._judge(response)
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > self.options.page_bytes:
                        raise self._fatal("rest-page-too-big", bytes=self.options.page_bytes)
                return response.status_code, bytes(body)
        except (TimeoutError, httpx.TimeoutException):
            seconds = self.options.request_seconds
            raise Again(RetriableError("rest-slow", source=self.source.name, seconds=seconds)) from None
        except httpx.TransportError as error:
            reason = type(error).__name__
            raise Again(RetriableError("rest-unreachable", source=self.source.name, reason=reason)) from None
        except (httpx.InvalidURL, httpx.DecodingError) as error:
            raise self._fatal("rest-unusable", reason=type(error).__name__) from None

    def _judge(self, response: httpx.Response) -> None:
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
        if 300 <= status < 400:
            target = httpx.URL(response.headers.get("location", "")).host
            raise self._fatal("rest-redirected", status=status, host=target or "-")

    async def _wait_for_slot(self) -> None:
        now = time.monotonic()
        pause = self._next_slot - now
        self._next_slot = max(now, self._next_slot) + 1 / self.options.requests_per_second
        if pause > 0:
            await asyncio.sleep(pause)

    async def _repeated(self, action: Callable[[], Awaitable[Parsed]]) -> Parsed:
        growing = wait_random_exponential(multiplier=self.options.backoff_seconds, max=LONGEST_PAUSE)

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            told = error.after if isinstance(error, Again) else None
            return growing(state) if told is None else told

        try:
            return await AsyncRetrying(
                stop=stop_after_attempt(self.options.attempts),
                wait=pause,
                retry=retry_if_exception_type(Again),
                reraise=True,
            )(action)
        except Again as again:
            raise again.error from None

    def _fatal(self, code: str, **values: object) -> FatalError:
        return FatalError(code, source=self.source.name, **values)


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
