"""Zhejiang's hub: a second Yici beside Shanghai's, with a home, a database, keys and addresses of its own.

Its home is ``hubs/zj`` in Shanghai's, so that stopping Shanghai's services stops it too (:func:`hub.services.stop_all`). It
runs its sources in a process of its own, without Airflow, and announces what it holds to Shanghai under an agreement. The two
take each other's cards from a file, as operators do; all else goes over their listeners.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectors import source as sources
from connectors.errors import FatalError
from demo import neighbour_runs
from hub import database, services, stack
from hub.exchange import agreement_acts, agreements, cards
from hub.home import Home, replace_json
from hub.services import Running

NAME, REGION, TITLE = "zj", "330000", "浙江省数据局"
SOURCES = ("zj-amr-enterprises", "zj-ga-households", "zj-hrss-insurance")
API_PORT, EXCHANGE_PORT = 8570, 8590
RUNS = "runs"
RUNS_SECONDS = 900.0
ACTOR = "make demo"


@dataclass(frozen=True)
class Neighbour:
    """The second hub as it was started. ``api``: its address; ``exchange``: its listener for other hubs; ``runs``: the process
    that runs its sources."""

    home: Home
    api: Running
    exchange: Running
    runs: Running
    names: tuple[str, ...]

    def wait(self) -> list[dict[str, Any]]:
        """Until it answers and its sources have run; what became of each run, as ``yici run --json`` says it.

        FatalError of :func:`hub.services.wait` names the log.
        """
        services.wait(self.api, lambda: services.answers(f"{self.api.address}/readyz"))
        stack.wait_exchange(self.home, self.exchange, variables=_variables())
        done = self.home.path / "runs.json"
        try:
            services.wait(self.runs, lambda: False, RUNS_SECONDS)
        except FatalError as ended:  # as it should, once the file is there
            if ended.code != "service-ended" or not done.is_file():
                raise
        found: list[dict[str, Any]] = json.loads(done.read_text(encoding="utf-8"))
        return found

    def agree(self) -> str:
        """An agreement in force under which Shanghai, the hub of this process, reads what it announces and holds; its reference. One
        that says the same is kept. Call it after :meth:`wait`, with Shanghai's listener up."""
        with database.engine().begin() as connection:
            neighbour_runs.acquaint(connection, neighbour_runs.card_of(self.home.path).read_bytes())
        return self.agreed(neighbour_runs.terms_of(self.home.path), provider=False)

    def agreed(self, terms: Path, *, provider: bool) -> str:
        """What the file ``terms`` says, in force: proposed from here and accepted there, where it is not in force already.
        ``provider``: whether Shanghai gives."""
        with database.engine().connect() as connection:
            known = agreements.every(connection, NAME)
        live = next((row for row in known if row.state == "in_force" and row.provider is provider), None)
        if live is not None and neighbour_runs.same(terms, agreements.opened(live).terms):
            return f"{live.id}/{live.version}"
        if live is not None:
            named = json.loads(terms.read_text(encoding="utf-8")) | {"id": str(live.id)}
            replace_json(terms, named)
        done = agreement_acts.propose(NAME, terms, ACTOR)
        if done.problem is not None:
            raise done.problem
        if reported(self.begin("agreement", "accept", done.agreement, "--yes"))["state"] != "in_force":
            raise FatalError("neighbour-agreement", agreement=done.agreement)
        return done.agreement

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin one of its own commands, ``yici … --json`` in its home, for :func:`reported`."""
        command = [sys.executable, "-m", "hub", *arguments, "--json"]
        environment = services.environment(self.home, _variables())
        return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def reported(process: subprocess.Popen[str]) -> Any:
    """What a command printed as JSON, also where its exit code is not 0. FatalError ``neighbour-command`` where it printed an error or
    nothing."""
    output, errors = process.communicate()
    name = " ".join(map(str, process.args[2:5]))  # type: ignore[index]
    try:
        said = json.loads(output)
    except ValueError:
        said = {"error": {"message": (errors.strip().splitlines() or ["-"])[-1]}}
    if isinstance(said, dict) and "error" in said:
        error = said["error"]
        raise FatalError("neighbour-command", command=name, reason=error.get("message") or error.get("code") or "-")
    return said


def home_of(main: Home) -> Home:
    """The home of the second hub."""
    return Home(main.path / "hubs" / NAME)


def start(main: Home, entries: Mapping[str, Mapping[str, Any]], names: Sequence[str] = SOURCES) -> Neighbour:
    """Start the second hub and its runs, and return at once; what runs already is left alone.

    ``entries``: connections of its departments by name. Of ``names`` those run that exist and have a connection. ``main`` is the
    current home and knows where its own listener is. Call it under :func:`hub.services.exclusive` of ``main``.
    """
    here = home_of(main)
    (main.path / "hubs").mkdir(exist_ok=True, mode=0o711)
    here.create()
    described = [source for source in sources.readable(sources.PACKAGED)[0] if source.name in names]
    chosen = tuple(source.name for source in described if source.connection in entries)
    replace_json(here.path / "connections.json", dict(entries))
    replace_json(neighbour_runs.peer_of(here.path), cards.own())
    with services.exclusive(here):
        known = services.running(here)
        port = known[stack.API].port if stack.API in known else None
        port = port or services.free_port(int(here.identity("api_port") or API_PORT))
        wanted = here.identity("exchange_port") or str(EXCHANGE_PORT)
        here.remember(hub=NAME, region=REGION, title=TITLE, api_port=str(port), exchange_port=wanted)
        serve = [sys.executable, "-m", "hub", "serve", "--host", services.HOST, "--port", str(port)]
        api = services.start(here, stack.API, serve, port=port, variables=_variables())
        exchange = stack.start_exchange(here, _variables())
        assert exchange is not None  # it has just been told its region
        if RUNS not in known:
            (here.path / "runs.json").unlink(missing_ok=True)
        command = [sys.executable, "-m", "demo.neighbour_runs", *chosen]
        runs = services.start(here, RUNS, command, variables=_variables())
    return Neighbour(here, api, exchange, runs, chosen)


def _variables() -> dict[str, str]:
    """Nothing that the caller names is this hub's: its home says who it is."""
    return dict.fromkeys(("YICI_HUB", "YICI_REGION", "YICI_DATABASE_URL", "YICI_LANDING_URL"), "")
