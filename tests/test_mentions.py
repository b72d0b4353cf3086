"""hub/mentions.py: what names somebody, in whatever way it is written, and what only looks so."""

from __future__ import annotations

import uuid

import pytest

from hub import catalogue
from hub.mentions import names_person, names_somebody
from tests import stored


@pytest.mark.parametrize(
    "text",
    [
        stored.RESIDENT,
        f"31-{stored.RESIDENT}-0001",
        f"case{stored.RESIDENT.lower()}7",
        "11010519-49123100-2X",
        "31.110105.19491231.002X",
        "110105-19491231-002X",
        "110105 19491231 002X",
        "110105\u00a019491231\u2014002X",
        "110105/19491231/002X",
        "身份证 11010519491231002x。",
        "ID11010519491231002X",
        "１１０１０５１９４９１２３１００２Ｘ",
        "old 110105491231002.",
        "of 110105 491231 002",
        "张三 13800138000",
        "tel13800138000",
        "phone 138 0013 8000",
        "138-0013-8000",
        "+86 138 0013 8000",
        "008613800138000",
    ],
)
def test_what_names_a_person(text: str) -> None:
    assert names_person(text) and names_somebody(text)


@pytest.mark.parametrize(
    "text", [stored.LICENCE_CODE, f"hall-{stored.LICENCE_CODE}", f"x{stored.LICENCE_CODE.lower()}.1", "E12345678"]
)
def test_what_names_a_company_or_reads_as_an_identifier(text: str) -> None:
    assert names_somebody(text) and not names_person(text)


@pytest.mark.parametrize(
    "text",
    [
        "31-2026-0001",
        "131-2026-0001",
        "110105194912310021-0001",  # no check digit of anybody
        "20261130-310117-000001-handle",
        "0192f3a4-7c1e-7d2b-9f00-3b5d8e6a1c47",
        "0192f3a4-7c1e-7d2b-9f00-13800138000a",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "case 11370800MB285591843370117002011202511230001",  # the code of an item, begun by an authority's; day; number
        "No. 110105194912310021",
        "Order 809 (2025)",
        "handle-application",
        "",
    ],
)
def test_what_only_looks_so(text: str) -> None:
    assert not names_somebody(text) and not names_person(text)


def test_what_this_hub_makes_itself_names_nobody() -> None:
    assert not any(names_somebody(str(uuid.UUID(int=number * 2**117 // 7919))) for number in range(2000))
    assert not any(names_somebody(code) for code in catalogue.published())
