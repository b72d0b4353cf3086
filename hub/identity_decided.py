"""What people's decisions make of a component: merges join whatever is claimed, splits part, and later links wait.

A merge makes its identifiers one unit, whose claims a person has seen: two birth dates inside it are no contradiction. Of the
unit are what its identifiers say themselves, what documents say of them, and links within it; what a link to somebody else says
is for that person as much as for the unit, and nobody accepted it. A unit may be of one identifier alone, whose documents deny
what it says itself. A split keeps two sides apart. What then still joins both sides of a split, or makes a merge contradictory,
was not known to who decided: in such a component every link between decided identifiers and others waits for a person,
whichever came first.
"""

from __future__ import annotations

import sqlalchemy as sa

from hub.identity_components import components


def concerned(connection: sa.Connection) -> bool:
    """Whether a decision in force names an identifier of the components at work."""
    return bool(connection.scalar(sa.text(f"SELECT EXISTS ({_DECIDED})")))


def weigh(connection: sa.Connection) -> None:
    """Make ``identity_label`` and ``identity_conflict`` of the nodes at work, and set the states of links in
    ``identity_edge``, as decided."""

    def run(*statements: str) -> None:
        for statement in statements:
            connection.execute(sa.text(statement))

    components(connection, "identity_merged", "SELECT a, b FROM identity_edge WHERE link IS NULL")
    run(_UNITS, "ANALYZE identity_unit", _PARTED, _UNHEARD)
    components(connection, "identity_label", _STANDING)
    run(_CONFLICTS, _VIOLATED, _WAITING, _UNHEARD, "DROP TABLE identity_label, identity_conflict")
    components(connection, "identity_label", _STANDING)
    run(_CONFLICTS, "DROP TABLE identity_merged, identity_unit, identity_violated")


_DECIDED = """
SELECT d.decision, d.kind, d.side, x.n FROM identity_node AS x JOIN identity_decision AS d ON d.member = x.identifier
WHERE d.side < 2 AND d.ended_by IS NULL
"""
_STANDING = "SELECT a, b FROM identity_edge WHERE state = 'standing'"
# `unit`: what merges make one; `merged`: whether a merge names it, perhaps it alone; `sides`: of which side of which splits it
# is, none: undecided.
_UNITS = f"""
CREATE TEMP TABLE identity_unit ON COMMIT DROP AS
SELECT m.n, m.root AS unit, m.n IN (SELECT n FROM ({_DECIDED}) AS d WHERE d.kind = 'merge') AS merged, s.sides
FROM identity_merged AS m LEFT JOIN (
  SELECT u.root, array_agg(DISTINCT d.decision || ' ' || d.side ORDER BY d.decision || ' ' || d.side) AS sides
  FROM ({_DECIDED}) AS d JOIN identity_merged AS u USING (n) WHERE d.kind = 'split' GROUP BY u.root
) AS s ON s.root = m.root
"""
# A link that a person saw and set aside stays aside; one that came later waits.
_SET_ASIDE = """
CASE WHEN EXISTS (SELECT FROM identity_decision AS d WHERE d.member = e.link AND d.side = 2 AND d.ended_by IS NULL)
  THEN 'parted' ELSE 'waiting' END"""
_OTHER_SIDES = "ARRAY(SELECT left(s, -1) || 1 - right(s, 1)::int FROM unnest({sides}) AS s)"
_PARTED = f"""
UPDATE identity_edge AS e SET state = {_SET_ASIDE}
FROM identity_unit AS x, identity_unit AS y
WHERE e.link IS NOT NULL AND x.n = e.a AND y.n = e.b AND x.sides && {_OTHER_SIDES.format(sides="y.sides")}
"""
# What a link says counts as long as the link does.
_UNHEARD = "DELETE FROM identity_said AS s USING identity_edge AS e WHERE s.evidence = e.link AND e.state <> 'standing'"
# Claims that a merge accepts count as one, the least of them. A link's claims stand at both its ends; where the other end is
# not of the unit they are no claims of it, or whatever contradicts the merge would be accepted by coming.
_CONFLICTS = """
CREATE TEMP TABLE identity_conflict ON COMMIT DROP AS
WITH said AS (
  SELECT l.root, u.unit, u.merged AND x.unit IS NOT DISTINCT FROM y.unit AS accepted, c.about, c.value
  FROM identity_said AS s JOIN identity_label AS l USING (n) JOIN identity_unit AS u USING (n)
    LEFT JOIN identity_edge AS e ON e.link = s.evidence
    LEFT JOIN identity_unit AS x ON x.n = e.a LEFT JOIN identity_unit AS y ON y.n = e.b
    CROSS JOIN LATERAL (VALUES ('born_on', s.born_on), ('sex', s.sex)) AS c (about, value)
  WHERE c.value IS NOT NULL
), accepted AS (
  SELECT root, about, value, min(least_one) AS least_one FROM (
    SELECT root, about, value, min(value) OVER (PARTITION BY unit, about) AS least_one FROM said WHERE accepted) AS m
  GROUP BY root, about, value
)
SELECT DISTINCT root FROM (
  SELECT root, about FROM said LEFT JOIN accepted USING (root, about, value)
  GROUP BY root, about HAVING min(coalesce(least_one, value)) <> max(coalesce(least_one, value))
) AS c
"""
_VIOLATED = f"""
CREATE TEMP TABLE identity_violated ON COMMIT DROP AS
SELECT DISTINCT l.root FROM identity_label AS l JOIN identity_unit AS u USING (n) JOIN identity_conflict USING (root) WHERE u.merged
UNION
SELECT x.root FROM (SELECT DISTINCT l.root, s.side FROM identity_label AS l JOIN identity_unit AS u USING (n), unnest(u.sides) AS s (side)) AS x
  JOIN (SELECT DISTINCT l.root, s.side FROM identity_label AS l JOIN identity_unit AS u USING (n), unnest({_OTHER_SIDES.format(sides="u.sides")}) AS s (side)) AS y
  USING (root, side)
"""
_WAITING = f"""
UPDATE identity_edge AS e SET state = {_SET_ASIDE}
FROM identity_label AS l, identity_unit AS x, identity_unit AS y
WHERE e.link IS NOT NULL AND e.state = 'standing' AND l.n = e.a AND x.n = e.a AND y.n = e.b
  AND l.root IN (SELECT root FROM identity_violated)
  AND (CASE WHEN x.merged THEN x.unit END, x.sides) IS DISTINCT FROM (CASE WHEN y.merged THEN y.unit END, y.sides)
"""
