"""One message over HTTPS to one address of a peer, and what comes back: nothing verified beyond the pinned certificate.

urllib3 itself, without requests on top: that would load the public authorities beside the pins, and take proxies, cookies
and bundles from the environment.
"""

from __future__ import annotations

import datetime as dt
import os
import ssl
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import urllib3
from urllib3.exceptions import HTTPError, SSLError

from connectors import envelope
from connectors.errors import FatalError, RetriableError
from hub.exchange import calls, cards, keys, tls
from hub.home import Home

PATH = "/v1/exchange"
LOOPBACK = "127.0.0.1"
CONNECTIONS = 8  # kept to one address
POOLS = 64
CHUNK = 256 * 1024
PLAIN = 64 * 1024  # bytes of an answer that is no message


PASSING = (408, 429)  # beside 5xx: what another try may change


def post(
    peer: str, address: str, own: Path, pems: Sequence[str], wire: bytes, seconds: float, limit: int = envelope.LIMIT
) -> bytes:
    """The bytes that ``address`` of ``peer`` answers within ``seconds``.

    ``own``: PEM file of this hub; ``pems``: the peer's certificates. RetriableError ``partner-away`` when nothing or half an
    answer comes, ``partner-plain`` when it is one of HTTP alone (FatalError where another try changes nothing); FatalError
    ``partner-certificate`` when another certificate is shown, ``message-malformed`` when more comes than a message may have.
    """
    deadline = time.monotonic() + seconds
    try:
        with calls.until(deadline):
            status, body = _exchanged(_pool(address, own, tuple(pems)), wire, limit)
    except SSLError as error:
        if isinstance(cause := _ssl_error(error), ssl.SSLCertVerificationError):
            raise FatalError("partner-certificate", peer=peer) from None
        raise RetriableError("partner-away", peer=peer, reason=getattr(cause, "reason", None) or "TLS") from None
    except (HTTPError, OSError) as error:
        reason = "timeout" if time.monotonic() >= deadline else type(error).__name__
        raise RetriableError("partner-away", peer=peer, reason=reason) from None
    if status != 200:
        kind = RetriableError if status >= 500 or status in PASSING else FatalError
        raise kind("partner-plain", peer=peer, status=status)
    return body


def _exchanged(pool: urllib3.HTTPSConnectionPool, wire: bytes, limit: int) -> tuple[int, bytes]:
    """Status and body of the answer. FatalError ``message-malformed``; errors of urllib3, OSError."""
    headers = {"Content-Type": envelope.MEDIA_TYPE, "Accept": envelope.MEDIA_TYPE}
    answer = pool.urlopen(
        "POST",
        PATH,
        body=wire,
        headers=headers,
        retries=False,
        redirect=False,
        preload_content=False,
        decode_content=False,
    )
    try:
        parts, size = [], 0
        for part in answer.stream(CHUNK):
            size += len(part)
            if size > (limit if answer.status == 200 else PLAIN):
                raise FatalError("message-malformed")
            parts.append(part)
    except BaseException:
        answer.close()
        raise
    answer.release_conn()
    return answer.status, b"".join(parts)


def alive(here: Home, port: int) -> bool:
    """Whether the listener of ``here`` answers on this machine."""
    own = keys.own(here)
    context = tls.client_context(own.certificate(dt.datetime.now(dt.UTC)), [entry.public for entry in own.certificates])
    pool = urllib3.HTTPSConnectionPool(
        LOOPBACK, port, ssl_context=context, assert_hostname=False, retries=False, timeout=5
    )
    try:
        return pool.request("GET", "/healthz").status == 200
    except (HTTPError, OSError):
        return False
    finally:
        pool.close()


def _ssl_error(error: BaseException) -> BaseException | None:
    """What OpenSSL said."""
    return next(
        (each for each in (*error.args, error.__cause__, error.__context__) if isinstance(each, ssl.SSLError)), None
    )


class _Pool(urllib3.HTTPSConnectionPool):
    ConnectionCls = calls.Connection


def _pool(address: str, own: Path, pems: tuple[str, ...]) -> urllib3.HTTPSConnectionPool:
    mark = os.getpid(), address, own, pems
    with _guard:
        if (known := _pools.get(mark)) is not None:
            return known
        if len(_pools) >= POOLS:
            _pools.clear()
        host, port = cards.address_of(address)
        context = tls.client_context(own, pems)
        context.sslsocket_class = calls.Socket
        made = _pools[mark] = _Pool(host, port, maxsize=CONNECTIONS, ssl_context=context, assert_hostname=False)
        return made


_pools: dict[tuple[int, str, Path, tuple[str, ...]], urllib3.HTTPSConnectionPool] = {}
_guard = threading.Lock()
