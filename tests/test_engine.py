"""The engine: rows in, as many rows of the exchange model out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from connectors import source as sources
from connectors.errors import FatalError
from connectors.source import Source
from mappings import arrow, engine
from mappings.transforms import Note

COLUMNS = ["企业名称", "统一社会信用代码", "注册日期", "企业类型", "注册资金", "所在省份", "地区"]
GOOD = ["甲公司", "91310117MA1XKY001Q", "2019-01-02", "有限责任公司", "100(万元人民币)", "上海", '松"江\\']
BARE = ["乙公司", "91310117MA1XKY002U", "", "N/A", "", "", ""]


@pytest.fixture(scope="module")
def licences() -> Source:
    return sources.load("sh-amr-enterprises")


def raw(*rows: list[str]) -> pa.Table:
    table = pa.table({name: pa.array([row[place] for row in rows], pa.string()) for place, name in enumerate(COLUMNS)})
    table = table.append_column("_ordinal", pa.array(np.arange(len(rows)) + 7, pa.int64()))
    return table.append_column("_row", pa.array(np.arange(len(rows)), pa.int64()))


def mapped(source: Source, table: pa.Table) -> pa.Table:
    return engine.map_table(source, engine.mapping_of(source), engine.material_of(source), table)


def test_the_exchange_table_has_the_schema_of_the_model(licences: Source) -> None:
    found = mapped(licences, raw(GOOD, BARE))
    for field in arrow.schema(engine.material_of(licences)):
        assert found.schema.field(field.name).type == field.type
    assert found["_ordinal"].to_pylist() == [7, 8]
    assert found["_row"].to_pylist() == [0, 1]


def test_key_and_document(licences: Source) -> None:
    found = mapped(licences, raw(GOOD, BARE))
    assert found["natural_key"].to_pylist() == [GOOD[1], BARE[1]]
    first, second = (json.loads(text) for text in found["document"].to_pylist())
    assert first == {
        "enterprise_type": "有限责任公司",
        "registered_capital": {"amount": "1000000.0000", "currency": "CNY"},
        "registered_on": "2019-01-02",
        "province": "上海市",
        "locality": '松"江\\',
    }
    assert second == {}


def test_a_key_of_two_columns_is_null_when_one_is_missing() -> None:
    source = sources.load("sh-ga-households")
    names = source.options.columns
    rows = [dict.fromkeys(names, "") | {"gmsfhm": "310101198506150024", "hh": hh} for hh in ("H1", "")]
    table = pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in names})
    assert mapped(source, table)["natural_key"].to_pylist() == ["H1\x1f310101198506150024", None]


def test_the_same_row_maps_to_the_same_whatever_stands_around_it(licences: Source) -> None:
    alone = mapped(licences, raw(GOOD)).drop_columns(["_ordinal", "_row"])
    among = mapped(licences, raw(*[BARE] * 500, GOOD, *[BARE] * 500)).drop_columns(["_ordinal", "_row"])
    assert among.slice(500, 1).to_pylist() == alone.to_pylist()
    assert among.num_rows == 1001


def test_no_rows(licences: Source) -> None:
    found = mapped(licences, raw())
    assert found.num_rows == 0
    assert found.schema.field("_flags").type == pa.list_(pa.string())


def test_a_slice_and_chunks_are_mapped_like_a_whole(licences: Source) -> None:
    whole = raw(GOOD, BARE, GOOD, BARE)
    parts = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 3)]).slice(1, 2)
    assert mapped(licences, parts).to_pylist() == mapped(licences, whole).slice(1, 2).to_pylist()


def test_a_missing_column_is_an_error(licences: Source) -> None:
    with pytest.raises(FatalError, match="注册资金"):
        mapped(licences, raw(GOOD).drop_columns(["注册资金"]))


def test_notes_become_lists_in_their_order_each_once() -> None:
    masks = [np.array(bits, dtype=bool) for bits in ([1, 0, 1], [0, 0, 1], [1, 0, 0])]
    notes = [Note("flag", code, mask) for code, mask in zip(("b", "a", "b"), masks, strict=True)]
    assert engine.listed(notes, 3).to_pylist() == [["b"], [], ["b", "a"]]
    assert engine.listed([], 2).to_pylist() == [[], []]


def test_a_link_between_a_person_and_an_organisation_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "cn-samr-conversions"
    shutil.copytree(sources.load(folder.name).folder, folder)
    path = folder / "mapping.csv"
    text = path.read_text(encoding="utf-8").replace("organisation:cn.regno", "person:passport")
    path.write_text(text, encoding="utf-8")
    described = sources.read(folder)
    table = pa.table({name: pa.array([None], pa.string()) for name in described.options.columns})
    table = table.set_column(table.column_names.index("原注册号"), "原注册号", pa.array(["K1234567"]))
    code = table.column_names.index("统一社会信用代码")
    table = table.set_column(code, "统一社会信用代码", pa.array(["91110000600037341L"]))
    table = table.append_column("_ordinal", pa.array([0]))
    assert "holder:kinds-differ" in mapped(described, table)["_errors"].to_pylist()[0]
    alone = table.set_column(code, "统一社会信用代码", pa.nulls(1, pa.string()))
    assert "holder:kinds-differ" not in mapped(described, alone)["_errors"].to_pylist()[0]
    path.write_text(text.replace("person:passport", "organisation:cn.regno"), encoding="utf-8")
    table = table.set_column(table.column_names.index("原注册号"), "原注册号", pa.array(["321200000019530"]))
    assert mapped(sources.read(folder), table)["_errors"].to_pylist() == [[]]


@pytest.mark.parametrize("changed", ["source.yml", "mapping.csv", "checks.yml"])
def test_the_contract_changes_with_each_file_of_the_folder(licences: Source, tmp_path: Path, changed: str) -> None:
    folder = tmp_path / licences.name
    shutil.copytree(licences.folder, folder)
    assert engine.contract_digest(sources.read(folder)) == engine.contract_digest(licences)
    path = folder / changed
    text = path.read_text(encoding="utf-8")
    text = text.replace("the code is exact", "the code is better") if changed == "mapping.csv" else text + "# remark\n"
    path.write_text(text, encoding="utf-8")
    assert engine.contract_digest(sources.read(folder)) != engine.contract_digest(licences)


def test_the_contract_changes_with_the_engine(licences: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    before = engine.contract_digest(licences)
    monkeypatch.setattr(engine, "ENGINE_VERSION", "another")
    assert engine.contract_digest(licences) != before


@pytest.mark.parametrize(
    ("name", "file", "rows"),
    [
        ("sh-amr-enterprises", "2019-上海.csv", 5537),
        ("js-amr-enterprises", "2010-江苏.csv", 10033),
        ("zj-amr-enterprises", "2019-浙江.csv", 4309),
        ("ah-amr-enterprises", "2019-安徽.csv", 4698),
    ],
)
def test_real_registers_map_without_an_error(shared_data: Path, name: str, file: str, rows: int) -> None:
    source = sources.load(name)
    text = pa.csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pa.string()))
    found = mapped(source, pa.csv.read_csv(shared_data / "enterprises" / file, convert_options=text))
    assert found.num_rows == rows
    assert sum(map(len, found["_errors"].to_pylist())) == sum(map(len, found["_rejects"].to_pylist())) == 0
    schemes = found["holder.holder.scheme"].value_counts().to_pylist()
    old = {"js-amr-enterprises": 1041}.get(name, 0)
    assert {item["values"]: item["counts"] for item in schemes} == {"cn.uscc": rows - old} | (
        {"cn.regno": old} if old else {}
    )


def test_a_certificate_whose_roles_are_all_optional_still_has_somebody() -> None:
    titles = sources.load("sh-mnr-titles")
    columns = dict.fromkeys(titles.options.columns, "")
    owners = [
        ("", ""),
        ("12", "身份证"),
        ("3.10E+17", "身份证"),
        ("E12345678", "护照"),
        ("91310117MA1XKY001Q", "统一社会信用代码"),
    ]
    rows = [columns | {"权利人/证件号码": number, "权利人/证件种类": kind} for number, kind in owners]
    found = mapped(titles, pa.Table.from_pylist(rows))
    missing = ["holder:missing" in errors for errors in found["_errors"].to_pylist()]
    assert missing == [True, False, False, False, False], "where the number cannot be read, that is the reason given"
