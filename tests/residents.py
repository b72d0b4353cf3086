"""Invented residents with valid numbers, and rows about them, as the Shanghai registers deliver them."""

from __future__ import annotations

import json
from pathlib import Path

from mappings import scalars

PEOPLE = (
    ("张国荣", "31010119560912001", "1", "1956-09-12", "310104"),
    ("王晓华", "31010419800305002", "2", "1980-03-05", "310104"),
    ("李明", "31011519750708011", "1", "1975-07-08", "310115"),
    ("李明", "31011519921130021", "1", "1992-11-30", "310112"),
    ("欧阳修文", "31010619690214005", "1", "1969-02-14", "310106"),
    ("吕丽", "31010719881206042", "2", "1988-12-06", "310107"),
)


def number(body: str) -> str:
    """With the check digit that belongs to 17 digits."""
    found = [body + last for last in "0123456789X" if scalars.parse(f"cn.ric:{body}{last}").verdict != "invalid"]
    assert len(found) == 1, body
    return found[0]


def row(person: int, **said: str | None) -> dict[str, str | None]:
    """The row about one of PEOPLE; ``said``: what stands in it instead."""
    name, body, sex, born, region = PEOPLE[person]
    return {
        "xm": name, "gmsfhm": number(body), "xb": sex, "mz": "汉族", "csrq": born, "qfjg": "上海市公安局",
        "xzqh": region, "yxqq": "2020-01-01", "yxqz": "2040-01-01", "zt": "有效",
        "gxsj": "2025-01-02T08:00:00+08:00", **said,
    }  # fmt: skip


def member(person: int, household: str, **said: str | None) -> dict[str, str | None]:
    """The page of a household register about one of PEOPLE."""
    name, body, _, _, region = PEOPLE[person]
    return {
        "hh": household, "gmsfhm": number(body), "xm": name, "yhzgx": "户主", "hb": "家庭户",
        "zz": f"上海市和平路{person + 1}号", "xzqh": region, "qfjg": "上海市公安局", "zt": "有效", "djrq": "2010-01-01",
        "gxsj": "2025-01-02T08:00:00+08:00", **said,
    }  # fmt: skip


def write(path: Path, rows: list[dict[str, str | None]]) -> Path:
    """A page of the bureau's interface."""
    path.write_text(json.dumps({"data": rows}, ensure_ascii=False), encoding="utf-8")
    return path
