"""hub/joining.py: both ways give the same rows, and the one for few rows never goes through the whole table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from hub import diff, incoming, joining, standing
from tests.deliveries import World, migrated, world

__all__ = ["migrated", "world"]

SIZE = 20_000
FILLED = (
    """INSERT INTO mapped_row SELECT decode(md5('h' || i), 'hex'), i, 's', md5(i::text)::uuid, 1, i,
      '{"holders": [{"role": "holder", "scheme": "x", "value": "y"}]}' FROM generate_series(1, :size) AS i""",
    """INSERT INTO row_ledger (source, row_key, digest, contract, verdict, timed, updated_at, as_of, batch, file, "row", holding,
      mapped, authority, said_digest, said_at)
    SELECT source, row_key, row_key, row_key, 'accepted', true, now(), now(), 'b', file, "row", holding, id, 1, row_key, now()
    FROM mapped_row""",
    """INSERT INTO holding (key, mapped, material, source, row_key, digest, updated_at, authority, observations, conflicting,
      status, batch)
    SELECT holding, id, 'm', source, row_key, row_key, now(), 1, 1, false, 'in_force', 'b' FROM mapped_row""",
    """INSERT INTO holding_holder SELECT decode(md5('p' || "row"), 'hex'), holding, 'holder' FROM mapped_row""",
)
BIND: dict[str, Any] = {
    "source": "s", "batch": "b", "contract": "00000000-0000-0000-0000-000000000000", "as_of": None, "listed_as_of": None,
    "snapshot": False, "material": "m", "authority": 1, "inner": b"i", "outer": b"o", "forced": False,
}  # fmt: skip
BIG = ("row_ledger", "mapped_row", "holding_", "holding_holder")


@pytest.fixture
def filled(world: World) -> Iterator[sa.Connection]:
    """Tables that have just been filled, in a transaction that nobody else sees: the planner knows nothing of them."""
    with world.engine.connect() as connection:
        for statement in FILLED:
            connection.execute(sa.text(statement), {"size": SIZE})
        analyzed = (
            "SELECT count(*) FROM pg_stats WHERE tablename LIKE 'row\\_ledger%' OR tablename LIKE 'mapped\\_row%'"
        )
        assert connection.scalar(sa.text(analyzed)) == 0
        yield connection
        connection.rollback()


def run(connection: sa.Connection) -> incoming.Run:
    return lambda statement, **more: connection.execute(sa.text(statement), {**BIND, **more}).rowcount


def scans(connection: sa.Connection, statement: str) -> dict[str, set[str]]:
    """How each large table is read: partition -> kinds of scan, ``Index Scan`` only where a condition leads through it."""
    (plan,) = connection.execute(sa.text(f"EXPLAIN (FORMAT json) {statement}"), BIND).scalar_one()
    found: dict[str, set[str]] = {}

    def walk(node: dict[str, Any]) -> None:
        relation = node.get("Relation Name", "")
        if relation.startswith(BIG) and node["Node Type"] != "ModifyTable":
            by = node["Node Type"] if {"Index Cond", "Recheck Cond"} & set(node) else f"whole {node['Node Type']}"
            found.setdefault(relation.rpartition("_")[0], set()).add(by)
        for below in node.get("Plans", []):
            walk(below)

    walk(plan["Plan"])
    return found


LOOKED_UP = {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}


def few(connection: sa.Connection, rows: int = 3) -> None:
    """The temporary tables of a merge of a few rows, known and new."""
    execute = run(connection)
    incoming.prepare(execute)
    execute(
        """INSERT INTO incoming (ordinal, row_key, original_key, digest, verdict, timed, updated_at, as_of, said_at, holding, mapped)
        SELECT i, md5((i * 7)::text)::uuid, md5((i * 7)::text)::uuid, md5('new')::uuid, 'accepted', true, now(), now(), now(),
          decode(md5('h' || i * 7), 'hex'), -i FROM generate_series(1, :rows) AS i""",
        rows=rows,
    )
    execute("INSERT INTO again SELECT row_key, now() + interval '1 day' FROM row_ledger ORDER BY row_key LIMIT 3")
    execute("INSERT INTO unsaid SELECT holding, id FROM mapped_row ORDER BY id LIMIT 3")
    execute("CREATE TEMP TABLE asked AS SELECT holding FROM incoming")
    execute("CREATE TEMP TABLE staged AS SELECT ordinal, row_key, digest, as_of FROM incoming")
    for table in ("incoming", "again", "unsaid", "asked", "staged"):
        execute(f"ANALYZE {table}")


def test_few_rows_are_looked_up_one_by_one(filled: sa.Connection) -> None:
    few(filled)
    literal = {"source": "'s'", "contract": f"'{BIND['contract']}'", "snapshot": "false", "again": "false"}
    with joining.joined(filled, 3) as join:
        assert join.lookup
        differing = diff._differing_rows(join).format(**literal)
        for statement in (differing, incoming._known(join), incoming._touched(join)):
            found = scans(filled, statement)
            assert found and set().union(*found.values()) <= LOOKED_UP, statement
    execute = run(filled)
    execute(incoming._known(join))
    execute("UPDATE incoming SET says = true")
    execute(incoming._touched(join))
    execute("CREATE INDEX ON touched (holding); ANALYZE touched")
    for table, writes in (
        ("holding", lambda join: f"SELECT h.key FROM asked AS a {join('holding', 'h', 'h.key = a.holding')}"),
        ("holding", lambda join: standing._before(join).split("ON COMMIT DROP AS")[1]),
        ("mapped_row", lambda join: standing._in_force(join).split("ON COMMIT DROP AS")[1]),
    ):
        with joining.joined(filled, 3, table) as join:
            found = scans(filled, writes(join))
            assert found and set().union(*found.values()) <= LOOKED_UP, found
    with joining.looked_up(filled, 3):
        for statement in (incoming._LEDGER, incoming._SAID_BEHIND, incoming._AGAIN):
            found = scans(filled, statement)
            assert found and set().union(*found.values()) <= LOOKED_UP, (statement, found)
    with joining.looked_up(filled, 3, "mapped_row"):
        found = scans(filled, incoming._FORGOTTEN)
        assert found and set().union(*found.values()) <= LOOKED_UP, found
    standing.remember(filled, execute)
    standing.update(filled, execute)
    with joining.looked_up(filled, 3, "holding"):
        for statement in (standing._GONE, standing._HOLDERS_GONE, standing._COUNTED):
            found = scans(filled, statement)
            assert found and set().union(*found.values()) <= LOOKED_UP, (statement, found)


def test_many_rows_are_joined_at_once(filled: sa.Connection) -> None:
    few(filled, SIZE // 2)
    with joining.joined(filled, SIZE // 2) as join:
        assert not join.lookup
        (plan,) = filled.execute(sa.text(f"EXPLAIN (FORMAT json) {incoming._known(join)}"), BIND).scalar_one()
    assert "Nested Loop" not in str(plan) and ("Hash Join" in str(plan) or "Merge Join" in str(plan))


@pytest.mark.parametrize("left", [False, True])
def test_both_ways_give_the_same_rows(filled: sa.Connection, left: bool) -> None:
    """Several rows for one, one for several, and none."""
    execute = run(filled)
    execute(
        "CREATE TEMP TABLE asked AS SELECT i, md5((i % 40 * 1000)::text)::uuid AS row_key FROM generate_series(1, 90) AS i"
    )
    execute("UPDATE row_ledger SET file = 7 WHERE row_key IN (SELECT row_key FROM asked WHERE i % 3 = 0)")
    found = []
    for rows in (SIZE, 3):
        with joining.joined(filled, rows) as join:
            known = join(
                "row_ledger", "l", 'l.source = :source AND l.row_key = a.row_key AND l."row" > 2000', left=left
            )
            mapped = join("mapped_row", "m", "m.holding = l.holding AND m.file = 1", left=left)
            query = f"SELECT a.i, l.row_key, l.file, m.id FROM asked AS a {known} {mapped}"
            found.append(sorted(map(str, filled.execute(sa.text(query), BIND))))
    assert found[0] == found[1] and (len(found[0]) == 90) == left and len(found[0]) > 20


def test_what_the_planner_may_do_is_as_before_afterwards(filled: sa.Connection) -> None:
    names = sorted({*joining.BY_LOOKUP, *joining.AT_ONCE})

    def allowed() -> set[str]:
        return {name for name in names if filled.scalar(sa.text(f"SHOW enable_{name}")) == "on"}

    everything = set(names)
    assert allowed() == everything
    for enter, rows, forbidden in (
        (joining.joined, 3, ()),
        (joining.joined, SIZE, joining.AT_ONCE),
        (joining.looked_up, 3, joining.BY_LOOKUP),
        (joining.looked_up, SIZE, joining.AT_ONCE),
    ):
        with enter(filled, rows):
            assert allowed() == everything - set(forbidden)
        assert allowed() == everything


def test_how_many_rows_are_few_depends_on_the_table(filled: sa.Connection) -> None:
    size = filled.scalar(sa.text(joining._SIZE), {"table": "row_ledger"})
    assert size > 20 * SIZE
    most = size // joining.BYTES_PER_LOOKUP
    for rows, lookup in ((0, True), (most, True), (most + 1, False)):
        with joining.joined(filled, rows) as join:
            assert join.lookup is lookup
    filled.execute(sa.text("CREATE TEMP TABLE counted AS SELECT FROM generate_series(1, 7)"))
    assert joining.count(filled, "counted") == 7


def test_nothing_is_few_for_an_empty_table(world: World) -> None:
    with world.engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE mapped_row"))  # as new: nothing is known of its size
    with world.engine.connect() as connection, joining.joined(connection, 1, "mapped_row") as join:
        assert not join.lookup
