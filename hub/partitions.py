"""Monthly partitions of what is kept by time: made ahead, so that rows find their month, and dropped whole.

``feed`` by ``recorded_at``, ``holding_past`` and ``identity_past`` by ``recorded_to``; the partition of November 2026 (in UTC) is
``feed_202611``. A DEFAULT partition (``feed_default``) takes what has no month yet, so that no merge fails over it; its rows
move when their month is made.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa

from connectors.errors import RetriableError

TABLES = {
    "feed": "recorded_at", "holding_past": "recorded_to", "identity_past": "recorded_to", "answer": "asked_at", "evidence": "asked_at",
    "exchange_record": "recorded_at", "exchange_chain": "recorded_at",
}  # fmt: skip
HISTORY = ("holding_past", "identity_past")  # what `--as-of` answers from, kept and dropped together
BEGINS = "history-begins"
PATIENCE = "3s"  # whoever wants a month must not stop those who read and write the others
LOCK = "yici-partitions"


def ensure(connection: sa.Connection, today: dt.date | None = None) -> list[str]:
    """Make the partitions of this month and the next where they are missing; returns the names made.

    In the caller's transaction, any number of callers at once; one catalogue query when there is nothing to do. Where the
    tables are busy for longer than ``PATIENCE`` it is left to the next call: until then the DEFAULT partition takes the rows.
    """
    this = first(today or dt.datetime.now(dt.UTC).date())
    try:
        return cover(connection, {table: [this, following(this)] for table in TABLES})
    except RetriableError:
        return []


def cover(connection: sa.Connection, wanted: Mapping[str, Iterable[dt.date]]) -> list[str]:
    """Make the partitions of the months ``wanted`` of each table, rows of theirs in DEFAULT moved; returns the names made.

    RetriableError ``partitions-busy``, with nothing made.
    """
    if not _missing(connection, wanted):
        return []
    with _unhurried(connection):
        missing = _missing(connection, wanted)  # another caller may have made them while this one waited
        # Attached instead of created as a partition: merges and readers of other months go on. Only DEFAULT is locked.
        for name, (table, month) in missing.items():
            bounds = {"from": month.isoformat(), "to": following(month).isoformat()}
            span = "{column} >= '{from} 00:00+00' AND {column} < '{to} 00:00+00'".format(column=TABLES[table], **bounds)
            for statement in (
                f"LOCK TABLE ONLY {table}_default IN ACCESS EXCLUSIVE MODE",
                f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)",
                f"WITH moved AS (DELETE FROM ONLY {table}_default WHERE {span} RETURNING *) INSERT INTO {name} SELECT * FROM moved",
                "ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{from} 00:00+00') TO ('{to} 00:00+00')".format(
                    table=table, name=name, **bounds
                ),
            ):
                connection.exec_driver_sql(statement)
    return list(missing)


def settle(connection: sa.Connection) -> list[str]:
    """Give the rows that lie in a DEFAULT partition their month; returns the names made. As :func:`cover` otherwise.

    What stayed of a month that was dropped stays there.
    """
    stray = {}
    for table, column in TABLES.items():
        months_ = f"SELECT DISTINCT date_trunc('month', {column} AT TIME ZONE 'UTC')::date FROM ONLY {table}_default"
        oldest = since(connection, table) or dt.date.min
        stray[table] = [month for month in connection.scalars(sa.text(months_)) if month >= oldest]
    return cover(connection, stray)


def months(connection: sa.Connection, table: str) -> list[dt.date]:
    """The first days of the months that have a partition, in order; DEFAULT is not among them."""
    names = connection.scalars(_PARTITIONS, {"table": table, "pattern": f"^{table}_[0-9]{{6}}$"})
    return [dt.datetime.strptime(name[-6:], "%Y%m").date() for name in names]


def drop(connection: sa.Connection, table: str, month: dt.date, keeping: str | None = None) -> None:
    """Drop a month whole, and note it (:func:`since`). RetriableError ``partitions-busy`` when somebody reads or writes for long.

    ``keeping``: an SQL condition over the rows ``k`` of the month that stay, in DEFAULT; what it costs is spent before
    anybody has to wait.
    """
    name = name_of(table, month)
    with _unhurried(connection):
        if connection.scalar(sa.text("SELECT to_regclass(:name)"), {"name": name}) is None:
            return
        if keeping:
            # What was kept once and has been overtaken since, before what overtook it goes.
            connection.exec_driver_sql(
                f"DELETE FROM ONLY {table}_default AS k WHERE {TABLES[table]} < '{following(month)} 00:00+00' AND NOT ({keeping})"
            )
            connection.exec_driver_sql(
                f"CREATE TEMP TABLE staying ON COMMIT DROP AS SELECT k.* FROM {name} AS k WHERE {keeping}"
            )
        connection.exec_driver_sql(f"ALTER TABLE {table} DETACH PARTITION {name}")
        connection.exec_driver_sql(f"DROP TABLE {name}")
        if keeping:
            connection.exec_driver_sql(f"INSERT INTO {table} SELECT * FROM staying")
            connection.exec_driver_sql("DROP TABLE staying")
        note_since(connection, table, following(month))


def since(connection: sa.Connection, *kept: str) -> dt.date | None:
    """The first day from which all of ``kept`` (tables, or ``landing``) is there; None when nothing was ever dropped."""
    value = connection.scalar(
        sa.text("SELECT max(value) FROM setting WHERE name = ANY(:names)"), {"names": [f"{one}-since" for one in kept]}
    )
    return dt.date.fromisoformat(value) if value else None


def note_since(connection: sa.Connection, kept: str, day: dt.date) -> None:
    """Note that what is older than ``day`` was dropped."""
    connection.execute(
        sa.text(
            """INSERT INTO setting (name, value) VALUES (:name, :day)
            ON CONFLICT (name) DO UPDATE SET value = greatest(setting.value, excluded.value)"""
        ),
        {"name": f"{kept}-since", "day": day.isoformat()},
    )


def history_begins(connection: sa.Connection) -> dt.datetime | None:
    """The moment before which no version that ended is there: a checkpoint that this store was made from left them out."""
    value = connection.scalar(sa.text("SELECT value FROM setting WHERE name = :name"), {"name": BEGINS})
    return dt.datetime.fromisoformat(value) if value else None


def note_history_begins(connection: sa.Connection, at: dt.datetime) -> None:
    """Note that versions that ended before ``at`` are not there."""
    connection.execute(
        sa.text(
            """INSERT INTO setting (name, value) VALUES (:name, :at)
            ON CONFLICT (name) DO UPDATE SET value = greatest(setting.value, excluded.value)"""
        ),
        {"name": BEGINS, "at": at.astimezone(dt.UTC).isoformat()},
    )


def name_of(table: str, month: dt.date) -> str:
    """The partition of a month. KeyError for a table that is not kept by month."""
    TABLES[table]
    return f"{table}_{month:%Y%m}"


def first(day: dt.date) -> dt.date:
    """The first day of the month of ``day``."""
    return dt.date(day.year, day.month, 1)


def following(month: dt.date) -> dt.date:
    """The first day of the next month."""
    return first(dt.date(month.year, month.month, 28) + dt.timedelta(days=4))


def earlier(day: dt.date, months: int) -> dt.date:
    """The first day of the month so many before that of ``day``."""
    month = day.year * 12 + day.month - 1 - months
    return dt.date(month // 12, month % 12 + 1, 1)


def _missing(connection: sa.Connection, wanted: Mapping[str, Iterable[dt.date]]) -> dict[str, tuple[str, dt.date]]:
    """Partitions that do not exist yet, of tables that are partitioned (in a store not migrated that far none is)."""
    named = {name_of(table, month): (table, first(month)) for table, dates in wanted.items() for month in dates}
    bind = {"names": list(named), "tables": [table for table, _ in named.values()]}
    return {name: named[name] for name in connection.scalars(_MISSING, bind)} if named else {}


@contextmanager
def _unhurried(connection: sa.Connection) -> Iterator[None]:
    """One maker or dropper of partitions at a time, and none that waits for a lock for long: whoever waits for an
    exclusive lock makes everybody after it wait too. What was begun is undone, the caller's transaction goes on."""
    before = connection.scalar(sa.text("SELECT current_setting('lock_timeout')"))
    try:
        with connection.begin_nested():
            connection.execute(sa.text("SELECT set_config('lock_timeout', :patience, true)"), {"patience": PATIENCE})
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 7))"), {"name": LOCK})
            yield
            connection.execute(sa.text("SELECT set_config('lock_timeout', :before, true)"), {"before": before})
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in ("55P03", "40P01"):  # lock_not_available, deadlock_detected
            raise
        raise RetriableError("partitions-busy") from error


_MISSING = sa.text("""
SELECT w.name FROM unnest(cast(:names AS text[]), cast(:tables AS text[])) AS w (name, parent)
  JOIN pg_class AS p ON p.oid = to_regclass(w.parent) AND p.relkind = 'p'
WHERE to_regclass(w.name) IS NULL
""")
_PARTITIONS = sa.text("""
SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass(:table) AND c.relname ~ :pattern ORDER BY 1
""")
