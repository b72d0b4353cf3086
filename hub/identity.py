"""Who is whom: clusters of identifiers, a pure function of links, claims and people's decisions.

A link is a pair of identifiers that a row says belong together, a claim a birth date or sex that an identifier itself, a
link or a document says of it. What links and merges connect is one component. A component that claims two birth dates or two
sexes is joined by nobody but a person: each of its identifiers stands alone, ``contradictory``. Decisions are weighed in
:mod:`hub.identity_decided`. A change leads to the components it touches being made anew, whole, by set-based SQL: nothing of
what they were before enters, so the order of arrival cannot matter. Holdings stay where they are; a lookup asks for all
identifiers of a cluster (:mod:`hub.identity_lookup`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from hub import home, identity_decided, identity_past
from hub.identity_components import components
from hub.incoming import Run
from mappings import model

LINK = "identity-link"
MANY = 20_000  # changed holdings, from which on it is cheaper to start from the members


def update(connection: sa.Connection, run: Run, batch: sa.Row) -> int:
    """Bring links, claims and clusters to what the rows of the links in ``touched`` say now; within the merge.

    Returns the links that came, went or may say something else. Other changes of identity wait until the caller commits.
    """
    alone(connection)
    return follow(connection, run)


def follow(connection: sa.Connection, run: Run) -> int:
    """:func:`update` of tables that nobody else changes."""
    _make(connection, "linked", _LINKED, **_hashing())
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
    """Weigh the clusters anew whose documents say something else now; within the merge, once holdings and holders are
    written and before the lock on the feed. ``changed(holding, present, known)``: the holdings that are not as before.

    Merges of materials that claim nothing of anybody return at once and wait for nobody.
    """
    material = connection.scalar(
        sa.text("SELECT h.material FROM changed AS c JOIN holding AS h ON h.key = c.holding LIMIT 1")
    )
    claiming = _claiming()
    if material is not None and material not in claiming["materials"]:
        return
    if watching(connection):
        changed = connection.scalar(sa.text("SELECT count(*) FROM changed")) or 0
        members = connection.scalar(sa.text(_MEMBERS_ABOUT)) or 0
        spoken = _SPOKEN_BY_MEMBER if changed > max(MANY, members) else _SPOKEN_BY_HOLDING
        seed(connection, [])
        connection.execute(sa.text(_UNSAID))
        connection.execute(sa.text(_SAID.format(spoken=spoken)), {**_hashing(), **claiming})
        renew(connection)


def watching(connection: sa.Connection) -> bool:
    """Whether anybody is a member of anything: then what documents claim of people has to be followed. Other changes of
    identity wait until the caller commits, so that links that another merge was about to commit count as well."""
    alone(connection)
    return bool(connection.scalar(sa.text("SELECT EXISTS (SELECT FROM identity_member)")))


def renew(connection: sa.Connection) -> None:
    """Make anew every component that an identifier of the temp table ``identity_seed (identifier, scheme, born_on, sex)``
    was in or is in by now; the table is dropped. Whose membership ended is left for :func:`hub.identity_past.close`."""
    change = identity_past.begin(connection)
    _make(connection, "identity_node", _NODES)
    connection.execute(sa.text(_DOCUMENT_CLAIMS), _claiming())
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


def form(scheme: str, value: str) -> dict[str, str | None]:
    """What a normalised identifier says itself: scheme, birth date, sex; the same as SQL finds (``_FORM``)."""
    if scheme not in ("cn.ric", "cn.permit", "cn.fpr") or len(value) != 18:
        return {"scheme": scheme, "born_on": None, "sex": None}
    sex = "男" if value[16] in "13579" else "女"
    return {"scheme": scheme, "born_on": f"{value[6:10]}-{value[10:12]}-{value[12:14]}", "sex": sex}


def _claiming() -> dict[str, list[str]]:
    """The materials whose documents say when somebody was born or of which sex, and the role they say it of."""
    found = [(entity.code, role) for entity in model.all_materials() for role in entity.claims]
    return {"materials": [code for code, _ in found], "roles": [role for _, role in found]}


def _hashing() -> dict[str, bytes]:
    hashing = home.keyed_hash()
    return {"inner": hashing.inner, "outer": hashing.outer}


def _make(connection: sa.Connection, name: str, query: str, **bind: object) -> None:
    connection.execute(sa.text(f"CREATE TEMP TABLE {name} ON COMMIT DROP AS {query}"), bind)
    connection.execute(sa.text(f"ANALYZE {name}"))


_SEED = "CREATE TEMP TABLE identity_seed (identifier bytea, scheme text, born_on text, sex text) ON COMMIT DROP"
# What an identifier says itself: digits 7-14 of the 18 are the birth date, an odd 17th a man (GB 11643 and its likes).
_TELLING = "{n}_scheme IN ('cn.ric', 'cn.permit', 'cn.fpr') AND length({n}_value) = 18"
_FORM = f"""
  keyed_hash({{n}}_scheme || ':' || {{n}}_value, :inner, :outer) AS {{n}}, {{n}}_scheme,
  CASE WHEN {_TELLING} THEN
    concat_ws('-', substr({{n}}_value, 7, 4), substr({{n}}_value, 11, 2), substr({{n}}_value, 13, 2)) END AS {{n}}_born,
  CASE WHEN {_TELLING} THEN
    CASE WHEN substr({{n}}_value, 17, 1) IN ('1', '3', '5', '7', '9') THEN '男' ELSE '女' END END AS {{n}}_sex"""
_KNOWN_SEX = "CASE WHEN {sex} IN ('男', '女') THEN {sex} ELSE '' END"
# Several rows may say the same pair: they are one link, and whatever any of them claims counts. Each document is read once.
_LINKED = f"""
WITH said AS MATERIALIZED (
  SELECT o.holding AS link, o.document FROM touched AS t JOIN observation AS o USING (holding)
), parts AS MATERIALIZED (
  SELECT DISTINCT link, document #>> '{{holders,0,scheme}}' AS one_scheme, document #>> '{{holders,0,value}}' AS one_value,
    document #>> '{{holders,1,scheme}}' AS other_scheme, document #>> '{{holders,1,value}}' AS other_value,
    coalesce(document #>> '{{attributes,born_on}}', '') AS born_on,
    {_KNOWN_SEX.format(sex="document #>> '{attributes,sex}'")} AS sex
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
# What only repeats the identifier itself is left out.
_BEYOND = """
INSERT INTO identity_claim (identifier, evidence, born_on, sex)
SELECT DISTINCT identifier, evidence, CASE WHEN born_on IS DISTINCT FROM own_born THEN coalesce(born_on, '') ELSE '' END,
  CASE WHEN sex IS DISTINCT FROM own_sex THEN coalesce(sex, '') ELSE '' END
FROM ({said}) AS c
WHERE coalesce(born_on, '') NOT IN ('', coalesce(own_born, '')) OR coalesce(sex, '') NOT IN ('', coalesce(own_sex, ''))
ORDER BY identifier
"""
_LINK_CLAIMS = _BEYOND.format(
    said="""
  SELECT one AS identifier, link AS evidence, born_on, sex, one_born AS own_born, one_sex AS own_sex FROM linked
  UNION ALL SELECT other, link, born_on, sex, other_born, other_sex FROM linked"""
)
_MEMBERS_ABOUT = """
SELECT sum(greatest(c.reltuples, 0))::bigint FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'identity_member'::regclass
"""
# Two ways to the same: by the holders in the documents, or by what is held for the members.
_SPOKEN_BY_HOLDING = """
  SELECT c.holding, h ->> 'role' AS role, keyed_hash((h ->> 'scheme') || ':' || (h ->> 'value'), :inner, :outer) AS identifier
  FROM changed AS c JOIN holding AS g ON g.key = c.holding
    JOIN mapped_row AS l ON l.holding = g.key AND l.id = g.mapped
    CROSS JOIN LATERAL json_array_elements(l.document::json -> 'holders') AS h
  WHERE c.present AND g.material = ANY(:materials)
"""
_SPOKEN_BY_MEMBER = """
  SELECT w.holding, w.role, w.identifier FROM identity_member AS m JOIN holding_holder AS w USING (identifier)
    JOIN changed AS c USING (holding) WHERE c.present
"""
_DOCUMENT = f"""
  SELECT m.identifier, s.holding AS evidence, l.document::json -> 'attributes' ->> 'born_on' AS born_on,
    {_KNOWN_SEX.format(sex="(l.document::json -> 'attributes' ->> 'sex')")} AS sex, m.born_on AS own_born, m.sex AS own_sex
  FROM {{spoken}} AS s JOIN {{members}} AS m USING (identifier) JOIN holding AS g ON g.key = s.holding
    JOIN mapped_row AS l ON l.holding = g.key AND l.id = g.mapped
  WHERE (g.material, s.role) IN (SELECT * FROM unnest(cast(:materials AS text[]), cast(:roles AS text[])))
"""
_UNSAID = """
WITH gone AS (DELETE FROM identity_claim AS c USING changed AS h WHERE c.evidence = h.holding RETURNING c.identifier)
INSERT INTO identity_seed (identifier) SELECT DISTINCT identifier FROM gone
"""
_SAID = f"""
WITH said AS ({_BEYOND.format(said=_DOCUMENT.format(spoken="({spoken})", members="identity_member"))} RETURNING identifier)
INSERT INTO identity_seed (identifier) SELECT DISTINCT identifier FROM said
"""
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
# What documents say of an identifier is of no interest before it is linked.
_DOCUMENT_CLAIMS = _BEYOND.format(said=_DOCUMENT.format(
    spoken="(SELECT w.holding, w.role, w.identifier FROM identity_node AS x JOIN holding_holder AS w USING (identifier) WHERE NOT x.known)",
    members="identity_node",
))  # fmt: skip
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
_LONE = f"""
SELECT x.identifier FROM identity_node AS x JOIN identity_reached AS r USING (n)
WHERE r.alone AND NOT {_NAMED}
"""
_FOUND = f"""
SELECT x.identifier, x.scheme, x.born_on, x.sex, whole.identifier AS component,
  CASE WHEN c.root IS NULL THEN one.identifier ELSE x.identifier END AS cluster,
  CASE WHEN c.root IS NULL THEN 'joined' ELSE 'contradictory' END AS state
FROM identity_node AS x JOIN identity_reached AS r USING (n) JOIN identity_label AS l USING (n)
  JOIN identity_node AS whole ON whole.n = r.root JOIN identity_node AS one ON one.n = l.root
  LEFT JOIN identity_conflict AS c ON c.root = l.root
WHERE (NOT r.alone OR {_NAMED})"""
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
