"""The short way into the store: rows that the ledger has never seen, and holdings that only this batch knows.

Nothing has to be compared for them, so they are copied straight into their tables, chunk by chunk, each chunk in the order
of the table's key. All other rows take the long way (:mod:`hub.incoming`, :mod:`hub.standing`), which ends in the same state.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from hub import copying, diff
from hub.repeats import Delivery, leading
from hub.workspace import Workspace

EPOCH = pa.scalar(dt.datetime(1970, 1, 1, tzinfo=dt.UTC), pa.timestamp("us", "UTC"))
LEDGER = {
    "source": "text", "row_key": "uuid", "digest": "uuid", "contract": "uuid", "verdict": "text", "timed": "bool",
    "updated_at": "timestamptz", "as_of": "timestamptz", "batch": "text", "file": "int8", "row": "int8", "holding": "bytea",
    "authority": "int2", "said_digest": "uuid", "said_at": "timestamptz", "said_file": "int8", "said_row": "int8",
    "content": "uuid", "document": "json",
}  # fmt: skip
HOLDING = {
    "key": "bytea", "material": "text", "source": "text", "row_key": "uuid", "digest": "uuid", "updated_at": "timestamptz",
    "authority": "int2", "observations": "int4", "conflicting": "bool", "status": "text", "issued_on": "date",
    "valid_from": "date", "valid_to": "date", "region": "text", "batch": "text",
}  # fmt: skip
HOLDER = {"identifier": "bytea", "holding": "bytea", "role": "text"}
FEED = {
    "position": "int8", "holding": "bytea", "material": "text", "change": "text", "digest": "uuid", "batch": "text",
    "recorded_at": "timestamptz",
}  # fmt: skip
NARROW = ["row_key", "holding", "digest", "file", "updated_at", "status", "issued_on", "valid_from", "valid_to", "region",
          "identifiers", "roles"]  # fmt: skip


@dataclass
class Direct:
    """The rows of one batch that go the short way. ``accepted``: how many they are, of ``rows`` mapped ones."""

    batch: sa.Row
    material: str
    authority: int
    workspace: Workspace
    deliveries: list[Delivery]
    reserved: pa.Array  # keys with open conflicting versions in quarantine
    listed_as_of: dt.datetime | None
    accepted: int = 0
    rows: int = 0
    chosen: dict[int, np.ndarray] = field(default_factory=dict)  # by chunk: places of rows on the short way
    copied: list[int] = field(default_factory=list)  # chunks with fresh holdings

    def timed(self, table: pa.Table) -> pa.Table:
        """``table`` with ``timed``, ``as_of``, ``said_at`` and ``updated_at`` of each row.

        A delivery is as of its own time; the rows of one that says nothing are older than all that does. ``said_at`` is when
        the row was updated at the source, as of the delivery where it does not say; ``updated_at`` orders the versions of one
        row: the same, but of a snapshot, which is right as of its time, always the delivery's."""
        by_file = {one.file: one.as_of for one in self.deliveries}
        files, stamps = pa.array(list(by_file), pa.int64()), pa.array(list(by_file.values()), EPOCH.type)
        found = (
            pc.index_in(table["file"].combine_chunks(), files) if len(files) else pa.nulls(table.num_rows, pa.int32())
        )
        delivered = pc.coalesce(
            stamps.take(found), pa.scalar(by_file.get(0), EPOCH.type), pa.scalar(self.batch.as_of, EPOCH.type)
        )
        own = table["updated_at"]
        said_at, as_of = pc.coalesce(own, delivered, EPOCH), pc.coalesce(delivered, own, EPOCH)
        table = (
            table.append_column("timed", pc.is_valid(own))
            .append_column("as_of", as_of)
            .append_column("said_at", said_at)
        )
        updated_at = as_of if self.batch.extent == "snapshot" else said_at
        return table.set_column(table.column_names.index("updated_at"), "updated_at", updated_at)

    def select(self, chunk: int, table: pa.Table) -> np.ndarray:
        """Which rows of a chunk go the short way: new to the ledger, accepted, of a delivery that no snapshot overtook."""
        if self.batch.kind != "run":
            return np.zeros(table.num_rows, dtype=bool)
        needed = self.workspace.read("needed", chunk, ["ordinal", "known"])
        new = ~needed["known"].to_numpy()
        places = np.searchsorted(needed["ordinal"].to_numpy(), table["ordinal"].to_numpy())
        mask = new[places] & pc.equal(table["verdict"], "accepted").to_numpy()
        if len(self.reserved):
            mask &= ~pc.is_in(table["original_key"], self.reserved).to_numpy()
        if self.listed_as_of is not None:
            mask &= pc.greater_equal(table["as_of"], pa.scalar(self.listed_as_of, EPOCH.type)).to_numpy()
        return np.asarray(mask)

    def rows_into_ledger(self, connection: sa.Connection, chunk: int, table: pa.Table, mask: np.ndarray) -> None:
        """Copy the rows of ``mask`` into the ledger, with what they say."""
        self.rows += table.num_rows
        places = np.flatnonzero(mask)
        if not len(places):
            return
        self.chosen[chunk] = places
        self.accepted += len(places)
        rows = table.take(pa.array(places))
        rows = rows.take(pa.array(np.argsort(leading(rows["row_key"]))))
        constant = {"source": self.batch.source, "batch": self.batch.id}
        said = {"said_digest": "digest", "said_file": "file", "said_row": "row"}
        contract = pa.scalar(bytes.fromhex(diff.contract_key(self.batch.contract).replace("-", "")), pa.binary(16))
        columns: dict[str, Any] = {
            name: pa.repeat(constant[name], len(rows)) if name in constant
            else pa.repeat(contract, len(rows)) if name == "contract"
            else pa.repeat(pa.scalar(self.authority, pa.int16()), len(rows)) if name == "authority"
            else rows[said.get(name, name)]
            for name in LEDGER
        }  # fmt: skip
        with copying.into(connection, "row_ledger", list(LEDGER), list(LEDGER.values())) as copy:
            copy.write(pa.table(columns))

    def fresh(self, connection: sa.Connection, *, some: bool = True) -> Iterator[tuple[int, pa.Table, np.ndarray]]:
        """Chunk by chunk the rows on the short way, narrow, and which of them have a holding that nobody else knows: no
        other row of the batch, and nothing held. The caller holds the lock of the material. ``some``: false where the
        entity has no holdings at all."""
        repeated = self._repeated() if some and self.chosen else None
        held = self._held(connection) if some and self.chosen else None
        for chunk, places in self.chosen.items():
            rows = self.workspace.read("mapped", chunk, NARROW).take(pa.array(places))
            mask = np.zeros(len(rows), dtype=bool) if repeated is None else ~np.isin(leading(rows["holding"]), repeated)
            if held is not None:
                mask &= ~pc.is_in(rows["holding"], held).to_numpy()
            yield chunk, rows, mask

    def holdings(self, connection: sa.Connection, chunk: int, rows: pa.Table) -> None:
        """Copy holdings that only these rows know, and their holders."""
        rows = self.timed(rows)
        rows = rows.take(pa.array(np.argsort(leading(rows["holding"]))))
        count = len(rows)
        columns: dict[str, Any] = {
            "key": rows["holding"],
            "material": pa.repeat(self.material, count),
            "source": pa.repeat(self.batch.source, count),
            "updated_at": rows["said_at"],
            "authority": pa.repeat(pa.scalar(self.authority, pa.int16()), count),
            "observations": pa.repeat(pa.scalar(1, pa.int32()), count),
            "conflicting": pa.repeat(False, count),
            "status": pc.coalesce(rows["status"], "in_force"),
            "batch": pa.repeat(self.batch.id, count),
        }
        with copying.into(connection, "holding", list(HOLDING), list(HOLDING.values())) as copy:
            copy.write(
                pa.table(
                    {name: columns.get(name, rows[name] if name in rows.column_names else None) for name in HOLDING}
                )
            )
        holders = _holders(rows)
        with copying.into(connection, "holding_holder", list(HOLDER), list(HOLDER.values())) as copy:
            copy.write(holders)
        self.workspace.write("fresh", chunk, rows.select(["holding", "digest"]))
        self.copied.append(chunk)

    def shared(self, connection: sa.Connection, rows: pa.Table) -> None:
        """Note the holdings of rows that others speak of too."""
        with copying.into(connection, "shared", ["holding"], ["bytea"]) as copy:
            copy.write(rows.select(["holding"]))

    def changed(self, connection: sa.Connection) -> None:
        """Note the fresh holdings among those that changed, for those who follow what holdings say."""
        with copying.into(
            connection, "changed", ["holding", "present", "known", "fresh"], ["bytea", "bool", "bool", "bool"]
        ) as copy:
            for chunk in self.copied:
                keys = self.workspace.read("fresh", chunk, ["holding"])
                yes, no = (pa.repeat(value, len(keys)) for value in (True, False))
                copy.write(pa.table([keys["holding"], yes, no, yes], ["holding", "present", "known", "fresh"]))

    def feed(self, connection: sa.Connection, position: int, recorded_at: dt.datetime) -> int:
        """Announce the fresh holdings from ``position`` on; returns the last position given out."""
        for chunk in self.copied:
            rows = self.workspace.read("fresh", chunk)
            count = len(rows)
            columns = [
                pa.array(np.arange(position + 1, position + 1 + count)), rows["holding"], pa.repeat(self.material, count),
                pa.repeat("added", count), rows["digest"], pa.repeat(self.batch.id, count),
                pa.repeat(pa.scalar(recorded_at, EPOCH.type), count),
            ]  # fmt: skip
            with copying.into(connection, "feed", list(FEED), list(FEED.values())) as copy:
                copy.write(pa.table(columns, names=list(FEED)))
            position += count
        return position

    def _repeated(self) -> np.ndarray:
        """Leading halves of holding keys that stand several times in the batch, short way and long."""
        halves = [leading(pc.drop_null(table["holding"])) for table in self.workspace.each("mapped", ["holding"])] or [
            np.empty(0, dtype=np.uint64)
        ]
        ordered = np.sort(np.concatenate(halves))
        return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])

    def _held(self, connection: sa.Connection) -> pa.Array | None:
        """Of the batch's holding keys those that are held already; None when nothing of the material is."""
        some = sa.text("SELECT EXISTS (SELECT FROM holding WHERE material = :material)")
        if not connection.scalar(some, {"material": self.material}):
            return None
        connection.execute(sa.text("CREATE TEMP TABLE asked (holding bytea) ON COMMIT DROP"))
        with copying.into(connection, "asked", ["holding"], ["bytea"]) as copy:
            for chunk, places in self.chosen.items():
                copy.write(self.workspace.read("mapped", chunk, ["holding"]).take(pa.array(places)))
        connection.execute(sa.text("ANALYZE asked"))
        found = copying.out_of(
            connection, "SELECT h.key FROM asked AS a JOIN holding AS h ON h.key = a.holding",
            pa.schema({"holding": pa.binary(16)}), {},
        )  # fmt: skip
        connection.execute(sa.text("DROP TABLE asked"))
        return found["holding"].combine_chunks()


def _holders(rows: pa.Table) -> pa.Table:
    """One row per identifier, holding and role, in the order of the key."""
    lists = rows["identifiers"].combine_chunks()
    parents = pc.list_parent_indices(lists)
    identifiers = pc.list_flatten(lists)
    roles = pc.list_flatten(rows["roles"].combine_chunks())
    table = pa.table([identifiers, rows["holding"].take(parents), roles], names=list(HOLDER))
    return table.take(pa.array(np.argsort(leading(identifiers))))
