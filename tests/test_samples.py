"""hub/samples.py: a sample is read in the form it has, and what is written reads as the same rows again."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlsxwriter

from connectors import source, template
from connectors.errors import UsageError
from connectors.source import Source
from connectors.template import Choice
from hub import samples

ROWS = [["001", "甲", "2020-01-02", ""], ["002", 'a,"b"', "2020-1-3", "x"]]
HEADER = ["编号", "姓名", "日期", "备注"]


def described(tmp_path: Path, connector: str, **edits: str) -> Source:
    folder = tmp_path / "sh-tax-receipts"
    folder.mkdir(exist_ok=True)
    text = template.description(Choice(folder.name, connector), [])
    for key, value in edits.items():
        text = template.replaced(text, f"options.{key}", value)
    (folder / "source.yml").write_text(text, encoding="utf-8")
    return source.read(folder)


def csv_file(path: Path, mark: str = ",", encoding: str = "utf-8") -> Path:
    quoted = [[f'"{cell.replace(chr(34), chr(34) * 2)}"' if '"' in cell else cell for cell in row] for row in ROWS]
    path.write_bytes("".join(mark.join(row) + "\n" for row in [HEADER, *quoted]).encode(encoding))
    return path


def values(table: pa.Table) -> list[dict[str, Any]]:
    return list(table.drop_columns(["_row"]).to_pylist())


EXPECTED = [dict(zip(HEADER, row, strict=True)) for row in ROWS]


@pytest.mark.parametrize(("mark", "encoding", "found"), [
    (",", "utf-8", {}), (",", "gb18030", {}), ("\t", "utf-8", {"delimiter": "\t"}), (";", "utf-8-sig", {"delimiter": ";"}),
])  # fmt: skip
def test_csv_in_any_spelling(tmp_path: Path, mark: str, encoding: str, found: dict[str, object]) -> None:
    sample = samples.read(described(tmp_path, "files"), csv_file(tmp_path / "a.csv", mark, encoding))
    assert sample.found == found and values(sample.table) == EXPECTED
    again = samples.write(sample, sample.table, tmp_path / "a.csv", tmp_path)
    assert values(samples.read(sample.source, again).table) == EXPECTED and again.name == "input.csv"


def test_a_suffix_tells_the_format(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    records = [{"holder": {"id": "1", "name": "甲"}, "no": "7"}, {"holder": {"id": "2", "name": None}, "no": "8"}]
    path.write_bytes(gzip.compress(b"".join(json.dumps(record).encode() + b"\n" for record in records)))
    sample = samples.read(described(tmp_path, "sftp"), path)
    assert sample.found == {"format": "jsonl", "pattern": "*.jsonl"}
    assert sample.table.column("holder.id").to_pylist() == ["1", "2"]
    again = samples.write(sample, sample.table, path, tmp_path)
    assert [json.loads(line) for line in again.read_text(encoding="utf-8").splitlines()] == records


def test_a_merged_header_is_found_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet("册")
        sheet.merge_range(0, 0, 0, 1, "登记")
        sheet.merge_range(0, 2, 1, 2, "备注")
        sheet.write_row(1, 0, ["证号", "证件号码"])
        sheet.write_row(2, 0, ["沪1", 3.1e17, "a"])
        sheet.write_row(3, 0, ["沪2", "310115199503078015", ""])
    sample = samples.read(described(tmp_path, "files"), path)
    assert sample.found == {"format": "xlsx", "pattern": "*.xlsx", "header_rows": 2}
    assert sample.table.column_names == ["登记/证号", "登记/证件号码", "备注", "_row"]
    again = samples.write(sample, sample.table, path, tmp_path)
    reread = samples.read(sample.source, again)
    assert reread.table.equals(sample.table), "the ruined number is one again, and row numbers are the same"
    assert reread.table["_row"].to_pylist() == [3, 4]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    import datetime as dt

    path = tmp_path / "a.parquet"
    table = pa.table(
        {"no": ["1", "2"], "day": pa.array([dt.date(2020, 1, 2), None]), "n": pa.array([1, 2], pa.int32())}
    )
    pq.write_table(table, path)
    sample = samples.read(described(tmp_path, "s3"), path)
    again = samples.write(sample, sample.table, path, tmp_path)
    assert pq.read_table(again).equals(table)


def test_a_page_tells_where_its_records_are(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"data": [{"a": {"b": "1"}}, {"a": {"b": "2"}}], "next_cursor": "x"}), encoding="utf-8")
    sample = samples.read(described(tmp_path, "rest"), path)
    assert sample.found == {"records": "data", "paging": "cursor", "next": "next_cursor"}
    again = samples.write(sample, sample.table, path, tmp_path)
    assert json.loads(again.read_text(encoding="utf-8")) == {"data": [{"a": {"b": "1"}}, {"a": {"b": "2"}}]}


def test_a_database_extract_keeps_null_apart_from_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,\n2,""\n', encoding="utf-8")
    sample = samples.read(described(tmp_path, "database"), path)
    assert sample.table.column("b").to_pylist() == [None, ""]
    again = samples.write(sample, sample.table, path, tmp_path)
    assert samples.read(sample.source, again).table.column("b").to_pylist() == [None, ""]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [("a.doc", b"x", "sample-format"), ("a.csv", b"a,b\n", "sample-unread")],
)
def test_what_cannot_be_a_sample_is_refused(tmp_path: Path, name: str, content: bytes, code: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as refused:
        samples.read(described(tmp_path, "files"), tmp_path / name)
    assert refused.value.code == code and name in str(refused.value)


def test_a_large_sample_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "LOOKED_AT", 1000)
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "".join(f"{n},x\n" for n in range(200_000)), encoding="utf-8")
    read: list[int] = []
    before: Callable[..., Any] = samples.reading.blocks

    def counted(*given: Any) -> Any:
        for block in before(*given):
            read.append(block.table.num_rows)
            yield block

    monkeypatch.setattr(samples.reading, "blocks", counted)
    assert samples.read(described(tmp_path, "files"), path).table.num_rows == 1000
    assert sum(read) < 200_000
