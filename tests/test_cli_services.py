"""``yici up`` and ``yici down`` as commands; the whole start is in ``e2e/test_demo.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from hub import embedded, services
from hub.home import Home


def yici(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("YICI", "AIRFLOW"))}
    environment |= {"YICI_HOME": str(home), "YICI_LANG": "en", **variables}
    command = [sys.executable, "-m", "hub", *arguments]
    root = Path(__file__).parent.parent
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root, timeout=120, check=False)


def test_down_on_a_fresh_home_makes_nothing(tmp_path: Path) -> None:
    done = yici(tmp_path / "home", "down")
    assert done.returncode == 0 and "nothing was running" in done.stderr
    assert not (tmp_path / "home").exists()


def test_up_without_dags_says_so_and_leaves_nothing_running(tmp_path: Path) -> None:
    done = yici(tmp_path / "home", "up", YICI_DAGS=str(tmp_path / "none"))
    assert done.returncode == 1 and "YICI_DAGS" in done.stderr
    assert done.stdout == ""
    home = Home(tmp_path / "home")
    assert services.processes(home) == [] and embedded._postmaster(home) is None


def test_without_airflow_there_are_no_passwords_to_name(tmp_path: Path, postgres_url: str) -> None:
    """The file is named where it is there, as after a start with Airflow."""
    home, external = tmp_path / "home", {"YICI_DATABASE_URL": postgres_url.replace("+psycopg", "")}
    try:
        assert yici(home, "db", "upgrade", **external).returncode == 0
        told = yici(home, "up", "--without-airflow", "--json", **external)
        assert told.returncode == 0, told.stderr
        assert set(json.loads(told.stdout)) == {"api"} and not (home / "credentials.json").exists()
        assert "credentials.json" not in (shown := yici(home, "up", "--without-airflow", **external)).stderr
        assert "yici down" in shown.stderr
        (home / "credentials.json").write_text("{}")
        named = json.loads(yici(home, "up", "--without-airflow", "--json", **external).stdout)["credentials_file"]
        assert named == str(home / "credentials.json")
        assert named in yici(home, "up", "--without-airflow", **external).stderr
    finally:
        yici(home, "down", **external)
    assert services.processes(Home(home)) == []


@pytest.mark.e2e
@pytest.mark.slow
def test_up_on_the_operators_own_database(tmp_path: Path, postgres_url: str) -> None:
    """Nothing embedded is started, and `down` leaves the operator's server alone."""
    home, external = tmp_path / "home", {"YICI_DATABASE_URL": postgres_url.replace("+psycopg", "")}
    try:
        assert yici(home, "up", **external).returncode == 1, "no tables yet"
        assert yici(home, "db", "upgrade", **external).returncode == 0
        first = yici(home, "up", "--json", **external)
        assert first.returncode == 0, first.stderr
        assert set(json.loads(first.stdout)) == {"api", "airflow", "credentials_file"}
        assert yici(home, "up", "--json", **external).stdout == first.stdout, "what runs is left alone"
        assert not (home / "postgres").exists()
    finally:
        done = yici(home, "down", **external)
    assert done.returncode == 0
    assert services.processes(Home(home)) == []
    with psycopg.connect(external["YICI_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT count(*) FROM source").fetchone() == (0,)


@pytest.mark.parametrize("command", ["up", "down", "serve"])
def test_help_comes_without_starting_anything(tmp_path: Path, command: str) -> None:
    done = yici(tmp_path / "home", command, "--help")
    assert done.returncode == 0 and "Example" in done.stdout
    assert not (tmp_path / "home").exists()
