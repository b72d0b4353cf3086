"""The same system on a PostgreSQL that the operator runs: the oldest version that is promised, over TCP."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from connectors.errors import FatalError
from hub import answers, batches, database, pipeline
from tests import stored

SAMPLE = Path(__file__).parent.parent / "connectors/sources/sh-amr-enterprises/sample/input.csv"
PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
PASSWORD = "only-for-this-test"


@pytest.fixture(scope="module")
def external() -> Iterator[str]:
    """URL of a server made from the system's own programs, with a user who owns one database and nothing else."""
    usable = [path for path in PLACES if int(path.parent.name) >= database.OLDEST_POSTGRES]
    if not usable:
        pytest.skip(
            f"no PostgreSQL {database.OLDEST_POSTGRES} or later under /usr/lib/postgresql: apt-get install postgresql"
        )
    programs = usable[0]
    user = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="yici-external-"))
    folder.chmod(0o755)
    data = folder / "data"
    data.mkdir()
    if user:
        shutil.chown(data, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    as_user = {"user": user, "cwd": "/"} if user else {"cwd": "/"}
    subprocess.run(
        [programs / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"],
        check=True, capture_output=True, **as_user,
    )  # fmt: skip
    server = subprocess.Popen(
        [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", ""],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_user,
    )  # fmt: skip
    try:
        admin = sa.create_engine(
            f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres", isolation_level="AUTOCOMMIT"
        )
        ends = time.monotonic() + 60
        while True:
            try:
                with admin.connect() as connection:
                    connection.execute(sa.text(f"CREATE ROLE yici LOGIN PASSWORD '{PASSWORD}'"))
                    connection.execute(sa.text("CREATE DATABASE yici OWNER yici"))
                break
            except sa.exc.OperationalError:
                assert time.monotonic() < ends and server.poll() is None, "the server did not start"
                time.sleep(0.1)
        admin.dispose()
        yield f"postgresql://yici:{PASSWORD}@127.0.0.1:{port}/yici"
    finally:
        server.send_signal(signal.SIGINT)  # fast: connections of a pool are not waited for
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def here(external: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YICI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("YICI_DATABASE_URL", external)
    return tmp_path / "home"


def test_a_run_and_a_lookup_on_an_external_server(here: Path) -> None:
    with pytest.raises(FatalError) as empty:
        database.engine()
    assert empty.value.code == "store-empty" and "yici db upgrade" in empty.value.advice()
    database.upgrade()
    engine = database.engine()
    try:
        with engine.connect() as connection:
            version = connection.scalar(sa.text("SHOW server_version_num"))
        assert int(version) // 10000 == min(int(path.parent.name) for path in PLACES)
        first = pipeline.run("sh-amr-enterprises", input=SAMPLE)
        again = pipeline.run("sh-amr-enterprises", input=SAMPLE)
        assert first["accepted"] > 0 and again["unchanged"] == first["fetched"] and again["accepted"] == 0
        with engine.connect() as connection:
            value = connection.scalar(
                sa.text("SELECT document -> 'holders' -> 0 ->> 'value' FROM held ORDER BY key LIMIT 1")
            )
            scheme = connection.scalar(
                sa.text("SELECT document -> 'holders' -> 0 ->> 'scheme' FROM held ORDER BY key LIMIT 1")
            )
            assert [row.state for row in batches.listed(connection, None, None, 10)] == ["merged", "merged"]
        asked = answers.Question(("demo-food-permit",), f"{scheme}:{value}", "test", "test")
        (answer,) = answers.ask(engine, asked)
        assert answer["requirements"][0]["disposition"] == "held"
        (missing,) = answers.ask(engine, answers.Question(("demo-food-permit",), stored.LICENCE_CODE, "test", "test"))
        assert missing["requirements"][0]["disposition"] in ("submit", "held")
    finally:
        engine.dispose()
    assert not (here / "postgres").exists(), "the embedded server had nothing to do"


def test_the_command_says_what_it_needs(here: Path, external: str) -> None:
    """Another database of the same server: there is no right to make one, and nothing is printed of the password."""
    url = re.sub(r"/yici$", "/absent", external)
    done = subprocess.run(
        [sys.executable, "-m", "hub", "db", "upgrade"],
        capture_output=True, text=True, check=False, env={**os.environ, "YICI_DATABASE_URL": url, "YICI_LANG": "en"},
    )  # fmt: skip
    assert done.returncode == 1 and "absent" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
