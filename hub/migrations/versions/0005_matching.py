"""Matching: rows without a usable identifier, their candidates, and what people attached."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

KEY = sa.LargeBinary(length=16)
TEXT = sa.Text()


def upgrade() -> None:
    op.create_table(
        "match_run",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("model", TEXT, nullable=False, comment="digest of comparisons, weights, blocks and bounds"),
        sa.Column("weights", postgresql.JSONB(), nullable=False, comment="m and u of each level"),
        sa.Column("people", sa.BigInteger(), nullable=False, comment="known and searched"),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("match_run_pkey")),
    )
    op.create_table(
        "match_record",
        sa.Column("entry", sa.BigInteger(), nullable=False, autoincrement=False, comment="quarantine.id"),
        sa.Column("role", TEXT, nullable=False, comment="the holder whose identifier is not usable"),
        sa.Column("run", sa.BigInteger(), nullable=False),
        sa.Column(
            "position", sa.BigInteger(), nullable=False, comment="of the feed: what was known when it was matched"
        ),
        sa.Column("state", TEXT, nullable=False, comment="waiting, attached, rejected"),
        sa.Column("candidates", sa.Integer(), nullable=False, comment="in the queue"),
        sa.Column("candidates_more", sa.Integer(), nullable=False, comment="that qualified beyond these"),
        sa.Column(
            "crowded",
            postgresql.JSONB(),
            nullable=False,
            comment="blocks with too many persons to be searched: rule and persons",
        ),
        sa.PrimaryKeyConstraint("entry", "role", name=op.f("match_record_pkey")),
        comment="Rows that were matched, one for each holder in question.",
    )
    op.create_index(op.f("match_record_state_idx"), "match_record", ["state"])
    op.create_table(
        "match_candidate",
        sa.Column("entry", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("rank", sa.SmallInteger(), nullable=False),
        sa.Column("identifier", KEY, nullable=False, comment="keyed hash of scheme:value"),
        sa.Column("holding", KEY, nullable=False, comment="what speaks of the person, and agreed best"),
        sa.Column("weight", sa.Double(), nullable=False, comment="log2 of the odds that it is the one"),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("levels", postgresql.ARRAY(TEXT), nullable=False, comment="of each comparison, in the model's order"),
        sa.Column("weights", postgresql.ARRAY(sa.Double()), nullable=False, comment="what each adds to the weight"),
        sa.PrimaryKeyConstraint("entry", "role", "rank", name=op.f("match_candidate_pkey")),
    )
    op.create_table(
        "match_attachment",
        sa.Column("source", TEXT, nullable=False),
        sa.Column("digest", sa.Uuid(), nullable=False, comment="holds for exactly this version of a row"),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("scheme", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("source", "digest", "role", name=op.f("match_attachment_pkey")),
        comment="Identifiers that people decided rows to be about: read as if the row had said them.",
    )


def downgrade() -> None:
    for table in ("match_attachment", "match_candidate", "match_record", "match_run"):
        op.drop_table(table)
