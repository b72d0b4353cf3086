"""The whole hub as background services: the store, the API, the exchange with other hubs, and Airflow's four parts."""

from __future__ import annotations

import importlib.util
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectors.errors import FatalError
from hub import database, orchestrator, services
from hub.home import Home, replace_json
from hub.services import Running

API_PORT = 8470
AIRFLOW_PORT = 8480
API = "api"
EXCHANGE = "exchange"
API_SERVER = "airflow-api-server"
# The scheduler runs through hub.orchestrator, which warms it for the tasks it forks.
AIRFLOW = {
    API_SERVER: ("airflow", "api-server"),
    "airflow-scheduler": ("hub.orchestrator", "scheduler", "--skip-serve-logs"),
    "airflow-dag-processor": ("airflow", "dag-processor"),
    "airflow-triggerer": ("airflow", "triggerer", "--skip-serve-logs"),
}
HEALTH = {"scheduler": "airflow-scheduler", "dag_processor": "airflow-dag-processor", "triggerer": "airflow-triggerer"}


def quiet(message: str) -> None:
    """Nothing is shown."""


@dataclass(frozen=True)
class Stack:
    """What :func:`start` set going. Addresses are base URLs without a path."""

    home: Home
    api: Running
    airflow: Running
    parts: dict[str, Running]
    exchange: Running | None = None

    def wait(self, say: Callable[[str], None] = quiet) -> None:
        """Until everything answers. FatalError names the part that does not, and its log."""
        services.wait(self.api, lambda: services.answers(f"{self.api.address}/readyz"))
        say(f"API {self.api.address}")
        wait_exchange(self.home, self.exchange, say)
        services.wait(self.airflow, lambda: services.answers(f"{self.airflow.address}/api/v2/version"))
        for component, name in HEALTH.items():
            services.wait(self.parts[name], lambda component=component: self._healthy(component))  # type: ignore[misc]
        say(f"Airflow {self.airflow.address}")

    def ended(self) -> list[Running]:
        """Parts that have ended although nobody stopped them."""
        parts = [self.api, *([self.exchange] if self.exchange else []), *self.parts.values()]
        return [part for part in parts if part.process() is None]

    def _healthy(self, component: str) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.airflow.address}/api/v2/monitor/health", timeout=10) as response:
                return bool(json.load(response)[component]["status"] == "healthy")
        except (OSError, ValueError, KeyError):
            return False


def start(home: Home, say: Callable[[str], None] = quiet) -> Stack:
    """Start what is not up yet and return at once; :meth:`Stack.wait` waits. Call it under :func:`services.exclusive`."""
    if importlib.util.find_spec("airflow") is None:
        raise FatalError("airflow-missing")
    known = services.running(home)
    dags = orchestrator.dags_folder()
    api = start_api(home, say)
    exchange = start_exchange(home, api)
    taken = [part.port or 0 for part in (api, exchange) if part]
    airflow_port = _port(known.get(API_SERVER)) or services.free_port(AIRFLOW_PORT, taken=taken)
    variables = {"YICI_DAGS": str(dags), **orchestrator.environment(home, airflow_port)}
    if not set(AIRFLOW) <= known.keys():
        orchestrator.prepare(home, services.environment(home, variables))
    parts = {}
    for name, (module, *arguments) in AIRFLOW.items():
        port = airflow_port if name == API_SERVER else None
        command = [sys.executable, "-m", module, *arguments]
        parts[name] = services.start(home, name, command, port=port, variables=variables)
    credentials(home, airflow={"username": orchestrator.USERNAME, "password": orchestrator.password(home)})
    return Stack(home, api, parts[API_SERVER], parts, exchange)


def start_api(home: Home, say: Callable[[str], None] = quiet) -> Running:
    """The store and the API alone, at the port of ``hub.json`` where it names one. Call it as :func:`start`."""
    known = services.running(home)
    database.engine()
    say("database")
    port = _port(known.get(API)) or services.free_port(int(home.identity("api_port") or API_PORT))
    command = [sys.executable, "-m", "hub", "serve", "--host", services.HOST, "--port", str(port)]
    return services.start(home, API, command, port=port)


def start_exchange(home: Home, api: Running, variables: Mapping[str, str] | None = None) -> Running | None:
    """The listener for other hubs, at the port of ``hub.json`` where it is free, and on its ``exchange_host``; a hub that does not
    say who it is has none. Call it after :func:`start_api`, as :func:`start`. ``variables``: of :func:`services.start`."""
    if home.identity("region") is None:
        return None
    from hub.exchange import cards

    known = services.running(home)
    wanted = int(home.identity("exchange_port") or cards.PORT)
    port = _port(known.get(EXCHANGE)) or services.free_port(wanted, taken=[api.port or 0])
    cards.settle(home, exchange_port=str(port))
    host = home.identity("exchange_host") or services.HOST
    command = [sys.executable, "-m", "hub", "exchange", "serve", "--host", host, "--port", str(port)]
    return services.start(home, EXCHANGE, command, port=port, variables=variables)


def wait_exchange(home: Home, exchange: Running | None, say: Callable[[str], None] = quiet) -> str | None:
    """Until it answers; its address. FatalError as :meth:`Stack.wait`."""
    if exchange is None:
        return None
    from hub.exchange import wire

    address = f"https://{home.identity('exchange_host') or services.HOST}:{exchange.port}"
    services.wait(exchange, lambda: wire.alive(home, exchange.port or 0))
    say(f"exchange {address}")
    return address


def credentials(home: Home, **parts: dict[str, str]) -> Path:
    """Write ``parts`` into ``credentials.json`` (0600), beside what it holds already; the path is returned."""
    path = home.path / "credentials.json"
    replace_json(path, {**read_credentials(home), **parts})
    return path


def read_credentials(home: Home) -> dict[str, Any]:
    try:
        return dict(json.loads((home.path / "credentials.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def _port(service: Running | None) -> int | None:
    return service.port if service else None
