"""A second hub for tests: its own home and database, and its own process behind a real address."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import requests
import sqlalchemy as sa

from hub import database, embedded
from hub.home import Home
from tests import stored
from tests.emptying import empty

STORE = "row_ledger, mapped_row, mapped_block, holding, holding_holder, holding_past, feed, quarantine, batch, source"


class PartnerHub:
    """Zhejiang's hub. Inside ``acting()`` this process is it; ``serve()`` runs its API as another process."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.home, self.database_url = folder / "home", database_url
        self.variables = {
            "YICI_HOME": str(self.home),
            "YICI_DATABASE_URL": database_url,
            "YICI_HUB": "zj",
            "YICI_REGION": "330000",
        }
        self.base = ""

    @contextlib.contextmanager
    def acting(self) -> Iterator[sa.Engine]:
        with mock.patch.dict(os.environ, self.variables):
            yield database.engine()

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "hub", "serve", "--port", str(port)]
        with open(self.home / "api.log", "wb") as log:
            process = subprocess.Popen(command, env={**os.environ, **self.variables}, stdout=log, stderr=log)
        self.base = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 60
            while not self._ready():
                assert process.poll() is None and time.monotonic() < deadline, (self.home / "api.log").read_text()
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(20)

    def _ready(self) -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.base}/readyz", timeout=5).ok
        return False

    def forget(self) -> None:
        """An empty store again, its keys kept."""
        with self.acting() as engine, engine.begin() as connection:
            empty(connection, f"{STORE}, agreement")
            connection.execute(sa.text("UPDATE feed_head SET position = 0"))


@contextlib.contextmanager
def partner_hub(server_home: Home, *, served: bool = True) -> Iterator[PartnerHub]:
    """A partner hub on a database of the session's server."""
    name = f"partner_{uuid.uuid4().hex}"
    admin = sa.create_engine(embedded.url(server_home, "postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    folder = Path(tempfile.mkdtemp(prefix="yici-partner-"))
    hub = PartnerHub(folder, embedded.url(server_home, name))
    try:
        with mock.patch.dict(os.environ, hub.variables):
            database.upgrade()
        with hub.serving() if served else contextlib.nullcontext():
            yield hub
        with hub.acting() as engine:
            engine.dispose()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


def announce(engine: sa.Engine, holding: str, change: str = "added") -> int:
    """The next position of the feed for a holding (key in hex); returns it."""
    with engine.begin() as connection:
        position = connection.scalar(sa.text("UPDATE feed_head SET position = position + 1 RETURNING position"))
        connection.execute(
            sa.text(
                """INSERT INTO feed (position, holding, material, change, digest, batch, recorded_at)
                SELECT :position, decode(:key, 'hex'), material, :change, digest, 'b', clock_timestamp()
                FROM holding_version WHERE holding = decode(:key, 'hex') ORDER BY recorded_from DESC LIMIT 1"""
            ),
            {"position": position, "key": holding, "change": change},
        )
    return int(position or 0)


def withdraw(engine: sa.Engine, holding: str) -> int:
    """The holding is gone, as a merge leaves it; returns its new position."""
    with engine.begin() as connection:
        bind = {"key": holding}
        stored.end(connection, holding)
        connection.execute(sa.text("DELETE FROM holding WHERE key = decode(:key, 'hex')"), bind)
    return announce(engine, holding, "withdrawn")


def move(engine: sa.Engine, holding: str, region: str) -> int:
    """The certificate is now of another region; returns its new position."""
    with engine.begin() as connection:
        bind = {"key": holding, "region": region}
        stored.end(connection, holding)
        for statement in (
            "UPDATE batch SET recorded_at = now() WHERE id = 'b-' || :key",
            "UPDATE holding SET region = :region WHERE key = decode(:key, 'hex')",
            """UPDATE mapped_row SET document = jsonb_set(document::jsonb, '{region}', to_jsonb(cast(:region AS text)))::text
            WHERE holding = decode(:key, 'hex')""",
        ):
            connection.execute(sa.text(statement), bind)
    return announce(engine, holding, "changed")
