"""What partner hubs announce: entries follow the announcements whatever their order, and nothing is passed on."""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors import source as sources
from connectors.errors import FatalError, RetriableError, UsageError
from hub import batches, database, home, index_entries, index_keys, merge, pipeline
from tests import partner, stored
from tests.emptying import empty
from tests.test_pipeline import count

LICENCE = ("holder", "cn.uscc", stored.LICENCE_CODE)
PERSON = ("holder", "cn.ric", stored.RESIDENT)
SPOUSE = ("spouse", "cn.ric", stored.SPOUSE)
EARLY, LATE, LATER = "2026-03-01T08:00:00Z", "2026-04-01T08:00:00Z", "2026-05-01T08:00:00Z"

Entry = tuple[str, ...]


@pytest.fixture(autouse=True)
def _partner(store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has an empty store of its own and a partner's source."""
    partner.folder(tmp_path / "sources", monkeypatch)


@pytest.fixture
def deliver(tmp_path: Path):
    """Run the whole pipeline over announcements written as a file."""
    numbers = itertools.count()

    def run(*rows: partner.Row) -> dict[str, Any]:
        return partner.run(tmp_path / f"page-{next(numbers)}.csv", list(rows))

    return run


def entries(where: str = "recorded_to IS NULL") -> set[Entry]:
    """Entries as they were announced; ``identifier`` in hex."""
    query = f"""SELECT encode(handle, 'hex'), encode(identifier, 'hex'), role, material, coalesce(region, ''), status,
        coalesce(valid_to::text, ''), digest, epoch FROM index_entry WHERE {where}"""
    with database.engine().connect() as connection:
        found = [tuple(row) for row in connection.execute(sa.text(query))]
    assert len(found) == len(set(found)), "an entry is open twice"
    return set(found)


def expected(rows: list[partner.Row]) -> set[Entry]:
    """What should be in force after ``rows``, by the rule: the latest announcement of each handle, the last epoch."""
    latest: dict[str, partner.Row] = {}
    for row in sorted(rows, key=lambda row: row["recorded_at"]):
        latest[row["handle"]] = row
    epoch = max(row["epoch"] for row in rows)
    hashing = home.keyed_hash()
    return {
        (row["handle"], hashing.of(f"index:{partner.SOURCE}:{row['epoch']}:{subject}").hex(), role, row["material"],
         row["region"], row["status"], row["valid_to"], row["digest"], row["epoch"])
        for row in latest.values() if row["epoch"] == epoch and row["status"] != "withdrawn"
        for role, subject in (pair.split(":") for pair in row["subjects"].split())
    }  # fmt: skip


def test_announcements_become_entries_and_nothing_else(deliver) -> None:
    rows = [
        partner.announcement(1, LICENCE, valid_to="2030-01-31"),
        partner.announcement(2, PERSON, SPOUSE, material="marriage-certificate", status="suspended"),
    ]
    summary = deliver(*rows)
    assert (summary["fetched"], summary["accepted"]) == (2, 2)
    assert entries() == expected(rows) and count("index_entry") == 3
    for table in ("holding", "holding_holder", "holding_version", "feed"):
        assert count(table) == 0, f"{table}: what a partner holds is not passed on"
    assert count("source", f"hub = '{partner.HUB}'") == 1
    assert count("index_scope", "province = '33' AND regions = '{33}'") == 2
    rows_kept = "file = (SELECT id FROM landed_file WHERE name = 'page-0.csv') AND \"row\" IN (2, 3)"
    assert count("index_entry", rows_kept) == 3


def test_the_same_page_again_changes_nothing(deliver) -> None:
    rows = [partner.announcement(number, LICENCE) for number in range(3)]
    deliver(*rows)
    before = entries("true")
    summary = deliver(*rows[::-1])
    assert summary["unchanged"] == 3 and entries("true") == before and count("index_entry") == 3


def test_a_changed_announcement_closes_and_opens_only_what_changed(deliver) -> None:
    both = partner.announcement(1, PERSON, SPOUSE)
    one = {**both, "subjects": both["subjects"].split()[0], "recorded_at": LATE, "position": "9"}
    deliver(both)
    deliver(one)
    assert entries() == expected([one])
    assert count("index_entry") == 2 and count("index_entry", "recorded_to IS NULL") == 1, "the other stays untouched"
    dated = {**one, "valid_to": "2031-01-01", "recorded_at": LATER}
    deliver(dated)
    assert entries() == expected([dated]) and count("index_entry") == 3
    assert count("index_entry", "recorded_to <= recorded_from") == 0


def test_what_is_withdrawn_is_gone_and_may_come_back(deliver) -> None:
    first = partner.announcement(1, LICENCE)
    deliver(first)
    deliver(partner.withdrawn(first, LATE, subjects=first["subjects"]))  # whatever it still says of whom
    assert entries() == set() and count("index_entry", "recorded_to IS NOT NULL") == 1
    deliver(first)
    assert entries() == set(), "an old page proves nothing about today"
    back = {**first, "recorded_at": LATER}
    deliver(back)
    assert entries() == expected([back])


def test_good_bad_good_ends_good(deliver) -> None:
    first = partner.announcement(1, LICENCE)
    deliver(first)
    bad = deliver({**first, "status": "whatever", "recorded_at": LATE})
    assert bad["quarantined"] == 1
    assert entries() == expected([first]), "what cannot be read changes nothing"
    last = {**first, "status": "revoked", "recorded_at": LATER}
    deliver(last)
    assert entries() == expected([last]) and count("quarantine", "state = 'open'") == 0


def test_a_later_epoch_ends_the_earlier_one(deliver) -> None:
    old = [partner.announcement(number, LICENCE) for number in range(3)]
    new = [partner.announcement(number, LICENCE, epoch="2027") for number in range(2)]
    deliver(*old)
    deliver(*new)
    assert entries() == expected([*old, *new]) and len(entries()) == 2
    assert count("index_entry", "recorded_to IS NOT NULL AND epoch = '2026'") == 3
    deliver({**old[2], "recorded_at": LATER, "valid_to": "2040-01-01"})
    assert entries() == expected([*old, *new]), "a page of an epoch that is over changes nothing"


def test_an_epoch_without_announcements_still_ends_the_one_before() -> None:
    engine = database.engine()
    partner.merged(engine, [])  # the very first read finds nothing, and no epoch either
    partner.merged(engine, [partner.announcement(1, LICENCE)], read=partner.cursor("2026"))
    partner.merged(engine, [], read=partner.cursor("2027"))
    assert entries() == set()


def scope() -> set[tuple[str, ...]]:
    with database.engine().connect() as connection:
        rows = connection.execute(sa.text("SELECT epoch, material, province, regions FROM index_scope"))
        return {(row.epoch, row.material, row.province, *row.regions) for row in rows}


def test_what_the_pages_say_they_are_about_is_known_and_not_what_they_announce() -> None:
    told = {"materials": ["household-register"], "regions": ["330000", "330106"]}
    partner.merged(database.engine(), [partner.announcement(1, LICENCE)], read=partner.cursor("2026", **told))
    assert scope() == {("2026", "household-register", "33", "33", "330106")}
    told = {"materials": ["business-licence", "household-register"], "regions": ["330200", "3301", "3300"]}
    partner.merged(database.engine(), [], read=partner.cursor("2026", **told))
    part = ("33", "3300", "3301", "3302")
    assert scope() == {("2026", "business-licence", *part), ("2026", "household-register", *part)}, (
        "the last word counts"
    )
    partner.merged(database.engine(), [], read=partner.cursor("2026", materials=[]))
    partner.merged(database.engine(), [], read=partner.cursor("2027"))
    assert {row[0] for row in scope()} == {"2027"}


def test_after_an_upgrade_the_scope_is_what_the_pages_of_before_said() -> None:
    engine = database.engine()
    partner.merged(engine, [partner.announcement(1, LICENCE)], read=partner.cursor("2026", regions=["3301", "330206"]))
    partner.merged(engine, [], read=partner.cursor("2027", regions=["330000"], materials=["household-register"]))
    before = scope()
    assert {row[2:] for row in before} == {("33", "3301", "330206"), ("33", "33")}
    config = Config()
    config.set_main_option("script_location", "hub:migrations")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0014")
        connection.execute(
            sa.text(
                "INSERT INTO index_scope SELECT source, epoch, 'resident-id-card', '33', now() FROM index_scope LIMIT 1"
            )
        )
        connection.commit()
    database.upgrade()
    assert scope() == before, "and not what entries let one guess"


def test_a_partner_is_no_authority_beyond_its_own_region(deliver) -> None:
    """Neither by what its pages say they are about, nor by what they announce, whatever the source's checks say."""
    told = {"materials": ["household-register"], "regions": ["31", "00", "3", "33x", "330"]}
    partner.merged(database.engine(), [], read=partner.cursor("2026", **told))
    assert count("index_scope") == 0
    there, inside = (
        partner.announcement(number, LICENCE, region=region) for number, region in ((1, "310115"), (2, ""))
    )
    partner.merged(database.engine(), [there, inside], read=partner.cursor("2026", materials=["business-licence"]))
    assert {entry[0] for entry in entries()} == {inside["handle"]}, "none names a region: the partner's own"
    assert count("index_scope") == count("index_scope", "province = '33'") == 1
    summary = deliver(partner.announcement(3, LICENCE, region="310115"))
    assert summary["quarantined"] == 1 and summary["reasons"] == {"region-of-another-province": 1}


def test_of_two_announcements_of_one_time_the_later_position_counts() -> None:
    """Two rows of one handle, as two keys of a source could deliver them: the observations tie."""
    first = partner.announcement(1, LICENCE)
    for number in range(8):
        rows = [{**first, "digest": f"{number:032x}", "position": "9"},
                {**first, "digest": f"{number + 50:032x}", "position": "10", "status": "revoked"}]  # fmt: skip
        engine = database.engine()
        partner.merged(engine, [rows[0]])
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE row_ledger SET row_key = gen_random_uuid()"))
            connection.execute(sa.text("UPDATE mapped_row SET row_key = (SELECT row_key FROM row_ledger)"))
        partner.merged(engine, [rows[1]])
        assert {entry[5] for entry in entries()} == {"revoked"}
        with engine.begin() as connection:
            connection.execute(sa.text("TRUNCATE row_ledger, mapped_row, index_entry"))


def test_what_is_forgotten_is_gone_and_can_be_read_anew(deliver) -> None:
    engine, row = database.engine(), partner.announcement(1, LICENCE)
    scope = {"materials": ["business-licence"], "regions": ["33"]}
    partner.merged(engine, [row], read=partner.cursor("2026", **scope))
    deliver({**row, "status": "whatever", "recorded_at": LATE})
    kept = count("batch")
    assert index_entries.forget(partner.SOURCE, actor="anna", note="over") == 1
    for table in ("index_entry", "index_key", "index_scope", "observation", "row_ledger", "mapped_row", "quarantine"):
        assert count(table) == 0, table
    assert count("source", "cursor IS NULL AND hub IS NULL AND last_success_at IS NULL") == 1
    assert count("batch") == kept and count("decision", "kind = 'forget' AND actor = 'anna' AND note = 'over'") == 1
    partner.merged(engine, [row])
    assert entries() == expected([row])


def test_a_batch_begun_before_forgetting_brings_nothing_back() -> None:
    engine, row = database.engine(), partner.announcement(1, LICENCE)
    partner.merged(engine, [row])
    with engine.begin() as connection:
        begun = batches.begin(connection, sources.load(partner.SOURCE), "c0" * 32, None)
        batches.update(connection, begun.id, state="gated")
        begun = batches.get(connection, begun.id)
    index_entries.forget(partner.SOURCE, actor="anna")
    with pytest.raises(RetriableError) as refused, engine.begin() as connection:
        merge.merge(connection, begun, "index-entry", 100, home.keyed_hash(), kind="index")
    assert refused.value.code == "batch-overtaken" and count("index_entry") == 0


def test_only_an_index_can_be_forgotten(store: sa.Engine) -> None:
    stored.source(store, "zj-ga-households", "household-register", region="330000")
    for source in ("zj-ga-households", "nobody"):
        with pytest.raises(UsageError) as refused:
            index_entries.forget(source, actor="anna")
        assert refused.value.code == "index-source-unknown"
    assert count("source") == 1


def test_the_epoch_key_is_sealed_and_made_readable_again() -> None:
    engine = database.engine()
    partner.merged(engine, [partner.announcement(1, LICENCE)])

    def kept() -> bytes:
        with engine.connect() as connection:
            return connection.scalar(sa.text("SELECT sealed FROM index_key"))

    sealed, key, about = kept(), index_keys.epoch_key(partner.KEY, "2026"), f"{partner.SOURCE} 2026"
    assert index_keys.unseal(home.current(), sealed, about) == key and key not in sealed
    partner.merged(engine, [partner.announcement(2, LICENCE)])
    assert kept() == sealed, "sealed once an epoch"
    (home.current().keys / index_keys.SEALING_KEY).unlink()
    partner.merged(engine, [partner.announcement(3, LICENCE)])
    assert index_keys.unseal(home.current(), kept(), about) == key


def test_without_the_key_of_the_epoch_nothing_is_merged(deliver, tmp_path: Path) -> None:
    def given(row: partner.Row) -> str:
        with pytest.raises(FatalError) as refused:
            pipeline.run(partner.SOURCE, input=partner.write(tmp_path / "given.csv", [row]))
        return refused.value.code

    first = partner.announcement(1, LICENCE)
    assert given(first) == "index-key-missing"
    assert count("index_entry") == count("row_ledger") == 0
    deliver(first)
    assert given(partner.announcement(1, LICENCE, epoch="2027")) == "index-key-missing"
    assert entries() == expected([first])
    later = {**first, "recorded_at": LATER, "valid_to": "2031-01-01"}
    pipeline.run(partner.SOURCE, input=partner.write(tmp_path / "given.csv", [later]))
    assert entries() == expected([later]), "of the epoch in force the key is kept"


def test_an_index_is_no_snapshot(deliver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partner.folder(tmp_path / "others", monkeypatch, extent="snapshot")
    with pytest.raises(FatalError) as refused:
        deliver(partner.announcement(1, LICENCE))
    assert refused.value.code == "index-snapshot"


HOLDERS = (LICENCE, PERSON, SPOUSE)
ROWS = st.builds(
    lambda number, hour, epoch, holders, status, valid_to: partner.announcement(
        number, *[HOLDERS[place] for place in holders], epoch=epoch, valid_to=valid_to, status=status,
        at=(dt.datetime(2025, 3, 1, tzinfo=dt.UTC) + dt.timedelta(hours=hour)).isoformat(),
    ),
    st.integers(0, 3), st.integers(0, 10_000), st.sampled_from(["2026", "2027"]), st.sets(st.integers(0, 2), min_size=1),
    st.sampled_from(["in_force", "suspended", "withdrawn"]), st.sampled_from(["", "2030-01-01"]),
)  # fmt: skip


def unique(rows: list[partner.Row]) -> list[partner.Row]:
    """One version a time of each handle, and no holders of what is withdrawn, as the protocol has it."""
    found = {(row["handle"], row["recorded_at"]): row for row in rows}
    return [{**row, "subjects": "" if row["status"] == "withdrawn" else row["subjects"]} for row in found.values()]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROWS, min_size=1, max_size=12).map(unique), data=st.data())
def test_any_order_splitting_and_repetition_ends_in_the_same_entries(rows: list[partner.Row], data) -> None:
    tables = "index_entry, index_key, index_scope, row_ledger, mapped_row, batch, source"
    engine = database.engine()
    with engine.begin() as connection:
        empty(connection, tables)
    arriving = data.draw(st.permutations([*rows, *data.draw(st.lists(st.sampled_from(rows), max_size=4))]))
    while arriving:
        size = data.draw(st.integers(1, len(arriving)))
        # One batch holds each handle once: the stage before keeps the latest of several.
        batch = {row["handle"]: row for row in sorted(arriving[:size], key=lambda row: row["recorded_at"])}
        partner.merged(engine, list(batch.values()))
        arriving = arriving[size:]
    assert entries() == expected(rows)
    assert count("index_entry", "recorded_to <= recorded_from") == 0


def test_entries_that_were_altered_are_made_anew_and_others_left_alone(deliver) -> None:
    rows = [partner.announcement(number, LICENCE) for number in range(4)]
    deliver(*rows)
    with database.engine().begin() as connection:
        for statement in (
            "UPDATE index_entry SET status = 'revoked' WHERE handle = decode(:handle, 'hex')",
            "DELETE FROM index_entry WHERE handle = decode(:other, 'hex')",
        ):
            connection.execute(sa.text(statement), {"handle": rows[0]["handle"], "other": rows[1]["handle"]})
    assert index_entries.mend_all() == 2 and entries() == expected(rows)
    assert count("index_entry") == 5, "the altered one is history now"
    assert index_entries.mend(partner.SOURCE) == 0


def test_what_was_never_announced_is_ended(deliver) -> None:
    rows = [partner.announcement(number, LICENCE) for number in range(2)]
    deliver(*rows)
    with database.engine().begin() as connection:
        connection.execute(sa.text("DELETE FROM row_ledger WHERE holding = (SELECT min(holding) FROM row_ledger)"))
    assert index_entries.mend(partner.SOURCE) == 1 and len(entries()) == 1
