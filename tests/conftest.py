"""Real servers for tests: one embedded PostgreSQL a session, an empty database a test."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from hub import embedded
from hub.home import Home

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("YICI_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def server_home() -> Iterator[Home]:
    """A home with a running embedded PostgreSQL, removed at the end of the session."""
    folder = Path(tempfile.mkdtemp(prefix="yici-test-"))
    folder.chmod(0o711)
    here = Home(folder)
    try:
        embedded.hold(here)
        yield here
    finally:
        embedded.release(here)
        embedded.stop(here)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(server_home: Home) -> Iterator[str]:
    """SQLAlchemy URL (postgresql+psycopg) of an empty database on the session's server, superuser."""
    name = f"test_{uuid.uuid4().hex}"
    admin = sa.create_engine(embedded.url(server_home, "postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    try:
        yield embedded.url(server_home, name)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


@pytest.fixture
def store(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    """A migrated, empty store in a home of its own: ``YICI_HOME`` and ``YICI_DATABASE_URL`` point at it."""
    from hub import database

    monkeypatch.setenv("YICI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("YICI_DATABASE_URL", postgres_url)
    monkeypatch.setenv("YICI_LANG", "en")
    monkeypatch.delenv("YICI_LANDING_URL", raising=False)
    database.upgrade()
    engine = database.engine()
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data beside the checkout; without it the test says so."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set YICI_SHARED to the folder that holds data/")
    return folder


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes do not name a test: what holds a clock (gzip, zip) would be another one in each worker."""
    return argname if isinstance(val, bytes) else None
