"""Invented companies of four provinces, one file a province and registration year, in the registers' own form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from demo import names, places
from demo.columns import Bytes, Integers, constant, dates, day, digits, join, pick, strings, written
from demo.forms import Csv
from mappings.checksums import GB_32100, mod_11_10, mod_31

COLUMNS = ("企业名称", "统一社会信用代码", "注册日期", "企业类型", "注册资金", "所在省份", "地区")
BLOCK = 65_536
REFORM = day("2015-10-01")  # credit codes take the place of registration numbers


@dataclass(frozen=True)
class Register:
    """One file. ``old``: share of companies still under an old registration number."""

    folder: str
    prefix: str
    province: str
    year: int
    form: Csv
    old: float

    @property
    def name(self) -> str:
        return f"amr/{self.folder}/{self.year}-{self.province}.csv"


def _form(end: str, encoding: str = "utf-8", marked: bool = False) -> Csv:
    return Csv(columns=COLUMNS, encoding=encoding, marked=marked, end=end)


REGISTERS = (
    Register("sh", "31", "上海", 2013, _form("\n"), 0.08),
    Register("sh", "31", "上海", 2021, _form("\n"), 0.005),
    Register("js", "32", "江苏", 2013, _form("\n", "gb18030"), 0.10),
    Register("js", "32", "江苏", 2021, _form("\r\n", "gb18030"), 0.005),
    Register("zj", "33", "浙江", 2013, _form("\r\n", marked=True), 0.08),
    Register("zj", "33", "浙江", 2021, _form("\n", marked=True), 0.005),
    Register("ah", "34", "安徽", 2013, _form("\n", "gb18030", marked=True), 0.08),
    Register("ah", "34", "安徽", 2021, _form("\n", "gb18030"), 0.005),
)

# What the number of a company is: a credit code, or an old number of 15 or 13 characters or in words.
CREDIT, FIFTEEN, THIRTEEN, COOPERATIVE, FOREIGN = range(5)
OLD_SHARES = (0.80, 0.10, 0.06, 0.04)

TYPES = (
    "N/A",
    "有限责任公司",
    "有限责任公司 外商投资企业",
    "有限责任公司 港、澳、台",
    "股份有限公司",
    "有限合伙",
    "分公司",
)
TYPE_SHARES = (0.45, 0.48, 0.02, 0.01, 0.02, 0.01, 0.01)

_AMOUNTS = ("5", "10", "50", "65.5", "100", "200", "300", "500", "1,000", "1,200.5", "5,000")
_SPELLINGS = (
    *(("{}(万元人民币)", "CNY"),) * 10, *(("{}万人民币", "CNY"),) * 4, *(("{}万元人民币", "CNY"),) * 4,
    *(("{}(万元)", "CNY"),) * 3, ("{}(万人民币元)", "CNY"), ("{}(万元(人民币))", "CNY"),
    ("{}(万美元)", "USD"), ("{}(万美元 )", "USD"), ("{}(万港元)", "HKD"), ("{}(万日元)", "JPY"), ("{}万欧元", "EUR"),
)  # fmt: skip
# (as written, amount in units of the currency, currency); the last ones say nothing
_CAPITALS = [
    *((text.format(amount), Decimal(amount.replace(",", "")) * 10_000, currency)
      for text, currency in _SPELLINGS for amount in _AMOUNTS),
    *(("N/A", None, None),) * 25, *(("-", None, None),) * 4,
]  # fmt: skip


@dataclass(frozen=True)
class Companies:
    """A block of one register; ``number`` counts over all registers."""

    number: Integers
    kind: Integers
    region: Integers
    registered: Integers  # days since 1970
    capital: pa.Array
    currency: pa.StringArray
    city: pa.StringArray
    table: pa.Table


def blocks(register: Register, first: int, count: int, seed: int) -> Iterator[tuple[Companies, np.random.Generator]]:
    """``count`` companies of a register, numbered from ``first``."""
    place = REGISTERS.index(register)
    for number, start in enumerate(range(0, count, BLOCK)):
        rng = np.random.default_rng([seed, 2, place, number])
        yield _block(rng, register, first + start, min(BLOCK, count - start), last=start + BLOCK >= count), rng


def _block(rng: np.random.Generator, register: Register, first: int, n: int, last: bool) -> Companies:
    number = first + np.arange(n, dtype=np.int64)
    region = places.registered(rng, register.prefix, register.year, n)
    city = places.cities(region)
    begin = day(f"{register.year}-01-04")
    registered = begin + rng.integers(0, day(f"{register.year}-12-29") - begin, n)
    kind = np.where(rng.random(n) < register.old, 1 + rng.choice(4, size=n, p=OLD_SHARES), CREDIT)
    capital = rng.integers(0, len(_CAPITALS), n)
    table = pa.table(
        {
            "企业名称": names.companies(rng, city),
            "统一社会信用代码": _numbers(number, kind, region, city, register.year),
            "注册日期": dates(registered).cast(pa.string()),
            "企业类型": pick(TYPES, rng.choice(len(TYPES), size=n, p=TYPE_SHARES)),
            "注册资金": pick([text for text, _, _ in _CAPITALS], capital),
            "所在省份": pick((register.province,), np.zeros(n, dtype=np.int64)),
            "地区": city,
        }
    )
    return Companies(
        number=number,
        kind=kind,
        region=region,
        registered=registered,
        capital=pa.array([amount for _, amount, _ in _CAPITALS], pa.decimal128(20, 4)).take(pa.array(capital)),
        currency=pick([currency for _, _, currency in _CAPITALS], capital),
        city=city,
        table=table,
    )


def generations(
    register: Register, block: Companies, value: pa.StringArray
) -> tuple[pa.StringArray, pa.StringArray, Integers]:
    """The registration number and the credit code of each company, null where it has none, and the day the code came.

    ``value``: the number that the company has in its register. Companies of 2013 got a credit code after the reform of
    October 2015, also those whose row in the register still has the old number.
    """
    credit, fifteen = pa.array(block.kind == CREDIT), pa.array(block.kind == FIFTEEN)
    changed = REFORM + block.number * 7_919 % 800
    if register.year > 2015:
        return pc.if_else(credit, None, value), pc.if_else(credit, value, None), np.minimum(changed, block.registered)
    regions = digits(block.region, 6)
    codes = strings(credit_codes(block.number, regions, register.year))
    old = pc.if_else(credit, strings(_fifteen(regions, block.number)), value)
    return old, pc.if_else(credit, value, pc.if_else(fifteen, codes, None)), changed


def _fifteen(regions: Bytes, number: Integers) -> Bytes:
    body = np.concatenate([regions, digits(number, 8)], axis=1)
    return np.concatenate([body, mod_11_10(body)[:, None]], axis=1)


def _numbers(number: Integers, kind: Integers, region: Integers, city: pa.StringArray, year: int) -> pa.StringArray:
    regions = digits(region, 6)
    serial = digits(number, 8)
    fifteen = _fifteen(regions, number)
    thirteen = np.concatenate([regions, serial[:, 1:]], axis=1)
    worded = join(strings(regions), "NA", strings(digits(number % 1_000_000, 6)), "X")
    foreign = join("企合", pc.utf8_slice_codeunits(city, 0, 1), "分字第", strings(digits(number, 6)))
    return pc.choose(
        pa.array(kind),
        strings(credit_codes(number, regions, year)),
        strings(fifteen),
        strings(thirteen),
        worded,
        foreign,
    )


def credit_codes(number: Integers, regions: Bytes, year: int) -> Bytes:
    """Credit codes of companies (91), shape (n, 18), one for each number.

    Registrations since the reform of October 2015 have subject codes that begin with MA; older ones keep the digits of
    their organisation code.
    """
    n = len(number)
    if year > 2015:
        # Multiplying by a number prime to the modulus scatters without ever meeting.
        scattered = (number * 377_149_847 + 55_987) % 31**6
        subject = np.concatenate([constant("MA", n), written(scattered, GB_32100, 6)], axis=1)
    else:
        subject = digits((number * 73_939_133 + 1_234_567) % 10**8, 8)
    body = np.concatenate([constant("91", n), regions, subject, _organisation_check(subject)[:, None]], axis=1)
    return np.concatenate([body, mod_31(body)[:, None]], axis=1)


def _organisation_check(subject: Bytes) -> Bytes:
    """Check character of an organisation code (GB 11714) over eight characters, MOD 11 with X for ten."""
    values = np.where(subject >= ord("A"), subject.astype(np.int64) - 55, subject.astype(np.int64) - 48)
    check = 11 - values @ np.array([3, 7, 9, 10, 5, 8, 4, 2]) % 11
    return np.frombuffer(b"00123456789X0"[1:], dtype=np.uint8)[np.where(check == 11, 0, check)]
