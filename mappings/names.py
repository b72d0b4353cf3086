"""Names of people in the forms by which they are compared: whole Arrow columns at a time, never for display.

``folded`` is the name in half width, without blanks and marks, in lower case and simplified characters. ``pinyin`` is
how it is read, without tones; letters stand for themselves. ``turned`` is the reading of a name in letters whose last
word is the family name. Each distinct character is looked up once (OpenCC, pypinyin), the names by arithmetic.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Codes = NDArray[np.uint32]

# Family names that are read otherwise than the character is elsewhere.
SURNAMES = {
    "曾": "zeng", "单": "shan", "解": "xie", "仇": "qiu", "朴": "piao", "查": "zha", "区": "ou", "任": "ren", "盖": "ge",
    "翟": "zhai", "覃": "qin", "缪": "miao", "冼": "xian", "员": "yun", "种": "chong", "召": "shao", "黑": "he", "折": "she",
    "逄": "pang", "乐": "yue", "宁": "ning", "尹": "yin", "葛": "ge", "牟": "mu", "燕": "yan", "华": "hua", "纪": "ji",
    "过": "guo", "令": "ling", "应": "ying", "洗": "xian", "褚": "chu", "柏": "bai", "都": "du", "哈": "ha", "句": "gou",
    "阚": "kan", "郇": "xun", "祭": "zhai", "繁": "po", "秘": "bi", "重": "chong", "相": "xiang", "俞": "yu", "於": "yu",
}  # fmt: skip
_MARKS = r"[^\p{L}\p{N}]+"


def forms(names: pa.Array | pa.ChunkedArray) -> pa.Table:
    """``folded``, ``pinyin`` and ``turned`` (strings, n,) of ``names`` (n,); null where there is nothing to compare.

    ``turned`` is null unless the name is in letters and of several words.
    """
    plain = _plain(names)
    joined = simplified(pc.replace_substring_regex(plain, _MARKS, ""))
    words = pc.utf8_trim_whitespace(pc.replace_substring_regex(plain, _MARKS, " "))
    turned = pc.replace_substring_regex(words, r"^([a-zü' ]+) ([a-zü]+)$", r"\2\1")
    turned = pc.if_else(pc.equal(turned, words), pa.scalar(None, pa.string()), turned)
    return pa.table(
        {
            "folded": _filled(joined),
            "pinyin": _filled(_spelt(_read(joined))),
            "turned": _spelt(pc.replace_substring(turned, " ", "")),
        }
    )


def folded(texts: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """Only the first of the forms, for any text (n,): an address."""
    return _filled(simplified(pc.replace_substring_regex(_plain(texts), _MARKS, "")))


def simplified(texts: pa.StringArray) -> pa.StringArray:
    """Traditional characters as simplified ones, one by one; ``texts`` without nulls."""
    codes, lengths = _characters(texts)
    known, places = np.unique(codes, return_inverse=True)
    return _strings(_simplified(tuple(known.tolist()))[places], lengths) if len(codes) else texts


def _read(texts: pa.StringArray) -> pa.StringArray:
    """The reading of each text: a syllable for each character, the first one's as of a family name."""
    codes, lengths = _characters(texts)
    if not len(codes):
        return texts
    known, places = np.unique(codes, return_inverse=True)
    # Two tables behind each other: readings of characters, then readings of the same as family names.
    syllables = _syllables(tuple(known.tolist()))
    ends = np.cumsum(lengths)
    first = (ends - lengths)[lengths > 1]
    places[first] += len(known)
    offsets = np.concatenate(([0], ends)).astype(np.int32)
    spoken = pa.ListArray.from_arrays(pa.array(offsets), syllables.take(pa.array(places)))
    return pc.binary_join(spoken, "")


def _spelt(texts: pa.StringArray) -> pa.StringArray:
    """One spelling of ü, which passports write yu."""
    return pc.replace_substring_regex(pc.replace_substring(texts, "ü", "v"), "([ln])yu", r"\1v")


def _plain(texts: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    text = pa.concat_arrays(texts.chunks) if isinstance(texts, pa.ChunkedArray) and texts.num_chunks else texts
    if isinstance(text, pa.ChunkedArray):  # one without rows has no chunk
        text = pa.array([], pa.string())
    return pc.utf8_lower(pc.utf8_normalize(pc.fill_null(text.cast(pa.string()), ""), form="NFKC"))


def _filled(texts: pa.StringArray) -> pa.StringArray:
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def _characters(texts: pa.StringArray) -> tuple[Codes, NDArray[np.int64]]:
    """All characters behind each other as code points, and how many each text has."""
    lengths = pc.utf8_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts), "")[0].as_py()
    return np.frombuffer(joined.encode("utf-32-le"), dtype="<u4"), lengths


def _strings(codes: Codes, lengths: NDArray[np.int64]) -> pa.StringArray:
    """The texts again of code points."""
    widths = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    ends = np.concatenate(([0], np.cumsum(widths)))[np.concatenate(([0], np.cumsum(lengths)))]
    data = codes.astype("<u4").tobytes().decode("utf-32-le").encode()
    return pa.StringArray.from_buffers(len(lengths), pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(data))


@functools.lru_cache(maxsize=4)
def _simplified(known: tuple[int, ...]) -> Codes:
    converted = _converter().convert("\n".join(map(chr, known))).split("\n")
    # A character stays what it is where its simplification would be more than one.
    return np.array([ord(new) if len(new) == 1 else old for old, new in zip(known, converted, strict=True)], np.uint32)


@functools.lru_cache(maxsize=4)
def _syllables(known: tuple[int, ...]) -> pa.StringArray:
    from pypinyin import lazy_pinyin

    characters = list(map(chr, known))
    readings = [lazy_pinyin(character, errors="default")[0] for character in characters]
    surnames = [SURNAMES.get(character, reading) for character, reading in zip(characters, readings, strict=True)]
    return pa.array(readings + surnames, pa.string())


@functools.cache
def _converter() -> Any:
    from opencc import OpenCC

    return OpenCC("t2s")
