"""connectors/numberedpages.py against a real HTTP server that can misbehave."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors import rest
from connectors.connections import Connection
from connectors.errors import FatalError, RetriableError, YiciError
from connectors.landing import Landing
from connectors.reading import blocks
from tests.department import Fault, Handler, Server, body, chunked, connected, expect, fine, keys, made, served, status


@pytest.fixture
def server() -> Iterator[Server]:
    with served() as found:
        yield found


@pytest.fixture
def connection(server: Server) -> Connection:
    return connected(server)


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path)


def test_pages_land_as_they_came(server: Server, connection: Connection, landing: Landing) -> None:
    source = made()
    seen: list[tuple[int, int | None]] = []
    fetched = rest.fetch(source, connection, None, landing, lambda done, total: seen.append((done, total)))
    assert keys(source, fetched, landing) == [f"{i:06d}" for i in range(25)]
    assert [file.name for file in fetched.files] == [f"sh-ga-residents-{i:06d}.json" for i in (1, 2, 3)]
    assert json.loads(landing.open(fetched.files[2]).read())["records"] == server.records[20:]
    assert seen == [(10, 25), (20, 25), (25, 25)]
    assert (fetched.requests, server.tokens) == (4, 1)
    assert "updated_since" not in server.asked[0]
    assert len({asked["updated_until"] for asked in server.asked}) == 1
    assert "hush" not in str(fetched)
    assert "token" not in str(fetched.request)


def test_second_run_asks_from_the_watermark_less_the_overlap(
    server: Server, connection: Connection, landing: Landing
) -> None:
    first = rest.fetch(made(), connection, None, landing)
    assert first.cursor is not None
    second = rest.fetch(made(), connection, first.cursor, landing)
    (block,) = blocks(made(), second.files[0], landing)
    assert block.table.num_rows == 0
    watermark, since = (
        dt.datetime.fromisoformat(t) for t in (first.cursor["watermark"], server.asked[-1]["updated_since"])
    )
    assert watermark - since == dt.timedelta(minutes=5)
    assert abs(dt.datetime.now(dt.UTC) - watermark) < dt.timedelta(minutes=1)


def test_nothing_changed_is_a_success(server: Server, connection: Connection, landing: Landing) -> None:
    server.records = []
    fetched = rest.fetch(made(), connection, None, landing)
    (block,) = blocks(made(), fetched.files[0], landing)
    assert block.table.num_rows == 0


@pytest.mark.parametrize(
    "fault",
    [
        status(500),
        status(502),
        status(429),
        body(b"<html><body>502 Bad Gateway</body></html>"),
        body(b'{"page": 2, "total": 25, "records": [{"gmsfhm": "0'),
        body(b'{"page": 2, "total": 25, "records": []}', Content_Length="4000", Connection="close"),
        lambda handler: chunked(handler, b'{"page": 2, "total": 25, "records": []}', whole=False),
        lambda handler: bool(handler.connection.close()) or True,
        lambda handler: handler.page(handler.server.records[10:15], 25, 2, 10),
        lambda handler: handler.page(handler.server.records[:10], 25, 1, 10),
        lambda handler: handler.page(handler.server.records[:10], 25, 2, 10),
        lambda handler: handler.page(handler.server.records[15:25], 25, 3, 10),
    ],
)
def test_one_fault_in_the_middle_is_overcome(
    server: Server, connection: Connection, landing: Landing, fault: Fault
) -> None:
    server.faults = [fine, fault]
    source = made(read_seconds=0.5)
    assert keys(source, rest.fetch(source, connection, None, landing), landing) == [f"{i:06d}" for i in range(25)]


@pytest.mark.parametrize(
    ("fault", "code", "kind", "tries"),
    [
        (body(b" <html>"), "rest-html", RetriableError, 3),
        (body(b'{"records": ['), "rest-not-json", RetriableError, 3),
        (lambda handler: handler.page(handler.server.records[:5], 25, 1, 10), "rest-page-count", FatalError, 3),
        (body(b'{"rows": [], "total": 0}'), "rest-form", FatalError, 1),
        (body(b'{"records": [], "total": "many"}'), "rest-form", FatalError, 1),
    ],
)
def test_lasting_faults_of_pages(
    server: Server,
    connection: Connection,
    landing: Landing,
    fault: Fault,
    code: str,
    kind: type[YiciError],
    tries: int,
) -> None:
    server.faults = [fault] * 10
    expect(code, kind, made(page_bytes=4000, read_seconds=0.5), connection, landing)
    assert len(server.asked) == tries


def test_a_server_that_ignores_the_page_number(server: Server, connection: Connection, landing: Landing) -> None:
    def same(handler: Handler) -> bool:
        page = {"total": 25, "records": handler.server.records[:10]}
        return handler.reply(200, json.dumps(page).encode())

    server.faults = [same] * 10
    expect("rest-page-repeats", FatalError, made(), connection, landing)


def test_byte_order_mark(server: Server, connection: Connection, landing: Landing) -> None:
    server.faults = [body(b'\xef\xbb\xbf{"records": [{"gmsfhm": "1"}], "total": 1}')]
    assert keys(made(), rest.fetch(made(), connection, None, landing), landing) == ["1"]


def test_smaller_pages_than_asked_for(server: Server, connection: Connection, landing: Landing) -> None:
    def capped(handler: Handler) -> bool:
        number = int(handler.server.asked[-1]["page"])
        return handler.page(handler.server.records[(number - 1) * 4 : number * 4], 25, number, 4)

    server.faults = [capped] * 10
    fetched = rest.fetch(made(), connection, None, landing)
    assert keys(made(), fetched, landing) == [f"{i:06d}" for i in range(25)]


def test_records_that_leave_the_window_hide_no_others(server: Server, connection: Connection, landing: Landing) -> None:
    """Two early records are updated while pages are read: everything behind them moves up by two."""
    server.shrink_before = {2: 2}
    fetched = rest.fetch(made(), connection, None, landing)
    assert set(keys(made(), fetched, landing)) == {f"{i:06d}" for i in range(25)}
