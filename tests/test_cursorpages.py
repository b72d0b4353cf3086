"""connectors/cursorpages.py against a real HTTP server that can misbehave."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors import cursorpages, rest
from connectors.connections import Connection
from connectors.errors import FatalError, RetriableError, YiciError
from connectors.fetched import Fetched
from connectors.landing import Landing
from tests.department import Fault, Handler, Server, body, connected, expect, fine, keys, made, served, status

ALL = [f"{i:06d}" for i in range(25)]
SOURCE = made(paging="cursor")


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


def page(records: list[Any], **more: Any) -> Fault:
    return body(json.dumps({"records": records, **more}).encode())


def test_pages_land_as_they_came(server: Server, connection: Connection, landing: Landing) -> None:
    seen: list[tuple[int, int | None]] = []
    fetched = rest.fetch(SOURCE, connection, None, landing, lambda done, total: seen.append((done, total)))
    assert keys(SOURCE, fetched, landing) == ALL
    assert [file.name for file in fetched.files] == [f"sh-ga-residents-{i:06d}.json" for i in (1, 2, 3)]
    assert json.loads(landing.open(fetched.files[0]).read()) == {"records": server.records[:10], "next": "at-10"}
    assert seen == [(10, None), (20, None), (25, None)]
    assert server.asked == [{"limit": "10"}, {"limit": "10", "cursor": "at-10"}, {"limit": "10", "cursor": "at-20"}]
    assert fetched.cursor is not None and list(fetched.cursor) == ["watermark"]
    assert fetched.requests == 4 and "at-" not in str(fetched.request)


def test_second_run_asks_from_the_watermark_less_the_overlap(
    server: Server, connection: Connection, landing: Landing
) -> None:
    first = rest.fetch(SOURCE, connection, None, landing)
    assert first.cursor is not None
    server.records += [{"gmsfhm": f"9{i:05d}", "gxsj": "2999-01-01T00:00:00Z"} for i in range(12)]
    second = rest.fetch(SOURCE, connection, first.cursor, landing)
    assert len(keys(SOURCE, second, landing)) == 12
    since = dt.datetime.fromisoformat(server.asked[-1]["updated_since"])
    assert dt.datetime.fromisoformat(first.cursor["watermark"]) - since == dt.timedelta(minutes=5)
    assert server.asked[-1]["cursor"] == "at-35", "the same question goes on with the token"


def test_nothing_changed_is_a_success(server: Server, connection: Connection, landing: Landing) -> None:
    server.records = []
    source = made(paging="cursor", columns=("gmsfhm", "n", "gxsj"))
    fetched = rest.fetch(source, connection, None, landing)
    assert keys(source, fetched, landing) == [] and fetched.cursor is not None


def test_a_record_updated_meanwhile_comes_again_at_the_end(
    server: Server, connection: Connection, landing: Landing
) -> None:
    """It leaves its place, so that everything behind it moves up; the server's token stands for a place in the order."""

    def update(place: int) -> None:
        if place == 10:
            server.records.append({**server.records[3], "gxsj": "2026-02-01T00:00:00Z", "n": "new"})

    server.before_page = update
    assert keys(SOURCE, rest.fetch(SOURCE, connection, None, landing), landing) == [*ALL, "000003"]


# -- ETag


def test_unchanged_is_told_by_the_etag(server: Server, connection: Connection, landing: Landing) -> None:
    server.etag = 'W/"one"'
    first = rest.fetch(SOURCE, connection, None, landing)
    assert first.cursor is not None and first.cursor["etag"] == 'W/"one"'
    assert server.etags == [None, None, None]
    again = rest.fetch(SOURCE, connection, first.cursor, landing)
    assert again == Fetched([], None, 2, {**again.request, "unchanged": True})
    assert server.etags[3:] == ['W/"one"'], "one question, and its answer says it all"
    server.etag = '"two"'
    changed = rest.fetch(SOURCE, connection, first.cursor, landing)
    assert changed.cursor is not None and changed.cursor["etag"] == '"two"' and len(changed.files) == 1


def test_the_etag_kept_is_that_of_the_first_page(server: Server, connection: Connection, landing: Landing) -> None:
    """A change while pages are read may not be in them: the next reading must not be told that nothing changed."""

    def change(place: int) -> None:
        server.etag = '"after"' if place else server.etag

    server.etag, server.before_page = '"before"', change
    fetched = rest.fetch(SOURCE, connection, None, landing)
    assert fetched.cursor is not None and fetched.cursor["etag"] == '"before"'


@pytest.mark.parametrize("etag", ["no quotes", '"' + "x" * 501 + '"', ""])
def test_what_is_no_etag_is_not_kept(server: Server, connection: Connection, landing: Landing, etag: str) -> None:
    server.faults = [body(b'{"records": []}', ETag=etag)]
    fetched = rest.fetch(SOURCE, connection, None, landing)
    assert fetched.cursor is not None and "etag" not in fetched.cursor


def test_304_to_a_question_without_an_etag_is_refused(server: Server, connection: Connection, landing: Landing) -> None:
    server.faults = [lambda handler: handler.reply(304, b"")]
    expect("rest-status", FatalError, SOURCE, connection, landing)


# -- resume tokens


def test_a_reading_resumes_where_the_last_one_ended(server: Server, connection: Connection, landing: Landing) -> None:
    server.resumes = True
    first = rest.fetch(SOURCE, connection, None, landing)
    assert first.cursor is not None and first.cursor["resume"] == "at-25"
    # updated long before the watermark, visible only now: a moment would miss it
    server.records += [{"gmsfhm": f"9{i:05d}", "gxsj": "2025-01-01T00:00:00Z"} for i in range(12)]
    second = rest.fetch(SOURCE, connection, first.cursor, landing)
    assert len(keys(SOURCE, second, landing)) == 12
    assert second.cursor is not None and second.cursor["resume"] == "at-37"
    assert all("updated_since" not in asked for asked in server.asked)
    assert "at-" not in str(second.request) and second.request["resumed"] is True


def test_a_forgotten_token_falls_back_to_the_moment(server: Server, connection: Connection, landing: Landing) -> None:
    server.resumes = True
    first = rest.fetch(SOURCE, connection, None, landing)
    server.faults = [status(410)]
    second = rest.fetch(SOURCE, connection, first.cursor, landing)
    assert "cursor" not in server.asked[-1] and "updated_since" in server.asked[-1]
    assert second.cursor is not None and second.request["resumed"] is False


def test_a_token_forgotten_in_the_middle_is_for_the_next_run(
    server: Server, connection: Connection, landing: Landing
) -> None:
    server.faults = [fine, status(410)]
    expect("rest-token-gone", RetriableError, SOURCE, connection, landing)


# -- servers that go wrong


@pytest.mark.parametrize(
    "fault",
    [
        status(503),
        status(429, Retry_After="0"),
        body(b"<html><body>502 Bad Gateway</body></html>"),
        body(b'{"next": "at-20", "records": [{"gmsfhm": "0'),
        lambda handler: page(handler.server.records[:10], next="at-20")(handler),
        lambda handler: page(handler.server.records[10:20], next="at-10")(handler),
    ],
)
def test_one_fault_in_the_middle_is_overcome(
    server: Server, connection: Connection, landing: Landing, fault: Fault
) -> None:
    server.faults = [fine, fault]
    assert keys(SOURCE, rest.fetch(SOURCE, connection, None, landing), landing) == ALL


def _same_page(handler: Handler) -> bool:
    """Ignores the token, and gives out a new one each time."""
    return page(handler.server.records[:10], next=f"at-{len(handler.server.asked)}")(handler)


def _same_token(handler: Handler) -> bool:
    return page([{"gmsfhm": str(len(handler.server.asked))}], next="at-10")(handler)


def _in_threes(handler: Handler) -> bool:
    """Three pages in turn, under ever new tokens."""
    turn = len(handler.server.asked) % 3
    return page([{"gmsfhm": str(turn)}], next=f"at-{len(handler.server.asked)}")(handler)


@pytest.mark.parametrize(
    ("fault", "code", "kind", "asked"),
    [
        (_same_page, "rest-records-repeat", FatalError, 4),
        (_same_token, "rest-token-repeats", FatalError, 4),
        (_in_threes, "rest-records-repeat", FatalError, None),
        (page([], next=5), "rest-form", FatalError, 1),
        (page([], next="x" * 5000), "rest-form", FatalError, 1),
        (page([], resume=["at-10"]), "rest-form", FatalError, 1),
        (body(b'{"rows": [], "next": null}'), "rest-form", FatalError, 1),
        (body(b'{"records": {}, "next": null}'), "rest-form", FatalError, 1),
        (body(b"[]"), "rest-not-json", RetriableError, 3),
        (status(500), "rest-server", RetriableError, 3),
        (status(410), "rest-status", FatalError, 1),
    ],
)
def test_lasting_faults(
    server: Server,
    connection: Connection,
    landing: Landing,
    fault: Fault,
    code: str,
    kind: type[YiciError],
    asked: int | None,
) -> None:
    server.faults = [fault] * 20
    error = expect(code, kind, SOURCE, connection, landing)
    assert "at-" not in str(error)
    assert asked is None or len(server.asked) == asked


def test_a_server_without_an_end(
    server: Server, connection: Connection, landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def more(handler: Handler) -> bool:
        number = len(handler.server.asked)
        return page([{"gmsfhm": str(number)}], next=f"at-{number}")(handler)

    def empty(handler: Handler) -> bool:
        return page([], next=f"at-{len(handler.server.asked)}")(handler)

    monkeypatch.setattr(cursorpages, "MOST_PAGES", 7)
    monkeypatch.setattr(cursorpages, "MOST_EMPTY", 3)
    server.faults = [more] * 20
    expect("rest-endless", FatalError, SOURCE, connection, landing)
    assert len(server.asked) == 7
    server.faults, server.asked = [empty] * 20, []
    expect("rest-endless", FatalError, SOURCE, connection, landing)
    assert len(server.asked) == 3
    server.faults = [empty, empty, more, empty, empty, page([])]
    assert len(rest.fetch(SOURCE, connection, None, landing).files) == 6, "a few empty pages are no fault"


def test_check(server: Server, connection: Connection) -> None:
    source = made(paging="cursor", columns=("gmsfhm", "holder.name", "holder.id.number", "gxsj"))
    server.records = [{"gmsfhm": "1", "holder": {"name": "x", "id": {"number": 5}}, "gxsj": "2026"}] * 2
    steps = rest.check(source, connection)
    assert [(step.step, step.ok) for step in steps] == [
        ("name", True), ("port", True), ("login", True), ("record", True), ("columns", True),
    ]  # fmt: skip
    assert steps[3].detail == "≥ 1" and server.asked == [{"limit": "1"}]
    server.records = [{"gmsfhm": "1", "holder": {"name": "x", "id": {}, "sex": 1}, "gxsj": "2026"}]
    last = rest.check(source, connection)[-1]
    assert (last.step, last.ok) == ("columns", False)
    assert "holder.sex" in last.detail and "holder.id.number" in last.detail
    server.records = []
    assert [(step.step, step.detail) for step in rest.check(source, connection)][-1] == ("record", "0")
