"""Companies that other departments know: who employs people, who owns real estate, under which number on which day."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from demo.columns import Integers, concat, join, same
from demo.companies import CREDIT, FIFTEEN, Companies, Register, generations
from demo.lives import Named

EACH = 8_192  # at most so many of a register, however many there are
ORGANISATION = "organisation"  # the type of their number


@dataclass(frozen=True)
class Employers:
    """Companies with a registration number of 15 digits, a credit code, or the one and then the other."""

    subject: pa.StringArray
    name: pa.StringArray
    old: pa.StringArray  # null without one
    new: pa.StringArray
    changed: Integers  # day of the new one
    registered: Integers
    province: pa.StringArray  # first two digits

    def __len__(self) -> int:
        return len(self.name)

    def of(self, *provinces: str) -> Integers:
        """Those of some provinces, as indices."""
        here = pc.is_in(self.province, value_set=pa.array(provinces))
        found: Integers = np.flatnonzero(here.to_numpy(zero_copy_only=False))
        return found

    def named(self, who: Integers, days: Integers, rng: np.random.Generator) -> Named:
        """As a document of a day names them; some still give the old number a while after the day."""
        rows = pa.array(who)
        before = days < self.changed[who] + rng.integers(0, 400, len(who)) * (rng.random(len(who)) < 0.3)
        number = pc.coalesce(
            pc.if_else(pa.array(before), self.old.take(rows), None), self.new.take(rows), self.old.take(rows)
        )
        scheme = pc.if_else(pc.equal(pc.utf8_length(number), 15), "cn.regno:", "cn.uscc:")
        return Named(
            name=self.name.take(rows),
            type=same(ORGANISATION, len(who)),
            number=number,
            holder=join(scheme, number),
            subject=self.subject.take(rows),
        )


def nobody() -> Employers:
    empty, none = pa.array([], pa.string()), np.array([], dtype=np.int64)
    return Employers(empty, empty, empty, empty, none, none, empty)


def known(register: Register, block: Companies, value: pa.StringArray) -> Employers:
    """The first companies of a register's block; ``value``: their true numbers in the register."""
    old, new, changed = generations(register, block, value)
    rows = np.flatnonzero((block.kind == CREDIT) | (block.kind == FIFTEEN))[:EACH]
    taken = pa.array(rows)
    return Employers(
        subject=join("company:", pa.array(block.number[rows]).cast(pa.string())),
        name=block.table["企业名称"].combine_chunks().take(taken),
        old=old.take(taken),
        new=new.take(taken),
        changed=changed[rows],
        registered=block.registered[rows],
        province=same(register.prefix, len(rows)),
    )


def together(parts: list[Employers]) -> Employers:
    """All of them as one."""
    if not parts:
        return nobody()
    text = {
        field: concat(*(getattr(part, field) for part in parts))
        for field in ("subject", "name", "old", "new", "province")
    }
    return Employers(
        **text,
        changed=np.concatenate([part.changed for part in parts]),
        registered=np.concatenate([part.registered for part in parts]),
    )
