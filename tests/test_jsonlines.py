"""connectors/jsonlines.py: every value as written, every line accounted for."""

from __future__ import annotations

import gzip
import io
import json
import random
import tracemalloc
from typing import Any

import pytest

from connectors import jsonlines
from connectors.block import ROW, Block
from connectors.errors import FatalError
from connectors.source import SftpOptions

OPTIONS = SftpOptions(format="jsonl")


def read(data: bytes | str, columns: tuple[str, ...] = (), block_rows: int = 65536) -> list[Block]:
    raw = data.encode() if isinstance(data, str) else data
    options = OPTIONS.model_copy(update={"columns": columns})
    return list(jsonlines.blocks(lambda: io.BytesIO(raw), "a.jsonl", options, block_rows))


def rows(data: bytes | str, **more: Any) -> list[dict[str, Any]]:
    return [row for block in read(data, **more) for row in block.table.to_pylist()]


def lost(data: bytes | str) -> list[tuple[int, bytes, str]]:
    return [tuple(row.values()) for block in read(data) for row in block.malformed.to_pylist()]


def refused(data: bytes | str) -> str:
    with pytest.raises(FatalError) as caught:
        read(data)
    assert "a.jsonl" in caught.value.message("zh") and caught.value.advice("en")
    return caught.value.code


def test_strings_and_absent_keys() -> None:
    lines = [{"a": "上\n海", "b": None}, {"b": ""}, {"c": "\U0001f600"}]
    assert rows("\n".join(json.dumps(line) for line in lines) + "\n") == [
        {"a": "上\n海", "b": None, "c": None, ROW: 1},
        {"a": None, "b": "", "c": None, ROW: 2},
        {"a": None, "b": None, "c": "\U0001f600", ROW: 3},
    ]


def test_numbers_keep_their_digits_and_what_looks_like_a_time_its_form() -> None:
    line = '{"a": 310101199001011234567890, "b": 1.10, "c": true, "d": 3.10E+17, "e": -0, "f": "2025-03-01 12:00:00"}'
    assert rows(line + "\n") == [
        {
            "a": "310101199001011234567890",
            "b": "1.10",
            "c": "true",
            "d": "3.10E+17",
            "e": "-0",
            "f": "2025-03-01 12:00:00",
            ROW: 1,
        }
    ]


def test_objects_become_dotted_columns_and_lists_keep_their_text() -> None:
    lines = [
        '{"h": {"id": {"n": 1, "t": "x"}, "name": "甲"}}',
        '{"h": {"id": null}, "l": [1.0, {"z": "]"}]}',
        '{"h": null}',
    ]
    assert rows("\n".join(lines) + "\n", columns=("h.id.n", "h.id.t", "h.name", "l")) == [
        {"h.id.n": "1", "h.id.t": "x", "h.name": "甲", "l": None, ROW: 1},
        {"h.id.n": None, "h.id.t": None, "h.name": None, "l": '[1.0, {"z": "]"}]', ROW: 2},
        {"h.id.n": None, "h.id.t": None, "h.name": None, "l": None, ROW: 3},
    ]


def test_lines_that_are_no_record() -> None:
    html = "<html><body>502 Bad Gateway</body></html>"
    data = f'{{"a": 1}}\n{html}\r\n\n[1]\n{{"a": "x\n{{"a": 2}} {{"a": 3}}\n{{"a": 4, "a": 5}}\n{{"a": 6}}\n'
    assert rows(data) == [{"a": "1", ROW: 1}, {"a": "6", ROW: 8}]
    assert lost(data) == [
        (2, html.encode(), "not-an-object"),
        (4, b"[1]", "not-an-object"),
        (5, b'{"a": "x', "not-an-object"),
        (6, b'{"a": 2} {"a": 3}', "not-an-object"),
        (7, b'{"a": 4, "a": 5}', "key-repeated"),
    ]


def test_error_page_first() -> None:
    assert rows('<html>late</html>\n{"a": 1}\n') == [{"a": "1", ROW: 2}]


def test_nul_and_what_cannot_be_decoded() -> None:
    good = b'{"a": "\xe4\xb8\x8a"}\n' * 200
    data = good + b'{"a": "x\x00"}\n{"a": "\\u0000y"}\n{"a": "\xff"}\n' + good
    assert lost(data) == [
        (201, b'{"a": "x\x00"}', "nul-character"),
        (202, b'{"a": "\\u0000y"}', "nul-character"),
        (203, b'{"a": "\xff"}', "undecodable"),
    ]
    assert [row[ROW] for row in rows(data)] == [*range(1, 201), *range(204, 404)]
    assert rows('{"a": "上海"}\n'.encode("gb18030")) == [{"a": "上海", ROW: 1}]


def test_byte_order_mark_line_ends_and_packing() -> None:
    data = b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}'
    expected = [{"a": "1", ROW: 1}, {"a": "2", ROW: 3}]
    assert rows(data) == expected
    assert rows(gzip.compress(data)) == expected
    assert not read(data)[-1].open_end, "a record that is closed was not cut"


def test_nothing_in_it() -> None:
    for data in (gzip.compress(b""), b"\n", b" \r\n\n"):
        (block,) = read(data, columns=("x", "y"))
        assert (block.table.column_names, block.table.num_rows) == (["x", "y", ROW], 0)
    assert refused(b"") == "file-empty"


def test_other_kinds_of_file_and_broken_ones() -> None:
    packed = gzip.compress(b'{"a": 1}\n' * 100_000)
    assert refused(packed[:-20]) == "file-truncated"
    assert refused(packed[: len(packed) // 2]) == "file-truncated"
    assert refused(packed[:3]) == "file-truncated"
    assert refused("<!doctype html><html>no data</html>") == "file-is-html"
    assert refused(b"PK\x03\x04xxxx") == "file-is-spreadsheet"
    assert refused('{"a": 1}\n{"a": "half') == "file-truncated"
    assert refused('{"_row": 1}\n') == "columns-repeated"
    assert refused('{"a.b": 1, "c": 1}\n{"a": {"b": 2}}\n') == "columns-repeated"
    assert refused('{"a": "' + "x" * (21 << 20) + '"}\n') == "file-line-too-long"
    assert refused("\n".join(f'{{"key{n}": 1}}' for n in range(2001)) + "\n") == "json-keys-many"


def test_nothing_of_a_truncated_gzip_file_is_read() -> None:
    packed = gzip.compress(b"".join(b'{"a": %d}\n' % number for number in range(300_000)))[:-9]
    with pytest.raises(FatalError):
        next(jsonlines.blocks(lambda: io.BytesIO(packed), "a", OPTIONS))


def test_depth_is_bounded() -> None:
    deep = b'{"a":' * 17 + b"1" + b"}" * 17
    assert lost(b'{"a": 1}\n' + deep + b"\n" + b"[" * 100_000 + b"\n") == [
        (2, deep, "not-an-object"),
        (3, b"[" * 100_000, "not-an-object"),
    ]
    assert rows(deep[5:-1] + b"\n") == [{".".join("a" * 16): "1", ROW: 1}]


def test_blocks_of_rows_and_columns_that_come_later() -> None:
    filler = "x" * 2000
    lines = [f'{{"a": {number}, "f": "{filler}"}}' for number in range(5000)] + ['{"a": 5000, "late": 1}'] * 3
    found = read("\n".join(lines) + "\n", block_rows=1000)
    assert [block.table.num_rows for block in found[:4]] == [1000] * 4
    assert found[0].table.column_names == ["a", "f", ROW]
    assert found[-1].table.column_names == ["a", "f", "late", ROW]
    numbers = [number for block in found for number in block.table[ROW].to_pylist()]
    assert numbers == list(range(1, 5004))


def test_a_column_without_any_value_is_there() -> None:
    assert rows('{"a": null, "b": 1}\n', columns=("a", "b")) == [{"a": None, "b": "1", ROW: 1}]


STRINGS = (
    "",
    "x",
    'a"b',
    "\\",
    "\\\\",
    "上海",
    "2025-03-01",
    "{",
    "}",
    "[1,2]",
    ": 5, ",
    '\\"',
    "tab\tx",
    "true",
    "\x00z",
)
BARE = ("1", "1.10", "-0", "3.10E+17", "110101199001011234567", "true", "false", "null", "1e5")
WRONG = ("01", "+1", "NaN", "tru", "-", ".5", "1.", "nul", "-Infinity", "12:30", "1 2", 't"x"')


def _record(rnd: random.Random, wrong: float, depth: int = 0) -> str:
    def blank() -> str:
        return rnd.choice(("", "", "", " ", "\t"))

    def value() -> str:
        kind = rnd.random()
        if kind < 0.45:
            return json.dumps(rnd.choice(STRINGS), ensure_ascii=rnd.random() < 0.5)
        if kind < 0.8:
            return rnd.choice(WRONG if rnd.random() < wrong else BARE)
        if kind < 0.9 or depth > 2:
            return "[" + ",".join(rnd.choice(BARE) for _ in range(rnd.randint(0, 3))) + "]"
        return _record(rnd, wrong, depth + 1)

    keys = [rnd.choice("abcdef") for _ in range(rnd.randint(0, 4))]
    keys = keys if rnd.random() < wrong else list(dict.fromkeys(keys))
    inner = ",".join(f"{blank()}{json.dumps(key)}{blank()}:{blank()}{value()}{blank()}" for key in keys)
    return f"{{{blank()}{inner}{blank()}}}"


@pytest.mark.parametrize("wrong", [0, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_all_at_once_reads_as_one_by_one(seed: int, wrong: float) -> None:
    """Whatever a line holds, alone or among others: the same record, or malformed for the same reason."""
    rnd = random.Random(seed)
    for _ in range(20):
        texts = [_record(rnd, wrong) for _ in range(rnd.randint(1, 40))]
        lines = [(text[: rnd.randint(1, len(text))] if rnd.random() < wrong else text).encode() for text in texts]
        data = b"\n".join(lines) + b"\n"
        found: dict[int, Any] = {
            row.pop(ROW): {key: value for key, value in row.items() if value is not None} for row in rows(data)
        }
        reasons = {number: reason for number, _, reason in lost(data)}
        assert sorted([*found, *reasons]) == list(range(1, len(lines) + 1))
        for number, line in enumerate(lines, start=1):
            (alone,) = read(b'{"other": 1}\n' + line + b"\n")
            expected = [row for row in alone.table.to_pylist() if row[ROW] == 2]
            if expected:
                filled = {key: value for key, value in expected[0].items() if value is not None and key != ROW}
                assert found.get(number) == filled, line
            else:
                assert reasons.get(number) == alone.malformed["reason"].to_pylist()[0], line


def test_memory_is_bounded() -> None:
    """Many times the records take about the same memory (Arrow's own is not counted here: it is freed with each block)."""
    import pyarrow as pa

    def peak(count: int) -> int:
        packed = gzip.compress(b'{"a": "some text", "b": 12345, "c": {"d": true}}\n' * count, 1)
        tracemalloc.start()
        most = 0
        for block in jsonlines.blocks(lambda: io.BytesIO(packed), "a", OPTIONS):
            most = max(most, pa.total_allocated_bytes())
            assert block.table.num_rows
        most += tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    small, large = peak(100_000), peak(500_000)
    assert large < 1.5 * small
