"""Records of one kind of document, as a department writes them and as they are true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from demo.columns import Integers, Mask, same
from demo.writers import Parquet, Written


@dataclass(frozen=True)
class Records:
    """``n`` records: ``table`` holds what is written, the rest what is true; all as long as the table.

    ``holders`` and ``subjects``: one array a role, null where a record has nobody in it; ``holders`` are
    ``scheme:value`` as the row says them, ``subjects`` whom it is about.
    """

    material: str
    table: pa.Table
    identifier: pa.StringArray
    holders: Sequence[pa.StringArray]
    subjects: Sequence[pa.StringArray]
    begins: pa.Array  # date32
    ends: pa.Array  # date32, null without an end
    status: pa.StringArray

    def __len__(self) -> int:
        return self.table.num_rows

    def slice(self, start: int, length: int) -> Records:
        return Records(
            self.material, self.table.slice(start, length), self.identifier.slice(start, length),
            [holder.slice(start, length) for holder in self.holders],
            [subject.slice(start, length) for subject in self.subjects],
            self.begins.slice(start, length), self.ends.slice(start, length), self.status.slice(start, length),
        )  # fmt: skip


@dataclass(frozen=True)
class Claims:
    """Records that contradict others, by place in the table; see truth/contradictions.parquet."""

    kind: str
    rows: Integers
    identifier: pa.StringArray  # scheme:value that two subjects or two facts share
    subject: pa.StringArray  # whom the row is about
    other: pa.StringArray  # whose identifier it is, null for the same subject
    says: pa.StringArray

    def within(self, start: int, end: int) -> Claims:
        """Those about the rows from ``start`` to before ``end``, counted from ``start``."""
        low, high = np.searchsorted(self.rows, [start, end])
        texts = (getattr(self, name)[low:high] for name in ("identifier", "subject", "other", "says"))
        return Claims(self.kind, self.rows[low:high] - start, *texts)


def certify(certificates: Parquet, records: Records, rows: Written) -> None:
    """Note what a block of records certifies and where it was written."""
    n = len(records)
    certificates.columns(
        material=same(records.material, n),
        identifier=records.identifier,
        holders=_lists(records.holders, n),
        subjects=_lists(records.subjects, n),
        valid_from=records.begins,
        valid_to=records.ends,
        status=records.status,
        file=same(rows.file, n),
        row=rows.row,
        dirt=rows.kind,
        held=rows.held,
    )


def contradict(contradictions: Parquet, claims: Claims, rows: Written) -> None:
    """Note the contradictions in a block of records that was written."""
    n = len(claims.rows)
    contradictions.columns(
        kind=same(claims.kind, n),
        identifier=claims.identifier,
        subject=claims.subject,
        other=claims.other,
        says=claims.says,
        file=same(rows.file, n),
        row=rows.row[claims.rows],
    )


def few(count: int, rng: np.random.Generator, share: float, possible: Mask) -> Integers:
    """About ``share`` of ``count`` rows, ascending, at least one where it is possible."""
    found = np.flatnonzero(possible)
    wanted = min(len(found), max(round(count * share), 1))
    chosen: Integers = np.sort(rng.choice(found, size=wanted, replace=False)) if wanted else found
    return chosen


def _lists(roles: Sequence[pa.StringArray], n: int) -> pa.ListArray:
    """One list a record, of the roles that somebody fills."""
    width = len(roles)
    places = np.arange(n * width).reshape(width, n).T.ravel()  # record by record
    flat = pa.concat_arrays(roles).take(pa.array(places))
    filled = flat.is_valid().to_numpy(zero_copy_only=False).reshape(n, width).sum(axis=1)
    offsets = np.concatenate([[0], np.cumsum(filled)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat.drop_null())
