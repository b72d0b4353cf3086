"""The journal of merges: in order, complete, and without attempts that came to nothing."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.errors import FatalError
from hub import journal

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(autouse=True)
def _source(store: sa.Engine) -> None:
    with store.begin() as connection:
        for name in ("a", "b"):
            connection.execute(
                sa.text(
                    """INSERT INTO source (name, entity, region, authority, extent, promise_seconds, merges)
                    VALUES (:name, 'business-licence', '310000', 100, 'partial', 1, 4)"""
                ),
                {"name": name},
            )


def batch(name: str, source: str = "a", *, kind: str = "run", seen: int = 4) -> Any:
    return SimpleNamespace(id=name, source=source, kind=kind, merges_seen=seen, started_at=NOW)


def note(store: sa.Engine, one: Any, *, fail: BaseException | None = None, known_at: dt.datetime | None = None) -> None:
    """A merge that commits, or fails; with it the source's count moves."""
    with store.begin() as connection:
        with journal.noted(connection, one) as entry:
            if fail:
                raise fail
        if one.kind == "run":
            connection.execute(
                sa.text("UPDATE source SET merges = merges + 1 WHERE name = :name"), {"name": one.source}
            )
    journal.complete(entry, known_at)


def names() -> list[str]:
    return [entry.batch for entry in journal.entries()]


def test_entries_come_in_the_order_in_which_merges_became_known(store: sa.Engine) -> None:
    note(store, batch("a1"), known_at=NOW + dt.timedelta(minutes=3))
    note(store, batch("b1", "b"), known_at=NOW + dt.timedelta(minutes=2))
    note(store, batch("a-release", kind="release"), known_at=NOW + dt.timedelta(minutes=4))
    note(store, batch("a2", seen=5), known_at=NOW)  # a clock that went back: the number rules within a source
    assert names() == ["b1", "a1", "a-release", "a2"]
    assert [entry.number for entry in journal.entries()] == [5, 5, 5, 6]


def test_a_failed_merge_leaves_nothing_and_a_cut_off_one_gives_way(store: sa.Engine) -> None:
    for failure in (FatalError("batch-unknown", batch="x"), KeyboardInterrupt()):
        with pytest.raises(type(failure)):
            note(store, batch("failed"), fail=failure)
        assert names() == []
    gone = sa.exc.OperationalError("merge", {}, Exception("server closed the connection"))
    with pytest.raises(sa.exc.OperationalError):
        note(store, batch("cut-off"), fail=gone)
    assert names() == ["cut-off"], "nobody knows whether it was committed: a rebuild takes it"
    note(store, batch("next"))
    assert names() == ["next"], "it was not: the next has its number"


def test_an_attempt_of_last_month_gives_way_too(store: sa.Engine) -> None:
    old = journal.Entry("a", 5, "cut-off", "run", NOW, NOW - dt.timedelta(days=40))
    journal._write(old)
    note(store, batch("next"))
    assert names() == ["next"]


def test_nothing_is_noted_of_what_was_overtaken_or_is_replayed(store: sa.Engine) -> None:
    note(store, batch("overtaken", seen=3))
    with store.begin() as connection, journal.noted(connection, batch("again"), NOW) as entry:
        assert entry is None
    assert names() == []


def test_the_entry_is_there_before_the_commit(store: sa.Engine) -> None:
    with store.begin() as connection, journal.noted(connection, batch("a1")):
        assert names() == ["a1"]
        entry = journal.entries()[0]
        assert entry.recorded_at is None and entry.known_at == entry.at


def test_an_unreadable_entry_is_named(store: sa.Engine, tmp_path: Path) -> None:
    note(store, batch("a1"))
    path = next((tmp_path / "home" / "landing" / "merges").rglob("*.json"))
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(FatalError) as caught:
        journal.entries()
    assert caught.value.code == "journal-invalid" and path.name in str(caught.value.values["entry"])
