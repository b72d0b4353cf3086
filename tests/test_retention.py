"""hub/retention.py: what is old goes by whole months, and nothing goes that something still needs."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors.errors import FatalError, UsageError
from connectors.landing import LandedFile, Landing
from hub import checkpoint, holdings, home, partitions, retention, state, verify
from hub.cli import app
from hub.retention import Item, Keep

OLD, LATER = dt.date(2021, 3, 1), dt.date(2021, 4, 1)
STATEMENTS = """
INSERT INTO source (name, entity, region, authority, extent, promise_seconds) VALUES ('sh-x', 'business-licence', '310000', 100, 'partial', 60);
INSERT INTO batch (id, source, state, extent, contract, merges_seen, recorded_at) VALUES
  ('sh-x-20210305T000000-aaaaaa', 'sh-x', 'merged', 'partial', 'c', 0, '2021-03-05Z'),
  ('sh-x-20210306T000000-bbbbbb', 'sh-x', 'superseded', 'partial', 'c', 1, NULL);
INSERT INTO holding (key, mapped, material, source, row_key, digest, updated_at, authority, observations, conflicting, status, batch)
  SELECT cast(name AS bytea), 1, 'business-licence', 'sh-x', md5(name)::uuid, md5(name)::uuid, '2021-03-05Z', 100, 1, false, 'in_force',
    'sh-x-20210305T000000-aaaaaa' FROM unnest(ARRAY['kept', 'changed']) AS name;
INSERT INTO holding_past (holding, recorded_from, recorded_to, material, digest, source, row_key, batch, file, "row", identifiers, document)
  SELECT cast('changed' AS bytea), at - interval '1 day', at, 'business-licence', md5('x')::uuid, 'sh-x', md5('x')::uuid, 'b', 1, 2, '{}', '{}'
  FROM unnest(ARRAY['2021-03-07Z', '2021-04-07Z']::timestamptz[]) AS at;
INSERT INTO identity_past (identifier, cluster, state, recorded_from, recorded_to)
  SELECT cast('x' AS bytea), cast('x' AS bytea), 'joined', at - interval '1 day', at
  FROM unnest(ARRAY['2021-03-07Z', '2021-04-07Z']::timestamptz[]) AS at;
INSERT INTO feed (position, holding, material, change, batch, recorded_at)
  SELECT position, cast(name AS bytea), 'business-licence', change, 'b', cast(at AS timestamptz) FROM (VALUES
    (1, 'kept', 'added', '2021-03-05Z'), (2, 'changed', 'added', '2021-03-05Z'), (3, 'gone', 'added', '2021-03-05Z'),
    (4, 'kept', 'changed', '2021-03-06Z'), (5, 'gone', 'withdrawn', '2021-03-07Z'),
    (6, 'changed', 'changed', '2021-04-07Z')) AS f (position, name, change, at);
UPDATE feed_head SET position = 6;
"""


@pytest.fixture
def landing(store: sa.Engine) -> Landing:
    """A store with two months of 2021, all in DEFAULT as after an upgrade, and what landed in March 2021 and lands now."""
    with store.begin() as connection:
        connection.exec_driver_sql(STATEMENTS)
    zone = Landing(home.current().landing_url)
    for batch in ("sh-x-20210305T000000-aaaaaa", "sh-x-20210306T000000-bbbbbb"):
        file = LandedFile(f"{batch[-1] * 64}", "a.csv", 3, f"raw/2021-03/{batch[-1] * 2}/{batch[-1] * 64}")
        zone.zone.write(file.path, b"abc")
        zone.write_manifest("sh-x", batch, [file], fetched_at=dt.datetime.now(dt.UTC))
    zone.zone.write("merges/2021-03/sh-x/1.json", b"{}")
    zone.put(b"new", "new.csv")
    return zone


def written(store: sa.Engine, landing: Landing) -> str:
    with state.snapshot(store) as connection:
        return checkpoint.write(connection, landing)


def planned(store: sa.Engine, landing: Landing, keep: Keep = Keep(), today: dt.date | None = None) -> dict[str, Item]:
    with store.connect() as connection:
        return {f"{item.kind} {item.name}": item for item in retention.plan(connection, landing, keep, today)}


def applied(landing: Landing, keep: Keep = Keep()) -> set[str]:
    return {f"{item.kind} {item.name}" for item in retention.apply(landing, keep)}


def positions(store: sa.Engine) -> dict[int, str]:
    with store.connect() as connection:
        found = connection.execute(sa.text("SELECT position, tableoid::regclass::text FROM feed ORDER BY 1"))
        return {row[0]: row[1] for row in found}


def settled(store: sa.Engine) -> None:
    with store.begin() as connection:
        partitions.settle(connection)


@pytest.mark.parametrize(("given", "months"), [("36m", 36), (" 3Y ", 36), ("1m", 1), ("10y", 120)])
def test_periods(given: str, months: int) -> None:
    assert retention.months_of(given) == months


@pytest.mark.parametrize("given", ["", "0m", "36", "-1m", "3 years", "36d", "99999m"])
def test_what_is_no_period(given: str) -> None:
    with pytest.raises(UsageError) as refused:
        retention.months_of(given)
    assert refused.value.code == "retention-period"


@pytest.mark.parametrize(
    ("months", "today", "first_kept"),
    [
        (36, "2026-11-23", "2023-11-01"),
        (36, "2027-01-01", "2024-01-01"),
        (1, "2026-01-31", "2025-12-01"),
        (12, "2026-12-31", "2025-12-01"),
    ],
)
def test_a_month_is_old_when_all_in_it_is(months: int, today: str, first_kept: str) -> None:
    assert Keep(landing=months).before("landing", dt.date.fromisoformat(today)) == dt.date.fromisoformat(first_kept)


def test_landed_months_wait_for_a_checkpoint(store: sa.Engine, landing: Landing) -> None:
    this = f"landing {dt.datetime.now(dt.UTC):%Y-%m}"
    before = planned(store, landing)["landing 2021-03"]
    assert (before.count, before.size, before.due) == (2, 6, False)
    assert before.held is not None and before.held.code == "retention-held-uncovered"
    assert "yici checkpoint" in before.held.sentence()
    assert "landing 2021-03" not in applied(landing)
    written(store, landing)
    after = planned(store, landing)
    assert after["landing 2021-03"].due and not after[this].old
    assert "landing 2021-03" in applied(landing)
    assert landing.months() == [this.split()[1]]
    assert list(landing.batches()) == [] and landing.zone.names("merges") == []
    with store.connect() as connection:
        assert partitions.since(connection, "landing") == LATER
    assert applied(landing) == set()


def test_a_batch_under_way_holds_its_files(store: sa.Engine, landing: Landing) -> None:
    with store.begin() as connection:
        connection.exec_driver_sql("UPDATE batch SET state = 'halted' WHERE right(id, 6) = 'bbbbbb'")
    written(store, landing)
    held = planned(store, landing)["landing 2021-03"].held
    assert held is not None and held.code == "retention-held-batch" and "bbbbbb" in held.sentence()
    with store.begin() as connection:
        connection.exec_driver_sql("UPDATE batch SET state = 'superseded' WHERE right(id, 6) = 'bbbbbb'")
    assert not planned(store, landing)["landing 2021-03"].due, "a rebuild from that checkpoint would still want them"
    written(store, landing)
    assert planned(store, landing)["landing 2021-03"].due


def test_a_checkpoint_stands_in_only_where_it_can(store: sa.Engine, landing: Landing) -> None:
    name = written(store, landing)
    this = f"{dt.datetime.now(dt.UTC):%Y-%m}"
    held = planned(store, landing, today=dt.date(2100, 1, 1))[f"landing {this}"].held
    assert held is not None and held.code == "retention-held-earlier"
    path = f"checkpoints/{name}/manifest.json"
    manifest = landing.zone.read(path)
    landing.zone.write(path, manifest.replace(b'"revision": "', b'"revision": "0'))
    held = planned(store, landing)["landing 2021-03"].held
    assert held is not None and held.code == "retention-held-release"
    landing.zone.write(path, manifest)
    part = checkpoint.read(landing, name).parts[0].file.path
    data = landing.zone.read(part)
    landing.zone.write(part, data[:-1])
    held = planned(store, landing)["landing 2021-03"].held
    assert held is not None and held.code == "retention-held-damaged"
    landing.zone.write(part, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(FatalError) as refused:
        applied(landing)
    assert refused.value.code == "landed-file-altered"
    assert "2021-03" in landing.months() and 1 in positions(store)


def test_the_feed_waits_for_peers_and_keeps_the_last_word_on_what_is_held(store: sa.Engine, landing: Landing) -> None:
    zj, new, ended, replaced = (f"0199c0de-0000-7000-8000-00000000000{number}" for number in range(4))
    with store.begin() as connection:
        connection.exec_driver_sql(
            f"""INSERT INTO exchange_agreement (id, version, peer, provider, document, state, valid_from, valid_to, epoch) VALUES
              ('{zj}', 1, 'zj', true, '', 'superseded', now(), '2999-01-01Z', 'e1'),
              ('{zj}', 2, 'zj', true, '', 'suspended', now(), '2999-01-01Z', 'e2'),
              ('{new}', 1, 'js', true, '', 'in_force', now(), '2999-01-01Z', 'e1'),
              ('{ended}', 1, 'ah', true, '', 'in_force', now() - interval '1 day', now(), 'e1'),
              ('{replaced}', 1, 'ah', true, '', 'in_force', now(), '2999-01-01Z', 'e3');
            INSERT INTO index_position (agreement, epoch, position) VALUES
              ('{zj}', 'e2', 4), ('{new}', 'e1', 0), ('{ended}', 'e1', 1), ('{replaced}', 'e2', 1)"""
        )
    settled(store)
    plan = planned(store, landing)
    held = plan["feed 2021-03"].held
    assert held is not None and held.values == {"peer": "zj", "agreement": zj, "position": 4, "last": 5}
    assert "2021" not in held.sentence() and zj in held.sentence()
    assert "feed 2021-03" not in applied(landing)
    with store.begin() as connection:
        connection.exec_driver_sql(f"UPDATE index_position SET position = 6 WHERE agreement = '{zj}'")
    assert {"feed 2021-03", "feed 2021-04"} <= applied(landing)
    assert positions(store) == {4: "feed_default", 6: "feed_default"}, "one entry for each that is held, where it was"
    settled(store)
    assert positions(store) == {4: "feed_default", 6: "feed_default"}
    # what was kept goes when what overtook it goes
    with store.begin() as connection:
        connection.exec_driver_sql(
            """DELETE FROM holding WHERE key = cast('kept' AS bytea); UPDATE feed_head SET position = 7;
            UPDATE index_position SET position = 7 WHERE epoch = 'e2' AND position = 6;
            INSERT INTO feed (position, holding, material, change, batch, recorded_at)
            VALUES (7, 'kept', 'business-licence', 'withdrawn', 'b', '2021-05-02Z')"""
        )
    settled(store)
    assert "feed 2021-05" in applied(landing)
    assert positions(store) == {6: "feed_default"}
    with store.begin() as connection:
        assert not {one.code for one in verify.of_store(connection)} & {"feed-gap", "feed-out-of-turn", "since-untrue"}


def test_history_goes_by_age_and_says_from_when_on_it_is_whole(store: sa.Engine, landing: Landing) -> None:
    keep = Keep(history=(dt.date.today().year - 2021) * 12 + dt.date.today().month - 4)  # until March 2021
    with store.begin() as connection:
        connection.execute(sa.text("INSERT INTO identity_past SELECT 'y', 'y', 'joined', '2021-02-01Z', '2021-02-07Z'"))
    dropped = {item for item in applied(landing, keep) if item.startswith("history")}
    assert dropped == {"history 2021-02", "history 2021-03"}, "of the first there is only who was one with whom"
    with store.connect() as connection:
        for table in partitions.HISTORY:
            assert connection.scalar(sa.text(f"SELECT count(*) FROM {table}")) == 1
            assert partitions.since(connection, table) == LATER
            assert partitions.months(connection, table)[0] == LATER
        for kept in partitions.HISTORY:  # whichever of the two was dropped, the answer would not be whole
            others = sa.text("DELETE FROM setting WHERE name LIKE '%-since' AND name <> :name")
            connection.execute(others, {"name": f"{kept}-since"})
            with pytest.raises(UsageError) as refused:
                holdings.recorded(connection, {}, [], dt.datetime(2021, 3, 31, tzinfo=dt.UTC))
            assert refused.value.code == "as-of-dropped"
            connection.rollback()


ANSWERS = """
INSERT INTO answer_sources (digest, sources, recorded_at) SELECT cast(at AS bytea), '[]', cast(at AS timestamptz)
  FROM unnest(ARRAY['2021-01-07Z', '2021-02-07Z', '2021-02-20Z', '2021-03-07Z']) AS at;
INSERT INTO answer (id, asked_at, client, purpose, item, version, language, must_submit, inputs_digest, inputs, trace)
  SELECT gen_random_uuid(), at, 'c', 'p', 'i', 1, 'en', '{}', '', '{}', '{}'
  FROM unnest(ARRAY['2021-02-01Z', '2021-02-28Z', '2021-03-01Z']::timestamptz[]) AS at;
INSERT INTO evidence (answer, holding, asked_at, given_at, client, purpose, item, applicant, material, fields, digest)
  SELECT id, '', asked_at, '2021-03-01Z', client, purpose, item, '', 'business-licence', '{}', '' FROM answer;
"""


def test_answers_go_with_their_evidence_and_what_only_they_were_decided_under(
    store: sa.Engine, landing: Landing
) -> None:
    with store.begin() as connection:
        connection.exec_driver_sql(ANSWERS)
    until = (dt.date.today().year - 2021) * 12 + dt.date.today().month - 1
    assert "answers 2021-02" not in applied(landing, Keep(answers=until - 1))
    assert "answers 2021-02" in applied(landing, Keep(answers=until - 2))
    with store.connect() as connection:
        for table in ("answer", "evidence"):
            assert (
                connection.scalar(sa.text(f"SELECT array_agg(asked_at)::text FROM {table}"))
                == '{"2021-03-01 00:00:00+00"}'
            )
        left = sa.text("SELECT array_agg(recorded_at::date::text ORDER BY 1) FROM answer_sources")
        assert connection.scalar(left) == ["2021-02-20", "2021-03-07"], "the former is what March began under"


def test_old_checkpoints_go_but_not_the_one_in_use(store: sa.Engine, landing: Landing) -> None:
    first, second, third, fourth = (written(store, landing) for _ in range(4))
    for name in (third, fourth):  # nothing could start from these
        landing.zone.remove_file(checkpoint.read(landing, name).parts[0].file.path)
    plan = planned(store, landing)
    assert [plan[f"checkpoint {name}"].old for name in (first, second, third, fourth)] == [True, True, False, False]
    assert plan[f"checkpoint {first}"].due and not plan[f"checkpoint {second}"].due
    assert f"checkpoint {first}" in applied(landing)
    assert checkpoint.names(landing) == [second, third, fourth]


def test_cut_off_it_is_called_again(store: sa.Engine, landing: Landing) -> None:
    written(store, landing)
    steps = retention.apply(landing, Keep())
    done = next(steps)
    steps.close()
    rest = applied(landing)
    assert f"{done.kind} {done.name}" not in rest
    assert len(rest) == 4  # of landing, two months of history, two of the feed, one was done
    assert not any(item.due for item in planned(store, landing).values())


def test_the_commands(store: sa.Engine, landing: Landing, tmp_path: Path) -> None:
    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == code, (done.output, done.exception)
        return done.stdout

    made = json.loads(run("checkpoint", "--json"))
    assert made["rows"]["feed"] == 6
    assert [item["checkpoint"] for item in json.loads(run("checkpoint", "list", "--json"))] == [made["checkpoint"]]
    assert made["checkpoint"] in run("checkpoint", "list")
    assert made["checkpoint"] in run("checkpoint", "verify", made["checkpoint"])
    by_month = {"history", "feed", "answers", "exchange"} if partitions_made(store) else set()
    shown = {item["kind"] for item in json.loads(run("retention", "show", "--json"))}
    assert shown == {"landing", "checkpoint", *by_month}
    tried = json.loads(run("retention", "apply", "--dry-run", "--json"))
    assert tried["dry_run"] and {(item["kind"], item["name"]) for item in tried["dropped"]} == {("landing", "2021-03")}
    assert "2021-03" in landing.months()
    done = json.loads(run("retention", "apply", "--keep-feed", "99y", "--json"))
    assert {(item["kind"], item["name"]) for item in done["dropped"]} == {
        ("landing", "2021-03"), ("history", "2021-03"), ("history", "2021-04")
    }  # fmt: skip
    assert "2021-03" not in landing.months() and len(positions(store)) == 6
    assert "feed" in run("retention", "show")
    assert "2021-04" in run("retention", "apply")
    assert "nothing" in run("retention", "apply")
    assert json.loads(run("checkpoint", "drop", made["checkpoint"], "--json")) == {"dropped": made["checkpoint"]}
    for words in (("retention", "apply", "--keep-landing", "soon"), ("checkpoint", "drop", made["checkpoint"])):
        refused = CliRunner().invoke(app, list(words)).exception
        assert isinstance(refused, UsageError | FatalError)


def partitions_made(store: sa.Engine) -> bool:
    with store.connect() as connection:
        return bool(partitions.months(connection, "feed"))
