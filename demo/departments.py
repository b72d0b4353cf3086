"""The demo's departments: their data, their servers, and the connections through which the hub reaches them."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Any

from connectors import source as sources
from connectors.source import Source
from demo import marriage_database, sftp_server, synthesis
from hub import embedded, services
from hub.home import Home, replace_json, write_secret
from hub.services import Running

PARAMETERS = synthesis.Parameters(people=20_000, companies=6000, seed=20260101)
PROVINCES = ("sh", "js", "zj", "ah")
# Departments that speak HTTP: the module that serves them, its part of the data, and the port asked for.
WEB = {"demo-police": ("police_server", 8490), "demo-education": ("degree_server", 8491)}
BUCKET, BUCKET_PORT = "demo-health", 8492
SFTP, SFTP_PORT = "demo-sftp", 8493
SHARES = {"sh-hrss": "hrss/sh", "zj-hrss": "hrss/zj", "sh-mnr": "mnr"}
CREDENTIALS = ("YICI_DEMO_CLIENT_ID", "YICI_DEMO_CLIENT_SECRET")
BUCKET_NAME, PREFIX, BUCKET_REGION = "nhc-births", "certificates", "us-east-1"
# Connections of Shanghai's hub, and of Zhejiang's; the registers of enterprises are public, everybody reads them.
SHANGHAI = (
    "sh-ga",
    "sh-moe",
    "sh-mca",
    "sh-nhc",
    "sh-hrss",
    "sh-mnr",
    *(f"{name}-amr" for name in PROVINCES),
    "cn-nia",
    "cn-samr",
)
ZHEJIANG = ("zj-amr", "zj-ga", "zj-hrss")
Entries = dict[str, dict[str, Any]]


def make(home: Home) -> Path:
    """The synthetic data in ``demo/`` of the home; what is there already is kept. Returns the folder."""
    return synthesis.synthesise(PARAMETERS, home.path / "demo").folder


def open_all(home: Home, folder: Path) -> tuple[list[Running], Entries]:
    """Start the departments; also returns what ``connections.json`` of a hub says of each."""
    secret = _secret(home)
    login = dict(zip(CREDENTIALS, ("yici", secret), strict=True))
    web = {
        name: _start(home, name, port, [f"demo.{module}", "--data", str(folder)], login)
        for name, (module, port) in WEB.items()
    }
    births = ["demo.bucket_server", "--data", str(folder / "nhc" / "certificates"), "--bucket", BUCKET_NAME]
    bucket = _start(home, BUCKET, BUCKET_PORT, [*births, "--prefix", PREFIX, "--region", BUCKET_REGION], login)
    sftp, host_key = _share(home, folder, secret)
    address, user = _without_password(
        marriage_database.prepare(
            embedded.url(home, "postgres"), folder / "mca" / "marriages.csv", password=secret
        )
    )  # fmt: skip
    key = {"username": "yici", "password": secret}
    store = {"endpoint_url": bucket.address, "region": BUCKET_REGION}
    entries: Entries = {
        "sh-ga": {"url": web["demo-police"].address, **key},
        "sh-moe": {"url": web["demo-education"].address, **key},
        "sh-mca": {"url": address, "username": user, "password": secret},
        "sh-nhc": {"url": f"s3://{BUCKET_NAME}/{PREFIX}", **key, "extra": store},
        **{
            share: {
                "url": f"sftp://{services.HOST}:{sftp.port}/",
                "username": share,
                "password": secret,
                "extra": {"host_key": host_key},
            }
            for share in SHARES
        },
        **{f"{province}-amr": {"url": str(folder / "amr" / province)} for province in PROVINCES},
        "zj-ga": {"url": str(folder / "ga-zj")},
        "cn-nia": {"url": str(folder / "nia")},
        "cn-samr": {"url": str(folder / "samr")},
    }
    return [*web.values(), bucket, sftp], entries


def wait(running: list[Running]) -> None:
    """Until the departments' servers answer."""
    for server in running:
        services.wait(server, lambda server=server: _answers(server))  # type: ignore[misc]


def all_sources() -> list[Source]:
    """The packaged sources that Shanghai's hub runs in the demo, by name; the partner hub's index among them."""
    packaged = sources.all_sources(sources.PACKAGED)
    return [source for source in packaged if source.connection in SHANGHAI or source.connector == "hub"]


def _start(home: Home, name: str, port: int, arguments: list[str], variables: dict[str, str]) -> Running:
    free = _port(home, name, port)
    command = [sys.executable, "-m", *arguments, "--port", str(free)]
    return services.start(home, name, command, port=free, variables=variables)


def _port(home: Home, name: str, port: int) -> int:
    """The port of a server that is up already, else a free one that no other service is about to take."""
    known = services.running(home)
    if name in known:
        return known[name].port or port
    return services.free_port(port, taken=[service.port for service in known.values() if service.port])


def _share(home: Home, folder: Path, secret: str) -> tuple[Running, str]:
    port = _port(home, SFTP, SFTP_PORT)
    key = home.keys / "demo.sftp"
    line = sftp_server.host_key(key)
    command = sftp_server.command(port, key, {name: folder / place for name, place in SHARES.items()})
    variables = {sftp_server.variable(name): secret for name in SHARES}
    return services.start(home, SFTP, command, port=port, variables=variables), line


def _answers(server: Running) -> bool:
    if server.name == SFTP:
        return sftp_server.answers(server.port or 0)
    return services.answers(f"{server.address}/healthz")


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


def connect(home: Home, entries: Entries) -> None:
    """Write ``connections.json`` (0600); entries of other sources in it stay."""
    path = home.path / "connections.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        known = {}
    replace_json(path, {**known, **entries})
