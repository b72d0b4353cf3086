"""A partner hub's announcements as its index source lands them, for tests of what is made of them."""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa

from connectors import connect
from connectors import source as sources
from connectors.fetched import Fetched
from hub import batches, diff, home, index_direct, index_keys, mapped_rows, merge, outcome, pipeline
from hub.staging import KEYS
from hub.workspace import Workspace

KEY = bytes(range(32))
SOURCE, HUB = "xx-hub-index", "zj"
COLUMNS = ("handle", "material", "region", "status", "valid_from", "valid_to", "digest", "recorded_at", "position",
           "epoch", "hub", "subjects")  # fmt: skip
Row = dict[str, str]

_SOURCE = """
name: xx-hub-index
title: {zh: 邻省索引, en: Index of a partner hub}
owner: {zh: 邻省数据局, en: Data office of a neighbour}
region: "330000"
legal_basis: {zh: 节点间共享协议, en: Agreement between the hubs}
entity: index-entry
authority: 100
connector: files
connection: xx-hub
promise: P2D
extent: changes
row_key: [handle]
as_of: {column: recorded_at}
duplicates: latest
volume: {min: 0, max: 1000000, times_usual: 1000}
options: {pattern: "*.csv", settle_seconds: 0, columns: [COLUMNS]}
"""
_MAPPING = """field,from,transform,note
certificate_number,handle,text,
region,region,text,
valid_from,valid_from,date,
valid_to,valid_to,date,
status,=in_force,status,
updated_at,recorded_at,timestamp,
attributes.material,material,text,
attributes.state,status,text,
attributes.hub,hub,text,
attributes.epoch,epoch,text,
attributes.position,position,integer,
attributes.digest,digest,text,
attributes.subjects,subjects,text,
"""


def folder(root: Path, monkeypatch: pytest.MonkeyPatch, **replaced: str) -> str:
    """The source folder under ``root``; returns the source's name."""
    place = root / SOURCE
    place.mkdir(parents=True)
    text = _SOURCE.replace("COLUMNS", ", ".join(COLUMNS))
    for before, after in replaced.items():
        line = next(line for line in text.splitlines() if line.startswith(f"{before}:"))
        text = text.replace(line, f"{before}: {after}")
    (place / "source.yml").write_text(text, encoding="utf-8")
    (place / "mapping.csv").write_text(_MAPPING, encoding="utf-8")
    (place / "checks.yml").write_text("checks: []\n", encoding="utf-8")
    monkeypatch.setenv("YICI_SOURCES", str(root))
    return SOURCE


def announcement(
    number: int, *holders: tuple[str, str, str], epoch: str = "2026", at: str = "2026-03-01T08:00:00Z", **fields: str
) -> Row:
    """One row of certificate ``number``. ``holders``: (role, scheme, value)."""
    key = index_keys.epoch_key(KEY, epoch)
    subjects = [f"{role}:{index_keys.subject_id(key, scheme, value).hex()}" for role, scheme, value in holders]
    row = {
        "handle": index_keys.handle(key, f"{number:032x}").hex(),
        "material": "business-licence",
        "region": "330106",
        "status": "in_force",
        "valid_from": "",
        "valid_to": "",
        "digest": f"{number:032x}",
        "recorded_at": at,
        "position": str(number + 1),
        "epoch": epoch,
        "hub": HUB,
        "subjects": " ".join(subjects),
    }
    return {**row, **fields}


def withdrawn(row: Row, at: str, **fields: str) -> Row:
    """The announcement that the certificate of ``row`` is gone."""
    return {**row, "status": "withdrawn", "subjects": "", "recorded_at": at, **fields}


def write(path: Path, rows: list[Row]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


TOLD = {"materials": ["business-licence", "household-register"], "regions": ["33"]}


def cursor(epoch: str, **more: Any) -> dict[str, Any]:
    """What a read leaves behind: the epoch and, sealed, its key; and what the pages said they are about."""
    key = index_keys.for_cursor(home.current(), SOURCE, epoch, index_keys.epoch_key(KEY, epoch))
    return {"epoch": epoch, "position": 0, index_keys.CURSOR_KEY: key, **TOLD, **more}


def run(path: Path, rows: list[Row]) -> dict[str, Any]:
    """The whole pipeline over ``rows``, as if they had been read from the partner."""
    fetch, read = connect.fetch, cursor(max(row["epoch"] for row in rows))

    def fetched(*arguments: Any, **options: Any) -> Fetched:
        return replace(fetch(*arguments, **options), cursor=read)

    with mock.patch.object(connect, "fetch", fetched):
        return pipeline.run(SOURCE, input=write(path, rows))


def merged(engine: sa.Engine, rows: list[Row], read: dict[str, Any] | None = None) -> merge.Merged:
    """``rows`` merged as accepted ones of a batch of their own, without the stages before. ``read``: the cursor; by default that
    of their last epoch. A row is told apart by its ``key``, which is its handle by default."""
    described = sources.load(SOURCE)
    if read is None and rows:
        read = cursor(max(row["epoch"] for row in rows))
    with engine.begin() as connection:
        batch = batches.begin(connection, described, "c0" * 32, None)
        batches.update(connection, batch.id, state="gated", cursor=read, accepted=len(rows))
        ledger = set(connection.scalars(sa.text("SELECT row_key FROM row_ledger")))
    mapped = pa.Table.from_pylist([_outcome(place, row) for place, row in enumerate(rows)], outcome.SCHEMA)
    columns = {name: pa.array([row[column] or None for row in rows], pa.string()) for name, column in _SAID.items()}
    columns["region"] = pa.array([row["region"] for row in rows], pa.string())
    said = index_direct.said(columns, np.ones(len(rows), dtype=bool), SOURCE, home.keyed_hash())
    for name, values in said.items():
        place = mapped.schema.get_field_index(name)
        mapped = mapped.append_column(name, values) if place < 0 else mapped.set_column(place, name, values)
    workspace = Workspace(batch.id)
    workspace.write("mapped", 0, mapped_rows.write(batch, mapped))
    chunk, seen_at = pa.repeat(pa.scalar(0, pa.int32()), len(rows)), pa.nulls(len(rows), pa.timestamp("us", "UTC"))
    keys = mapped["row_key"].to_pylist()
    known = pa.array([keys.count(key) > 1 or uuid.UUID(bytes=key) in ledger for key in keys], pa.bool_())
    conflicting = pa.repeat(False, len(rows))
    needed = [mapped["ordinal"], mapped["row_key"], conflicting, known, chunk, seen_at]
    workspace.write("needed", 0, pa.table(needed, schema=diff.NEEDED))
    staged = [mapped["ordinal"], chunk, mapped["row_key"], mapped["digest"], seen_at]
    workspace.write("keys", 0, pa.table(staged, schema=KEYS))
    workspace.note(deliveries=[])
    with engine.begin() as connection:
        batch = batches.get(connection, batch.id)
        done = merge.merge(connection, batch, "index-entry", 100, home.keyed_hash(), kind="index")
        batches.update(connection, batch.id, state="merged", finished_at=sa.func.clock_timestamp())
    Workspace(batch.id).clear()
    return done


_SAID = {"certificate_number": "handle", "attributes.state": "status"} | {
    f"attributes.{name}": name for name in ("material", "hub", "epoch", "digest", "subjects")
}


def _outcome(place: int, row: Row) -> dict[str, Any]:
    document = {
        "certificate_number": row["handle"], "region": row["region"], "valid_from": row["valid_from"] or None,
        "valid_to": row["valid_to"] or None, "holders": [],
        "attributes": {name: row[name] or None for name in ("material", "hub", "epoch", "position", "digest", "subjects")}
        | {"state": row["status"]},
    }  # fmt: skip

    key = hashlib.md5(row.get("key", row["handle"]).encode(), usedforsecurity=False).digest()
    content = json.dumps(row, sort_keys=True).encode()
    return {
        "ordinal": place, "row_key": key, "original_key": key,
        "digest": hashlib.md5(content, usedforsecurity=False).digest(),
        "file": 1, "row": int(row["position"]), "verdict": "accepted", "reasons": "", "flags": "",
        "updated_at": dt.datetime.fromisoformat(row["recorded_at"]), "natural_key": row["handle"],
        "holding": home.keyed_hash().of(f"index-entry\x1f{row['handle']}"),
        "valid_from": _day(row["valid_from"]), "valid_to": _day(row["valid_to"]), "region": row["region"],
        "document": json.dumps(document),
    }  # fmt: skip


def _day(text: str) -> dt.date | None:
    return dt.date.fromisoformat(text) if text else None
