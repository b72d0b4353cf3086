"""What a connection says of an SFTP server and of us: address, the host keys that are known, the private key.

Names in ``extra``: ``host_key``, ``known_hosts``, ``private_key``, ``private_key_file``, ``private_key_passphrase``.
"""

from __future__ import annotations

import base64
import binascii
import io
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from connectors.connections import Connection
from connectors.errors import FatalError

KEYS: dict[type, type[paramiko.PKey]] = {
    ed25519.Ed25519PrivateKey: paramiko.Ed25519Key,
    ec.EllipticCurvePrivateKey: paramiko.ECDSAKey,
    rsa.RSAPrivateKey: paramiko.RSAKey,
}


def address(connection: Connection) -> tuple[str, int, str]:
    """Host, port and folder of ``sftp://host[:port]/folder``; ``/~/folder`` is relative to where a login begins."""
    try:
        url = urlsplit(connection.url)
        scheme, host, port = url.scheme, url.hostname, url.port
    except ValueError:  # a port beyond 65535, a bracket never closed
        scheme, host, port = "", None, None
    if scheme != "sftp" or not host:
        raise FatalError("sftp-address", connection=connection.name)
    folder = unquote(url.path) or "/"
    return host, port or 22, folder.removeprefix("/~/") or "." if folder.startswith("/~") else folder


def host_keys(connection: Connection, host: str, port: int) -> list[tuple[str, bytes]]:
    """The host keys the connection knows, as (type, blob): lines in ``host_key``, or a file named by ``known_hosts``.

    A line is ``ssh-ed25519 AAAA…``; a host name before and a comment after it are allowed. FatalError
    ``sftp-host-key-unreadable``.
    """
    given = connection.extra.get("host_key") or []
    lines = given.splitlines() if isinstance(given, str) else given
    try:
        keys = [_host_key(line) for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if file := connection.extra.get("known_hosts"):
            name = host if port == 22 else f"[{host}]:{port}"
            found = paramiko.HostKeys(str(Path(file).expanduser())).lookup(name) or {}
            keys += [(key.get_name(), key.asbytes()) for key in found.values()]
    except (OSError, ValueError, AttributeError, paramiko.SSHException):
        raise FatalError("sftp-host-key-unreadable", connection=connection.name) from None
    return keys


def _host_key(line: str) -> tuple[str, bytes]:
    words = line.split()
    place = next(at for at, word in enumerate([*words, "ssh-"]) if word.startswith(("ssh-", "ecdsa-")))
    try:
        return words[place], base64.b64decode(words[place + 1], validate=True)
    except (IndexError, binascii.Error) as error:
        raise ValueError("no host key") from error


def private_key(connection: Connection) -> paramiko.PKey | None:
    """The key in ``private_key`` or in the file ``private_key_file``; FatalError ``sftp-private-key`` when it is none."""
    extra = connection.extra
    if not (extra.get("private_key") or extra.get("private_key_file")):
        return None
    phrase = extra.get("private_key_passphrase")
    secret = phrase.encode() if phrase else None
    try:
        text = (extra.get("private_key") or Path(extra["private_key_file"]).expanduser().read_text("ascii")).encode()
        modern = b"OPENSSH PRIVATE KEY" in text
        loaded: Any = (
            serialization.load_ssh_private_key(text, secret)
            if modern
            else serialization.load_pem_private_key(text, secret)
        )
        kind = next(found for known, found in KEYS.items() if isinstance(loaded, known))
        form = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        return kind.from_private_key(io.StringIO(loaded.private_bytes(*form).decode()))
    except (OSError, ValueError, TypeError, StopIteration, UnsupportedAlgorithm, paramiko.SSHException):
        raise FatalError("sftp-private-key", connection=connection.name) from None
