"""connectors/source.py: folders of sources are read, checked, and found in several roots."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from connectors import source
from connectors.errors import FatalError, UsageError

VALID = {
    "name": "xx-dept-things",
    "title": {"zh": "事项", "en": "Things"},
    "owner": {"zh": "某局", "en": "A bureau"},
    "region": "310000",
    "legal_basis": {"zh": "条例", "en": "Regulations"},
    "entity": "business-licence",
    "authority": 50,
    "connector": "files",
    "connection": "xx-dept",
    "schedule": None,
    "promise": "P1DT2H",
    "extent": "partial",
    "row_key": ["code"],
    "as_of": {"date": "2020-01-01"},
    "volume": {"max": 10},
}


def write(root: Path, **changes: object) -> Path:
    data = {**VALID, **changes}
    folder = root / str(data["name"])
    folder.mkdir(parents=True)
    (folder / "source.yml").write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    return folder


def test_packaged_sources() -> None:
    found = {item.name: item for item in source.all_sources(source.PACKAGED)}
    assert {
        "sh-ga-residents", "sh-ga-households", "sh-mca-marriages", "sh-amr-enterprises", "js-amr-enterprises",
        "zj-amr-enterprises", "ah-amr-enterprises", "sc-guangan-items",
    } <= set(found)  # fmt: skip
    assert found["sh-ga-households"].row_key == ("hh", "gmsfhm")
    assert found["sh-amr-enterprises"].row_key == ("统一社会信用代码",)
    assert found["sc-guangan-items"].as_of.date == dt.date(2020, 1, 1)
    for name, item in found.items():
        assert item.folder == source.PACKAGED / name
        assert item.contract_files()[0].name == "source.yml"


def test_defaults_and_derived_paths(tmp_path: Path) -> None:
    folder = write(tmp_path)
    item = source.load("xx-dept-things", tmp_path)
    assert item.promise == dt.timedelta(days=1, hours=2)
    assert (item.duplicates, item.volume.times_usual, item.volume.min) == ("quarantine", 10, 0)
    assert isinstance(item.options, source.FilesOptions)
    assert item.options.encodings == ("utf-8", "gb18030")
    assert item.contract_files() == (folder / "source.yml",)
    (folder / "mapping.csv").touch()
    (folder / "checks.yml").touch()
    assert item.contract_files() == (folder / "source.yml", item.mapping_path, item.checks_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"colour": 1}, "colour: unknown key"),
        ({"options": {"colour": 1}}, "options.files.colour: unknown key"),
        ({"extent": "whole"}, "extent"),
        ({"as_of": {}}, "exactly one"),
        ({"as_of": {"date": "2020-01-01", "column": "x"}}, "exactly one"),
        ({"as_of": {"date": "2204-01-01"}}, "and today"),
        ({"as_of": {"date": "1899-12-31"}}, "and today"),
        ({"region": 310000}, "region"),
        ({"promise": "PT0S"}, "longer than zero"),
        ({"schedule": "daily"}, "five fields"),
        ({"row_key": []}, "row_key"),
        ({"authority": 101}, "authority"),
        ({"volume": {"min": 5, "max": 4}}, "`min` is above `max`"),
        ({"options": {"columns": ["name"]}}, "not among options.columns: code"),
        ({"extent": "snapshot", "retracts": {"column": "code", "values": ["x"]}}, "retracts: only for"),
        (
            {
                "extent": "changes",
                "retracts": {"column": "gone", "values": ["x"]},
                "options": {"columns": ["code", "name"]},
            },
            "not among options.columns: gone",
        ),
        ({"options": {"connector": "rest"}}, "beside `options`"),
        ({"options": {"delimiter": "，"}}, "delimiter"),
        ({"options": {"encodings": ["utf-99"]}}, "utf-99"),
        ({"options": {"encodings": ["utf-16"]}}, "utf-16"),
        ({"connector": "carrier-pigeon"}, "carrier-pigeon"),
        ({"connector": "rest", "options": {"path": "/r", "watermark": "w"}}, "options.columns: name every raw column"),
        ({"connector": "hub"}, "options.columns: name every raw column"),
        ({"options": {"format": "jsonl", "columns": []}}, "options.columns: name every raw column"),
        ({"connector": "s3", "options": {"format": "jsonl"}}, "options.columns: name every raw column"),
        ({"connector": "database", "extent": "changes", "options": {"table": "t"}}, "watermark"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    write(tmp_path, **changes)
    with pytest.raises(FatalError) as caught:
        source.load("xx-dept-things", tmp_path)
    assert caught.value.code == "source-invalid"
    assert str(tmp_path / "xx-dept-things" / "source.yml") in caught.value.message("en")
    assert words in caught.value.message("en")
    assert words in caught.value.message("zh")


def test_key_given_twice_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path)
    with (folder / "source.yml").open("a", encoding="utf-8") as stream:
        stream.write("authority: 60\n")
    with pytest.raises(FatalError, match="authority"):
        source.load("xx-dept-things", tmp_path)


@pytest.mark.parametrize("content", ["", "- a\n", "a: [", "\x00"])
def test_broken_yaml(tmp_path: Path, content: str) -> None:
    folder = write(tmp_path)
    (folder / "source.yml").write_text(content)
    with pytest.raises(FatalError) as caught:
        source.all_sources(tmp_path)
    assert caught.value.code == "source-invalid"


def test_name_is_the_folders(tmp_path: Path) -> None:
    write(tmp_path).rename(tmp_path / "other")
    with pytest.raises(FatalError, match="other"):
        source.load("other", tmp_path)


def test_unknown_name_lists_the_known(tmp_path: Path) -> None:
    write(tmp_path)
    for name in ("nope", "../xx-dept-things", ""):
        with pytest.raises(UsageError) as caught:
            source.load(name, tmp_path)
        assert caught.value.exit_code == 2
        assert "xx-dept-things" in caught.value.advice("en")


def test_extra_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two", name="yy-dept-things")
    monkeypatch.setenv("YICI_SOURCES", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    names = [item.name for item in source.all_sources()]
    assert {"xx-dept-things", "yy-dept-things", "sh-ga-residents"} <= set(names)
    assert names == sorted(names)
    assert source.load("yy-dept-things").folder.parent == tmp_path / "two"

    write(tmp_path / "two", name="xx-dept-things")
    with pytest.raises(FatalError) as caught:
        source.all_sources()
    assert caught.value.code == "source-twice"
    monkeypatch.setenv("YICI_SOURCES", str(tmp_path / "absent"))
    with pytest.raises(FatalError) as caught:
        source.all_sources()
    assert caught.value.code == "sources-root-missing"


def test_import_is_light() -> None:
    """The DAG folder imports it at every parse."""
    heavy = {"pandas", "pyarrow", "requests", "httpx", "sqlalchemy", "numpy", "great_expectations"}
    code = f"import sys, connectors.source as s; s.all_sources(); print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_broken_folder_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "source.yml").write_text("name: x\n", encoding="utf-8")
    shutil.copytree(source.PACKAGED / "sh-amr-enterprises", tmp_path / "sh-amr-enterprises")
    sources, broken = source.readable(tmp_path)
    assert [one.name for one in sources] == ["sh-amr-enterprises"]
    assert [error.code for error in broken] == ["source-invalid"]


def test_columns_still_to_be_found_out_are_read_but_agree_on_nothing(tmp_path: Path) -> None:
    write(tmp_path, options={"format": "jsonl", "columns": list(source.UNKNOWN_COLUMNS)})
    options = source.load("xx-dept-things", tmp_path).options
    assert options.columns == ("TODO",) and options.agreed == ()
    write(tmp_path / "more", options={"format": "jsonl", "columns": ["code", "name"]})
    assert source.load("xx-dept-things", tmp_path / "more").options.agreed == ("code", "name")
