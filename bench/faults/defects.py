"""Deliberate defects, switched on with ``--defect``: what the harness must catch, so that its silence means something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa


def cursor_before_merge() -> None:
    """The source's cursor moves as soon as the batch is fetched: what is killed from there to the merge is never fetched
    again."""
    from hub import database, pipeline

    fetch = pipeline.fetch

    def defective(source: str, **options: Any) -> dict[str, Any]:
        fetched = fetch(source, **options)
        with database.engine().begin() as connection:
            connection.execute(
                sa.text(
                    """UPDATE source AS s SET cursor = b.cursor, contract = b.contract FROM batch AS b
                    WHERE b.id = :batch AND s.name = b.source AND b.cursor IS NOT NULL"""
                ),
                {"batch": fetched["batch"]},
            )
        return fetched

    pipeline.fetch = defective


def feed_after_merge() -> None:
    """The feed is written in a transaction after the merge's own."""
    from hub import database, pipeline

    merge = pipeline.merge

    def defective(batch: str, **options: Any) -> dict[str, Any]:
        merged = merge(batch, **options)
        with database.engine().begin() as connection:
            taken = sa.text("DELETE FROM feed WHERE batch = :batch RETURNING *")
            entries = [dict(row) for row in connection.execute(taken, {"batch": batch}).mappings()]
        with database.engine().begin() as connection:
            for entry in entries:
                names = ", ".join(entry)
                values = ", ".join(f":{name}" for name in entry)
                connection.execute(sa.text(f"INSERT INTO feed ({names}) VALUES ({values})"), entry)
        return merged

    pipeline.merge = defective


def landed_unverified() -> None:
    """Landed bytes are read as they are, altered or not."""
    from connectors import landing

    def unverified(self: landing.Landing, landed: landing.LandedFile) -> Any:
        return self.zone.open(landed.path)

    landing.Landing.open = unverified  # type: ignore[method-assign]


DEFECTS: dict[str, Callable[[], None]] = {
    "cursor-before-merge": cursor_before_merge,
    "feed-after-merge": feed_after_merge,
    "landed-unverified": landed_unverified,
}
