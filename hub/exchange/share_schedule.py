"""Whole tables on a schedule (dags/shares.py): what nobody may read any more goes, then each agreement whose tables are behind the
store is published by itself, so that one that fails keeps no other from its next version."""

from __future__ import annotations

import uuid

from hub.exchange import share_tables


def due() -> list[str]:
    """Ids of agreements that there is something to publish for."""
    share_tables.drop()
    return [str(agreement) for agreement in share_tables.behind()]


def publish(agreement: str) -> dict[str, int]:
    """Make the next versions of an agreement's tables; rows by table. UsageError as :func:`hub.exchange.share_tables.publish`."""
    return {made.material: made.rows for made in share_tables.publish(uuid.UUID(agreement))}
