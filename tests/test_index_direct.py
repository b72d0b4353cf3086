"""hub/index_direct.py: entries that go the short way are those of the long way, and each announcement goes the way it must."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.errors import YiciError
from hub import database, direct, home, index_direct, index_entries, index_keys, pipeline, review, staging, verify_sql
from hub.direct import Direct
from hub.index_direct import Turn
from hub.workspace import Workspace
from tests import partner
from tests.emptying import empty
from tests.test_index_entries import EARLY, HOLDERS, LATE, LICENCE, PERSON, SPOUSE, entries, expected
from tests.test_pipeline import count

TABLES = {
    "index_entry": "identifier, source, handle, role, recorded_to IS NULL, material, region, status, valid_from, valid_to, digest, "
    "epoch, file, \"row\"",
    "index_scope": "source, epoch, material, province, regions",
    "source": "name, hub, as_of, merges, cursor ->> 'epoch'",
    "index_key": "source, epoch",
    "row_ledger": "row_key, digest, verdict, updated_at, holding",
}  # fmt: skip


@dataclass
class Ways:
    """How many entries were copied, and how many rows went the long way."""

    copied: int = 0
    long: int = 0


@pytest.fixture(autouse=True)
def _partner(store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has an empty store of its own and a partner's source."""
    partner.folder(tmp_path / "sources", monkeypatch)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ways]:
    counted, real = Ways(), index_entries.begin

    def begin(connection: sa.Connection, batch: sa.Row, short: Direct) -> Turn:
        turn = real(connection, batch, short)
        counted.copied += turn.entries
        counted.long += connection.scalar(
            sa.text("SELECT (SELECT count(*) FROM shared) + (SELECT count(*) FROM incoming)")
        )
        return turn

    monkeypatch.setattr(index_entries, "begin", begin)
    yield counted


def long_way() -> Any:
    """Nothing goes the short way."""
    return mock.patch.object(Turn, "_plain", lambda self, rows: np.zeros(len(rows), dtype=bool))


def everything() -> dict[str, list[str]]:
    """All that must be alike, and what does not follow from what was announced: nothing."""
    with database.engine().connect() as connection:
        found = {
            table: sorted(str(tuple(row)) for row in connection.execute(sa.text(f"SELECT {columns} FROM {table}")))
            for table, columns in TABLES.items()
        }
        hashing = home.keyed_hash()
        bind = {"source": partner.SOURCE, "inner": hashing.inner, "outer": hashing.outer}
        connection.execute(sa.text("SET datestyle = 'ISO'"))
        amiss = connection.execute(
            sa.text(f"SELECT code, key FROM ({verify_sql.ENTRIES_OF}) AS d WHERE code IS NOT NULL"), bind
        ).all()
        assert amiss == []
    return found


def both_ways(told: list[tuple[list[partner.Row], str | None]]) -> None:
    """The same batches merged either way are alike after each."""
    states = []
    for way in (mock.MagicMock(), long_way()):
        with database.engine().begin() as connection:
            empty(connection, "index_entry, index_key, index_scope, row_ledger, mapped_row, batch, source")
        with way:
            states.append([(counts(merged_or_refused(rows, epoch)), everything()) for rows, epoch in told])
    assert states[0] == states[1]


def merged_or_refused(rows: list[partner.Row], epoch: str | None) -> Any:
    try:
        return partner.merged(database.engine(), rows, read=partner.cursor(epoch) if epoch else {})
    except YiciError as error:
        return error.code


def counts(done: Any) -> Any:
    return done if isinstance(done, str) else (done.accepted, done.older, done.tied, done.holdings_changed, done.behind)


ROWS = st.builds(
    lambda number, key, hour, epoch, holders, again, **fields: _announced(number, key, hour, epoch, holders, again, fields),
    st.integers(0, 3), st.sampled_from(["a", "a", "a", "b"]), st.integers(0, 50), st.sampled_from(["2026", "2026", "2027"]),
    st.lists(st.integers(0, 2), max_size=3, unique=True), st.booleans(),
    status=st.sampled_from(["in_force", "in_force", "suspended", "withdrawn"]), valid_to=st.sampled_from(["", "2030-01-01"]),
    region=st.sampled_from(["330106", "330106", "", "310115", "33010600"]), hub=st.sampled_from(["zj", "za", ""]),
    material=st.sampled_from(["business-licence", "household-register", ""]), spelling=st.sampled_from(["plain", "plain", "plain", "loud"]),
)  # fmt: skip


def _announced(
    number: int, key: str, hour: int, epoch: str, holders: list[int], again: bool, fields: dict[str, str]
) -> partner.Row:
    loud = fields.pop("spelling") == "loud"
    at = (dt.datetime(2025, 3, 1, tzinfo=dt.UTC) + dt.timedelta(hours=hour)).isoformat()
    row = partner.announcement(number, *[HOLDERS[place] for place in holders], epoch=epoch, at=at, **fields)
    row |= {"key": f"{row['handle']}{key}", "handle": row["handle"].upper() if loud else row["handle"]}
    return row | ({"subjects": " ".join([row["subjects"]] * 2)} if again and holders else {})


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    told=st.lists(
        st.tuples(
            st.lists(ROWS, max_size=7, unique_by=lambda row: (row["key"], row["recorded_at"])),
            st.sampled_from(["2026", "2026", "2027", None]),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_both_ways_end_in_the_same_state(told: list[tuple[list[partner.Row], str | None]]) -> None:
    both_ways(told)


def test_what_is_plain_goes_the_short_way_and_all_else_the_long_way(ways: Ways) -> None:
    plain = [
        partner.announcement(1, LICENCE, valid_to="2030-01-31"),
        partner.announcement(2, PERSON, SPOUSE, material="marriage-certificate"),
        partner.announcement(3, LICENCE, region=""),
        partner.announcement(4, PERSON, region="310115"),
        partner.announcement(5, PERSON, status="withdrawn"),
        partner.announcement(6),
        partner.announcement(7, PERSON, material=""),
    ]
    one, other = (partner.announcement(8, LICENCE, position=place, key=place) for place in ("8", "9"))
    odd = [
        one, {**other, "recorded_at": LATE}, partner.announcement(9, LICENCE, epoch="2025"),
        {**partner.announcement(10, LICENCE), "subjects": " ".join([partner.announcement(10, LICENCE)["subjects"]] * 2)},
        {**partner.announcement(11, LICENCE), "subjects": "holder:x"},
        {**partner.announcement(12, LICENCE), "handle": "ab"},
    ]  # fmt: skip
    told = [([*plain, *odd], "2026")]
    both_ways(told)
    assert ways == Ways(4, len(odd) + len(plain) + len(odd)), "of the second time all"
    assert count("index_scope") == 2 and count("source", "hub = 'zj'") == 1
    assert {entry[0] for entry in entries()} >= {row["handle"] for row in [*plain[:3], one]}


def test_what_is_known_is_compared(ways: Ways) -> None:
    """By the same row or by another one, though nothing of it may be in force."""
    first = partner.announcement(1, LICENCE, at=LATE)
    gone = partner.withdrawn(partner.announcement(2, LICENCE), LATE)
    again = [{**row, "recorded_at": EARLY, "status": "in_force", "key": row["handle"] + "b",
              "subjects": first["subjects"]} for row in (first, gone)]  # fmt: skip
    new = partner.announcement(3, PERSON)
    both_ways(
        [
            ([first, gone], "2026"),
            ([*again, new], "2026"),
            ([{**new, "recorded_at": LATE, "valid_to": "2030-01-01"}], "2026"),
        ]
    )
    assert entries() == expected([first, gone, {**new, "recorded_at": LATE, "valid_to": "2030-01-01"}])
    assert ways.copied == 2, "the first, and the new one"


def test_a_new_epoch_goes_the_short_way_and_ends_the_one_before(ways: Ways) -> None:
    old = [partner.announcement(number, LICENCE) for number in range(3)]
    new = [partner.announcement(number, LICENCE, epoch="2027") for number in range(2)]
    both_ways([(old, "2026"), (new, "2027"), ([partner.announcement(7, LICENCE)], "2027")])
    assert entries() == expected([*old, *new]) and len(entries()) == 2
    assert ways.copied == 5 and count("index_entry", "recorded_to IS NOT NULL AND epoch = '2026'") == 3


def test_of_an_epoch_without_its_key_nothing_is_merged(ways: Ways) -> None:
    both_ways(
        [
            ([partner.announcement(1, LICENCE, epoch="2027")], None),
            ([partner.announcement(1, LICENCE, epoch="2027")], "2026"),
        ]
    )
    assert count("row_ledger") == count("index_entry") == 0 and ways.copied == 0


def test_what_was_forgotten_goes_the_short_way_again(ways: Ways) -> None:
    rows = [partner.announcement(number, LICENCE) for number in range(3)]
    for _ in range(2):
        partner.merged(database.engine(), rows)
        assert entries() == expected(rows)
        index_entries.forget(partner.SOURCE, actor="anna")
        assert count("index_entry") == 0
    assert ways == Ways(6, 0)


def test_an_entry_that_is_open_without_foundation_does_not_stand_twice(ways: Ways) -> None:
    row = partner.announcement(1, LICENCE)
    partner.merged(database.engine(), [row])
    with database.engine().begin() as connection:
        empty(connection, "row_ledger, mapped_row")
    partner.merged(database.engine(), [{**row, "valid_to": "2030-01-01"}])
    assert entries() == expected([{**row, "valid_to": "2030-01-01"}]) and ways == Ways(1, 1)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The whole pipeline over announcements written as a file."""
    numbers = itertools.count()
    return lambda rows: partner.run(tmp_path / f"page-{next(numbers)}.csv", rows)


def test_chunks_in_several_runs(load, ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in the order of the key: then the index grows page by page."""
    rows = [partner.announcement(number, PERSON, SPOUSE) for number in range(40)]
    rows[3] |= {"status": "whatever"}
    written: list[pa.Table] = []
    real = index_direct.copying.load

    def noted(connection: Any, table: str, types: Any, parts: Iterator[pa.Table], constants: Any) -> int:
        if table == "index_entry":
            written.extend(held := [*parts])
            parts = iter(held)
        return real(connection, table, types, parts, constants)

    monkeypatch.setattr(staging, "CHUNK_ROWS", 6)
    monkeypatch.setattr("hub.diff.ENOUGH", 1)
    monkeypatch.setattr(direct, "RUN", 15)
    monkeypatch.setattr(index_direct.copying, "load", noted)
    summary = load(rows)
    assert (summary["accepted"], summary["quarantined"]) == (39, 1)
    assert entries() == expected(rows[:3] + rows[4:]) and ways == Ways(78, 1)
    runs = [part["identifier"].to_pylist() for part in written]
    assert len(runs) == 3 and all(run == sorted(run) for run in runs)


def test_a_chunk_of_an_earlier_version_goes_the_long_way(load, ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of several was mapped before the hub was brought up to date."""
    rows = [partner.announcement(number, LICENCE) for number in range(6)]
    real = Workspace.write

    def write(self: Workspace, kind: Any, chunk: int, table: pa.Table) -> None:
        if kind == "mapped" and chunk == 0:
            nothing = pa.array([[]] * len(table), pa.list_(index_direct.KEY))
            place = table.column_names.index("identifiers")
            table = table.drop_columns(index_direct.SAID.names).set_column(place, "identifiers", nothing)
        real(self, kind, chunk, table)

    monkeypatch.setattr(staging, "CHUNK_ROWS", 4)
    monkeypatch.setattr("hub.diff.ENOUGH", 1)
    monkeypatch.setattr(Workspace, "write", write)
    load(rows)
    assert entries() == expected(rows) and ways == Ways(2, 4)
    load([partner.announcement(number, LICENCE) for number in range(6, 12)])
    assert len(entries()) == 12 and ways == Ways(4, 8), "and where some are known"


def test_merges_of_partners_do_not_wait_for_each_other() -> None:
    """No certificate of ours is concerned."""
    with database.engine().connect() as other, ThreadPoolExecutor(1) as pool:
        lock = "SELECT pg_advisory_xact_lock(hashtextextended('yici-holding-index-entry', 0))"
        other.execute(sa.text(lock))
        merging = pool.submit(partner.merged, database.engine(), [partner.announcement(1, LICENCE)])
        try:
            assert merging.result(timeout=60).holdings_changed == 1
        finally:
            other.rollback()


def test_a_halted_batch_that_is_approved(load, ways: Ways, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [partner.announcement(number, LICENCE) for number in range(9)]
    load(rows[:4])
    partner.folder(tmp_path / "few", monkeypatch, volume="{min: 0, max: 4, times_usual: 1000}")
    with pytest.raises(pipeline.BatchHalted) as halted:
        load(rows[4:])
    review.approve(halted.value.values["batch"], actor="anna")
    assert entries() == expected(rows) and ways == Ways(9, 0)


def test_what_a_chunk_says_is_keyed_as_the_store_keys_it() -> None:
    hashing = home.keyed_hash()
    ids = [f"{number:032x}" for number in range(700)]
    subjects: list[str | None] = [f"holder:{one}" for one in ids]
    subjects[1] = f"holder:{ids[1]} spouse_2:{ids[2]}"
    subjects[2] = None
    for place, odd in enumerate(
        (f"holder:{ids[3]} holder:{ids[3]}", "holder", f"Holder:{ids[0]}", f"holder:{ids[0]} ", "", f"a:b:{ids[0]}")
    ):
        subjects[3 + place] = odd
    handles = [f"{number:032x}" for number in range(700)]
    handles[10:13] = [handles[10].upper().replace("0", "A"), handles[11][1:], handles[12] + "\n"]
    columns = {
        "certificate_number": pa.array(handles),
        "attributes.subjects": pa.array(subjects),
        "attributes.epoch": pa.array(["20260301T000000Z-a1e8a263"] * 699 + [None], pa.string()),
        "region": pa.array(["33010600", "", None] * 233 + ["33"]),
        **{f"attributes.{name}": pa.array(["x"] * 700) for name in ("material", "state", "digest", "hub")},
    }
    accepted = np.arange(700) != 20
    found = pa.table(index_direct.said(columns, accepted, "zj-hub-index", hashing)).to_pylist()
    assert [row["region"] for row in found[:3]] == ["330106", None, None]
    plain = [place for place, row in enumerate(found) if row["handle"] is not None]
    assert plain == [place for place in range(700) if place not in (*range(3, 9), *range(10, 13), 20)]
    assert all(found[place]["handle"] == bytes.fromhex(handles[place]) for place in plain)
    for place in (0, 1, 2, 13, 698):
        told = [one.split(":") for one in (subjects[place] or "").split()]
        assert found[place]["roles"] == [role for role, _ in told]
        texts = [index_keys.local_text("zj-hub-index", "20260301T000000Z-a1e8a263", one) for _, one in told]
        assert found[place]["identifiers"] == [hashing.of(text) for text in texts]
    assert all(found[place]["identifiers"] == [] for place in range(700) if place not in plain)
    assert found[699]["identifiers"] == [None], "of no epoch: it goes no short way"
