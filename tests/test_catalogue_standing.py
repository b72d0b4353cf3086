"""hub/catalogue_standing.py: what was published stays, and a process knows whether it answers by it."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import pytest
import sqlalchemy as sa

from connectors.errors import FatalError
from hub import catalogue, catalogue_changes, catalogue_standing, publication
from mappings import items
from tests.test_publication import ENDED, FIRST, refused, write

YESTERDAY, TODAY, TOMORROW = dt.date(2026, 11, 29), dt.date(2026, 11, 30), dt.date(2026, 12, 1)
CARD = "demo-elder-card"


@pytest.fixture(autouse=True)
def the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "today", lambda: TODAY)


def first(until: dt.date | None = None, successor: str = "") -> str:
    to = f", to: {until}" if until else ""
    return f"version: 1\nin_force: {{from: 2020-01-01{to}}}" + (f"\nsuccessor: {successor}" if successor else "")


def second(since: dt.date, until: dt.date | None = None) -> str:
    return f"version: 2\nin_force: {{from: {since}{f', to: {until}' if until else ''}}}"


def published(folder: Path, *files: tuple[str, str]) -> int:
    """Write versions of the card and publish; how many changes were new."""
    for name, change in files:
        write(folder, name, change)
    return len(publication.publish("wang", folder=folder))


@pytest.mark.parametrize(("since", "taken"), [(YESTERDAY, False), (TODAY, True), (TOMORROW, True)])
def test_a_change_takes_effect_on_the_day_of_its_publication_or_later(
    store: sa.Engine, tmp_path: Path, since: dt.date, taken: bool
) -> None:
    published(tmp_path, (CARD, FIRST))
    write(tmp_path, f"{CARD}@1", first(since - dt.timedelta(days=1)))
    write(tmp_path, CARD, second(since))
    if taken:
        assert published(tmp_path) == 1
        return
    [said] = refused(tmp_path).splitlines()
    assert said.startswith(
        f"{tmp_path}/{CARD}.yml:11: version 2 takes effect on 2026-11-29, before the day of its publication"
    )
    assert "(2026-11-30)" in said and "let it take effect that day or later" in said


@pytest.mark.parametrize(("until", "taken"), [(dt.date(2026, 11, 28), False), (YESTERDAY, True), (TODAY, True)])
def test_an_end_is_published_before_it_comes(store: sa.Engine, tmp_path: Path, until: dt.date, taken: bool) -> None:
    """The last day may be yesterday: then today is the first day without it."""
    published(tmp_path, (CARD, FIRST))
    write(tmp_path, CARD, first(until))
    if taken:
        assert published(tmp_path) == 1
    else:
        assert f"{CARD}.yml:11: version 1 ends on 2026-11-28, before its end is published" in refused(tmp_path)


def test_the_first_publication_of_an_item_is_of_any_day(store: sa.Engine, tmp_path: Path) -> None:
    """A hub takes over a catalogue that is in force, also beside what it has published."""
    assert published(tmp_path, (f"{CARD}@1", ENDED), (CARD, second(dt.date(2024, 1, 1)))) == 2
    write(tmp_path, "demo-b", first(dt.date(2021, 1, 1), "demo-c"), "demo-b")
    write(tmp_path, "demo-c", FIRST, "demo-c")
    assert published(tmp_path) == 3


def test_an_end_that_came_is_over_and_one_to_come_may_be_moved(store: sa.Engine, tmp_path: Path) -> None:
    published(tmp_path, (CARD, first(dt.date(2026, 10, 31))))
    for until in (dt.date(2026, 10, 30), TODAY, dt.date(2027, 6, 30)):
        write(tmp_path, CARD, first(until))
        assert f"{CARD}.yml:11: version 1 ended on 2026-10-31, as published: that is over" in refused(tmp_path)
    # Nor does it go on behind a version that follows, though nothing is said of an end then.
    write(tmp_path, f"{CARD}@1", first(dt.date(2026, 12, 31)))
    write(tmp_path, CARD, second(dt.date(2027, 1, 1)))
    assert f"{CARD}@1.yml:11: version 1 ended on 2026-10-31" in refused(tmp_path)
    write(tmp_path, f"{CARD}@1", first(dt.date(2026, 10, 31)))
    assert published(tmp_path) == 2, "another end of the same day, as a version follows later"
    assert published(tmp_path, (CARD, second(dt.date(2027, 1, 1), dt.date(2027, 12, 31)))) == 1
    assert published(tmp_path, (CARD, second(dt.date(2027, 1, 1), dt.date(2028, 12, 31)))) == 1
    write(tmp_path, CARD, second(dt.date(2027, 1, 1), dt.date(2027, 12, 31)))
    assert "version 2: this end was published and replaced by 2028-12-31 since" in refused(tmp_path)


def test_a_later_version_that_began_before_the_end_says_it(
    store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(tmp_path, (CARD, first(dt.date(2027, 6, 30))))
    assert published(tmp_path, (f"{CARD}@1", first(TODAY)), (CARD, second(TOMORROW))) == 1
    monkeypatch.setattr(catalogue, "today", lambda: dt.date(2028, 1, 1))
    assert published(tmp_path) == 0


def test_a_successor_may_be_said_after_the_end(store: sa.Engine, tmp_path: Path) -> None:
    write(tmp_path, "demo-b", FIRST, "demo-b")
    published(tmp_path, (CARD, first(dt.date(2026, 10, 31))))
    assert published(tmp_path, (CARD, first(dt.date(2026, 10, 31), "demo-b"))) == 1


@pytest.fixture
def loaded(store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, published, whose catalogue a process has loaded."""
    published(tmp_path, (CARD, first(dt.date(2027, 6, 30))))
    versions = items.all_versions(tmp_path)
    changes = tuple(catalogue_changes.authored(versions))
    monkeypatch.setattr(catalogue, "published", lambda: versions)
    monkeypatch.setattr(catalogue, "changes", lambda: changes)
    return tmp_path


def standing(store: sa.Engine) -> str:
    with store.connect() as connection:
        return catalogue_standing.standing(connection)


def test_a_process_is_behind_once_something_was_published_that_it_has_not_loaded(
    loaded: Path, store: sa.Engine
) -> None:
    assert standing(store) == "published"
    assert published(loaded, (CARD, first(dt.date(2028, 6, 30)))) == 1
    assert standing(store) == "behind", "an end was moved"
    assert published(loaded, (f"{CARD}@1", first(TODAY)), (CARD, second(TOMORROW))) == 1
    assert standing(store) == "behind", "a version"
    with store.begin() as connection:
        connection.execute(sa.text("DELETE FROM catalogue_change"))
    assert standing(store) == "published", "nothing was ever published"


def test_a_process_that_knows_more_than_was_published_says_so(
    loaded: Path, store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for change in (first(dt.date(2028, 6, 30)), first(dt.date(2027, 6, 30), "demo-b")):
        write(loaded, "demo-b", first(), "demo-b")
        write(loaded, CARD, change)
        changes = tuple(catalogue_changes.authored(items.all_versions(loaded)))
        monkeypatch.setattr(catalogue, "changes", lambda changes=changes: changes)
        catalogue_standing._told.clear()
        assert standing(store) == "unpublished"


def test_a_process_without_the_end_is_behind(loaded: Path, store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    write(loaded, CARD, first())
    versions = items.all_versions(loaded)
    monkeypatch.setattr(catalogue, "published", lambda: versions)
    monkeypatch.setattr(catalogue, "changes", lambda: tuple(catalogue_changes.authored(versions)))
    assert standing(store) == "behind"


def test_a_process_with_an_altered_version_does_not_use_the_store(
    loaded: Path, store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.connect() as connection:
        catalogue_standing.require(connection)
        [item] = catalogue.published()[CARD]
        monkeypatch.setattr(items, "FOLDER", loaded)
        altered = item.model_copy(update={"type": "行政奖励"})
        monkeypatch.setattr(catalogue, "published", lambda: {CARD: (altered,)})
        with pytest.raises(FatalError) as caught:
            catalogue_standing.require(connection)
    assert caught.value.code == "items-altered" and "says something else now" in str(caught.value.values["defects"])
    with store.begin() as connection:
        connection.execute(sa.text("DROP TABLE catalogue_change"))
        catalogue_standing.require(connection)  # not migrated: /readyz tells


def test_of_items_whose_files_have_flaws_nothing_is_said(loaded: Path, store: sa.Engine) -> None:
    with store.connect() as connection:
        feed = catalogue_standing.read(connection)
    assert [each.reason for each in catalogue_standing.refused(feed, {}, loaded)] == [
        "version 1 was published and is gone: end it with `in_force.to`"
    ]
    assert catalogue_standing.refused(feed, {}, loaded, unread={CARD}) == []
    assert feed == dataclasses.replace(feed, position=2)
