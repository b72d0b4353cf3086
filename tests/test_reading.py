"""connectors/reading.py: landed files of every connector, and the real files."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import orjson
import pyarrow as pa
import pytest

from connectors.block import ROW
from connectors.errors import FatalError
from connectors.landing import Landing
from connectors.reading import blocks
from connectors.source import RestOptions, load
from demo.synthesis import Parameters, synthesise

REAL = {
    "enterprises/2019-上海.csv": ("sh-amr-enterprises", 5537),
    "enterprises/2010-江苏.csv": ("js-amr-enterprises", 10033),
    "enterprises/2019-浙江.csv": ("zj-amr-enterprises", 4309),
    "enterprises/2019-安徽.csv": ("ah-amr-enterprises", 4698),
    "items/guangan_items.csv": ("sc-guangan-items", 651),
}


def whole(source: str, data: bytes, landing: Landing) -> tuple[pa.Table, pa.Table]:
    found = list(blocks(load(source), landing.put(data, "f"), landing))
    return pa.concat_tables(b.table for b in found), pa.concat_tables(b.malformed for b in found)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_real_files(shared_data: Path, tmp_path: Path, name: str, encoding: str) -> None:
    source, rows = REAL[name]
    text = (shared_data / name).read_text(encoding="utf-8")
    landing = Landing(tmp_path)
    table, malformed = whole(source, text.encode(encoding), landing)
    assert (table.num_rows, malformed.num_rows) == (rows, 0)
    assert table.column_names == [*load(source).options.columns, ROW]
    assert table[ROW].to_pylist() == list(range(2, rows + 2))
    assert set(table.schema.types) == {pa.string(), pa.int64()}


def test_real_file_shuffled(shared_data: Path, tmp_path: Path) -> None:
    name = "enterprises/2019-上海.csv"
    header, *lines = (shared_data / name).read_text(encoding="utf-8").splitlines(keepends=True)
    landing = Landing(tmp_path)
    before, _ = whole("sh-amr-enterprises", (header + "".join(lines)).encode(), landing)
    random.Random(5).shuffle(lines)
    after, malformed = whole("sh-amr-enterprises", ("\ufeff" + header + "".join(lines)).encode("gb18030"), landing)
    keys = [(column, "ascending") for column in before.column_names if column != ROW]
    assert malformed.num_rows == 0
    assert before.drop_columns([ROW]).sort_by(keys) == after.drop_columns([ROW]).sort_by(keys)


def test_page_and_extract(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    page, _ = whole("sh-ga-residents", b'{"data": [{"xm": "x", "n": 1.0}], "total": 1}', landing)
    assert page.to_pylist() == [{"xm": "x", "n": "1.0", ROW: 1}]
    extract, _ = whole("sh-mca-marriages", b'djzh,nf_xm\n1,""\n2,\n"a\nb",x\n', landing)
    assert extract.to_pylist() == [
        {"djzh": "1", "nf_xm": "", ROW: 1},
        {"djzh": "2", "nf_xm": None, ROW: 2},
        {"djzh": "a\nb", "nf_xm": "x", ROW: 3},
    ]


def test_many_records_keep_the_block_size(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    body = ",".join(f'{{"a": "{i}"}}' for i in range(1, 26))
    landed = landing.put(f'{{"data": [{body}]}}'.encode(), "p")
    found = list(blocks(load("sh-ga-residents"), landed, landing, block_rows=10))
    assert [block.table.num_rows for block in found] == [10, 10, 5]
    assert [row for block in found for row in block.table[ROW].to_pylist()] == list(range(1, 26))


def test_altered_landing_is_found_while_reading(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    landed = landing.put(b"a,b\n1,2\n", "f.csv")
    (tmp_path / landed.path).write_bytes(b"a,b\n1,3\n")
    with pytest.raises(FatalError) as caught:
        list(blocks(load("sh-amr-enterprises"), landed, landing))
    assert caught.value.code == "landed-file-altered"


@pytest.mark.parametrize(
    ("name", "file"),
    [("sh-ga-residents", "ga/residents"), ("sh-ga-households", "ga/households"), ("sh-moe-degrees", "moe/degrees")],
)
def test_a_rest_source_reads_lines_handed_in_as_it_reads_its_page(tmp_path: Path, name: str, file: str) -> None:
    """As `yici synth` writes them: the same columns and values as in a page of the interface."""
    synthesise(Parameters(200, 20, 1, 0.0), tmp_path / "data")
    lines = (tmp_path / "data" / f"{file}.jsonl").read_bytes()
    source, landing = load(name), Landing(tmp_path / "landing")
    options = source.options
    assert isinstance(options, RestOptions)
    records = lines.splitlines()
    page = orjson.dumps({options.records: [orjson.Fragment(line) for line in records]})
    wanted = pa.concat_tables(b.table for b in blocks(source, landing.put(page, "p.json"), landing))
    for data, ending in ((lines, "jsonl"), (gzip.compress(lines), "JSONL.gz")):
        found = pa.concat_tables(b.table for b in blocks(source, landing.put(data, f"l.{ending}"), landing))
        assert found.select(wanted.column_names).equals(wanted) and set(found.column_names) == set(wanted.column_names)
    assert wanted.num_rows == len(records) > 0
    with pytest.raises(FatalError) as caught:
        list(blocks(source, landing.put(lines, "l.json"), landing))
    assert caught.value.code == "page-not-records" and ".jsonl" in caught.value.advice("en")
