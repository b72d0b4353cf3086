"""The first steps of a connection check over HTTP: can the name be found, the port reached, the certificate trusted."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from connectors.connections import Connection
from connectors.errors import FatalError, RetriableError, YiciError
from connectors.fetched import Diagnosis, failed
from connectors.source import Source


def steps(source: Source, connection: Connection, seconds: float) -> Iterator[Diagnosis]:
    """``name``, ``port`` and, over HTTPS, ``certificate``; ends after the first that fails. ``seconds``: to connect."""
    step = "name"
    try:
        host, port, secure = address(connection)
        yield Diagnosis(step, True, f"{host}: {_resolved(source, host, port)}")
        step = "port"
        with _dialled(source, host, port, seconds) as wire:
            yield Diagnosis(step, True, f"{host}:{port}")
            if secure:
                step = "certificate"
                yield Diagnosis(step, True, _secured(source, connection, wire, host))
    except YiciError as error:
        yield failed(step, error)


def address(connection: Connection) -> tuple[str, int, bool]:
    """Host, port and whether it is HTTPS. FatalError ``rest-address``."""
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


def _dialled(source: Source, host: str, port: int, seconds: float) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout=seconds)
    except OSError as error:
        reason = type(error).__name__
        raise RetriableError("port-closed", source=source.name, host=host, port=port, reason=reason) from None


def _secured(source: Source, connection: Connection, wire: socket.socket, host: str) -> str:
    try:
        context = ssl.create_default_context(cafile=connection.extra.get("ca_file"))
        with context.wrap_socket(wire, server_hostname=host) as secured:
            return secured.version() or "TLS"
    except OSError as error:  # ssl.SSLError is one
        reason = getattr(error, "verify_message", "") or type(error).__name__
        raise FatalError("certificate-refused", source=source.name, host=host, reason=reason) from None
