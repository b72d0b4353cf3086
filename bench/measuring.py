"""What measurements share: a database server of their own, the machine in words, medians and ratios, progress."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import sqlalchemy as sa

from hub import embedded
from hub.home import Home


@contextlib.contextmanager
def home() -> Iterator[Home]:
    """A home in a temporary folder with the embedded PostgreSQL running; stopped and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="yici-bench-"))
    folder.chmod(0o711)
    here = Home(folder)
    os.environ["YICI_HOME"] = str(folder)
    for name in ("YICI_DATABASE_URL", "YICI_LANDING_URL", "YICI_SOURCES"):
        os.environ.pop(name, None)
    try:
        embedded.hold(here)
        yield here
    finally:
        embedded.release(here)
        embedded.stop(here)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def database(here: Home, name: str) -> Iterator[str]:
    """URL of an empty database on the server, dropped at the end; a checkpoint first, so that none pays for another."""
    admin = sa.create_engine(embedded.url(here, "postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
        connection.execute(sa.text("CHECKPOINT"))
    try:
        yield embedded.url(here, name)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f'DROP DATABASE "{name}" WITH (FORCE)'))
        admin.dispose()


def checkpoint(here: Home) -> None:
    engine = sa.create_engine(embedded.url(here, "postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text("CHECKPOINT"))
    engine.dispose()


def settled(here: Home, most: float = 300) -> None:
    """Wait, up to ``most`` seconds, until the server is not tidying up after what was measured before."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'"
    engine = sa.create_engine(embedded.url(here, "postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        end, quiet = time.monotonic() + most, 0
        while quiet < 3 and time.monotonic() < end:
            quiet = 0 if connection.scalar(sa.text(query)) else quiet + 1
            time.sleep(0.5)
    engine.dispose()


def server(here: Home) -> int:
    """Process number of the database server."""
    return int((embedded.data_folder(here) / "postmaster.pid").read_text().split("\n", 1)[0])


def machine() -> dict[str, object]:
    """What was measured on, as far as it explains a figure."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(memory),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def ratio(ours: float, theirs: float) -> float:
    return round(ours / theirs, 3)


def say(text: str) -> None:
    """Progress, beside the result on standard output."""
    print(text, file=sys.stderr, flush=True)
