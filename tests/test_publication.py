"""hub/publication.py and catalogue_changes.py: every change of the files is published once, in one order, and stays."""

from __future__ import annotations

import datetime as dt
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.errors import FatalError
from connectors.landing import Landing
from hub import catalogue, catalogue_changes, decisions, home, publication, replay
from mappings import items

ELDER = (items.FOLDER / "demo-elder-card.yml").read_text(encoding="utf-8")
FIRST, SECOND = "version: 1\nin_force: {from: 2020-01-01}", "version: 2\nin_force: {from: 2024-01-01}"
ENDED = "version: 1\nin_force: {from: 2020-01-01, to: 2023-12-31}"


def write(folder: Path, name: str, change: str, code: str = "demo-elder-card", **more: str) -> None:
    text = ELDER.replace(FIRST, change).replace("demo-elder-card", code)
    if code != "demo-elder-card":
        text = text.replace("DEMO0005", f"DEMO{code.removeprefix('demo-').upper():0>4}")
    for old, new in more.items():
        text = text.replace(old, new)
    (folder / f"{name}.yml").write_text(text, encoding="utf-8")


def kinds(changes: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    names = ("position", "item", "version", "kind", "effective_on", "successor")
    return [tuple(change[name] for name in names) for change in changes]


def feed(store: sa.Engine, after: int = 0, limit: int = 100) -> dict[str, Any]:
    with store.connect() as connection:
        return catalogue_changes.page(connection, after, limit)


def refused(folder: Path) -> str:
    with pytest.raises(FatalError) as caught:
        publication.publish("wang", folder=folder)
    assert caught.value.code == "items-altered"
    return str(caught.value.values["defects"])


def test_a_life_of_an_item_is_published_change_by_change(
    store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "today", lambda: dt.date(2024, 1, 1))
    write(tmp_path, "demo-elder-card", FIRST)
    assert kinds(publication.publish("wang", folder=tmp_path)) == [
        (1, "demo-elder-card", 1, "added", "2020-01-01", None)
    ]
    assert publication.publish("wang", folder=tmp_path) == []
    # A version that follows on the next day is one change, not two.
    write(tmp_path, "demo-elder-card@1", ENDED)
    write(tmp_path, "demo-elder-card", SECOND)
    assert kinds(publication.publish("li", folder=tmp_path)) == [
        (2, "demo-elder-card", 2, "changed", "2024-01-01", None)
    ]
    write(tmp_path, "demo-elder-card", SECOND.replace("}", ", to: 2026-06-30}"))
    assert kinds(publication.publish("li", folder=tmp_path)) == [
        (3, "demo-elder-card", 2, "retired", "2026-07-01", None)
    ]
    # What the successor is may be said later, also when the end has come, and where a gap follows an end is said too.
    monkeypatch.setattr(catalogue, "today", lambda: dt.date(2026, 9, 1))
    write(tmp_path, "demo-elder-card", SECOND.replace("}", ", to: 2026-06-30}\nsuccessor: demo-new"))
    write(tmp_path, "demo-new@1", "version: 1\nin_force: {from: 2026-07-01, to: 2026-12-31}", "demo-new")
    write(tmp_path, "demo-new", "version: 2\nin_force: {from: 2027-07-01}", "demo-new")
    assert kinds(publication.publish("li", folder=tmp_path)) == [
        (4, "demo-elder-card", 2, "retired", "2026-07-01", "demo-new"),
        (5, "demo-new", 1, "added", "2026-07-01", None),
        (6, "demo-new", 1, "ended", "2027-01-01", None),
        (7, "demo-new", 2, "changed", "2027-07-01", None),
    ]
    assert [change["position"] for change in feed(store)["changes"]] == [1, 2, 3, 4, 5, 6, 7]


def test_what_was_published_is_not_altered_in_place(store: sa.Engine, tmp_path: Path) -> None:
    write(tmp_path, "demo-elder-card", FIRST)
    write(tmp_path, "demo-b", ENDED, "demo-b")
    write(tmp_path, "demo-c", FIRST, "demo-c")
    publication.publish("wang", folder=tmp_path)
    write(tmp_path, "demo-elder-card", FIRST, **{"household-register": "residence-permit"})
    write(tmp_path, "demo-b", FIRST, "demo-b")
    (tmp_path / "demo-c.yml").unlink()
    write(tmp_path, "demo-d", FIRST, "demo-d")
    said = refused(tmp_path).splitlines()
    assert [line.removeprefix(f"{tmp_path}/").partition(": ")[0] for line in said] == [
        "demo-b.yml:11", "demo-c.yml", "demo-elder-card.yml:10",
    ]  # fmt: skip
    assert "published as ended" in said[0] and "is gone" in said[1] and "says something else now" in said[2]
    assert len(feed(store)["changes"]) == 4, "nothing is published beside what is refused"
    write(tmp_path, "demo-elder-card", FIRST + "\n# another comment\n")
    assert "demo-elder-card" not in refused(tmp_path)
    # Nor are flaws published.
    write(tmp_path, "demo-elder-card", FIRST, **{"resident-id-card": "moon-permit"})
    with pytest.raises(FatalError, match="no material moon-permit"):
        publication.publish("wang", folder=tmp_path)


def test_who_publishes_at_the_same_time_publishes_once(store: sa.Engine, tmp_path: Path) -> None:
    for code in "abcdefgh":
        write(tmp_path, f"demo-{code}", FIRST, f"demo-{code}")
    done: list[int] = []
    threads = [
        threading.Thread(target=lambda: done.append(len(publication.publish("wang", folder=tmp_path))))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == [0, 0, 0, 0, 0, 8]
    assert [change["position"] for change in feed(store)["changes"]] == list(range(1, 9))
    with store.begin() as connection:
        connection.execute(sa.text("DELETE FROM catalogue_change"))
    _pages(store)


def _pages(store: sa.Engine) -> None:
    """The feed of the authored items, read page by page, goes on where the last page ended."""
    everything = publication.publish("wang")
    first = feed(store, limit=7)
    assert (first["more"], first["next"]) == (True, 7)
    found, after, pages = [], 0, 0
    while (page := feed(store, after, 7))["changes"]:
        found += page["changes"]
        after, pages = page["next"], pages + 1
    assert pages == -(-len(everything) // 7)
    assert kinds(found) == kinds(everything)
    assert feed(store, after) == {"changes": [], "next": after, "more": False}
    by_kind = {change["kind"] for change in found}
    assert by_kind >= {"added", "changed", "retired"}


def test_a_rebuild_publishes_as_it_was(store: sa.Engine, tmp_path: Path) -> None:
    """Position and time are those of then, whatever the files say now; of an attempt that was cut off there is nothing."""
    write(tmp_path, "demo-elder-card", FIRST)
    publication.publish("wang", "first", folder=tmp_path)
    with pytest.raises(RuntimeError), store.begin() as connection:  # landed, and cut off before its commit
        change = {"position": 2, "item": "demo-never", "version": 1, "kind": "added", "effective_on": "2020-01-01",
                  "successor": None, "digest": "00" * 32}  # fmt: skip
        decisions.record_catalogue(connection, {"kind": publication.KIND, "changes": [change]}, actor="li")
        raise RuntimeError
    write(tmp_path, "demo-b", FIRST, "demo-b")
    publication.publish("li", folder=tmp_path)
    before = feed(store)
    assert [change["item"] for change in before["changes"]] == ["demo-elder-card", "demo-b"]
    with store.begin() as connection:
        connection.execute(sa.text("DELETE FROM catalogue_change"))
        connection.execute(sa.text("DELETE FROM decision"))
    replay.replay(Landing(home.current().landing_url))
    assert feed(store) == before
    with store.connect() as connection:
        who = connection.execute(sa.text("SELECT actor, note FROM decision ORDER BY decided_at")).all()
    assert [tuple(row) for row in who] == [("wang", "first"), ("li", "")]
    assert publication.publish("li", folder=tmp_path) == []


def test_what_the_files_say_is_in_the_order_of_its_dates() -> None:
    said = catalogue_changes.authored(items.all_versions())
    assert [change.effective_on for change in said] == sorted(change.effective_on for change in said)
    assert len({(change.item, change.version) for change in said}) == sum(len(v) for v in items.all_versions().values())
    [retired] = [change for change in said if change.kind == "retired"]
    assert (retired.item, retired.successor) == ("demo-elder-paper-card", "demo-elder-card")
    assert retired.effective_on == dt.date(2020, 1, 1)
