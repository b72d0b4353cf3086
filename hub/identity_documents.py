"""What documents say of those they are about, beyond what the identifiers themselves do (:mod:`hub.identity_claims`).

Of a member every document is heard, since what it says has to agree within the cluster. Of anybody else only one that denies the
identifier itself: such an identifier contradicts itself, and is a component of one. Most documents repeat the identifier; of
those that came the short way the merge knows already which do not, so a first load reads none but these.
"""

from __future__ import annotations

import sqlalchemy as sa

from hub import identity_claims, joining

MANY = 20_000  # changed holdings, from which on it is cheaper to start from the members


def hear(connection: sa.Connection, hashing: dict[str, bytes]) -> None:
    """Bring claims to what the documents of ``changed (holding, present, denies)`` say, and add to ``identity_seed`` whom they
    are about. ``denies``: whether the document denies an identifier in it; null where nobody has looked."""
    if connection.scalar(sa.text("SELECT EXISTS (SELECT FROM identity_member)")):
        changed = joining.count(connection, "changed")
        members = connection.scalar(sa.text(_MEMBERS_ABOUT)) or 0
        spoken = _SPOKEN_BY_MEMBER if changed > max(MANY, members) else _SPOKEN_BY_HOLDING
        connection.execute(sa.text(_UNSAID))
        bind = {**hashing, **identity_claims.claiming()}
        connection.execute(sa.text(_SAID.format(spoken=spoken)), bind)
    unread = connection.scalar(sa.text(f"SELECT count(*) FROM changed AS c WHERE {_UNREAD}")) or 0
    if unread:
        with joining.joined(connection, unread, "mapped_row") as join:
            documents = f"changed AS c {join('holding', 'g', 'g.key = c.holding')} {join('mapped_row', 'l', _IN_FORCE)}"
            _seed_denied(connection, documents, _UNREAD, hashing)


def every_denied(connection: sa.Connection, hashing: dict[str, bytes]) -> None:
    """Add to ``identity_seed`` everybody whom any document in force denies."""
    _seed_denied(connection, f"holding AS g JOIN mapped_row AS l ON {_IN_FORCE}", "true", hashing)


def _seed_denied(connection: sa.Connection, documents: str, where: str, hashing: dict[str, bytes]) -> None:
    """``documents``: of which holdings ``g`` and mapped rows ``l``."""
    bind = {**hashing, **identity_claims.claiming()}
    connection.execute(sa.text(_DENIED.format(documents=documents, where=where)), bind)


def of_nodes(connection: sa.Connection) -> None:
    """Claims of the documents of those in ``identity_node`` who were no members: before that they are of no interest."""
    connection.execute(sa.text(_OF_NODES), identity_claims.claiming())


def claims(said: str) -> str:
    """SQL that notes the claims of ``said (identifier, evidence, born_on, sex, own_born, own_sex)``, less what only repeats
    the identifier itself."""
    return f"""
INSERT INTO identity_claim (identifier, evidence, born_on, sex)
SELECT DISTINCT identifier, evidence, CASE WHEN born_on IS DISTINCT FROM own_born THEN coalesce(born_on, '') ELSE '' END,
  CASE WHEN sex IS DISTINCT FROM own_sex THEN coalesce(sex, '') ELSE '' END
FROM ({said}) AS c WHERE {identity_claims.beyond("own_born", "own_sex")} ORDER BY identifier
"""


_UNREAD = "c.present AND c.denies IS NOT FALSE"
_IN_FORCE = "l.holding = g.key AND l.id = g.mapped"
_ROLES = "SELECT * FROM unnest(cast(:materials AS text[]), cast(:roles AS text[]))"
_SAYS = f"""l.document::json -> 'attributes' ->> 'born_on' AS born_on,
    {identity_claims.known_sex("(l.document::json -> 'attributes' ->> 'sex')")} AS sex"""
_MEMBERS_ABOUT = """
SELECT sum(greatest(c.reltuples, 0))::bigint FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'identity_member'::regclass
"""
# Two ways to the same: by the holders in the documents, or by what is held for the members.
_SPOKEN_BY_HOLDING = f"""
  SELECT c.holding, h ->> 'role' AS role, keyed_hash((h ->> 'scheme') || ':' || (h ->> 'value'), :inner, :outer) AS identifier
  FROM changed AS c JOIN holding AS g ON g.key = c.holding JOIN mapped_row AS l ON {_IN_FORCE}
    CROSS JOIN LATERAL json_array_elements(l.document::json -> 'holders') AS h
  WHERE c.present AND g.material = ANY(:materials)
"""
_SPOKEN_BY_MEMBER = """
  SELECT w.holding, w.role, w.identifier FROM identity_member AS m JOIN holding_holder AS w USING (identifier)
    JOIN changed AS c USING (holding) WHERE c.present
"""
_DOCUMENT = f"""
  SELECT m.identifier, s.holding AS evidence, {_SAYS}, m.born_on AS own_born, m.sex AS own_sex
  FROM {{spoken}} AS s JOIN {{members}} AS m USING (identifier) JOIN holding AS g ON g.key = s.holding
    JOIN mapped_row AS l ON {_IN_FORCE}
  WHERE (g.material, s.role) IN ({_ROLES})
"""
_UNSAID = """
WITH gone AS (DELETE FROM identity_claim AS c USING changed AS h WHERE c.evidence = h.holding RETURNING c.identifier)
INSERT INTO identity_seed (identifier) SELECT DISTINCT identifier FROM gone
"""
_SAID = f"""
WITH said AS ({claims(_DOCUMENT.format(spoken="({spoken})", members="identity_member"))} RETURNING identifier)
INSERT INTO identity_seed (identifier) SELECT DISTINCT identifier FROM said
"""
_OF_NODES = claims(_DOCUMENT.format(
    spoken="(SELECT w.holding, w.role, w.identifier FROM identity_node AS x JOIN holding_holder AS w USING (identifier) WHERE NOT x.known)",
    members="identity_node",
))  # fmt: skip
_OWN_BORN, _OWN_SEX = identity_claims.own("scheme", "value")
# Nobody is hashed but who is denied.
_DENIED = f"""
WITH said AS (
  SELECT h ->> 'scheme' AS scheme, h ->> 'value' AS value, d.said -> 'attributes' ->> 'born_on' AS born_on,
    {identity_claims.known_sex("(d.said -> 'attributes' ->> 'sex')")} AS sex
  FROM {{documents}} CROSS JOIN LATERAL (SELECT l.document::jsonb AS said OFFSET 0) AS d
    CROSS JOIN LATERAL jsonb_array_elements(d.said -> 'holders') AS h
  WHERE {{where}} AND g.material = ANY(:materials) AND (g.material, h ->> 'role') IN ({_ROLES})
), denied AS MATERIALIZED (
  SELECT scheme, value, {_OWN_BORN} AS own_born, {_OWN_SEX} AS own_sex FROM said
  WHERE scheme || value IS NOT NULL AND ({identity_claims.beyond(_OWN_BORN, _OWN_SEX)})
)
INSERT INTO identity_seed (identifier, scheme, born_on, sex)
SELECT DISTINCT keyed_hash(scheme || ':' || value, :inner, :outer), scheme, own_born, own_sex FROM denied
"""
