"""The index feed goes over messages: where receivers are; the peers and grants of version 0 are gone."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "index_position",
        sa.Column("agreement", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column(
            "position", sa.BigInteger(), nullable=False, comment="of this hub's feed: after it the last read began"
        ),
        sa.Column("begun_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("agreement", name=op.f("index_position_pkey")),
        comment="How far the receivers of agreements have taken in the index feed of this hub.",
    )
    for table in ("index_read", "peer"):
        op.drop_table(table)


def downgrade() -> None:
    raise NotImplementedError("agreements cannot be turned back into the grants of version 0")
