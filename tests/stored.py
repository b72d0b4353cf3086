"""Rows in the store as a merge leaves them, for tests of what reads it."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import Any

import sqlalchemy as sa

from hub.home import keyed_hash

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
        "attributes": {},
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
    """INSERT INTO observation (source, row_key, holding, digest, updated_at, authority, batch, file, "row", document)
    SELECT :source, :row_key, :key, :digest, :at, 100, 'b', id, :row, cast(:document AS jsonb)
    FROM landed_file WHERE source = :source AND name = :file""",
    """INSERT INTO holding (key, material, source, row_key, digest, updated_at, authority, observations, conflicting,
      status, valid_from, valid_to, region, document, recorded_at)
    VALUES (:key, :material, :source, :row_key, :digest, :at, 100, 1, false, :status, cast(:valid_from AS date),
      cast(:valid_to AS date), :region, cast(:document AS jsonb), :at)""",
    """INSERT INTO holding_holder (identifier, holding, role)
    SELECT keyed_hash((h ->> 'scheme') || ':' || (h ->> 'value'), :inner, :outer), :key, h ->> 'role'
    FROM jsonb_array_elements(cast(:document AS jsonb) -> 'holders') AS h""",
    """INSERT INTO holding_version (holding, recorded_from, material, digest, source, batch, file, "row", document)
    SELECT :key, :at, :material, :digest, :source, 'b', id, :row, cast(:document AS jsonb)
    FROM landed_file WHERE source = :source AND name = :file""",
)
