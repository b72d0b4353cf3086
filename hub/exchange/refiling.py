"""A correction that its owner has not heard of when a new epoch begins: the certificate in the words of that epoch.

Handles and versions are other ones in every epoch, and nothing links them but the provider's feed: as long as a certificate does
not change, it stands there at the same position, recorded at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from hub import home


@dataclass(frozen=True)
class Words:
    """How an epoch calls one version of a certificate; ``handle``: hex."""

    epoch: str
    handle: str
    version: str


def read(connection: sa.Connection, row: sa.Row[Any]) -> bool:
    """Whether this hub has read another epoch, under the agreement of the correction ``row``, than the one that it speaks in."""
    bind = {"agreement": row.agreement.partition("/")[0], "epoch": row.epoch, "peer": row.peer}
    return bool(connection.scalar(_READ, bind))


def words(connection: sa.Connection, row: sa.Row[Any]) -> Words | None:
    """The certificate of the correction ``row`` in the epoch that this hub has read since. None where it was announced anew in
    between, so that nobody can say which one it is: changed, withdrawn, restated, or out of scope."""
    hashing = home.keyed_hash()
    bind = {"peer": row.peer, "epoch": row.epoch, "handle": bytes(row.handle).hex(), "version": row.version,
            "agreement": row.agreement.partition("/")[0], "inner": hashing.inner, "outer": hashing.outer}  # fmt: skip
    found = connection.execute(_WORDS, bind).all()
    return Words(found[0].epoch, found[0].handle, found[0].digest) if len(found) == 1 else None


_OF = "s.hub = :peer AND s.cursor ->> 'agreement' = :agreement AND s.cursor ->> 'epoch' <> :epoch"
_READ = sa.text(f"SELECT EXISTS (SELECT FROM source AS s WHERE {_OF})")
_HOLDING = "keyed_hash(s.entity || chr(31) || {handle}, :inner, :outer)"  # hub/outcome.py
_WORDS = sa.text(f"""
SELECT DISTINCT e.epoch, encode(e.handle, 'hex') AS handle, e.digest
FROM source AS s
  CROSS JOIN LATERAL (SELECT o.updated_at, o.document AS d, o.document -> 'attributes' AS a FROM observation AS o
    WHERE o.source = s.name AND o.holding = {_HOLDING.format(handle=":handle")} OFFSET 0) AS was
  JOIN index_entry AS e ON e.source = s.name AND e.epoch = s.cursor ->> 'epoch' AND e.recorded_to IS NULL
    AND (e.material, e.status) = (was.a ->> 'material', was.a ->> 'state')
    AND (e.region, e.valid_from::text, e.valid_to::text)
      IS NOT DISTINCT FROM (left(was.d ->> 'region', 6), was.d ->> 'valid_from', was.d ->> 'valid_to')
  CROSS JOIN LATERAL (SELECT o.updated_at, o.document -> 'attributes' AS a FROM observation AS o
    WHERE o.source = s.name AND o.holding = {_HOLDING.format(handle="encode(e.handle, 'hex')")} OFFSET 0) AS now
WHERE {_OF} AND was.a ->> 'epoch' = :epoch AND was.a ->> 'digest' = :version AND now.a ->> 'epoch' = e.epoch
  AND (now.updated_at, now.a ->> 'position') = (was.updated_at, was.a ->> 'position')
LIMIT 2
""")
