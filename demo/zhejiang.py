"""The household register of Zhejiang about people of the population: registered there still, until they moved, or twice."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from demo import dirt, lives, names, places
from demo.columns import dates, digits, join, pick, strings
from demo.dirt import Kind
from demo.forms import Csv
from demo.lives import Lives
from demo.population import UNTIL, People, relations, updated
from demo.records import Claims, Records

MATERIAL = "household-register"
FILE = "ga-zj/households.csv"
COLUMNS = ("hh", "gmsfhm", "xm", "yhzgx", "hb", "zz", "xzqh", "qfjg", "zt", "djrq", "gxsj")
FORM = Csv(COLUMNS, encoding="gb18030", end="\r\n")
STATES = ("有效", "注销")
HOLDING = ("in_force", "cancelled")

DIRT = (
    *dirt.person_kinds(["gmsfhm"], "djrq", "hb", "xzqh"),
    Kind("too-many-columns", "rejected", None, dirt.too_many_columns),
    Kind("too-few-columns", "rejected", None, dirt.too_few_columns),
    Kind("dash", "accepted", "hb", dirt.always("-")),
)


def households(people: People, led: Lives, rng: np.random.Generator) -> tuple[Records, Claims]:
    """Members of households that are or were registered in Zhejiang; and those who are registered here too."""
    who = np.flatnonzero(led.origin != lives.HERE)
    n, rows = len(who), pa.array(who)
    since = people.born[who] + (rng.random(n) * np.minimum(UNTIL - people.born[who], 25 * 365)).astype(np.int64)
    state = (led.origin[who] == lives.MOVED).astype(np.int64)
    district = places.full_names(led.village)
    first = np.searchsorted(people.household, people.household)  # the head's index
    number = lives.zhejiang_numbers(people, led).take(rows)
    table = pa.table(
        {
            "hh": number,
            "gmsfhm": people.identifier.take(rows),
            "xm": lives.residents(people, led, who, since, rng).name,
            "yhzgx": relations(people).take(rows),
            "hb": pick(("家庭户",), np.zeros(n, dtype=np.int64)),
            "zz": names.addresses(rng, district).take(pa.array(first[who])),
            "xzqh": strings(digits(led.village[who], 6)),
            "qfjg": join(district.take(rows), "公安局"),
            "zt": pick(STATES, state),
            "djrq": dates(since).cast(pa.string()),
            "gxsj": updated(people, n, rng),
        }
    )
    holder = join("cn.ric:", people.identifier.take(rows))
    subject = lives.subjects(people, who)
    twice = np.flatnonzero(led.origin[who] == lives.TWICE)
    chosen = pa.array(twice)
    claims = Claims(
        kind="two-households", rows=twice, identifier=holder.take(chosen), subject=subject.take(chosen),
        other=pa.nulls(len(twice), pa.string()), says=join("household=", number.take(chosen)),
    )  # fmt: skip
    records = Records(
        material=MATERIAL, table=table, identifier=number, holders=[holder], subjects=[subject], begins=dates(since),
        ends=pa.nulls(n, pa.date32()), status=pick(HOLDING, state),
    )  # fmt: skip
    return records, claims
