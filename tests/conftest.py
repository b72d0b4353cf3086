"""Real servers for tests: one embedded PostgreSQL a session, an empty database a test."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import settings

from hub import embedded
from hub.home import Home

settings.register_profile("yici", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("yici")
ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("YICI_SHARED", ROOT.parent / "shared"))
KEPT = "YICI_SHARED"
MEMORY, ROOM = Path("/dev/shm"), 6 << 30  # a file system in memory, and how many bytes it has to have left

if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
    # Each test has its own database, of a thousand files: on a disk making them takes longer than most tests.
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


@pytest.fixture(scope="session", autouse=True)
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests know nothing of whoever runs them: no setting of a hub, and not the one that the demo left in the checkout."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("YICI_") and name != KEPT]:
            patch.delenv(name)
        patch.setenv("YICI_HOME", str(tmp_path_factory.mktemp("nobody") / "home"))
        yield


@pytest.fixture(scope="session")
def server_home() -> Iterator[Home]:
    """A home with a running embedded PostgreSQL, removed at the end of the session."""
    folder = Path(tempfile.mkdtemp(prefix="yici-test-"))
    folder.chmod(0o711)
    here = Home(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:  # every database that is dropped is looked for in all buffers
            patch.setitem(embedded.SETTINGS, "shared_buffers", "256MB")
            patch.setitem(embedded.SETTINGS, "max_wal_size", "512MB")
            embedded.hold(here)
        # Nothing here outlives the machine, and hundreds of databases come and go. What a crash leaves is tested elsewhere.
        admin = sa.create_engine(embedded.url(here, "postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            for setting in ("fsync", "full_page_writes"):
                connection.execute(sa.text(f"ALTER SYSTEM SET {setting} = off"))
            connection.execute(sa.text("SELECT pg_reload_conf()"))
        admin.dispose()
        yield here
    finally:
        embedded.release(here)
        embedded.stop(here)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template(server_home: Home) -> str:
    """Name of a database at the head of the migrations that nobody is connected to: others are copied from it."""
    from hub import database

    folder = Path(tempfile.mkdtemp(prefix="yici-test-"))
    with pytest.MonkeyPatch.context() as patch, _database(server_home, "migrated") as url:
        patch.setenv("YICI_HOME", str(folder))
        patch.setenv("YICI_DATABASE_URL", url)
        database.upgrade()
        engine = sa.create_engine(url)
        with engine.begin() as connection:  # of a home that no test has
            connection.execute(sa.text("DELETE FROM setting WHERE name = 'pseudonym-key'"))
        engine.dispose()
    shutil.rmtree(folder)
    return "migrated"


@contextlib.contextmanager
def _database(server_home: Home, name: str, template: str = "template1") -> Iterator[str]:
    """URL of a new database, which stays."""
    admin = sa.create_engine(embedded.url(server_home, "postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    admin.dispose()
    yield embedded.url(server_home, name)


@pytest.fixture
def postgres_url(server_home: Home) -> Iterator[str]:
    """SQLAlchemy URL (postgresql+psycopg) of an empty database on the session's server, superuser."""
    yield from _passing(server_home, "template1")


@pytest.fixture
def migrated_url(server_home: Home, template: str) -> Iterator[str]:
    """The same of a database that is migrated and holds nothing."""
    yield from _passing(server_home, template)


def _passing(server_home: Home, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    with _database(server_home, name, template) as url:
        try:
            yield url
        finally:
            admin = sa.create_engine(embedded.url(server_home, "postgres"), isolation_level="AUTOCOMMIT")
            with admin.connect() as connection:
                connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
            admin.dispose()


@pytest.fixture
def store(migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    """A migrated, empty store in a home of its own: ``YICI_HOME`` and ``YICI_DATABASE_URL`` point at it."""
    from hub import database, home

    monkeypatch.setenv("YICI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("YICI_DATABASE_URL", migrated_url)
    monkeypatch.setenv("YICI_LANG", "en")
    monkeypatch.delenv("YICI_LANDING_URL", raising=False)
    engine = database.engine()
    with engine.begin() as connection:  # all else of `yici db upgrade` is in the template
        database.keep_fingerprint(connection, home.current())
    yield engine
    engine.dispose()


@pytest.fixture
def fresh(store: sa.Engine) -> Iterator[str]:
    """URL of a database that does not exist yet, on the same server, for a store that is made anew."""
    target = store.url.set(database=f"{store.url.database}_fresh")
    yield target.render_as_string(hide_password=False)
    with sa.create_engine(store.url.set(database="postgres"), isolation_level="AUTOCOMMIT").connect() as admin:
        admin.execute(sa.text(f'DROP DATABASE IF EXISTS "{target.database}" WITH (FORCE)'))


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
