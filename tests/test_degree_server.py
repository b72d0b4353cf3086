"""The education commission of the demo, as a process of its own: asked over HTTP, and read by the pipeline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from connectors import connect
from connectors import source as sources
from hub import pipeline
from tests.conftest import ROOT

CLIENT, SECRET = "hub-of-tests", "not a secret: +&%/"
COUNT = 1234


def record(number: int, minute: int | None = None, **certificate: object) -> dict[str, Any]:
    """A degree of somebody with a passport; numbers and moments rise with ``number``."""
    minute = number if minute is None else minute
    return {
        "certificate": {
            "number": f"10248420{number:08d}", "degree": "学士", "subject": "工学", "awarded_on": "2015-06-30",
            **certificate,
        },
        "holder": {"name": "示例甲", "id": {"type": "passport", "number": f"E{number:08d}"}},
        "school": {"code": "10248", "name": "示例大学"},
        "status": "valid",
        "updated_at": f"2025-03-{1 + minute // 1440:02d}T{minute // 60 % 24:02d}:{minute % 60:02d}:00+08:00",
    }  # fmt: skip


@dataclass
class Server:
    url: str
    path: Path
    headers: dict[str, str] = field(default_factory=dict)

    def write(self, records: list[dict[str, Any]]) -> None:
        """In an order that is not the one they are read in."""
        lines = [json.dumps(one, ensure_ascii=False) for one in records[::-1]]
        draft = self.path.with_suffix(".draft")
        draft.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        draft.replace(self.path)

    def get(self, headers: dict[str, str] | None = None, **parameters: object) -> requests.Response:
        """One request, put again when refused for the first time."""
        for _ in range(2):
            answer = requests.get(
                self.url + "/degrees", params=parameters, headers={**self.headers, **(headers or {})}, timeout=10
            )
            if answer.status_code != 429:
                break
        return answer

    def all(self, limit: int = 300, **parameters: object) -> tuple[list[dict[str, Any]], str]:
        """Every record up to the end, and the token to resume with."""
        rows: list[dict[str, Any]] = []
        while True:
            body = self.get(limit=limit, **parameters).json()
            rows += body["items"]
            if body["next"] is None:
                return rows, body["resume"]
            assert body["resume"] is None
            parameters["cursor"] = body["next"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("education")
    (data / "moe").mkdir()
    made = Server("", data / "moe" / "degrees.jsonl")
    made.write([record(number) for number in range(COUNT)])
    process = subprocess.Popen(
        [sys.executable, "-m", "demo.degree_server", "--data", str(data), "--port", "0"], cwd=ROOT, text=True,
        env={**os.environ, "YICI_DEMO_CLIENT_ID": CLIENT, "YICI_DEMO_CLIENT_SECRET": SECRET}, stdout=-1, stderr=-1,
    )  # fmt: skip
    assert process.stdout is not None
    made.url = process.stdout.readline().strip()
    assert made.url.startswith("http://127.0.0.1:"), process.stderr and process.stderr.read()
    token = requests.post(
        made.url + "/oauth/token",
        data={"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": SECRET},
        timeout=10,
    ).json()["access_token"]
    made.headers["Authorization"] = f"Bearer {token}"
    try:
        yield made
    finally:
        process.terminate()
        out, err = process.communicate(timeout=10)
        # It said nothing but its address: no query, no name, no number.
        assert out == "" and err == ""


@pytest.fixture(autouse=True)
def _as_it_was(server: Server) -> None:
    server.write([record(number) for number in range(COUNT)])


def test_nothing_without_a_token(server: Server) -> None:
    answer = requests.get(server.url + "/degrees", timeout=10)
    assert answer.status_code == 401 and "items" not in answer.json()


def test_tokens_lead_through_every_record_in_order(server: Server) -> None:
    got, resume = server.all()
    assert got == [record(number) for number in range(COUNT)]
    assert server.get(cursor=resume).json() == {"items": [], "next": None, "resume": resume}
    token = server.get(limit=1).json()["next"]
    assert token == server.get(limit=1).json()["next"] and "10248" not in token


def test_a_moment_is_where_reading_begins(server: Server) -> None:
    got, _ = server.all(updated_since=record(1000)["updated_at"])
    assert got == [record(number) for number in range(1000, COUNT)]


def test_records_of_one_moment_and_twins_are_told_apart(server: Server) -> None:
    same = [record(number, minute=7) for number in (1, 2, 2, 2, 3)]
    server.write(same)
    got, _ = server.all(limit=1)
    assert got == same


def test_a_change_behind_a_token_comes_and_moves_nothing(server: Server) -> None:
    first = server.get(limit=500).json()
    changed = record(3, minute=COUNT + 1, subject="法学")
    server.write([*(record(number) for number in range(COUNT) if number != 3), changed])
    rest, resume = server.all(cursor=first["next"])
    assert [*first["items"], *rest] == [*(record(number) for number in range(COUNT)), changed]
    newer = record(9, minute=COUNT + 2, subject="农学")
    server.write([*(record(number) for number in range(COUNT) if number not in (3, 9)), changed, newer])
    assert server.all(cursor=resume)[0] == [newer]


def test_the_etag_stands_for_the_whole_register(server: Server) -> None:
    etag = server.get(limit=1).headers["ETag"]
    assert server.get(limit=1000).headers["ETag"] == etag
    for sent in (etag, f"W/{etag}", f'"other", {etag}'):
        answer = server.get({"If-None-Match": sent}, updated_since="2025-03-01T00:00:00Z")
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    server.write([record(number) for number in range(COUNT + 1)])
    answer = server.get({"If-None-Match": etag}, limit=1)
    assert answer.status_code == 200 and answer.headers["ETag"] != etag


@pytest.mark.parametrize(
    ("parameters", "status"),
    [({"cursor": "nonsense"}, 410), ({"limit": 1001}, 400), ({"limit": 0}, 400), ({"updated_since": "now"}, 400)],
)
def test_bad_questions(server: Server, parameters: dict[str, object], status: int) -> None:
    answer = server.get(**parameters)
    assert answer.status_code == status and "items" not in answer.json()


# -- the source that reads it


@pytest.fixture
def connected(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"url": server.url, "username": CLIENT, "password": SECRET}
    monkeypatch.setenv("YICI_CONN_SH_MOE", json.dumps(given))


@pytest.mark.usefixtures("connected")
def test_check() -> None:
    steps = connect.check(sources.load("sh-moe-degrees"))
    assert all(step.ok for step in steps), [(step.step, step.detail) for step in steps]
    assert steps[-1].step == "columns" and "holder.id.number" in steps[-1].detail


@pytest.mark.usefixtures("connected")
def test_the_pipeline_reads_what_changed_and_asks_once_when_nothing_did(server: Server, store: sa.Engine) -> None:
    def known() -> sa.Row:
        with store.connect() as connection:
            return connection.execute(sa.text("SELECT cursor, contract, last_success_at FROM source")).one()

    def subjects() -> dict[str, int]:
        query = "SELECT document #>> '{attributes,subject}' AS subject, count(*) AS n FROM held GROUP BY 1"
        with store.connect() as connection:
            return {row.subject: row.n for row in connection.execute(sa.text(query))}

    first = pipeline.run("sh-moe-degrees")
    assert (first["fetched"], first["accepted"]) == (COUNT, COUNT), first
    before = known()
    assert set(before.cursor) == {"watermark", "etag", "resume"}
    with store.connect() as connection:
        files = connection.execute(sa.text("SELECT file, max(row) FROM observation GROUP BY 1 ORDER BY 1")).all()
    assert [row for _, row in files] == [500, 500, 234], "each row is traced to its page"

    unchanged = pipeline.run("sh-moe-degrees")
    assert (unchanged["fetched"], unchanged["state"]) == (0, "merged")
    after = known()
    assert (after.cursor, after.contract) == (before.cursor, before.contract)
    assert after.last_success_at > before.last_success_at, "a source that says nothing changed is fresh"

    # both versions in one reading, as when a record is updated while its pages are read
    twice = [record(5, minute=COUNT + 1, subject="法学"), record(5, minute=COUNT + 2, subject="农学")]
    server.write([*(record(number) for number in range(COUNT) if number != 5), *twice])
    changed = pipeline.run("sh-moe-degrees")
    assert (changed["fetched"], changed["accepted"], changed["reasons"]) == (2, 1, {"older": 1})
    assert subjects() == {"工学": COUNT - 1, "农学": 1}
    assert known().cursor["etag"] != before.cursor["etag"]


@pytest.mark.usefixtures("connected")
def test_a_cursor_moves_only_with_the_merge(server: Server, store: sa.Engine) -> None:
    assert pipeline.fetch("sh-moe-degrees")["chunks"] == [0], "pages are gathered into chunks"
    pipeline.run("sh-moe-degrees")
    server.write([record(number) for number in range(COUNT + 7)])
    for _ in range(2):  # killed after the fetch: the next one reads the same again
        fetched = pipeline.fetch("sh-moe-degrees")
        with store.connect() as connection:
            query = sa.text("SELECT fetched FROM batch WHERE id = :batch")
            assert connection.scalar(query, {"batch": fetched["batch"]}) == 7
    assert pipeline.run("sh-moe-degrees")["accepted"] == 7
