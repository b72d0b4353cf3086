"""hub/exchange/share_versions.py: which versions are served, and what they are made of."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.errors import UsageError
from hub.exchange import share_versions, shares
from hub.schema_exchange import share_file, share_version
from tests.sharing import LICENCE, agree, as_zj

START = dt.datetime(2026, 3, 1, 8, tzinfo=dt.UTC)


@pytest.fixture
def named(store: sa.Engine) -> Iterator[uuid.UUID]:
    with as_zj():
        yield agree(store)


def opened(connection: sa.Connection, named: uuid.UUID) -> tuple[shares.Share, shares.Shared]:
    share = shares.of(connection, named, dt.datetime.now(dt.UTC))
    return share, share.tables[LICENCE]


def keep(engine: sa.Engine, named: uuid.UUID, *scopes: str, **files: tuple[int, int | None, str]) -> None:
    """Versions from 0 on under ``scopes`` (``now``: the one that counts); ``files``: first version, end, kind."""
    with engine.begin() as connection:
        scope = opened(connection, named)[1].scope
        for number, under in enumerate(scopes):
            row = {"agreement": named, "material": LICENCE, "version": number, "position": number, "store": "s", "bits": 0,
                   "made_at": START + dt.timedelta(minutes=number), "scope": scope if under == "now" else under,
                   "whole": number == 0 or scopes[number - 1] != under, "rows": 10}  # fmt: skip
            connection.execute(sa.insert(share_version), [row])
        for bucket, (name, (first, end, kind)) in enumerate(files.items()):
            row = {"agreement": named, "material": LICENCE, "path": name, "from_version": first, "to_version": end,
                   "kind": kind, "bucket": bucket, "size": 5, "rows": 2}  # fmt: skip
            connection.execute(sa.insert(share_file), [row])


@pytest.mark.parametrize(
    ("scopes", "served"),
    [
        (["now"], [0]), (["old", "now", "now"], [1, 2]), (["now", "old", "now"], [2]), (["now", "old"], []), ([], []),
    ],
)  # fmt: skip
def test_served_is_what_was_made_since_the_scope_counts(
    store: sa.Engine, named: uuid.UUID, scopes: list[str], served: list[int]
) -> None:
    keep(store, named, *scopes)
    with store.connect() as connection:
        if not served:
            with pytest.raises(UsageError, match="Nothing of this table"):
                share_versions.served(connection, *opened(connection, named))
            return
        assert [version.number for version in share_versions.served(connection, *opened(connection, named))] == served
        latest = share_versions.kept(connection, named)
        assert list(latest) == [LICENCE] and latest[LICENCE].number == len(scopes) - 1


def test_versions_by_number_and_time(store: sa.Engine, named: uuid.UUID) -> None:
    keep(store, named, "now", "now", "now")
    with store.connect() as connection:
        versions = share_versions.served(connection, *opened(connection, named))

    def at(minutes: float) -> dt.datetime:
        return START + dt.timedelta(minutes=minutes)

    assert share_versions.chosen(versions).number == 2
    for when, latest, first in ((0, 0, 0), (0.5, 0, 1), (1, 1, 1), (1.99, 1, 2), (2, 2, 2)):
        assert share_versions.chosen(versions, at=at(when)).number == latest
        assert share_versions.since(versions, at(when)).number == first
    assert (
        share_versions.chosen(versions, at=at(99)).number == 2 and share_versions.since(versions, at(-99)).number == 0
    )
    assert versions[1].milliseconds == 1772352060000
    wrong: list[dict[str, Any]] = [{"number": 3}, {"number": -1}, {"at": at(-0.01)}]
    for one in wrong:
        with pytest.raises(UsageError) as refused:
            share_versions.chosen(versions, **one)
        assert refused.value.code == "share-version-unknown"
        assert refused.value.values == {
            "first": 0,
            "last": 2,
            "at": "2026-03-01T08:00:00.000Z",
            "until": "2026-03-01T08:02:00.000Z",
        }
    with pytest.raises(UsageError, match="no such version"):
        share_versions.since(versions, at(2.01))
    with pytest.raises(UsageError, match="contradicts"):
        share_versions.chosen(versions, 1, at(1))


def test_files_of_a_version_and_of_changes(store: sa.Engine, named: uuid.UUID) -> None:
    keep(store, named, "now", "now", "now", a=(0, None, "rows"), b=(0, 1, "rows"), c=(1, 2, "rows"), d=(2, None, "rows"),
         e=(1, None, "changes"), f=(2, None, "changes"))  # fmt: skip
    with store.connect() as connection:
        share, table = opened(connection, named)
        versions = share_versions.served(connection, share, table)
        found = [[one.path for one in share_versions.files(connection, share, table, version)] for version in versions]
        assert found == [["a", "b"], ["a", "c"], ["a", "d"]]

        def told(first: int, last: int) -> list[tuple[int, str, bool]]:
            changes = share_versions.changes(connection, share, table, versions, first, last)
            return [(one.version.number, one.file.path, one.inserted) for one in changes]

        assert told(0, 2) == [(0, "a", True), (0, "b", True), (1, "e", False), (2, "f", False)]
        assert told(1, 1) == [(1, "e", False)] and told(3, 3) == []
    assert share_versions.File("t/rows/00001-ab.parquet", 1, 1).id == "00001-ab"
