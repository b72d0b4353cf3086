"""hub/onboarding.py: a folder from nothing, filled in from a sample, run end to end with nothing else touched."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connectors import source as sources
from connectors import template
from connectors.errors import FatalError, UsageError
from connectors.template import Choice
from hub import contracts, onboarding
from mappings import engine
from tests import licences
from tests.conftest import ROOT

NAME = "sh-tax-licences"
DAG = """
import sys
from airflow.utils.db import initdb
initdb()
from airflow.__main__ import main
sys.argv = ["airflow", "dags", "test", sys.argv[1]]
main()
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "sources"
    place.mkdir()
    monkeypatch.setenv("YICI_SOURCES", str(place))
    monkeypatch.setenv("YICI_LANG", "en")
    return place


@pytest.fixture
def delivery(tmp_path: Path) -> Path:
    path = licences.write(tmp_path / "2019.csv", licences.rows(30), encoding="gb18030")
    os.utime(path, (1_700_000_000, 1_700_000_000))  # long settled
    return path


def begun(root: Path, connector: str = "files", **choice: Any) -> Path:
    return onboarding.new(Choice(NAME, connector, **{"entity": "business-licence", **choice}), root)


def decided(folder: Path) -> None:
    """What only a person can say."""
    path = folder / "source.yml"
    text = re.sub("TODO:? ?", "", path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    mapping = folder / "mapping.csv"
    mapping.write_text(mapping.read_text(encoding="utf-8").replace("TODO ", ""), encoding="utf-8")


@pytest.mark.parametrize("connector", template.OPTIONS)
def test_a_new_folder_is_a_source_at_once(root: Path, connector: str) -> None:
    folder = begun(root, connector, entity=None)
    assert sources.load(NAME).connector == connector
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {
        "source.yml",
        "mapping.csv",
        "checks.yml",
        "README.md",
    }
    assert not [finding for finding in contracts.check(folder) if finding.check == "description" and finding.ok]
    assert list(root.iterdir()) == [folder], "no draft stays behind"


def test_a_source_of_a_partner_hub_is_mapped_from_the_start(root: Path) -> None:
    folder = begun(root, "hub", entity=None)
    described = sources.read(folder)
    assert described.entity == "index-entry" and described.duplicates == "latest"
    assert set(engine.mapping_of(described).columns()) == set(described.options.columns)
    with pytest.raises(UsageError, match="nothing to infer"):
        onboarding.infer(folder, folder / "source.yml")


def test_what_cannot_be_begun_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[tuple[Choice, type[Exception], str]] = [
        (Choice("SH_Tax", "files"), UsageError, "Lower-case"),
        (Choice("a--b", "files"), UsageError, "hyphens"),
        (Choice("../sh-tax", "files"), UsageError, "cannot be the name"),
        (Choice(NAME, "ftp"), UsageError, "rest, database"),
        (Choice(NAME, "files", entity="licence"), FatalError, "business-licence"),
        (Choice(NAME, "files", region="31"), UsageError, "six digits"),
        (Choice("sh-ga-residents", "files"), UsageError, "already"),
    ]
    for choice, kind, words in refused:
        with pytest.raises(kind, match=words):
            onboarding.new(choice, root)
    begun(root)
    before = (root / NAME / "source.yml").read_bytes()
    with pytest.raises(UsageError, match="already"):
        begun(root)
    assert (root / NAME / "source.yml").read_bytes() == before

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(FatalError, match="No space"):
        onboarding.new(Choice("sh-tax-others", "files"), root)
    assert [path.name for path in root.iterdir()] == [NAME]


def test_where_a_source_goes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert onboarding.root(tmp_path / "given") == tmp_path / "given"
    assert onboarding.root() == root and onboarding.seen(root)
    monkeypatch.delenv("YICI_SOURCES")
    assert onboarding.root() == sources.PACKAGED, "this is a checkout"
    monkeypatch.setattr(sources, "PACKAGED", tmp_path / "site-packages" / "connectors" / "sources")
    monkeypatch.chdir(tmp_path)
    assert onboarding.root() == tmp_path / "sources", "never into an installed package"
    assert not onboarding.seen(tmp_path / "other")


def test_a_sample_fills_the_folder(root: Path, delivery: Path) -> None:
    folder = begun(root)
    done = onboarding.infer(folder, delivery, rows=10)
    described = sources.read(folder)
    assert described.options.columns == licences.HEADER and described.row_key == ("统一社会信用代码",)
    assert described.as_of.column == "注册日期"
    assert {change.state for change in done.changes} == {"written"} and done.rows == 30
    assert set(engine.mapping_of(described).columns()) == set(licences.HEADER)
    text = (folder / "sample" / "input.csv").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 11 and not any(licences.credit_code(n) in text for n in range(30))
    assert not any(f"上海示例{number}号" in text for number in range(30))
    decided(folder)
    assert contracts.expect(sources.read(folder)) == (10, 0)
    assert [finding.check for finding in contracts.check(folder) if not finding.ok] == ["coverage"]


def test_edits_stay(root: Path, delivery: Path) -> None:
    folder = begun(root)
    onboarding.infer(folder, delivery)
    again = onboarding.infer(folder, delivery)
    assert {change.state for change in again.changes} == {"unchanged"} and again.sample is None
    for name, before, after in (
        ("mapping.csv", "企业类型,text,by its name", "企业类型,words,a digit slipped in"),
        ("source.yml", "row_key: [统一社会信用代码]", "row_key: [企业名称]"),
        ("checks.yml", "max_bad_share: 0.5", "max_bad_share: 0.1"),
    ):
        path = folder / name
        assert before in path.read_text(encoding="utf-8")
        path.write_text(path.read_text(encoding="utf-8").replace(before, after), encoding="utf-8")
    written = {path.name: path.read_bytes() for path in folder.glob("*.*")}
    done = onboarding.infer(folder, delivery)
    assert {change.path.name: change.state for change in done.changes} == {
        "source.yml": "unchanged", "mapping.csv": "kept", "checks.yml": "kept",
    }  # fmt: skip
    (kept,) = [change for change in done.changes if change.path.name == "mapping.csv"]
    assert any("words" in line for line in kept.diff) and any("by its name" in line for line in kept.diff)
    assert {path.name: path.read_bytes() for path in folder.glob("*.*")} == written
    onboarding.infer(folder, delivery, force=True)
    assert sources.read(folder).row_key == ("统一社会信用代码",)
    assert "by its name" in (folder / "mapping.csv").read_text(encoding="utf-8")


def test_an_entity_is_asked_for_once(root: Path, delivery: Path) -> None:
    folder = begun(root, entity=None)
    with pytest.raises(UsageError, match="business-licence"):
        onboarding.infer(folder, delivery)
    onboarding.infer(folder, delivery, entity="business-licence")
    assert sources.read(folder).entity == "business-licence"


def test_codes_nobody_knows_become_a_list_beside_the_mapping(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "permits.csv"
    with path.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(["jzzbh", "sfzh", "zt"])
        writer.writerows([[f"JZ{n:04}", "310115199503078015", "QW"[n % 2]] for n in range(12)])
    folder = begun(root, entity="residence-permit")
    done = onboarding.infer(folder, path)
    lists = folder / "codelists" / "status.csv"
    assert lists.read_text(encoding="utf-8") == "from,to\nQ,TODO\nW,TODO\n"
    assert {f"codelists/status.csv:{line}" for line in (2, 3)} <= set(done.open)
    assert sources.read(folder).as_of.date, "no column tells it: the folder can be read, and the point is open"
    lists.write_text("from,to\nQ,in_force\nW,cancelled\n", encoding="utf-8")
    decided(folder)
    accepted, _ = contracts.outcome(sources.read(folder))
    assert [row["status"] for row in accepted[:2]] == ["in_force", "cancelled"]


@pytest.mark.slow
def test_a_folder_dropped_into_a_root_runs_with_nothing_else_touched(
    store: sa.Engine, root: Path, delivery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed, checked, run by hand, then by Airflow's own DAG of it: rows end as holdings in a real store."""
    from connectors import connect
    from hub import pipeline

    folder = begun(root)
    onboarding.infer(folder, delivery)
    decided(folder)
    drop = tmp_path / "drop"
    drop.mkdir()
    delivery.rename(drop / delivery.name)
    monkeypatch.setenv("YICI_CONN_SH_TAX", str(drop))
    assert NAME in {described.name for described in sources.all_sources()}
    assert all(step.ok for step in connect.check(sources.load(NAME)))
    summary = pipeline.run(NAME)
    assert (summary["state"], summary["fetched"], summary["accepted"]) == ("merged", 30, 30)

    more = licences.write(drop / "2020.csv", licences.rows(5, start=40))
    os.utime(more, (1_700_000_000, 1_700_000_000))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", DAG, NAME], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    with store.connect() as connection:
        last = connection.execute(sa.text("SELECT run_id, state, accepted FROM batch ORDER BY started_at DESC")).first()
        held = connection.scalar(sa.text("SELECT count(*) FROM holding"))
    assert last is not None and last.run_id.startswith("manual__") and (last.state, last.accepted) == ("merged", 5)
    assert held == 35
    assert not any(licences.credit_code(number) in done.stdout + done.stderr for number in (0, 40))


def test_the_description_is_json_as_well(root: Path, delivery: Path) -> None:
    """What infer did can be printed as one value: paths, states and places, nobody's values."""
    done = onboarding.infer(begun(root), delivery)
    text = json.dumps([str(done.changes), done.masked, done.open], ensure_ascii=False)
    assert licences.credit_code(0) not in text and "上海示例0号" not in text
