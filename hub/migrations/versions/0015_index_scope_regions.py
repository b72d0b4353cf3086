"""The scope of a partner's index is kept by the regions agreed: silence about a part of a province says nothing of the province."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0015"
down_revision = "0014"

# What pages said they are about came with the cursor of each batch; what only followed from entries was never said.
_STATED = """
INSERT INTO index_scope (source, epoch, material, province, recorded_from, regions)
SELECT b.source, b.epoch, b.material, left(b.region, 2), min(b.known), array_agg(DISTINCT b.region ORDER BY b.region)
FROM (
  SELECT b.source, b.cursor ->> 'epoch' AS epoch, m AS material, coalesce(b.finished_at, b.started_at) AS known,
    CASE WHEN length(r) = 6 THEN regexp_replace(r, '(00)+$', '') ELSE r END AS region,
    regexp_replace(s.region, '(00)+$', '') AS own
  FROM (SELECT * FROM batch WHERE state = 'merged' AND jsonb_typeof(cursor -> 'materials') = 'array'
      AND jsonb_typeof(cursor -> 'regions') = 'array' AND cursor ->> 'epoch' <> '' OFFSET 0) AS b
    JOIN source AS s ON s.name = b.source
    CROSS JOIN LATERAL jsonb_array_elements_text(b.cursor -> 'materials') AS m
    CROSS JOIN LATERAL jsonb_array_elements_text(b.cursor -> 'regions') AS r
) AS b
WHERE starts_with(b.region, b.own) AND b.region ~ '^[0-9]{2}([0-9]{2}){0,2}$'
GROUP BY b.source, b.epoch, b.material, left(b.region, 2)
"""


def upgrade() -> None:
    column: sa.Column[list[str]] = sa.Column(
        "regions",
        ARRAY(sa.Text),
        nullable=False,
        comment="prefixes of division codes in the province; itself: all of it",
    )
    op.execute("DELETE FROM index_scope")
    op.add_column("index_scope", column)
    op.execute(_STATED)
    _say(
        "What a partner hub tells us of in an epoch: of a province of which it tells all its silence means something, and its lateness too."
    )


def downgrade() -> None:
    op.drop_column("index_scope", "regions")
    _say("What a partner hub tells us of in an epoch: there its silence means something, and its lateness too.")


def _say(comment: str) -> None:
    op.execute(f"COMMENT ON TABLE index_scope IS '{comment}'")
