"""hub/incoming.py: what becomes of a row that is weighed against what the ledger knows of it."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from hub import incoming
from tests.deliveries import World, migrated, world

__all__ = ["migrated", "world"]

DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LOW, MIDDLE, HIGH = (uuid.UUID(int=number) for number in (1, 2, 3))  # digests
ROW = uuid.UUID(int=77)


def day(number: int | None) -> dt.datetime | None:
    return None if number is None else DAY + dt.timedelta(days=number)


class Merge:
    """One merge's temporary tables on a connection, and a ledger in the same transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.bind: dict[str, Any] = {"source": "s", "batch": "b", "contract": str(LOW), "as_of": day(10), "listed_as_of": None,
                                     "snapshot": False, "material": "m", "authority": 1}  # fmt: skip
        incoming.prepare(self.run)

    def run(self, statement: str, **more: object) -> int:
        return self.connection.execute(sa.text(statement), {**self.bind, **more}).rowcount

    def known(self, digest: uuid.UUID, updated: int, verdict: str = "accepted", *, said: uuid.UUID | None = None,
              said_as_of: int | None = None, as_of: int | None = None, lacked: int | None = None, timed: bool = True) -> None:  # fmt: skip
        """The ledger's row; ``said``: the version that stands, when it is another."""
        stands = said or (digest if verdict == "accepted" else None)
        self.run(
            """INSERT INTO row_ledger (source, row_key, digest, contract, verdict, in_force, timed, updated_at, as_of, lacked,
              batch, file, row, holding, mapped, authority, said_digest, said_at, said_as_of)
            VALUES ('s', :row, :digest, :digest, :verdict, true, :timed, :updated, :seen, :lacked, 'before', 1, 1, :holding, :mapped,
              :rank, :said, :said_at, :said_as_of)""",
            row=ROW, digest=digest, verdict=verdict, timed=timed, updated=day(updated),
            seen=day(updated if as_of is None else as_of), lacked=day(lacked), holding=b"h" if stands else None,
            mapped=5 if stands else None, rank=1 if stands else None, said=stands, said_at=day(updated) if stands else None,
            said_as_of=day(said_as_of),
        )  # fmt: skip

    def comes(self, digest: uuid.UUID, updated: int, verdict: str = "accepted", *, as_of: int | None = None,
              seen: int | None = None, ordinal: int = 0, timed: bool = True) -> None:  # fmt: skip
        self.run(
            """INSERT INTO incoming (ordinal, row_key, original_key, digest, file, row, verdict, reasons, raw, timed, updated_at,
              as_of, said_at, seen_at, holding, mapped)
            VALUES (:ordinal, :row, :row, :digest, 1, 1, :verdict, '', '', :timed, :updated, :delivered, :updated, :seen, :holding,
              :mapped)""",
            ordinal=ordinal, row=ROW, digest=digest, verdict=verdict, timed=timed, updated=day(updated),
            delivered=day(updated if as_of is None else as_of), seen=day(seen),
            holding=b"h" if verdict == "accepted" else None, mapped=100 + ordinal if verdict == "accepted" else None,
        )  # fmt: skip

    def fates(self, *, forced: bool = False) -> list[tuple[str | None, bool]]:
        incoming.judge(self.connection, self.run, forced=forced)
        rows = self.connection.execute(sa.text("SELECT fate, says FROM incoming ORDER BY ordinal"))
        return [(row.fate, row.says) for row in rows]


@pytest.fixture
def merge(world: World) -> Iterator[Merge]:
    with world.engine.connect() as connection:
        yield Merge(connection)
        connection.rollback()


NEW, OLDER, BEHIND, SILENT = (None, True), ("older", False), ("behind", True), (None, False)
BAD = "quarantined"


@pytest.mark.parametrize(
    ("known", "comes", "fate"),
    [
        (None, ((LOW, 1), {}), NEW),
        (((LOW, 1), {}), ((LOW, 1), {}), NEW),  # the same under another contract says it again
        (((LOW, 1), {}), ((HIGH, 2), {}), NEW),
        (((HIGH, 1), {}), ((LOW, 2), {}), NEW),
        (((LOW, 2), {}), ((HIGH, 1), {}), OLDER),
        (((LOW, 1), {}), ((HIGH, 1), {}), NEW),  # of one time the greater digest stands
        (((HIGH, 1), {}), ((LOW, 1), {}), SILENT),
        (((LOW, 1), {}), ((HIGH, 2, BAD), {}), SILENT),
        (((LOW, 2), {}), ((HIGH, 1, BAD), {}), OLDER),
        (((MIDDLE, 3, BAD), {"said": LOW, "said_as_of": 1}), ((HIGH, 2), {}), BEHIND),
        (((MIDDLE, 3, BAD), {"said": LOW, "said_as_of": 2}), ((HIGH, 1), {}), OLDER),
        (((MIDDLE, 3, BAD), {"said": HIGH, "said_as_of": 2}), ((LOW, 2), {}), OLDER),
        (((MIDDLE, 3, BAD), {"said": LOW, "said_as_of": 2}), ((HIGH, 2), {}), BEHIND),
        (((MIDDLE, 3, BAD), {}), ((HIGH, 2), {}), BEHIND),  # nothing stood before
        (((MIDDLE, 3, "rejected"), {}), ((HIGH, 2), {}), BEHIND),
        (((MIDDLE, 3, BAD), {"lacked": 2}), ((HIGH, 1), {}), OLDER),  # a snapshot after it lacked the row
        (((MIDDLE, 3, BAD), {"lacked": 2}), ((HIGH, 2), {}), BEHIND),
        (((MIDDLE, 3, BAD), {"said": LOW, "said_as_of": 1}), ((HIGH, 3), {}), NEW),
        (((LOW, 3, "withdrawn"), {}), ((LOW, 2), {}), OLDER),
        (((LOW, 3, "withdrawn"), {}), ((LOW, 3), {}), NEW),
        (((LOW, 3, "withdrawn"), {}), ((HIGH, 1), {"as_of": 4}), NEW),  # however old it says it is
    ],
)
def test_what_becomes_of_a_row(merge: Merge, known: Any, comes: Any, fate: tuple[str | None, bool]) -> None:
    if known:
        merge.known(*known[0], **known[1])
    merge.comes(*comes[0], **comes[1])
    assert merge.fates() == [fate]


@pytest.mark.parametrize("known", [((HIGH, 5), {}), ((HIGH, 5, BAD), {"said": HIGH}), ((HIGH, 5, "withdrawn"), {})])
def test_a_persons_word_wins_over_age(merge: Merge, known: Any) -> None:
    merge.known(*known[0], **known[1])
    merge.comes(LOW, 1)
    assert merge.fates(forced=True) == [NEW]


def test_a_row_that_no_later_snapshot_listed_does_not_come_late(merge: Merge) -> None:
    merge.bind.update(listed_as_of=day(4), snapshot=True)
    merge.comes(LOW, 3)
    assert merge.fates() == [OLDER]


def test_of_versions_in_one_batch_the_latest_is_the_rows_and_a_good_one_stands_behind_a_bad_one(merge: Merge) -> None:
    merge.comes(LOW, 1, ordinal=1)
    merge.comes(HIGH, 2, ordinal=2)
    merge.comes(MIDDLE, 3, BAD, ordinal=3)
    assert merge.fates() == [OLDER, BEHIND, SILENT]


def test_versions_of_one_time_are_told_apart_by_when_they_were_seen(merge: Merge) -> None:
    merge.comes(HIGH, 1, seen=1, ordinal=1)
    merge.comes(LOW, 1, seen=2, ordinal=2)
    merge.comes(MIDDLE, 1, ordinal=3)
    assert merge.fates() == [OLDER, NEW, OLDER]


def test_the_same_version_again_keeps_the_latest_time_it_was_seen(merge: Merge) -> None:
    merge.known(LOW, 5, timed=False)
    merge.comes(LOW, 2, timed=False)
    merge.comes(HIGH, 4, timed=False, ordinal=1)
    assert merge.fates() == [NEW, OLDER]
    incoming.settle(merge.connection, merge.run, withdraws=False)
    assert merge.connection.scalar(sa.text("SELECT updated_at FROM row_ledger")) == day(5)


def _moved(merge: Merge) -> dict[str, Any]:
    incoming.judge(merge.connection, merge.run, forced=False)
    merge.tied, merge.withdrawn = incoming.settle(merge.connection, merge.run, withdraws=False)  # type: ignore[attr-defined]
    row = merge.connection.execute(sa.text("SELECT * FROM row_ledger")).one()
    unsaid = merge.connection.execute(sa.text("SELECT mapped FROM unsaid ORDER BY 1")).scalars().all()
    return {"digest": row.digest, "verdict": row.verdict, "in_force": row.in_force, "mapped": row.mapped, "said": row.said_digest,
            "said_as_of": row.said_as_of, "unsaid": unsaid}  # fmt: skip


def test_the_ledger_refers_to_what_stands_and_the_rest_is_to_go(merge: Merge) -> None:
    merge.known(LOW, 1)
    merge.comes(HIGH, 2)
    assert _moved(merge) == {"digest": HIGH, "verdict": "accepted", "in_force": True, "mapped": 100, "said": HIGH,
                             "said_as_of": None, "unsaid": [5]}  # fmt: skip


def test_a_tied_version_is_the_last_delivered_and_does_not_stand(merge: Merge) -> None:
    merge.known(HIGH, 1)
    merge.comes(LOW, 1)
    assert _moved(merge) == {"digest": LOW, "verdict": "accepted", "in_force": False, "mapped": 5, "said": HIGH,
                             "said_as_of": None, "unsaid": [100]}  # fmt: skip
    assert (merge.tied, merge.withdrawn) == (1, 0)  # type: ignore[attr-defined]


def test_a_bad_version_leaves_what_stood_with_the_time_it_is_weighed_by(merge: Merge) -> None:
    merge.known(LOW, 1)
    merge.comes(HIGH, 3, BAD, ordinal=1)
    merge.comes(MIDDLE, 2, ordinal=2)
    assert _moved(merge) == {"digest": HIGH, "verdict": BAD, "in_force": True, "mapped": 102, "said": MIDDLE,
                             "said_as_of": day(2), "unsaid": [5]}  # fmt: skip


def test_rows_find_when_they_were_seen_in_whatever_order(merge: Merge) -> None:
    stamp = pa.timestamp("us", "UTC")
    ordinals = [7, 3, 5]
    kinds = {"int8": pa.int64(), "uuid": pa.binary(16), "text": pa.string(), "bytea": pa.binary(16), "bool": pa.bool_(),
             "timestamptz": stamp}  # fmt: skip
    rows = pa.table({name: pa.nulls(3, kinds[kind]) for name, kind in incoming.COLUMNS.items() if name != "seen_at"})
    rows = rows.set_column(0, "ordinal", pa.array(ordinals, pa.int64()))
    keys = pa.table(
        {"ordinal": pa.array([3, 4, 5, 7], pa.int64()), "seen_at": pa.array(map(day, (3, 4, None, 7)), stamp)}
    )
    incoming.add(merge.connection, rows, keys)
    incoming.add(merge.connection, rows.slice(0, 0), keys)
    found = merge.connection.execute(sa.text("SELECT ordinal, seen_at FROM incoming ORDER BY ordinal"))
    assert [tuple(row) for row in found] == [(3, day(3)), (5, None), (7, day(7))]


def test_keys_are_reserved_while_versions_contradict_each_other_and_after_a_release(merge: Merge) -> None:
    for number, (state, original) in enumerate([("open", LOW), ("superseded", MIDDLE), ("open", ROW)]):
        merge.run(
            """INSERT INTO quarantine (source, batch, row_key, original_key, digest, verdict, state, reasons, raw, file, row)
            VALUES ('s', 'b', :row, :original, :row, 'quarantined', :state, '{}', '', 1, :number)""",
            row=ROW, original=original, state=state, number=number,
        )  # fmt: skip
    for kind, source, key in (
        ("release", "s", HIGH),
        ("reject", "s", MIDDLE),
        ("attach", "other", MIDDLE),
        ("approve", "s", None),
    ):
        merge.run("INSERT INTO decision (kind, source, row_key, actor, landed) VALUES (:kind, :of, :key, 'x', 'y')",
                  kind=kind, of=source, key=key)  # fmt: skip
    assert sorted(incoming.reserved(merge.connection, "s").to_pylist()) == [LOW.bytes, HIGH.bytes]
