"""Decisions of people on quarantined rows, and what they must not disturb."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors.errors import BatchHalted, RetriableError, UsageError
from hub import database, pipeline, quarantine, review, stages
from hub.cli import app
from tests import licences
from tests.conftest import ROOT
from tests.test_pipeline import SH, count, names

RESIDENT = {
    "xm": "测试甲", "gmsfhm": "11010519491231002X", "xb": "2", "mz": "汉族", "csrq": "1949-12-31", "qfjg": "某分局",
    "xzqh": "310101", "yxqq": "2015-01-01", "yxqz": "2035-01-01", "zt": "有效", "gxsj": "2024-01-01T00:00:00+08:00",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _store(store: sa.Engine) -> None:
    """Every test has an empty store of its own."""


def residents(tmp_path: Path, name: str, *records: dict[str, str]) -> dict[str, Any]:
    path = tmp_path / f"{name}.json"
    page = {"code": 0, "data": list(records), "page": 1, "size": 500, "pages": 1, "total": len(records)}
    path.write_text(json.dumps(page, ensure_ascii=False), encoding="utf-8")
    return pipeline.run("sh-ga-residents", input=path)


def held() -> list[Any]:
    with database.engine().connect() as connection:
        return list(connection.execute(sa.text("SELECT valid_to::text, updated_at::text FROM holding")))


def entries() -> list[int]:
    with database.engine().connect() as connection:
        return sorted(row.id for row in quarantine.listed(connection))


def test_a_released_row_is_read_as_it_came(tmp_path: Path) -> None:
    residents(tmp_path, "odd", RESIDENT | {"zt": "不明"})
    review.release(entries(), actor="tester")
    assert held() == [("2035-01-01", "2023-12-31 16:00:00+00")]


def test_versions_with_their_own_time_do_not_grow_younger_by_being_read_again(tmp_path: Path) -> None:
    other = RESIDENT | {"gmsfhm": "440524188001010014", "csrq": "1880-01-01", "gxsj": "2024-03-01T00:00:00+08:00"}
    newer = RESIDENT | {"yxqz": "2036-01-01", "gxsj": "2024-02-01T00:00:00+08:00"}
    residents(tmp_path, "first", RESIDENT)
    residents(tmp_path, "again", RESIDENT, other)
    assert residents(tmp_path, "newer", newer)["accepted"] == 1
    assert "2036-01-01" in {row.valid_to for row in held()}


def test_two_versions_of_one_row_are_not_released_together(tmp_path: Path) -> None:
    pipeline.run(
        SH, input=licences.write(tmp_path / "a.csv", [licences.row(1), licences.row(1, name="另一名称有限公司")])
    )
    with pytest.raises(UsageError) as refused:
        review.release(entries(), actor="tester")
    assert refused.value.code == "release-conflicting"
    assert count("decision") == 0 and len(entries()) == 2 and names() == {}


def test_a_release_waits_for_a_run_and_supersedes_none(tmp_path: Path) -> None:
    path = licences.write(tmp_path / "a.csv", [*licences.rows(3), licences.row(4, name="")])
    pipeline.run(SH, input=path)
    with stages.alone(SH), pytest.raises(RetriableError):
        review.release(entries(), actor="tester")
    slow = pipeline.fetch(SH, run_id="slow", input=licences.write(tmp_path / "b.csv", licences.rows(9)))
    review.release(entries(), actor="tester")
    for chunk in slow["chunks"]:
        pipeline.map_and_gate(slow["batch"], chunk)
    pipeline.gate_batch(slow["batch"])
    pipeline.merge(slow["batch"])
    assert pipeline.publish(slow["batch"])["accepted"] == 6 and len(names()) == 9


def test_files_delivered_together_count_as_one_by_one(tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    folder.mkdir()
    licences.write(folder / "new.csv", [licences.row(1, name="新名有限公司"), licences.row(2, date="2020-01-01")])
    licences.write(folder / "old.csv", [licences.row(1, name="旧名有限公司"), licences.row(3, date="2019-04-01")])
    summary = pipeline.run(SH, input=folder)
    assert (summary["accepted"], summary["reasons"]) == (3, {"older": 1})
    assert names()[licences.credit_code(1)] == "新名有限公司"
    again = pipeline.run(SH, input=folder / "old.csv")
    assert (again["accepted"], again["quarantined"]) == (0, 0)
    assert names()[licences.credit_code(1)] == "新名有限公司"


def test_many_bad_rows_among_many_unchanged_ones_do_not_halt(tmp_path: Path) -> None:
    pipeline.run(SH, input=licences.write(tmp_path / "a.csv", licences.rows(200)))
    bad = [licences.row(1000 + number, name="") for number in range(20)]
    summary = pipeline.run(SH, input=licences.write(tmp_path / "b.csv", [*licences.rows(200), *bad]))
    assert (summary["unchanged"], summary["quarantined"]) == (200, 20)


def test_the_commands(tmp_path: Path) -> None:
    runner = CliRunner()

    def yici(*words: str, code: int = 0) -> Any:
        done = runner.invoke(app, [*words, "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if code == 0 else None

    path = licences.write(tmp_path / "a.csv", [*licences.rows(3), licences.row(4, name=""), licences.row(5, name="")])
    batch = yici("run", SH, "--input", str(path))["batch"]
    first, second = sorted(entry["id"] for entry in yici("quarantine", "list", "--source", SH))
    assert yici("quarantine", "show", str(first))["row"] == 5
    assert yici("quarantine", "release", str(first), "--note", "seen")[0]["accepted"] == 1
    assert yici("quarantine", "show", str(first))["note"] == "seen"
    assert yici("quarantine", "reject", str(second)) == {"rejected": 1}
    assert yici("quarantine", "list") == []
    assert [entry["state"] for entry in yici("quarantine", "list", "--state", "all")] == ["rejected", "released"]
    assert yici("batch", "show", batch)["files"][0]["name"] == "a.csv"
    assert {item["batch"] for item in yici("batch", "list")} > {batch}
    yici("quarantine", "list", "--state", "bogus", code=2)
    yici("batch", "list", "--state", "bogus", code=2)


def test_a_file_of_another_province_halts(tmp_path: Path) -> None:
    path = licences.write(tmp_path / "a.csv", [licences.row(number, province="江苏") for number in range(30)])
    with pytest.raises(BatchHalted) as halted:
        pipeline.run(SH, input=path)
    assert halted.value.code == "batch-flag-share" and count("holding") == 0
    mixed = [*licences.rows(30), licences.row(40, province="江苏")]
    assert pipeline.run(SH, input=licences.write(tmp_path / "b.csv", mixed))["accepted"] == 31


def test_an_error_is_the_one_json_value(tmp_path: Path) -> None:
    path = tmp_path / "page.csv"
    path.write_text("<html></html>", encoding="utf-8")
    command = [sys.executable, "-m", "hub", "run", SH, "--input", str(path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1 and json.loads(done.stdout)["error"]["code"] == "file-is-html"
    assert "web page" in done.stderr
