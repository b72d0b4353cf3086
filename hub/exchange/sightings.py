"""Corrections that came back: whether a partner hub now announces another version of a certificate that it said it corrected."""

from __future__ import annotations

import sqlalchemy as sa


def look(connection: sa.Connection, source: str) -> int:
    """Note which corrections answered with ``corrected`` are seen in what ``source`` was told; returns how many are new."""
    return connection.execute(_SEEN, {"source": source}).rowcount


# Of another epoch nothing can be said: there every handle is another one. A withdrawn certificate has no entry.
_SEEN = sa.text("""
UPDATE correction AS c SET seen_at = clock_timestamp() FROM source AS s
WHERE s.name = :source AND c.peer = s.hub AND NOT c.owner AND c.state = 'corrected' AND c.seen_at IS NULL
  AND c.epoch = (SELECT max(epoch COLLATE "C") FROM index_key WHERE source = s.name)
  AND NOT EXISTS (SELECT FROM index_entry AS e WHERE e.source = s.name AND e.handle = c.handle AND e.recorded_to IS NULL
    AND e.digest IS NOT DISTINCT FROM c.version)
""")
