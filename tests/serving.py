"""The API as a real uvicorn server in a thread, on a free port, and a client that has an agreement with it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI

from hub import agreements, database, embedded
from hub.api.app import create
from hub.api.wire import Wire
from hub.home import Home
from tests import stored

LICENCE = f"cn.uscc:{stored.LICENCE_CODE}"
ITEMS = ["demo-food-permit", "demo-elder-card"]
LOADED = "511Z07001006-511602000000"
FORM = {"grant_type": "client_credentials"}


@contextlib.contextmanager
def own_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A PostgreSQL server that nobody else uses, to be stopped and killed, and an empty store on it that the settings name."""
    folder = Path(tempfile.mkdtemp(prefix="yici-test-"))  # pytest's own folder is closed to the database's user
    folder.chmod(0o711)
    server = Home(folder / "server")
    try:
        admin = sa.create_engine(embedded.url(server, "postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(sa.text("CREATE DATABASE hub"))
        admin.dispose()
        monkeypatch.setenv("YICI_HOME", str(folder / "home"))
        monkeypatch.setenv("YICI_DATABASE_URL", embedded.url(server, "hub"))
        monkeypatch.setenv("YICI_LANG", "en")
        database.upgrade()
        yield server
    finally:
        database.engine().dispose()
        embedded.release(server)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Base URL of the running server."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, http=Wire, access_log=False, log_level="warning", lifespan="off", timeout_graceful_shutdown=5,
            proxy_headers=False,
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            deadline = time.monotonic() + 30
            while not server.started:
                assert time.monotonic() < deadline and thread.is_alive(), "the server did not start"
                time.sleep(0.02)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


class Hub:
    """A served hub and a client that has an agreement with it."""

    def __init__(self, base: str, app: FastAPI, *items: str) -> None:
        self.base = base
        self.app = app
        self.secret = agreements.add("hall-1", None, "Hall", [*ITEMS, *items], ["handle"])
        self.session = requests.Session()
        self.session.trust_env = False

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.session.get(self.base + path, timeout=30, **more)

    def post(self, path: str, **more: Any) -> requests.Response:
        return self.session.post(self.base + path, timeout=30, **more)

    def sign_in(self) -> Hub:
        answer = self.post("/oauth2/token", data=FORM, auth=("hall-1", self.secret))
        assert answer.status_code == 200, answer.text
        self.session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return self

    def lookup(self, **more: Any) -> requests.Response:
        return self.post("/v1/lookups", json={"items": ["demo-food-permit"], "id": LICENCE, **more})


@contextlib.contextmanager
def filled_hub(store: sa.Engine) -> Iterator[Hub]:
    """A hub that holds one licence and knows one item by name only."""
    stored.source(store, "sh-amr-enterprises", "business-licence")
    stored.holding(
        store,
        "sh-amr-enterprises",
        "business-licence",
        ("holder", "cn.uscc", stored.LICENCE_CODE),
        file="2019-上海.csv",
    )
    stored.source(store, "sc-guangan-items", "service-item", region="511602")
    stored.holding(store, "sc-guangan-items", "service-item", number=LOADED, name="项目备案")
    app = create()
    with served(app) as base:
        yield Hub(base, app, LOADED)


def problem(answer: requests.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of ``answer``, which names nobody."""
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    body = answer.json()
    assert (body["code"], body["status"], body["type"]) == (code, status, f"urn:yici:problem:{code}")
    assert body["fault"] in ("caller", "hub", "partner")
    for value in (stored.LICENCE_CODE, stored.RESIDENT, "91310117MA1J3AJ43X", "Traceback"):
        assert value not in answer.text
    return body
