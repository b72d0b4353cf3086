"""Sums of money in the spellings that sources use."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from mappings import amounts


def one(value: str | None) -> tuple[str | None, str | None, str | None]:
    money, problems = amounts.amount(pa.array([value], pa.string()))
    found = money[0].as_py() or {"amount": None, "currency": None}
    number = found["amount"]
    return (None if number is None else f"{number.normalize():f}"), found["currency"], problems[0].as_py()


@pytest.mark.parametrize(
    ("value", "number", "currency"),
    [
        ("1,000(万元人民币)", "10000000", "CNY"),
        ("15,735(万人民币元)", "157350000", "CNY"),
        ("51.5万元", "515000", "CNY"),
        ("200万(元)", "2000000", "CNY"),
        ("9万人民币元", "90000", "CNY"),
        ("60.36万人民币", "603600", "CNY"),
        ("10(万元(人民币))", "100000", "CNY"),
        ("人民币100万元整", "1000000", "CNY"),
        ("RMB 1,234.50", "1234.5", "CNY"),
        ("￥88", "88", "CNY"),
        ("１，０００（万元）", "10000000", "CNY"),
        ("3亿元", "300000000", "CNY"),
        ("2千万元", "20000000", "CNY"),
        ("6,650.0020(万美元)", "66500020", "USD"),
        ("USD 200", "200", "USD"),
        ("165.2000(万瑞士法郎)", "1652000", "CHF"),
        ("1,000,000(万日元)", "10000000000", "JPY"),
        ("25,000(万港元)", "250000000", "HKD"),
        ("20万欧元", "200000", "EUR"),
        ("0(万元)", "0", "CNY"),
        ("0.00005元", "0.0001", "CNY"),
        ("-5万元", "-50000", "CNY"),
    ],
)
def test_number_and_currency(value: str, number: str, currency: str) -> None:
    assert one(value) == (number, currency, None)


@pytest.mark.parametrize("value", ["5,168(万)", "1000", "0(万)"])
def test_a_missing_currency_is_not_guessed(value: str) -> None:
    number, currency, problem = one(value)
    assert number is not None and currency is None and problem == "amount-missing-currency"


@pytest.mark.parametrize(
    "value",
    ["#万人民币", "(万美元 )", "AHMED YAHYA A", "100(万火星币)", "1.2.3万", "1000美元(折合7000元)", "9" * 17, "9" * 14 + "亿元", "壹佰万元"],
)  # fmt: skip
def test_unreadable(value: str) -> None:
    assert one(value) == (None, None, "amount-unreadable")


@pytest.mark.parametrize("value", [None, "", " ", "-", "－", "N/A", "n/a", "null", "NULL", "\\n", "\\N"])
def test_nothing_is_null_without_a_problem(value: str | None) -> None:
    assert one(value) == (None, None, None)


def test_shape_and_type() -> None:
    values = pa.chunked_array([["5万元", None], ["x", "5万元"]])
    money, problems = amounts.amount(values)
    assert money.type == amounts.MONEY
    assert [part and part["amount"] for part in money.to_pylist()] == [Decimal(50000), None, None, Decimal(50000)]
    assert problems.to_pylist() == [None, None, "amount-unreadable", None]
    empty, none = amounts.amount(pa.array([], pa.string()))
    assert empty.type == amounts.MONEY and len(empty) == len(none) == 0


def test_real_spellings(shared_data: Path) -> None:
    values: list[str] = []
    for register in sorted((shared_data / "enterprises").glob("*.csv")):
        with open(register, encoding="utf-8-sig", newline="") as lines:
            values += [row["注册资金"] for row in csv.DictReader(lines)]
    money, problems = amounts.amount(pa.array(values))
    odd = {value for value, problem in zip(values, problems.to_pylist(), strict=True) if problem}
    assert len(values) > 20_000 and len(odd) <= 3, "one person's name and two sums without currency"
    for value, found in zip(values, money.to_pylist(), strict=True):
        if value in ("N/A", "-") or value in odd:
            continue
        digits = Decimal("".join(character for character in value if character in "0123456789."))
        assert found["amount"] == digits * 10_000, value
