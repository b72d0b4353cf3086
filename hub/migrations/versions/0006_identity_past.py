"""Who was one with whom: changes of clusters with their time, and memberships that ended."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

KEY = sa.LargeBinary(length=16)
TIMESTAMP = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "identity_change",
        sa.Column(
            "id",
            sa.BigInteger(),
            nullable=False,
            autoincrement=False,
            comment="in order; given out under the lock of identity",
        ),
        sa.Column("recorded_at", TIMESTAMP, nullable=False, comment="when the merge or decision became known"),
        sa.PrimaryKeyConstraint("id", name=op.f("identity_change_pkey")),
        comment="Merges and decisions that could change who is one with whom: memberships began with one of them.",
    )
    op.create_table(
        "identity_past",
        sa.Column("identifier", KEY, nullable=False),
        sa.Column("cluster", KEY, nullable=False, comment="smallest of those that were one subject with it"),
        sa.Column("state", sa.Text(), nullable=False, comment="as in identity_member"),
        sa.Column("recorded_from", TIMESTAMP, nullable=False),
        sa.Column("recorded_to", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("identifier", "recorded_to", name=op.f("identity_past_pkey")),
        postgresql_partition_by="RANGE (recorded_to)",
        comment="Memberships that ended, with recorded time; whoever is in none at a time stood alone then.",
    )
    op.create_index(op.f("identity_past_cluster_idx"), "identity_past", ["cluster"])
    op.execute("CREATE TABLE identity_past_default PARTITION OF identity_past DEFAULT")
    op.add_column(
        "identity_member",
        sa.Column(
            "change",
            sa.BigInteger(),
            nullable=False,
            server_default="1",
            comment="that put it into this cluster, in this state",
        ),
    )
    op.alter_column("identity_member", "change", server_default=None)
    for statement in _FIRST:
        op.execute(statement)
    op.execute(_MEMBERSHIP)


def downgrade() -> None:
    op.execute("DROP VIEW identity_membership")
    op.drop_column("identity_member", "change")
    op.drop_table("identity_past")
    op.drop_table("identity_change")


# Since when the members of before were as they are was not kept. After the last merge of all, and the last decision, they
# were: only that is said, and before it they stand alone, as they did for `--as-of` until now. An earlier time would claim
# more than was known then; the times of links alone would not do, for a card can part and join as well. A rebuild, which
# does everything again, knows better. The head follows, so that what comes next is later.
_FIRST = (
    """INSERT INTO identity_change (id, recorded_at)
    SELECT 1, greatest(h.recorded_at, (SELECT max(decided_at) FROM decision WHERE source = 'identity'))
    FROM feed_head AS h WHERE EXISTS (SELECT FROM identity_member)""",
    """UPDATE feed_head AS h SET recorded_at = c.recorded_at FROM identity_change AS c""",
)
_MEMBERSHIP = """
CREATE VIEW identity_membership AS
SELECT identifier, cluster, state, recorded_from, recorded_to FROM identity_past
UNION ALL
SELECT m.identifier, m.cluster, m.state, c.recorded_at, NULL FROM identity_member AS m LEFT JOIN identity_change AS c ON c.id = m.change
"""
