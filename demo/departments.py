"""The demo's departments: their data, their servers, and the connections through which the hub reaches them."""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from connectors import source as sources
from connectors.source import Source
from demo import marriage_database, synthesis
from hub import embedded, services
from hub.home import Home, write_secret
from hub.services import Running

PARAMETERS = synthesis.Parameters(people=2000, companies=6000, seed=20260101)
POLICE = "demo-police"
POLICE_PORT = 8490
PROVINCES = ("sh", "js", "zj", "ah")


def make(home: Home) -> Path:
    """The synthetic data in ``demo/`` of the home; what is there already is kept. Returns the folder."""
    return synthesis.synthesise(PARAMETERS, home.path / "demo").folder


def open_all(home: Home, folder: Path) -> list[Running]:
    """Start the departments and write ``connections.json``; entries of other sources in it stay."""
    secret = _secret(home)
    port = known.port if (known := services.running(home).get(POLICE)) else services.free_port(POLICE_PORT)
    command = [sys.executable, "-m", "demo.police_server", "--data", str(folder), "--port", str(port)]
    variables = {"YICI_DEMO_CLIENT_ID": "yici", "YICI_DEMO_CLIENT_SECRET": secret}
    police = services.start(home, POLICE, command, port=port, variables=variables)
    marriages = marriage_database.prepare(
        embedded.url(home, "postgres"), folder / "mca" / "marriages.csv", password=_secret(home)
    )
    address, user = _without_password(marriages)
    entries: dict[str, dict[str, Any]] = {
        "sh-ga": {"url": police.address, "username": "yici", "password": secret},
        "sh-mca": {"url": address, "username": user, "password": secret},
        **{f"{province}-amr": {"url": str(folder / "amr" / province)} for province in PROVINCES},
    }
    _connect(home, entries)
    return [police]


def wait(running: list[Running]) -> None:
    """Until the departments' servers answer."""
    for server in running:
        services.wait(server, lambda server=server: services.answers(f"{server.address}/healthz"))  # type: ignore[misc]


def all_sources() -> list[Source]:
    """The packaged sources that a department of the demo serves, by name."""
    served = {"sh-ga", "sh-mca", *(f"{province}-amr" for province in PROVINCES)}
    return [source for source in sources.all_sources(sources.PACKAGED) if source.connection in served]


def _secret(home: Home) -> str:
    """What the demo departments know the hub by, made on first use."""
    path = home.keys / "demo.department"
    if not path.exists():
        home.create()
        write_secret(path, secrets.token_urlsafe(24).encode())
    return path.read_text()


def _without_password(url: str) -> tuple[str, str]:
    from sqlalchemy.engine import make_url

    parts = make_url(url)
    return parts.set(password=None).render_as_string(), parts.username or ""


def _connect(home: Home, entries: dict[str, dict[str, Any]]) -> None:
    path = home.path / "connections.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        known = {}
    draft = path.with_name(f".connections.{os.getpid()}.{secrets.token_hex(4)}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump({**known, **entries}, file, indent=2, ensure_ascii=False)
    draft.replace(path)
