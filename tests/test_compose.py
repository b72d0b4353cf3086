"""The container files: valid to the client, complete, and without a default secret."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD")


def composer() -> list[str]:
    """The plugin where the client has it, else the older command of its own; either validates without an engine."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            found = subprocess.run([*command, "version"], capture_output=True, check=False)
            if found.returncode == 0:
                return command
    pytest.skip("neither `docker compose` nor `docker-compose` is installed: docker-compose.yml was not validated")


def config(**variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in SECRETS} | variables
    command = [*composer(), "-f", str(ROOT / "docker-compose.yml"), "config"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def services() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"])


def test_compose_file_is_valid_and_asks_for_its_secrets() -> None:
    done = config(POSTGRES_PASSWORD="one", REDIS_PASSWORD="two")
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == set(services())
    for name in SECRETS:
        refused = config(**{other: "one" for other in SECRETS if other != name})
        assert refused.returncode != 0 and name in refused.stderr, "there is no default password"


def test_a_hub_with_celery_and_a_neighbour() -> None:
    parts = services()
    assert {
        "postgres",
        "redis",
        "api",
        "airflow-scheduler",
        "airflow-worker",
        "neighbour-api",
        "exchange",
        "neighbour-exchange",
    } <= set(parts)
    assert parts["neighbour-exchange"]["environment"] == parts["neighbour-api"]["environment"]
    assert parts["exchange"]["environment"] == parts["api"]["environment"]
    environment = parts["airflow-worker"]["environment"]
    assert environment["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
    assert "@redis:" in environment["AIRFLOW__CELERY__BROKER_URL"]
    neighbour = parts["neighbour-api"]["environment"]
    assert neighbour["YICI_REGION"] != environment["YICI_REGION"]
    assert neighbour["YICI_DATABASE_URL"] != environment["YICI_DATABASE_URL"]
    assert not set(parts["neighbour-api"]["volumes"]) & set(parts["api"]["volumes"]), "keys of its own"
    published = [port for part in parts.values() for port in part.get("ports", ())]
    assert published and all(port.startswith("127.0.0.1:") for port in published)


def test_what_is_deployed_is_published_before_it_is_served() -> None:
    parts = services()
    for command, then in (
        (parts["migrate"]["command"], "airflow db migrate"),
        (parts["neighbour-api"]["command"], "yici serve"),
    ):
        assert "sh -ec" in command, "what fails ends it"
        assert command.index("yici db upgrade") < command.index("yici items publish") < command.index(then)
    assert parts["api"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}


def test_image_holds_every_package_and_the_lock() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    copied = set()
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            copied |= set(line.split()[1:-1])
    assert {*packages, "dags", "requirements.lock"} <= copied
    assert all((ROOT / name).exists() for name in copied)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed, "what the image copies is what the build context holds"


def test_image_runs_a_python_that_is_tested() -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    (version,) = re.findall(r"^FROM python:(3\.\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert f"Programming Language :: Python :: {version}" in classifiers
