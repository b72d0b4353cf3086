"""Lookups from the socket: answered once each, in order, whatever way the bytes come."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from hub.api import patience
from hub.api.hot import ADDRESS, LONGEST, Hot
from hub.api.lanes import Lanes
from hub.api.patience import LONGEST_HEAD
from hub.api.rates import Rates
from hub.api.wire import LATER
from tests.serving import LICENCE, Hub, filled_hub, served


@pytest.fixture
def hub(store: sa.Engine) -> Iterator[Hub]:
    with filled_hub(store) as served_hub:
        served_hub.sign_in()
        assert served_hub.lookup().status_code == 200  # from then on there are lanes
        yield served_hub


@pytest.fixture
def straight(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each question that came to the short way whether it was taken there."""
    taken: list[bool] = []
    real = Hot.take

    def noting(self: Hot, *given: Any) -> bool:
        taken.append(real(self, *given))
        return taken[-1]

    monkeypatch.setattr(Hot, "take", noting)
    return taken


class Line:
    """One connection."""

    def __init__(self, hub: Hub) -> None:
        place = urlsplit(hub.base)
        self.token = str(hub.session.headers["Authorization"])
        self.socket = socket.create_connection((place.hostname, place.port), timeout=20)
        self.reader = self.socket.makefile("rb")

    def question(self, more: str = "", version: str = "1.1", **members: Any) -> bytes:
        body = json.dumps({"items": ["demo-food-permit"], "id": LICENCE, **members}).encode()
        head = f"POST {ADDRESS} HTTP/{version}\r\nHost: hub\r\nAuthorization: {self.token}\r\n{more}"
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], Any]:
        status = int(self.reader.readline().split()[1])
        headers = {}
        while (line := self.reader.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            assert name.lower() not in headers
            headers[name.lower()] = value.strip()
        body = self.reader.read(int(headers["content-length"]))
        return status, headers, json.loads(body) if "json" in headers.get("content-type", "") else body

    def ended(self) -> bool:
        return self.reader.read(1) == b""


@pytest.fixture
def line(hub: Hub) -> Iterator[Line]:
    found = Line(hub)
    yield found
    found.socket.close()


def held(answer: tuple[int, dict[str, str], Any]) -> str:
    status, _, body = answer
    assert status == 200, body
    return str(body["answers"][0]["requirements"][0]["disposition"])


def test_a_lookup_goes_straight_and_says_all_that_the_ordinary_way_says(
    hub: Hub, line: Line, straight: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    line.send(line.question())
    status, headers, body = line.answer()
    assert straight == [True]
    monkeypatch.setattr(hub.app.state.hot, "on", False)
    line.send(line.question())
    other, others, told = line.answer()
    assert straight == [True], "the other went the ordinary way"
    assert status == other == 200
    assert headers.keys() == others.keys() >= {"date", "content-type", "content-language", "cache-control"}
    same = {name: value for name, value in headers.items() if name not in ("date", "content-length")}
    assert same == {name: others[name] for name in same}
    assert body["answers"][0]["requirements"] == told["answers"][0]["requirements"]


def test_many_on_one_connection(line: Line, straight: list[bool]) -> None:
    answers = []
    for number in range(30):
        line.send(line.question(case=f"31-{number}"))
        answers.append(line.answer()[2]["answers"][0]["answer"])
    assert straight == [True] * 30
    assert len(set(answers)) == 30


def test_what_comes_while_one_is_under_way_is_answered_after_it(line: Line, straight: list[bool]) -> None:
    gate = threading.Event()
    real = Lanes._read

    async def slow(self: Lanes, *given: Any) -> Any:
        while not gate.is_set():
            await asyncio.sleep(0.01)
        return await real(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lanes, "_read", slow)
        line.send(line.question())
        time.sleep(0.2)
        line.send(line.question(items=["demo-elder-card"], id="cn.ric:11010519491231002X"))
        line.send(b"GET /healthz HTTP/1.1\r\nHost: hub\r\n\r\n")
        line.send(line.question(case="31-9"))
        time.sleep(0.2)
        gate.set()
        first, second, third, fourth = (line.answer() for _ in range(4))
    assert first[2]["answers"][0]["item"] == "demo-food-permit"
    assert second[2]["answers"][0]["item"] == "demo-elder-card"
    assert third[0] == 200 and "answers" not in third[2]
    assert held(fourth) == "held"


def test_more_than_is_kept_meanwhile_is_still_answered(line: Line) -> None:
    count = LATER // 300 + 50
    line.send(line.question() * count)
    assert [held(line.answer()) for _ in range(count)] == ["held"] * count


@pytest.mark.parametrize("pieces", [2, 7, 200])
def test_in_pieces_and_in_one_packet(line: Line, pieces: int) -> None:
    line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = line.question() + line.question(case="2")
    size = -(-len(data) // pieces)
    for start in range(0, len(data), size):
        line.send(data[start : start + size])
        time.sleep(0.002)
    assert [held(line.answer()), held(line.answer())] == ["held", "held"]
    line.send(line.question() + b"GET /healthz HTTP/1.1\r\nHost: hub\r\n\r\n" + line.question())
    assert [line.answer()[0] for _ in range(3)] == [200, 200, 200]


def test_what_is_not_in_order_is_said_by_the_ordinary_way(line: Line, straight: list[bool]) -> None:
    line.send(line.question(id="cn.ric:11010519491231002"))
    status, _, body = line.answer()
    assert (status, body["code"]) == (422, "identifier-invalid")
    line.send(line.question().replace(line.token.encode(), b"Bearer nothing"))
    assert line.answer()[0] == 401
    line.send(line.question(purpose="other"))  # only the store can tell
    status, _, body = line.answer()
    assert (status, body["code"]) == (403, "purpose-not-agreed")
    assert straight == [False, False, True], straight
    line.send(line.question())
    assert held(line.answer()) == "held"


def test_connections_that_are_to_be_closed(hub: Hub, straight: list[bool]) -> None:
    for more, version in (("Connection: close\r\n", "1.1"), ("", "1.0")):
        line = Line(hub)
        line.send(line.question(more, version))
        assert held(line.answer()) == "held"
        assert line.ended()
    assert straight == []


def test_a_body_after_100_continue_and_one_beyond_what_is_tried(line: Line, straight: list[bool]) -> None:
    head, _, body = line.question("Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    line.send(head + b"\r\n\r\n")
    assert line.reader.readline().startswith(b"HTTP/1.1 100")
    assert line.reader.readline() == b"\r\n"
    line.send(body)
    assert held(line.answer()) == "held"
    line.send(line.question(note="x" * LONGEST))
    assert line.answer()[0] == 422
    assert straight == []


def test_who_leaves_before_the_answer_disturbs_nobody(hub: Hub, line: Line) -> None:
    for _ in range(20):
        other = Line(hub)
        other.send(other.question())
        other.socket.close()
    line.send(line.question())
    assert held(line.answer()) == "held"


def test_no_http_at_all(line: Line) -> None:
    line.send(b"\x16\x03\x01 nonsense\r\n\r\n")
    assert line.reader.readline().startswith(b"HTTP/1.1 400")


def test_a_server_that_stops_still_answers_what_is_under_way(hub: Hub) -> None:
    begun = threading.Event()
    real = Lanes._read

    async def slow(self: Lanes, *given: Any) -> Any:
        begun.set()
        await asyncio.sleep(0.5)
        return await real(self, *given)

    with served(hub.app) as base:
        other = Hub.__new__(Hub)
        other.base, other.session = base, hub.session
        line = Line(other)
        line.send(line.question())
        assert held(line.answer()) == "held"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Lanes, "_read", slow)
            line.send(line.question())
            assert begun.wait(10)
            found: list[Any] = []
            reading = threading.Thread(target=lambda: found.append(line.answer()))
            reading.start()
    reading.join(20)
    assert held(found[0]) == "held"
    assert line.ended()


def test_header_lines_have_a_length(hub: Hub) -> None:
    for head in (b"GET / HTTP/1.1\r\n" + b"X-A: " + b"a" * 1000 + b"\r\n", b"GET /" + b"a" * 1000):
        line = Line(hub)
        line.send(head)
        with contextlib.suppress(OSError):  # it is closed while we still send
            for _ in range(20):
                line.send((b"X-B: " + b"b" * 8000 + b"\r\n") if b"\r" in head else b"b" * 8000)
                time.sleep(0.01)
        with contextlib.suppress(OSError):
            assert line.reader.readline().startswith(b"HTTP/1.1 431")
            line.reader.read()
        line.socket.close()
    line = Line(hub)
    line.send(line.question("X-A: " + "a" * (LONGEST_HEAD // 2) + "\r\n"))
    assert held(line.answer()) == "held"


def test_who_says_nothing_is_not_waited_for(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HEAD_SECONDS", 0.5)
    silent, halfway, done = Line(hub), Line(hub), Line(hub)
    halfway.send(b"POST /v1/lookups HTTP/1.1\r\nHost: hub\r\n")
    done.send(done.question())
    assert held(done.answer()) == "held"
    time.sleep(1)
    assert silent.ended() and halfway.ended()
    done.send(done.question())
    assert held(done.answer()) == "held", "one that has asked keeps its line a while"
    done.send(b"\r\n")  # is no request, and stops the clock of those that are kept
    time.sleep(1)
    assert done.ended()


def test_a_question_is_counted_once_whichever_way_it_goes(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    monkeypatch.setattr(Rates, "take", lambda self, client, rate, requests=1: counted.append(client))
    for members in ({}, {"purpose": "other"}, {"id": "cn.ric:1"}):
        line.send(line.question(**members))
        line.answer()
    assert counted == ["hall-1"] * 3


def test_padding_of_a_token_is_not_remembered(hub: Hub, line: Line) -> None:
    known = dict(hub.app.state.hot.bearers)
    line.token = line.token.replace("Bearer ", "Bearer " + " " * 5000)
    line.send(line.question())
    assert held(line.answer()) == "held"
    assert hub.app.state.hot.bearers == known
