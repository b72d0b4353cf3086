"""The API over real HTTP: a uvicorn server, a real store, requests as the client."""

from __future__ import annotations

import base64
import datetime as dt
import json
import logging
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
import sqlalchemy as sa

from hub import agreements, database, embedded, tokens
from hub.api.app import create
from hub.api.envelope import BODY_LIMIT
from hub.home import Home
from tests import stored
from tests.serving import served

LICENCE = f"cn.uscc:{stored.LICENCE_CODE}"
ITEMS = ["demo-food-permit", "demo-elder-card"]
LOADED = "511Z07001006-511602000000"
FORM = {"grant_type": "client_credentials"}


class Hub:
    """A served hub and a client that has an agreement with it."""

    def __init__(self, base: str, *items: str) -> None:
        self.base = base
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


@pytest.fixture
def hub(store: sa.Engine) -> Iterator[Hub]:
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
    with served(create()) as base:
        yield Hub(base, LOADED)


def problem(answer: requests.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    body = answer.json()
    assert (body["code"], body["status"], body["type"]) == (code, status, f"urn:yici:problem:{code}")
    assert body["fault"] in ("caller", "hub", "partner")
    for value in (stored.LICENCE_CODE, stored.RESIDENT, "91310117MA1J3AJ43X", "Traceback"):
        assert value not in answer.text
    return body


def test_a_lookup(hub: Hub) -> None:
    answer = hub.sign_in().lookup(facts={"legal_representative_in_person": False}, case="31-1", purpose="handle")
    assert answer.status_code == 200
    [found] = answer.json()["answers"]
    assert found["requirements"][0]["disposition"] == "held"
    assert found["requirements"][0]["provenance"] == [
        {"source": "sh-amr-enterprises", "file": "2019-上海.csv", "row": 2}
    ]
    assert "authorisation" in found["must_submit"]
    with database.engine().connect() as connection:
        row = connection.execute(sa.text('SELECT client, purpose, "case", body FROM answer')).one()
    assert (row.client, row.purpose, row.case, row.body) == ("hall-1", "handle", "31-1", found)


def test_the_language_is_the_callers(hub: Hub) -> None:
    hub.sign_in()
    for header, word in (
        ("zh-CN,zh;q=0.9,en;q=0.8", "食品经营许可"),
        ("en", "Food"),
        ("zh;q=0.1, en", "Food"),
        ("fr", "Food"),
    ):
        answer = hub.post(
            "/v1/lookups", json={"items": ITEMS[:1], "id": LICENCE}, headers={"Accept-Language": header}
        ).json()
        assert answer["answers"][0]["item_name"].startswith(word)
    refused = hub.get("/v1/items/demo-none", headers={"Accept-Language": "zh"})
    assert refused.headers["Content-Language"] == "zh"
    assert problem(refused, 404, "item-unknown")["title"] == "事项不存在"


def test_responses_are_as_documented(hub: Hub) -> None:
    document = hub.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    flow = document["components"]["securitySchemes"]["clientCredentials"]["flows"]["clientCredentials"]
    assert flow["tokenUrl"] == "/oauth2/token"

    def check(answer: requests.Response, path: str, method: str) -> None:
        media = answer.headers["Content-Type"].partition(";")[0]
        documented = document["paths"][path][method]["responses"][str(answer.status_code)]["content"][media]["schema"]
        jsonschema.Draft202012Validator({**documented, "components": document["components"]}).validate(answer.json())

    check(hub.lookup(), "/v1/lookups", "post")
    check(hub.post("/oauth2/token", data=FORM, auth=("hall-1", "wrong")), "/oauth2/token", "post")
    check(hub.post("/oauth2/token", data=FORM, auth=("hall-1", hub.secret)), "/oauth2/token", "post")
    hub.sign_in()
    check(hub.lookup(), "/v1/lookups", "post")
    check(hub.lookup(roles={"legal_representative": f"cn.ric:{stored.RESIDENT}"}), "/v1/lookups", "post")
    check(hub.lookup(extra=1), "/v1/lookups", "post")
    check(hub.get("/v1/items"), "/v1/items", "get")
    for code in ("demo-food-permit", "demo-publication-retail", "demo-none", LOADED):
        check(hub.get(f"/v1/items/{code}"), "/v1/items/{code}", "get")
    check(hub.get("/readyz"), "/readyz", "get")
    check(hub.get("/healthz"), "/healthz", "get")


def test_credentials_in_the_header_or_the_form(hub: Hub) -> None:
    given = {"client_id": "hall-1", "client_secret": hub.secret}
    answer = hub.post("/oauth2/token", data={**FORM, **given})
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert 600 <= answer.json()["expires_in"] <= 3600
    assert tokens.client_of(answer.json()["access_token"]) == "hall-1"
    wrong: list[dict[str, Any]] = [
        {"data": FORM},
        {"data": {**FORM, **given, "client_secret": hub.secret[:-1]}},
        {"data": {**FORM, **given, "client_id": "hall-2"}},
        {"data": {**FORM, "client_id": "hall-1"}},
        {"data": {**FORM, **given}, "auth": ("hall-1", hub.secret)},
        {"data": FORM, "auth": ("hall-1", "wrong")},
        {"data": FORM, "headers": {"Authorization": "Basic ???"}},
        {"data": FORM, "headers": {"Authorization": "Basic " + base64.b64encode(b"\xff:\xff").decode()}},
        {"data": {**FORM, "client_id": "a\0", "client_secret": "b" * 24}},
    ]
    for request in wrong:
        refused = hub.post("/oauth2/token", **request)
        assert problem(refused, 401, "client-refused")["error"] == "invalid_client"
        assert "WWW-Authenticate" in refused.headers
        assert hub.secret not in refused.text
    problem(hub.post("/oauth2/token", data={"grant_type": "password", **given}), 400, "grant-unsupported")
    problem(hub.post("/oauth2/token", json={**FORM, **given}), 415, "media-type-unsupported")


def test_guessing_is_slowed_down(hub: Hub) -> None:
    answers = [hub.post("/oauth2/token", data=FORM, auth=("hall-1", f"guess-{n}")) for n in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    assert hub.post("/oauth2/token", data=FORM, auth=("hall-1", hub.secret)).status_code == 429
    agreements.add("hall-2", "x" * 30, "Hall", ITEMS, ["handle"])
    assert hub.post("/oauth2/token", data=FORM, auth=("hall-2", "x" * 30)).status_code == 200


def test_without_a_good_token(hub: Hub) -> None:
    assert hub.lookup().headers["WWW-Authenticate"] == 'Bearer realm="yici"'
    problem(hub.lookup(), 401, "token-missing")
    hub.session.headers["Authorization"] = "Bearer x.y.z"
    answer = hub.lookup()
    problem(answer, 401, "token-invalid")
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    hub.session.headers["Authorization"] = f"Bearer {tokens.issue('hall-9').text}"  # well signed, nobody's
    problem(hub.lookup(), 401, "token-invalid")


def test_outside_the_agreement(hub: Hub) -> None:
    hub.sign_in()
    problem(hub.lookup(items=["demo-publication-retail"]), 403, "item-not-agreed")
    problem(hub.lookup(items=["demo-food-permit", "demo-publication-retail"]), 403, "item-not-agreed")
    problem(hub.get("/v1/items/demo-publication-retail"), 403, "item-not-agreed")
    problem(hub.lookup(purpose="curiosity"), 403, "purpose-not-agreed")
    assert [entry["item"] for entry in hub.get("/v1/items").json()["items"]] == sorted([*ITEMS, LOADED])
    agreements.add("hall-1", hub.secret, "Hall", ITEMS, ["handle", "check"], replace=True)
    problem(hub.lookup(), 422, "purpose-missing")
    assert hub.lookup(purpose="check").status_code == 200
    ended = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    agreements.add("hall-1", hub.secret, "Hall", ITEMS, ["handle"], ended, replace=True)
    problem(hub.lookup(), 403, "agreement-ended")
    agreements.remove("hall-1")
    problem(hub.lookup(), 401, "token-invalid")


WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"items": ["demo-none"]}, 404, "item-unknown"),
    ({"items": [stored.RESIDENT]}, 404, "item-unknown"),
    ({"items": [LOADED]}, 422, "item-without-requirements"),
    ({"items": []}, 422, "body-invalid"),
    ({"items": "demo-food-permit"}, 422, "body-invalid"),
    ({"items": ["a\x00b"]}, 422, "body-invalid"),
    ({"items": ["demo-food-permit"] * 21}, 422, "body-invalid"),
    ({"id": None}, 422, "body-invalid"),
    ({"id": 91310117}, 422, "body-invalid"),
    ({"id": "cn.uscc:91310117MA1J3AJ43X"}, 422, "identifier-invalid"),
    ({"id": f"cn.ric:{stored.RESIDENT}"}, 422, "identifier-unfit"),
    ({"id": "\ud800"}, 400, "body-malformed"),
    ({stored.LICENCE_CODE: 1}, 422, "body-invalid"),
    ({"facts": {stored.RESIDENT: True}}, 422, "fact-unknown"),
    ({"facts": {stored.RESIDENT: {}}}, 422, "body-invalid"),
    ({"facts": {"legal_representative_in_person": "yes"}}, 422, "fact-type"),
    ({"facts": {"legal_representative_in_person": 1.5}}, 422, "body-invalid"),
    ({"facts": [1]}, 422, "body-invalid"),
    ({"roles": {stored.RESIDENT: LICENCE}}, 422, "role-unknown"),
    ({"roles": {"agent": "cn.ric:110105194912310021"}}, 422, "identifier-invalid"),
    ({"as_of": "2999-01-01T00:00:00+08:00"}, 422, "as-of-future"),
    ({"as_of": "2026-01-01T00:00:00"}, 422, "body-invalid"),
    ({"as_of": "yesterday"}, 422, "body-invalid"),
    ({"case": stored.RESIDENT}, 422, "case-names-somebody"),
    ({"case": "a b"}, 422, "body-invalid"),
]


def test_wrong_questions(hub: Hub, subtests: pytest.Subtests) -> None:
    hub.sign_in()
    for change, status, code in WRONG:
        with subtests.test(msg=ascii(change)):
            body = problem(hub.lookup(**change), status, code)
            if code == "body-invalid":
                assert body["errors"]
                assert all(set(entry) == {"place", "reason"} for entry in body["errors"])


MALFORMED = [b"", b"{", b"[" * 50_000, b"\xff\xfe", b"nope", b'{"a":1}{}', b"1" * 5000]


def test_malformed_bodies(hub: Hub, subtests: pytest.Subtests) -> None:
    hub.sign_in()
    for body in MALFORMED:
        with subtests.test(msg=repr(body[:20])):
            answer = hub.post("/v1/lookups", data=body, headers={"Content-Type": "application/json"})
            problem(answer, 400, "body-malformed")


def test_other_addresses_methods_and_media(hub: Hub) -> None:
    hub.sign_in()
    problem(hub.get("/v1/nothing"), 404, "page-unknown")
    problem(hub.get("/docs"), 404, "page-unknown")
    refused = hub.get("/v1/lookups")
    problem(refused, 405, "method-not-allowed")
    assert refused.headers["Allow"] == "POST"
    problem(hub.post("/v1/lookups", data="x", headers={"Content-Type": "text/plain"}), 415, "media-type-unsupported")


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
    assert hub.get("/readyz").json() == {"status": "ready"}
    with database.engine().begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0000'"))
    problem(hub.get("/readyz"), 503, "store-not-migrated")
    with database.engine().begin() as connection:
        connection.execute(sa.text("DROP TABLE alembic_version"))
    problem(hub.get("/readyz"), 503, "store-not-migrated")
    assert hub.get("/healthz").status_code == 200


def test_the_database_goes_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(tempfile.mkdtemp(prefix="yici-test-"))
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
        with served(create()) as base:
            hub = Hub(base).sign_in()
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
    finally:
        database.engine().dispose()
        embedded.release(server)
        shutil.rmtree(folder, ignore_errors=True)


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
