"""A running bucket server of the demo, and a wire in front of it that can fail: for tests of what reads from buckets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from connectors.connections import Connection

ROOT = Path(__file__).parent.parent
ACCESS, SECRET = "hub-of-tests", "not/a+secret=&%"
BUCKET, PREFIX = "nhc-births", "certificates"


def launch(data: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "demo.bucket_server", "--data", str(data), *words]
    env = {
        **os.environ, "YICI_LANG": "en", "YICI_DEMO_CLIENT_ID": ACCESS, "YICI_DEMO_CLIENT_SECRET": SECRET, **environment
    }  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@contextmanager
def running(data: Path, *words: str) -> Iterator[str]:
    """The address of a server over ``data``, filled."""
    process = launch(data, "--port", "0", "--bucket", BUCKET, "--prefix", PREFIX, *words)
    try:
        assert process.stdout is not None and process.stderr is not None
        yield process.stdout.readline().strip() or process.stderr.read()
    finally:
        process.terminate()
        process.communicate(timeout=10)


def connection(endpoint: str, **changed: Any) -> Connection:
    fields = {"url": f"s3://{BUCKET}/{PREFIX}", "username": ACCESS, "password": SECRET, **changed}
    extra = {"endpoint_url": endpoint, **fields.pop("extra", {})}
    return Connection("sh-nhc", extra=extra, **fields)


def client(endpoint: str, access: str = ACCESS, secret: str = SECRET) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, proxies={})
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=access, aws_secret_access_key=secret,
        config=config,
    )  # fmt: skip


@dataclass
class Wire:
    """A TCP proxy; each new connection takes the next fault of ``plan``, and none when the plan is done.

    ``busy``: HTTP 503 · ``shut``: closed at once · ``mute``: never answered · a number: cut after as many bytes · None: no fault.
    """

    url: str
    plan: list[str | int | None] = field(default_factory=list)
    connections: int = 0


@contextmanager
def wire(target: str) -> Iterator[Wire]:
    address = urlsplit(target)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy, stopped = Wire(f"http://127.0.0.1:{listener.getsockname()[1]}"), threading.Event()

        def serve(near: socket.socket, fault: str | int | None) -> None:
            with near:
                if fault == "shut":
                    return
                if fault == "mute":
                    stopped.wait(10)
                    return
                if fault == "busy":
                    near.recv(65536)
                    near.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    return
                with socket.create_connection((str(address.hostname), int(address.port or 80))) as far:
                    threading.Thread(target=_pump, args=(near, far, None), daemon=True).start()
                    _pump(far, near, fault if isinstance(fault, int) else None)

        def accept() -> None:
            while not stopped.is_set():
                try:
                    near, _ = listener.accept()
                except OSError:
                    return
                proxy.connections += 1
                fault = proxy.plan.pop(0) if proxy.plan else None
                threading.Thread(target=serve, args=(near, fault), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield proxy
        finally:
            stopped.set()
            listener.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
    try:
        while chunk := source.recv(65536 if limit is None else min(65536, limit)):
            sink.sendall(chunk)
            if limit is not None and (limit := limit - len(chunk)) <= 0:
                break
        sink.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
