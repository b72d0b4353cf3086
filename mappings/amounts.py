"""Sums of money in any spelling: ``1,000(万元人民币)``, ``51.5万元``, ``USD 200``, ``(万元(人民币))``.

Everything runs over the distinct values of a column; spellings are folded (full width, brackets, commas) until what is
left is a number, a multiplier and one of the words of :data:`CURRENCIES`.
"""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from mappings import cleaning

MONEY = pa.struct([("amount", pa.decimal128(20, 4)), ("currency", pa.string())])

# ISO 4217 code -> words that sources use, upper-case, multiplier and brackets left out.
CURRENCIES: dict[str, tuple[str, ...]] = {
    "CNY": (
        "元",
        "圆",
        "人民币",
        "人民币元",
        "元人民币",
        "人民币圆",
        "RMB",
        "RMB元",
        "元RMB",
        "CNY",
        "CNY元",
        "¥",
        "￥",
        "¥元",
    ),
    "USD": ("美元", "美金", "美圆", "USD", "US$", "$", "USD美元", "美元USD"),
    "EUR": ("欧元", "欧", "EUR", "€"),
    "JPY": ("日元", "日圆", "日币", "JPY"),
    "HKD": ("港元", "港币", "港币元", "港圆", "香港元", "HKD", "HK$"),
    "MOP": ("澳门元", "澳门币", "澳门圆", "MOP"),
    "TWD": ("新台币", "台币", "新台币元", "新台湾元", "台湾元", "TWD", "NT$"),
    "GBP": ("英镑", "GBP", "£"),
    "CHF": ("瑞士法郎", "CHF"),
    "CAD": ("加元", "加拿大元", "加币", "CAD"),
    "AUD": ("澳元", "澳大利亚元", "澳洲元", "澳币", "AUD"),
    "NZD": ("新西兰元", "纽元", "NZD"),
    "SGD": ("新加坡元", "新元", "新加坡币", "SGD"),
    "KRW": ("韩元", "韩国元", "韩圆", "韩币", "KRW"),
    "RUB": ("卢布", "俄罗斯卢布", "RUB"),
    "SEK": ("瑞典克朗", "SEK"),
    "DKK": ("丹麦克朗", "DKK"),
    "NOK": ("挪威克朗", "NOK"),
    "THB": ("泰铢", "泰国铢", "THB"),
    "MYR": ("林吉特", "马来西亚林吉特", "马币", "MYR"),
    "INR": ("卢比", "印度卢比", "INR"),
    "DEM": ("德国马克", "马克", "DEM"),
    "FRF": ("法国法郎", "FRF"),
    "ITL": ("意大利里拉", "里拉", "ITL"),
}

_MULTIPLIERS = {
    "": 1, "百": 100, "千": 1_000, "万": 10_000, "十万": 100_000, "百万": 1_000_000, "千万": 10_000_000,
    "亿": 100_000_000, "万亿": 1_000_000_000_000,
}  # fmt: skip

_WORDS = [word for words in CURRENCIES.values() for word in words]
_CODES = [code for code, words in CURRENCIES.items() for _ in words]

# Fourteen digits and ten decimals times a multiplier of thirteen digits fill the 38 that Arrow has.
_NUMBER = pa.decimal128(24, 10)
_MULTIPLIER = pa.decimal128(13, 0)
_SPELLING = r"^(?P<before>[^0-9+.-]*)(?P<number>[+-]?[0-9]{1,14}(?:\.[0-9]{1,10})?)\.?(?P<after>[^0-9]*)$"
_LIMIT = pa.scalar(Decimal(10**16), pa.decimal128(38, 10))


def amount(values: pa.Array | pa.ChunkedArray) -> tuple[pa.StructArray, pa.StringArray]:
    """Number and currency of each value, and what is wrong with it.

    Returns a struct array (n,) of :data:`MONEY`, the multiplier worked in and rounded to four decimals, and problem
    codes (n,), null where all is well: ``amount-unreadable`` (the value is null), ``amount-missing-currency`` (the
    number stands, its currency is null). What says "nothing" is null without a problem. 元 alone means CNY.
    """
    encoded = cleaning.strings(values).dictionary_encode()
    money, problems = _distinct(encoded.dictionary)
    return money.take(encoded.indices), problems.take(encoded.indices)


def _distinct(values: pa.StringArray) -> tuple[pa.StructArray, pa.StringArray]:
    text = cleaning.trimmed(values)
    bare = pc.replace_substring_regex(pc.ascii_upper(text), r"[\s,_'\"]+", "")
    found = pc.extract_regex(bare, _SPELLING)
    words = pc.binary_join_element_wise(pc.struct_field(found, "before"), pc.struct_field(found, "after"), "")
    words = pc.replace_substring_regex(words, r"[()\[\]{}<>:;。整]+", "")
    multiplier = pc.struct_field(pc.extract_regex(words, r"^[^十百千万亿]*(?P<of>[十百千万亿]*)"), "of")
    scale = _look_up(multiplier, list(_MULTIPLIERS), pa.array(map(Decimal, _MULTIPLIERS.values()), _MULTIPLIER))
    word = pc.replace_substring_regex(words, r"[十百千万亿]+", "", max_replacements=1)
    currency = _look_up(word, _WORDS, pa.array(_CODES))

    number = pc.struct_field(found, "number").cast(_NUMBER)
    total = pc.round(pc.multiply(number, scale), ndigits=4, round_mode="half_towards_infinity")
    fits = pc.less(pc.abs(total), _LIMIT)
    readable = pc.fill_null(pc.and_(fits, pc.or_(currency.is_valid(), pc.equal(word, ""))), False)
    total = pc.if_else(readable, total, None).cast(pa.decimal128(20, 4))
    currency = pc.if_else(readable, currency, None)

    problems = pc.if_else(
        readable, pc.if_else(currency.is_valid(), None, "amount-missing-currency"), "amount-unreadable"
    )
    problems = pc.if_else(text.is_valid(), problems, None)
    missing = pc.invert(readable)
    return pa.StructArray.from_arrays([total, currency], fields=list(MONEY), mask=missing), problems.cast(pa.string())


def _look_up(values: pa.StringArray, words: list[str], results: pa.Array) -> pa.Array:
    """The result that stands in the place of each value among ``words``; null where it is none."""
    return results.take(pc.index_in(values, value_set=pa.array(words)))
