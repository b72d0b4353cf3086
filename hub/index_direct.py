"""Index entries the short way: announcements under handles of which nobody here knows yet.

Whoever maps a chunk leaves in it what its announcements say, identifiers keyed (:func:`said`), so the merge copies entries out
of the chunk files and reads no document again. This way goes what is plain: a handle that stands once in the batch, an epoch
that is in force, subjects as the protocol has them. All else goes the long way (:mod:`hub.index_entries`), and so does a
chunk that an earlier version mapped; both ways end in the same entries.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from numpy.typing import NDArray

from connectors.indexframe import SUBJECTS
from hub import copying, digests
from hub.home import KeyedHash
from hub.joining import Join
from hub.repeats import leading
from mappings import cleaning

if TYPE_CHECKING:
    from hub.direct import Direct

Mask = NDArray[np.bool_]

KEY = pa.binary(16)
HANDLE = r"\A[0-9a-f]{32}\z"
ID = 32  # characters of a subject's id
SAID = pa.schema(
    {"handle": KEY, "material": pa.string(), "state": pa.string(), "version": pa.string(), "hub": pa.string(),
     "epoch": pa.string()}
)  # fmt: skip
ENTRY = {
    "identifier": "bytea", "source": "text", "handle": "bytea", "role": "text", "recorded_from": "timestamptz",
    "material": "text", "region": "text", "status": "text", "valid_from": "date", "valid_to": "date", "digest": "text",
    "epoch": "text", "batch": "text", "file": "int8", "row": "int8",
}  # fmt: skip
ASKED = {"holding": "bytea", "mapped": "int8", "handle": "bytea"}
READ = ["holding", "file", "row", "region", "valid_from", "valid_to", "identifiers", "roles", *SAID.names]


def said(columns: Mapping[str, pa.Array], accepted: Mask, source: str, hashing: KeyedHash) -> dict[str, pa.Array]:
    """What mapped announcements say (n,): :data:`SAID`, ``handle`` null where one is not plain, and of each subject one of
    ``identifiers``, keyed for this hub, with one of ``roles``; the ``region`` cut to its code. ``columns``: as mapped."""
    handles, subjects = columns["certificate_number"], columns["attributes.subjects"]
    plain = accepted & _matching(handles, HANDLE) & (_matching(subjects, SUBJECTS) | _true(subjects.is_null()))
    lists = pc.split_pattern(pc.if_else(pa.array(plain), subjects, pa.scalar(None, pa.string())), " ")
    texts, rows = pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy()
    if len(odd := _several(texts, rows)):
        plain[odd] = False
        texts, rows = texts.filter(pa.array(plain[rows])), rows[plain[rows]]
    epochs, region = columns["attributes.epoch"], pc.utf8_slice_codeunits(columns["region"], 0, 6)
    # The text of index_keys.local_text.
    ids = pc.utf8_slice_codeunits(texts, -ID)
    local = pc.binary_join_element_wise(f"index:{source}:", epochs.take(pa.array(rows)), ":", ids, "")
    ends = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=len(plain))))).astype(np.int32)
    return {
        "handle": _bytes(handles, plain),
        "material": columns["attributes.material"],
        "state": columns["attributes.state"],
        "version": columns["attributes.digest"],
        "hub": columns["attributes.hub"],
        "epoch": epochs,
        "region": pc.if_else(pc.equal(region, ""), pa.scalar(None, pa.string()), region),
        "identifiers": pa.ListArray.from_arrays(pa.array(ends), digests.keyed(local, hashing)),
        "roles": pa.ListArray.from_arrays(pa.array(ends), pc.utf8_slice_codeunits(texts, 0, -ID - 1)),
    }


@dataclass
class Turn:
    """One merge's turn at the entries of its source, and what went the short way in it.

    ``ended``: the epoch in force before, ``epoch``: now; ``own``: what all division codes of the partner begin with; ``now``:
    when entries begin and end. ``entries``: how many were copied; ``hubs`` that announce."""

    ended: str | None
    epoch: str | None
    own: str
    now: dt.datetime
    entries: int = 0
    hubs: set[str | None] = field(default_factory=set)

    def copy(self, connection: sa.Connection, short: Direct) -> None:
        """Copy the entries that go the short way; the holdings of the others go into ``shared``."""

        def take(_number: int, rows: pa.Table) -> None:
            self.hubs.update(pc.unique(rows["hub"]).to_pylist())
            rows = _entries(rows.filter(self._counts(rows)))
            constants = {
                "source": short.batch.source,
                "batch": short.batch.id,
                "epoch": self.epoch,
                "recorded_from": self.now,
            }
            for name in ("role", "material", "status"):
                if len(values := pc.unique(rows[name])) == 1:
                    constants[name] = values[0].as_py()
            self.entries += copying.load(connection, "index_entry", ENTRY, iter([rows]), constants)

        short.alone(connection, READ, _known(connection, short), take, self._plain)

    def _plain(self, rows: pa.Table) -> Mask:
        if not set(SAID.names) <= set(rows.column_names):
            return np.zeros(len(rows), dtype=bool)
        in_force = pc.equal(rows["epoch"], pa.scalar(self.epoch, pa.string()))
        return _true(pc.and_(pc.is_valid(rows["handle"]), pc.fill_null(in_force, False)))

    def _counts(self, rows: pa.Table) -> pa.ChunkedArray:
        """Which announcements open entries: of what is held, of some material, within the partner's region."""
        inside = pc.fill_null(pc.starts_with(rows["region"], self.own), True)
        held = pc.and_(pc.not_equal(rows["state"], "withdrawn"), pc.not_equal(rows["material"], ""))
        return pc.and_(inside, pc.fill_null(held, False))


def _known(connection: sa.Connection, short: Direct) -> np.ndarray | None:
    """Of which holdings an earlier announcement of the source is kept, or an entry is open under the handle."""
    some = sa.text(_SOME)
    if not short.chosen or not (short.known or connection.scalar(some, {"source": short.batch.source})):
        return None
    return short.found(connection, ASKED, "mapped_row", _known_keys)


_SOME = "SELECT handle FROM index_entry WHERE source = :source AND recorded_to IS NULL ORDER BY handle LIMIT 1"


def _known_keys(join: Join) -> str:
    said = join("mapped_row", "m", "m.holding = a.holding AND m.id <> a.mapped")  # a handle is of one partner alone
    open = join("index_entry", "e", "e.source = {source} AND e.handle = a.handle AND e.recorded_to IS NULL")
    return f"SELECT a.holding FROM asked AS a {said} UNION ALL SELECT a.holding FROM asked AS a {open}"


def _entries(rows: pa.Table) -> pa.Table:
    """One row per subject, in the order of the key."""
    lists = rows["identifiers"].combine_chunks()
    identifiers, roles = pc.list_flatten(lists), pc.list_flatten(rows["roles"].combine_chunks())
    order = pa.array(np.argsort(leading(identifiers)))
    each = rows.select(["handle", "material", "region", "state", "valid_from", "valid_to", "version", "file", "row"])
    entries = each.rename_columns({"state": "status", "version": "digest"}).take(
        pc.list_parent_indices(lists).take(order)
    )
    return entries.append_column("identifier", identifiers.take(order)).append_column("role", roles.take(order))


def _several(texts: pa.StringArray, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows in which a text stands several times."""
    if (np.diff(rows) > 0).all():
        return np.zeros(0, np.int64)
    found = pa.table({"row": rows, "text": texts}).group_by(["row", "text"]).aggregate([([], "count_all")])
    return found.filter(pc.greater(found["count_all"], 1))["row"].to_numpy()


def _bytes(texts: pa.StringArray, plain: Mask) -> pa.FixedSizeBinaryArray:
    """The 16 bytes that the ``plain`` ones of ``texts`` write in hex; null elsewhere."""
    _, letters = cleaning.buffers(texts if plain.all() else texts.filter(pa.array(plain)))
    halves = ((letters & 15) + 9 * (letters >> 6)).reshape(-1, 2)
    values = pa.Array.from_buffers(KEY, int(plain.sum()), [None, pa.py_buffer(halves[:, 0] << 4 | halves[:, 1])])
    return values if plain.all() else values.take(pa.array(np.cumsum(plain) - 1, mask=~plain))


def _matching(texts: pa.StringArray, pattern: str) -> Mask:
    return _true(pc.fill_null(pc.match_substring_regex(texts, pattern), False))


def _true(values: pa.BooleanArray | pa.ChunkedArray) -> Mask:
    mask: Mask = values.to_numpy() if isinstance(values, pa.ChunkedArray) else values.to_numpy(zero_copy_only=False)
    return mask
