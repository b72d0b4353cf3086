"""demo/forms.py: the same records as nested JSON, packed JSON, CSV in old encodings, typed Parquet."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from demo.forms import Csv, Form, JsonLines, Typed

NESTED = {
    "a": {"b": 'say "hello"', "c": {"d": "back\\slash", "e": None}},
    "f": "中文",
    "g": {"h": 12, "i": "1.50"},
}
FLAT = pa.table(
    {"a.b": ['say "hello"'], "a.c.d": ["back\\slash"], "a.c.e": pa.nulls(1, pa.string()), "f": ["中文"], "g.h": ["12"],
     "g.i": ["1.50"]}
)  # fmt: skip


def written(form: Form, path: Path, table: pa.Table, origins: list[int]) -> bytes:
    output = form.open(path)
    output.write(table, lambda lines: lines, np.array(origins), np.arange(len(origins)) + form.first_row)
    output.close()
    return path.read_bytes()


def test_dotted_columns_become_nested_members(tmp_path: Path) -> None:
    raw = written(JsonLines(numbers=("g.h",)), tmp_path / "x.jsonl", FLAT, [0, 0])
    assert [json.loads(line) for line in raw.decode().splitlines()] == [NESTED, NESTED]


@pytest.mark.parametrize("names", [["a"], ["a.b"], ["a.b.c", "a.b.d", "a.e", "f.g.h", "i"], ["a", "b.c", "b.d.e.f"]])
def test_any_nesting_is_json(names: list[str], tmp_path: Path) -> None:
    table = pa.table({name: ["x"] for name in names})
    found = json.loads(written(JsonLines(), tmp_path / "x", table, [0]))

    def leaves(value: object, path: str = "") -> list[str]:
        if not isinstance(value, dict):
            return [path[1:]]
        return [leaf for key, inner in value.items() for leaf in leaves(inner, f"{path}.{key}")]

    assert leaves(found) == names


def test_packed_lines_are_the_plain_ones_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    plain = written(JsonLines(), tmp_path / "x", FLAT, [0])
    packed = [written(JsonLines(packed=True), tmp_path / name, FLAT, [0]) for name in ("y.gz", "z.gz")]
    assert gzip.decompress(packed[0]) == plain and packed[0] == packed[1]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding, marked", [("utf-8", True), ("gb18030", False), ("gb18030", True)])
def test_csv_in_its_encoding(encoding: str, marked: bool, end: str, tmp_path: Path) -> None:
    table = pa.table({"名": ["王𠮷", "a,b"], "值": ["1", ""]})
    raw = written(Csv(("名", "值"), encoding, marked, end), tmp_path / "x.csv", table, [0, 1, 1])
    text = raw.decode(encoding)
    assert text.startswith("\ufeff") == marked and text.count(end) == 4
    rows = list(csv.reader(text.removeprefix("\ufeff").splitlines()))
    assert rows == [["名", "值"], ["王𠮷", "1"], ["a,b", ""], ["a,b", ""]]


def test_parquet_has_types(tmp_path: Path) -> None:
    schema = pa.schema([("day", pa.date32()), ("at", pa.timestamp("us")), ("text", pa.string())])
    table = pa.table({"day": ["2024-02-29"], "at": ["2025-01-02 03:04:05"], "text": pa.nulls(1, pa.string())})
    raw = [written(Typed(schema), tmp_path / name, table, [0, 0]) for name in ("x.parquet", "y.parquet")]
    assert raw[0] == raw[1]
    found = pq.read_table(tmp_path / "x.parquet")
    assert found.schema == schema and found.num_rows == 2 and str(found["day"][1]) == "2024-02-29"
