"""The whole pipeline on a real database: conservation, repeats, order, halts, decisions of people."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connectors import source as sources
from connectors.errors import BatchHalted, FatalError, RetriableError
from hub import database, home, pipeline, quarantine, review
from hub import state as states
from tests import licences

SH = "sh-amr-enterprises"


@pytest.fixture(autouse=True)
def _store(store: sa.Engine) -> None:
    """Every test has an empty store of its own."""


@pytest.fixture
def deliver(tmp_path: Path):
    """Run a source over records written as a file."""
    numbers = iter(range(1000))

    def run(records: list[dict[str, str]], source: str = SH, **options: Any) -> dict[str, Any]:
        path = licences.write(tmp_path / f"delivery-{next(numbers)}.csv", records)
        summary = pipeline.run(source, input=path, **options)
        assert_conserved(summary)
        return summary

    return run


@pytest.fixture
def variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A copy of the Shanghai folder under another name with some lines of source.yml replaced."""

    def make(name: str, **replaced: str) -> str:
        root = tmp_path / "sources"
        folder = root / name
        shutil.copytree(sources.load(SH).folder, folder)
        path = folder / "source.yml"
        text = path.read_text(encoding="utf-8").replace(f"name: {SH}", f"name: {name}")
        for before, after in replaced.items():
            lines = [line for line in text.splitlines() if line.startswith(f"{before}:")]
            assert lines, f"source.yml has no line {before}:"
            text = text.replace(lines[0], f"{before}: {after}")
        path.write_text(text, encoding="utf-8")
        monkeypatch.setenv("YICI_SOURCES", str(root))
        return name

    return make


def assert_conserved(summary: dict[str, Any]) -> None:
    parts = ("unchanged", "accepted", "quarantined", "rejected")
    assert summary["fetched"] == sum(summary[name] for name in parts)


def count(table: str, where: str = "true") -> int:
    with database.engine().connect() as connection:
        return int(connection.scalar(sa.text(f"SELECT count(*) FROM {table} WHERE {where}")) or 0)


def names() -> dict[str, str]:
    """Holder name in force by credit code."""
    with database.engine().connect() as connection:
        query = """SELECT document #>> '{holders,0,value}' AS code, document #>> '{holders,0,name}' AS name FROM held"""
        return {row.code: row.name for row in connection.execute(sa.text(query))}


def state() -> dict[str, str]:
    """All that must not depend on the order of arrival."""
    with states.snapshot(database.engine()) as connection:
        return states.digest(connection)


def test_every_row_ends_somewhere_and_the_file_again_changes_nothing(deliver) -> None:
    records = [
        *licences.rows(6),
        licences.row(7, code=licences.credit_code(7)[:-1] + "?"),
        licences.row(8, code="3.10E+17"),
        licences.row(9, capital="#万人民币"),
    ]
    first = deliver(records)
    assert (first["fetched"], first["accepted"], first["quarantined"], first["rejected"]) == (9, 7, 1, 1)
    before = state()
    again = deliver(licences.shuffled(records))
    assert (again["unchanged"], again["accepted"]) == (9, 0)
    assert state() == before
    assert count("feed") == 7 and count("quarantine", "state = 'open'") == 1


def test_a_changed_row_makes_a_version_and_a_feed_entry(deliver) -> None:
    deliver(licences.rows(4))
    changed = [*licences.rows(3), licences.row(3, name="改名后有限公司", date="2019-09-01")]
    summary = deliver(changed)
    assert (summary["unchanged"], summary["accepted"]) == (3, 1)
    assert names()[licences.credit_code(3)] == "改名后有限公司"
    assert count("holding_version") == 5 and count("holding_version", "recorded_to IS NULL") == 4
    assert count("feed", "change = 'changed'") == 1


def test_feed_positions_have_no_gaps(deliver) -> None:
    deliver(licences.rows(5))
    deliver(licences.rows(5, start=3))
    with database.engine().connect() as connection:
        positions = list(connection.scalars(sa.text("SELECT position FROM feed ORDER BY position")))
    assert positions == list(range(1, 9))


def test_good_bad_good_ends_good(deliver) -> None:
    good = licences.rows(3)
    bad = [*good[:2], licences.row(2, name="")]
    deliver(good)
    held = names()
    assert deliver(bad)["quarantined"] == 1
    assert names() == held, "a bad version does not take away the good one"
    deliver(good)
    assert names() == held and count("quarantine", "state = 'open'") == 0


def test_of_two_versions_of_one_time_the_order_does_not_matter_and_a_later_delivery_decides(deliver) -> None:
    one, other = licences.rows(3), [*licences.rows(2), licences.row(2, name="另一名称有限公司")]
    deliver(one)
    first = deliver(other)
    assert first["accepted"] == 1 and deliver(other)["unchanged"] == 3
    held = names()
    back = deliver(one)
    assert back["accepted"] == 1 and names() == held
    assert first["flags"].get("tied", 0) + back["flags"].get("tied", 0) == 1
    deliver(one, as_of="2020-01-01")
    assert names()[licences.credit_code(2)] == licences.row(2)["企业名称"]
    deliver(other, as_of="2020-01-02")
    assert names()[licences.credit_code(2)] == "另一名称有限公司"


def test_the_order_of_partial_batches_does_not_matter(deliver, postgres_url: str, tmp_path: Path) -> None:
    older = [*licences.rows(4), licences.row(20, date="2019-03-03")]
    newer = [licences.row(1, name="新名有限公司", date="2019-12-01"), licences.row(2, name="", date="2019-12-01")]
    deliver(older)
    deliver(newer)
    one = state()
    with database.engine().begin() as connection:
        tables = "row_ledger, mapped_row, mapped_block, holding, holding_holder, holding_past, feed, quarantine, batch, source"
        connection.execute(sa.text(f"TRUNCATE {tables} CASCADE"))
    deliver(newer)
    deliver(older)
    deliver(newer)
    assert state() == one
    assert names()[licences.credit_code(1)] == "新名有限公司"


def test_repeats_inside_a_batch_are_unchanged_and_conflicts_are_quarantined(deliver) -> None:
    records = [*licences.rows(3), licences.row(0), licences.row(1, name="另一名称有限公司")]
    summary = deliver(records)
    assert summary["reasons"] == {"repeated": 1, "conflicting-duplicate": 2}
    assert (summary["accepted"], summary["unchanged"], summary["quarantined"]) == (2, 1, 2)
    assert licences.credit_code(1) not in names()
    again = deliver(records)
    assert again["unchanged"] == 5 and count("quarantine", "state = 'open'") == 2
    solved = deliver(licences.rows(3))
    assert solved["accepted"] == 1 and count("quarantine", "state = 'open'") == 0


def test_numbers_that_a_spreadsheet_ruined_are_no_conflict_with_each_other(deliver) -> None:
    ruined = [licences.row(number, code="9.13E+17") for number in range(3)]
    summary = deliver([*licences.rows(3, start=10), *ruined])
    assert summary["rejected"] == 3 and "conflicting-duplicate" not in summary["reasons"]
    assert deliver(licences.shuffled(ruined))["unchanged"] == 3


def test_conflicts_halt_where_the_source_says_so(deliver, variant) -> None:
    name = variant("xx-halting", duplicates="halt")
    with pytest.raises(BatchHalted) as halted:
        deliver([*licences.rows(2), licences.row(1, name="另一名称有限公司")], source=name)
    assert halted.value.exit_code == 3 and count("holding") == 0 and count("row_ledger") == 0


def test_the_latest_of_conflicting_rows_wins_where_the_source_says_so(deliver, variant) -> None:
    name = variant("xx-latest", duplicates="latest")
    records = [licences.row(1, name="旧名", date="2019-01-01"), licences.row(1, name="新名", date="2019-02-01")]
    summary = deliver(records, source=name)
    assert (summary["accepted"], summary["reasons"]) == (1, {"older": 1})
    assert names() == {licences.credit_code(1): "新名"}


def test_a_key_in_another_spelling_is_the_same_row(deliver) -> None:
    deliver([licences.row(5)])
    other = licences.row(5, code=licences.credit_code(5).lower(), date="2019-12-12")
    assert deliver([other])["accepted"] == 1
    assert count("observation") == 1 and count("holding") == 1


def test_malformed_lines_are_rejected_with_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    lines = licences.text(licences.rows(3)).splitlines()
    lines.insert(2, "只有,两列")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    summary = pipeline.run(SH, input=path)
    assert (summary["fetched"], summary["accepted"], summary["rejected"]) == (4, 3, 1)
    with database.engine().connect() as connection:
        entry = quarantine.listed(connection, state=None)[0]
        shown = quarantine.show(connection, entry.id)
    assert (shown["file"], shown["row"], shown["verdict"]) == ("some.csv", 3, "rejected")
    assert shown["raw"].strip() == "只有,两列"
    assert pipeline.run(SH, input=path)["unchanged"] == 4


def test_rows_keep_file_and_row_number(deliver) -> None:
    deliver(licences.rows(4))
    with database.engine().connect() as connection:
        query = """SELECT o."row" FROM observation AS o JOIN holding AS h ON h.key = o.holding
            WHERE o.document #>> '{holders,0,value}' = :code"""
        assert connection.scalar(sa.text(query), {"code": licences.credit_code(0)}) == 2


def test_a_truncated_file_fails_and_leaves_the_store(deliver, tmp_path: Path) -> None:
    deliver(licences.rows(3))
    before = state()
    path = tmp_path / "cut.csv"
    path.write_bytes(licences.text(licences.rows(50)).encode()[:-40])
    with pytest.raises(FatalError, match=r"cut\.csv"):
        pipeline.run(SH, input=path)
    assert state() == before
    assert deliver(licences.rows(4))["accepted"] == 1


def test_a_file_without_its_last_line_end_is_flagged(tmp_path: Path) -> None:
    path = tmp_path / "perhaps-cut.csv"
    path.write_bytes(licences.text(licences.rows(3)).encode()[:-4])  # 松 is left of 松江
    summary = pipeline.run(SH, input=path)
    assert (summary["accepted"], summary["flags"]) == (3, {pipeline.OPEN_END: 1})


def test_a_halted_batch_cannot_be_approved_after_a_newer_one_was_merged(deliver) -> None:
    deliver(licences.rows(150))
    with pytest.raises(BatchHalted) as halted:
        deliver(licences.rows(1600))
    batch = str(halted.value.values["batch"])
    summary = deliver(licences.rows(151))
    assert summary["findings"] == [{"code": "halted-superseded", "severity": "warn", "values": {"batches": batch}}]
    assert deliver(licences.rows(151))["findings"] == []
    with pytest.raises(FatalError) as refused:
        review.approve(batch, actor="tester")
    assert refused.value.code == "batch-state"
    assert f"`yici run {SH} --input delivery-1.csv`" in refused.value.advice("en"), "it is under no cursor"


def test_a_superseded_batch_of_the_source_itself_is_brought_by_a_run(tmp_path: Path, deliver, monkeypatch) -> None:
    monkeypatch.setenv("YICI_CONN_SH_AMR", str(tmp_path))
    path = licences.write(tmp_path / "some.csv", licences.rows(5))
    os.utime(path, (0, 0))
    slow = pipeline.fetch(SH, run_id="slow")
    deliver(licences.rows(6))
    with pytest.raises(FatalError) as refused:
        pipeline.merge(slow["batch"])
    assert (refused.value.code, refused.value.values["run"]) == ("batch-state", f"yici run {SH}")


def test_an_empty_partial_batch_is_a_success_with_zeros(deliver) -> None:
    summary = deliver([])
    assert summary["state"] == "merged" and summary["fetched"] == 0


def test_a_snapshot_withdraws_what_it_lacks_and_never_when_empty(deliver, variant) -> None:
    name = variant("xx-snapshot", extent="snapshot")
    deliver([*licences.rows(20), licences.row(30, date="2019-05-05")], source=name)
    newer = [*licences.rows(19), licences.row(31, date="2019-06-06")]
    summary = deliver(newer, source=name)
    assert summary["withdrawn"] == 2
    assert set(names()) == {*(licences.credit_code(number) for number in range(19)), licences.credit_code(31)}
    assert count("feed", "change = 'withdrawn'") == 2
    before = state()
    with pytest.raises(BatchHalted):
        deliver([], source=name)
    assert state() == before
    back = deliver([*newer, licences.row(19, date="2019-07-07")], source=name)
    assert back["accepted"] == 1 and licences.credit_code(19) in names()


def test_a_withdrawn_row_comes_back_with_a_later_snapshot_and_with_no_earlier_one(deliver, variant) -> None:
    name = variant("xx-snapshot", extent="snapshot")
    first, mark = licences.rows(5), {number: licences.row(90, date=f"2019-0{number}-25") for number in (5, 6, 7)}
    deliver([*first, mark[5]], source=name)
    assert deliver([*first[1:], mark[6]], source=name)["withdrawn"] == 1
    deliver([*first, mark[5]], source=name)
    assert licences.credit_code(0) not in names(), "the later snapshot lacks it"
    assert deliver([*first, mark[7]], source=name)["accepted"] == 2
    assert licences.credit_code(0) in names(), "the same bytes again, held again"
    assert count("feed", "change = 'added'") == 7


def test_an_older_snapshot_that_arrives_late_withdraws_nothing(deliver, variant) -> None:
    name = variant("xx-snapshot", extent="snapshot")
    deliver([*licences.rows(5), licences.row(30, date="2019-06-06")], source=name)
    held = names()
    assert deliver(licences.rows(2), source=name)["withdrawn"] == 0
    assert names() == held


def test_releasing_a_row_lets_exactly_this_version_pass(deliver) -> None:
    wrong = licences.credit_code(3)
    wrong = wrong[:-1] + ("0" if wrong[-1] != "0" else "1")
    deliver([*licences.rows(2), licences.row(3, code=wrong)])
    with database.engine().connect() as connection:
        entry = quarantine.listed(connection)[0].id
    summary = review.release([entry], actor="tester", note="seen on paper")[0]
    assert (summary["fetched"], summary["accepted"]) == (1, 1)
    assert wrong in names() and count("quarantine", "state = 'open'") == 0
    again = deliver([*licences.rows(2), licences.row(3, code=wrong)])
    assert again["unchanged"] == 3
    worse = deliver([licences.row(3, code=wrong, capital="-1", name="")])
    assert worse["quarantined"] == 1, "the release was for another version"
    with pytest.raises(FatalError) as refused:
        review.release([entry], actor="tester")
    assert refused.value.code == "quarantine-decided"


def test_rows_of_megabytes_are_released(deliver) -> None:
    long = [licences.row(number, name="", place="松" * 900_000) for number in (1, 3)]
    deliver([*licences.rows(1), long[0], licences.row(2, name=""), long[1]])
    with database.engine().connect() as connection:
        entries = [row.id for row in quarantine.listed(connection)]
    assert review.release(entries, actor="tester")[0]["accepted"] == 3
    assert count("held", "length(document #>> '{attributes,locality}') = 900000") == 2


def test_rows_from_before_and_after_a_column_came_are_released_together(deliver, variant, tmp_path: Path) -> None:
    name = variant("xx-wider")
    deliver([licences.row(1, name=""), *licences.rows(1)], source=name)
    described = sources.load(name)
    widened = (
        (described.folder / "source.yml").read_text(encoding="utf-8").replace("所在省份, 地区]", "所在省份, 备注]")
    )
    (described.folder / "source.yml").write_text(widened, encoding="utf-8")
    mapping = described.mapping_path.read_text(encoding="utf-8").replace(",地区,", ",备注,")
    described.mapping_path.write_text(mapping, encoding="utf-8")
    path = tmp_path / "wider.csv"
    text = licences.text([licences.row(2, name="", place="有备注")]).replace("地区", "备注")
    path.write_text(text, encoding="utf-8")
    pipeline.run(name, input=path)
    with database.engine().connect() as connection:
        old, new = (row.id for row in reversed(quarantine.listed(connection)))
        raw = quarantine.raw_rows(connection, [old, new])
    assert raw["地区"].to_pylist() == ["松江", None] and raw["备注"].to_pylist() == [None, "有备注"]
    assert review.release([old, new], actor="tester")[0]["accepted"] == 2
    assert count("held") == 3


def test_releasing_one_of_two_conflicting_rows_settles_both(deliver) -> None:
    deliver([licences.row(1), licences.row(1, name="另一名称有限公司")])
    with database.engine().connect() as connection:
        entries = {quarantine.show(connection, row.id)["row"]: row.id for row in quarantine.listed(connection)}
    review.release([entries[3]], actor="tester")
    assert names() == {licences.credit_code(1): "另一名称有限公司"}
    assert count("quarantine", "state = 'open'") == 0


def test_rejecting_a_row_closes_it(deliver) -> None:
    deliver([*licences.rows(2), licences.row(3, name="")])
    with database.engine().connect() as connection:
        entry = quarantine.listed(connection)[0].id
    assert review.reject([entry], actor="tester") == 1
    assert deliver([licences.row(3, name="")])["unchanged"] == 1
    assert count("quarantine", "state = 'open'") == 0 and count("decision", "kind = 'reject'") == 1


def test_a_retried_task_continues_its_batch(tmp_path: Path) -> None:
    path = licences.write(tmp_path / "some.csv", licences.rows(5))
    first = pipeline.fetch(SH, run_id="run-1", input=path)
    again = pipeline.fetch(SH, run_id="run-1", input=path)
    assert again["batch"] == first["batch"]
    for chunk in again["chunks"] * 2:
        pipeline.map_and_gate(again["batch"], chunk)
    for stage in (pipeline.gate_batch, pipeline.gate_batch, pipeline.merge, pipeline.merge, pipeline.publish):
        stage(again["batch"])
    summary = pipeline.publish(again["batch"])
    assert summary["accepted"] == 5 and count("holding_version") == 5 and count("feed") == 5
    assert pipeline.fetch(SH, run_id="run-1", input=path) == {"batch": first["batch"], "chunks": []}


def test_a_batch_that_another_overtook_is_not_merged(tmp_path: Path, deliver) -> None:
    path = licences.write(tmp_path / "some.csv", licences.rows(5))
    slow = pipeline.fetch(SH, run_id="slow", input=path)
    deliver(licences.rows(6))
    with pytest.raises((FatalError, RetriableError)):
        for chunk in slow["chunks"]:
            pipeline.map_and_gate(slow["batch"], chunk)
        pipeline.gate_batch(slow["batch"])
        pipeline.merge(slow["batch"])
    assert count("holding") == 6 and count("feed") == 6


def test_a_changed_contract_maps_unchanged_rows_again(deliver, variant) -> None:
    name = variant("xx-changing")
    records = [*licences.rows(3), licences.row(4, name="")]
    deliver(records, source=name)
    checks = sources.load(name).checks_path
    checks.write_text(checks.read_text(encoding="utf-8") + "\n# another contract\n", encoding="utf-8")
    summary = deliver(records, source=name)
    assert (summary["accepted"], summary["quarantined"], summary["unchanged"]) == (3, 1, 0)
    assert count("quarantine", "state = 'open'") == 1 and count("feed") == 3


def test_an_old_file_under_a_new_contract_does_not_make_its_rows_older(deliver, variant) -> None:
    name = variant("xx-changing")
    kept = licences.row(1, capital="1(万元人民币)", date="2019-01-01")
    old = [kept, licences.row(2, date="2019-04-01")]
    deliver(old, source=name)
    deliver([kept, licences.row(3, date="2020-01-01")], source=name)
    checks = sources.load(name).checks_path
    checks.write_text(checks.read_text(encoding="utf-8") + "\n# another contract\n", encoding="utf-8")
    deliver(old, source=name)
    between = licences.row(1, capital="9(万元人民币)", date="2019-06-01")
    assert deliver([between], source=name)["reasons"] == {"older": 1}


def test_a_snapshot_with_unreadable_lines_withdraws_nothing(deliver, variant, tmp_path: Path) -> None:
    name = variant("xx-snapshot", extent="snapshot")
    deliver(licences.rows(10), source=name)
    path = tmp_path / "torn.csv"
    lines = licences.text([*licences.rows(8), licences.row(30, date="2019-08-08")]).splitlines()
    path.write_text("\n".join([*lines[:3], "半行", *lines[3:]]) + "\n", encoding="utf-8")
    assert pipeline.run(name, input=path)["withdrawn"] == 0 and len(names()) == 11


def test_a_snapshot_with_a_conflict_does_not_withdraw_the_row(deliver, variant) -> None:
    name = variant("xx-snapshot", extent="snapshot")
    deliver(licences.rows(10), source=name)
    newer = [*licences.rows(10), licences.row(1, name="另一名称有限公司"), licences.row(30, date="2019-08-08")]
    assert deliver(newer, source=name)["withdrawn"] == 0
    assert licences.credit_code(1) in names()


def test_working_files_are_gone_after_a_run(deliver) -> None:
    deliver(licences.rows(3))
    assert list(home.current().work.iterdir()) == []
