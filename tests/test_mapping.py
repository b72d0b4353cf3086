"""mapping.csv: what is refused, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.errors import FatalError
from mappings import codes, mapping, model

LICENCE = model.load("business-licence")
GOOD = [
    "field,from,transform,note",
    "holder.holder,code,organisation,",
    "holder.holder.name,name,text,",
    "status,=in_force,status,",
    "-,junk,,nobody knows what it means",
]


def written(tmp_path: Path, lines: list[str]) -> Path:
    path = tmp_path / "mapping.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_good_mapping(tmp_path: Path) -> None:
    found = mapping.read(written(tmp_path, GOOD), LICENCE, ["code", "name", "junk"])
    assert found.columns() == ("code", "name", "junk")
    assert found.ignored == ("junk",)
    assert found.lines[0].outputs() == ("holder.holder.scheme", "holder.holder.value")
    assert found.lines[2].constant == "in_force"


def test_a_column_left_over_is_named(tmp_path: Path) -> None:
    with pytest.raises(FatalError) as caught:
        mapping.read(written(tmp_path, GOOD), LICENCE, ["code", "name", "junk", "phone"])
    assert caught.value.code == "mapping-column-unaccounted"
    assert "phone" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("attributes.colour,name,text,", "no field attributes.colour"),
        ("region,name,geography,", "unknown transform"),
        ("issued_on,name,text,", "of type date, text yields string"),
        ("attributes.province,name,code:planets,", "no code list planets"),
        ("attributes.province,name,code,", "no code list None"),
        ("attributes.province,name,code:regions,", "no code list regions"),
        ("holder.holder.name,name,text,", "already filled by line 3"),
        ("holder.owner,name,organisation,", "no holder"),
        ("holder.holder,name,person,", "no holder"),
        ("holder.holder,name,organisation:cn.ric,", "no holder of business-licence has the scheme"),
        ("name,title,text,", "not among the source's columns: title"),
        ("issued_on,name|code,date,", "takes 1 column"),
        ("issued_on,name,date:iso,", "date knows the parameter serial, not iso"),
        ("region,name,region:moon,", "region knows the parameter"),
        ("-,name,,", "needs a note"),
        ("-,name,,twice over", "both mapped and ignored: name"),
        ("name,,text,", "`from` is empty"),
        ("name,code,text", "3 columns instead of 4"),
    ],
)
def test_a_faulty_line_is_refused_with_its_reason(tmp_path: Path, line: str, reason: str) -> None:
    path = written(tmp_path, [*GOOD, line])
    with pytest.raises(FatalError) as caught:
        mapping.read(path, LICENCE, ["code", "name", "junk"])
    assert caught.value.code == "mapping-invalid"
    assert reason in caught.value.message("en")
    assert str(path) in caught.value.message("zh")


def test_the_natural_key_must_be_filled(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match=r"natural key: holder\.holder\.value"):
        mapping.read(written(tmp_path, [GOOD[0], *GOOD[2:]]), LICENCE)


def test_a_missing_file_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match=r"mapping\.csv"):
        mapping.read(tmp_path / "mapping.csv", LICENCE)


def test_every_code_list_can_be_read() -> None:
    names = [path.stem for path in codes.FOLDER.glob("*.csv") if codes.exists(path.stem)]
    assert len(names) >= 7
    assert all(codes.read(name) for name in names)


@pytest.mark.parametrize("name", [p.stem for p in codes.FOLDER.glob("*-status.csv")])
def test_status_lists_lead_to_known_statuses(name: str) -> None:
    assert set(codes.read(name).values()) <= set(model.STATUSES)


def test_a_faulty_code_list_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "FOLDER", tmp_path)
    (tmp_path / "twice.csv").write_text("from,to\n1,a\n1,b\n", encoding="utf-8")
    with pytest.raises(FatalError, match="line 3"):
        codes.read("twice")


def test_dates_know_one_parameter(tmp_path: Path) -> None:
    assert (
        mapping.read(written(tmp_path, [*GOOD, "issued_on,on,date:serial,"]), LICENCE).lines[-1].parameter == "serial"
    )
