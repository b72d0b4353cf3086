"""Names in the forms by which they are compared."""

from __future__ import annotations

import pyarrow as pa
import pytest

from mappings import names


@pytest.mark.parametrize(
    ("name", "folded", "pinyin"),
    [
        ("張國榮", "张国荣", "zhangguorong"),
        ("张　国荣", "张国荣", "zhangguorong"),
        ("ＷＡＮＧ　Ｘｉａｏｍｉｎｇ", "wangxiaoming", "wangxiaoming"),
        ("LI, NA", "lina", "lina"),
        ("阿依古丽·买买提", "阿依古丽买买提", "ayigulimaimaiti"),
        ("曾庆", "曾庆", "zengqing"),  # as a family name, not céng
        ("吕布", "吕布", "lvbu"),
        ("LYU BU", "lyubu", "lvbu"),
        ("欧阳修", "欧阳修", "ouyangxiu"),
        ("王", "王", "wang"),
        ("…", None, None),
        (None, None, None),
    ],
)
def test_forms(name: str | None, folded: str | None, pinyin: str | None) -> None:
    found = names.forms(pa.array([name], pa.string())).to_pylist()[0]
    assert (found["folded"], found["pinyin"]) == (folded, pinyin)


def test_a_name_in_letters_may_be_turned_round() -> None:
    found = names.forms(pa.array(["XIAOMING WANG", "WANG XIAOMING", "王晓明", "WANG"]))
    assert found["turned"].to_pylist() == ["wangxiaoming", "xiaomingwang", None, None]
    assert found["turned"][0] == found["pinyin"][1] == found["pinyin"][2]


def test_every_name_keeps_its_place_and_chunks_do_not_matter() -> None:
    spelt = ["歐陽修", None, "", "𠮷野", "Ann", "李國強"]
    whole = names.forms(pa.array(spelt))
    parts = names.forms(pa.chunked_array([spelt[:2], [], spelt[2:]], pa.string()))
    assert whole.to_pylist() == parts.to_pylist()
    assert whole["folded"].to_pylist() == ["欧阳修", None, None, "𠮷野", "ann", "李国强"]
    assert names.forms(pa.chunked_array([], pa.string())).num_rows == 0


def test_an_address_is_folded_too() -> None:
    assert names.folded(pa.array(["上海市 黃浦區１２號", None])).to_pylist() == ["上海市黄浦区12号", None]
