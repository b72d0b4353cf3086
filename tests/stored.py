"""Rows in the store as a merge leaves them, for tests of what reads it."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from hub import knowledge, schema
from hub.holdings import Holders, Holding, Known, Provenance
from hub.home import current, keyed_hash
from hub.identity_lookup import People
from tests.emptying import empty

NOW = dt.datetime.now(dt.UTC)
LICENCE_CODE = "91310117MA1J3AJ43G"  # of a company in a public register
RESIDENT = "11010519491231002X"  # the example of GB 11643, nobody's
SPOUSE = "440524188001010014"  # another published example


def source(
    engine: sa.Engine,
    name: str,
    material: str,
    *,
    region: str = "310000",
    succeeded: dt.datetime | None = NOW,
    promise: dt.timedelta = dt.timedelta(days=2),
) -> None:
    """A source that ran, or (``succeeded`` None) never came to its end."""
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO source (name, entity, region, authority, extent, promise_seconds, last_success_at)"
                " VALUES (:name, :entity, :region, 100, 'partial', :promise, :at)"
                " ON CONFLICT (name) DO UPDATE SET last_success_at = excluded.last_success_at"
            ),
            {"name": name, "entity": material, "region": region, "promise": promise.total_seconds(), "at": succeeded},
        )


def holding(
    engine: sa.Engine,
    source_name: str,
    material: str,
    *holders: tuple[str, str, str],
    number: str | None = None,
    name: str | None = None,
    status: str = "in_force",
    valid_from: str | None = None,
    valid_to: str | None = None,
    region: str = "310117",
    file: str = "2019.csv",
    row: int = 2,
    recorded_at: dt.datetime | None = None,
    attributes: dict[str, Any] | None = None,
) -> str:
    """One certificate with one observation. ``holders``: (role, scheme, value). Returns the holding's key in hex."""
    hashing = keyed_hash()
    document: dict[str, Any] = {
        "certificate_number": number,
        "name": name,
        "region": region,
        "status": status,
        "valid_from": valid_from,
        "valid_to": valid_to,
        "holders": [{"role": role, "scheme": scheme, "value": value, "name": None} for role, scheme, value in holders],
        "attributes": attributes or {},
    }
    key = hashing.of(f"{material}\x1f{number}\x1f{uuid.uuid4()}")
    bind = {
        "key": key,
        "material": material,
        "source": source_name,
        "row_key": uuid.uuid4(),
        "digest": uuid.uuid4(),
        "status": status,
        "valid_from": valid_from,
        "valid_to": valid_to,
        "region": region,
        "document": json.dumps(document),
        "file": file,
        "row": row,
        "at": recorded_at or dt.datetime.now(dt.UTC),
        "inner": hashing.inner,
        "outer": hashing.outer,
    }
    with engine.begin() as connection:
        for statement in _HOLDING:
            connection.execute(sa.text(statement), bind)
    return key.hex()


_HOLDING = (
    "INSERT INTO landed_file (source, digest, name, size) VALUES (:source, :file, :file, 1) ON CONFLICT DO NOTHING",
    """INSERT INTO batch (id, source, state, extent, contract, merges_seen, recorded_at, finished_at)
    VALUES ('b-' || encode(:key, 'hex'), :source, 'merged', 'changes', '', 0, :at, :at)""",
    """INSERT INTO mapped_row (holding, id, source, row_key, file, "row", document, document_digest)
    SELECT :key, 1, :source, :row_key, id, :row, :document, md5(:document)::uuid
    FROM landed_file WHERE source = :source AND name = :file""",
    """INSERT INTO row_ledger (source, row_key, digest, contract, verdict, timed, updated_at, as_of, batch, file, "row", holding,
      mapped, authority, said_digest, said_at)
    SELECT :source, :row_key, :digest, :digest, 'accepted', true, :at, :at, 'b-' || encode(:key, 'hex'), id, :row, :key, 1, 100,
      :digest, :at
    FROM landed_file WHERE source = :source AND name = :file""",
    """INSERT INTO holding (key, mapped, material, source, row_key, digest, updated_at, authority, observations, conflicting,
      status, valid_from, valid_to, region, batch)
    VALUES (:key, 1, :material, :source, :row_key, :digest, :at, 100, 1, false, :status, cast(:valid_from AS date),
      cast(:valid_to AS date), :region, 'b-' || encode(:key, 'hex'))""",
    """INSERT INTO holding_holder (identifier, holding, role)
    SELECT keyed_hash((h ->> 'scheme') || ':' || (h ->> 'value'), :inner, :outer), :key, h ->> 'role'
    FROM jsonb_array_elements(cast(:document AS jsonb) -> 'holders') AS h""",
)


def end(connection: sa.Connection, key: str | None = None) -> None:
    """What is in force of a holding (key in hex), or of all, ends now, as a merge would note it."""
    hashing = keyed_hash()
    bind = {"key": key, "inner": hashing.inner, "outer": hashing.outer}
    connection.execute(sa.text(_ENDED), bind)


_ENDED = """
INSERT INTO holding_past (holding, recorded_from, recorded_to, material, digest, source, row_key, batch, file, "row",
  identifiers, document)
SELECT v.holding, v.recorded_from, now(), v.material, v.digest, v.source, v.row_key, v.batch, v.file, v."row",
  (SELECT array_agg(keyed_hash((h ->> 'scheme') || ':' || (h ->> 'value'), :inner, :outer))
   FROM jsonb_array_elements(v.document -> 'holders') AS h), v.document
FROM holding_version AS v
WHERE v.recorded_to IS NULL AND (CAST(:key AS text) IS NULL OR v.holding = decode(CAST(:key AS text), 'hex'))
"""


def emptied(engine: sa.Engine) -> sa.Engine:
    """A store that tests of a module share, with nothing in it, nor in its home but the keys. Texts and sources of answers
    stay: a server that is up has written them and knows it."""
    kept = ("setting", "feed_head", "answer_text", "answer_sources")
    tables = [name for name in schema.metadata.tables if name not in kept]
    with engine.begin() as connection:
        empty(connection, tables, restart=True)
        connection.execute(sa.text("UPDATE feed_head SET position = 0, recorded_at = '-infinity'"))
    for folder in ("landing", "sources", "work"):
        shutil.rmtree(current().path / folder, ignore_errors=True)
    return engine


def known_now(connection: sa.Connection, holders: Holders, materials: Sequence[str]) -> Known:
    """What :mod:`hub.knowledge` reads now, in the form in which :func:`hub.holdings.recorded` gives what was known."""
    found, snapshot = knowledge.current(connection, holders, materials)
    subjects = {digest: found.subject(digest) for digest in holders}
    kept: dict[str, Holding] = {}
    for digest, subject in subjects.items():
        for key, shape, rows in subject.found:
            whose = {**(kept[key].holders if key in kept else {}), digest: shape.roles}
            kept[key] = Holding(
                key, shape.material, shape.source, shape.status, shape.valid_from, shape.valid_to, shape.region,
                shape.conflicting, whose, tuple(Provenance(*row) for row in rows), shape.hub, shape.epoch, shape.as_of,
                shape.issued_on, shape.tests,
            )  # fmt: skip
    one = {
        member: tuple(sorted(digest for digest in holders if found.cluster.get(digest, (b"",))[0] == cluster))
        for member, (cluster, _) in found.cluster.items()
    }
    people = People(
        one,
        frozenset(digest for digest, subject in subjects.items() if subject.undecided),
        {digest: list(subject.through) for digest, subject in subjects.items() if subject.through},
    )
    sources = tuple(one for one in snapshot.sources if one.material in materials)
    return Known(tuple(kept[key] for key in sorted(kept)), sources, people)
