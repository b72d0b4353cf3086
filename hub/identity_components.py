"""Connected components in SQL: of any number of nodes in bounded memory, in a number of rounds that grows with the logarithm
of the longest chain (the alternation of large and small stars, Kiveris and others 2014, "Connected Components in MapReduce
and Beyond")."""

from __future__ import annotations

import sqlalchemy as sa


def components(connection: sa.Connection, name: str, edges: str) -> None:
    """Make the temp table ``name (n, root, alone)``: for each node of ``identity_node`` the smallest it is connected with.

    ``edges``: a query of pairs (a, b) of nodes, b the smaller. Pairs are replaced by others that connect the same until each
    node points at the smallest of its component.
    """
    _stars(connection, f"SELECT DISTINCT a, b FROM ({edges}) AS e")
    while connection.scalar(sa.text(_UNFINISHED)):
        _stars(connection, _LARGE)
        _stars(connection, _SMALL)
    connection.execute(sa.text(f"CREATE TEMP TABLE {name} ON COMMIT DROP AS {_LABELS}"))
    connection.execute(sa.text(f"ANALYZE {name}"))
    connection.execute(sa.text("DROP TABLE identity_star"))


def _stars(connection: sa.Connection, query: str) -> None:
    connection.execute(sa.text(f"CREATE TEMP TABLE identity_star_next ON COMMIT DROP AS {query}"))
    connection.execute(sa.text("DROP TABLE IF EXISTS identity_star"))
    connection.execute(sa.text("ALTER TABLE identity_star_next RENAME TO identity_star"))
    connection.execute(sa.text("ANALYZE identity_star"))


# Counted whole: the planner would look for a first one node by node, and there is none at the end.
_UNFINISHED = """
SELECT (SELECT count(*) FROM (SELECT a FROM identity_star GROUP BY a HAVING count(*) > 1) AS several) > 0
  OR (SELECT count(*) FROM identity_star AS e JOIN identity_star AS f ON f.a = e.b) > 0
"""
# Every node ties its larger neighbours to the smallest it knows …
_LARGE = """
WITH near AS (SELECT a AS u, b AS v FROM identity_star UNION ALL SELECT b, a FROM identity_star),
  least_of AS (SELECT u, least(u, min(v)) AS m FROM near GROUP BY u)
SELECT DISTINCT v AS a, m AS b FROM near JOIN least_of USING (u) WHERE v > u
"""
# … and then its smaller neighbours and itself.
_SMALL = """
WITH least_of AS (SELECT a AS u, min(b) AS m FROM identity_star GROUP BY a)
SELECT b AS a, m AS b FROM identity_star JOIN least_of ON a = u WHERE b <> m
UNION SELECT u, m FROM least_of
"""
_LABELS = """
SELECT x.n, coalesce(s.b, x.n) AS root, s.b IS NULL AND NOT EXISTS (SELECT FROM identity_star AS t WHERE t.b = x.n) AS alone
FROM identity_node AS x LEFT JOIN identity_star AS s ON s.a = x.n
"""
