"""Airflow as this hub runs it: its settings, its metadata database, its one user.

Everything is handed over in the environment, so that nothing of another Airflow on the machine takes part. The
scheduler runs through this module (``python -m hub.orchestrator``): it imports the gate and the column engines once, and
the tasks it forks find them there, which saves each task several seconds.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import os
import secrets
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import make_url

import hub
from connectors.errors import FatalError
from hub import embedded, openlineage
from hub.home import Home, write_secret

USERNAME = "admin"
PARALLELISM = 4
MIGRATE_SECONDS = 300
WARM = ("hub.pipeline", "pyarrow.compute", "pyarrow.parquet", "pandas", "duckdb", "great_expectations", "psycopg",
        "airflow.providers.openlineage.plugins.listener", "openlineage.client.transport.file")  # fmt: skip


def folder(home: Home) -> Path:
    return home.path / "airflow"


def dags_folder() -> Path:
    """Where the DAG files are: ``YICI_DAGS``, else beside the packages. FatalError ``dags-missing``."""
    path = Path(os.environ.get("YICI_DAGS") or Path(hub.__file__).parent.parent / "dags").absolute()
    if not path.is_dir():
        raise FatalError("dags-missing", folder=path)
    return path


def password(home: Home) -> str:
    """The password of Airflow's one user, made on first use; ``keys/airflow.passwords`` (0600) is what Airflow reads."""
    path = home.keys / "airflow.passwords"
    if not path.exists():
        home.create()
        write_secret(path, json.dumps({USERNAME: secrets.token_urlsafe(18)}).encode())
    return str(json.loads(path.read_text())[USERNAME])


def database_url(home: Home) -> str:
    """SQLAlchemy URL of Airflow's metadata: ``airflow`` on the embedded server, or on the operator's own."""
    if home.database_url is None:
        return embedded.url(home, "airflow")
    if given := os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"):
        return given
    named = make_url(home.database_url).set(drivername="postgresql+psycopg", database="airflow")
    return named.render_as_string(hide_password=False)


def environment(home: Home, port: int) -> dict[str, str]:
    """Airflow's settings as environment variables; ``port`` is the api-server's, on the loopback interface."""
    url = database_url(home)
    here = folder(home)
    password(home)
    settings: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": str(dags_folder()),
            "executor": "LocalExecutor",
            "parallelism": PARALLELISM,
            "max_active_tasks_per_dag": PARALLELISM,
            "load_examples": False,
            "plugins_folder": str(here / "plugins"),
            "fernet_key": base64.urlsafe_b64encode(home.secret("airflow.fernet")).decode(),
            "dags_are_paused_at_creation": True,
            "execute_tasks_new_python_interpreter": False,
            "mp_start_method": "fork",
            "auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
            "simple_auth_manager_users": f"{USERNAME}:admin",
            "simple_auth_manager_all_admins": False,
            "simple_auth_manager_passwords_file": str(home.keys / "airflow.passwords"),
            "execution_api_server_url": f"http://127.0.0.1:{port}/execution/",
            "hostname_callable": "hub.orchestrator.loopback",
        },
        "database": {"sql_alchemy_conn": url},
        "api": {
            "host": "127.0.0.1",
            "port": port,
            "base_url": f"http://127.0.0.1:{port}",
            "workers": 1,
            "secret_key": _derived(home, "api"),
            "instance_name": "Yici 一次",
            "expose_config": False,
        },
        "api_auth": {"jwt_secret": _derived(home, "jwt")},
        "logging": {
            "base_log_folder": str(home.path / "logs" / "airflow"),
            "dag_processor_child_process_log_directory": str(home.path / "logs" / "airflow" / "dag_processor"),
            "logging_level": "INFO",
            "colored_console_log": False,
            "file_task_handler_new_folder_permissions": "0o700",
            "file_task_handler_new_file_permissions": "0o600",
        },
        "scheduler": {
            "scheduler_heartbeat_sec": 2,
            "scheduler_idle_sleep_time": 0.5,
            "job_heartbeat_sec": 5,
            "catchup_by_default": False,
            "enable_health_check": False,
        },
        "dag_processor": {
            "dag_bundle_storage_path": str(here / "bundles"),
            "refresh_interval": 30,
            "min_file_process_interval": 60,
            "parsing_processes": 1,
            "bundle_refresh_check_interval": 5,
            "print_stats_interval": 300,
        },
        "workers": {"min_heartbeat_interval": 1},
        "triggerer": {"capacity": 100},
        "openlineage": dict(openlineage.settings(home)),
    }
    if make_url(url).drivername == "postgresql+psycopg":  # serves both ways; for others Airflow finds the second driver
        settings["database"]["sql_alchemy_conn_async"] = url
    values = {f"AIRFLOW__{section.upper()}__{name.upper()}": str(value) for section, options in settings.items()
              for name, value in options.items()}  # fmt: skip
    if home.database_url is not None:  # an operator's own server: the operator's own settings win
        values |= {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW__")}
    return values | {"AIRFLOW_HOME": str(here), "GX_ANALYTICS_ENABLED": "false"}


def loopback() -> str:
    """The name this Airflow knows itself by: looking up the machine's own may need a network."""
    return "127.0.0.1"


def prepare(home: Home, variables: dict[str, str]) -> None:
    """Make the metadata database and bring it to the installed Airflow's version; a no-op when it is there already."""
    here = folder(home)
    here.mkdir(exist_ok=True, mode=0o700)
    url = make_url(variables["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    mark = here / "migrated.json"
    _create(url)
    state = {"airflow": version("apache-airflow-core"), "database": hashlib.sha256(str(url).encode()).hexdigest()}
    if mark.exists() and json.loads(mark.read_text()) == {**state, "revision": _revision(url)}:
        return
    log = home.path / "logs" / "airflow-migrate.log"
    with open(log, "ab") as output:
        try:
            done = subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=variables, timeout=MIGRATE_SECONDS, check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            done = -1
    if done:
        raise FatalError("airflow-migrate", log=log)
    mark.write_text(json.dumps({**state, "revision": _revision(url)}))


def _derived(home: Home, purpose: str) -> str:
    return hashlib.sha256(home.secret("airflow.secret") + purpose.encode()).hexdigest()


def _create(url: sa.URL) -> None:
    """Make the database; one that answers already needs no right to make others."""
    target = url.set(drivername="postgresql+psycopg")
    try:
        _execute(target, "SELECT 1")
    except sa.exc.OperationalError:
        try:
            _execute(target.set(database="postgres"), f'CREATE DATABASE "{url.database}"')
        except sa.exc.DBAPIError as error:
            raise FatalError("airflow-database", name=url.database, host=url.host or "socket") from error


def _execute(url: sa.URL, statement: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", hide_parameters=True)
    try:
        with engine.connect() as connection:
            connection.execute(sa.text(statement))
    finally:
        engine.dispose()


def _revision(url: sa.URL) -> str | None:
    engine = sa.create_engine(url.set(drivername="postgresql+psycopg"), hide_parameters=True)
    try:
        with engine.connect() as connection:
            if sa.inspect(connection).has_table("alembic_version"):
                return connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
            return None
    finally:
        engine.dispose()


def main() -> None:
    """``python -m hub.orchestrator scheduler …``: import what tasks need, then be Airflow."""
    for name in WARM:
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(f"not warmed: {name} ({error})", file=sys.stderr)
    import gc

    gc.collect()
    gc.freeze()  # forked tasks share these pages
    from airflow.__main__ import main as airflow

    airflow()


if __name__ == "__main__":
    main()
