"""Identity: links, claims, members of clusters, and what people decided about them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

PARTITIONS = 8
KEY = sa.LargeBinary(length=16)


def upgrade() -> None:
    op.create_table(
        "identity_link",
        sa.Column("link", KEY, nullable=False, comment="key of the pair: `holding` of the rows that say it"),
        sa.Column("one", KEY, nullable=False, comment="keyed hash of scheme:value, as in holding_holder"),
        sa.Column("other", KEY, nullable=False),
        sa.Column(
            "state",
            sa.Text(),
            nullable=False,
            comment="standing; parted: a person saw and cut it; waiting: for a person",
        ),
        sa.PrimaryKeyConstraint("link", name=op.f("identity_link_pkey")),
        postgresql_partition_by="HASH (link)",
        comment="Pairs of identifiers that some row says belong together.",
    )
    op.create_table(
        "identity_claim",
        sa.Column("identifier", KEY, nullable=False),
        sa.Column("evidence", KEY, nullable=False, comment="a link, or a holding"),
        sa.Column(
            "born_on",
            sa.Text(),
            nullable=False,
            comment="yyyy-mm-dd; empty where it says nothing beyond the identifier itself",
        ),
        sa.Column("sex", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("identifier", "evidence", "born_on", "sex", name=op.f("identity_claim_pkey")),
        postgresql_partition_by="HASH (identifier)",
        comment="What documents and links say of a member beyond its own form.",
    )
    op.create_table(
        "identity_member",
        sa.Column("identifier", KEY, nullable=False),
        sa.Column("scheme", sa.Text()),
        sa.Column("born_on", sa.Text(), comment="as the identifier itself says, yyyy-mm-dd"),
        sa.Column("sex", sa.Text()),
        sa.Column("component", KEY, nullable=False, comment="smallest of all that links and merges reach from it"),
        sa.Column("cluster", KEY, nullable=False, comment="smallest of those that are one subject with it"),
        sa.Column(
            "state", sa.Text(), nullable=False, comment="joined; contradictory: not joined until a person decides"
        ),
        sa.PrimaryKeyConstraint("identifier", name=op.f("identity_member_pkey")),
        postgresql_partition_by="HASH (identifier)",
    )
    for table in ("identity_link", "identity_claim", "identity_member"):
        for number in range(PARTITIONS):
            op.execute(
                f"CREATE TABLE {table}_{number} PARTITION OF {table} "
                f"FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {number})"
            )
    op.create_index(op.f("identity_link_one_idx"), "identity_link", ["one"])
    op.create_index(
        "identity_link_waiting_idx", "identity_link", ["link"], postgresql_where=sa.text("state = 'waiting'")
    )
    op.create_index(op.f("identity_claim_evidence_idx"), "identity_claim", ["evidence"])
    op.create_index(op.f("identity_member_component_idx"), "identity_member", ["component"])
    op.create_index(
        "identity_member_contradictory_idx",
        "identity_member",
        ["component"],
        postgresql_where=sa.text("state = 'contradictory'"),
    )
    op.create_table(
        "identity_decision",
        sa.Column("decision", sa.Text(), nullable=False, comment="decision.landed: who, when and why"),
        sa.Column("member", KEY, nullable=False, comment="an identifier; on side 2 a link"),
        sa.Column(
            "side",
            sa.SmallInteger(),
            nullable=False,
            comment="0 and 1: kept apart; 2: a link that was seen and set aside",
        ),
        sa.Column("kind", sa.Text(), nullable=False, comment="merge: one subject; split: the sides are two"),
        sa.Column("ended_by", sa.Text(), comment="the later decision that took it back"),
        sa.PrimaryKeyConstraint("decision", "member", "side", name=op.f("identity_decision_pkey")),
    )
    op.create_index(op.f("identity_decision_member_idx"), "identity_decision", ["member"])


def downgrade() -> None:
    for table in ("identity_decision", "identity_member", "identity_claim", "identity_link"):
        op.drop_table(table)
