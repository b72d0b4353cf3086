"""hub/mentions.py: what names somebody, in whatever way it is written, and what only looks so."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections.abc import Callable

import pytest

from hub import catalogue
from hub.mentions import RECENT, names_person, names_somebody
from mappings import regions, scalars
from tests import residents, stored


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
        "110105,19491231,002X",
        "110105，19491231，002X",
        "110105:19491231;002X",
    ],
)
def test_what_names_a_person(text: str) -> None:
    assert names_person(text) and names_somebody(text)


@pytest.mark.parametrize(
    "text",
    [
        stored.LICENCE_CODE,
        f"hall-{stored.LICENCE_CODE}",
        f"x{stored.LICENCE_CODE.lower()}.1",
        "91310117-MA1J3AJ43G",
        "91/310117/MA1J3AJ43G",
        "91110000100000489L",  # in a division that no list has
        "E12345678",
        "ea1234567",
        "passport: AB1234567",
        "cn.orgcode:MA1J3AJ43",
    ],
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
        "MA1J3AJ43",  # the code of an organisation, and one number of a year in eleven
        "2026-00004",
        "SH26-00017",
        "SH2600017",
        "E20260017",
        "G-12345678",
        "3101152600017",  # 13 digits: an old registration number, without a check digit
        "20261130-0012345",
        "XZJ202601121234",
        "沪浦字第2026-12号",
        "311018203011300019",  # a day that nobody was born on yet
        "handle-application",
        "",
    ],
)
def test_what_only_looks_so(text: str) -> None:
    assert not names_somebody(text) and not names_person(text)


def test_what_this_hub_makes_itself_names_nobody() -> None:
    assert not any(names_somebody(str(uuid.UUID(int=number * 2**117 // 7919))) for number in range(2000))
    assert not any(names_somebody(code) for code in catalogue.published())


CHANCE = random.Random(20261130)
TODAY = dt.date.today()


def number(digits: int) -> str:
    return f"{CHANCE.randrange(10**digits):0{digits}d}"


def day(*, years: int = 1) -> str:
    """One of the last ``years``."""
    return f"{TODAY - dt.timedelta(CHANCE.randrange(365 * years)):%Y%m%d}"


def region() -> str:
    return CHANCE.choice(COUNTIES)


COUNTIES = [code for code, named in regions.entries().items() if named[0].level == "county"]
CASES: dict[str, Callable[[int], str]] = {
    "2026-00004": lambda place: f"{TODAY.year}-{place:05d}",
    "260000004": lambda place: f"{260_000_000 + place}",
    "SH26-00017": lambda place: f"SH26-{place:05d}",
    "SH2600017": lambda place: f"SH26{place:05d}",
    "WX2600017": lambda place: f"WX26{place:05d}",
    "20261130-003": lambda place: f"{day()}-{place % 1000:03d}",
    "2026113000017": lambda place: f"{day()}{place:05d}",
    "202611300000017": lambda place: f"{day()}{number(7)}",
    "region, day, counter": lambda place: f"{region()}{day()}{place % 10_000:04d}",
    "the same in groups": lambda place: f"{region()}-{day()}-{place % 10_000:04d}",
    "two years old": lambda place: f"{region()}{TODAY - RECENT + dt.timedelta(1):%Y%m%d}{place % 10_000:04d}",
    "region, year, counter": lambda place: f"{region()}-{TODAY.year}-{number(8)}",
    "year, region, counter": lambda place: f"{TODAY.year}{region()}{number(8)}",
    "region, short day, counter": lambda place: f"{region()}{day()[2:]}{place % 1000:03d}",
    "longer": lambda place: f"{region()}{day()}{place:06d}",
    "letters": lambda place: f"XZJ{day()}{place % 10_000:04d}",
    "a time": lambda place: f"{day()}21{number(10)}",
    "UUID": lambda place: str(uuid.UUID(int=CHANCE.getrandbits(128), version=4)),
    "UUID, large": lambda place: str(uuid.UUID(int=CHANCE.getrandbits(128), version=4)).upper(),
    "UUID behind a word": lambda place: f"deposit_{uuid.UUID(int=CHANCE.getrandbits(128), version=4)}",
    "hexadecimal": lambda place: f"{CHANCE.getrandbits(128):032x}",
    "digest": lambda place: f"{CHANCE.getrandbits(256):064x}",
}


@pytest.mark.parametrize("form", CASES)
def test_ordinary_numbers_of_cases_name_nobody(form: str) -> None:
    made = [CASES[form](place) for place in range(10_000 if form.startswith(("UUID", "2026-")) else 3_000)]
    assert [one for one in made if names_somebody(one)] == []


def test_a_uuid_in_which_an_old_number_stands_is_a_uuid() -> None:
    assert names_somebody("310115491231002") and names_somebody("fa 310115491231002 af")
    for found in ("fa310115-4912-4310-802f-00000000ffcd", "fa310115-4912-3100-2f00-00000000ffcd"):
        assert not names_somebody(found) and not names_somebody(found.upper())
    assert names_somebody("fa110105-1949-1231-0021-0000000000cd".replace("0021", "002X")), (
        "what has a check digit is found"
    )


def test_every_number_of_a_person_is_found_in_every_dress() -> None:
    for _ in range(2000):
        born = dt.date(1930, 1, 1) + dt.timedelta(CHANCE.randrange((TODAY - RECENT - dt.date(1930, 1, 2)).days))
        whole = residents.number(f"{region()}{born:%Y%m%d}{number(3)}")
        mark = CHANCE.choice(" -./·")
        for text in (
            whole,
            whole.lower(),
            f"31{CHANCE.choice('-_ ')}{whole}/0001",
            mark.join((whole[:6], whole[6:14], whole[14:])),
            mark.join((whole[:3], whole[3:6], whole[6:10], whole[10:14], whole[14:])),
        ):
            assert names_person(text) and names_somebody(text), text
        assert names_somebody(f"{region()}{born:%y%m%d}{number(3)}") or (2000 + born.year % 100) >= TODAY.year - 2
        assert names_somebody(f"1{CHANCE.choice('3456789')}{number(9)}")


def test_every_company_is_found() -> None:
    letters = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    for place in range(1000):
        chosen = "".join(CHANCE.choices(letters if place % 2 else "0123456789", k=9))
        body = f"{CHANCE.choice(['91', '92', '93', '52', '33'])}{region()}{chosen}"
        [code] = [body + last for last in letters if scalars.parse(f"cn.uscc:{body}{last}").verdict != "invalid"]
        for text in (code, code.lower(), f"{code[:2]} {code[2:8]} {code[8:]}", f"{code[:8]}-{code[8:]}"):
            assert names_somebody(text), text


def test_the_number_of_a_party_is_found_of_whatever_age_and_kind() -> None:
    child = residents.number(f"310115{TODAY - dt.timedelta(30):%Y%m%d}001")
    while not child.isdecimal():
        child = residents.number(child[:14] + number(3))
    assert not names_somebody(child), "the day of a case, as far as anybody can tell"
    for text in (child, f"{child[:6]}-{child[6:14]}-{child[14:]}", f"x{child}-1"):
        assert names_somebody(text, (f"cn.ric:{stored.RESIDENT}", f"cn.ric:{child}"))
    assert names_somebody("MA1J3AJ43-1", ("cn.orgcode:MA1J3AJ43",)) and names_somebody(
        "310115-2600017", ["3101152600017"]
    )
    assert names_somebody("ab12345", ("passport:AB12345",)) and not names_somebody("2026-12345", ("passport:12345",))
    assert not names_somebody("2026-00004", (f"cn.ric:{child}", "", "cn.ric:"))
