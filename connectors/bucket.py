"""The wire below S3: one bucket of a store that speaks the protocol, with deadlines, bounded retries and a rate.

botocore alone and not a file system above it: an object is read only while it still is the one that was listed
(``If-Match``), and what a refusal means is told apart. Key and secret come from the connection. Neither ``~/.aws``, nor
variables named ``AWS_``, nor the metadata service of a machine is asked, unless ``extra.ambient_credentials`` says so.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from botocore import exceptions
from botocore.config import Config
from botocore.parsers import ResponseParserError
from botocore.session import Session
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from connectors.connections import Connection
from connectors.errors import FatalError, RetriableError, YiciError
from connectors.landing import LandedFile, Landing
from connectors.pace import Pace
from connectors.source import S3Options, Source

Done = TypeVar("Done")
CHUNK = 1 << 20
LONGEST_PAUSE = 30.0
EXTRA = {"endpoint_url", "region", "ca_file", "proxy", "addressing", "session_token", "ambient_credentials"}

# Codes of the protocol. Where a store invents its own, the HTTP status decides.
_FATAL = {
    "InvalidAccessKeyId": "s3-key-unknown",
    "InvalidToken": "s3-key-unknown",
    "ExpiredToken": "s3-key-unknown",
    "SignatureDoesNotMatch": "s3-signature",
    "RequestTimeTooSkewed": "s3-clock",
    "NoSuchBucket": "s3-bucket-missing",
    "PermanentRedirect": "s3-region",
    "TemporaryRedirect": "s3-region",
    "AuthorizationHeaderMalformed": "s3-region",
    "AccessDenied": "s3-denied",
    "AllAccessDisabled": "s3-denied",
}
LOGIN = ("s3-key-unknown", "s3-signature", "s3-clock")  # the key is at fault, not what it may do
_BUSY = ("SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "TooManyRequests")
_CHANGED = ("PreconditionFailed", "NoSuchKey", "412")


# Name in a file, variable, default, conversion: no profile, and files in which nothing stands.
_NOTHING_AMBIENT = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}


class Changed(Exception):
    """The object is not the one that was listed any more."""


@dataclass(frozen=True)
class Entry:
    """One object as the listing shows it. ``stamp``: what a cursor keeps of it."""

    key: str
    size: int
    etag: str
    modified: float

    @property
    def stamp(self) -> list[Any]:
        return [self.size, self.etag]


def place(connection: Connection) -> tuple[str, str]:
    """Bucket and prefix (empty, or ending in ``/``) of ``s3://bucket/prefix``. FatalError ``s3-address``."""
    try:
        url = urlsplit(connection.url)
    except ValueError:
        raise FatalError("s3-address", connection=connection.name) from None
    if url.scheme != "s3" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", url.netloc) or url.query:
        raise FatalError("s3-address", connection=connection.name)
    prefix = url.path.strip("/")
    return url.netloc, f"{prefix}/" if prefix else ""


class Bucket:
    """One bucket as ``source`` may see it; use as a context manager.

    FatalError ``s3-address``, ``s3-extra`` or ``s3-credentials`` when the connection is not whole. Every method raises
    FatalError when the store refuses, RetriableError when it did not answer, or was busy, at every try.
    """

    def __init__(self, source: Source, connection: Connection) -> None:
        assert isinstance(source.options, S3Options)
        self.source, self.options, self.connection = source, source.options, connection
        self.name, self.prefix = place(connection)
        self.requests = 0
        self._pace = Pace(self.options.requests_per_second)
        self._client = _client(connection, self.options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    @property
    def endpoint(self) -> str:
        """The URL that requests go to."""
        return str(self._client.meta.endpoint_url)

    def probe(self) -> None:
        """Asks for one key: is the login right, is the bucket there and may it be listed?"""
        self._repeated(lambda: self._page(None, 1))

    def listing(self) -> Iterator[Entry]:
        """Every object under the prefix, page by page. What is still being uploaded is not listed by any store."""
        token: str | None = None
        while True:
            page = self._repeated(lambda token=token: self._page(token, 1000))  # type: ignore[misc]
            for item in page.get("Contents", ()):
                try:
                    modified = item["LastModified"].timestamp()
                    yield Entry(str(item["Key"]), int(item["Size"]), str(item["ETag"]).strip('"'), modified)
                except (KeyError, AttributeError):
                    raise self._fatal("s3-listing") from None
            following = page.get("NextContinuationToken")
            if not page.get("IsTruncated"):
                return
            if not following or following == token:  # else this would never end
                raise self._fatal("s3-listing")
            token = following

    def land(self, entry: Entry, landing: Landing, name: str) -> LandedFile:
        """Lands one object, streaming. Raises :class:`Changed` when it is not the one listed any more."""

        def once() -> LandedFile:
            with self._spoken():
                answer = self._get(entry)
                landed = landing.put(answer["Body"].iter_chunks(CHUNK), name)
            if landed.size != entry.size or str(answer.get("ETag", "")).strip('"') != entry.etag:
                raise RetriableError("s3-incomplete", source=self.source.name)
            return landed

        return self._repeated(once)

    def open(self, entry: Entry) -> io.BufferedReader:
        """A stream that can seek and asks only for the parts that are read."""
        return io.BufferedReader(_Ranged(self, entry), CHUNK // 4)

    def part(self, entry: Entry, start: int, size: int) -> bytes:
        def once() -> bytes:
            with self._spoken():
                body: bytes = self._get(entry, Range=f"bytes={start}-{start + size - 1}")["Body"].read()
                return body

        return self._repeated(once)

    def _page(self, token: str | None, size: int) -> dict[str, Any]:
        given = {"ContinuationToken": token} if token else {}
        with self._spoken():
            page: dict[str, Any] = self._client.list_objects_v2(
                Bucket=self.name, Prefix=self.prefix, MaxKeys=size, **given
            )
        return page

    def _get(self, entry: Entry, **more: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.get_object(
            Bucket=self.name, Key=entry.key, IfMatch=f'"{entry.etag}"', **more
        )
        return answer

    def _repeated(self, action: Callable[[], Done]) -> Done:
        return Retrying(
            stop=stop_after_attempt(self.options.attempts),
            wait=wait_random_exponential(multiplier=self.options.backoff_seconds, max=LONGEST_PAUSE),
            retry=retry_if_exception_type(RetriableError),
            reraise=True,
        )(action)

    @contextmanager
    def _spoken(self) -> Iterator[None]:
        """One request in its turn, its failure in our words: messages of botocore can quote the key."""
        self._pace.wait()
        self.requests += 1
        name = self.source.name
        try:
            yield
        except exceptions.ClientError as error:
            raise self._refusal(error) from None
        except exceptions.SSLError as error:
            host = urlsplit(self.endpoint).hostname or "-"
            reason = type(getattr(error, "kwargs", {}).get("error", error)).__name__
            raise FatalError("certificate-refused", source=name, host=host, reason=reason) from None
        except (exceptions.IncompleteReadError, exceptions.FlexibleChecksumError):
            raise RetriableError("s3-incomplete", source=name) from None
        except (exceptions.HTTPClientError, exceptions.ConnectionError) as error:
            raise RetriableError("s3-unreachable", source=name, reason=type(error).__name__) from None
        except (exceptions.BotoCoreError, ResponseParserError) as error:
            raise self._fatal("s3-unusable", reason=type(error).__name__) from None

    def _refusal(self, error: exceptions.ClientError) -> Exception:
        code = re.sub(r"[^A-Za-z0-9]", "", str(error.response.get("Error", {}).get("Code", "")))[:64]
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _CHANGED:
            return Changed()
        if code in _BUSY or status == 429 or status >= 500:
            return RetriableError("s3-busy", source=self.source.name, status=status)
        if known := _FATAL.get(code) or {301: "s3-region", 307: "s3-region", 403: "s3-denied"}.get(status):
            return self._fatal(known)
        return self._fatal("s3-status", status=status, code=code or "-")

    def _fatal(self, code: str, /, **values: object) -> YiciError:
        return FatalError(
            code, source=self.source.name, connection=self.connection.name, bucket=self.name,
            prefix=self.prefix or "-", **values,
        )  # fmt: skip


class _Ranged(io.RawIOBase):
    """An object of the bucket, read in parts."""

    def __init__(self, bucket: Bucket, entry: Entry) -> None:
        self._bucket, self._entry, self._place = bucket, entry, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = max(0, offset + (0, self._place, self._entry.size)[whence])
        return self._place

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._entry.size - self._place)
        if size <= 0:
            return 0
        data = self._bucket.part(self._entry, self._place, size)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _client(connection: Connection, options: S3Options) -> Any:
    extra = connection.extra
    if unknown := sorted(set(extra) - EXTRA):  # a misspelt endpoint_url would send the key to another store
        raise FatalError(
            "s3-extra", connection=connection.name, keys=", ".join(unknown), known=", ".join(sorted(EXTRA))
        )
    ambient = extra.get("ambient_credentials") is True
    if not ambient and not (connection.username and connection.password):
        raise FatalError("s3-credentials", connection=connection.name)
    proxy, endpoint = extra.get("proxy"), extra.get("endpoint_url")
    config = Config(
        region_name=extra.get("region") or "us-east-1",
        signature_version="s3v4",
        connect_timeout=options.connect_seconds,
        read_timeout=options.read_seconds,
        retries={"mode": "standard", "total_max_attempts": 1},  # we repeat, so that a body cut short is repeated too
        proxies={"http": proxy, "https": proxy} if proxy else {},
        s3={"addressing_style": extra.get("addressing") or ("path" if endpoint else "auto")},
        user_agent="yici",
        ignore_configured_endpoint_urls=True,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_supported",
        defaults_mode="legacy",
    )
    session = Session(session_vars=None if ambient else _NOTHING_AMBIENT)
    given: dict[str, Any] = {}
    if not ambient:
        given = {
            "aws_access_key_id": connection.username,
            "aws_secret_access_key": connection.password,
            "aws_session_token": extra.get("session_token"),
        }
    try:
        return session.create_client(
            "s3", endpoint_url=endpoint, verify=extra.get("ca_file") or True, config=config, **given
        )
    except (exceptions.BotoCoreError, ValueError, OSError):
        raise FatalError("s3-address", connection=connection.name) from None
