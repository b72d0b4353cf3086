"""hub/standing.py: which observation of a holding is in force, and what follows from a change of it."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from hub import home, standing
from tests.deliveries import World, migrated, world

__all__ = ["migrated", "world"]

DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
KEY = b"k" * 16


class Touched:
    """A ledger in a transaction, and the merge of what is changed in it."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection, self.mapped = connection, 0
        hashing = home.keyed_hash()
        self.bind: dict[str, Any] = {"material": "m", "batch": "b", "inner": hashing.inner, "outer": hashing.outer}

    def run(self, statement: str, **more: object) -> int:
        return self.connection.execute(sa.text(statement), {**self.bind, **more}).rowcount

    def rows(self, table: str, columns: str = "*", where: str = "true") -> list[tuple[Any, ...]]:
        return [
            tuple(row)
            for row in self.connection.execute(sa.text(f"SELECT {columns} FROM {table} WHERE {where} ORDER BY 1"))
        ]

    def says(self, row: int, authority: int = 1, day: int = 1, digest: int = 1, *, name: str = "same", holder: str = "x",
             source: str = "s", holding: bytes = KEY) -> None:  # fmt: skip
        """One row of a source, in place of what it said before."""
        self.mapped += 1
        document = {"certificate_number": "1", "name": name, "status": "in_force",
                    "holders": [{"role": "holder", "scheme": "t", "value": holder}]}  # fmt: skip
        bind = {
            "source": source, "row": uuid.UUID(int=row), "digest": uuid.UUID(int=digest), "at": DAY + dt.timedelta(days=day),
            "rank": authority, "key": holding, "id": self.mapped, "place": row, "document": json.dumps(document),
        }  # fmt: skip
        self.silent(row, source)
        self.run(
            """INSERT INTO mapped_row VALUES (:key, :id, :source, :row, 1, :place, :document)""",
            **bind,
        )
        self.run(
            """INSERT INTO row_ledger (source, row_key, digest, contract, verdict, timed, updated_at, as_of, batch, file, row, holding,
              mapped, authority, said_digest, said_at)
            VALUES (:source, :row, :digest, :digest, 'accepted', true, :at, :at, 'b', 1, :place, :key, :id, :rank, :digest, :at)""",
            **bind,
        )

    def silent(self, row: int, source: str = "s") -> None:
        self.run(
            "DELETE FROM row_ledger WHERE source = :source AND row_key = :row", source=source, row=uuid.UUID(int=row)
        )

    def merge(self, *changes: Any, holdings: tuple[bytes, ...] = (KEY,)) -> tuple[int, list[tuple[Any, ...]]]:
        """What is in force after ``changes``; how many changed, and which of them were and are there."""
        self.run("CREATE TEMP TABLE touched (holding bytea) ON COMMIT DROP")
        for holding in holdings:
            self.run("INSERT INTO touched VALUES (:holding)", holding=holding)
        standing.remember(self.connection, self.run)
        for change in changes:
            change()
        count = standing.update(self.connection, self.run)
        changed = self.rows("changed", "present, known, fresh")
        self.run("DROP TABLE touched, before, in_force, changed, ended")
        return count, changed

    def force(self) -> int:
        """The row in force."""
        ((key,),) = self.rows("holding", "row_key")
        return int(key)


@pytest.fixture
def touched(world: World) -> Iterator[Touched]:
    with world.engine.connect() as connection:
        yield Touched(connection)
        connection.rollback()


@pytest.mark.parametrize(
    ("one", "other", "force"),
    [
        ({"authority": 2}, {"authority": 1, "day": 9, "digest": 9}, 1),
        ({"day": 2}, {"day": 1, "digest": 9}, 1),
        ({"digest": 2}, {"digest": 1}, 1),
        ({}, {}, 1),  # alike: the first source, then the first row
        ({"source": "t"}, {"source": "s"}, 2),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_authority_then_time_then_digest(touched: Touched, one: Any, other: Any, force: int, turned: bool) -> None:
    both = [lambda: touched.says(1, **one), lambda: touched.says(2, **other)]
    for change in reversed(both) if turned else both:
        touched.merge(change)
    assert touched.force() == force
    assert touched.rows("holding", "observations, conflicting") == [(2, False)]


def test_what_changes_and_what_only_counts(touched: Touched) -> None:
    assert touched.merge(lambda: touched.says(1)) == (1, [(True, False, False)])
    assert touched.merge(lambda: touched.says(1)) == (0, []), "mapped anew, and the same"
    assert touched.rows("holding", "mapped") == [(2,)], "the holding points at the row that is there"
    assert touched.merge(lambda: touched.says(2, digest=0)) == (0, []), "a second voice"
    assert touched.merge(lambda: touched.says(2, digest=0, name="other")) == (0, [])
    assert touched.rows("holding", "observations, conflicting") == [(2, True)]
    assert touched.merge(lambda: touched.says(1, day=2)) == (0, []), "the same version, later"
    assert touched.rows("holding", "updated_at") == [(DAY + dt.timedelta(days=2),)]
    assert touched.merge(lambda: touched.says(1, day=2, name="corrected")) == (1, [(True, True, False)])
    assert touched.merge(lambda: touched.silent(1)) == (1, [(True, True, False)]) and touched.force() == 2
    assert touched.rows("holding", "observations, conflicting") == [(1, False)]
    assert touched.merge(lambda: touched.silent(2)) == (1, [(False, True, False)])
    assert touched.rows("holding") == touched.rows("holding_holder") == []
    assert touched.merge() == (0, []), "touched, and never there"


def test_holders_follow_the_observation_in_force(touched: Touched) -> None:
    hashing = home.keyed_hash()
    touched.merge(lambda: touched.says(1, holder="x"))
    assert touched.rows("holding_holder") == [(hashing.of("t:x"), KEY, "holder")]
    touched.merge(lambda: touched.says(2, day=2, holder="y"))
    assert touched.rows("holding_holder") == [(hashing.of("t:y"), KEY, "holder")]
    touched.merge(lambda: touched.silent(2))
    assert touched.rows("holding_holder") == [(hashing.of("t:x"), KEY, "holder")]


def test_a_row_moves_from_one_holding_to_another(touched: Touched) -> None:
    other = b"o" * 16
    touched.merge(lambda: touched.says(1))
    moved = touched.merge(lambda: touched.says(1, day=2, holding=other), holdings=(KEY, other))
    assert moved == (2, [(False, True, False), (True, False, False)])
    assert touched.rows("holding", "key, observations") == [(other, 1)]


def test_a_mapped_row_that_nobody_refers_to_says_nothing(touched: Touched) -> None:
    """Such as one of a batch that is not merged yet."""
    touched.merge(lambda: touched.says(1, name="said"))
    touched.run('INSERT INTO mapped_row SELECT holding, 99, source, row_key, file, "row", document FROM mapped_row')
    touched.run("INSERT INTO mapped_row SELECT holding, 98, source, :row, file, \"row\", document FROM mapped_row WHERE id = 1",
                row=uuid.UUID(int=7))  # fmt: skip
    assert touched.merge() == (0, [])
    assert touched.rows("holding", "mapped, observations, conflicting") == [(1, 1, False)]


def test_a_version_that_ends_is_kept_with_its_holders(touched: Touched) -> None:
    hashing = home.keyed_hash()
    touched.merge(lambda: touched.says(1, holder="x", name="first"))
    touched.run("CREATE TEMP TABLE touched ON COMMIT DROP AS SELECT CAST(:key AS bytea) AS holding", key=KEY)
    standing.remember(touched.connection, touched.run)
    touched.says(1, day=2, digest=2, holder="y", name="second")
    assert standing.update(touched.connection, touched.run) == 1
    assert standing.feed(touched.run, 41, DAY) == 1
    standing.close(touched.run, DAY)
    assert touched.rows("feed", "position, holding, change, digest, recorded_at") == [
        (42, KEY, "changed", uuid.UUID(int=2), DAY)
    ]
    ((*past, document),) = touched.rows("holding_past", 'recorded_to, digest, row_key, "row", identifiers, document')
    assert past == [DAY, uuid.UUID(int=1), uuid.UUID(int=1), 1, [hashing.of("t:x")]]
    assert document["name"] == "first" and document["holders"][0]["value"] == "x"
