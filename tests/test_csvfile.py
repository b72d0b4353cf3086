"""connectors/csvfile.py and textfile.py: every physical line is a row, a malformed row, or blank."""

from __future__ import annotations

import gzip
import io
import random
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors import csvfile, textfile
from connectors.block import ROW, Block
from connectors.csvfile import Form, blocks
from connectors.errors import FatalError

BOTH = Form(("utf-8", "gb18030"))


def opener(data: bytes) -> Callable[[], IO[bytes]]:
    return lambda: io.BytesIO(data)


def read(
    data: bytes, form: Form = BOTH, block_rows: int = 65536
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    found = list(blocks(opener(data), "f.csv", form, block_rows))
    assert found
    good, bad = [], []
    for block in found:
        assert block.malformed.schema.names == [ROW, "raw", "reason"]
        good += [(row.pop(ROW), *row.values()) for row in block.table.to_pylist()]
        bad += [tuple(row.values()) for row in block.malformed.to_pylist()]
    return good, bad


def code(data: bytes, form: Form = BOTH) -> tuple[str, dict[str, object]]:
    with pytest.raises(FatalError) as caught:
        read(data, form)
    assert caught.value.message("zh") and caught.value.advice("en")
    return caught.value.code, caught.value.values


@pytest.mark.parametrize(
    ("data", "good", "bad"),
    [
        (b"a,b\n1,2\n3,4\n", [(2, "1", "2"), (3, "3", "4")], []),
        (b"a,b\n1,2\n3,4", [(2, "1", "2"), (3, "3", "4")], []),
        (b"a,b\r\n1,2\r\n3,4\r\n", [(2, "1", "2"), (3, "3", "4")], []),
        (b"a,b\r\r\n1,2\r\r\n", [(2, "1", "2")], []),
        (b"\xef\xbb\xbf a , b\n1, 2\n", [(2, "1", " 2")], []),
        (b"a,b\n,\n\"\",x\n", [(2, "", ""), (3, "", "x")], []),
        (b"a,b\nNULL,NaN\nnull,N/A\n", [(2, "NULL", "NaN"), (3, "null", "N/A")], []),
        (b"a,b\n001,1e5\n", [(2, "001", "1e5")], []),
        (b"\n\na,b\n\n1,2\n\n\n3,4\n\n", [(5, "1", "2"), (8, "3", "4")], []),
        (b"a,b\n1\n2,3\n4,5,6\n7,8\n", [(3, "2", "3"), (5, "7", "8")],
         [(2, b"1", "column-count"), (4, b"4,5,6", "column-count")]),
        (b'a,b\n"1,0","x""y"\n', [(2, "1,0", 'x"y')], []),
        (b'a,b\n1,"open\n2,y\n3,"z"\n', [(3, "2", "y"), (4, "3", "z")], [(2, b'1,"open', "quote")]),
        (b'a,b\n1,"open\n2,y\n3,"open too\n4,w\n', [(3, "2", "y"), (5, "4", "w")],
         [(2, b'1,"open', "quote"), (4, b'3,"open too', "quote")]),
        (b'a,b\n1,x"y\n2,x"y"z\n3,w\n', [(2, "1", 'x"y'), (3, "2", 'x"y"z'), (4, "3", "w")], []),
        (b'a,b\n1,"x"y\n2,z\n', [(3, "2", "z")], [(2, b'1,"x"y', "quote")]),
        (b'a,b\n1,x"y,"z\n2,w\n', [(3, "2", "w")], [(2, b'1,x"y,"z', "quote")]),
        (b'a,b\n1,"x""\n2,y\n', [(3, "2", "y")], [(2, b'1,"x""', "quote")]),
        (b"a,b\n1,x\x00y\n2,y\n", [(3, "2", "y")], [(2, b"1,x\x00y", "nul-character")]),
        (b"a,b\n1,x\ry\n2,y\r\n", [(3, "2", "y")], [(2, b"1,x\ry", "carriage-return")]),
        (b"a\n1\n\n\"\"\n", [(2, "1"), (4, "")], []),
        (b"a,b\n", [], []),
        (b"a,b", [], []),
        (b"a,b\n<html>\n1,2\n", [(3, "1", "2")], [(2, b"<html>", "column-count")]),
    ],
)  # fmt: skip
def test_lines(data: bytes, good: list[Any], bad: list[Any]) -> None:
    assert read(data) == (good, bad)


def test_header_only_still_shows_its_columns() -> None:
    (block,) = blocks(opener("名称,代码\n".encode()), "f.csv", BOTH)
    assert block.table.schema == pa.schema([("名称", pa.string()), ("代码", pa.string()), (ROW, pa.int64())])
    assert block.table.num_rows == block.malformed.num_rows == 0


CHINESE = "企业,地区\n" + "".join(f"上海公司{i},松江\n" for i in range(300))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "bom-gb18030"])
@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress])
def test_encodings(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    data = ("\ufeff" + CHINESE).encode("gb18030") if encoding == "bom-gb18030" else CHINESE.encode(encoding)
    good, bad = read(pack(data))
    assert (good[0], good[-1], len(good), bad) == ((2, "上海公司0", "松江"), (301, "上海公司299", "松江"), 300, [])


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_few_undecodable_lines_are_malformed(encoding: str) -> None:
    lines = CHINESE.encode(encoding).split(b"\n")
    lines[5] = b"x\xff\xffy,z"
    good, bad = read(b"\n".join(lines))
    assert bad == [(6, b"x\xff\xffy,z", "undecodable")]
    assert len(good) == 299
    assert good[0] == (2, "上海公司0", "松江")
    assert good[-1] == (301, "上海公司299", "松江")


def test_broken_utf8_is_not_read_as_another_encoding() -> None:
    """These bytes are valid GB18030 by chance, and nonsense in it."""
    data = "名称,地区\n上海,松江\n".encode() + b"\xb9\xab\xcb\xbe,x\n" + "苏州,姑苏\n杭州,西湖\n".encode()
    assert data.decode("gb18030", "ignore")
    assert read(data)[1] == [(3, b"\xb9\xab\xcb\xbe,x", "undecodable")]


@pytest.mark.parametrize(
    "data",
    [
        b"a,b\n" + b"\0" * 40,
        b"a\xff\xff,b\n1,2\n",
        b"a,b\n" + b"x\xff,y\n" * 3 + b"1,2\n" * 97,
    ],
)
def test_wrong_encoding(data: bytes) -> None:
    assert code(data)[0] == "file-encoding"


UTF_16 = "企业名称,信用代码,注册日期\r\n上海一,91310117MA1X,2019-01-02\r\n𠮷,上,中\r\n"


@pytest.mark.parametrize(
    ("encoding", "name"), [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16LE"), ("utf-16-be", "UTF-16BE")]
)
@pytest.mark.parametrize("times", [1, 200])
def test_utf_16_is_called_so(encoding: str, name: str, times: int) -> None:
    found = code((UTF_16 * times).encode(encoding))
    assert found[0] == "file-is-utf-16" and found[1]["encoding"] == name
    assert code((CHINESE * 3).encode(encoding))[0] == "file-is-utf-16"


def test_nul_characters_alone_are_no_utf_16() -> None:
    data = "企业,地区\n甲\0\0,乙\n丙,\0丁\0\n\0\n".encode()
    assert [reason for _, _, reason in read(data)[1]] == ["nul-character"] * 3


@pytest.mark.parametrize(
    ("data", "row"),
    [
        (b"a,b\n1,2\n3", 3),
        (b'a,b\n1,2\n3,"x', 3),
        ("a,b\n1,2\n3,上海".encode()[:-1], 3),
        ("a,b\n1,上海\n3,上海".encode("gb18030")[:-1], 3),
        (
            gzip.compress(random.Random(1).randbytes(3000).hex("\n", 5).replace("\n", ",1\n").encode(), mtime=0)[:-500],
            None,
        ),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-4], None),
    ],
)
def test_truncated(data: bytes, row: int | None) -> None:
    name, values = code(data)
    assert name == "file-truncated"
    assert values["file"] == "f.csv"
    assert row is None or values["row"] == row


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "file-empty"),
        (b"\xef\xbb\xbf", "file-empty"),
        (b"\n\r\n \n", "file-empty"),
        (b"<!DOCTYPE html><html>", "file-is-html"),
        (b"\n  <HTML>\n", "file-is-html"),
        (b"PK\x03\x04rest", "file-is-spreadsheet"),
        (b"a,b,a\n1,2,3\n", "columns-repeated"),
        (b"a,,\n1,2,3\n", "columns-repeated"),
        (b"a,_row\n1,2\n", "columns-repeated"),
        (b'a,"b\n1,2\n', "file-header"),
        (b"a,b\r1,2\r3,4\r", "file-header"),
    ],
)
def test_not_a_table(data: bytes, expected: str) -> None:
    assert code(data)[0] == expected


def test_endless_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textfile, "LONGEST_LINE", 1000)
    monkeypatch.setattr(textfile, "BLOCK", 400)
    assert code(b"a,b\n" + b"x" * 3000) == ("file-line-too-long", {"file": "f.csv", "row": 2})


def test_delimiter() -> None:
    assert read(b"a|b\n1,0|2\n", Form(delimiter="|")) == ([(2, "1,0", "2")], [])
    # 0x7C is also the second byte of a GB18030 character
    data = "a|b\n亅|侟\n".encode("gb18030")
    assert b"\x81|" in "亅".encode("gb18030") or data.count(b"|") >= 2
    assert read(data, Form(("gb18030",), delimiter="|"))[0] == [(2, "亅", "侟")]


def test_multiline() -> None:
    form = Form(("utf-8", "gb18030"), multiline=True)
    data = b'a,b\r\n1,"x\ny"\r\n2\r\n\r\n3,"q""q"\r\n'
    assert read(data, form) == ([(2, "1", "x\ny"), (5, "3", 'q"q')], [(3, b"2", "column-count")])
    assert read(b"a,b\n", form) == ([], [])
    assert read(b"a,b", form) == ([], [])
    assert code(b'a,b\n1,"x\n2,y\n3,z\n', form)[0] == "file-truncated"
    assert code(b"a,b\n1,\xff\n" + b"1,2\n" * 500, form)[0] == "file-encoding"
    text = 'a,b\n1,"上\n海"\n'.encode("gb18030")
    assert read(text, form)[0] == [(2, "1", "上\n海")]


@pytest.mark.parametrize(("before", "row"), [(b"", 2), (b"1,2\n" * 300, 302), (b"1,2\n" * 300 + b"1\n1,2,3\n", 304)])
@pytest.mark.parametrize("after", [b'"\n1,2\n', b'"\n', b"\n1,2\n"])
def test_endless_record(monkeypatch: pytest.MonkeyPatch, before: bytes, row: int, after: bytes) -> None:
    """A long value, in the middle or at the end, or a quote that nothing closes: the record is named, not pyarrow's error."""
    monkeypatch.setattr(csvfile, "LONGEST_RECORD", 1000)
    form = Form(multiline=True)
    data = b"a,b\n" + before + b'1,"' + b"x\n" * 2000 + after
    for _ in range(5):
        assert code(data, form) == ("file-record-too-long", {"file": "f.csv", "row": row})
    passes = b"a,b\n" + before + b'1,"' + b"x\n" * 400 + b'"\n1,2\n'
    good, bad = read(passes, form)
    assert good[-2:] == [(row, "1", "x\n" * 400), (row + 1, "1", "2")]
    assert len(good) + len(bad) == row


def test_a_cut_file_gives_its_rows_first_and_the_process_ends() -> None:
    """Raised within pyarrow's reading thread, the error came early or late, and now and then the process never ended."""
    program = """
import io
from connectors import csvfile, textfile
textfile.BLOCK = 1000
data = b"a,b\\n" + b"1,2\\n" * 3000 + b'3,"x\\n'
for _ in range(30):
    rows = 0
    try:
        for block in csvfile.blocks(lambda: io.BytesIO(data), "f", csvfile.Form(multiline=True), 100):
            rows += block.table.num_rows
    except csvfile.FatalError as error:
        assert (error.code, rows) == ("file-truncated", 3000), rows
    else:
        raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_database_form_keeps_null_apart_from_empty() -> None:
    form = Form(multiline=True, nulls=True, header_row=0)
    assert read(b'a,b\n,""\n"x\ny",\n', form) == ([(1, None, ""), (2, "x\ny", None)], [])
    assert read(b'a\n\n""\nx\n', form) == ([(1, None), (2, ""), (3, "x")], [])


@pytest.mark.parametrize("multiline", [False, True])
def test_blocks_and_numbers_over_many_chunks(monkeypatch: pytest.MonkeyPatch, multiline: bool) -> None:
    """Row numbers stay right over chunk borders, blank lines and malformed lines."""
    monkeypatch.setattr(textfile, "BLOCK", 1000)
    lines = ["a,b"]
    for i in range(2, 5002):
        lines.append("" if i % 11 == 0 else f"bad{i}" if i % 13 == 0 else f'{i},"v{i}"')
    data = ("\n".join(lines) + "\n").encode()
    found = list(blocks(opener(data), "f.csv", Form(multiline=multiline), 1000))
    assert {block.table.num_rows for block in found[:-1]} == {1000}
    table = pa.concat_tables(block.table for block in found)
    assert table["a"].to_pylist() == [str(row) for row in table[ROW].to_pylist()]
    malformed = pa.concat_tables(block.malformed for block in found)
    assert malformed["raw"].to_pylist() == [f"bad{row}".encode() for row in malformed[ROW].to_pylist()]
    assert table.num_rows + malformed.num_rows == sum(bool(line) for line in lines[1:])


def test_lines_that_are_no_rows_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of which every line has a column too many is read block by block like any other."""
    monkeypatch.setattr(textfile, "BLOCK", 1000)
    found = list(blocks(opener(b"a,b\n" + b"1,2,3\n" * 5000 + b"1,2\n"), "f.csv", Form(), 1000))
    assert [block.malformed.num_rows for block in found] == [1000] * 5
    numbers = [row for block in found for row in block.malformed[ROW].to_pylist()]
    assert numbers == list(range(2, 5002)) and found[-1].table.num_rows == 1


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(alphabet='x,"\r\x00上 ', max_size=8), max_size=12), st.sampled_from(["utf-8", "gb18030"]))
def test_no_line_is_ever_lost(lines: list[str], encoding: str) -> None:
    """Whatever a line holds, it is one row, one malformed row, or blank; its neighbours do not suffer."""
    data = ("名称,b\n" + "".join(line + "\nfine,行\n" for line in lines)).encode(encoding)
    good, bad = read(data, Form(("utf-8", "gb18030")))
    seen = sorted([row[0] for row in good] + [row[0] for row in bad])
    filled = [2 * i + 2 for i, line in enumerate(lines) if line.rstrip("\r")]
    assert seen == sorted(filled + [2 * i + 3 for i in range(len(lines))])
    fine = {row[0]: row[1:] for row in good}
    assert all(fine[2 * i + 3] == ("fine", "行") for i in range(len(lines)))
    for row, raw, _ in bad:
        assert raw.decode(encoding) == lines[(row - 2) // 2].rstrip("\r")


def test_memory_is_bounded() -> None:
    """60 MB go through in blocks; what pyarrow holds at once stays a fraction of it."""
    line = ("上海某某有限公司,91310117MA1J3AJ43G,2019-01-02," + "x" * 60 + "\n").encode()
    data = b"a,b,c,d\n" + line * (60_000_000 // len(line))
    base, peak, rows = pa.total_allocated_bytes(), 0, 0
    block: Block
    for block in blocks(opener(data), "f.csv", BOTH):
        rows += block.table.num_rows
        peak = max(peak, pa.total_allocated_bytes() - base)
    assert rows == 60_000_000 // len(line)
    assert peak < 40_000_000


def test_the_rest_of_a_torn_value_is_no_row() -> None:
    text = 'name,code\n"上海\n某某公司",123\n某5"管件公司,456\n'
    found = list(blocks(lambda: io.BytesIO(text.encode()), "torn.csv", Form()))
    assert [row for block in found for row in block.table["name"].to_pylist()] == ['某5"管件公司']
    assert [row for block in found for row in block.malformed["_row"].to_pylist()] == [2, 3]
