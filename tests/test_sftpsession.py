"""connectors/sftpsession.py: files that change under way, requests held back, connections that end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asyncssh.stream import SSHServerStreamSession

from connectors.errors import RetriableError
from connectors.sftpsession import PIECE, Altered, Session
from connectors.source import Source, load
from tests.sftp import Served, served


@pytest.fixture
def source() -> Source:
    packaged = load("sh-hrss-insurance")
    return packaged.model_copy(
        update={"options": packaged.options.model_copy(update={"attempts": 2, "backoff_seconds": 0.01})}
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "drop").mkdir()
    with served(tmp_path / "key", sh_hrss=tmp_path / "drop") as running:
        yield running


def test_content_of_a_file_that_changes(source: Source, server: Served, tmp_path: Path) -> None:
    file = tmp_path / "drop" / "a.jsonl"
    data = os.urandom(100 * PIECE + 7)
    file.write_bytes(data)
    with Session(source, server.connection()) as session:
        stamp = session.listing()["a.jsonl"]
        assert stamp == [len(data), int(file.stat().st_mtime)]
        assert b"".join(session.content("a.jsonl", stamp)) == data
        with pytest.raises(Altered):
            list(session.content("a.jsonl", [stamp[0], 0]))
        with pytest.raises(Altered):
            list(session.content("absent.jsonl", stamp))
        cut = session.content("a.jsonl", stamp)
        next(cut)
        os.truncate(file, 40 * PIECE)
        with pytest.raises(Altered):
            list(cut)


def test_requests_are_counted_and_held_back(source: Source, server: Served) -> None:
    slow = source.model_copy(update={"options": source.options.model_copy(update={"requests_per_second": 10})})
    with Session(slow, server.connection()) as session:
        start = time.monotonic()
        for _ in range(3):
            session.listing()
        assert session.requests == 3
        assert time.monotonic() - start >= 0.3, "a login and three lists, a tenth of a second apart"


def test_a_new_connection_where_the_old_one_is_gone(source: Source, server: Served) -> None:
    with Session(source, server.connection()) as session:
        assert session.listing() == {}
        assert session._transport is not None
        session._transport.close()
        assert session.listing() == {}


def test_server_that_falls_silent_after_the_login(
    source: Source, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(self: Any, subsystem: str) -> bool:
        time.sleep(3)  # the whole server stands still
        return bool(subsystem)

    monkeypatch.setattr(SSHServerStreamSession, "subsystem_requested", slow)
    impatient = source.options.model_copy(update={"read_seconds": 0.5, "attempts": 1})
    start = time.monotonic()
    with Session(source.model_copy(update={"options": impatient}), server.connection()) as session:
        with pytest.raises(RetriableError):
            session.listing()
        assert time.monotonic() - start < 2.5
