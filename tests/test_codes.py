"""mappings/codes.py: a source's own code lists go before the shared ones, and belong to its contract."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from connectors import source as sources
from mappings import codes, engine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copied = tmp_path / "sh-ga-households"
    shutil.copytree(sources.PACKAGED / "sh-ga-households", copied)
    return copied


def own(folder: Path, name: str, text: str) -> Path:
    path = folder / "codelists" / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"from,to\n{text}", encoding="utf-8")
    return path


def test_a_list_of_the_source_goes_before_a_shared_one(folder: Path) -> None:
    shared = codes.read("household-status", folder)
    assert shared == codes.read("household-status") and "Q" not in shared
    path = own(folder, "household-status", "Q,suspended\n")
    assert codes.read("household-status", folder) == {"Q": "suspended"}
    assert codes.read("household-status") == shared, "other sources keep the shared one"
    path.write_text("from,to\nQ,revoked\n", encoding="utf-8")
    assert codes.read("household-status", folder) == {"Q": "revoked"}, "a changed file is read again"


def test_a_mapping_can_use_it_and_the_contract_changes_with_it(folder: Path) -> None:
    import pyarrow as pa

    mapping = folder / "mapping.csv"
    mapping.write_text(mapping.read_text(encoding="utf-8").replace("household-status", "own-status"), encoding="utf-8")
    path = own(folder, "own-status", "Q,suspended\n")
    described = sources.read(folder)
    assert "own-status" in engine.mapping_of(described).codelists()
    raw = pa.table({name: pa.array(["Q", "?"]) for name in described.options.columns})
    mapped = engine.map_table(described, engine.mapping_of(described), engine.material_of(described), raw)
    assert mapped.column("status").to_pylist() == ["suspended", None]
    assert "status:unlisted" in mapped.column("_errors").to_pylist()[1]
    before = engine.contract_digest(described)
    path.write_text("from,to\nQ,revoked\n", encoding="utf-8")
    assert engine.contract_digest(described) != before
