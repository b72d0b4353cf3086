"""From a holding to the files and rows that say so, and from a landed file to its holdings. No identifier appears.

A holding is named by its key, as answers show it; a file by its name at the source or the start of its SHA-256.
"""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

from connectors.errors import UsageError
from hub import database

SHORTEST_DIGEST = 8

_HOLDING = """
SELECT h.material, h.status, h.valid_from, h.valid_to, h.region, h.conflicting, h.source, b.recorded_at
FROM holding AS h LEFT JOIN batch AS b ON b.id = h.batch WHERE h.key = :key
"""
_OBSERVATIONS = """
SELECT o.source, l.name AS file, l.digest AS sha256, o."row", o.batch, o.updated_at, o.authority,
  (o.source, o.row_key) = (h.source, h.row_key) AS in_force
FROM observation AS o JOIN landed_file AS l ON l.id = o.file LEFT JOIN holding AS h ON h.key = o.holding
WHERE o.holding = :key ORDER BY in_force DESC NULLS LAST, o.updated_at DESC, o.source, o."row"
"""
_VERSIONS = """
SELECT v.recorded_from, v.recorded_to, v.source, l.name AS file, l.digest AS sha256, v."row", v.batch,
  v.recorded_to IS NOT NULL AND v.recorded_to IS DISTINCT FROM lead(v.recorded_from) OVER (ORDER BY v.recorded_from) AS withdrawn
FROM holding_version AS v LEFT JOIN landed_file AS l ON l.id = v.file
WHERE v.holding = :key ORDER BY v.recorded_from
"""
_FILES = """
SELECT id, source, name, digest AS sha256, size, landed_at FROM landed_file
WHERE name = :name OR starts_with(digest, :digest) ORDER BY landed_at, id
"""
# The ledger names the last file that delivered a row; the observation the file behind what is held.
_ROWS = """
SELECT file, verdict, count(*) AS rows FROM row_ledger WHERE source = ANY(:sources) AND file = ANY(:files)
GROUP BY file, verdict
"""
_HELD = """
SELECT o.file, h.material, count(DISTINCT h.key) AS holdings FROM observation AS o JOIN holding AS h ON h.key = o.holding
WHERE o.file = ANY(:files) AND (h.source, h.row_key) = (o.source, o.row_key) GROUP BY o.file, h.material
"""
_LISTED = """
SELECT o.file, o."row", encode(o.holding, 'hex') AS holding, h.material,
  coalesce((h.source, h.row_key) = (o.source, o.row_key), false) AS in_force
FROM observation AS o LEFT JOIN holding AS h ON h.key = o.holding
WHERE o.file = ANY(:files) ORDER BY o.file, o."row" LIMIT :limit
"""


def of_holding(key: str) -> dict[str, Any]:
    """What stands behind a holding: ``{"holding", "material", …, "observations": […], "versions": […]}``.

    UsageError ``holding-unknown``; one that was withdrawn still has its versions.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{32}", key):
        raise UsageError("holding-unknown")
    bind = {"key": bytes.fromhex(key)}
    with database.engine().connect() as connection:
        found = connection.execute(sa.text(_HOLDING), bind).mappings().first()
        observations = connection.execute(sa.text(_OBSERVATIONS), bind).mappings().all()
        versions = connection.execute(sa.text(_VERSIONS), bind).mappings().all()
    if not versions and found is None:
        raise UsageError("holding-unknown")
    return {
        "holding": key.lower(),
        "held": found is not None,
        **(dict(found) if found else {}),
        "observations": [dict(row) for row in observations],
        "versions": [dict(row) for row in versions],
    }


def of_file(reference: str, limit: int = 50) -> list[dict[str, Any]]:
    """Landed files of that name or digest, each with its rows by verdict and the holdings it stands behind.

    ``rows`` counts rows that the file was the last to deliver; ``listed`` names the first ``limit`` of its observations.
    UsageError ``landed-file-unknown``.
    """
    digest = reference.lower() if re.fullmatch(rf"[0-9a-fA-F]{{{SHORTEST_DIGEST},64}}", reference) else "-"
    with database.engine().connect() as connection:
        files = connection.execute(sa.text(_FILES), {"name": reference, "digest": digest}).mappings().all()
        if not files:
            raise UsageError("landed-file-unknown")
        bind = {
            "files": [row["id"] for row in files],
            "sources": sorted({row["source"] for row in files}),
            "limit": limit,
        }
        rows = connection.execute(sa.text(_ROWS), bind).all()
        held = connection.execute(sa.text(_HELD), bind).all()
        listed = connection.execute(sa.text(_LISTED), bind).mappings().all()
    return [
        {
            **{name: value for name, value in file.items() if name != "id"},
            "rows": {verdict: count for number, verdict, count in rows if number == file["id"]},
            "holdings": {material: count for number, material, count in held if number == file["id"]},
            "listed": [
                {name: value for name, value in row.items() if name != "file"}
                for row in listed
                if row["file"] == file["id"]
            ],
        }
        for file in files
    ]
