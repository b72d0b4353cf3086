"""A PostgreSQL of the harness's own: databases copied from each other, stopped hard, started again."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import psutil
import sqlalchemy as sa

from hub import embedded
from hub.home import Home

# Nothing here outlives the machine, so nothing is forced to the disk; a killed server loses no write of the system's.
SETTINGS = {"fsync": "off", "shared_buffers": "64MB", "max_wal_size": "512MB", "full_page_writes": "off", "max_connections": "50"}  # fmt: skip


class Store:
    """The embedded server of the home at ``folder``."""

    def __init__(self, folder: Path, **settings: str) -> None:
        embedded.SETTINGS.update(SETTINGS | settings)
        self.home = Home(folder)
        embedded.hold(self.home)

    def url(self, name: str) -> str:
        return embedded.url(self.home, name)

    def copy(self, name: str, template: str | None = None) -> None:
        """Database ``name`` in place of one of that name; empty without a ``template``."""
        self.drop(name)
        self._say(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}" STRATEGY FILE_COPY' if template else ""))

    def drop(self, name: str) -> None:
        self._say(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _say(self, statement: str) -> None:
        admin = sa.create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with admin.connect() as connection:
            connection.execute(sa.text(statement))

    def stop(self, how: str) -> None:
        """``immediate``: SIGQUIT to the postmaster. ``kill``: SIGKILL to it and all its processes. ``backend``: SIGKILL to
        those that serve somebody; the postmaster then starts over by itself."""
        pid = int((embedded.data_folder(self.home) / "postmaster.pid").read_text().split("\n", 1)[0])
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            postmaster = psutil.Process(pid)
            children = postmaster.children()
            if how == "immediate":
                os.kill(pid, signal.SIGQUIT)
                psutil.wait_procs([postmaster, *children], timeout=5)
            elif how == "kill":
                for process in (postmaster, *children):
                    with contextlib.suppress(psutil.Error):
                        process.kill()
            else:
                for process in children:
                    with contextlib.suppress(psutil.Error):
                        if "".join(process.cmdline()).startswith(f"postgres: {embedded.USER} "):
                            process.kill()

    def revive(self, how: str) -> None:
        """Up again after :meth:`stop`: started anew, or waited for where the postmaster starts over by itself."""
        if how != "backend":
            embedded.release(self.home)
            embedded.hold(self.home)
        deadline = time.monotonic() + embedded.START_SECONDS
        while True:
            try:
                return self._say("SELECT 1")
            except sa.exc.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def close(self) -> None:
        embedded.release(self.home)
        embedded.stop(self.home)
