"""Exchange between hubs: what partner hubs hold, the keys to ask it by, and who may read the index of this one."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column(
        "source",
        sa.Column(
            "hub", sa.Text(), nullable=True, comment="the partner hub whose index this source reads, as it calls itself"
        ),
    )
    op.alter_column("feed", "recorded_at", comment="never before that of an earlier position")
    op.create_index(op.f("feed_holding_position_idx"), "feed", ["holding", "position"], unique=False)
    op.create_index(op.f("stage_row_batch_row_key_idx"), "stage_row", ["batch", "row_key"], unique=False)
    op.create_table(
        "index_entry",
        sa.Column(
            "identifier",
            sa.LargeBinary(length=16),
            nullable=False,
            comment="keyed hash of index:<source>:<epoch>:<id>",
        ),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column(
            "handle",
            sa.LargeBinary(length=16),
            nullable=False,
            comment="stands for one certificate of the partner hub",
        ),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("recorded_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_to", sa.DateTime(timezone=True), nullable=True, comment="null: in force"),
        sa.Column("material", sa.Text(), nullable=False),
        sa.Column("region", sa.String(length=6), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("valid_from", sa.Date(), nullable=True),
        sa.Column("valid_to", sa.Date(), nullable=True),
        sa.Column(
            "digest", sa.Text(), nullable=True, comment="of the certificate's version, as the partner hub says it"
        ),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("batch", sa.Text(), nullable=False),
        sa.Column("file", sa.BigInteger(), nullable=False),
        sa.Column("row", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "identifier", "source", "handle", "role", "recorded_from", name=op.f("index_entry_pkey")
        ),
        comment="What partner hubs say they hold: one row per identifier, never passed on.",
    )
    op.create_index(
        "index_entry_open_idx",
        "index_entry",
        ["source", "handle"],
        unique=False,
        postgresql_where=sa.text("recorded_to IS NULL"),
    )
    op.create_table(
        "index_key",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column(
            "sealed", sa.LargeBinary(), nullable=False, comment="the epoch's key, encrypted under keys/index.key"
        ),
        sa.PrimaryKeyConstraint("source", "epoch", name=op.f("index_key_pkey")),
        comment="With it a lookup makes the ids of an applicant; the latest epoch, as text, is the one in force.",
    )
    op.create_table(
        "index_scope",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("material", sa.Text(), nullable=False),
        sa.Column("province", sa.String(length=2), nullable=False),
        sa.Column("recorded_from", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "epoch", "material", "province", name=op.f("index_scope_pkey")),
        comment="What a partner hub tells us of in an epoch: there its silence means something, and its lateness too.",
    )
    op.create_table(
        "peer",
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("materials", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("regions", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column(
            "sealed_key", sa.LargeBinary(), nullable=False, comment="the agreed key, encrypted under keys/index.key"
        ),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("client", name=op.f("peer_pkey")),
        comment="A hub that may read the index of this one, and what of it.",
    )
    op.create_table(
        "index_read",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("after", sa.BigInteger(), nullable=False),
        sa.Column("up_to", sa.BigInteger(), nullable=False, comment="position in the feed"),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("index_read_pkey")),
        comment="Which pages of this hub's index were given to whom.",
    )
    op.create_index(op.f("index_read_peer_read_at_idx"), "index_read", ["peer", "read_at"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("index_read_peer_read_at_idx"), table_name="index_read")
    op.drop_table("index_read")
    op.drop_table("peer")
    op.drop_table("index_scope")
    op.drop_table("index_key")
    op.drop_index("index_entry_open_idx", table_name="index_entry", postgresql_where=sa.text("recorded_to IS NULL"))
    op.drop_table("index_entry")
    op.drop_index(op.f("stage_row_batch_row_key_idx"), table_name="stage_row")
    op.drop_index(op.f("feed_holding_position_idx"), table_name="feed")
    op.alter_column("feed", "recorded_at", comment=None)
    op.drop_column("source", "hub")
