"""Airflow's settings: real sign-in, loopback only, secrets of this home, an operator's own settings where they count."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.errors import FatalError
from hub import orchestrator
from hub.home import Home

OWN = "postgresql://hub@db.example/yici"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("YICI_DATABASE_URL", OWN)
    monkeypatch.delenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", raising=False)
    monkeypatch.delenv("YICI_DAGS", raising=False)
    here = Home(tmp_path / "home")
    here.create()
    return here


def test_everybody_signs_in_with_a_password_of_this_home(home: Home, tmp_path: Path) -> None:
    settings = orchestrator.environment(home, 8480)
    assert settings["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "False"
    passwords = Path(settings["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    assert passwords.stat().st_mode & 0o777 == 0o600
    assert orchestrator.password(home) == orchestrator.password(home)
    assert orchestrator.password(home) != orchestrator.password(Home(tmp_path / "other"))


def test_secrets_differ_by_purpose_and_home_and_last(home: Home, tmp_path: Path) -> None:
    names = ("AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__CORE__FERNET_KEY")
    first = orchestrator.environment(home, 8480)
    other = orchestrator.environment(Home(tmp_path / "other"), 8480)
    assert len({settings[name] for name in names for settings in (first, other)}) == 6
    assert {name: first[name] for name in names} == {name: orchestrator.environment(home, 1)[name] for name in names}


def test_the_api_server_listens_on_this_machine_only(home: Home) -> None:
    settings = orchestrator.environment(home, 8481)
    assert settings["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert settings["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8481/execution/"


def test_metadata_go_beside_the_store_or_where_the_operator_says(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert orchestrator.database_url(home) == "postgresql+psycopg://hub@db.example/airflow"
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql+psycopg2://hub@db.example/flow")
    settings = orchestrator.environment(home, 8480)
    assert settings["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].endswith("/flow")
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC" not in settings


def test_the_operators_settings_win_on_the_operators_database(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "64")
    assert orchestrator.environment(home, 8480)["AIRFLOW__CORE__PARALLELISM"] == "64"


def test_missing_dags_are_said(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YICI_DAGS", str(tmp_path / "none"))
    with pytest.raises(FatalError) as caught:
        orchestrator.environment(home, 8480)
    assert caught.value.code == "dags-missing"
