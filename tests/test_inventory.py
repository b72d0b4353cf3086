"""Counts of what is held: numbers per material type and per source, kept as a file."""

from __future__ import annotations

import json
from pathlib import Path

import sqlalchemy as sa

from hub import home, inventory

SOURCE = """INSERT INTO source (name, entity, region, authority, extent, promise_seconds, last_success_at)
VALUES (:name, 'business-licence', '310000', 100, 'partial', 3600, clock_timestamp() - make_interval(secs => :age))"""
HOLDING = """INSERT INTO holding (key, mapped, material, source, row_key, digest, updated_at, authority, observations, conflicting,
    status, valid_to, batch)
SELECT decode(md5(n::text), 'hex'), n, 'business-licence', 's', md5(n::text)::uuid, md5(n::text)::uuid, now(), 1, 1, n = 1,
    CASE n WHEN 2 THEN 'revoked' ELSE 'in_force' END, CASE n WHEN 3 THEN current_date - 1 END, 'b'
FROM generate_series(1, 5) AS n"""


def test_an_empty_store_has_nothing(store: sa.Engine) -> None:
    assert inventory.count() == {"materials": {}, "sources": {}}


def test_holdings_and_lateness_are_counted(store: sa.Engine) -> None:
    with store.begin() as connection:
        connection.execute(sa.text(SOURCE), [{"name": "on-time", "age": 60}, {"name": "behind", "age": 7200}])
        connection.execute(sa.text(HOLDING))
    counted = inventory.count()
    assert counted["materials"] == {"business-licence": {"holdings": 5, "in_force": 3, "expired": 1, "conflicting": 1}}
    assert {name: source["late"] for name, source in counted["sources"].items()} == {"on-time": False, "behind": True}


def test_the_report_is_kept_in_the_home(store: sa.Engine) -> None:
    with store.begin() as connection:
        connection.execute(sa.text(HOLDING))
    assert inventory.report() == {"business-licence": 5}
    kept = Path(home.current().path) / "reports" / "holdings.json"
    assert json.loads(kept.read_text(encoding="utf-8")) == inventory.count()
