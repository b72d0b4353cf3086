"""Publishing the catalogue: each change of the files once, landed first, then put into the feed that channels follow.

The files themselves are under review and need no landing; what a rebuild could not know from them is when each change was
published and in which order, and channels hold positions of that order. So a publication is landed as a decision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa

from hub import catalogue_changes, catalogue_standing, database, decisions
from hub.decisions import Landed
from mappings import items

KIND = "publish-items"


def publish(actor: str, note: str = "", folder: Path = items.FOLDER) -> list[dict[str, Any]]:
    """Publish what the files say and the feed does not: the changes published, by position. Again it publishes nothing.

    FatalError ``items-invalid`` when the files have flaws; ``items-altered`` when what was published would not stay as it was
    (:mod:`hub.catalogue_standing`): with file, line and reason of each.
    """
    versions = items.all_versions(folder)
    with database.engine().begin() as connection:
        connection.execute(sa.text("LOCK TABLE catalogue_change IN SHARE ROW EXCLUSIVE MODE"))
        feed = catalogue_standing.read(connection)
        catalogue_standing.raise_any(catalogue_standing.refused(feed, versions, folder))
        new = catalogue_standing.unpublished(feed, catalogue_changes.authored(versions))
        if not new:
            return []
        decisions.revoke_unfinished(connection, (KIND,))
        changes = [{"position": feed.position + place, **change.said()} for place, change in enumerate(new, 1)]
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


_INSERT = """
INSERT INTO catalogue_change (position, item, version, kind, effective_on, successor, digest, published_at)
SELECT position, item, version, kind, effective_on, successor, decode(digest, 'hex'), :published_at
FROM jsonb_to_recordset(cast(:said AS jsonb))
  AS s (position bigint, item text, version integer, kind text, effective_on date, successor text, digest text)
ON CONFLICT DO NOTHING
"""
