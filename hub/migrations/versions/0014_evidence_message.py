"""Evidence between hubs names its message: what both ledgers have it under."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column(
        "evidence",
        sa.Column(
            "message", sa.Uuid(), comment="between the hubs, where a partner hub gave or got it: both ledgers have it"
        ),
    )


def downgrade() -> None:
    op.drop_column("evidence", "message")
