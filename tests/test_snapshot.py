"""A monthly snapshot out of a real database: absence withdraws, mass absence waits for a person, age counts."""

from __future__ import annotations

import datetime as dt
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from typer.testing import CliRunner

from connectors import source as sources
from connectors.errors import BatchHalted
from demo import allowances, marriage_database, marriages
from hub import batches, cli, diff, pipeline, review

SOURCE = "sh-mca-allowances"
LISTED = 200
HEADER = ",".join(allowances.COLUMNS)


def roster(month: int, numbers: range | list[int]) -> str:
    """The roster of a month of 2025 as the bureau writes it."""
    lines = [
        f"DB3101152024{number:08d},示例某,{_resident(number)},3,310115,上海市浦东新区民政局,2024-02-08,2027-02-07,"
        f"2025-{month:02d}-01 00:00:00+08:00"
        for number in numbers
    ]
    return "\n".join([HEADER, *lines]) + "\n"


def _resident(number: int) -> str:
    body = f"31011519{60 + number // 1000:02d}0101{number % 1000:03d}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return body + "10X98765432"[sum(int(digit) * weight for digit, weight in zip(body, weights, strict=True)) % 11]


Publish = Callable[[str], None]


@pytest.fixture
def publish(store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publish]:
    """Puts a roster into the bureau's database, which the source is connected to."""
    admin = store.url.render_as_string(hide_password=False)
    database, reader = f"mca_{uuid.uuid4().hex}", f"reader_{uuid.uuid4().hex}"
    folder = tmp_path / "mca"
    folder.mkdir()
    (folder / "marriages.csv").write_text(",".join(marriages.COLUMNS) + "\n", encoding="utf-8")
    (folder / "dibao.csv").write_text(roster(6, range(LISTED)), encoding="utf-8")
    url = marriage_database.prepare(admin, folder / "marriages.csv", database, reader, password="r-pw")
    monkeypatch.setenv("YICI_CONN_SH_MCA", url)

    def load(text: str) -> None:
        path = tmp_path / "roster.csv"
        path.write_text(text, encoding="utf-8")
        marriage_database.load_roster(admin, path, database, reader)

    yield load
    with psycopg.connect(admin.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(reader)))


def held(store: sa.Engine) -> set[int]:
    """Who is entitled, by number."""
    with store.connect() as connection:
        found = connection.scalars(sa.text("SELECT document ->> 'certificate_number' FROM held"))
        return {int(number[-8:]) for number in found}


def count(store: sa.Engine, query: str) -> int:
    with store.connect() as connection:
        return int(connection.scalar(sa.text(query)) or 0)


def halted() -> tuple[str, BatchHalted]:
    with pytest.raises(BatchHalted) as caught:
        pipeline.run(SOURCE)
    return str(caught.value.values["batch"]), caught.value


def everything(store: sa.Engine) -> list[Any]:
    """The store but for what it says of batches."""
    tables = ("row_ledger", "observation", "holding", "holding_holder", "holding_past", "feed", "quarantine")
    with store.connect() as connection:
        return [sorted(map(str, connection.execute(sa.text(f"SELECT * FROM {table}")))) for table in tables]


def test_four_months(publish: Publish, store: sa.Engine) -> None:
    first = pipeline.run(SOURCE)
    assert (first["fetched"], first["accepted"], first["withdrawn"]) == (LISTED, LISTED, 0)
    assert held(store) == set(range(LISTED))

    # month 2 lacks 5 %, and has some new ones
    second = [*range(10, LISTED), *range(500, 505)]
    publish(roster(7, second))
    summary = pipeline.run(SOURCE)
    assert (summary["withdrawn"], summary["accepted"]) == (10, len(second))
    assert held(store) == set(second), "gone from the holdings"
    assert count(store, "SELECT count(*) FROM feed WHERE change = 'withdrawn'") == 10
    assert count(store, "SELECT count(*) FROM holding_holder") == len(second)

    # month 3 lacks 60 %
    third = second[:78]
    publish(roster(8, third))
    before = everything(store)
    batch, error = halted()
    assert (error.code, error.exit_code) == ("batch-mass-withdrawal", 3)
    assert error.values == {"withdrawn": 117, "known": 195, "percent": 60, "batch": batch, "source": SOURCE}
    for lang in ("zh", "en"):
        assert "117" in error.message(lang) and "195" in error.message(lang)
        assert f"yici batch approve {batch}" in error.advice(lang)
    assert everything(store) == before, "nothing was merged"

    shown = CliRunner().invoke(cli.app, ["batch", "show", batch, "--json"])
    assert '"withdrawn": 117' in shown.stdout and "batch-mass-withdrawal" in shown.stdout
    listed = CliRunner().invoke(cli.app, ["batch", "list", "--state", "halted", "--json"])
    assert batch in listed.stdout and '"withdrawn": 117' in listed.stdout

    done = review.approve(batch, actor="tester", note="the district was dissolved")
    assert (done["state"], done["withdrawn"], done["accepted"]) == ("merged", 117, 78)
    assert held(store) == set(third)

    # an older roster that comes late takes nobody off, and brings nobody back
    publish(roster(7, second[:100]))
    late = pipeline.run(SOURCE)
    assert (late["state"], late["withdrawn"], late["accepted"]) == ("merged", 0, 0)
    assert held(store) == set(third)

    # the next month brings somebody back
    publish(roster(9, [*third, 3]))
    assert pipeline.run(SOURCE)["accepted"] == len(third) + 1
    assert held(store) == {*third, 3}


def test_a_halted_roster_gives_way_to_the_right_one(publish: Publish, store: sa.Engine) -> None:
    """Everybody under a new number: the department sends the month again, and nobody has to approve anything."""
    pipeline.run(SOURCE)
    publish(roster(7, range(1000, 1000 + LISTED)))
    batch, error = halted()
    assert error.values["percent"] == 100 and held(store) == set(range(LISTED))
    publish(roster(7, range(5, LISTED)))
    assert pipeline.run(SOURCE)["withdrawn"] == 5
    with store.connect() as connection:
        assert batches.get(connection, batch).state == "superseded"


def _twice(text: str) -> str:
    return text + text.splitlines()[5].replace(",3,310115,", ",4,310115,") + "\n"


def test_the_guard_counts_what_the_merge_withdraws(publish: Publish, store: sa.Engine) -> None:
    """Quarantined rows and two versions of one are there, whatever is wrong with them."""
    pipeline.run(SOURCE)
    spoils: list[Callable[[str], str]] = [
        lambda text: text,
        lambda text: text.replace(",3,310115,", ",0,310115,", 7),
        _twice,
    ]
    for month, spoil in enumerate(spoils, start=7):
        publish(spoil(roster(month, range(4 * (month - 6), LISTED))))
        fetched = pipeline.fetch(SOURCE)
        for chunk in fetched["chunks"]:
            pipeline.map_and_gate(fetched["batch"], chunk)
        pipeline.gate_batch(fetched["batch"])
        with store.connect() as connection:
            gated = batches.get(connection, fetched["batch"])
            known = count(store, "SELECT count(*) FROM row_ledger WHERE verdict <> 'withdrawn'")
            assert diff.absent(connection, gated) == diff.Absence(gated.withdrawn, known)
        assert gated.withdrawn >= 4, "shown before anything is merged"
        pipeline.merge(fetched["batch"])
        assert pipeline.publish(fetched["batch"])["withdrawn"] == gated.withdrawn


def test_a_small_roster_may_lose_a_few_and_an_empty_one_needs_a_date(publish: Publish, store: sa.Engine) -> None:
    publish(roster(6, range(5)))
    pipeline.run(SOURCE)
    publish(roster(7, range(1, 5)))
    assert pipeline.run(SOURCE)["withdrawn"] == 1 and held(store) == {1, 2, 3, 4}
    publish(HEADER + "\n")
    _, error = halted()
    assert error.code == "batch-empty-snapshot" and "--as-of" in error.advice("en")
    with pytest.raises(BatchHalted) as caught:
        pipeline.run(SOURCE, as_of="2025-08-01")
    assert review.approve(str(caught.value.values["batch"]), actor="tester")["withdrawn"] == 4
    assert held(store) == set()


@pytest.mark.parametrize(("key", "verdict"), [("3.10E+17", "rejected"), ("", "quarantined")])
def test_a_row_without_its_key_proves_no_absence(publish: Publish, key: str, verdict: str, store: sa.Engine) -> None:
    """Nobody loses what they hold because a spreadsheet ruined their number; the operator reads why."""
    pipeline.run(SOURCE)
    publish(roster(7, range(2, LISTED)).replace("DB310115202400000030", key, 1))
    summary = pipeline.run(SOURCE)
    assert (summary["withdrawn"], summary[verdict]) == (0, 1)
    assert held(store) == set(range(LISTED)), "no holding is numbered 3.10E+17 either"
    assert [(one["code"], one["severity"], one["values"]) for one in summary["findings"]] == [
        ("keyless", "info", {"rows": 1}),
        ("absence-unproven", "info", {"rows": 1}),
    ]
    for lang, sentence in (("en", "Nothing was withdrawn"), ("zh", "未撤回任何数据")):
        shown = CliRunner().invoke(
            cli.app, ["batch", "show", summary["batch"]], env={"YICI_LANG": lang, "COLUMNS": "400"}
        )
        assert shown.exit_code == 0 and sentence in " ".join(shown.stdout.split())

    publish(roster(8, range(2, LISTED)))
    assert pipeline.run(SOURCE)["withdrawn"] == 3, "the next whole snapshot withdraws, the row without its key too"
    assert held(store) == set(range(2, LISTED))


DROPPED = "xx-allowances"


@pytest.fixture
def drop(store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder into which the bureau drops its rosters as files, and a source that watches it."""
    described = tmp_path / "sources" / DROPPED
    shutil.copytree(sources.load(SOURCE).folder, described)
    path = described / "source.yml"
    kept, _, _ = path.read_text(encoding="utf-8").partition("\noptions:")
    lines = [line for line in kept.splitlines() if not line.startswith(("name:", "connector:", "connection:"))]
    named = [f"name: {DROPPED}", "connector: files", "connection: xx-drop"]
    options = f'options: {{pattern: "*.csv", settle_seconds: 0, columns: [{HEADER}]}}'
    path.write_text("\n".join([*named, *lines, options]) + "\n", encoding="utf-8")
    folder = tmp_path / "drop"
    folder.mkdir()
    monkeypatch.setenv("YICI_SOURCES", str(described.parent))
    monkeypatch.setenv("YICI_CONN_XX_DROP", str(folder))
    return folder


def test_the_newest_of_snapshots_fetched_together_takes_the_place_of_the_others(drop: Path, store: sa.Engine) -> None:
    (drop / "05.csv").write_text(roster(5, range(100)), encoding="utf-8")
    assert pipeline.run(DROPPED)["accepted"] == 100
    # June brings some whom July lacks again, and July comes in two parts
    (drop / "b-06.csv").write_text(roster(6, range(110)), encoding="utf-8")
    (drop / "a-07.csv").write_text(roster(7, range(5, 50)), encoding="utf-8")
    (drop / "c-07.csv").write_text(roster(7, range(50, 100)), encoding="utf-8")
    summary = pipeline.run(DROPPED)
    assert (summary["fetched"], summary["unchanged"], summary["accepted"]) == (205, 110, 95)
    assert (summary["withdrawn"], summary["reasons"]) == (5, {"older": 110})
    assert held(store) == set(range(5, 100)), "as July alone after June"
    assert count(store, "SELECT count(*) FROM row_ledger WHERE verdict = 'withdrawn'") == 5


def test_the_guard_counts_what_only_an_older_file_lists(drop: Path, store: sa.Engine) -> None:
    (drop / "05.csv").write_text(roster(5, range(100)), encoding="utf-8")
    pipeline.run(DROPPED)
    (drop / "06.csv").write_text(roster(6, range(100)), encoding="utf-8")
    (drop / "07.csv").write_text(roster(7, range(40)), encoding="utf-8")
    with pytest.raises(BatchHalted) as caught:
        pipeline.run(DROPPED)
    assert (caught.value.code, caught.value.values["withdrawn"]) == ("batch-mass-withdrawal", 60)
    assert review.approve(str(caught.value.values["batch"]), actor="tester")["withdrawn"] == 60
    assert held(store) == set(range(40))


def test_only_what_the_newest_snapshot_cannot_tell_hinders_it(drop: Path, store: sa.Engine) -> None:
    ruined = roster(6, range(100)).replace("DB310115202400000030", "", 1)
    (drop / "05.csv").write_text(roster(5, range(100)), encoding="utf-8")
    pipeline.run(DROPPED)
    (drop / "06.csv").write_text(ruined, encoding="utf-8")
    (drop / "07.csv").write_text(roster(7, range(5, 100)), encoding="utf-8")
    assert pipeline.run(DROPPED)["withdrawn"] == 5
    # August is whole, September is not: both are merged, as one after the other would be
    (drop / "08.csv").write_text(roster(8, range(5, 101)), encoding="utf-8")
    (drop / "09.csv").write_text(ruined.replace("2025-06", "2025-09"), encoding="utf-8")
    summary = pipeline.run(DROPPED)
    assert (summary["withdrawn"], summary["findings"][-1]["code"]) == (0, "absence-unproven")
    assert held(store) == set(range(101))


@pytest.mark.parametrize("spoilt", ["2025年某月", "", "2099-01-01"])
def test_a_snapshot_without_a_readable_time_withdraws_nothing(drop: Path, store: sa.Engine, spoilt: str) -> None:
    """Whose month it is nobody can tell. A time far ahead is none either: it would overtake every snapshot to come."""
    (drop / "06.csv").write_text(roster(6, range(100)), encoding="utf-8")
    pipeline.run(DROPPED)
    before = everything(store)
    listed = count(store, "SELECT extract(epoch FROM listed_as_of) FROM source")
    unsaid = roster(7, range(3, 101)).replace("2025-07-01 00:00:00+08:00", spoilt)
    assert spoilt in unsaid and "2025-07" not in unsaid
    (drop / "07.csv").write_text(unsaid, encoding="utf-8")
    summary = pipeline.run(DROPPED)
    assert (summary["withdrawn"], summary["as_of"], summary["state"]) == (0, None, "merged")
    assert set(range(100)) <= held(store), "nobody is taken off"
    assert count(store, "SELECT extract(epoch FROM listed_as_of) FROM source") == listed
    assert everything(store)[0] == before[0] and 100 not in held(store), "what says no time is older than all that does"
    (drop / "08.csv").write_text(roster(8, range(3, 101)), encoding="utf-8")
    assert pipeline.run(DROPPED)["withdrawn"] == 3, "the next one that says its time does"
    assert held(store) == set(range(3, 101))


def test_one_row_whose_time_cannot_be_read_does_not_hinder_the_others(drop: Path, store: sa.Engine) -> None:
    (drop / "06.csv").write_text(roster(6, range(100)), encoding="utf-8")
    pipeline.run(DROPPED)
    (drop / "07.csv").write_text(roster(7, range(3, 100)).replace("2025-07-01", "2025年某月", 1), encoding="utf-8")
    summary = pipeline.run(DROPPED)
    assert (summary["withdrawn"], summary["as_of"]) == (3, "2025-07-01T00:00:00+08:00")
    assert held(store) == set(range(3, 100)), "the row itself is listed, whatever is wrong with it"


def test_a_file_without_a_time_beside_one_that_has_it(drop: Path, store: sa.Engine) -> None:
    """Fetched together: what only the first one lists is still there, for it may be the newer."""
    (drop / "06.csv").write_text(roster(6, range(100)), encoding="utf-8")
    pipeline.run(DROPPED)
    (drop / "07.csv").write_text(roster(7, range(3, 100)), encoding="utf-8")
    (drop / "what.csv").write_text(roster(7, range(2)).replace("2025-07-01 00:00:00+08:00", "?"), encoding="utf-8")
    assert pipeline.run(DROPPED)["withdrawn"] == 1
    assert held(store) == {0, 1, *range(3, 100)}


def test_a_run_without_a_new_file_succeeds_and_withdraws_nothing(drop: Path, store: sa.Engine) -> None:
    (drop / "06.csv").write_text(roster(6, range(30)), encoding="utf-8")
    pipeline.run(DROPPED)
    before, merged = everything(store), _last_success(store)
    for as_of in (None, "2025-12-01"):
        idle = pipeline.run(DROPPED, as_of=as_of)
        assert (idle["state"], idle["fetched"], idle["withdrawn"], idle["as_of"]) == ("merged", 0, 0, None)
        assert everything(store) == before and _last_success(store) > merged
    (drop / "07.csv").write_text(HEADER + "\n", encoding="utf-8")
    with pytest.raises(BatchHalted) as caught:
        pipeline.run(DROPPED)
    assert caught.value.code == "batch-empty-snapshot", "a delivery came, and it is empty"
    assert everything(store) == before
    with pytest.raises(BatchHalted) as caught:
        pipeline.run(DROPPED, as_of="2025-07-01")
    assert review.approve(str(caught.value.values["batch"]), actor="tester")["withdrawn"] == 30


def _last_success(store: sa.Engine) -> dt.datetime:
    with store.connect() as connection:
        found = connection.scalar(sa.text("SELECT last_success_at FROM source WHERE name = :name"), {"name": DROPPED})
    assert isinstance(found, dt.datetime)
    return found
