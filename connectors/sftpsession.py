"""The wire to a department's SFTP server: host key, login, deadlines, retries, rate; knows nothing of cursors.

The host key is known beforehand or nothing is sent. What is cut is taken up again on a new connection: a download goes on
at the byte it had reached. Everything happens in the caller's thread; nothing is shared.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

import paramiko
from paramiko.sftp import (
    CMD_ATTRS,
    CMD_CLOSE,
    CMD_DATA,
    CMD_FSTAT,
    CMD_HANDLE,
    CMD_OPEN,
    CMD_READ,
    CMD_STATUS,
    SFTP_FLAG_READ,
    int64,
)
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from connectors.connections import Connection
from connectors.errors import FatalError, RetriableError, YiciError
from connectors.pace import Pace
from connectors.sftpkeys import address, host_keys, private_key
from connectors.source import SftpOptions, Source

LONGEST_PAUSE = 30.0
PIECE = 32768  # bytes of one read request: what every server answers whole
UNDERWAY = 32  # read requests sent ahead; together less than the window of the channel
RSA = ("rsa-sha2-512", "rsa-sha2-256")

Stamp = list[int | None]
Result = TypeVar("Result")
logging.getLogger("paramiko").addHandler(logging.NullHandler())  # else its errors go to standard error as well


class Cut(Exception):
    """The connection is no good any more, another may be; ``error`` is raised when the tries are used up."""

    def __init__(self, error: YiciError) -> None:
        super().__init__(error.code)
        self.error = error


class Altered(Exception):
    """A file is no longer what the listing said."""


class _Wire:
    """A channel that answers before a deadline: a time-out alone begins anew with every byte."""

    def __init__(self, channel: paramiko.Channel, seconds: float) -> None:
        self._channel, self._seconds, self._ends = channel, seconds, 0.0
        self.renew()

    def renew(self) -> None:
        self._ends = time.monotonic() + self._seconds

    def send(self, data: bytes) -> int:
        self.renew()
        self._channel.settimeout(self._seconds)
        return self._channel.send(data)

    def recv(self, size: int) -> bytes:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._channel.settimeout(left)
        return self._channel.recv(size)

    def get_name(self) -> str:
        return self._channel.get_name()

    def close(self) -> None:
        self._channel.close()


class _Answers:
    """Answers to read requests as they come, by number; None for the end of the file."""

    def __init__(self, client: paramiko.SFTPClient) -> None:
        self._client = client
        self.received: dict[int, bytes | None] = {}

    def _async_response(self, kind: int, message: Any, number: int) -> None:
        data = None
        if kind == CMD_STATUS:
            with contextlib.suppress(EOFError):
                self._client._convert_status(message)
        elif kind == CMD_DATA:
            data = message.get_string()
        self.received[number] = data


class _Client(paramiko.SFTPClient):
    """Reads files by their handles, with a bounded number of requests sent ahead, in one thread.

    Not through paramiko's own file objects: their prefetching has a thread that may ask for everything twice, and the
    garbage collector closes them at moments when the client's lock is taken, which then never opens again.
    """

    def opened(self, path: str) -> bytes:
        """A handle to read the file by."""
        kind, message = self._request(CMD_OPEN, self._adjust_cwd(path), SFTP_FLAG_READ, paramiko.SFTPAttributes())
        if kind != CMD_HANDLE:
            raise paramiko.SFTPError("no handle")
        handle: bytes = message.get_binary()
        return handle

    def about(self, handle: bytes) -> paramiko.SFTPAttributes:
        kind, message = self._request(CMD_FSTAT, handle)
        if kind != CMD_ATTRS:
            raise paramiko.SFTPError("no attributes")
        return paramiko.SFTPAttributes._from_msg(message)

    def closed(self, handle: bytes) -> None:
        self._request(CMD_CLOSE, handle)

    def pieces(self, handle: bytes, start: int, end: int, wire: _Wire) -> Iterator[bytes]:
        """The bytes from ``start`` to ``end`` in order; stops early where the file does."""
        answers = _Answers(self)
        asked: deque[tuple[int, int, int]] = deque()
        at = start
        while at < end or asked:
            while at < end and len(asked) < UNDERWAY:
                length = min(PIECE, end - at)
                asked.append((self._ask(answers, handle, at, length), at, length))
                at += length
            number, offset, length = asked.popleft()
            while length:  # a server may answer with less than it was asked for
                wire.renew()
                while number not in answers.received:
                    self._read_response()
                data = answers.received.pop(number)
                if not data:
                    return
                yield data
                offset, length = offset + len(data), length - len(data)
                if length:
                    number = self._ask(answers, handle, offset, length)

    def _ask(self, answers: _Answers, handle: bytes, offset: int, length: int) -> int:
        number: int = self._async_request(answers, CMD_READ, handle, int64(offset), length)
        return number


class Session:
    """Logins with the server of ``source``, one after the other as they are cut; use as a context manager."""

    def __init__(self, source: Source, connection: Connection) -> None:
        assert isinstance(source.options, SftpOptions)
        self.source, self.options, self.connection = source, source.options, connection
        self.host, self.port, self.folder = address(connection)
        self.requests = 0
        self._transport: paramiko.Transport | None = None
        self._client: _Client | None = None
        self._wire: _Wire | None = None
        # Lists, looks, downloads and logins; the pieces of a file are one request.
        self._pace = Pace(self.options.requests_per_second)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        transport, self._transport, self._client, self._wire = self._transport, None, None, None
        if transport:
            transport.close()

    def listing(self) -> dict[str, Stamp]:
        """Name → [size, modification time in seconds] of every regular file of the folder."""

        def once() -> dict[str, Stamp]:
            try:
                entries = self._connected().listdir_attr(self.folder)
            except FileNotFoundError:
                raise self._fatal("folder-missing", folder=self.connection.url) from None
            except PermissionError:
                raise self._fatal("folder-refused", folder=self.connection.url) from None
            return {
                entry.filename: _stamp(entry)
                for entry in entries
                if stat.S_ISREG(entry.st_mode or 0) and not {"/", "\x00"} & set(entry.filename)
            }

        return self._repeated(once)

    def content(self, name: str, stamp: Stamp) -> Iterator[bytes]:
        """All bytes of the file that the listing called ``stamp``. Raises :class:`Altered` when it is another by now."""
        path = f"{self.folder.rstrip('/')}/{name}"
        at = 0
        pieces: Iterator[bytes] | None = None

        def once() -> bytes:
            nonlocal pieces
            try:
                pieces = pieces or self._opened(path, stamp, at)
                return next(pieces, b"")
            except FileNotFoundError:
                raise Altered from None
            except PermissionError:
                raise FatalError("file-refused", file=name) from None
            except BaseException:
                pieces = None  # the next try begins where this one ended
                raise

        while piece := self._repeated(once):
            at += len(piece)
            yield piece
        if at != stamp[0] or self._repeated(lambda: _stamp(self._stat(path))) != stamp:
            raise Altered

    # -- one connection, step by step

    def resolved(self) -> str:
        """The addresses of the host, as text. RetriableError ``host-unknown``."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # the latter for a name that no name server could hold
            raise RetriableError("host-unknown", source=self.source.name, host=self.host) from None
        return f"{self.host}: {', '.join(sorted({str(entry[4][0]) for entry in found}))}"

    def dial(self) -> None:
        """Opens the port. RetriableError ``port-closed``."""
        try:
            wire = socket.create_connection((self.host, self.port), timeout=self.options.connect_seconds)
        except OSError as error:
            reason = type(error).__name__
            raise RetriableError(
                "port-closed", source=self.source.name, host=self.host, port=self.port, reason=reason
            ) from None
        self._transport = transport = paramiko.Transport(wire)
        # Behind the time-out of start_client, which says what it is; these end as errors without a name.
        transport.banner_timeout = transport.handshake_timeout = 2 * self.options.connect_seconds
        transport.auth_timeout = transport.channel_timeout = self.options.read_seconds

    def greet(self) -> str:
        """Agrees on ciphers and proves the host key; returns its fingerprint. FatalError when it is not the known one."""
        transport = self._dialled()
        known = host_keys(self.connection, self.host, self.port)
        choice = transport.get_security_options()
        wanted = [kind for name, _ in known for kind in (RSA if name == "ssh-rsa" else (name,))]
        first = [kind for kind in choice.key_types if kind in wanted]
        choice.key_types = (*first, *(kind for kind in choice.key_types if kind not in wanted))
        try:
            transport.start_client(timeout=self.options.connect_seconds)
        except paramiko.IncompatiblePeer:
            raise self._fatal("sftp-incompatible") from None
        if not transport.initial_kex_done:
            raise TimeoutError
        key = transport.get_remote_server_key()
        if not known:
            raise self._fatal("sftp-host-key-missing", connection=self.connection.name, fingerprint=key.fingerprint)
        if key.asbytes() not in [blob for _, blob in known]:
            raise self._fatal("sftp-host-key-differs", connection=self.connection.name, fingerprint=key.fingerprint)
        return f"{key.get_name()} {key.fingerprint}"

    def log_in(self) -> None:
        """Proves who we are and opens the SFTP subsystem. FatalError ``sftp-login`` when the server refuses."""
        transport = self._dialled()
        user = self.connection.username or ""
        try:
            key = private_key(self.connection)
            left = transport.auth_publickey(user, key) if key else ["password"]
            if left:
                transport.auth_password(user, self.connection.password or "")
        except paramiko.AuthenticationException as error:
            if isinstance(error, paramiko.BadAuthenticationType) or (
                transport.is_active() and "timeout" not in str(error).lower()
            ):
                raise self._fatal("sftp-login", connection=self.connection.name) from None
            raise
        if not transport.is_authenticated():  # one more proof is wanted than the connection has
            raise self._fatal("sftp-login", connection=self.connection.name)
        channel = transport.open_session(timeout=self.options.read_seconds)
        overdue = threading.Timer(self.options.read_seconds, transport.close)  # the next line would wait for ever
        overdue.start()
        try:
            channel.invoke_subsystem("sftp")
        finally:
            overdue.cancel()
        self._wire = _Wire(channel, self.options.read_seconds)
        self._client = _Client(self._wire)  # all it needs of a channel

    def guarded(self, action: Callable[[], Result]) -> Result:
        """``action``, where whatever ends a connection is a :class:`Cut` with an error that says what it was."""
        try:
            return action()
        except TimeoutError:
            seconds = self.options.read_seconds if self._wire else self.options.connect_seconds
            self.close()
            raise Cut(RetriableError("sftp-slow", source=self.source.name, seconds=seconds)) from None
        except RetriableError as error:
            self.close()
            raise Cut(error) from None
        except (FileNotFoundError, PermissionError):
            raise
        except (paramiko.SSHException, paramiko.SFTPError, EOFError, OSError, ValueError) as error:
            self.close()  # paramiko's texts may quote what the server sent: only their kind is told
            reason = type(error).__name__
            raise Cut(RetriableError("sftp-cut", source=self.source.name, reason=reason)) from None

    def _repeated(self, action: Callable[[], Result]) -> Result:
        try:
            return Retrying(
                stop=stop_after_attempt(self.options.attempts),
                wait=wait_random_exponential(multiplier=self.options.backoff_seconds, max=LONGEST_PAUSE),
                retry=retry_if_exception_type(Cut),
                reraise=True,
            )(self.guarded, action)
        except Cut as cut:
            raise cut.error from None

    def _connected(self) -> _Client:
        if self._client is None:
            self._pace.wait()
            self.dial()
            self.greet()
            self.log_in()
            assert self._client is not None
        self._pace.wait()
        self.requests += 1
        return self._client

    def _dialled(self) -> paramiko.Transport:
        assert self._transport is not None, "dial first"
        return self._transport

    def _opened(self, path: str, stamp: Stamp, start: int) -> Iterator[bytes]:
        client = self._connected()
        handle = client.opened(path)
        same = _stamp(client.about(handle)) == stamp
        if same:
            assert self._wire is not None and stamp[0] is not None
            yield from client.pieces(handle, start, stamp[0], self._wire)
        client.closed(handle)
        if not same:
            raise Altered

    def _stat(self, path: str) -> paramiko.SFTPAttributes:
        return self._connected().stat(path)

    def _fatal(self, code: str, **values: object) -> FatalError:
        return FatalError(code, source=self.source.name, **values)


def _stamp(entry: paramiko.SFTPAttributes) -> Stamp:
    return [entry.st_size, entry.st_mtime]
