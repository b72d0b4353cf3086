"""The exchange as a background service, and what a whole start of it shows."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from hub import services, stack
from hub.exchange import wire
from hub.home import Home
from tests.test_cli_services import yici


@pytest.mark.slow
def test_up_starts_it_where_the_hub_says_who_it_is() -> None:
    with tempfile.TemporaryDirectory(prefix="yici-test-") as folder:
        Path(folder).chmod(0o711)
        home = Home(Path(folder) / "home")
        try:
            unnamed = yici(home.path, "up", "--without-airflow", "--json")
            assert unnamed.returncode == 0, unnamed.stderr
            assert "exchange" not in json.loads(unnamed.stdout)
            named = yici(home.path, "up", "--without-airflow", "--json", YICI_HUB="sh", YICI_REGION="310000")
            assert named.returncode == 0, named.stderr
            address = json.loads(named.stdout)["exchange"]
            running = services.running(home)[stack.EXCHANGE]
            assert address == f"https://127.0.0.1:{running.port}" and wire.alive(home, running.port or 0)
            card = yici(home.path, "peer", "card", YICI_HUB="sh", YICI_REGION="310000")
            assert json.loads(card.stdout)["addresses"] == [address]
        finally:
            yici(home.path, "down")
        assert services.processes(home) == [] and not wire.alive(home, running.port or 0)
