"""What Airflow's OpenLineage provider is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hub import openlineage
from hub.home import Home

TRANSLATE = """
import json
from airflow.sdk import Asset
from airflow.providers.openlineage.utils.utils import translate_airflow_asset
found = translate_airflow_asset(Asset("yici://holdings/business-licence", group="yici"), None)
print(json.dumps([found.namespace, found.name]))
"""
PLACES = [
    ("OPENLINEAGE_URL", "http://127.0.0.1:5000", None),
    ("OPENLINEAGE__TRANSPORT__TYPE", "console", None),
    ("AIRFLOW__OPENLINEAGE__TRANSPORT", '{"type": "console"}', '{"type": "console"}'),
]


def test_assets_become_datasets_through_airflow_itself(tmp_path: Path) -> None:
    """Airflow finds Yici as a provider and asks it."""
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "YICI_HUB": "sh"}
    done = subprocess.run(
        [sys.executable, "-c", TRANSLATE], capture_output=True, text=True, env=environment, timeout=60, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == ["yici://sh", "holdings/business-licence"]


def test_events_go_to_the_home_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if "OPENLINEAGE" in name:
            monkeypatch.delenv(name)
    monkeypatch.delenv("YICI_HUB", raising=False)
    chosen = openlineage.settings(Home(tmp_path))
    assert json.loads(chosen["transport"])["log_file_path"] == str(tmp_path / "logs" / "openlineage.jsonl")
    assert chosen["namespace"] == "yici://hub" and chosen["disable_source_code"] == "True"


@pytest.mark.parametrize(("name", "value", "kept"), PLACES)
def test_a_place_the_operator_named_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, kept: str | None
) -> None:
    monkeypatch.setenv(name, value)
    assert openlineage.settings(Home(tmp_path)).get("transport") == kept
