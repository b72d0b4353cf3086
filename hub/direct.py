"""The short way into the store: rows that the ledger has never seen, and holdings that only this batch knows.

Nothing has to be compared for them, so they are copied straight into their tables, in runs of a million rows in the order
of the table's key. All other rows take the long way (:mod:`hub.incoming`, :mod:`hub.standing`), which ends in the same state.
What a partner hub announces goes the short way into index entries (:mod:`hub.index_direct`) as rows do into holdings.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from hub import copying, diff, joining, mapped_rows
from hub.joining import Join
from hub.repeats import Delivery, leading, repeated
from hub.staging import FAR_FUTURE
from hub.workspace import Workspace

EPOCH = pa.scalar(dt.datetime(1970, 1, 1, tzinfo=dt.UTC), pa.timestamp("us", "UTC"))
LEDGER = {
    "source": "text", "row_key": "uuid", "digest": "uuid", "contract": "uuid", "verdict": "text", "timed": "bool",
    "updated_at": "timestamptz", "as_of": "timestamptz", "batch": "text", "file": "int8", "row": "int8", "holding": "bytea",
    "authority": "int2", "said_digest": "uuid", "said_at": "timestamptz", "mapped": "int8",
}  # fmt: skip
HOLDING = {
    "key": "bytea", "mapped": "int8", "material": "text", "source": "text", "row_key": "uuid", "digest": "uuid", "updated_at": "timestamptz",
    "authority": "int2", "observations": "int4", "conflicting": "bool", "status": "text", "issued_on": "date",
    "valid_from": "date", "valid_to": "date", "region": "text", "batch": "text",
}  # fmt: skip
HOLDER = {"identifier": "bytea", "holding": "bytea", "role": "text"}
FEED = {
    "position": "int8", "holding": "bytea", "material": "text", "change": "text", "digest": "uuid", "batch": "text",
    "recorded_at": "timestamptz",
}  # fmt: skip
READ = ["ordinal", "row_key", "original_key", "digest", "file", "row", "verdict", "updated_at", "holding", "mapped"]
NARROW = ["row_key", "holding", "mapped", "digest", "file", "updated_at", "status", "issued_on", "valid_from", "valid_to", "region",
          "identifiers", "roles", "denies"]  # fmt: skip
RUN = 1 << 19  # rows sorted together: the longer, the fewer index pages are written twice


@dataclass
class Direct:
    """The rows of one batch that go the short way. ``accepted``: how many they are."""

    batch: sa.Row
    material: str
    authority: int
    workspace: Workspace
    deliveries: list[Delivery]
    reserved: pa.Array  # keys with open conflicting versions in quarantine
    listed_as_of: dt.datetime | None
    known: bool = True  # whether the ledger knew any row of the source before
    accepted: int = 0
    counts: dict[int, int] = field(default_factory=dict)  # by chunk: mapped rows
    blocks: set[int] = field(default_factory=set)  # of mapped rows
    chosen: dict[int, np.ndarray] = field(default_factory=dict)  # by chunk: which rows are on the short way, a bit each
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
        limit = pa.scalar(self.batch.started_at + FAR_FUTURE, EPOCH.type)  # as staging believes no delivery beyond it
        own = pc.if_else(pc.less_equal(table["updated_at"], limit), table["updated_at"], pa.scalar(None, EPOCH.type))
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

    def into_ledger(self, connection: sa.Connection) -> None:
        """Copy the rows that go the short way into the ledger."""
        constants = {
            "source": self.batch.source,
            "batch": self.batch.id,
            "contract": bytes.fromhex(diff.contract_key(self.batch.contract).replace("-", "")),
            "authority": self.authority,
            "verdict": "accepted",
        }
        rows = _sorted(self._ledger_rows([name for name in LEDGER if name not in constants]), "row_key")
        self.accepted = copying.load(connection, "row_ledger", LEDGER, rows, constants)

    def others(self) -> Iterator[tuple[int, pa.Table]]:
        """By chunk the rows that go the long way."""
        for chunk in self.counts:
            rest = ~self._mask(chunk)
            if rest.any():
                yield chunk, self.timed(self.workspace.read("mapped", chunk).filter(pa.array(rest)))

    def _mask(self, chunk: int) -> np.ndarray:
        """Which rows of a chunk are on the short way."""
        bits = self.chosen.get(chunk)
        count = self.counts[chunk]
        return np.zeros(count, dtype=bool) if bits is None else np.unpackbits(bits, count=count).astype(bool)

    def _ledger_rows(self, names: list[str]) -> Iterator[pa.Table]:
        for chunk in self.workspace.chunks("mapped"):
            table = self.timed(self.workspace.read("mapped", chunk, READ))
            mask = self.select(chunk, table)
            self.counts[chunk] = table.num_rows
            self.blocks |= mapped_rows.blocks(table["mapped"])
            if mask.any():
                self.chosen[chunk] = np.packbits(mask)
                rows = table.filter(pa.array(mask))
                yield rows.append_column("said_digest", rows["digest"]).select(names)

    def into_holdings(self, connection: sa.Connection) -> None:
        """Copy the holdings that nobody else knows, no other row of the batch and nothing held, and their holders; the keys
        of the others go into ``shared``. The caller holds the lock of the material."""
        self.alone(connection, NARROW, self._held(connection), partial(self._holdings, connection))

    def into_shared(self, connection: sa.Connection) -> None:
        """Of an entity that has no holdings: what each row is about may be known to others."""
        with copying.into(connection, "shared", ["holding"], ["bytea"]) as copy:
            for chunk in self.chosen:
                copy.write(self._chosen(chunk, ["holding"]))

    def alone(
        self,
        connection: sa.Connection,
        columns: list[str],
        known: np.ndarray | None,
        take: Callable[[int, pa.Table], None],
        fit: Callable[[pa.Table], np.ndarray] | None = None,
    ) -> None:
        """Rows on the short way go to ``take``, about :data:`RUN` together, with the number of their first chunk: those whose
        holding no other row of the batch is about, and which is not in ``known`` (leading halves, sorted). ``fit``: which else
        may. The holdings of the others go into ``shared``."""
        repeated = self._repeated() if self.chosen else np.empty(0, dtype=np.uint64)
        for chunks in self._groups():
            fresh = []
            for chunk in chunks:
                rows = self._chosen(chunk, columns)
                own = leading(rows["holding"])  # taken for one that is known it goes the long way
                mask = ~np.isin(own, repeated)
                if known is not None and len(known):
                    mask &= known[np.minimum(np.searchsorted(known, own), len(known) - 1)] != own
                if fit is not None:
                    mask &= fit(rows)
                if mask.any():
                    fresh.append(rows.filter(pa.array(mask)))
                if not mask.all():
                    with copying.into(connection, "shared", ["holding"], ["bytea"]) as copy:
                        copy.write(rows.filter(pa.array(~mask)).select(["holding"]))
            if fresh:
                take(chunks[0], pa.concat_tables(fresh))
                fresh.clear()
                pa.default_memory_pool().release_unused()

    def found(
        self, connection: sa.Connection, columns: Mapping[str, str], table: str, query: Callable[[Join], str]
    ) -> np.ndarray:
        """Leading halves, sorted, of the holding keys that ``query`` finds, which joins the partitioned ``table`` and asks by
        ``columns`` (names, types) of the rows on the short way: the temporary table ``asked``."""
        named = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        connection.execute(sa.text(f"CREATE TEMP TABLE asked ({named}) ON COMMIT DROP"))
        with copying.into(connection, "asked", list(columns), list(columns.values())) as copy:
            for chunk in self.chosen:
                rows = self._chosen(chunk, list(columns))
                if rows.num_columns == len(columns):  # else of an earlier version
                    copy.write(rows.select(list(columns)))
        connection.execute(sa.text("ANALYZE asked"))
        with joining.joined(connection, self.accepted, table) as join:
            keys = pa.schema({"holding": pa.binary(16)})
            found = copying.out_of(connection, query(join), keys, {"source": self.batch.source})
        connection.execute(sa.text("DROP TABLE asked"))
        return np.sort(leading(found["holding"]))

    def _groups(self) -> Iterator[list[int]]:
        """Chunks with rows on the short way, about :data:`RUN` rows together."""
        group: list[int] = []
        for chunk in self.chosen:
            group.append(chunk)
            if sum(self.counts[one] for one in group) >= RUN:
                yield group
                group = []
        if group:
            yield group

    def _holdings(self, connection: sa.Connection, number: int, rows: pa.Table) -> None:
        """Copy holdings that only these rows know, and their holders."""
        rows = self.timed(rows)
        rows = rows.take(pa.array(np.argsort(leading(rows["holding"]))))
        columns = {
            "key": rows["holding"],
            "updated_at": rows["said_at"],
            "status": pc.coalesce(rows["status"], "in_force"),
        }
        constants = {"material": self.material, "source": self.batch.source, "authority": self.authority, "observations": 1,
                     "conflicting": False, "batch": self.batch.id}  # fmt: skip
        varying = {name: columns[name] if name in columns else rows[name] for name in HOLDING if name not in constants}
        copying.load(connection, "holding", HOLDING, iter([pa.table(varying)]), constants)
        holders = _holders(rows)
        roles = pc.unique(holders["role"])
        constants = {"role": roles[0].as_py()} if len(roles) == 1 else {}
        copying.load(connection, "holding_holder", HOLDER, iter([holders]), constants)
        self.workspace.write("fresh", number, rows.select(["holding", "digest", "denies"]))
        self.copied.append(number)

    def changed(self, connection: sa.Connection, *, every: bool) -> None:
        """Note the fresh holdings among those that changed, for those who follow what holdings say: ``every`` one, or those
        whose document denies an identifier in it."""
        columns = {"holding": "bytea", "present": "bool", "known": "bool", "fresh": "bool", "denies": "bool"}
        with copying.into(connection, "changed", list(columns), list(columns.values())) as copy:
            for chunk in self.copied:
                rows = self.workspace.read("fresh", chunk, ["holding", "denies"])
                rows = rows if every else rows.filter(pc.fill_null(rows["denies"], True))
                yes, no = (pa.repeat(value, len(rows)) for value in (True, False))
                copy.write(pa.table([rows["holding"], yes, no, yes, rows["denies"]], list(columns)))

    def feed(self, connection: sa.Connection, position: int, recorded_at: dt.datetime) -> int:
        """Announce the fresh holdings from ``position`` on; returns the last position given out."""

        def parts() -> Iterator[pa.Table]:
            first = position + 1
            for chunk in self.copied:
                rows = self.workspace.read("fresh", chunk, ["holding", "digest"])
                places = pa.array(np.arange(first, first + len(rows)))
                yield rows.append_column("position", places)
                first += len(rows)

        constants = {"material": self.material, "change": "added", "batch": self.batch.id, "recorded_at": recorded_at}
        return position + (copying.load(connection, "feed", FEED, parts(), constants) if self.copied else 0)

    def _repeated(self) -> np.ndarray:
        """Leading halves of holding keys that stand several times in the batch, short way and long."""

        def keys() -> Iterator[pa.ChunkedArray]:
            return (pc.drop_null(table["holding"]) for table in self.workspace.each("mapped", ["holding"]))

        return repeated(keys, sum(self.counts.values()))

    def _held(self, connection: sa.Connection) -> np.ndarray | None:
        """Leading halves, sorted, of those of the batch's holding keys that are held already; None when nothing of the
        material is."""
        some = sa.text("SELECT EXISTS (SELECT FROM holding WHERE material = :material)")
        if not self.chosen or not connection.scalar(some, {"material": self.material}):
            return None
        return self.found(connection, {"holding": "bytea"}, "holding", _held)

    def _chosen(self, chunk: int, columns: list[str]) -> pa.Table:
        """The rows of a chunk on the short way."""
        return self.workspace.read("mapped", chunk, columns).filter(pa.array(self._mask(chunk)))


def _held(join: Join) -> str:
    return f"SELECT h.key FROM asked AS a {join('holding', 'h', 'h.key = a.holding')}"


def _sorted(tables: Iterable[pa.Table], column: str) -> Iterator[pa.Table]:
    """The rows in runs of about :data:`RUN`, each in the order of ``column``: so an index grows page by page."""
    waiting: list[pa.Table] = []

    def run() -> pa.Table:
        rows = pa.concat_tables(waiting)
        waiting.clear()
        return rows.take(pa.array(np.argsort(leading(rows[column]))))

    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= RUN:
            del table
            yield run()
            pa.default_memory_pool().release_unused()
    if waiting:
        yield run()


def _holders(rows: pa.Table) -> pa.Table:
    """One row per identifier, holding and role, in the order of the key."""
    lists = rows["identifiers"].combine_chunks()
    parents = pc.list_parent_indices(lists)
    identifiers = pc.list_flatten(lists)
    roles = pc.list_flatten(rows["roles"].combine_chunks())
    table = pa.table([identifiers, rows["holding"].take(parents), roles], names=list(HOLDER))
    return table.take(pa.array(np.argsort(leading(identifiers))))
