"""``yici items`` as a user runs it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from hub import guides, home
from hub.catalogue import published
from hub.cli import app
from mappings import items
from tests.test_cli_lookup import yici


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["items", *arguments], catch_exceptions=False)


def test_list_show_and_compare_as_of_a_day(store: sa.Engine) -> None:
    listed = {entry["item"]: entry for entry in json.loads(run("list", "--json").stdout)}
    assert set(listed) == set(published())
    assert listed["demo-elder-paper-card"]["state"] == "retired"
    assert json.loads(run("show", "demo-home-transfer", "--json", "--on", "2027-07-01").stdout)["version"] == 2
    assert "demo-home-transfer" in run("list").stdout and "marriage" in run("show", "demo-home-transfer").stdout
    with pytest.raises(Exception, match="demo-elder-card"):
        run("show", "demo-elder-paper-card")
    _compare()


def test_check_prints_file_line_and_reason(tmp_path: Path) -> None:
    folder = tmp_path / "items"
    shutil.copytree(items.FOLDER, folder)
    assert json.loads(run("check", "--json").stdout) == {"items": len(published()), "compared": False, "defects": []}
    assert not home.current().path.exists(), "no store is made to compare with"
    path = folder / "demo-elder-card.yml"
    path.write_text(path.read_text(encoding="utf-8").replace("resident-id-card", "moon-permit"), encoding="utf-8")
    shutil.copy(folder / "demo-food-permit.yml", folder / "demo-food-permit@2.yml")
    wrong = yici("items", "check", str(folder))
    assert wrong.returncode == 1
    assert f"{path}:" in wrong.stderr and "there is no material moon-permit" in wrong.stderr
    assert "demo-food-permit@2.yml:3: `code` is demo-food-permit" in wrong.stderr
    told = yici("items", "check", str(folder), "--json")
    assert (told.returncode, [defect["line"] for defect in json.loads(told.stdout)["defects"]][1:]) == (1, [3])
    assert yici("items", "check", str(tmp_path / "none")).returncode == 2


def test_check_names_the_file_of_a_day_that_there_is_not_and_of_one_that_nobody_reads(tmp_path: Path) -> None:
    path, other = tmp_path / "demo-elder-card.yml", tmp_path / "demo-food-permit.yaml"
    text = (items.FOLDER / path.name).read_text(encoding="utf-8")
    path.write_text(re.sub(r"from: \d{4}-\d\d-\d\d", "from: 2024-02-30", text), encoding="utf-8")
    shutil.copy(items.FOLDER / "demo-food-permit.yml", other)
    told = yici("items", "check", str(tmp_path), "--json")
    first, second = json.loads(told.stdout)["defects"]
    assert told.returncode == 1 and (first["file"], second["file"]) == (str(path), str(other))
    assert "2024-02-30" in path.read_text(encoding="utf-8").splitlines()[first["line"] - 1]
    assert first["reason"].startswith("not a date or time") and "not read" in second["reason"]


def test_check_tells_what_would_not_stay_as_it_was_published(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    run("publish")
    assert json.loads(run("check", "--json").stdout)["compared"] is True
    with store.begin() as connection:
        connection.execute(sa.text("UPDATE catalogue_change SET digest = sha256('x') WHERE item = 'demo-elder-card'"))
    told = yici("items", "check", "--json")
    [defect] = json.loads(told.stdout)["defects"]
    assert (told.returncode, defect["file"], defect["line"]) == (1, str(items.FOLDER / "demo-elder-card.yml"), 10)
    assert "published and says something else now" in defect["reason"]
    monkeypatch.setenv("YICI_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    away = yici("items", "check")
    assert away.returncode == 0 and "not compared with what was published" in away.stderr


def test_publish_once_read_the_changes_and_write_a_guide_whole(store: sa.Engine, tmp_path: Path) -> None:
    first = json.loads(run("publish", "--note", "decision 12", "--json").stdout)
    assert len(first) > len(published())
    assert json.loads(run("publish", "--json").stdout) == []
    page = json.loads(run("changes", "--after", "3", "--limit", "2", "--json").stdout)
    assert ([change["position"] for change in page["changes"]], page["next"], page["more"]) == ([4, 5], 5, True)
    assert "demo-elder-paper-card" in run("changes").stdout
    _guide(tmp_path)


def _compare() -> None:
    found = json.loads(run("compare", "--all", "--json").stdout)
    assert (found["items"], found["same_name"]) == ([], [])
    assert {each["requirement"] for each in found["without_basis"]} >= {"marriage"}
    assert "demo-home-transfer" in run("compare", "--all").stdout
    for arguments in ((), ("0000DEMO0010", "--all")):
        with pytest.raises(Exception, match="basic code"):
            run("compare", *arguments)


def _guide(tmp_path: Path) -> None:
    item = published()["demo-food-permit"][-1]
    page, data = tmp_path / "guide.html", tmp_path / "guide.json"
    assert run("guide", "demo-food-permit", "--lang", "zh", "--html", "--out", str(page)).exit_code == 0
    assert run("guide", "demo-food-permit", "--lang", "en", "--out", str(data)).exit_code == 0
    assert (page.read_bytes(), data.read_bytes()) == (guides.html(item, "zh"), guides.json(item, "en"))
    assert [path.name for path in sorted(tmp_path.glob("guide*"))] == ["guide.html", "guide.json"]
    assert run("guide", "demo-food-permit", "--html", "--json").exit_code == 2
    with pytest.raises(Exception, match="demo-none"):
        run("guide", "demo-none")
