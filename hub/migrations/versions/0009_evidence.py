"""After the answer: evidence that was given, documents that were handed in, views of one's own; what agreements say of them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"

TEXT = sa.Text()
HASH = sa.LargeBinary(length=16)
TIMESTAMP = sa.DateTime(timezone=True)


def upgrade() -> None:
    for column in (
        sa.Column(
            "fields",
            postgresql.JSONB(),
            nullable=False,
            server_default=sa.text("'{}'::jsonb"),
            comment="by material: columns that evidence may show, or *",
        ),
        sa.Column(
            "evidence_minutes",
            sa.Integer(),
            nullable=False,
            server_default="30",
            comment="for how long an answer opens evidence",
        ),
        sa.Column(
            "deposits",
            postgresql.ARRAY(TEXT),
            nullable=False,
            server_default="{}",
            comment="materials that may be handed in through this client",
        ),
        sa.Column(
            "own_view",
            sa.Boolean(),
            nullable=False,
            server_default="false",
            comment="may show people what is held about them",
        ),
        sa.Column("rate", sa.Integer(), nullable=False, server_default="2000", comment="requests a second"),
    ):
        op.add_column("agreement", column)
    op.create_table(
        "evidence",
        sa.Column("answer", sa.Uuid(), nullable=False, comment="the grant; once for each holding"),
        sa.Column("holding", HASH, nullable=False),
        sa.Column("asked_at", TIMESTAMP, nullable=False, comment="of the answer"),
        sa.Column("given_at", TIMESTAMP, nullable=False),
        sa.Column("client", TEXT, nullable=False),
        sa.Column("purpose", TEXT, nullable=False),
        sa.Column("case", TEXT, nullable=True),
        sa.Column("item", TEXT, nullable=False),
        sa.Column("applicant", HASH, nullable=False, comment="keyed hash: whose matter it was"),
        sa.Column("material", TEXT, nullable=False),
        sa.Column(
            "fields", postgresql.ARRAY(TEXT), nullable=False, comment="columns of the exchange table that were given"
        ),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False, comment="SHA-256 of the bytes given"),
        sa.PrimaryKeyConstraint("answer", "holding", "asked_at", name=op.f("evidence_pkey")),
        postgresql_partition_by="RANGE (asked_at)",
        comment="Who was given which fields of which certificate, for what. Written before the bytes leave.",
    )
    op.create_index(op.f("evidence_holding_given_at_idx"), "evidence", ["holding", "given_at"])
    op.execute("CREATE TABLE evidence_default PARTITION OF evidence DEFAULT")
    op.create_table(
        "deposit",
        sa.Column("id", sa.Uuid(), nullable=False, comment="sorts by time (UUID version 7)"),
        sa.Column("received_at", TIMESTAMP, nullable=False),
        sa.Column("client", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False, comment="the client's Idempotency-Key"),
        sa.Column(
            "content", sa.LargeBinary(length=32), nullable=False, comment="SHA-256 of what was said and of the file"
        ),
        sa.Column("answer", sa.Uuid(), nullable=False, comment="that asked for it"),
        sa.Column("purpose", TEXT, nullable=False),
        sa.Column("case", TEXT, nullable=True),
        sa.Column("item", TEXT, nullable=False),
        sa.Column("material", TEXT, nullable=False),
        sa.Column("holders", postgresql.ARRAY(HASH), nullable=False, comment="keyed hashes of everybody it names"),
        sa.Column("document", TEXT, nullable=False, comment="JSON: what was said, as it was landed"),
        sa.Column("landed", TEXT, nullable=False, comment="of that in the landing zone: its path"),
        sa.Column("file", TEXT, nullable=False, comment="of the scan in the landing zone: its path"),
        sa.Column("file_digest", TEXT, nullable=False, comment="SHA-256"),
        sa.Column("file_size", sa.BigInteger(), nullable=False),
        sa.Column("media_type", TEXT, nullable=False),
        sa.Column("signature", TEXT, nullable=False, comment="unsigned, valid, valid-untrusted, invalid, unchecked"),
        sa.Column("signatures", postgresql.JSONB(), nullable=False, comment="one entry for each signature in the file"),
        sa.Column("state", TEXT, nullable=False, comment="waiting, verified, rejected"),
        sa.Column("decided_at", TIMESTAMP, nullable=True),
        sa.Column("decided_by", TEXT, nullable=True),
        sa.Column("note", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("deposit_pkey")),
        sa.UniqueConstraint("client", "key", name=op.f("deposit_client_key_key")),
        comment="What applicants handed in. The bytes lie in the landing zone, never here.",
    )
    op.create_index(op.f("deposit_holders_idx"), "deposit", ["holders"], postgresql_using="gin")
    op.create_index("deposit_state_idx", "deposit", ["state", "received_at"])
    op.create_table(
        "subject_view",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("viewed_at", TIMESTAMP, nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.Column("subject", HASH, nullable=False, comment="keyed hash of the identifier asked with"),
        sa.Column("client", TEXT, nullable=False),
        sa.Column("purpose", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("subject_view_pkey")),
        comment="Who was shown what is held about somebody: that too belongs in the view.",
    )
    op.create_index(op.f("subject_view_subject_viewed_at_idx"), "subject_view", ["subject", "viewed_at"])


def downgrade() -> None:
    raise NotImplementedError("who was given what would be lost")
