"""Rows as departments write them, good by construction: a licence, a person of a household, a changed document.

``number`` says whose it is, ``version`` how often it has changed, ``day`` when it is delivered. ``spoilt`` leaves out what no
row may lack, ``broken`` gives an identifier a wrong digit, ``key`` stands in place of the row's key, ``newest`` gives a row
without a time of its own the day of the delivery.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mappings import checksums

DAYS = (2015, 2025)


def licence(number: int, version: int, day: int, *, spoilt: bool = False, newest: bool = False, broken: bool = False,
             key: str | None = None) -> dict[str, str]:  # fmt: skip
    code = key or credit_code(number)
    if broken:
        code = code[:-1] + ("0" if code[-1] != "0" else "1")
    return {
        "企业名称": "" if spoilt else f"上海试验{number}号{'改' * (version % 4)}第{version}版有限公司",
        "统一社会信用代码": code,
        "注册日期": _day(day if newest else number % 300),
        "企业类型": "有限责任公司",
        "注册资金": f"{100 + version}(万元人民币)",
        "所在省份": "上海",
        "地区": "松江",
    }


def household(number: int, version: int, day: int, *, spoilt: bool = False, newest: bool = False, broken: bool = False,
               key: str | None = None) -> dict[str, str]:  # fmt: skip
    person = key or resident_id(number)
    if broken:
        person = person[:-1] + ("0" if person[-1] != "0" else "1")
    return {
        "hh": f"33010600000{number // 3:04d}",
        "gmsfhm": person,
        "xm": "" if spoilt else f"试验{'甲乙丙丁'[number % 4]}",
        "yhzgx": "户主",
        "hb": "家庭户",
        "zz": f"浙江省杭州市西湖区试验路{version}号",
        "xzqh": "330106",
        "qfjg": "杭州市公安局西湖分局",
        "zt": "有效",
        "djrq": "2001-02-03",
        "gxsj": f"{_day(day)}T09:{number % 60:02d}:00+08:00",
    }


def link(number: int, version: int, day: int, *, spoilt: bool = False, newest: bool = False, broken: bool = False,
         key: str | None = None) -> dict[str, str]:  # fmt: skip
    """One document gave way to another: in chains of three, corrected from version to version, sometimes with another
    birth date, which contradicts the rest of the chain."""
    before, after = number, number + 1 + (version % 3) * 700
    return {
        "bgh": key or f"B{number:09d}",
        "xm": f"EXAMPLE {number % 7}",
        "xb": "12"[number // 3 % 2],
        "csrq": f"19{50 + number // 3 % 40}-0{1 + (version % 3 == 2)}-11",
        "gj": "USA",
        "yzjlx": "02",
        "yzjhm": "" if spoilt else f"K{before + number // 3:08d}",
        "xzjlx": "02",
        "xzjhm": "K?" if broken else f"K{after + number // 3:08d}",
        "bgrq": "2014-03-04",
        "gxsj": f"{_day(day)} 10:{number % 60:02d}:00",
    }


def _day(day: int) -> str:
    first, last = (np.datetime64(f"{year}-01-01") for year in DAYS)
    return str(first + np.timedelta64(day % int((last - first).astype(int)), "D"))


def credit_code(number: int) -> str:
    alphabet, digits, left = "0123456789ABCDEFGHJKLMNPQRTUWXY", "", number
    for _ in range(5):
        left, digit = divmod(left, len(alphabet))
        digits = alphabet[digit] + digits
    return _checked(f"91310117MA1X{digits}", checksums.mod_31)


def resident_id(number: int) -> str:
    return _checked(
        f"330106{1950 + number % 60}{number % 12 + 1:02d}{number % 28 + 1:02d}{number % 1000:03d}", checksums.mod_11_2
    )


def _checked(body: str, check: Any) -> str:
    return body + chr(check(np.frombuffer(body.encode(), dtype=np.uint8).reshape(1, -1))[0])
