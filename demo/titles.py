"""Titles to real estate: homes of households, of people from overseas, and premises of companies."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from demo import dirt, lives, names, overseas, places
from demo.columns import Integers, calendar, dates, day, digits, join, pick, reworded, strings
from demo.dirt import Kind
from demo.employers import ORGANISATION, Employers
from demo.lives import YEAR, Lives
from demo.overseas import PASSPORT, Overseas
from demo.population import HEAD, UNTIL, People
from demo.records import Records
from demo.spreadsheet import SERIAL_ZERO, Sheet

MATERIAL = "real-estate-title"
FILES = "mnr/titles-{}.xlsx"
LIMIT = 200_000  # rows of a workbook
NUMBER, DAY, STATE = "登记/证号", "登记/登记日期", "登记/状态"
OWNER, TYPE, ID = "权利人/姓名", "权利人/证件种类", "权利人/证件号码"
UNIT, PLACE, REGION, AREA = "不动产/单元号", "不动产/坐落", "不动产/行政区划", "不动产/面积(㎡)"
REMARK = "备注"
COLUMNS = (NUMBER, DAY, STATE, OWNER, TYPE, ID, UNIT, PLACE, REGION, AREA, REMARK)
FORM = Sheet("不动产权登记", COLUMNS, days=(DAY,), numbers=(AREA,), mixed=(ID,))
STATES = ("现势", "查封", "注销")
HOLDING = ("in_force", "suspended", "cancelled")
TYPES = {"01": "身份证", "02": "护照", ORGANISATION: "统一社会信用代码"}
OWNED, SECOND = 0.42, 0.06  # of households
EARLIEST = day("1996-01-01")

DIRT = (
    Kind("number-cell", "rejected", ID, dirt.rounded, dirt.RESIDENT_ID),
    Kind("wrong-check-digit", "quarantined", ID, dirt.wrong_check_digit, dirt.RESIDENT_ID),
    Kind("not-available", "accepted", REMARK, dirt.always("N/A", "-", "\\n")),
    Kind("lower-case-x", "accepted", ID, dirt.lower_case, "^[0-9]{17}X$"),
    Kind("repeated-row", "repeated", None, dirt.repeated),
    Kind("full-width-digits", "accepted", ID, dirt.full_width, dirt.RESIDENT_ID),
    Kind("unlisted-region", "flagged", REGION, dirt.unlisted_region),
    Kind("spaced-out", "accepted", ID, dirt.spaced_out, dirt.RESIDENT_ID),
)


def titles(people: People, led: Lives, them: Overseas, firms: Employers, rng: np.random.Generator) -> Records:
    """Homes of a block, in the order of their registration."""
    heads = np.flatnonzero((people.role == HEAD) & (people.born + 23 * YEAR < UNTIL))
    first, second = (heads[rng.random(len(heads)) < share] for share in (OWNED, SECOND))
    household = people.household[np.concatenate([first, second])]
    # The head or the spouse is entered.
    who = np.concatenate([first, second])
    who = np.where((people.spouse[who] >= 0) & (rng.random(len(who)) < 0.3), people.spouse[who], who)
    since = _between(np.maximum(people.born[who] + (23 * YEAR), EARLIEST), rng)
    foreign = np.flatnonzero(
        (them.kinds[:, 0] == PASSPORT) & overseas.grown(them, UNTIL, 30) & (rng.random(len(them)) < 0.25)
    )
    bought = _between(np.maximum(them.born[foreign] + 28 * YEAR, day("2004-01-01")), rng)
    # Only passports and resident IDs are entered: who has a permit by now bought before.
    bought = np.where((them.kinds[foreign, 1] != PASSPORT) & (them.changed[foreign] != lives.NEVER),
                      np.minimum(bought, them.changed[foreign] - 1), bought)  # fmt: skip
    local = firms.of("31")
    owners = rng.choice(local, size=-(-len(people) // 300)) if len(local) else local
    acquired = _between(firms.registered[owners], rng)
    owner = (
        lives.residents(people, led, who, since, rng)
        + overseas.named(them, foreign, bought)
        + firms.named(owners, acquired, rng)
    )
    serial = np.concatenate([
        household + np.repeat([0, 30_000_000], [len(first), len(second)]),
        them.number[foreign] + 10_000_000,
        people.start // 200 + 20_000_000 + np.arange(len(owners)),
    ])  # fmt: skip
    region = np.concatenate([people.home[who], places.homes(rng, len(foreign) + len(owners))])
    days = np.concatenate([since, bought, acquired])
    order = np.argsort(days, kind="stable")
    owner, serial, region, days = owner.take(order), serial[order], region[order], days[order]
    n = len(owner)
    state = rng.choice(3, size=n, p=(0.94, 0.02, 0.04))
    district = places.full_names(region)
    number = _numbers(places.cities(region), serial, days)
    table = pa.table(
        {
            NUMBER: number,
            DAY: _written(days, rng),
            STATE: pick(STATES, state),
            OWNER: owner.name,
            TYPE: reworded(owner.type, TYPES),
            ID: owner.number,
            UNIT: _units(region, serial),
            PLACE: names.addresses(rng, district),
            REGION: strings(digits(region, 6)),
            AREA: _areas(n, rng),
            REMARK: pick(("", "共同共有", "单独所有", "补证"), rng.choice(4, size=n, p=(0.7, 0.15, 0.14, 0.01))),
        }
    )
    return Records(
        material=MATERIAL, table=table, identifier=number, holders=[owner.holder], subjects=[owner.subject],
        begins=dates(days), ends=pa.nulls(n, pa.date32()), status=pick(HOLDING, state),
    )  # fmt: skip


def _between(earliest: Integers, rng: np.random.Generator) -> Integers:
    begin = np.minimum(np.asarray(earliest).astype(np.int64), UNTIL - 1)
    return begin + (rng.random(len(begin)) * (UNTIL - begin)).astype(np.int64)


def _numbers(district: pa.StringArray, serial: Integers, days: Integers) -> pa.StringArray:
    """沪(2019)浦字不动产权第00012345号; before the registers were united in 2016 沪房地浦字(2005)第00012345号."""
    letter, year = pc.utf8_slice_codeunits(district, 0, 1), strings(digits(calendar(days)[0], 4))
    end = join("第", strings(digits(serial, 8)), "号")
    united = join("沪(", year, ")", letter, "字不动产权", end)
    return pc.if_else(pa.array(days >= day("2016-10-08")), united, join("沪房地", letter, "字(", year, ")", end))


def _written(days: Integers, rng: np.random.Generator) -> pa.StringArray:
    """Most as days of the spreadsheet, some as their bare number, a few as text of several kinds."""
    text = dates(days).cast(pa.string())
    serial = pa.array(days + SERIAL_ZERO).cast(pa.string())
    bare = pc.replace_substring(text, "-", "")
    slashed = pc.replace_substring(text, "-", "/")
    worded = pc.replace_substring_regex(text, "^(....)-(..)-(..)$", r"\1年\2月\3日")
    form = rng.choice(5, size=len(days), p=(0.86, 0.10, 0.015, 0.015, 0.01))
    return pc.choose(pa.array(form), text, serial, bare, slashed, worded)


def _units(region: Integers, serial: Integers) -> pa.StringArray:
    """28 characters: county, cadastral district and zone, parcel, building and unit."""
    return join(
        strings(digits(region, 6)), strings(digits(serial % 997, 6)), "GB", strings(digits(serial % 9_973, 5)), "F",
        strings(digits(serial, 8)),
    )  # fmt: skip


def _areas(n: int, rng: np.random.Generator) -> pa.StringArray:
    hundredths = (rng.gamma(9, 1_000, n)).astype(np.int64) + 2_000
    whole, rest = pa.array(hundredths // 100).cast(pa.string()), strings(digits(hundredths % 100, 2))
    return join(whole, ".", rest)
