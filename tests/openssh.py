"""OpenSSH's own sshd with its SFTP server, as an ordinary user on a free port: what most departments run."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest

SSHD = "/usr/sbin/sshd"
HOST = "127.0.0.1"


@dataclass(frozen=True)
class OpenSsh:
    """The running server; ``folder`` is what it may be asked for, ``key`` lets ``user`` in."""

    port: int
    user: str
    key: Path
    host_key: str
    folder: Path


@contextlib.contextmanager
def served() -> Iterator[OpenSsh]:
    if not Path(SSHD).exists():
        pytest.skip(f"there is no {SSHD} here: the connector is not tried against OpenSSH (package openssh-server)")
    # As root it would want folders of the system; nobody's is as good a login as any.
    user = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    place = Path(tempfile.mkdtemp(prefix="yici-sshd-"))
    try:
        (place / "drop").mkdir()
        keys = {name: asyncssh.generate_private_key("ssh-ed25519") for name in ("host", "user")}
        for name, key in keys.items():
            key.write_private_key(place / name)
            (place / name).chmod(0o600)
        keys["user"].write_public_key(place / "authorized")
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
        settings = (
            f"Port {port}",
            f"ListenAddress {HOST}",
            f"HostKey {place}/host",
            f"AuthorizedKeysFile {place}/authorized",
            f"PidFile {place}/pid",
            "PasswordAuthentication no",
            "UsePAM yes",  # without it an account that has no password counts as locked
            "StrictModes no",
            "Subsystem sftp internal-sftp",
        )
        (place / "config").write_text("\n".join(settings) + "\n")
        for path in (place, *place.rglob("*")):
            shutil.chown(path, user.pw_uid, user.pw_gid)
        command = [SSHD, "-D", "-f", str(place / "config"), "-E", str(place / "log")]
        as_user = {"user": user.pw_uid, "group": user.pw_gid} if os.getuid() == 0 else {}
        server = subprocess.Popen(command, **as_user)  # type: ignore[call-overload]
        try:
            _wait(port, server, place / "log")
            line = keys["host"].export_public_key().decode().strip()
            yield OpenSsh(port, user.pw_name, place / "user", line, place / "drop")
        finally:
            server.terminate()
            server.wait(10)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1) as wire:
            if wire.recv(4) == b"SSH-":
                return
        assert server.poll() is None and time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
        time.sleep(0.05)
