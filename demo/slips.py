"""Residents' rows that deny what the resident ID in them says: a birthday by the old calendar, the other sex."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from demo.columns import Integers, dates, join, replaced
from demo.lives import subjects
from demo.population import UNTIL, People
from demo.records import Claims, few

SHARE = 0.0003  # of rows, for each kind


def slips(people: People, table: pa.Table, order: Integers, rng: np.random.Generator) -> tuple[pa.Table, list[Claims]]:
    """The residents' table of a block with a few slips; ``order`` names the person of each row."""
    n = table.num_rows
    if n < 200:
        return table, []
    earlier = people.born[order] < UNTIL - 400
    rows = few(n, rng, 2 * SHARE, earlier)
    days, sexes = rows[::2], rows[1::2]
    # The old calendar runs three to seven weeks behind.
    born = dates(people.born[order[days]] - rng.integers(20, 50, len(days))).cast(pa.string())
    sex = table["xb"].combine_chunks().take(pa.array(sexes))
    sex = pc.if_else(pc.equal(sex, "1"), "2", "1")
    for column, where, texts in (("csrq", days, born), ("xb", sexes, sex)):
        edited = replaced(table[column].combine_chunks(), where, texts)
        table = table.set_column(table.column_names.index(column), column, edited)
    claims = [
        _claims("birth-date", people, order, days, join("born_on=", born)),
        _claims("sex", people, order, sexes, join("sex=", sex)),
    ]
    return table, claims


def _claims(kind: str, people: People, order: Integers, rows: Integers, says: pa.StringArray) -> Claims:
    who = order[rows]
    return Claims(
        kind=kind,
        rows=rows,
        identifier=join("cn.ric:", people.identifier.take(pa.array(who))),
        subject=subjects(people, who),
        other=pa.nulls(len(rows), pa.string()),
        says=says,
    )
