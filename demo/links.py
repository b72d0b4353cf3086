"""Who changed a number, as the bodies that issue them say: documents of overseas persons, registrations of companies."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from demo import dirt, population
from demo.columns import Integers, dates, digits, join, pick, same, spaced, strings
from demo.companies import Companies, Register, generations
from demo.dirt import Kind
from demo.forms import Csv
from demo.lives import NEVER, scattered
from demo.overseas import PERMANENT, PERMIT, SCHEMES, TYPES, Overseas
from demo.population import UNTIL
from demo.records import Claims, Records, few

MATERIAL = "identity-link"
WRONG = 0.01  # of documents, for each kind of slip

DOCUMENTS = "nia/documents.csv"
DOCUMENT_FORM = Csv(("bgh", "xm", "xb", "csrq", "gj", "yzjlx", "yzjhm", "xzjlx", "xzjhm", "bgrq", "gxsj"))
EIGHTEEN = "^[0-9]{17}[0-9X]$"
DOCUMENT_DIRT = (
    Kind("wrong-check-digit", "quarantined", "xzjhm", dirt.wrong_check_digit, EIGHTEEN),
    Kind("scientific-notation", "rejected", "xzjhm", dirt.scientific, EIGHTEEN),
    Kind("odd-date", "accepted", "csrq", dirt.odd_date),
    Kind("repeated-row", "repeated", None, dirt.repeated),
    Kind("no-date", "flagged", "bgrq", dirt.always("N/A", "\\n")),
    Kind("too-many-columns", "rejected", None, dirt.too_many_columns),
    Kind("spaces", "accepted", "yzjhm", dirt.spaced_out),
)

CONVERSIONS = "samr/conversions.csv"
CONVERSION_FORM = Csv(("企业名称", "原注册号", "统一社会信用代码", "换发日期"), end="\r\n")
CONVERSION_DIRT = (
    Kind("wrong-check-digit", "quarantined", "统一社会信用代码", dirt.wrong_check_digit, "^9.{17}$"),
    Kind("scientific-notation", "rejected", "统一社会信用代码", dirt.scientific, "^9.{17}$"),
    Kind("odd-date", "accepted", "换发日期", dirt.odd_date),
    Kind("repeated-row", "repeated", None, dirt.repeated),
    Kind("full-width-digits", "accepted", "原注册号", dirt.full_width),
    Kind("too-few-columns", "rejected", None, dirt.too_few_columns),
)


def documents(them: Overseas, rng: np.random.Generator) -> tuple[Records, list[Claims]]:
    """Overseas persons who changed their document; a few rows say the number or the birth date of somebody else."""
    who = np.flatnonzero(them.changed != NEVER)
    n, rows = len(who), pa.array(who)
    new_kind = them.kinds[who, 1]
    # The numbers of permits and cards tell when their bearer was born: that is how such slips come out.
    telling = np.isin(new_kind, (PERMIT, PERMANENT))
    slips = few(n, rng, 2 * WRONG, telling) if n >= 10 else np.array([], dtype=np.int64)
    misdated, mistaken = slips[::2], slips[1::2]
    others = np.flatnonzero(telling)
    owner = np.arange(n)
    if len(others) > 1:
        owner[mistaken] = np.roll(others, 1)[np.searchsorted(others, mistaken)]
    mistaken = mistaken[owner[mistaken] != mistaken]
    born = them.born[who].copy()
    born[misdated] -= rng.integers(20, 50, len(misdated))
    old, new = them.first.take(rows), them.second.take(rows).take(pa.array(owner))
    holders = [
        join(pick(SCHEMES, them.kinds[who, 0]), ":", old),
        join(pick(SCHEMES, new_kind[owner]), ":", new),
    ]
    subject = them.subject.take(rows)
    seconds = them.changed[who] * 86_400 + rng.integers(8 * 3600, 17 * 3600, n)
    number = join("B", strings(digits(scattered(them.number[who]), 9)))
    table = pa.table(
        {
            "bgh": number,
            "xm": them.name.take(rows),
            "xb": pick(population.SEXES, (~them.male[who]).astype(np.int64)),
            "csrq": dates(born).cast(pa.string()),
            "gj": them.origin.take(rows),
            "yzjlx": pick(TYPES, them.kinds[who, 0]),
            "yzjhm": old,
            "xzjlx": pick(TYPES, new_kind[owner]),
            "xzjhm": new,
            "bgrq": dates(them.changed[who]).cast(pa.string()),
            "gxsj": spaced(seconds),
        }
    )
    records = Records(
        material=MATERIAL, table=table, identifier=number, holders=holders, subjects=[subject, subject],
        begins=dates(them.changed[who]), ends=pa.nulls(n, pa.date32()), status=same("in_force", n),
    )  # fmt: skip
    claims = [
        Claims(
            kind="link-birth-date", rows=misdated, identifier=holders[1].take(pa.array(misdated)),
            subject=subject.take(pa.array(misdated)), other=pa.nulls(len(misdated), pa.string()),
            says=join("born_on=", dates(born[misdated]).cast(pa.string())),
        ),
        Claims(
            kind="link-number", rows=mistaken, identifier=holders[1].take(pa.array(mistaken)),
            subject=subject.take(pa.array(mistaken)), other=subject.take(pa.array(owner[mistaken])),
            says=join("former=", holders[0].take(pa.array(mistaken))),
        ),
    ]  # fmt: skip
    return records, claims


def conversions(register: Register, block: Companies, value: pa.StringArray) -> Records:
    """Companies whose registration number gave way to a credit code."""
    old, new, changed = generations(register, block, value)
    both = pc.and_(old.is_valid(), new.is_valid())
    who = np.flatnonzero(both.to_numpy(zero_copy_only=False) & (changed < UNTIL))
    rows: pa.Array = pa.array(who)
    old, new, day = old.take(rows), new.take(rows), dates(_days(changed, who))
    table = pa.table(
        {
            "企业名称": block.table["企业名称"].combine_chunks().take(rows),
            "原注册号": old,
            "统一社会信用代码": new,
            "换发日期": day.cast(pa.string()),
        }
    )
    subject = join("company:", pa.array(block.number[who]).cast(pa.string()))
    return Records(
        material=MATERIAL, table=table, identifier=old, holders=[join("cn.regno:", old), join("cn.uscc:", new)],
        subjects=[subject, subject], begins=day, ends=pa.nulls(len(who), pa.date32()), status=same("in_force", len(who)),
    )  # fmt: skip


def _days(changed: Integers, who: Integers) -> Integers:
    days: Integers = changed[who]
    return days
