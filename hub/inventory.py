"""What is held now, counted: per material type, and how fresh each source is."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from hub import database, home

HOLDINGS = """
SELECT material, count(*) AS holdings, count(*) FILTER (WHERE status = 'in_force'
           AND (valid_to IS NULL OR valid_to >= current_date)) AS in_force,
       count(*) FILTER (WHERE valid_to < current_date) AS expired, count(*) FILTER (WHERE conflicting) AS conflicting
FROM holding GROUP BY material ORDER BY material
"""
SOURCES = """
SELECT source.name, source.entity, source.last_success_at,
       source.last_success_at IS NULL
           OR source.last_success_at < clock_timestamp() - make_interval(secs => source.promise_seconds) AS late,
       (SELECT count(*) FROM quarantine WHERE source = source.name AND state = 'open') AS in_quarantine
FROM source ORDER BY source.name
"""


def count() -> dict[str, Any]:
    """``{"materials": {code: {"holdings", "in_force", "expired", "conflicting"}}, "sources": {name: {"entity",
    "last_success_at", "late", "in_quarantine"}}}``; numbers only, no holder appears."""
    with database.engine().connect() as connection:
        materials = connection.execute(sa.text(HOLDINGS)).mappings().all()
        sources = connection.execute(sa.text(SOURCES)).mappings().all()
    return {
        "materials": {row["material"]: {key: row[key] for key in row if key != "material"} for row in materials},
        "sources": {
            row["name"]: {
                "entity": row["entity"],
                "last_success_at": row["last_success_at"].isoformat() if row["last_success_at"] else None,
                "late": row["late"],
                "in_quarantine": row["in_quarantine"],
            }
            for row in sources
        },
    }


def report() -> dict[str, Any]:
    """Count, and keep the counts as ``reports/holdings.json`` of the home. Returns holdings per material type."""
    counted = count()
    folder = home.current().path / "reports"
    folder.mkdir(exist_ok=True, mode=0o700)
    draft = folder / ".holdings.json"
    draft.write_text(json.dumps(counted, indent=2, ensure_ascii=False), encoding="utf-8")
    draft.replace(folder / "holdings.json")
    return {material: counts["holdings"] for material, counts in counted["materials"].items()}
