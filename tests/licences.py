"""Small files in the form of the enterprise registers, with credit codes that are valid by construction."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mappings import checksums

HEADER = ("企业名称", "统一社会信用代码", "注册日期", "企业类型", "注册资金", "所在省份", "地区")
ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"


def credit_code(number: int, region: str = "310117", subject: str = "MA1X") -> str:
    """The ``number``-th invented unified social credit code of a region."""
    digits = ""
    for _ in range(5):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    body = f"91{region}{subject}{digits}"
    check = checksums.mod_31(np.frombuffer(body.encode(), dtype=np.uint8).reshape(1, -1))
    return body + chr(check[0])


def row(number: int, **changed: str) -> dict[str, str]:
    """One good row; keyword arguments replace columns (``name``, ``code``, ``date``, ``kind``, ``capital``)."""
    values = {
        "name": f"上海示例{number}号有限公司",
        "code": credit_code(number),
        "date": f"2019-0{number % 4 + 1}-1{number % 9}",
        "kind": "有限责任公司",
        "capital": "1,000(万元人民币)",
        "province": "上海",
        "place": "松江",
    } | changed
    return dict(zip(HEADER, values.values(), strict=True))


def rows(count: int, start: int = 0) -> list[dict[str, str]]:
    return [row(number) for number in range(start, start + count)]


def text(records: Iterable[dict[str, str]], header: Sequence[str] = HEADER) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()


def write(path: Path, records: Iterable[dict[str, str]], encoding: str = "utf-8") -> Path:
    path.write_bytes(text(records).encode(encoding))
    return path


def shuffled(records: Sequence[dict[str, str]], seed: int = 1) -> list[dict[str, str]]:
    mixed = list(records)
    random.Random(seed).shuffle(mixed)
    return mixed
