"""Zhejiang's hub: a second Yici beside Shanghai's, with a home, a database, keys and an address of its own.

Its home is ``hubs/zj`` in Shanghai's, so that stopping Shanghai's services stops it too (:func:`hub.services.stop_all`). It
runs its sources in a process of its own, without Airflow, and announces what it holds in its index feed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connectors import source as sources
from connectors.errors import FatalError
from demo import neighbour_runs
from hub import services, stack
from hub.home import Home, replace_json
from hub.services import Running

NAME, REGION, PEER = "zj", "330000", "sh"
SOURCES = ("zj-amr-enterprises", "zj-ga-households", "zj-hrss-insurance")
API_PORT = 8570
RUNS = "runs"
RUNS_SECONDS = 900.0


@dataclass(frozen=True)
class Neighbour:
    """The second hub as it was started. ``api``: its address; ``runs``: the process that runs its sources."""

    home: Home
    api: Running
    runs: Running
    names: tuple[str, ...]

    def wait(self) -> list[dict[str, Any]]:
        """Until its API answers and its sources have run; what became of each run, as ``yici run --json`` says it.

        FatalError of :func:`hub.services.wait` names the log.
        """
        services.wait(self.api, lambda: services.answers(f"{self.api.address}/readyz"))
        done = self.home.path / "runs.json"
        try:
            services.wait(self.runs, lambda: False, RUNS_SECONDS)
        except FatalError as ended:  # as it should, once the file is there
            if ended.code != "service-ended" or not done.is_file():
                raise
        found: list[dict[str, Any]] = json.loads(done.read_text(encoding="utf-8"))
        return found

    def connection(self) -> dict[str, Any]:
        """The entry for the connections of Shanghai's hub; it holds secrets. Call it after :meth:`wait`."""
        told = json.loads(neighbour_runs.told_to(self.home.path, PEER).read_text(encoding="utf-8"))
        return {"url": self.api.address, **told}


def home_of(main: Home) -> Home:
    """The home of the second hub."""
    return Home(main.path / "hubs" / NAME)


def start(main: Home, entries: Mapping[str, Mapping[str, Any]], names: Sequence[str] = SOURCES) -> Neighbour:
    """Start the second hub and its runs, and return at once; what runs already is left alone.

    ``entries``: connections of its departments by name. Of ``names`` those run that exist and have a connection. Call it
    under :func:`hub.services.exclusive` of ``main``.
    """
    here = home_of(main)
    (main.path / "hubs").mkdir(exist_ok=True, mode=0o711)
    here.create()
    described = [source for source in sources.readable(sources.PACKAGED)[0] if source.name in names]
    chosen = tuple(source.name for source in described if source.connection in entries)
    replace_json(here.path / "connections.json", dict(entries))
    with services.exclusive(here):
        known = services.running(here)
        port = known[stack.API].port if stack.API in known else None
        port = port or services.free_port(int(here.identity("api_port") or API_PORT))
        here.remember(hub=NAME, region=REGION, api_port=str(port))
        serve = [sys.executable, "-m", "hub", "serve", "--host", services.HOST, "--port", str(port)]
        api = services.start(here, stack.API, serve, port=port, variables=_variables())
        if RUNS not in known:
            (here.path / "runs.json").unlink(missing_ok=True)
        command = [sys.executable, "-m", "demo.neighbour_runs", PEER, *chosen]
        runs = services.start(here, RUNS, command, variables=_variables())
    return Neighbour(here, api, runs, chosen)


def _variables() -> dict[str, str]:
    """Nothing that the caller names is this hub's: its home says who it is."""
    return dict.fromkeys(("YICI_HUB", "YICI_REGION", "YICI_DATABASE_URL", "YICI_LANDING_URL"), "")
