"""The spine: ledger, observations, holdings, feed, quarantine, agreements, answers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

# HMAC-SHA256 cut to 16 bytes; see hub.home.KeyedHash.
KEYED_HASH = """
CREATE OR REPLACE FUNCTION keyed_hash(value text, inner_key bytea, outer_key bytea) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE
RETURN substr(sha256(outer_key || sha256(inner_key || convert_to(value, 'UTF8'))), 1, 16)
"""


def upgrade() -> None:

    op.create_table(
        "agreement",
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("items", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("purposes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("client", name=op.f("agreement_pkey")),
        comment="What an intake system may ask; nothing is allowed that is not written here.",
    )
    op.create_table(
        "answer",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("case", sa.Text(), nullable=True),
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("inputs_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("body", postgresql.JSONB(astext_type=Text()), nullable=False, comment="the answer as given"),
        sa.Column(
            "trace",
            postgresql.JSONB(astext_type=Text()),
            nullable=False,
            comment="rule by rule why; holding keys, no identifiers",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("answer_pkey")),
    )
    op.create_index(op.f("answer_asked_at_idx"), "answer", ["asked_at"], unique=False)
    op.create_table(
        "decision",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="release, reject, approve"),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("batch", sa.Text(), nullable=True),
        sa.Column("row_key", sa.Uuid(), nullable=True),
        sa.Column("digest", sa.Uuid(), nullable=True, comment="a release holds for exactly this version of the row"),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("landed", sa.Text(), nullable=False, comment="digest of the decision in the landing zone"),
        sa.Column(
            "decided_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("decision_pkey")),
    )
    op.create_index(op.f("decision_source_row_key_idx"), "decision", ["source", "row_key"], unique=False)
    op.create_table(
        "feed",
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("holding", sa.LargeBinary(length=16), nullable=False),
        sa.Column("material", sa.Text(), nullable=False),
        sa.Column("change", sa.Text(), nullable=False, comment="added, changed, withdrawn"),
        sa.Column("digest", sa.Uuid(), nullable=True),
        sa.Column("batch", sa.Text(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("feed_pkey")),
    )
    op.create_table(
        "feed_head",
        sa.Column("one", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("one", name=op.f("feed_head_pkey")),
        comment="The last position given out: locked at the end of a merge until it commits, so that readers miss nothing.",
    )
    op.create_table(
        "holding",
        sa.Column(
            "key", sa.LargeBinary(length=16), nullable=False, comment="keyed hash of material type and natural key"
        ),
        sa.Column("material", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("row_key", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.Uuid(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("authority", sa.SmallInteger(), nullable=False),
        sa.Column("observations", sa.Integer(), nullable=False),
        sa.Column("conflicting", sa.Boolean(), nullable=False, comment="observations disagree on the document"),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("issued_on", sa.Date(), nullable=True),
        sa.Column("valid_from", sa.Date(), nullable=True),
        sa.Column("valid_to", sa.Date(), nullable=True),
        sa.Column("region", sa.String(length=6), nullable=True),
        sa.Column("document", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("holding_pkey")),
        comment="One row per real certificate: the observation in force.",
    )
    op.create_index(op.f("holding_material_idx"), "holding", ["material"], unique=False)
    op.create_table(
        "holding_holder",
        sa.Column("identifier", sa.LargeBinary(length=16), nullable=False, comment="keyed hash of scheme:value"),
        sa.Column("holding", sa.LargeBinary(length=16), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("identifier", "holding", "role", name=op.f("holding_holder_pkey")),
    )
    op.create_index(op.f("holding_holder_holding_idx"), "holding_holder", ["holding"], unique=False)
    op.create_table(
        "holding_version",
        sa.Column("holding", sa.LargeBinary(length=16), nullable=False),
        sa.Column("recorded_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_to", sa.DateTime(timezone=True), nullable=True, comment="null: in force"),
        sa.Column("material", sa.Text(), nullable=False),
        sa.Column("digest", sa.Uuid(), nullable=True, comment="null: withdrawn"),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("batch", sa.Text(), nullable=False),
        sa.Column("file", sa.BigInteger(), nullable=True),
        sa.Column("row", sa.BigInteger(), nullable=True),
        sa.Column("document", postgresql.JSONB(astext_type=Text()), nullable=True),
        sa.PrimaryKeyConstraint("holding", "recorded_from", name=op.f("holding_version_pkey")),
        comment="Every version in force, with recorded time; valid time is in the document.",
    )
    op.create_index(
        "holding_version_open_idx",
        "holding_version",
        ["holding"],
        unique=True,
        postgresql_where=sa.text("recorded_to IS NULL"),
    )
    op.create_table(
        "landed_file",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False, comment="SHA-256 of the bytes, the name in the landing zone"),
        sa.Column("name", sa.Text(), nullable=False, comment="as the source called it"),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("landed_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("landed_file_pkey")),
        sa.UniqueConstraint("source", "digest", "name", name=op.f("landed_file_source_digest_name_key")),
    )
    op.create_table(
        "observation",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("row_key", sa.Uuid(), nullable=False),
        sa.Column("holding", sa.LargeBinary(length=16), nullable=False),
        sa.Column("digest", sa.Uuid(), nullable=False, comment="of the accepted raw row behind it"),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("authority", sa.SmallInteger(), nullable=False),
        sa.Column("batch", sa.Text(), nullable=False),
        sa.Column("file", sa.BigInteger(), nullable=False),
        sa.Column("row", sa.BigInteger(), nullable=False),
        sa.Column(
            "document",
            postgresql.JSONB(astext_type=Text()),
            nullable=False,
            comment="envelope, holders and attributes as the source says them",
        ),
        sa.PrimaryKeyConstraint("source", "row_key", name=op.f("observation_pkey")),
        comment="The latest accepted statement of each row: who says what about which certificate.",
    )
    op.create_index(op.f("observation_holding_idx"), "observation", ["holding"], unique=False)
    op.create_table(
        "quarantine",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("batch", sa.Text(), nullable=False),
        sa.Column(
            "row_key", sa.Uuid(), nullable=False, comment="as in the ledger; of a conflicting row one per version"
        ),
        sa.Column("original_key", sa.Uuid(), nullable=False, comment="of the row as the source keys it"),
        sa.Column("digest", sa.Uuid(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False, comment="quarantined or rejected"),
        sa.Column("state", sa.Text(), nullable=False, comment="open, released, rejected, superseded"),
        sa.Column("reasons", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("file", sa.BigInteger(), nullable=False),
        sa.Column("row", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("quarantine_pkey")),
        sa.UniqueConstraint("source", "batch", "file", "row", name=op.f("quarantine_source_batch_file_row_key")),
    )
    op.create_index(
        "quarantine_original_key_idx",
        "quarantine",
        ["source", "original_key"],
        unique=False,
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index("quarantine_row_key_idx", "quarantine", ["source", "row_key"], unique=False)
    op.create_index("quarantine_source_state_idx", "quarantine", ["source", "state"], unique=False)
    op.create_table(
        "row_ledger",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("row_key", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.Uuid(), nullable=False, comment="of the latest version seen"),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False, comment="accepted, quarantined, rejected, withdrawn"),
        sa.Column(
            "in_force",
            sa.Boolean(),
            server_default="true",
            nullable=False,
            comment="false: accepted, another version stands",
        ),
        sa.Column("timed", sa.Boolean(), nullable=False, comment="the row says itself when it was updated"),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="at the source; the delivery's as_of when a row says nothing",
        ),
        sa.Column(
            "as_of",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="latest as_of of a delivery that held this version",
        ),
        sa.Column("batch", sa.Text(), nullable=False),
        sa.Column("file", sa.BigInteger(), nullable=False),
        sa.Column("row", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source", "row_key", name=op.f("row_ledger_pkey")),
        comment="What is known of every row of a source. Moves only in the transaction that merges.",
    )
    op.create_table(
        "setting",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("setting_pkey")),
        comment="What belongs to this database for its life, such as the fingerprint of the pseudonym key.",
    )
    op.create_table(
        "source",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("region", sa.String(length=6), nullable=False),
        sa.Column("authority", sa.SmallInteger(), nullable=False),
        sa.Column("extent", sa.Text(), nullable=False),
        sa.Column("promise_seconds", sa.BigInteger(), nullable=False),
        sa.Column(
            "contract", sa.Text(), nullable=True, comment="digest of the contract under which the cursor was made"
        ),
        sa.Column("cursor", postgresql.JSONB(astext_type=Text()), nullable=True),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=True, comment="the latest as_of merged"),
        sa.Column(
            "last_success_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="end of the last run that succeeded, empty ones included",
        ),
        sa.Column("merges", sa.BigInteger(), server_default="0", nullable=False, comment="moves with every merge"),
        sa.PrimaryKeyConstraint("name", name=op.f("source_pkey")),
        comment="One row per source that ever ran: what the next run starts from, and how fresh it is.",
    )
    op.create_table(
        "stage_file",
        sa.Column("batch", sa.Text(), nullable=False),
        sa.Column(
            "file",
            sa.BigInteger(),
            nullable=False,
            comment="0: all files of the batch, where they are pages of one answer",
        ),
        sa.Column("first_chunk", sa.Integer(), nullable=False),
        sa.Column("last_chunk", sa.Integer(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("batch", "file", name=op.f("stage_file_pkey")),
        comment="The as_of of each delivery in an open batch: two files fetched together count as if fetched one by one.",
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "stage_row",
        sa.Column("batch", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False, comment="place in the batch, over all its files"),
        sa.Column("chunk", sa.Integer(), nullable=False),
        sa.Column("row_key", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.Uuid(), nullable=False),
        sa.Column(
            "original_key", sa.Uuid(), nullable=True, comment="of a conflicting row, whose row_key is one per version"
        ),
        sa.Column(
            "seen_at", sa.DateTime(timezone=True), nullable=True, comment="the row's as_of column, where readable"
        ),
        sa.Column(
            "fate", sa.Text(), nullable=True, comment="null: compared with the ledger; repeated, older, conflicting"
        ),
        comment="Rows of open batches between diff and merge; can be made again from the landing zone.",
        prefixes=["UNLOGGED"],
    )
    op.create_index(op.f("stage_row_batch_chunk_idx"), "stage_row", ["batch", "chunk"], unique=False)
    op.create_table(
        "batch",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True, comment="Airflow run, when there is one"),
        sa.Column(
            "state", sa.Text(), nullable=False, comment="open, gated, halted, approved, merged, failed, superseded"
        ),
        sa.Column("extent", sa.Text(), nullable=False),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("merges_seen", sa.BigInteger(), nullable=False, comment="source.merges when the diff was taken"),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "cursor",
            postgresql.JSONB(astext_type=Text()),
            nullable=True,
            comment="moves into source.cursor with the merge",
        ),
        sa.Column("fetched", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("unchanged", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("accepted", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("quarantined", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rejected", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("withdrawn", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("flags", postgresql.JSONB(astext_type=Text()), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column(
            "reasons", postgresql.JSONB(astext_type=Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column(
            "seconds", postgresql.JSONB(astext_type=Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("kind", sa.Text(), server_default="run", nullable=False, comment="run or release"),
        sa.Column(
            "findings",
            postgresql.JSONB(astext_type=Text()),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
            comment="of the batch checks",
        ),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["source"], ["source.name"], name=op.f("batch_source_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("batch_pkey")),
        sa.UniqueConstraint("source", "run_id", name=op.f("batch_source_run_id_key")),
    )
    op.create_index(op.f("batch_source_started_at_idx"), "batch", ["source", "started_at"], unique=False)

    op.execute(KEYED_HASH)
    op.execute("INSERT INTO feed_head (position) VALUES (0)")


def downgrade() -> None:
    op.execute("DROP FUNCTION keyed_hash")

    op.drop_index(op.f("batch_source_started_at_idx"), table_name="batch")
    op.drop_table("batch")
    op.drop_index(op.f("stage_row_batch_chunk_idx"), table_name="stage_row")
    op.drop_table("stage_row")
    op.drop_table("stage_file")
    op.drop_table("source")
    op.drop_table("setting")
    op.drop_table("row_ledger")
    op.drop_index("quarantine_source_state_idx", table_name="quarantine")
    op.drop_index("quarantine_row_key_idx", table_name="quarantine")
    op.drop_index("quarantine_original_key_idx", table_name="quarantine", postgresql_where=sa.text("state = 'open'"))
    op.drop_table("quarantine")
    op.drop_index(op.f("observation_holding_idx"), table_name="observation")
    op.drop_table("observation")
    op.drop_table("landed_file")
    op.drop_index(
        "holding_version_open_idx", table_name="holding_version", postgresql_where=sa.text("recorded_to IS NULL")
    )
    op.drop_table("holding_version")
    op.drop_index(op.f("holding_holder_holding_idx"), table_name="holding_holder")
    op.drop_table("holding_holder")
    op.drop_index(op.f("holding_material_idx"), table_name="holding")
    op.drop_table("holding")
    op.drop_table("feed_head")
    op.drop_table("feed")
    op.drop_index(op.f("decision_source_row_key_idx"), table_name="decision")
    op.drop_table("decision")
    op.drop_index(op.f("answer_asked_at_idx"), table_name="answer")
    op.drop_table("answer")
    op.drop_table("agreement")
