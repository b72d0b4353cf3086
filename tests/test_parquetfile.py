"""connectors/parquetfile.py: typed columns become text that reads back as the same."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors import parquetfile
from connectors.block import Block
from connectors.errors import FatalError
from connectors.landing import Landing
from connectors.source import FilesOptions
from mappings import identifiers

OPTIONS = FilesOptions(format="parquet", pattern="*.parquet")


def written(table: pa.Table, **options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


def read(content: bytes, block_rows: int = 65536) -> list[Block]:
    return list(parquetfile.blocks(lambda: io.BytesIO(content), "x.parquet", OPTIONS, block_rows))


def text(values: Any, kind: pa.DataType | None = None) -> list[str | None]:
    """What one column becomes."""
    (block,) = read(written(pa.table({"v": pa.array(values, kind)})))
    return block.table["v"].to_pylist()


MOMENT = dt.datetime(2025, 3, 1, 12)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["甲", "", None], pa.string(), ["甲", "", None]),
        (["a", "b", "a"], pa.dictionary(pa.int8(), pa.string()), ["a", "b", "a"]),
        (["a", None], pa.large_string(), ["a", None]),
        ([b"plain", None], pa.binary(), ["plain", None]),
        ([dt.date(2025, 3, 1), None], pa.date32(), ["2025-03-01", None]),
        (
            [MOMENT, MOMENT.replace(microsecond=500)],
            pa.timestamp("us"),
            ["2025-03-01 12:00:00", "2025-03-01 12:00:00.000500"],
        ),
        ([MOMENT], pa.timestamp("ms"), ["2025-03-01 12:00:00"]),
        ([MOMENT], pa.timestamp("us", "UTC"), ["2025-03-01 12:00:00Z"]),
        ([MOMENT], pa.timestamp("us", "Asia/Shanghai"), ["2025-03-01 20:00:00+0800"]),
        ([dt.time(1, 2, 3)], pa.time64("us"), ["01:02:03"]),
        ([Decimal("1.50"), Decimal("12345678901234567.89")], pa.decimal128(20, 2), ["1.50", "12345678901234567.89"]),
        ([2**63 - 1, None], pa.int64(), ["9223372036854775807", None]),
        ([310115.0, 0.1, 89.25, float("nan")], pa.float64(), ["310115", "0.1", "89.25", None]),
        ([0.1], pa.float32(), ["0.1"]),
        ([True, False, None], pa.bool_(), ["true", "false", None]),
        ([["a", "张"], None, []], pa.list_(pa.string()), ['["a","张"]', None, "[]"]),
        ([None, None], pa.null(), [None, None]),
    ],
)
def test_types(values: list[Any], kind: pa.DataType, expected: list[str | None]) -> None:
    assert text(values, kind) == expected


def test_an_identifier_that_went_through_a_float_cannot_pass_for_one() -> None:
    (number,) = text([310101199003071234.0], pa.float64())
    assert number and re.fullmatch(r"3\.1010119900307\d+E\+17", number)
    judged = identifiers.check(pa.array([number]), "cn.ric")
    assert judged["reason"].to_pylist() == ["unrecoverable"]


def test_structs_become_dotted_columns() -> None:
    holder = pa.array([{"name": "甲", "id": {"type": "01"}}, {"name": "乙", "id": None}, None])
    (block,) = read(written(pa.table({"holder": holder, "n": [1, 2, 3]})))
    assert block.table.to_pydict() == {
        "holder.name": ["甲", "乙", None],
        "holder.id.type": ["01", None, None],
        "n": ["1", "2", "3"],
        "_row": [1, 2, 3],
    }


def test_blocks_follow_one_another_over_row_groups() -> None:
    table = pa.table({"n": np.arange(1000)})
    blocks = read(written(table, row_group_size=90), block_rows=400)
    assert [block.table.num_rows for block in blocks] == [400, 400, 200]
    joined = pa.concat_tables([block.table for block in blocks])
    assert joined["_row"].to_pylist() == list(range(1, 1001))
    assert joined["n"].to_pylist() == [str(number) for number in range(1000)]


def test_no_rows_still_name_the_columns() -> None:
    (block,) = read(
        written(pa.table({"a": pa.array([], pa.string()), "s": pa.array([], pa.struct([("b", pa.int8())]))}))
    )
    assert block.table.column_names == ["a", "s.b", "_row"]
    assert block.table.num_rows == 0


def test_rows_that_are_no_text_are_malformed() -> None:
    (block,) = read(written(pa.table({"a": ["x", "y\0", "z"], "b": pa.array([b"1", b"2", b"\xff"])})))
    assert block.table.to_pydict() == {"a": ["x"], "b": ["1"], "_row": [1]}
    assert block.malformed["_row"].to_pylist() == [2, 3]
    assert block.malformed["reason"].to_pylist() == ["nul-character", "undecodable"]


def test_a_landed_file_packed_or_not(tmp_path: Path) -> None:
    landing, content = Landing(tmp_path), written(pa.table({"a": ["x"]}))
    for data in (content, gzip.compress(content)):
        landed = landing.put(data, "x.parquet")
        (block,) = parquetfile.blocks(lambda landed=landed: landing.open(landed), "x.parquet", OPTIONS)
        assert block.table["a"].to_pylist() == ["x"]


GOOD = written(pa.table({"a": [str(number) for number in range(5000)]}), row_group_size=1000)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "file-empty"),
        (b"<html><body>login</body></html>", "file-is-html"),
        (b"PAR1", "parquet-unreadable"),
        (b"a,b\n1,2\n", "parquet-unreadable"),
        (GOOD[:-20], "parquet-unreadable"),
        (GOOD[: len(GOOD) // 2], "parquet-unreadable"),
        (GOOD[4000:], "parquet-unreadable"),
        (written(pa.table({"name": ["x"]}), store_schema=False).replace(b"name", b"na\xd3e"), "parquet-unreadable"),
        (written(pa.table([pa.array(["x"]), pa.array(["y"])], names=["a", "a"])), "columns-repeated"),
        (written(pa.table({"_row": ["x"]})), "columns-repeated"),
        (written(pa.table({"s.b": ["x"], "s": [{"b": "y"}]})), "columns-repeated"),
        (written(pa.table({"t": pa.array([b"0123456789abcdef"], pa.binary(16))})), "parquet-column"),
    ],
)
def test_refused(content: bytes, code: str) -> None:
    with pytest.raises(FatalError) as caught:
        read(content)
    assert caught.value.code == code
    assert "x.parquet" in caught.value.message("zh")


def test_damage_inside_is_found(tmp_path: Path) -> None:
    content = bytearray(written(pa.table({"a": np.arange(100_000)}), compression="snappy", write_page_checksum=True))
    content[len(content) // 3] ^= 0xFF
    with pytest.raises(FatalError) as caught:
        read(bytes(content))
    assert caught.value.code == "parquet-unreadable"


def test_memory_does_not_grow_with_a_row_group() -> None:
    """One row group of about 60 MB of text: a block at a time is in memory, not the group."""
    rows = 600_000
    values = pa.array([f"{number:0100d}" for number in range(1000)]).take(pa.array(np.arange(rows) % 1000))
    content = written(pa.table({"a": values}), row_group_size=rows, use_dictionary=False, compression="zstd")
    before, most = pa.total_allocated_bytes(), 0
    for block in parquetfile.blocks(lambda: io.BytesIO(content), "x", OPTIONS, 20_000):
        assert block.table.num_rows
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 30_000_000
