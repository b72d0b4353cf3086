"""Publishing the catalogue: each change of the files once, landed first, then put into the feed that channels follow.

The files themselves are under review and need no landing; what a rebuild could not know from them is when each change was
published and in which order, and channels hold positions of that order. So a publication is landed as a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa

from connectors.errors import FatalError
from connectors.marks import Defect
from hub import catalogue_changes, database, decisions
from hub.decisions import Landed
from mappings import items
from mappings.items import Item

KIND = "publish-items"


def publish(actor: str, note: str = "", folder: Path = items.FOLDER) -> list[dict[str, Any]]:
    """Publish what the files say and the feed does not: the changes published, by position. Again it publishes nothing.

    FatalError ``items-invalid`` when the files have flaws; ``items-altered`` when what was published is no longer what they
    say: with file, line and reason of each.
    """
    versions = items.all_versions(folder)
    with database.engine().begin() as connection:
        connection.execute(sa.text("LOCK TABLE catalogue_change IN SHARE ROW EXCLUSIVE MODE"))
        said = orjson.dumps([change.said() for change in catalogue_changes.authored(versions)]).decode()
        if altered := _altered(connection, said, versions, folder):
            defects = "\n".join(str(defect) for defect in altered)
            raise FatalError("items-altered", count=len(altered), defects=defects)
        new = [dict(row) for row in connection.execute(sa.text(_NEW), {"said": said}).mappings()]
        if not new:
            return []
        decisions.revoke_unfinished(connection, (KIND,))
        changes = [{**row, "effective_on": row["effective_on"].isoformat()} for row in new]
        landed = decisions.record_catalogue(connection, {"kind": KIND, "changes": changes}, actor=actor, note=note)
        _carry_out(connection, landed)
    return changes


def replay(decision: Landed) -> None:
    """Put a landed publication into the feed again, inside :func:`hub.decisions.replayed`: its positions and time are kept."""
    content = decision.content
    with database.engine().begin() as connection:
        landed = decisions.record_catalogue(
            connection, content, actor=str(content["actor"]), note=str(content.get("note", ""))
        )
        _carry_out(connection, landed)


def _carry_out(connection: sa.Connection, landed: Landed) -> None:
    said = orjson.dumps(landed.content["changes"]).decode()
    connection.execute(sa.text(_INSERT), {"said": said, "published_at": landed.decided_at})


def _altered(
    connection: sa.Connection, said: str, versions: Mapping[str, tuple[Item, ...]], folder: Path
) -> list[Defect]:
    """What was published and the files say otherwise: a version that says something else, is gone, or goes on after all."""
    known = {(item.code, item.version): item for each in versions.values() for item in each}
    found = []
    endless = [f"{code}@{version}" for (code, version), item in known.items() if item.in_force.to is None]
    for row in connection.execute(sa.text(_ALTERED), {"said": said, "endless": endless}):
        item = known.get((row.item, row.version))
        if item is None:
            path = folder / f"{row.item}.yml"
            found.append(
                Defect(str(path), 0, f"version {row.version} was published and is gone: end it with `in_force.to`")
            )
        elif row.reason == "content":
            reason = f"version {row.version} was published and says something else now: give the change a new version"
            found.append(items.defect(item, ("version",), reason, folder))
        else:
            reason = f"version {row.version} was published as ended: let it go on as a new version"
            found.append(items.defect(item, ("in_force",), reason, folder))
    return sorted(found)


_SAID = """
jsonb_to_recordset(cast(:said AS jsonb))
  AS s (position bigint, item text, version integer, kind text, effective_on date, successor text, digest text)
"""
# `added` or `changed` is how a version stands among the others when it is published; it is published once.
_NEW = f"""
SELECT (SELECT coalesce(max(position), 0) FROM catalogue_change)
    + row_number() OVER (ORDER BY effective_on, item, version, kind) AS position,
  item, version, kind, effective_on, successor, digest
FROM {_SAID} WHERE NOT EXISTS (
  SELECT FROM catalogue_change AS c WHERE c.item = s.item AND c.version = s.version AND (
    c.kind IN ('added', 'changed') AND s.kind IN ('added', 'changed')
    OR c.kind = s.kind AND c.effective_on = s.effective_on AND c.successor IS NOT DISTINCT FROM s.successor))
ORDER BY 1
"""
_INSERT = f"""
INSERT INTO catalogue_change (position, item, version, kind, effective_on, successor, digest, published_at)
SELECT position, item, version, kind, effective_on, successor, decode(digest, 'hex'), :published_at FROM {_SAID}
ON CONFLICT DO NOTHING
"""
_ALTERED = f"""
WITH said AS (SELECT * FROM {_SAID}),
  versions AS (SELECT item, version, digest FROM said WHERE kind IN ('added', 'changed'))
SELECT c.item, c.version, 'content' AS reason FROM catalogue_change AS c LEFT JOIN versions AS v USING (item, version)
WHERE c.kind IN ('added', 'changed') AND (v.digest IS NULL OR decode(v.digest, 'hex') <> c.digest)
UNION
SELECT c.item, c.version, 'end' FROM catalogue_change AS c JOIN versions AS v USING (item, version)
WHERE c.kind IN ('ended', 'retired') AND c.item || '@' || c.version = ANY(:endless)
ORDER BY 1, 2
"""
