"""The service around the questions: limits, health, metrics, logs, a database that goes and comes back."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from hub import catalogue, database, embedded, publication
from hub.api.app import create
from hub.api.envelope import BODY_LIMIT
from mappings import items
from tests import stored
from tests.serving import FORM, ITEMS, LICENCE, Hub, filled_hub, own_server, problem, served


@pytest.fixture
def hub(store: sa.Engine) -> Iterator[Hub]:
    with filled_hub(store) as served_hub:
        yield served_hub


def test_large_bodies_are_refused_however_they_come(hub: Hub) -> None:
    hub.sign_in()
    problem(hub.post("/v1/lookups", data=b" " * (BODY_LIMIT + 1)), 413, "body-too-large")
    chunks = (b" " * 16_384 for _ in range(100))
    try:
        refused = hub.post("/v1/lookups", data=chunks, headers={"Content-Type": "application/json"})
    except requests.ConnectionError:
        pass  # refused while the client was still sending
    else:
        problem(refused, 413, "body-too-large")
    fits = json.dumps({"items": ITEMS[:1], "id": LICENCE}).encode()
    headers = {"Content-Type": "application/json"}
    assert hub.post("/v1/lookups", data=fits.ljust(BODY_LIMIT), headers=headers).status_code == 200


def test_a_body_that_never_comes(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.api.envelope.BODY_SECONDS", 0.3)
    host, port = hub.base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:
        line.sendall(b"POST /v1/lookups HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert b" 408 " in line.recv(4096).split(b"\r\n")[0]
    assert hub.get("/healthz").status_code == 200


def test_many_at_once(hub: Hub) -> None:
    hub.sign_in()
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: hub.lookup(), range(120)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["answers"][0]["answer"] for answer in answers}) == 120


def test_metrics_count_without_names(hub: Hub) -> None:
    hub.sign_in().lookup()
    hub.get(f"/v1/items/{stored.LICENCE_CODE}")
    text = hub.get("/metrics").text
    assert 'yici_dispositions_total{disposition="held"} 1.0' in text
    assert "yici_lookup_seconds_count 1.0" in text
    assert 'yici_http_requests_total{method="GET",route="/v1/items/{code}",status="404"} 1.0' in text
    assert stored.LICENCE_CODE not in text
    assert "hall-1" not in text


def test_nothing_is_logged_of_who_was_asked_about(hub: Hub, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    caplog.set_level(logging.DEBUG)
    hub.sign_in().lookup(roles={"agent": f"cn.ric:{stored.RESIDENT}"})
    hub.lookup(id="cn.uscc:91310117MA1J3AJ43X")
    with database.engine().begin() as connection:
        connection.execute(sa.text("ALTER TABLE answer DROP COLUMN trace"))
    problem(hub.lookup(), 503, "store-not-migrated")
    with database.engine().begin() as connection:
        connection.execute(sa.text("DELETE FROM answer"))
        connection.execute(sa.text("ALTER TABLE answer ADD COLUMN trace integer CHECK (client = 'nobody')"))
    problem(hub.lookup(), 500, "internal")
    out, err = capfd.readouterr()
    for value in (stored.LICENCE_CODE, stored.RESIDENT, "91310117MA1J3AJ43X", hub.secret):
        assert value not in caplog.text + out + err


def test_the_tables_must_be_of_this_version(hub: Hub) -> None:
    assert hub.get("/readyz").json() == {"status": "ready", "catalogue": catalogue.digest()}
    with database.engine().begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0000'"))
    problem(hub.get("/readyz"), 503, "store-not-migrated")
    with database.engine().begin() as connection:
        connection.execute(sa.text("DROP TABLE alembic_version"))
    problem(hub.get("/readyz"), 503, "store-not-migrated")
    assert hub.get("/healthz").status_code == 200


def test_it_has_loaded_what_was_published_and_says_which_catalogue(hub: Hub) -> None:
    """Until something is published there is nothing to compare; then all of it must be."""
    assert hub.get("/healthz").json() == {"status": "alive", "catalogue": catalogue.digest()}
    publication.publish("wang")
    assert hub.get("/readyz").status_code == 200

    def changed(statement: str) -> None:
        with database.engine().begin() as connection:
            connection.execute(sa.text(statement))

    changed("UPDATE catalogue_change SET version = 2, published_at = now() WHERE item = 'demo-elder-card'")
    problem(hub.get("/readyz"), 503, "catalogue-behind")
    changed("DELETE FROM catalogue_change WHERE item = 'demo-elder-card'")
    problem(hub.get("/readyz"), 503, "catalogue-unpublished")
    assert hub.get("/healthz").status_code == 200
    publication.publish("wang")
    assert hub.get("/readyz").status_code == 200


def test_what_is_not_as_it_was_published_is_not_answered_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not where the database came only after the server: it is asked before it is used."""
    with own_server(monkeypatch) as server:
        publication.publish("wang")
        with database.engine().begin() as connection:
            connection.execute(
                sa.text("UPDATE catalogue_change SET digest = sha256('x') WHERE item = 'demo-elder-card'")
            )
        refused = subprocess.run(
            serving := [*SERVE, str(free())], capture_output=True, text=True, timeout=60, check=False
        )
        assert refused.returncode == 1
        assert (
            f"{items.FOLDER / 'demo-elder-card.yml'}:10: version 1 was published and says something else"
            in refused.stderr
        )
        database.engine().dispose()
        embedded.release(server)
        process = subprocess.Popen(serving, stderr=subprocess.PIPE, text=True)
        try:
            base = f"http://127.0.0.1:{serving[-1]}"
            assert _eventually(process, f"{base}/healthz").status_code == 200
            problem(requests.get(f"{base}/readyz", timeout=30), 503, "store-unavailable")
            embedded.hold(server)
            told = problem(requests.get(f"{base}/readyz", timeout=30), 503, "catalogue-altered")
            assert str(items.FOLDER) not in str(told)
            problem(
                requests.post(f"{base}/oauth2/token", data=FORM, auth=("a", "b"), timeout=30), 503, "catalogue-altered"
            )
        finally:
            process.terminate()
            process.communicate(timeout=20)


SERVE = [sys.executable, "-m", "hub", "serve", "--port"]


def free() -> int:
    """A port that nobody listens on."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def _eventually(process: subprocess.Popen[str], url: str) -> requests.Response:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return requests.get(url, timeout=5)
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")


def test_the_database_goes_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with own_server(monkeypatch) as server:
        app = create()
        with served(app) as base:
            hub = Hub(base, app).sign_in()
            assert hub.get("/readyz").status_code == 200
            assert hub.lookup().status_code == 200
            embedded.release(server)
            gone = hub.lookup()
            assert int(gone.headers["Retry-After"]) > 0
            assert problem(gone, 503, "store-unavailable")["fault"] == "hub"
            problem(hub.get("/readyz"), 503, "store-unavailable")
            problem(hub.post("/oauth2/token", data=FORM, auth=("hall-1", hub.secret)), 503, "store-unavailable")
            assert hub.get("/healthz").status_code == 200
            embedded.hold(server)
            assert hub.get("/readyz").status_code == 200
            assert hub.lookup().status_code == 200


def test_it_starts_without_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("YICI_HOME", str(tmp_path))
    monkeypatch.setenv("YICI_DATABASE_URL", f"postgresql://nobody@127.0.0.1:{port}/none")
    with served(create()) as base:
        assert requests.get(f"{base}/healthz", timeout=30).status_code == 200
        problem(requests.get(f"{base}/readyz", timeout=30), 503, "store-unavailable")


def test_yici_serve(hub: Hub) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    command = [sys.executable, "-m", "hub", "serve", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if hub.session.get(f"{address}/readyz", timeout=5).ok:
                    break
            except requests.ConnectionError:
                time.sleep(0.1)
        hub.base = address
        assert hub.sign_in().lookup().status_code == 200
        again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert again.returncode == 1
        assert str(port) in again.stderr
    finally:
        process.terminate()
        out, err = process.communicate(timeout=20)
    assert process.returncode in (0, -15)
    assert stored.LICENCE_CODE not in out + err
