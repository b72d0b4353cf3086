"""Who is whom, made anew beside what the store holds: by the same function, from all rows, documents and decisions at once.

:mod:`hub.identity` names its tables without a schema; here temporary ones of the same names stand before the store's, so that
what it does as rows arrive is done to an empty store with all of them. Nobody is waited for, and nothing of the store written.
"""

from __future__ import annotations

import sqlalchemy as sa

from hub import identity, identity_documents
from mappings import model

TABLES = ("identity_link", "identity_claim", "identity_member")


def anew(connection: sa.Connection) -> None:
    """Make the temp tables ``due_identity_link``, ``due_identity_claim`` and ``due_identity_member``, to be compared with the
    store's; within a transaction in which temporary tables can be made.

    What an identifier that only a decision names says itself is taken from the store: a keyed hash does not tell. Where the
    store does not know it either (versions before kept nothing of those whom a split left merged) there is a difference: a
    rebuild knows it from the decision that named them.
    """
    entities = [entity.code for entity in model.all_entities() if entity.kind == "link"]
    connection.execute(sa.text(_SAYING), {"links": entities})
    connection.execute(sa.text(_DECIDED))
    path = connection.scalar(sa.text("SELECT current_setting('search_path')"))
    before = sa.text("SELECT set_config('search_path', :path, true)")
    for table in TABLES:
        connection.execute(sa.text(f"CREATE TEMP TABLE {table} (LIKE {table}) ON COMMIT DROP"))
    connection.execute(before, {"path": f"pg_temp, {path}"})

    def run(statement: str, **more: object) -> int:
        return connection.execute(sa.text(statement), more).rowcount

    for statement in ("ANALYZE touched", "ANALYZE named"):
        run(statement)
    identity.follow(connection, run)
    identity.seed(connection, [])
    run(_SEEDED)
    identity_documents.every_denied(connection, identity.hashing())
    identity.renew(connection)
    run("DROP TABLE identity_ended")  # everybody is new here
    for table in TABLES:
        run(f"ALTER TABLE pg_temp.{table} RENAME TO due_{table}")
        run(f"ANALYZE due_{table}")
    run("DROP TABLE touched, named")
    connection.execute(before, {"path": path})


def forget(connection: sa.Connection) -> None:
    """Drop what :func:`anew` made."""
    connection.execute(sa.text(f"DROP TABLE {', '.join(f'due_{table}' for table in TABLES)}"))


_SAYING = """
CREATE TEMP TABLE touched ON COMMIT DROP AS
SELECT DISTINCT o.holding FROM observation AS o JOIN source AS s ON s.name = o.source WHERE s.entity = ANY (:links)
"""
_DECIDED = """
CREATE TEMP TABLE named ON COMMIT DROP AS
SELECT DISTINCT d.member AS identifier, coalesce(m.scheme, '') AS scheme, m.born_on, m.sex
FROM identity_decision AS d LEFT JOIN identity_member AS m ON m.identifier = d.member
WHERE d.side < 2 AND d.ended_by IS NULL
"""
_SEEDED = """
INSERT INTO identity_seed
SELECT identifier, CASE WHEN m IS NULL THEN n.scheme END, CASE WHEN m IS NULL THEN n.born_on END, CASE WHEN m IS NULL THEN n.sex END
FROM named AS n LEFT JOIN identity_member AS m USING (identifier)
"""
