"""The whole hub as background services: the store, the API, the exchange with other hubs, and Airflow's four parts."""

from __future__ import annotations

import importlib.util
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectors.errors import FatalError
from hub import catalogue, database, orchestrator, services
from hub.home import Home, replace_json
from hub.services import Running

API_PORT = 8470
AIRFLOW_PORT = 8480
API = "api"
EXCHANGE = "exchange"
RESTART_SECONDS = 15.0  # that requests under way may take to end
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


@dataclass
class Stack:
    """What :func:`start` set going. Addresses are base URLs without a path, and stand once :meth:`wait` has returned."""

    home: Home
    api: Running
    airflow: Running
    parts: dict[str, Running]
    exchange: Running | None = None

    def wait(self, say: Callable[[str], None] = quiet) -> None:
        """Until everything answers; what lost its port to another process meanwhile is started anew on the next free one.

        FatalError names the part that does not answer, and its log.
        """
        self.api = wait_api(self.home, self.api, say)
        self.exchange = wait_exchange(self.home, self.exchange, say)
        self.airflow = services.settled(
            self.airflow, lambda part: services.answers(f"{part.address}/api/v2/version"), self._moved
        )
        for component, name in HEALTH.items():
            services.wait(self.parts[name], lambda component=component: self._healthy(component))  # type: ignore[misc]
        say(f"Airflow {self.airflow.address}")

    def ended(self) -> list[Running]:
        """Parts that have ended although nobody stopped them."""
        parts = [self.api, *([self.exchange] if self.exchange else []), *self.parts.values()]
        return [part for part in parts if part.process() is None]

    def _moved(self, lost: list[int]) -> Running:
        """Every part of Airflow knows its address, so all of them start anew."""
        services.stop(list(self.parts.values()))
        self.parts = _airflow(self.home, lost)
        return self.parts[API_SERVER]

    def _healthy(self, component: str) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.airflow.address}/api/v2/monitor/health", timeout=10) as response:
                return bool(json.load(response)[component]["status"] == "healthy")
        except (OSError, ValueError, KeyError):
            return False


def start(home: Home, say: Callable[[str], None] = quiet, preferred: int | None = None) -> Stack:
    """Start what is not up yet and return at once; :meth:`Stack.wait` waits. ``preferred``: port of the API. Call it under
    :func:`services.exclusive`."""
    require_airflow()
    api = start_api(home, say, preferred)
    exchange = start_exchange(home)
    parts = _airflow(home)
    credentials(home, airflow={"username": orchestrator.USERNAME, "password": orchestrator.password(home)})
    return Stack(home, api, parts[API_SERVER], parts, exchange)


def _airflow(home: Home, lost: Sequence[int] = ()) -> dict[str, Running]:
    """Airflow's parts by name. ``lost``: ports that others got first."""
    known = services.running(home)
    airflow_port = _port(home, API_SERVER, AIRFLOW_PORT, lost)
    variables = {"YICI_DAGS": str(orchestrator.dags_folder()), **orchestrator.environment(home, airflow_port)}
    if not set(AIRFLOW) <= known.keys():
        orchestrator.prepare(home, services.environment(home, variables))
    parts = {}
    for name, (module, *arguments) in AIRFLOW.items():
        port = airflow_port if name == API_SERVER else None
        command = [sys.executable, "-m", module, *arguments]
        parts[name] = services.start(home, name, command, port=port, variables=variables)
    return parts


def require_airflow() -> None:
    """That Airflow could be started. FatalError ``airflow-missing``, ``dags-missing``."""
    if importlib.util.find_spec("airflow") is None:
        raise FatalError("airflow-missing")
    orchestrator.dags_folder()


def outdated(home: Home) -> Running | None:
    """The API of this home where it runs and has loaded another catalogue than the files say. FatalError as
    :func:`hub.catalogue.digest`."""
    api = services.running(home).get(API)
    said = services.answered(f"{api.address}/healthz") if api else None
    if said is None:
        return None
    try:
        loaded = json.loads(said).get("catalogue")
    except (ValueError, AttributeError):
        loaded = None
    return None if loaded == catalogue.digest() else api


def end_outdated(home: Home, say: Callable[[str], None] = quiet) -> int | None:
    """End the API, and the exchange with it, where it has loaded another catalogue than the files say; the port it had."""
    api = outdated(home)
    if api is None:
        return None
    say("API: another catalogue 目录已更新")
    known = services.running(home)
    services.stop([known[name] for name in (API, EXCHANGE) if name in known], grace=RESTART_SECONDS)
    return api.port


def start_api(
    home: Home, say: Callable[[str], None] = quiet, preferred: int | None = None, *, lost: Sequence[int] = ()
) -> Running:
    """The store and the API alone, at the preferred port, else the one that ``hub.json`` names. Call it as :func:`start`.

    ``lost``: ports that others got first.
    """
    database.engine()
    say("database")
    port = _port(home, API, preferred or int(home.identity("api_port") or API_PORT), lost)
    command = [sys.executable, "-m", "hub", "serve", "--host", services.HOST, "--port", str(port)]
    return services.start(home, API, command, port=port)


def wait_api(home: Home, api: Running, say: Callable[[str], None] = quiet) -> Running:
    """The API once it answers, started anew where it lost its port. FatalError as :meth:`Stack.wait`."""
    answering = services.settled(
        api,
        lambda service: services.answers(f"{service.address}/readyz"),
        lambda lost: start_api(home, say, lost=lost),
    )
    say(f"API {answering.address}")
    return answering


def start_exchange(
    home: Home, variables: Mapping[str, str] | None = None, *, lost: Sequence[int] = ()
) -> Running | None:
    """The listener for other hubs, at the port of ``hub.json`` where it is free, and on its ``exchange_host``; a hub that does not
    say who it is has none. Call it after :func:`start_api`, as :func:`start`. ``variables``: of :func:`services.start`;
    ``lost``: ports that others got first."""
    if home.identity("region") is None:
        return None
    from hub.exchange import cards

    host = home.identity("exchange_host") or services.HOST
    port = _port(home, EXCHANGE, int(home.identity("exchange_port") or cards.PORT), lost, host)
    cards.settle(home, exchange_port=str(port))
    command = [sys.executable, "-m", "hub", "exchange", "serve", "--host", host, "--port", str(port)]
    return services.start(home, EXCHANGE, command, port=port, host=host, variables=variables)


def wait_exchange(
    home: Home,
    exchange: Running | None,
    say: Callable[[str], None] = quiet,
    variables: Mapping[str, str] | None = None,
) -> Running | None:
    """The listener once it answers, started anew where it lost its port. FatalError as :meth:`Stack.wait`."""
    if exchange is None:
        return None
    from hub.exchange import wire

    def again(lost: list[int]) -> Running:
        begun = start_exchange(home, variables, lost=lost)
        assert begun is not None  # it was there before
        return begun

    answering = services.settled(exchange, lambda service: wire.alive(home, service.port or 0), again)
    say(f"exchange {exchange_address(answering)}")
    return answering


def exchange_address(exchange: Running) -> str:
    """Where other hubs reach it, as far as this machine knows."""
    return f"https://{exchange.host}:{exchange.port}"


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


def _port(home: Home, name: str, wanted: int, lost: Sequence[int], host: str = services.HOST) -> int:
    """That of the service where it is up; else ``wanted``, or the next that is free and that no other service here is about to take."""
    known = services.running(home)
    if name in known:
        return known[name].port or wanted
    beside = [service.port for service in known.values() if service.port]
    return services.free_port(wanted, taken=[*lost, *beside], host=host)
