"""Checkpoints: the store as of one moment, in the landing zone, for ``yici rebuild`` to start from.

::

    checkpoints/<time>/<table>-<number>.parquet   rows as PostgreSQL writes them, every column as text
    checkpoints/<time>/manifest.json              written last: without it there is no checkpoint

All tables are in it but ``setting``: a table that is added to the schema comes along by itself. What is not held in the
store is not in it either: keys stay in the home. It holds what the store holds, so it is as private as what has landed.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from connectors.errors import FatalError
from connectors.landing import LandedFile, Landing
from connectors.spooled import seekable
from connectors.zone import Zone
from hub import copying, partitions, schema, state

FOLDER = "checkpoints"
NAME = re.compile(r"[0-9]{8}T[0-9]{12}Z")
OMITTED = {"setting"}  # of the database itself: its key's fingerprint, its marks
GIVEN = {"feed_head", "exchange_head"}  # a migrated database has their rows already
ROWS = 1_000_000  # of a file
HELD = 16 << 20  # bytes of an answer held at once
TEXT = {
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}
PARTED = ("feed", *partitions.HISTORY)  # what it holds by month; answers and evidence are carried over instead
KEPT = (*PARTED, "landing")
UNFINISHED = ("open", "gated", "halted", "approved")


class Progress(Protocol):
    """Told of each table as it begins: ``done`` of ``total`` tables."""

    def __call__(self, table: str, done: int, total: int) -> None: ...


def quiet(table: str, done: int, total: int) -> None:
    """No progress shown."""


@dataclass(frozen=True)
class Part:
    """A file of a table. ``file.path`` is relative to the landing zone."""

    table: str
    rows: int
    file: LandedFile


@dataclass(frozen=True)
class Checkpoint:
    """``merges``: by source, as the journal counts them. ``pending``: batches that were under way, (source, id): they need
    what has landed for them. ``months``: partitions by table, as yyyy-mm-dd; ``since``: what retention left. ``begins``: before it
    no version that ended is there. ``digest``: of :func:`hub.state.digest`."""

    name: str
    taken_at: dt.datetime
    revision: str
    key: str | None
    position: int
    digest: dict[str, str]
    merges: dict[str, int]
    pending: tuple[tuple[str, str], ...]
    months: dict[str, list[str]]
    since: dict[str, str]
    columns: dict[str, list[str]]
    parts: tuple[Part, ...]
    begins: str | None = None

    def shown(self) -> dict[str, Any]:
        rows: dict[str, int] = {}
        for part in self.parts:
            rows[part.table] = rows.get(part.table, 0) + part.rows
        return {
            "checkpoint": self.name,
            "taken_at": self.taken_at.isoformat(),
            "revision": self.revision,
            "digest": self.digest[state.ALL],
            "bytes": sum(part.file.size for part in self.parts),
            "rows": rows,
            "batches_under_way": [batch for _, batch in self.pending],
        }


def write(connection: sa.Connection, landing: Landing, *, history: bool = True, progress: Progress = quiet) -> str:
    """Write a checkpoint of what ``connection`` sees, one snapshot (:func:`hub.state.snapshot`); returns its name.

    ``history`` False leaves out the versions that ended. Memory stays bounded; a file is on this machine while it is
    written. Cut off, it leaves no checkpoint, and its files go with the next one a day later.
    """
    zone = landing.zone
    _sweep(zone)
    for setting, value in TEXT.items():  # a session may have others
        connection.execute(sa.text("SELECT set_config(:setting, :value, true)"), {"setting": setting, "value": value})
    taken_at = connection.scalar(sa.text("SELECT transaction_timestamp()")).astimezone(dt.UTC)
    name = f"{taken_at:%Y%m%dT%H%M%S%f}Z"
    tables = [table for table in _tables() if history or table not in partitions.HISTORY]
    columns = {table: _columns(connection, table) for table in tables}
    parts: list[Part] = []
    for done, table in enumerate(tables):
        progress(table, done, len(tables) + 1)
        parts.extend(_written(connection, zone, f"{FOLDER}/{name}", table, columns[table]))
    progress("digest", len(tables), len(tables) + 1)
    begins = partitions.history_begins(connection) if history else taken_at
    checkpoint = Checkpoint(
        name=name,
        taken_at=taken_at,
        revision=_revision(connection),
        key=_fingerprint(connection),
        position=int(connection.scalar(sa.select(schema.feed_head.c.position)) or 0),
        digest=state.digest(connection),
        merges={row.name: row.merges for row in connection.execute(sa.select(schema.source))},
        pending=tuple(
            (row.source, row.id)
            for row in connection.execute(
                sa.select(schema.batch).where(schema.batch.c.state.in_(UNFINISHED)).order_by(schema.batch.c.id)
            )
        ),
        months={table: [str(month) for month in partitions.months(connection, table)] for table in PARTED},
        since={kept: str(day) for kept in KEPT if (day := partitions.since(connection, kept))},
        columns=columns,
        parts=tuple(parts),
        begins=begins.astimezone(dt.UTC).isoformat() if begins else None,
    )
    zone.write(_manifest(name), orjson.dumps(checkpoint, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z))
    return name


def load(connection: sa.Connection, landing: Landing, name: str, progress: Progress = quiet) -> Checkpoint:
    """Fill the empty, migrated store behind ``connection`` from a checkpoint, in the caller's transaction.

    Every file is verified, and at the end the state digest. FatalError ``checkpoint-unknown``, ``checkpoint-damaged``,
    ``checkpoint-other-release``, ``checkpoint-other-key``, ``checkpoint-not-empty``, ``checkpoint-differs``, and those of
    files that were altered.
    """
    checkpoint = read(landing, name)
    if checkpoint.revision != (revision := _revision(connection)):
        raise FatalError("checkpoint-other-release", checkpoint=name, written=checkpoint.revision, store=revision)
    if checkpoint.key != _fingerprint(connection):
        raise FatalError("checkpoint-other-key", checkpoint=name)
    for table in _tables():
        if table in GIVEN:
            connection.execute(sa.text(f"DELETE FROM {table}"))
        elif connection.scalar(sa.text(f"SELECT EXISTS (SELECT FROM {table})")):
            raise FatalError("checkpoint-not-empty", table=table)
    wanted = {table: [dt.date.fromisoformat(month) for month in months] for table, months in checkpoint.months.items()}
    partitions.cover(connection, wanted)
    for kept, day in checkpoint.since.items():
        partitions.note_since(connection, kept, dt.date.fromisoformat(day))
    if checkpoint.begins:
        partitions.note_history_begins(connection, dt.datetime.fromisoformat(checkpoint.begins))
    for done, part in enumerate(checkpoint.parts):
        progress(part.table, done, len(checkpoint.parts) + 1)
        _loaded(connection, landing, part, checkpoint.columns[part.table])
    for table in checkpoint.columns:
        for column in connection.scalars(_NUMBERED, {"table": table}):
            highest = f"SELECT setval(pg_get_serial_sequence(:table, :column), max({_quoted(column)})) FROM {table}"
            connection.execute(sa.text(highest), {"table": table, "column": column})
    connection.execute(sa.text("ANALYZE"))
    progress("digest", len(checkpoint.parts), len(checkpoint.parts) + 1)
    found = state.digest(connection)
    if parts := sorted(part for part, value in checkpoint.digest.items() if found.get(part) != value):
        raise FatalError("checkpoint-differs", checkpoint=name, parts=", ".join(parts))
    return checkpoint


def names(landing: Landing) -> list[str]:
    """Complete checkpoints, oldest first."""
    return [name for name in landing.zone.names(FOLDER) if landing.zone.size(_manifest(name)) is not None]


def read(landing: Landing, name: str) -> Checkpoint:
    """What a checkpoint says of itself. FatalError ``checkpoint-unknown`` or ``checkpoint-damaged``."""
    if not NAME.fullmatch(name):
        raise _unknown(landing, "…")
    try:
        data = orjson.loads(landing.zone.read(_manifest(name)))
        parts = tuple(Part(part["table"], part["rows"], LandedFile.from_dict(part["file"])) for part in data["parts"])
        return Checkpoint(
            **{
                **data,
                "taken_at": dt.datetime.fromisoformat(data["taken_at"]),
                "pending": tuple((source, batch) for source, batch in data["pending"]),
                "parts": parts,
            }
        )
    except FileNotFoundError:
        raise _unknown(landing, name) from None
    except (ValueError, KeyError, TypeError):
        raise FatalError("checkpoint-damaged", checkpoint=name) from None


def verify(landing: Landing, checkpoint: Checkpoint, progress: Progress = quiet) -> None:
    """Read every file. FatalError ``landed-file-altered`` or ``landed-file-missing``."""
    for done, part in enumerate(checkpoint.parts):
        progress(part.table, done, len(checkpoint.parts))
        landing.verify(part.file)


def drop(landing: Landing, name: str) -> None:
    """Delete a checkpoint; its manifest first, so that no half of it is taken for one. FatalError ``checkpoint-unknown``."""
    if name not in names(landing):
        raise _unknown(landing, name if NAME.fullmatch(name) else "…")
    landing.zone.remove_file(_manifest(name))
    landing.zone.remove(f"{FOLDER}/{name}")


def _unknown(landing: Landing, name: str) -> FatalError:
    return FatalError("checkpoint-unknown", checkpoint=name, known=", ".join(names(landing)) or "-")


def _tables() -> list[str]:
    """In the order in which they may be filled."""
    return [str(table.name) for table in schema.metadata.sorted_tables if table.name not in OMITTED]


def _written(connection: sa.Connection, zone: Zone, folder: str, table: str, columns: list[str]) -> Iterator[Part]:
    shape = pa.schema([(column, pa.string()) for column in columns])
    chosen = ", ".join(f"{_quoted(column)}::text" for column in columns)
    blocks = copying.batches_of(connection, f"SELECT {chosen} FROM {table}", shape, {}, HELD)
    number, block = 0, next(blocks, None)
    while block is not None and (block.num_rows or number == 0):
        with zone.draft() as draft:
            rows = 0
            with zone.writing(), pq.ParquetWriter(draft, shape, compression="zstd") as file:
                while block is not None and rows < ROWS:
                    file.write_table(block)
                    rows += block.num_rows
                    block = next(blocks, None)
            size = draft.seek(0, 2)
            draft.seek(0)
            digest = hashlib.file_digest(cast(io.BufferedRandom, draft), "sha256").hexdigest()
            path = f"{folder}/{table}-{number:04d}.parquet"
            zone.publish(draft, path)
        yield Part(table, rows, LandedFile(digest, path.rpartition("/")[2], size, path))
        number += 1


def _loaded(connection: sa.Connection, landing: Landing, part: Part, columns: list[str]) -> None:
    landing.verify(part.file)  # whole, before anything is taken from it
    with (
        seekable(lambda: landing.zone.open(part.file.path), part.file.name) as stream,
        copying.into(connection, part.table, columns) as copy,
    ):
        for batch in pq.ParquetFile(stream).iter_batches(batch_size=copying.ROWS):
            copy.write(pa.Table.from_batches([batch]))


def _columns(connection: sa.Connection, table: str) -> list[str]:
    return list(connection.scalars(_COLUMNS, {"table": table}))


def _revision(connection: sa.Connection) -> str:
    return str(connection.scalar(sa.text("SELECT version_num FROM alembic_version")))


def _fingerprint(connection: sa.Connection) -> str | None:
    """Of the pseudonym key: under another one no identifier would be found."""
    return connection.scalar(sa.select(schema.setting.c.value).where(schema.setting.c.name == "pseudonym-key"))


def _sweep(zone: Zone) -> None:
    """Files of checkpoints that were never completed go when nobody can be writing them any more."""
    oldest = f"{dt.datetime.now(dt.UTC) - dt.timedelta(days=1):%Y%m%dT%H%M%S}"
    for name in zone.names(FOLDER):
        if name < oldest and zone.size(_manifest(name)) is None:
            zone.remove(f"{FOLDER}/{name}")


def _manifest(name: str) -> str:
    return f"{FOLDER}/{name}/manifest.json"


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


_COLUMNS = sa.text("""
SELECT attname FROM pg_attribute
WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
""")
_NUMBERED = sa.text("""
SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:table) AND attidentity <> '' AND NOT attisdropped
""")
