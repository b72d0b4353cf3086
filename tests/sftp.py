"""A real SFTP server in a thread, on a free port, and connections to it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectors.connections import Connection
from demo import sftp_server
from demo.sftp_server import Faults, Share

PASSWORD = "correct horse"


@dataclass
class Served:
    """The running server: its port, the line of its host key, what it was asked to read."""

    port: int
    host_key: str
    faults: Faults

    def connection(self, share: str = "sh-hrss", path: str = "/", **changed: Any) -> Connection:
        extra = {"host_key": self.host_key, **changed.pop("extra", {})}
        given = {"username": share, "password": PASSWORD, "extra": extra, **changed}
        return Connection(share, f"sftp://127.0.0.1:{self.port}{path}", **given)


@contextlib.contextmanager
def served(key: Path, faults: Faults | None = None, **folders: Path) -> Iterator[Served]:
    """``folders``: share (``sh_hrss`` for sh-hrss) → folder. Every read is noted in ``faults.reads``."""
    broken = faults or Faults()
    broken.reads = []
    shares = [Share(name.replace("_", "-"), folder, PASSWORD) for name, folder in folders.items()]
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        server = asyncio.run_coroutine_threadsafe(sftp_server.listen(shares, 0, key, broken), loop).result(30)
        yield Served(server.get_port(), sftp_server.host_key(key), broken)
        loop.call_soon_threadsafe(server.close)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
