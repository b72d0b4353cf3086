"""The public security bureau of the demo, as a process of its own, asked over HTTP."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from demo.synthesis import Parameters, synthesise

ROOT = Path(__file__).parent.parent
CLIENT, SECRET = "hub-of-tests", "not a secret: +&%/"


@dataclass
class Server:
    url: str
    data: Path
    process: subprocess.Popen[str]
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **parameters: object) -> requests.Response:
        """One request, put again when refused for the first time."""
        answer = requests.get(self.url + path, params=parameters, headers=self.headers, timeout=10)
        if answer.status_code == 429:
            answer = requests.get(self.url + path, params=parameters, headers=self.headers, timeout=10)
        return answer

    def all(self, path: str, size: int = 300, **parameters: object) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        page = pages = 1
        while page <= pages:
            body = self.get(path, page=page, size=size, **parameters).json()
            assert (body["code"], body["page"], body["size"]) == (0, page, size)
            pages, page = body["pages"], page + 1
            rows += body["data"]
        assert len(rows) == body["total"]
        return rows


def launch(data: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "demo.police_server", "--data", str(data), *words]
    env = {
        **os.environ,
        "YICI_LANG": "en",
        "YICI_DEMO_CLIENT_ID": CLIENT,
        "YICI_DEMO_CLIENT_SECRET": SECRET,
        **environment,
    }
    return subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=-1, stderr=-1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = synthesise(Parameters(1500, 0, 5), tmp_path_factory.mktemp("police") / "data").folder
    process = launch(data, "--port", "0")
    assert process.stdout is not None
    made = Server(process.stdout.readline().strip(), data, process)
    assert made.url.startswith("http://127.0.0.1:"), process.stderr and process.stderr.read()
    made.headers["Authorization"] = "Bearer " + token(made, auth=True).json()["access_token"]
    try:
        yield made
    finally:
        process.terminate()
        out, err = process.communicate(timeout=10)
        # It said nothing but its address: no query, no name, no number.
        assert out == "" and err == ""


def token(server: Server, auth: bool, secret: str = SECRET, grant: str = "client_credentials") -> requests.Response:
    form = {"grant_type": grant}
    headers = {}
    if auth:
        pair = ":".join(requests.utils.quote(part, safe="") for part in (CLIENT, secret))
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    else:
        form |= {"client_id": CLIENT, "client_secret": secret}
    return requests.post(server.url + "/oauth/token", data=form, headers=headers, timeout=10)


def records(server: Server, name: str) -> list[dict[str, Any]]:
    lines = (server.data / f"ga/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("auth", [True, False])
def test_tokens(server: Server, auth: bool) -> None:
    answer = token(server, auth)
    body = answer.json()
    assert answer.status_code == 200 and body["token_type"] == "Bearer" and body["expires_in"] == 600
    assert token(server, auth, secret="wrong").status_code == 401
    assert token(server, auth, secret="wrong").json() == {"error": "invalid_client"}
    assert token(server, auth, grant="password").json() == {"error": "unsupported_grant_type"}


def test_bad_token_requests(server: Server) -> None:
    url = server.url + "/oauth/token"
    assert requests.post(url, json={"grant_type": "client_credentials"}, timeout=10).status_code == 400
    assert requests.post(url, data={"x": "y" * 20_000}, timeout=10).status_code == 413
    assert (
        requests.post(
            url, data={"grant_type": "client_credentials"}, headers={"Authorization": "Basic !!"}, timeout=10
        ).status_code
        == 401
    )


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Bearer"}])
def test_nothing_without_a_token(server: Server, headers: dict[str, str]) -> None:
    for path in ("/residents", "/households"):
        answer = requests.get(server.url + path, headers=headers, timeout=10)
        assert answer.status_code == 401 and "data" not in answer.json()
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("name", ["residents", "households"])
def test_pages_give_every_record_once_in_order(server: Server, name: str) -> None:
    got = server.all(f"/{name}")
    assert got == sorted(records(server, name), key=lambda row: (row["gxsj"], row["gmsfhm"]))
    assert len(got) > 1000
    beyond = server.get(f"/{name}", page=999, size=1000).json()
    assert beyond["data"] == [] and beyond["total"] == len(got) and beyond["pages"] == -(-len(got) // 1000)


def test_window_is_inclusive_at_both_ends(server: Server) -> None:
    rows = records(server, "residents")
    since, until = rows[200]["gxsj"], rows[700]["gxsj"]
    expected = [row for row in rows if since <= row["gxsj"] <= until]
    assert len(expected) >= 501
    assert server.all("/residents", updated_since=since, updated_until=until) == expected
    moments = [dt.datetime.fromisoformat(moment).astimezone(dt.UTC) for moment in (since, until)]
    written = [moment.isoformat().replace("+00:00", "Z") for moment in moments]
    assert server.all("/residents", updated_since=written[0], updated_until=written[1]) == expected
    local = [moment.removesuffix("+08:00") for moment in (since, until)]
    assert server.all("/residents", updated_since=local[0], updated_until=local[1]) == expected
    raw = requests.get(  # a plus sign that nobody escaped
        f"{server.url}/residents?size=1000&updated_since={since}&updated_until={until}",
        headers=server.headers,
        timeout=10,
    )
    assert raw.status_code == 429 or raw.json()["total"] == len(expected)
    assert server.get("/residents", updated_since=until, updated_until=since).json()["total"] == 0


@pytest.mark.parametrize(
    "parameters", [{"page": 0}, {"page": "x"}, {"size": 1001}, {"size": -1}, {"updated_since": "yesterday"}]
)
def test_bad_parameters_are_named(server: Server, parameters: dict[str, object]) -> None:
    answer = server.get("/residents", **parameters)
    assert answer.status_code == 400 and next(iter(parameters)) in answer.json()["message"]


def test_every_seventh_question_is_refused_once(server: Server) -> None:
    statuses = []
    for page in range(1, 29):
        url = f"{server.url}/households?page={page}&size=10"
        answer = requests.get(url, headers=server.headers, timeout=10)
        statuses.append(answer.status_code)
        if answer.status_code == 429:
            assert answer.headers["Retry-After"] == "1"
            assert requests.get(url, headers=server.headers, timeout=10).status_code == 200
    assert statuses.count(429) == 4


def test_new_records_are_served_without_a_restart(server: Server) -> None:
    path = server.data / "ga/residents.jsonl"
    kept = path.read_bytes()
    try:
        with path.open("ab") as file:
            file.write(
                json.dumps({**records(server, "residents")[0], "gxsj": "2025-12-31T00:00:00+08:00"}).encode() + b"\n"
            )
        fresh = server.get("/residents", updated_since="2025-12-01T00:00:00+08:00").json()
        assert fresh["total"] == 1 and fresh["data"][0]["gxsj"].startswith("2025-12-31")
        path.write_bytes(b"<html>maintenance</html>\n")
        assert server.get("/residents").status_code == 503
        path.write_bytes(b"")
        assert server.get("/residents", page=1).json()["total"] == 0
    finally:
        path.write_bytes(kept)
    assert server.get("/residents", size=1).json()["total"] == kept.count(b"\n")


def test_health(server: Server) -> None:
    assert requests.get(server.url + "/healthz", timeout=10).json() == {"status": "ok"}


def test_expired_tokens_are_refused(server: Server) -> None:
    process = launch(server.data, "--port", "0", "--token-seconds", "0")
    try:
        assert process.stdout is not None
        other = Server(process.stdout.readline().strip(), server.data, process)
        other.headers["Authorization"] = "Bearer " + token(other, auth=True).json()["access_token"]
        assert other.get("/residents").status_code == 401
    finally:
        process.terminate()
        process.wait(10)


def test_start_up_errors_say_what_to_do(server: Server, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        process = launch(server.data, "--port", port)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1 and port in err and "Traceback" not in err
    process = launch(server.data, "--port", "0", YICI_DEMO_CLIENT_SECRET="")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2 and "YICI_DEMO_CLIENT_SECRET" in err and "Traceback" not in err
    shutil.copytree(server.data, tmp_path / "d")
    (tmp_path / "d/ga/households.jsonl").unlink()
    process = launch(tmp_path / "d", "--port", "0")
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1 and "households.jsonl" in err and "yici synth" in err and "Traceback" not in err
