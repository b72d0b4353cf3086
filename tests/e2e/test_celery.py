"""Beyond one machine: the same DAGs under Airflow's CeleryExecutor, with a real Redis and a real worker."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from demo.airflow import Airflow
from hub import database, home, services, stack

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(280)]

ROOT = Path(__file__).parents[2]
SOURCE = "sh-amr-enterprises"
SECONDS = 180.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """URL of a Redis of this test alone."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server on this machine: the CeleryExecutor was not tried (apt-get install redis-server)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def hub(postgres_url: str, broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[stack.Stack]:
    """A hub on an external database whose Airflow hands its tasks to a Celery worker."""
    drop = tmp_path / "drop"
    drop.mkdir()
    shutil.copy(ROOT / "connectors/sources" / SOURCE / "sample/input.csv", drop / "2019.csv")
    old = time.time() - 60
    os.utime(drop / "2019.csv", (old, old))
    named = postgres_url.replace("+psycopg", "")
    airflow = sa.make_url(postgres_url).set(database=f"{sa.make_url(postgres_url).database}_airflow")
    settings = {
        "YICI_HOME": str(tmp_path / "home"),
        "YICI_DATABASE_URL": named,
        "YICI_CONN_SH_AMR": str(drop),
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CELERY__BROKER_URL": f"{broker}/0",
        "AIRFLOW__CELERY__RESULT_BACKEND": f"{broker}/1",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": airflow.render_as_string(hide_password=False),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    here = home.current()
    database.upgrade()
    try:
        with services.exclusive(here):
            started = stack.start(here)
            started.wait()
        yield started
    finally:
        services.stop_all(here)
        with contextlib.suppress(sa.exc.DBAPIError):
            admin = sa.create_engine(sa.make_url(postgres_url).set(database="postgres"), isolation_level="AUTOCOMMIT")
            with admin.connect() as connection:
                connection.execute(sa.text(f'DROP DATABASE IF EXISTS "{airflow.database}" WITH (FORCE)'))
            admin.dispose()


def worker(started: stack.Stack) -> services.Running:
    from hub import orchestrator

    variables: dict[str, str] = {
        "YICI_DAGS": str(orchestrator.dags_folder()),
        **orchestrator.environment(started.home, started.airflow.port or 0),
    }
    command = [sys.executable, "-m", "hub.orchestrator", "celery", "worker", "--skip-serve-logs"]
    return services.start(started.home, "airflow-worker", command, variables=variables)


def test_a_source_runs_on_a_celery_worker(hub: stack.Stack) -> None:
    user = stack.read_credentials(hub.home)["airflow"]
    airflow = Airflow(hub.airflow.address, user["username"], user["password"])
    airflow.wait_for([SOURCE])
    run = airflow.trigger(SOURCE, "celery-1")
    airflow.unpause(SOURCE)
    time.sleep(8)
    airflow.read([run])
    assert run.state in ("queued", "running") and run.done == 0, "without a worker nothing is done"
    worker(hub)
    ends = time.monotonic() + SECONDS

    def check() -> None:
        assert time.monotonic() < ends, f"not done: {run}"

    airflow.follow([run], lambda runs: None, check)
    assert run.state == "success", run
    with database.engine().connect() as connection:
        merged: Any = connection.execute(
            sa.text("SELECT state, fetched, accepted FROM batch WHERE run_id = 'celery-1'")
        ).one()
    assert merged.state == "merged" and 0 < merged.accepted < merged.fetched
