"""connectors/rest.py: a connection is checked step by step, whatever the kind of paging."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from connectors import rest
from connectors.connections import Connection
from tests.department import Server, body, connected, made, served, status


@pytest.fixture
def server() -> Iterator[Server]:
    with served() as found:
        yield found


@pytest.fixture
def connection(server: Server) -> Connection:
    return connected(server)


def test_check(server: Server, connection: Connection) -> None:
    source = made(columns=("gmsfhm", "n", "gxsj"))
    steps = rest.check(source, connection)
    assert [(step.step, step.ok) for step in steps] == [
        ("name", True), ("port", True), ("login", True), ("record", True), ("columns", True),
    ]  # fmt: skip
    assert "hush" not in str(steps)
    assert "000000" not in str(steps), "a check shows no record"


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ({"url": "http://no-such-host.invalid"}, "name"),
        ({"url": "ftp://127.0.0.1"}, "name"),
        ({"url": "http://127.0.0.1:1"}, "port"),
        ({"password": "wrong"}, "login"),
        ({"columns": ("gmsfhm", "xm")}, "columns"),
        ({"path": "/residents", "fault": status(403)}, "record"),
        ({"fault": body(b'{"records": [5], "total": 1}')}, "record"),
    ],
)
def test_check_names_the_step_that_fails(server: Server, change: dict[str, Any], step: str) -> None:
    options = {key: change[key] for key in ("columns", "path") if key in change}
    server.faults = [change["fault"]] if "fault" in change else []
    connection = Connection("sh-ga", change.get("url", server.url), "me", change.get("password", "hush"))
    last = rest.check(made(attempts=1, **options), connection)[-1]
    assert (last.step, last.ok) == (step, False)
    assert last.detail and last.advice


def test_check_of_a_certificate(server: Server) -> None:
    """A server without TLS behind an https address."""
    connection = Connection("sh-ga", server.url.replace("http:", "https:"), "me", "hush")
    assert [(step.step, step.ok) for step in rest.check(made(connect_seconds=1), connection)][-1] == (
        "certificate",
        False,
    )
