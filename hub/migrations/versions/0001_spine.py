"""The spine: ledger, observations, holdings, feed, quarantine, agreements, answers."""

from alembic import op

from hub import schema

revision = "0001"
down_revision = None


def upgrade() -> None:
    schema.metadata.create_all(op.get_bind())
    for statement in schema.FUNCTIONS:
        op.execute(statement)
    op.execute("INSERT INTO feed_head (position) VALUES (0)")


def downgrade() -> None:
    schema.metadata.drop_all(op.get_bind())
