"""Tables emptied between tests that share a store.

By DELETE, which takes milliseconds: TRUNCATE makes all files of all partitions and indexes anew, and takes half a second for the
tables of a hub.
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa


def empty(connection: sa.Connection, tables: str | Iterable[str], *, restart: bool = False) -> None:
    """Empty ``tables`` (``"a, b"``) and what refers to them, within the connection's transaction, as a superuser. ``restart``:
    their identities begin at 1 again."""
    names = [name.strip() for name in tables.split(",")] if isinstance(tables, str) else list(tables)
    found = connection.execute(sa.text(_FOUND), {"names": names}).all()
    statements = ["SET LOCAL session_replication_role = replica"]  # in any order, whatever refers to what
    statements += [f"DELETE FROM {row.name}" for row in found if row.kind != "S"]
    statements += [f"ALTER SEQUENCE {row.name} RESTART" for row in found if row.kind == "S" and restart]
    statements += ["SET LOCAL session_replication_role = origin"]
    connection.execute(sa.text("; ".join(statements)))


_FOUND = """
WITH RECURSIVE emptied (oid) AS (
  SELECT name::regclass::oid FROM unnest(cast(:names AS text[])) AS name
  UNION SELECT k.conrelid FROM pg_constraint AS k JOIN emptied AS e ON k.confrelid = e.oid WHERE k.contype = 'f'
)
SELECT c.oid::regclass::text AS name, c.relkind AS kind FROM pg_class AS c
WHERE (c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.oid IN (SELECT oid FROM emptied))
  OR (c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend AS d JOIN emptied AS e ON d.refobjid = e.oid
        WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')))
ORDER BY 1
"""
