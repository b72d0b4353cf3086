"""A source for the deposits of every material, written from the model, and what it reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors import source as sources
from hub import deposit_sources
from mappings import engine, model
from quality import suite

MATERIALS = model.all_materials()


def test_every_material_has_one_that_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YICI_HOME", str(tmp_path / "home"))
    deposit_sources.write_all()
    assert len(MATERIALS) > 10
    for material in MATERIALS:
        described = sources.load(deposit_sources.name(material.code))
        mapping = engine.mapping_of(described)
        filled = {column for line in mapping.lines for column in line.outputs()}
        assert filled == set(material.columns()), material.code
        assert set(mapping.columns()) == set(described.options.columns)
        assert suite.contract_digest(described)
        assert (described.extent, described.authority, described.schedule) == ("changes", 10, None)


def test_they_are_listed_nowhere_and_written_anew_when_the_model_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YICI_HOME", str(tmp_path / "home"))
    material = model.load("premises-proof")
    folder = deposit_sources.write(material)
    assert all(not one.name.startswith(deposit_sources.PREFIX) for one in sources.all_sources())
    path = folder / "mapping.csv"
    before = path.stat().st_mtime_ns
    deposit_sources.write(material)
    assert path.stat().st_mtime_ns == before
    more = {**material.attributes, "floor": material.attributes["right"]}
    deposit_sources.write(material.model_copy(update={"attributes": more}))
    assert "attributes.floor,attributes-floor,text," in path.read_text(encoding="utf-8")
    assert "attributes-floor" in sources.load(folder.name).options.columns


def test_nothing_departments_say_is_weaker() -> None:
    assert all(one.authority > deposit_sources.AUTHORITY for one in sources.all_sources())
