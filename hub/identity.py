"""Who is whom: clusters of identifiers, a pure function of links, claims and people's decisions.

A link is a pair of identifiers that a row says belong together, a claim a birth date or sex that an identifier itself, a
link or a document says of it. What links and merges connect is one component. A component that claims two birth dates or two
sexes is joined by nobody but a person: each of its identifiers stands alone, ``contradictory``; so does a single one whose own document denies what it says itself. Decisions are weighed in
:mod:`hub.identity_decided`. A change leads to the components it touches being made anew, whole, by set-based SQL: nothing of
what they were before enters, so the order of arrival cannot matter. Holdings stay where they are; a lookup asks for all
identifiers of a cluster (:mod:`hub.identity_lookup`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from hub import home, identity_claims, identity_decided, identity_documents, identity_past
from hub.identity_components import components
from hub.incoming import Run

LINK = "identity-link"


def update(connection: sa.Connection, run: Run, batch: sa.Row) -> int:
    """Bring links, claims and clusters to what the rows of the links in ``touched`` say now; within the merge.

    Returns the links that came, went or may say something else. Other changes of identity wait until the caller commits.
    """
    alone(connection)
    return follow(connection, run)


def follow(connection: sa.Connection, run: Run) -> int:
    """:func:`update` of tables that nobody else changes."""
    _make(connection, "linked", _LINKED, **hashing())
    _make(connection, "identity_seed", _SEEDS)
    changed = run("DELETE FROM identity_link AS l USING touched AS t WHERE l.link = t.holding "
                  "AND NOT EXISTS (SELECT FROM linked AS n WHERE n.link = l.link)")  # fmt: skip
    run("DELETE FROM identity_claim AS c USING touched AS t WHERE c.evidence = t.holding")
    run(_LINKS)
    run(_LINK_CLAIMS)
    changed += connection.scalar(sa.text("SELECT count(*) FROM linked")) or 0
    renew(connection)
    run("DROP TABLE linked")
    return changed


def refresh(connection: sa.Connection) -> None:
    """Weigh anew whoever a document denies, or no longer denies, and the clusters whose documents say something else now;
    within the merge, once holdings and holders are written and before the lock on the feed. ``changed (holding, present,
    denies)``: the holdings that are not as before (:func:`hub.identity_documents.hear`).
    """
    alone(connection)
    seed(connection, [])
    identity_documents.hear(connection, hashing())
    if connection.scalar(sa.text("SELECT EXISTS (SELECT FROM identity_seed)")):
        renew(connection)
    else:
        connection.execute(sa.text("DROP TABLE identity_seed"))


def watching(connection: sa.Connection) -> bool:
    """Whether anybody is a member of anything: then all that documents claim of people has to be followed. Other changes of
    identity wait until the caller commits, so that links that another merge was about to commit count as well."""
    alone(connection)
    return bool(connection.scalar(sa.text("SELECT EXISTS (SELECT FROM identity_member)")))


def renew(connection: sa.Connection) -> None:
    """Make anew every component that an identifier of the temp table ``identity_seed (identifier, scheme, born_on, sex)``
    was in or is in by now; the table is dropped. Whose membership ended is left for :func:`hub.identity_past.close`."""
    change = identity_past.begin(connection)
    _make(connection, "identity_node", _NODES)
    identity_documents.of_nodes(connection)
    _make(connection, "identity_edge", _EDGES)
    _make(connection, "identity_said", _SAYINGS)
    components(connection, "identity_reached", "SELECT a, b FROM identity_edge")
    if identity_decided.concerned(connection):
        identity_decided.weigh(connection)
    else:
        connection.execute(sa.text("CREATE TEMP TABLE identity_label ON COMMIT DROP AS SELECT * FROM identity_reached"))
        _make(connection, "identity_conflict", _CONFLICTS)
    _make(connection, "identity_moved", _MOVED)
    for statement in (*_WRITTEN, _DROPPED):
        connection.execute(sa.text(statement), {"change": change})


def alone(connection: sa.Connection) -> None:
    """One change of identity at a time, to the end of the transaction: two that each see half would join what both deny."""
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended('yici-identity', 0))"))


def seed(connection: sa.Connection, seeds: Sequence[Mapping[str, object]]) -> None:
    """Make ``identity_seed`` of identifiers: ``key``, and as the identifier itself says ``scheme``, ``born_on``, ``sex``."""
    connection.execute(sa.text(_SEED))
    if seeds:
        connection.execute(sa.text("INSERT INTO identity_seed VALUES (:key, :scheme, :born_on, :sex)"), list(seeds))


def hashing() -> dict[str, bytes]:
    """The padded keys, as the function ``keyed_hash`` of the database takes them."""
    found = home.keyed_hash()
    return {"inner": found.inner, "outer": found.outer}


def _make(connection: sa.Connection, name: str, query: str, **bind: object) -> None:
    connection.execute(sa.text(f"CREATE TEMP TABLE {name} ON COMMIT DROP AS {query}"), bind)
    connection.execute(sa.text(f"ANALYZE {name}"))


_SEED = "CREATE TEMP TABLE identity_seed (identifier bytea, scheme text, born_on text, sex text) ON COMMIT DROP"
_BORN, _SEX = identity_claims.own("{n}_scheme", "{n}_value")
_FORM = f"""
  keyed_hash({{n}}_scheme || ':' || {{n}}_value, :inner, :outer) AS {{n}}, {{n}}_scheme, {_BORN} AS {{n}}_born, {_SEX} AS {{n}}_sex"""
# Several rows may say the same pair: they are one link, and whatever any of them claims counts. Each document is read once.
_LINKED = f"""
WITH said AS MATERIALIZED (
  SELECT o.holding AS link, o.document FROM touched AS t JOIN observation AS o USING (holding)
), parts AS MATERIALIZED (
  SELECT DISTINCT link, document #>> '{{holders,0,scheme}}' AS one_scheme, document #>> '{{holders,0,value}}' AS one_value,
    document #>> '{{holders,1,scheme}}' AS other_scheme, document #>> '{{holders,1,value}}' AS other_value,
    coalesce(document #>> '{{attributes,born_on}}', '') AS born_on,
    {identity_claims.known_sex("document #>> '{attributes,sex}'")} AS sex
  FROM said WHERE document ->> 'status' = 'in_force'
)
SELECT link, {_FORM.format(n="one")}, {_FORM.format(n="other")}, born_on, sex FROM parts
WHERE (one_scheme, one_value) IS DISTINCT FROM (other_scheme, other_value)
"""
_SEEDS = """
SELECT identifier, max(scheme) AS scheme, max(born_on) AS born_on, max(sex) AS sex FROM (
  SELECT one AS identifier, one_scheme AS scheme, one_born AS born_on, one_sex AS sex FROM linked
  UNION ALL SELECT other, other_scheme, other_born, other_sex FROM linked
  UNION ALL SELECT e.identifier, NULL, NULL, NULL
  FROM touched AS t JOIN identity_link AS l ON l.link = t.holding CROSS JOIN LATERAL (VALUES (l.one), (l.other)) AS e (identifier)
) AS s GROUP BY identifier
"""
# Sorted as the primary keys are: random keys inserted as they come would read half the index again.
_LINKS = """
INSERT INTO identity_link
SELECT DISTINCT n.link, n.one, n.other, 'standing' FROM linked AS n
WHERE NOT EXISTS (SELECT FROM identity_link AS l WHERE l.link = n.link) ORDER BY n.link
"""
_LINK_CLAIMS = identity_documents.claims("""
  SELECT one AS identifier, link AS evidence, born_on, sex, one_born AS own_born, one_sex AS own_sex FROM linked
  UNION ALL SELECT other, link, born_on, sex, other_born, other_sex FROM linked""")  # fmt: skip
# Numbered in the order of the identifiers: the smallest number of a component is its smallest identifier.
_NODES = """
SELECT row_number() OVER (ORDER BY identifier) AS n, * FROM (
  SELECT identifier, max(scheme) AS scheme, max(born_on) AS born_on, max(sex) AS sex, bool_or(known) AS known FROM (
    SELECT identifier, scheme, born_on, sex, false AS known FROM identity_seed
    UNION ALL
    SELECT identifier, scheme, born_on, sex, true FROM identity_member WHERE component IN (
      SELECT m.component FROM identity_seed AS s JOIN identity_member AS m USING (identifier))
  ) AS every GROUP BY identifier
) AS nodes
"""
_EDGES = """
SELECT greatest(x.n, y.n) AS a, least(x.n, y.n) AS b, l.link, l.state AS before, 'standing' AS state
FROM identity_node AS x JOIN identity_link AS l ON l.one = x.identifier JOIN identity_node AS y ON y.identifier = l.other
UNION ALL
SELECT * FROM (
  SELECT x.n AS a, min(x.n) OVER (PARTITION BY d.decision) AS b, cast(NULL AS bytea), NULL, 'standing'
  FROM identity_node AS x JOIN identity_decision AS d ON d.member = x.identifier
  WHERE d.kind = 'merge' AND d.side = 0 AND d.ended_by IS NULL
) AS merged WHERE a <> b
"""
_SAYINGS = """
SELECT n, born_on, sex, cast(NULL AS bytea) AS evidence FROM identity_node WHERE born_on IS NOT NULL OR sex IS NOT NULL
UNION ALL
SELECT x.n, nullif(c.born_on, ''), nullif(c.sex, ''), c.evidence FROM identity_node AS x JOIN identity_claim AS c USING (identifier)
"""
_CONFLICTS = """
SELECT root FROM identity_label JOIN identity_said USING (n)
GROUP BY root HAVING min(born_on) <> max(born_on) OR min(sex) <> max(sex)
"""
_NAMED = """EXISTS (
  SELECT FROM identity_decision AS d WHERE d.member = x.identifier AND d.side < 2 AND d.ended_by IS NULL)"""
# Alone in its component, named by nobody, and not contradicting itself: as one that was never heard of.
_LONE = f"""
SELECT x.identifier FROM identity_node AS x JOIN identity_reached AS r USING (n)
WHERE r.alone AND NOT {_NAMED} AND NOT EXISTS (SELECT FROM identity_conflict AS c WHERE c.root = x.n)
"""
_FOUND = f"""
SELECT x.identifier, x.scheme, x.born_on, x.sex, whole.identifier AS component,
  CASE WHEN c.root IS NULL THEN one.identifier ELSE x.identifier END AS cluster,
  CASE WHEN c.root IS NULL THEN 'joined' ELSE 'contradictory' END AS state
FROM identity_node AS x JOIN identity_reached AS r USING (n) JOIN identity_label AS l USING (n)
  JOIN identity_node AS whole ON whole.n = r.root JOIN identity_node AS one ON one.n = l.root
  LEFT JOIN identity_conflict AS c ON c.root = l.root
WHERE (NOT r.alone OR {_NAMED} OR c.root IS NOT NULL)"""
# Who is known and said to be something else now. `moved`: it is another membership, which begins with this change; one that
# began with it too was never seen.
_MOVED = f"""
SELECT n.*, (m.cluster, m.state) <> (n.cluster, n.state) AS moved, m.cluster AS was_cluster, m.state AS was_state, m.change AS was_change
FROM ({_FOUND} AND x.known) AS n JOIN identity_member AS m ON m.identifier = n.identifier
WHERE (m.scheme, m.born_on, m.sex, m.component, m.cluster, m.state)
  IS DISTINCT FROM (n.scheme, n.born_on, n.sex, n.component, n.cluster, n.state)
"""
_WRITTEN = (
    f"""
WITH gone AS (
  DELETE FROM identity_member AS m USING ({_LONE}) AS x WHERE m.identifier = x.identifier
  RETURNING m.identifier, m.cluster, m.state, m.change)
INSERT INTO identity_ended SELECT * FROM gone WHERE change < :change
""",
    """
INSERT INTO identity_ended SELECT identifier, was_cluster, was_state, was_change FROM identity_moved
WHERE moved AND was_change < :change
""",
    f"DELETE FROM identity_claim AS c USING ({_LONE}) AS x WHERE c.identifier = x.identifier",
    f"""
INSERT INTO identity_member (identifier, scheme, born_on, sex, component, cluster, state, change)
SELECT n.*, :change FROM ({_FOUND} AND NOT x.known) AS n ORDER BY n.identifier
""",
    """
UPDATE identity_member AS m SET scheme = n.scheme, born_on = n.born_on, sex = n.sex, component = n.component,
  cluster = n.cluster, state = n.state, change = CASE WHEN n.moved THEN :change ELSE m.change END
FROM identity_moved AS n WHERE m.identifier = n.identifier
""",
    """UPDATE identity_link AS l SET state = e.state FROM identity_edge AS e
    WHERE l.link = e.link AND e.before IS DISTINCT FROM e.state""",
)
_DROPPED = """
DROP TABLE identity_seed, identity_node, identity_edge, identity_said, identity_reached, identity_label, identity_conflict,
  identity_moved
"""
