"""What people decide about identity: merge and split, landed first, then in force, and taken back by the opposite.

A merge says that identifiers are one subject, a split that some are none with the rest of their component. Each first ends
the decisions that say otherwise; where that is enough nothing else is recorded, so that a merge and then a split leave
everything as it was. What is landed is the whole effect (keys of identifiers and links, decisions that end): carrying it out
needs nothing else, so a rebuild repeats it (:func:`carry_out`). It is worked out first and landed at the end, shortly before
the commit: the time it is landed with is the one at which it becomes known (:mod:`hub.identity_past`), in the order of
commits, and a rebuild finds the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from connectors.errors import UsageError
from hub import decisions, home, identity, identity_claims, identity_past
from mappings import model, scalars

KINDS = ("merge", "split", "review")  # of decisions about identity
KEY = "key:"  # before a key as `yici identity` shows it, in the place of an identifier
Named = dict[str, dict[str, Any]]
"""Key in hex -> scheme, birth date and sex as the identifier itself says, null where it says nothing."""


def named(texts: Sequence[str]) -> Named:
    """Identifiers as people write them, or ``key:`` and 32 hex digits. UsageError ``identity-identifier``."""
    found: Named = {}
    hashing = home.keyed_hash()
    for place, text in enumerate(texts, start=1):
        if text.startswith(KEY):
            key = text.removeprefix(KEY).lower()
            if len(key) != 32 or set(key) - set("0123456789abcdef"):
                raise UsageError("identity-identifier", place=place)
            found[key] = {}
            continue
        judged = scalars.parse(text)
        if judged.verdict == "invalid" or judged.scheme is None or not judged.normalised:
            raise UsageError("identity-identifier", place=place)
        key = hashing.of(home.identifier_text(judged.scheme, judged.normalised)).hex()
        found[key] = identity_claims.form(judged.scheme, judged.normalised)
    return found


def merge(connection: sa.Connection, identifiers: Sequence[str], *, actor: str, note: str = "") -> dict[str, Any]:
    """Say that all of ``identifiers`` are one subject, whatever documents claim; in force when the caller commits. One alone
    that contradicts itself is so, too: the number and what is said of it are of one person. Returns the decision and who is
    one now.

    UsageError ``identity-two`` with fewer than two otherwise, ``identity-one-already`` when they are, ``identity-kinds`` when a
    person and an organisation are among them or those that are one with them.
    """
    who = named(identifiers)
    identity.alone(connection)
    decisions.revoke_unfinished(connection, KINDS)
    _known(connection, who)
    several = len(who) > 1
    if len(set(connection.scalars(sa.text(_KINDS), {"keys": _bytes(who), **_schemes(who)}))) > 1:
        raise UsageError("identity-kinds")
    if not several and not connection.scalar(sa.text(_CONTRADICTORY), {"keys": _bytes(who)}):
        raise UsageError("identity-two")
    if _one(connection, who):
        raise UsageError("identity-one-already")
    ends = list(connection.scalars(sa.text(_PARTING), {"keys": _bytes(who)})) if several else []
    content: dict[str, Any] = {"kind": "merge", "named": who, "ends": ends, "members": [], "links": []}
    if not ends or not _enough(connection, content):
        content["members"] = [[key, 0] for key in who]
        seen = connection.scalars(sa.text(_WAITING), {"keys": _bytes(who)}) if several else ()
        content["links"] = [key.hex() for key in seen]
    landed = _decide(connection, content, actor=actor, note=note)
    return _result(connection, landed, who)


def split(connection: sa.Connection, identifiers: Sequence[str], *, actor: str, note: str = "") -> dict[str, Any]:
    """Say that two identifiers are not one subject; or that one is none with all that it is joined with, and what was accepted
    of it alone is not any more. As :func:`merge`.

    What else is joined with both of two waits for a person, link by link: nobody said to which of them it belongs.
    UsageError ``identity-split-of`` for more than two, ``identity-apart`` when there is nothing to part.
    """
    who = named(identifiers)
    if not 0 < len(who) < 3:
        raise UsageError("identity-split-of")
    identity.alone(connection)
    decisions.revoke_unfinished(connection, KINDS)
    _known(connection, who)
    keys = _bytes(who)
    one, other = keys[:1], keys[1:]
    reached = connection.scalars(sa.text(_REST), {"keys": one})
    rest = [key for key in reached if not other or key in other]
    accepted = [] if other else connection.scalars(sa.text(_ALONE), {"keys": one}).all()
    if not rest and not accepted:
        raise UsageError("identity-apart")
    ended: dict[str, list[bytes]] = dict.fromkeys(accepted, one)
    for row in connection.execute(sa.text(_JOINING), {"keys": one, "rest": rest}):
        ended.setdefault(row.decision, []).append(row.member)
    content: dict[str, Any] = {"kind": "split", "named": who, "ends": list(ended), "members": [], "links": []}
    # Those who were merged with somebody who leaves stay merged among themselves.
    left = [
        group for group in ([key for key in group if key not in keys] for group in ended.values()) if len(group) > 1
    ]
    # What they say themselves goes with them: once their merge has ended nobody may know it any more.
    again: list[dict[str, Any]] = [
        {
            "kind": "merge",
            "named": _forms(connection, group),
            "ends": [],
            "links": [],
            "members": [[key.hex(), 0] for key in group],
        }
        for group in left
    ]
    trial = connection.begin_nested()
    if ended:
        for place, effect in enumerate([content, *again]):
            _apply(connection, f"trial {place}", effect)
        # Where what is left contradicts itself nobody is one with anybody, whatever connects them: so it was before the merge.
        rest = list(connection.scalars(sa.text(_WITH), {"keys": one, "rest": rest}))
    if rest:
        content["members"] = [[one[0].hex(), 0], *([key.hex(), 1] for key in rest)]
        content["links"] = [key.hex() for key in connection.scalars(sa.text(_BETWEEN), {"keys": one, "rest": rest})]
    trial.rollback()
    landed = _decide(connection, content, actor=actor, note=note)
    for group in again:
        _decide(connection, group, actor=actor, note=note)
    return _result(connection, landed, who)


def unfinished(engine: sa.Engine) -> list[str]:
    """Digests of landed decisions that are neither in force nor taken back. Where there seem to be some, those under way are
    waited for: theirs take effect."""
    with engine.begin() as connection:
        if not decisions.unfinished(connection, KINDS):
            return []
        identity.alone(connection)
        return [one.digest for one in decisions.unfinished(connection, KINDS)]


def take_back_unfinished(engine: sa.Engine) -> int:
    """Take back what :func:`unfinished` finds, as the next decision would; returns how many there were."""
    with engine.begin() as connection:
        identity.alone(connection)
        return decisions.revoke_unfinished(connection, KINDS)


def forms(landed: Iterable[decisions.Landed]) -> Named:
    """What identifiers say themselves, as far as any of the decisions ``landed`` says it."""
    told = (one.content.get("named", {}) for one in landed if one.content["kind"] in KINDS)
    return {key: form for named in told for key, form in named.items() if form.get("scheme")}


def carry_out(connection: sa.Connection, landed: decisions.Landed, known: Named | None = None) -> None:
    """Put a landed merge or split into force, known since it was decided; twice is as once.

    ``known``: :func:`forms` of all decisions, to which those of the merges that this one ends are added. Of identifiers that
    were left merged by a split, or named by their keys, some decisions were landed without what they say themselves.
    """
    identity.alone(connection)
    content, known = landed.content, forms([landed]) if known is None else known
    ended = connection.scalars(sa.text(_ENDED_MEMBERS), {"ends": content["ends"]}).all()
    for key, form in _forms(connection, ended).items():
        known.setdefault(key, form)
    who = (*content["named"], *(key for key, side in content["members"]))
    _apply(connection, landed.digest, {**content, "named": {key: known.get(key, {}) for key in who}})
    identity_past.close(connection, identity_past.announce(connection, landed.decided_at))


def _decide(connection: sa.Connection, content: dict[str, Any], *, actor: str, note: str) -> decisions.Landed:
    """Put a merge or split into force and land it."""
    _apply(connection, _UNNAMED, content)
    decided_at = identity_past.announce(connection)
    landed = decisions.record_identity(connection, content, actor=actor, note=note, decided_at=decided_at)
    for statement in _NAMED:
        connection.execute(sa.text(statement), {"decision": landed.digest, "before": _UNNAMED, "ends": content["ends"]})
    identity_past.close(connection, decided_at)
    return landed


def _apply(connection: sa.Connection, decision: str, content: dict[str, Any]) -> None:
    seeds = [{"key": bytes.fromhex(key), **_FORMLESS, **form} for key, form in content["named"].items()]
    seeds += [{"key": bytes.fromhex(key), **_FORMLESS} for key, side in content["members"]]
    bind = {"decision": decision, "ends": content["ends"]}
    seeds += [{"key": key, **_FORMLESS} for key in connection.scalars(sa.text(_ENDED_MEMBERS), bind)]
    connection.execute(sa.text(_ENDED), bind)
    rows = [(key, side) for key, side in content["members"]] + [(key, 2) for key in content["links"]]
    if rows and content["members"]:
        connection.execute(
            sa.text(_RECORDED),
            [{"decision": decision, "member": bytes.fromhex(key), "side": side, "kind": content["kind"]} for key, side in rows],
        )  # fmt: skip
    identity.seed(connection, seeds)
    identity.renew(connection)


def _enough(connection: sa.Connection, content: dict[str, Any]) -> bool:
    """Whether ending what parts them makes them one; tried and taken back."""
    trial = connection.begin_nested()
    _apply(connection, "trial", content)
    found = _one(connection, content["named"])
    trial.rollback()
    return found


def _one(connection: sa.Connection, who: Named) -> bool:
    found = connection.execute(sa.text(_CLUSTERS), {"keys": _bytes(who)}).one()
    return bool(found.members == len(who) and found.clusters == 1)


def _known(connection: sa.Connection, who: Named) -> None:
    """Of those that a key alone names, add what they say themselves: it must be one that a link or a decision names."""
    bare = [bytes.fromhex(key) for key, form in who.items() if not form]
    known = connection.scalar(
        sa.text("SELECT count(*) FROM identity_member WHERE identifier = ANY(:keys)"), {"keys": bare}
    )
    if known != len(bare):
        raise UsageError("identity-key-unknown")
    who |= _forms(connection, bare)


def _forms(connection: sa.Connection, keys: Sequence[bytes]) -> Named:
    """What those of ``keys`` who are members say themselves, as far as it is known."""
    rows = connection.execute(sa.text(_FORMS), {"keys": list(keys)})
    return {row.key: {"scheme": row.scheme, "born_on": row.born_on, "sex": row.sex} for row in rows}


def _schemes(who: Named) -> dict[str, list[str]]:
    return {
        "named": [form["scheme"] for form in who.values() if form],
        "organisations": list(model.ORGANISATION_SCHEMES),
    }


def _result(connection: sa.Connection, landed: decisions.Landed, who: Named) -> dict[str, Any]:
    rows = connection.execute(sa.text(_NOW), {"keys": _bytes(who)})
    return {
        "decision": landed.digest,
        "kind": landed.content["kind"],
        "ended": landed.content["ends"],
        "clusters": [{"cluster": row.cluster, "state": row.state, "members": row.members} for row in rows],
    }


def _bytes(who: Named) -> list[bytes]:
    return [bytes.fromhex(key) for key in who]


_FORMS = """
SELECT encode(identifier, 'hex') AS key, scheme, born_on, sex FROM identity_member
WHERE identifier = ANY(:keys) AND scheme IS NOT NULL ORDER BY identifier
"""
# Whether it is an organisation, of each identifier that is named, and of each that is one with it already.
_KINDS = """
SELECT s.scheme = ANY(:organisations) AS organisation FROM (
  SELECT unnest(cast(:named AS text[])) AS scheme
  UNION
  SELECT o.scheme FROM identity_member AS k JOIN identity_member AS o USING (component, cluster) WHERE k.identifier = ANY(:keys)
) AS s WHERE s.scheme IS NOT NULL
"""
_UNNAMED = "being decided"  # named by its digest, once it is landed
_NAMED = (
    "UPDATE identity_decision SET decision = :decision WHERE decision = :before",
    "UPDATE identity_decision SET ended_by = :decision WHERE decision = ANY(:ends) AND ended_by = :before",
)
_FORMLESS = {"scheme": None, "born_on": None, "sex": None}
# Splits that part what the merge names, or what merges have already made one with it.
_PARTING = """
WITH RECURSIVE one AS (
  SELECT unnest(cast(:keys AS bytea[])) AS member
  UNION
  SELECT o.member FROM one AS k JOIN identity_decision AS d USING (member)
    JOIN identity_decision AS o ON o.decision = d.decision AND o.side = 0
  WHERE d.kind = 'merge' AND d.side = 0 AND d.ended_by IS NULL
)
SELECT d.decision FROM identity_decision AS d JOIN one USING (member)
WHERE d.kind = 'split' AND d.side < 2 AND d.ended_by IS NULL
GROUP BY d.decision HAVING count(DISTINCT d.side) = 2 ORDER BY d.decision
"""
_CONTRADICTORY = "SELECT EXISTS (SELECT FROM identity_member WHERE identifier = ANY(:keys) AND state = 'contradictory')"
# Merges of nobody else.
_ALONE = """
SELECT decision FROM identity_decision WHERE kind = 'merge' AND side = 0 AND ended_by IS NULL AND decision IN (
  SELECT decision FROM identity_decision WHERE member = ANY(:keys))
GROUP BY decision HAVING count(*) = 1
"""
_WAITING = """
SELECT link FROM identity_link WHERE state <> 'standing' AND (one = ANY(:keys) OR link IN (
  SELECT l.link FROM identity_member AS k JOIN identity_member AS m USING (component)
    JOIN identity_link AS l ON l.one = m.identifier WHERE k.identifier = ANY(:keys) AND l.other = ANY(:keys)))
ORDER BY link
"""
# Links are found by their first end alone: all of a component have theirs within it.
_REST = """
WITH RECURSIVE whole AS MATERIALIZED (
  SELECT l.one, l.other FROM identity_link AS l WHERE l.state = 'standing' AND l.one IN (
    SELECT m.identifier FROM identity_member AS k JOIN identity_member AS m USING (component) WHERE k.identifier = ANY(:keys))
  UNION ALL
  SELECT x.member, y.member FROM identity_decision AS x JOIN identity_decision AS y USING (decision)
  WHERE x.kind = 'merge' AND x.side = 0 AND y.side = 0 AND x.ended_by IS NULL AND x.member IN (
    SELECT m.identifier FROM identity_member AS k JOIN identity_member AS m USING (component) WHERE k.identifier = ANY(:keys))
), reached AS (
  SELECT unnest(cast(:keys AS bytea[])) AS member
  UNION
  SELECT CASE WHEN w.one = r.member THEN w.other ELSE w.one END FROM reached AS r JOIN whole AS w ON r.member IN (w.one, w.other)
)
SELECT member FROM reached WHERE member <> ALL(:keys) ORDER BY member
"""
# Merges of the one, of which each alone, or with merges of others, makes it one with somebody it is to be parted from.
_JOINING = """
WITH RECURSIVE own AS (
  SELECT decision FROM identity_decision WHERE kind = 'merge' AND side = 0 AND ended_by IS NULL AND member = ANY(:keys)
), through AS (
  SELECT d.decision, d.member FROM own JOIN identity_decision AS d USING (decision) WHERE d.side = 0 AND d.member <> ALL(:keys)
  UNION
  SELECT t.decision, o.member FROM through AS t JOIN identity_decision AS d USING (member)
    JOIN identity_decision AS o ON o.decision = d.decision AND o.side = 0
  WHERE d.kind = 'merge' AND d.side = 0 AND d.ended_by IS NULL AND d.decision NOT IN (SELECT decision FROM own)
)
SELECT decision, member FROM identity_decision
WHERE side = 0 AND decision IN (SELECT decision FROM through WHERE member = ANY(:rest)) ORDER BY decision, member
"""
_WITH = """
SELECT o.identifier FROM identity_member AS k JOIN identity_member AS o USING (component, cluster)
WHERE k.identifier = ANY(:keys) AND o.identifier = ANY(:rest) ORDER BY o.identifier
"""
_BETWEEN = """
SELECT link FROM identity_link WHERE state = 'standing'
  AND (one = ANY(:keys) AND other = ANY(:rest) OR one = ANY(:rest) AND other = ANY(:keys)) ORDER BY link
"""
_ENDED_MEMBERS = "SELECT member FROM identity_decision WHERE decision = ANY(:ends) AND side < 2"
_ENDED = "UPDATE identity_decision SET ended_by = :decision WHERE decision = ANY(:ends) AND ended_by IS NULL"
_RECORDED = """
INSERT INTO identity_decision (decision, member, side, kind) VALUES (:decision, :member, :side, :kind) ON CONFLICT DO NOTHING
"""
_CLUSTERS = """
SELECT count(*) AS members, count(DISTINCT cluster) AS clusters FROM identity_member
WHERE identifier = ANY(:keys) AND state = 'joined'
"""
_NOW = """
SELECT encode(m.cluster, 'hex') AS cluster, max(m.state) AS state, array_agg(encode(m.identifier, 'hex') ORDER BY m.identifier) AS members
FROM identity_member AS m JOIN (SELECT DISTINCT component, cluster FROM identity_member WHERE identifier = ANY(:keys)) AS k
  USING (component, cluster)
GROUP BY m.cluster ORDER BY m.cluster
"""
