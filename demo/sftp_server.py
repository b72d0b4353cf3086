"""The SFTP server of the demo's departments: one user and one read-only folder for each, as a data office is given them.

Run: ``python -m demo.sftp_server --port P --host-key FILE --share sh-hrss=DIR --share sh-mnr=DIR``. A share's name is its
user; its password comes from ``YICI_SFTP_SH_HRSS`` in the environment. The host key is made on first use; the line by which
clients know it is beside it in ``FILE.pub``. ``--cut-after`` and ``--hang-after`` make it fail, for tests of clients.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import asyncssh

from connectors.errors import FatalError, UsageError, YiciError

HOST = "127.0.0.1"
WRITING = asyncssh.FXF_WRITE | asyncssh.FXF_APPEND | asyncssh.FXF_CREAT | asyncssh.FXF_TRUNC


@dataclass
class Faults:
    """What goes wrong. ``cut_after``: bytes after which a connection is cut, ``cuts`` times; ``hang_after``: bytes after
    which no read is answered any more. ``reads``: every read asked for, as (file name, offset, length)."""

    cut_after: int | None = None
    cuts: int = 1
    hang_after: int | None = None
    served: int = 0
    reads: list[tuple[str, int, int]] | None = None


@dataclass(frozen=True)
class Share:
    """One department: its user, its folder, its password."""

    name: str
    folder: Path
    password: str = field(repr=False)


class _Login(asyncssh.SSHServer):
    def __init__(self, shares: Mapping[str, Share]) -> None:
        self._shares = shares

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        share = self._shares.get(username)
        # An unknown user takes the same time as a wrong password.
        same = hmac.compare_digest((share.password if share else "").encode(), password.encode())
        return same and share is not None


def _refused(*_: Any) -> NoReturn:
    raise asyncssh.SFTPPermissionDenied("read only")


_REFUSED: Any = _refused


class _Folder(asyncssh.SFTPServer):
    """The files of one share, to be read; every way to write is closed."""

    def __init__(self, channel: Any, shares: Mapping[str, Share], faults: Faults) -> None:
        user = channel.get_extra_info("username")
        super().__init__(channel, chroot=os.fsencode(shares[user].folder))
        self._faults = faults

    def map_path(self, path: bytes) -> bytes:
        """A link that leads out of the folder leads nowhere."""
        mapped = super().map_path(path)
        root = os.path.realpath(super().map_path(b"/"))
        if os.path.commonpath([os.path.realpath(mapped), root]) != root:
            raise asyncssh.SFTPNoSuchFile("No such file")
        return mapped

    def open(self, path: bytes, pflags: int, attrs: Any) -> object:
        return _refused() if pflags & WRITING else super().open(path, pflags, attrs)

    async def read(self, file_obj: Any, offset: int, size: int) -> bytes:
        faults = self._faults
        if faults.reads is not None:
            faults.reads.append((Path(os.fsdecode(file_obj.name)).name, offset, size))
        if faults.hang_after is not None and faults.served >= faults.hang_after:
            await asyncio.Event().wait()
        if faults.cut_after is not None and faults.cuts and faults.served >= faults.cut_after:
            faults.cuts -= 1
            faults.served = 0
            self.connection.abort()
            raise asyncssh.SFTPConnectionLost("cut")
        file_obj.seek(offset)
        data: bytes = file_obj.read(size)
        faults.served += len(data)
        return data

    write = setstat = lsetstat = fsetstat = remove = mkdir = rmdir = rename = posix_rename = symlink = link = _REFUSED
    open56 = _REFUSED  # only clients of protocol version 5 and later ask so; the versions offered end at 4


def host_key(path: Path) -> str:
    """The line by which clients know the server (``ssh-ed25519 AAAA…``); makes the key when there is none yet."""
    if not path.exists():
        key = asyncssh.generate_private_key("ssh-ed25519")
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(key.export_private_key())
        draft.replace(path)
    line = asyncssh.read_private_key(path).export_public_key().decode().strip()
    path.with_name(f"{path.name}.pub").write_text(line + "\n", encoding="ascii")
    return line


def variable(share: str) -> str:
    """The environment variable with the password of ``share``."""
    return "YICI_SFTP_" + share.upper().replace("-", "_")


def command(port: int, key: Path, shares: Mapping[str, Path]) -> list[str]:
    """How to start it, for ``hub.services.start``; the passwords go into :func:`variable`."""
    given = [part for name, folder in shares.items() for part in ("--share", f"{name}={folder}")]
    return [sys.executable, "-m", "demo.sftp_server", "--port", str(port), "--host-key", str(key), *given]


def answers(port: int) -> bool:
    """Whether an SSH server greets at ``port``."""
    try:
        with socket.create_connection((HOST, port), timeout=2) as wire:
            wire.settimeout(2)
            return wire.recv(4) == b"SSH-"
    except OSError:
        return False


async def listen(shares: Sequence[Share], port: int, key: Path, faults: Faults | None = None) -> asyncssh.SSHAcceptor:
    """The server, listening on 127.0.0.1; ``port`` 0 takes any free one. FatalError for a missing folder or a port in use."""
    for share in shares:
        if not share.folder.is_dir():
            raise FatalError("demo-data-missing", file=share.folder)
    host_key(key)
    known = {share.name: share for share in shares}
    broken = faults or Faults()
    try:
        return await asyncssh.listen(
            HOST,
            port,
            server_host_keys=[str(key)],
            server_factory=lambda: _Login(known),
            sftp_factory=lambda channel: _Folder(channel, known, broken),
            sftp_version=4,
            login_timeout=30,
            agent_forwarding=False,
        )
    except OSError as error:
        raise FatalError("demo-port-in-use", port=port) from error


async def serve(shares: Sequence[Share], port: int, key: Path, faults: Faults) -> None:
    """Serves until told to stop; prints the address once it listens."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await listen(shares, port, key, faults)
    print(f"sftp://{HOST}:{server.get_port()}", flush=True)
    await stop.wait()
    server.close()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.sftp_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1; 0 for any free one")
    parser.add_argument("--host-key", type=Path, required=True, help="private host key, made on first use")
    parser.add_argument(
        "--share", action="append", required=True, metavar="NAME=DIR", help="a user and what it may read"
    )
    parser.add_argument("--cut-after", type=int, metavar="BYTES", help="cut a connection after so many bytes")
    parser.add_argument("--cuts", type=int, default=1, metavar="TIMES", help="how often to cut")
    parser.add_argument("--hang-after", type=int, metavar="BYTES", help="fall silent after so many bytes")
    given = parser.parse_args(arguments)
    try:
        shares = [_share(text) for text in given.share]
        asyncio.run(serve(shares, given.port, given.host_key, Faults(given.cut_after, given.cuts, given.hang_after)))
    except YiciError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _share(text: str) -> Share:
    name, _, folder = text.partition("=")
    if not (password := os.environ.get(variable(name))):
        raise UsageError("demo-credentials-missing", name=variable(name))
    return Share(name, Path(folder), password)


if __name__ == "__main__":
    sys.exit(main())
