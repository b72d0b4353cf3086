"""Zones of every kind that landing is promised for: a local folder, memory, a real S3 server, a real SFTP server."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

USER, PASSWORD = "hub", "correct-horse"


@contextlib.contextmanager
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket; endpoint and keys are in the environment, where operators put them."""
    import boto3
    import s3fs

    host, port = _server()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "hub",
        "AWS_SECRET_ACCESS_KEY": "of-tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"zone-{uuid.uuid4().hex}"
    try:
        boto3.client("s3").create_bucket(Bucket=name)
        yield f"s3://{name}/hub/landing"
    finally:
        s3fs.S3FileSystem.clear_instance_cache()


@functools.cache
def _server() -> tuple[str, int]:
    """One for all tests of this process: buckets keep them apart."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    atexit.register(server.stop)
    host, port = server.get_host_and_port()
    return host, port


@contextlib.contextmanager
def sftp(folder: Path) -> Iterator[str]:
    """The URL of a folder on an SFTP server that may be written to."""
    import asyncssh
    from fsspec.implementations.sftp import SFTPFileSystem

    class Login(asyncssh.SSHServer):
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Login, server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(folder).encode()),
        )  # fmt: skip

    try:
        server = asyncio.run_coroutine_threadsafe(listen(), loop).result(30)
        yield f"sftp://{USER}:{PASSWORD}@127.0.0.1:{server.get_port()}/zone"
        SFTPFileSystem.clear_instance_cache()
        loop.call_soon_threadsafe(server.close)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)


@contextlib.contextmanager
def of(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a zone of a kind: local, memory, s3, sftp."""
    if kind == "local":
        yield str(folder / "state" / "zone")
    elif kind == "memory":
        yield f"memory://{uuid.uuid4().hex}"
    else:
        (folder / "served").mkdir()
        with bucket(monkeypatch) if kind == "s3" else sftp(folder / "served") as url:
            yield url
