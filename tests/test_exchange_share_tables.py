"""hub/exchange/share_tables.py: versions are the store at a position, whatever happened before, during and in between."""

from __future__ import annotations

import datetime as dt
import os
import random
import signal
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from connectors.errors import UsageError
from hub import database, home
from hub.exchange import share_files, share_making, share_rows, share_tables, share_versions, shares
from hub.exchange.share_folder import Folder
from hub.exchange.share_parts import CHANGE_TYPE
from hub.exchange.share_tables import Made, publish
from tests.peering import move, withdraw
from tests.sharing import LICENCE, agree, as_zj, change, licence, set_state

FIELDS = {LICENCE: ["certificate_number", "name", "region", "attributes.registered_capital"]}


@pytest.fixture(autouse=True)
def zj() -> Iterator[None]:
    with as_zj():
        yield


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few rows, so that there are several."""
    monkeypatch.setattr(share_making, "PART_ROWS", 4)


def one(named: uuid.UUID, **options: Any) -> Made:
    (made,) = publish(named, **options)
    return made


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def opened(
    engine: sa.Engine, named: uuid.UUID
) -> tuple[sa.Connection, shares.Share, shares.Shared, list[share_versions.Version]]:
    connection = engine.connect()
    share = shares.of(connection, named, now())
    return connection, share, share.tables[LICENCE], share_versions.served(connection, share, share.tables[LICENCE])


def place(named: uuid.UUID) -> Path:
    return home.current().path / "landing" / share_files.folder(named)


def files(named: uuid.UUID) -> set[str]:
    return {str(path.relative_to(place(named))) for path in place(named).rglob("*") if path.is_file()}


def rows(named: uuid.UUID, paths: list[str]) -> list[dict[str, Any]]:
    return [row for path in paths for row in pq.read_table(place(named) / path).to_pylist()]


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    capital = row["attributes.registered_capital"]
    return row["certificate_number"], row["name"], row["region"], str(capital and capital["amount"])


def content(engine: sa.Engine, named: uuid.UUID, number: int) -> Counter[tuple[Any, ...]]:
    connection, share, table, versions = opened(engine, named)
    with connection:
        version = share_versions.chosen(versions, number)
        found = share_versions.files(connection, share, table, version)
    read = rows(named, [file.path for file in found])
    assert len(read) == version.rows == sum(file.rows for file in found)
    return Counter(map(key, read))


def changed(engine: sa.Engine, named: uuid.UUID, number: int) -> Counter[tuple[str, tuple[Any, ...]]]:
    connection, share, table, versions = opened(engine, named)
    with connection:
        found = share_versions.changes(connection, share, table, versions, number, number)
    return Counter(
        (row.get(CHANGE_TYPE, "insert"), key(row)) for each in found for row in rows(named, [each.file.path])
    )


def expected(engine: sa.Engine) -> Counter[tuple[Any, ...]]:
    """The agreed rows, told by the documents themselves."""
    query = """SELECT m.document::json AS d FROM holding AS h JOIN mapped_row AS m ON m.holding = h.key AND m.id = h.mapped
    WHERE h.material = :material AND starts_with(h.region, '33')"""
    with engine.connect() as connection:
        found = [row.d for row in connection.execute(sa.text(query), {"material": LICENCE})]
    return Counter(
        (d["certificate_number"], d["name"], d["region"], str(d["attributes"]["registered_capital"]["amount"]))
        for d in found
    )


@pytest.mark.parametrize("seed", range(4))
def test_any_history_in_any_steps(store: sa.Engine, small: None, seed: int) -> None:
    """Each version is the store as it was; its changes make it of the one before; reading all again finds nothing."""
    draw = random.Random(seed)
    named = agree(store, materials=FIELDS)
    held: list[str] = []
    wanted: dict[int, Counter[tuple[Any, ...]]] = {}
    serial = 0
    for _ in range(9):
        for _ in range(draw.randrange(0, 14)):
            act = draw.choice(["add", "add", "add", "change", "same", "withdraw", "move", "back"])
            if act == "add" or not held:
                serial += 1
                held.append(licence(store, serial, region=draw.choice(["330106", "330106", "310117"])))
            elif act == "change":
                change(store, draw.choice(held), name=f"n{draw.randrange(3)}")
            elif act == "same":  # in a field that is not agreed
                change(store, draw.choice(held), issuer_name=f"i{draw.randrange(9)}")
            elif act == "withdraw":
                withdraw(store, held.pop(draw.randrange(len(held))))
            else:
                region = "310117" if act == "move" else "330200"
                holding = draw.choice(held)
                move(store, holding, region)
                change(store, holding, region=region)
        before = wanted[max(wanted)] if wanted else None
        made = one(named)
        state = expected(store)
        assert made.new == (before is None or state != before) and made.rows == state.total()
        if made.new:
            wanted[made.version] = state
        again = one(named, anew=True)
        assert (again.new, again.version, again.parts) == (False, made.version, 0)
    assert len(wanted) > 3 and sorted(wanted) == list(range(len(wanted)))
    for number, state in wanted.items():
        assert content(store, named, number) == state
        found = changed(store, named, number)
        taken = Counter({row: n for (kind, row), n in found.items() if kind in ("delete", "update_preimage")})
        given = Counter({row: n for (kind, row), n in found.items() if kind in ("insert", "update_postimage")})
        base = wanted.get(number - 1, Counter())
        base = base.copy()
        base.subtract(taken)
        assert all(n >= 0 for n in base.values()), "took away what was not there"
        base.update(given)
        assert +base == state
        if number:
            assert {kind for kind, _ in found} <= {"insert", "delete", "update_preimage", "update_postimage"}


def test_parts_are_split_as_a_table_grows(store: sa.Engine, small: None) -> None:
    """Few keys changed and all parts are written: what the changes say is still only what changed."""
    named = agree(store, materials=FIELDS)
    held = [licence(store, number) for number in range(3)]
    one(named)
    held += [licence(store, number) for number in range(3, 50)]
    change(store, held[0], name="甲")
    assert one(named).changed == 49
    one(named)
    with store.connect() as connection:
        query = "SELECT bits, (SELECT count(*) FROM share_file AS f WHERE f.from_version = v.version AND kind = 'rows') FROM share_version AS v ORDER BY version"
        (few, one_file), (more, several) = connection.execute(sa.text(query)).all()
    assert (few, one_file) == (0, 1) and more >= 3 and several > 4
    assert content(store, named, 0).total() == 3 and content(store, named, 1) == expected(store)
    for holding in held[5:]:
        withdraw(store, holding)
    assert one(named).rows == 5 and content(store, named, 2) == expected(store)


def test_only_what_changed_is_written(store: sa.Engine, small: None) -> None:
    held = [licence(store, number) for number in range(40)]
    named = agree(store)
    first = one(named)
    assert (first.version, first.new, first.rows, first.changed) == (0, True, 40, 40) and first.parts > 4
    before = files(named)
    change(store, held[0], name="甲")
    made = one(named)
    assert (made.version, made.new, made.rows, made.changed, made.parts) == (1, True, 40, 2, 1)
    written = files(named) - before
    assert sorted(path.split("/")[1] for path in written) == ["changes", "keys", "rows"] or sorted(
        path.split("/")[1] for path in written
    ) == ["changes", "rows"]  # the keys of the part are the same
    assert sorted(kind for kind, _ in changed(store, named, 1).elements()) == ["update_postimage", "update_preimage"]
    # What is not agreed makes no version, and the position it was seen at is kept.
    position = change(store, held[1], issuer_name="乙")
    assert (one(named).new, one(named).position) == (False, position)
    with store.connect() as connection:
        assert connection.scalar(sa.text("SELECT max(position) FROM share_version")) == position


def test_times_rise_whatever_the_clock_does(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    named = agree(store)
    for number in range(3):
        licence(store, number)
        monkeypatch.setattr(
            share_tables,
            "_now",
            lambda number=number: dt.datetime(2026, 3, 1, 8, tzinfo=dt.UTC) - dt.timedelta(hours=number),
        )
        assert one(named).version == number
    connection, _, _, versions = opened(store, named)
    connection.close()
    times = [version.milliseconds for version in versions]
    assert times == sorted(set(times)) and times[2] - times[0] == 2
    assert share_versions.chosen(versions, at=versions[1].made_at).number == 1
    assert share_versions.since(versions, versions[1].made_at + dt.timedelta(microseconds=1)).number == 2
    for wrong in ({"number": 3}, {"at": versions[0].made_at - dt.timedelta(milliseconds=1)}):
        with pytest.raises(UsageError, match="no such version"):
            share_versions.chosen(versions, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no such version"):
        share_versions.since(versions, versions[2].made_at + dt.timedelta(milliseconds=1))


@pytest.mark.parametrize("at", [1, 2, 3, 6, 9])
def test_a_killed_run_leaves_nothing_half(store: sa.Engine, small: None, at: int) -> None:
    """Killed with SIGKILL at a write: no version more, none less; the next run makes it and clears away."""
    held = [licence(store, number) for number in range(40)]
    named = agree(store)
    one(named)
    before, state = files(named), content(store, named, 0)
    for holding in held[::3]:
        change(store, holding, name="乙")
    child = os.fork()
    if not child:
        left, write = [at], Folder.write

        def dying(*arguments: Any, **options: Any) -> Any:
            written = write(*arguments, **options)
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return written

        Folder.write = dying  # type: ignore[method-assign]
        try:
            publish(named)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert files(named) >= before and content(store, named, 0) == state
    connection, _, _, versions = opened(store, named)
    connection.close()
    assert [version.number for version in versions] == [0]
    made = one(named)
    assert (made.version, made.new, made.changed) == (1, True, 28) and content(store, named, 1) == expected(store)
    with store.connect() as connection:
        known = set(connection.scalars(sa.text("SELECT path FROM share_file UNION SELECT key_path FROM share_file")))
    assert files(named) == known - {None}


def test_two_at_once_make_one_version(store: sa.Engine, small: None) -> None:
    for number in range(20):
        licence(store, number)
    named = agree(store)
    for wanted in (0, 1):
        barrier, made = threading.Barrier(3), list[Made]()

        def run(barrier: threading.Barrier = barrier, made: list[Made] = made) -> None:
            barrier.wait()
            made.append(one(named))

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(each.new for each in made) == [False, False, True] and {each.version for each in made} == {wanted}
        licence(store, 100 + wanted)


def test_a_version_is_the_store_at_its_position(store: sa.Engine, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is merged while it is read belongs to the next one."""
    held = [licence(store, number) for number in range(12)]
    named = agree(store)
    state, read, late = expected(store), share_rows.read, iter([1])

    def merging(*arguments: Any, **options: Any) -> share_rows.Rows:
        if next(late, None):
            change(store, held[3], name="晚")
            licence(store, 50)
            withdraw(store, held[5])
        return read(*arguments, **options)

    monkeypatch.setattr(share_rows, "read", merging)
    made = one(named)
    assert made.position == 12 and content(store, named, 0) == state
    made = one(named)
    assert made.position == 15 and content(store, named, 1) == expected(store) != state
    assert Counter(kind for kind, _ in changed(store, named, 1)) == Counter(
        ["insert", "delete", "update_preimage", "update_postimage"]
    )


def test_another_scope_takes_old_versions_away(store: sa.Engine, small: None) -> None:
    for number in range(10):
        licence(store, number)
    named = agree(store, materials=FIELDS)
    one(named)
    licence(store, 10)
    one(named)
    old = files(named)
    # The agreement says less now: nothing of before is served, even before the next version is made.
    agree(store, named, 2, materials={LICENCE: ["certificate_number"]}, regions=["3301"])
    with pytest.raises(UsageError, match="Nothing of this table"):
        opened(store, named)
    made = one(named)
    assert (made.version, made.new, made.changed, made.rows) == (2, True, 11, 11)
    connection, share, table, versions = opened(store, named)
    with connection:
        assert [version.number for version in versions] == [2] and versions[0].whole
        found = share_versions.changes(connection, share, table, versions, 2, 2)
    assert all(each.inserted for each in found) and sum(each.file.rows for each in found) == 11
    assert not old & {path for path in files(named) if "/keys/" not in path}
    for path in files(named):
        if "/keys/" not in path:
            assert pq.read_schema(place(named) / path).names == ["certificate_number"]
    licence(store, 11)
    assert (one(named).version, one(named).version) == (3, 3)


def test_the_same_scope_again_is_not_the_old_versions(store: sa.Engine) -> None:
    licence(store, 1)
    named = agree(store, materials=FIELDS)
    one(named)
    agree(store, named, 2, materials={LICENCE: ["name"]})
    agree(store, named, 3, materials=FIELDS)
    assert not one(named).new  # nothing was published in between: it is what it was
    agree(store, named, 4, materials={LICENCE: ["name"]})
    one(named)
    agree(store, named, 5, materials=FIELDS)
    assert one(named).version == 2
    connection, _, _, versions = opened(store, named)
    connection.close()
    assert [version.number for version in versions] == [2]


def test_old_versions_go_but_for_the_latest(store: sa.Engine, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    held = [licence(store, number) for number in range(12)]
    named = agree(store)
    for name in "甲乙丙丁":
        change(store, held[0], name=name)
        one(named)
    with store.begin() as connection:
        connection.execute(sa.text("UPDATE share_version SET made_at = made_at - interval '31 days' WHERE version < 2"))
    one(named)
    connection, share, table, versions = opened(store, named)
    with connection:
        assert [version.number for version in versions] == [2, 3]
        assert not share_versions.changes(connection, share, table, versions, 2, 2)[0].inserted
    assert content(store, named, 2) and content(store, named, 3) == expected(store)
    with store.begin() as connection:
        connection.execute(sa.text("UPDATE share_version SET made_at = made_at - interval '100 days'"))
    one(named)
    connection, _, _, versions = opened(store, named)
    connection.close()
    assert [version.number for version in versions] == [3] and content(store, named, 3)
    change(store, held[1], name="戊")
    assert one(named).version == 4  # numbers are not given twice


def test_another_database_is_read_whole(store: sa.Engine, small: None) -> None:
    """A rebuild gives other positions to the same holdings: what is said of them stays, what is not the same is found."""
    held = [licence(store, number) for number in range(12)]
    named = agree(store)
    one(named)
    with store.begin() as connection:  # as a rebuild leaves it: the tables of shares carried over, the settings not
        connection.execute(sa.text("DELETE FROM setting WHERE name = 'share-store'"))
        connection.execute(
            sa.text(
                "UPDATE mapped_row SET document = (document::jsonb || '{\"name\": \"新\"}')::text WHERE holding = decode(:key, 'hex')"
            ),
            {"key": held[2]},
        )
        connection.execute(sa.text("UPDATE feed SET position = position + 1000"))
        connection.execute(sa.text("UPDATE feed_head SET position = 1012"))
    made = one(named)
    assert (made.version, made.changed, made.position) == (1, 2, 1012) and not one(named).new


@pytest.mark.parametrize("how", ["month", "row"])
def test_a_feed_that_does_not_tell_everything_any_more(store: sa.Engine, small: None, how: str) -> None:
    held = [licence(store, number) for number in range(12)]
    named = agree(store)
    one(named)
    withdraw(store, held[4])
    with store.begin() as connection:
        if how == "month":  # of a month that goes the last word on what is withdrawn goes too
            connection.execute(sa.text("DELETE FROM feed WHERE change = 'withdrawn'"))
            connection.execute(
                sa.text("INSERT INTO setting VALUES ('feed-since', :day)"),
                {"day": str(dt.date.today() + dt.timedelta(days=1))},
            )
        else:
            connection.execute(sa.text("DELETE FROM feed"))
    made = one(named)
    assert (made.version, made.changed, made.rows) == (1, 1, 11) and content(store, named, 1) == expected(store)


@pytest.mark.parametrize("anew", [False, True])
def test_files_that_were_lost(store: sa.Engine, small: None, anew: bool) -> None:
    """The table begins again; what nobody can read any more is not served."""
    held = [licence(store, number) for number in range(12)]
    named = agree(store, materials=FIELDS)
    one(named)
    for path in place(named).rglob("rows/*"):
        path.unlink()
    if not anew:
        change(store, held[0], name="甲")
    made = one(named, anew=anew)
    assert (made.version, made.new, made.changed, made.rows) == (1, True, 12, 12)
    connection, _, _, versions = opened(store, named)
    connection.close()
    assert [(version.number, version.whole) for version in versions] == [(1, True)]
    assert content(store, named, 1) == expected(store) and not one(named, anew=True).new


def test_many_changes_are_read_whole(store: sa.Engine, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    held = [licence(store, number) for number in range(12)]
    named = agree(store)
    one(named)
    for holding in held:
        change(store, holding, name="新")
    seen = list[bool]()
    read = share_rows.read
    monkeypatch.setattr(share_rows, "read", lambda *a, **b: seen.append(b["changed"]) or read(*a, **b))
    assert one(named).changed == 24 and set(seen) == {False}
    change(store, held[0], name="旧")
    seen.clear()
    assert one(named).changed == 2 and set(seen) == {True}


def test_what_is_no_longer_agreed_or_over_goes(store: sa.Engine) -> None:
    licence(store, 1)
    register = "household-register"
    both = {LICENCE: ["name"], register: ["status"]}
    one_, other = agree(store, materials=both), agree(store)
    assert sorted(made.material for made in publish()) == sorted([LICENCE, register, LICENCE])
    agree(store, one_, 2, materials={LICENCE: ["name"]})
    assert [made.material for made in publish(one_)] == [LICENCE]
    assert not (place(one_) / register).exists() and (place(one_) / LICENCE).exists()
    set_state(store, other, state="ended")
    assert {made.agreement for made in publish()} == {str(one_)}
    assert not place(other).exists()
    with store.connect() as connection:
        assert list(connection.scalars(sa.text("SELECT DISTINCT agreement FROM share_version"))) == [one_]
    with pytest.raises(UsageError, match="not in force"):
        publish(other)
    set_state(store, one_, state="suspended", suspended_by=["sh"])
    assert publish() == [] and place(one_).exists()  # it may go on
    with pytest.raises(UsageError, match="suspended"):
        publish(one_)


def test_agreements_of_other_modes_share_no_tables(store: sa.Engine) -> None:
    licence(store, 1)
    named = agree(store, modes=["evidence", "index"])
    assert publish() == []
    with pytest.raises(UsageError, match="does not allow this way"):
        publish(named)
    assert not place(named).exists() and database.engine()
