"""hub/partitions.py: months made ahead, rows that came too early moved, months dropped whole."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from connectors.errors import RetriableError
from hub import partitions

NOVEMBER = dt.date(2026, 11, 23)
TABLES = """
CREATE TABLE feed (
  position bigint NOT NULL, holding bytea NOT NULL, material text NOT NULL, change text NOT NULL, digest uuid,
  batch text NOT NULL, recorded_at timestamptz NOT NULL, PRIMARY KEY (position, recorded_at)
) PARTITION BY RANGE (recorded_at);
CREATE INDEX feed_holding_position_idx ON feed (holding, position);
CREATE TABLE feed_default PARTITION OF feed DEFAULT;
CREATE TABLE holding_past (
  holding bytea NOT NULL, recorded_from timestamptz NOT NULL, recorded_to timestamptz NOT NULL, document jsonb
) PARTITION BY RANGE (recorded_to);
CREATE TABLE holding_past_default PARTITION OF holding_past DEFAULT;
CREATE TABLE identity_past (identifier bytea NOT NULL, recorded_to timestamptz NOT NULL) PARTITION BY RANGE (recorded_to);
CREATE TABLE identity_past_default PARTITION OF identity_past DEFAULT;
CREATE TABLE answer (id uuid NOT NULL, asked_at timestamptz NOT NULL) PARTITION BY RANGE (asked_at);
CREATE TABLE answer_default PARTITION OF answer DEFAULT;
CREATE TABLE evidence (id uuid NOT NULL, asked_at timestamptz NOT NULL) PARTITION BY RANGE (asked_at);
CREATE TABLE evidence_default PARTITION OF evidence DEFAULT;
CREATE TABLE exchange_record (id uuid NOT NULL, recorded_at timestamptz NOT NULL) PARTITION BY RANGE (recorded_at);
CREATE TABLE exchange_record_default PARTITION OF exchange_record DEFAULT;
CREATE TABLE exchange_chain (record uuid NOT NULL, recorded_at timestamptz NOT NULL) PARTITION BY RANGE (recorded_at);
CREATE TABLE exchange_chain_default PARTITION OF exchange_chain DEFAULT;
CREATE TABLE setting (name text PRIMARY KEY, value text NOT NULL);
"""


@pytest.fixture
def engine(postgres_url: str) -> Iterator[sa.Engine]:
    made = sa.create_engine(postgres_url)
    with made.begin() as connection:
        connection.exec_driver_sql(TABLES)
    yield made
    made.dispose()


def entry(connection: sa.Connection, position: int, at: str) -> None:
    connection.execute(
        sa.text("INSERT INTO feed VALUES (:position, '\\x00', 'm', 'added', NULL, 'b', :at)"),
        {"position": position, "at": at},
    )


def where(connection: sa.Connection) -> dict[int, str]:
    """The partition of each position."""
    found = connection.execute(sa.text("SELECT position, tableoid::regclass::text FROM feed ORDER BY 1"))
    return {row[0]: row[1] for row in found}


def test_this_month_and_the_next_are_made_once(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        made = partitions.ensure(connection, NOVEMBER)
        tables = sorted(partitions.TABLES)
        assert sorted(made) == [f"{table}_{month}" for table in tables for month in ("202611", "202612")]
        assert partitions.ensure(connection, NOVEMBER) == []
        made = partitions.ensure(connection, dt.date(2026, 12, 31))
        assert sorted(made) == [f"{table}_202701" for table in tables]
        assert partitions.months(connection, "feed") == [
            dt.date(2026, 11, 1), dt.date(2026, 12, 1), dt.date(2027, 1, 1)
        ]  # fmt: skip


def test_months_begin_in_utc_whatever_the_session_says(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("SET TIME ZONE 'Asia/Shanghai'")
        partitions.ensure(connection, NOVEMBER)
        for position, at in enumerate(
            ["2026-10-31T23:59:59.999999Z", "2026-11-01T00:00:00Z", "2026-11-30T23:59:59Z", "2026-12-01T00:00Z"]
        ):
            entry(connection, position, at)
        assert where(connection) == {0: "feed_default", 1: "feed_202611", 2: "feed_202611", 3: "feed_202612"}


def test_rows_that_came_before_their_month_move_into_it(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        entry(connection, 1, "2026-11-02T00:00Z")
        entry(connection, 2, "2026-09-02T00:00Z")
        partitions.ensure(connection, NOVEMBER)
        assert where(connection) == {1: "feed_202611", 2: "feed_default"}
        assert partitions.settle(connection) == ["feed_202609"]
        assert where(connection) == {1: "feed_202611", 2: "feed_202609"}
        assert partitions.settle(connection) == []


def test_a_month_has_the_keys_and_indexes_of_the_table(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        partitions.ensure(connection, NOVEMBER)
        entry(connection, 1, "2026-11-02T00:00Z")
        indexes = connection.scalars(sa.text("SELECT count(*) FROM pg_indexes WHERE tablename = 'feed_202611'")).one()
        assert indexes == 2
        attached = "SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = 'feed'::regclass"
        assert connection.scalar(sa.text(attached))
        with pytest.raises(sa.exc.IntegrityError), connection.begin_nested():
            entry(connection, 1, "2026-11-02T00:00Z")


def test_many_at_once_make_each_month_once(engine: sa.Engine) -> None:
    made: list[str] = []
    failed: list[BaseException] = []

    def make() -> None:
        try:
            with engine.begin() as connection:
                made.extend(partitions.ensure(connection, NOVEMBER))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=make) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(made) == len(set(made)) == 2 * len(partitions.TABLES)


def test_who_reads_other_months_does_not_wait_and_a_busy_table_is_left_for_later(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "PATIENCE", "100ms")
    with engine.begin() as connection:
        partitions.ensure(connection, NOVEMBER)
    with engine.connect() as reader, engine.begin() as connection:
        reader.execute(sa.text("SELECT * FROM feed WHERE recorded_at >= '2026-11-01Z' AND recorded_at < '2026-12-01Z'"))
        assert len(partitions.ensure(connection, dt.date(2027, 1, 1))) == 2 * len(partitions.TABLES)
        connection.commit()
    with engine.connect() as reader, engine.begin() as connection:
        reader.execute(sa.text("SELECT * FROM feed"))
        assert partitions.ensure(connection, dt.date(2027, 3, 1)) == []
        with pytest.raises(RetriableError) as busy:
            partitions.drop(connection, "feed", dt.date(2026, 11, 1))
        assert busy.value.code == "partitions-busy"
        entry(connection, 5, "2027-03-02T00:00Z")  # the caller's transaction goes on, and the row has a place
        assert connection.scalar(sa.text("SELECT current_setting('lock_timeout')")) == "0"
    with engine.begin() as connection:
        assert len(partitions.ensure(connection, dt.date(2027, 3, 1))) == 2 * len(partitions.TABLES)
        assert where(connection) == {5: "feed_202703"}


def test_a_month_is_dropped_whole(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        partitions.ensure(connection, NOVEMBER)
        entry(connection, 1, "2026-11-02T00:00Z")
        entry(connection, 2, "2026-12-02T00:00Z")
        partitions.drop(connection, "feed", dt.date(2026, 11, 1))
        partitions.drop(connection, "feed", dt.date(2026, 11, 1))
        assert where(connection) == {2: "feed_202612"}
        assert partitions.months(connection, "feed") == [dt.date(2026, 12, 1)]
        with pytest.raises(KeyError):
            partitions.drop(connection, "holding", dt.date(2026, 11, 1))


def test_what_is_to_stay_of_a_dropped_month_stays(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        partitions.ensure(connection, NOVEMBER)
        for position, at in enumerate(["2026-11-02T00:00Z", "2026-11-03T00:00Z", "2026-12-04T00:00Z"]):
            entry(connection, position, at)
        assert partitions.since(connection, "feed") is None
        partitions.drop(connection, "feed", NOVEMBER, "k.position = 1")
        assert where(connection) == {1: "feed_default", 2: "feed_202612"}
        assert partitions.since(connection, "feed") == dt.date(2026, 12, 1)
        assert partitions.settle(connection) == []
        partitions.note_since(connection, "feed", dt.date(2026, 1, 1))
        assert partitions.since(connection, "feed") == dt.date(2026, 12, 1), "what is gone does not come back"


def test_a_store_without_partitions_is_left_alone(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        assert partitions.ensure(connection) == []
    engine.dispose()
