"""How two persons are compared: what agrees, to which level, and what each level is worth.

The weights are fixed figures, not learnt from the records at hand: a record scores the same whichever others wait with
it, today and in a rebuild. ``m`` is how often the level is met between a record and the person it is about, ``u`` how
often between a record and anybody else; where both come from stands in docs/decisions/0009-matching.md. A name's ``u``
is its frequency among the people known, so that a rare name says more. What is missing on either side says nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

CAP = 500  # persons in a block; a larger one is not searched, and the record says so
KEPT = 10  # candidates in the queue for one record
THRESHOLD = -4.0  # log2 of the odds below which somebody is no candidate: about one in seventeen


@dataclass(frozen=True)
class Level:
    """One degree of agreement. ``sql``: over columns ending in ``_l`` and ``_r``; ``frequency``: the column whose
    frequency takes the place of ``u``."""

    code: str
    zh: str
    en: str
    sql: str
    m: float
    u: float
    frequency: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Levels from the closest to none; the last one takes what is left over. ``missing``: when there is nothing to say."""

    name: str
    zh: str
    en: str
    missing: str
    levels: tuple[Level, ...]


def _either(column: str) -> str:
    return f"{column}_l IS NULL OR {column}_r IS NULL"


_REST = "ELSE"
COMPARISONS = (
    Comparison(
        "name", "姓名", "name", _either("folded"),
        (
            Level("exact", "完全一致", "the same", "name_l = name_r", 0.60, 1e-5, "folded"),
            Level("folded", "繁简、全半角折合后一致", "the same in simplified, half-width characters",
                  "folded_l = folded_r", 0.20, 1e-5, "folded"),
            Level("pinyin", "读音一致", "the same reading",
                  "pinyin_l = pinyin_r OR turned_l = pinyin_r OR turned_r = pinyin_l", 0.10, 1e-5, "pinyin"),
            # Names that become one when a character is left out of either: one other, one more, two turned round.
            Level("near", "差一个字", "one character different",
                  "length(folded_l) > 2 AND length(folded_r) > 2 AND list_has_any(shortened_l, shortened_r)"
                  " OR (folded_l = pinyin_l OR folded_r = pinyin_r) AND damerau_levenshtein(pinyin_l, pinyin_r) = 1",
                  0.075, 6e-4),
            Level("near-short", "两字姓名差一个字", "one of two characters different",
                  "list_has_any(shortened_l, shortened_r)", 0.015, 5e-4),
            Level("different", "不同", "different", _REST, 0.01, 0.9989),
        ),
    ),
    Comparison(
        "born", "出生日期", "date of birth", _either("born"),
        (
            Level("exact", "一致", "the same", "born_l = born_r", 0.90, 4.7e-5),
            Level("swapped", "月日互换", "month and day swapped",
                  "left(born_l, 4) = left(born_r, 4) AND substr(born_l, 5, 2) = right(born_r, 2)"
                  " AND right(born_l, 2) = substr(born_r, 5, 2)", 0.03, 1e-5),
            Level("digit", "差一位数字", "one digit different", "hamming(born_l, born_r) = 1", 0.05, 1.1e-3),
            Level("year", "同年", "the same year", "left(born_l, 4) = left(born_r, 4)", 0.01, 0.0132),
            Level("different", "不同", "different", _REST, 0.01, 0.9857),
        ),
    ),
    Comparison(
        "sex", "性别", "sex", _either("sex"),
        (
            Level("same", "一致", "the same", "sex_l = sex_r", 0.985, 0.5),
            Level("different", "不同", "different", _REST, 0.015, 0.5),
        ),
    ),
    Comparison(
        "region", "行政区划", "region", _either("region"),
        (
            Level("county", "同一区县", "the same county or district", "region_l = region_r", 0.83, 0.0625),
            Level("city", "同一市", "the same city", "left(region_l, 4) = left(region_r, 4)", 0.13, 0.90),
            Level("province", "同一省", "the same province", "left(region_l, 2) = left(region_r, 2)", 0.02, 0.02),
            Level("different", "不同", "different", _REST, 0.02, 0.0175),
        ),
    ),
    Comparison(
        "address", "住址", "address", _either("address"),
        (
            Level("exact", "一致", "the same", "address_l = address_r", 0.70, 2e-5),
            Level("contained", "其中一个包含另一个", "one contains the other",
                  "length(address_l) > 5 AND length(address_r) > 5"
                  " AND (contains(address_l, address_r) OR contains(address_r, address_l))", 0.08, 1e-5),
            # DuckDB counts bytes: one Chinese character, or up to three digits.
            Level("near", "略有出入", "almost the same",
                  "length(address_l) > 8 AND levenshtein(address_l, address_r) <= 3", 0.07, 6e-5),
            Level("different", "不同", "different", _REST, 0.15, 0.9999),
        ),
    ),
    Comparison(
        "number", "原写证件号码", "number as written", _either("number"),
        (
            Level("near", "差一位或相邻两位互换", "one character different, or two neighbours swapped",
                  "damerau_levenshtein(number_l, number_r) <= 1", 0.80, 7e-6),
            Level("different", "不同", "different", _REST, 0.20, 0.999993),
        ),
    ),
)  # fmt: skip

# What is derived from a name for its comparison alone.
DERIVED = {
    "shortened": "list_transform(range(1, least(length(folded), 12) + 1),"
    " lambda i: left(folded, i - 1) || substr(folded, i + 1))",
}

# Who is compared with whom: records and people that share one of these. Null: the rule does not hold for the row.
BLOCKS = {
    "number-head": "left(number, 17)",
    "number-tail": "CASE WHEN length(number) = 18 THEN substr(number, 7) END",
    "name-year": "folded || left(born, 4)",
    "reading-year": "pinyin || left(born, 4)",
    "turned-year": "coalesce(turned, pinyin) || left(born, 4)",
    "reading-day": "pinyin || right(born, 4)",
    "born-first": "born || left(pinyin, 1)",
    "born-last": "born || right(folded, 1)",
    "reading-region": "pinyin || region",
    "address": "address",
    "name": "folded",
    "reading": "pinyin",
}


def settings(people: int) -> dict[str, Any]:
    """The settings Splink works by, for ``people`` known: one of them is whom a record is about, if any is."""
    return {
        "link_type": "link_only",
        "unique_id_column_name": "place",
        "probability_two_random_records_match": 1 / max(people, 2),
        "retain_matching_columns": True,  # the levels go with them
        "retain_intermediate_calculation_columns": True,
        "comparisons": [_described(one) for one in COMPARISONS],
        "blocking_rules_to_generate_predictions": [
            {"blocking_rule": f'l."{rule}" = r."{rule}"', "sql_dialect": "duckdb"} for rule in BLOCKS
        ],
    }


def digest() -> str:
    """Of all that decides who becomes a candidate: kept with each run."""
    said = [[(v.code, v.sql, v.m, v.u, v.frequency) for v in one.levels] + [one.missing] for one in COMPARISONS]
    return hashlib.sha256(json.dumps([said, BLOCKS, CAP, KEPT, THRESHOLD]).encode()).hexdigest()[:16]


def words(comparison: str, level: str, language: str) -> tuple[str, str]:
    """A comparison and its level in words, ``language`` ``zh`` or ``en``; ``missing`` where one side says nothing."""
    one = next(one for one in COMPARISONS if one.name == comparison)
    if level == MISSING:
        return getattr(one, language), {"zh": "缺失", "en": "missing"}[language]
    return getattr(one, language), getattr(next(v for v in one.levels if v.code == level), language)


MISSING = "missing"


def _described(one: Comparison) -> dict[str, Any]:
    levels: list[dict[str, Any]] = [{"sql_condition": one.missing, "is_null_level": True, "label_for_charts": MISSING}]
    for level in one.levels:
        known: dict[str, Any] = {
            "sql_condition": level.sql,
            "label_for_charts": level.code,
            "m_probability": level.m,
            "u_probability": level.u,
        }
        if level.frequency:
            known |= {"tf_adjustment_column": level.frequency, "disable_tf_exact_match_detection": True}
        levels.append(known)
    return {"output_column_name": one.name, "comparison_levels": levels}
