"""Partitions: the ledger row is the observation, holdings are narrow, history and feed go by month."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from hub import home

revision = "0003"
down_revision = "0002"

PARTITIONS = 8
TIMESTAMP = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "batch", sa.Column("recorded_at", TIMESTAMP, comment="when its merge became known, in the order of commits")
    )
    op.add_column(
        "source",
        sa.Column("listed_as_of", TIMESTAMP, comment="of the latest snapshot: what it did not list is withdrawn"),
    )
    op.add_column(
        "feed_head",
        sa.Column("recorded_at", TIMESTAMP, nullable=False, server_default="-infinity", comment="of the last merge"),
    )
    for table in ("row_ledger", "observation", "holding", "holding_holder", "holding_version", "feed"):
        op.rename_table(table, f"{table}_before")
    # The names of keys and indexes stay with the old tables until those go.
    op.execute(_RENAME_INDEXES)
    _ledger()
    _mapped()
    _holdings()
    _history()
    for statement in _CARRIED_OVER:
        op.execute(sa.text(statement).bindparams(**(_hashing() if ":inner" in statement else {})))
    for table in ("observation", "row_ledger", "holding", "holding_holder", "holding_version", "feed"):
        op.drop_table(f"{table}_before")
    op.drop_table("stage_row")
    op.drop_table("stage_file")
    op.execute(_OBSERVATION)
    op.execute(_HELD)
    op.execute(_VERSION)


def _hashing() -> dict[str, bytes]:
    """Of the key of this store. An empty store, which may have none yet, hashes nothing."""
    if not op.get_bind().scalar(sa.text("SELECT EXISTS (SELECT FROM holding_version_before)")):
        return {"inner": b"", "outer": b""}
    hashing = home.keyed_hash()
    return {"inner": hashing.inner, "outer": hashing.outer}


def _ledger() -> None:
    op.create_table(
        "row_ledger",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("row_key", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.Uuid(), nullable=False, comment="of the latest version seen"),
        sa.Column(
            "contract",
            sa.Uuid(),
            nullable=False,
            comment="the first half of the digest of the contract it was read under",
        ),
        sa.Column("verdict", sa.Text(), nullable=False, comment="accepted, quarantined, rejected, withdrawn"),
        sa.Column(
            "in_force",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=False,
            comment="false: accepted, another version stands",
        ),
        sa.Column("timed", sa.Boolean(), nullable=False, comment="the row says itself when it was updated"),
        sa.Column(
            "updated_at",
            TIMESTAMP,
            nullable=False,
            comment="at the source; the delivery's as_of when a row says nothing",
        ),
        sa.Column(
            "as_of", TIMESTAMP, nullable=False, comment="of the delivery that brought this version, or of a later one"
        ),
        sa.Column(
            "lacked",
            TIMESTAMP,
            comment="latest as_of of a snapshot known to lack the row, before the versions kept here",
        ),
        sa.Column("batch", sa.Text(), nullable=False),
        sa.Column("file", sa.BigInteger(), nullable=False),
        sa.Column("row", sa.BigInteger(), nullable=False),
        sa.Column("holding", sa.LargeBinary(length=16)),
        sa.Column("mapped", sa.BigInteger(), comment="with holding: the mapped row that stands"),
        sa.Column("authority", sa.SmallInteger()),
        sa.Column("said_digest", sa.Uuid(), comment="of the accepted raw row that was mapped"),
        sa.Column("said_at", TIMESTAMP, comment="when that version was updated at the source"),
        sa.Column(
            "said_as_of", TIMESTAMP, comment="behind a bad version: the time by which it is weighed against others"
        ),
        sa.PrimaryKeyConstraint("source", "row_key", name=op.f("row_ledger_pkey")),
        postgresql_partition_by="HASH (source, row_key)",
        comment="What is known of every row of a source, and what it asserts. Moves only in the transaction that merges.",
    )
    _spread("row_ledger")


def _mapped() -> None:
    op.create_table(
        "mapped_row",
        sa.Column("holding", sa.LargeBinary(length=16), nullable=False),
        sa.Column(
            "id", sa.BigInteger(), autoincrement=False, nullable=False, comment="block << 20 | place in the block"
        ),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("row_key", sa.Uuid(), nullable=False),
        sa.Column("file", sa.BigInteger(), nullable=False),
        sa.Column("row", sa.BigInteger(), nullable=False),
        sa.Column(
            "document",
            sa.Text(),
            nullable=False,
            comment="JSON: envelope, holders and attributes as the source says them",
        ),
        sa.PrimaryKeyConstraint("holding", "id", name=op.f("mapped_row_pkey")),
        postgresql_partition_by="HASH (holding)",
        comment="Accepted rows as they were mapped. One says something only while its ledger row refers to it.",
    )
    _spread("mapped_row")
    op.create_table(
        "mapped_block",
        sa.Column("block", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("batch", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("block", name=op.f("mapped_block_pkey")),
        comment="Mapped rows of batches that are not merged yet.",
    )
    op.create_index(op.f("mapped_block_batch_idx"), "mapped_block", ["batch"])


def _holdings() -> None:
    op.create_table(
        "holding",
        sa.Column(
            "key", sa.LargeBinary(length=16), nullable=False, comment="keyed hash of material type and natural key"
        ),
        sa.Column("mapped", sa.BigInteger(), nullable=False, comment="the mapped row whose document is in force"),
        sa.Column("material", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False, comment="with row_key: the ledger row that refers to it"),
        sa.Column("row_key", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.Uuid(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, nullable=False),
        sa.Column("authority", sa.SmallInteger(), nullable=False),
        sa.Column("observations", sa.Integer(), nullable=False),
        sa.Column("conflicting", sa.Boolean(), nullable=False, comment="observations disagree on the document"),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("issued_on", sa.Date()),
        sa.Column("valid_from", sa.Date()),
        sa.Column("valid_to", sa.Date()),
        sa.Column("region", sa.String(length=6)),
        sa.Column(
            "batch", sa.Text(), nullable=False, comment="that put this version in force; its recorded_at says when"
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("holding_pkey")),
        postgresql_partition_by="HASH (key)",
        comment="One row per real certificate: the observation in force.",
    )
    op.create_table(
        "holding_holder",
        sa.Column("identifier", sa.LargeBinary(length=16), nullable=False, comment="keyed hash of scheme:value"),
        sa.Column("holding", sa.LargeBinary(length=16), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("identifier", "holding", "role", name=op.f("holding_holder_pkey")),
        postgresql_partition_by="HASH (identifier)",
    )
    _spread("holding")
    _spread("holding_holder")


def _history() -> None:
    op.create_table(
        "holding_past",
        sa.Column("holding", sa.LargeBinary(length=16), nullable=False),
        sa.Column("recorded_from", TIMESTAMP, nullable=False),
        sa.Column("recorded_to", TIMESTAMP, nullable=False),
        sa.Column("material", sa.Text(), nullable=False),
        sa.Column("digest", sa.Uuid(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("row_key", sa.Uuid(), nullable=False),
        sa.Column("batch", sa.Text(), nullable=False, comment="that had put it in force"),
        sa.Column("file", sa.BigInteger(), nullable=False),
        sa.Column("row", sa.BigInteger(), nullable=False),
        sa.Column(
            "identifiers",
            sa.ARRAY(sa.LargeBinary(length=16)),
            nullable=False,
            comment="of its holders, as in holding_holder",
        ),
        sa.Column("document", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("holding", "recorded_from", "recorded_to", name=op.f("holding_past_pkey")),
        postgresql_partition_by="RANGE (recorded_to)",
        comment="Versions that were in force, with recorded time; valid time is in the document.",
    )
    op.create_index(op.f("holding_past_identifiers_idx"), "holding_past", ["identifiers"], postgresql_using="gin")
    op.create_table(
        "feed",
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("holding", sa.LargeBinary(length=16), nullable=False),
        sa.Column("material", sa.Text(), nullable=False),
        sa.Column("change", sa.Text(), nullable=False, comment="added, changed, withdrawn"),
        sa.Column("digest", sa.Uuid()),
        sa.Column("batch", sa.Text(), nullable=False),
        sa.Column("recorded_at", TIMESTAMP, nullable=False, comment="never before that of an earlier position"),
        sa.PrimaryKeyConstraint("position", "recorded_at", name=op.f("feed_pkey")),
        postgresql_partition_by="RANGE (recorded_at)",
    )
    op.create_index(
        op.f("feed_holding_position_idx"),
        "feed",
        ["holding", "position"],
        postgresql_where=sa.text("change <> 'added'"),
    )
    for table in ("holding_past", "feed"):
        op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")


def _spread(table: str) -> None:
    for number in range(PARTITIONS):
        op.execute(
            f"CREATE TABLE {table}_{number} PARTITION OF {table} "
            f"FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {number})"
        )


def downgrade() -> None:
    raise NotImplementedError("the ledger and its observations cannot be taken apart again: restore a backup")


_RENAME_INDEXES = """
DO $$ DECLARE known record; BEGIN
  FOR known IN SELECT i.relname FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid JOIN pg_class AS t ON t.oid = x.indrelid
    WHERE t.relnamespace = current_schema()::regnamespace AND t.relname LIKE '%\\_before' LOOP
    EXECUTE format('ALTER INDEX %I RENAME TO %I', known.relname, known.relname || '_before');
  END LOOP;
END $$
"""
_CARRIED_OVER = (
    """INSERT INTO mapped_row (holding, id, source, row_key, file, "row", document)
    SELECT holding, row_number() OVER (), source, row_key, file, "row", document::text
    FROM observation_before""",
    """INSERT INTO row_ledger (source, row_key, digest, contract, verdict, in_force, timed, updated_at, as_of, batch, file,
      "row", holding, mapped, authority, said_digest, said_at, said_as_of)
    SELECT l.source, l.row_key, l.digest, left(l.contract, 32)::uuid, l.verdict, l.in_force, l.timed, l.updated_at, l.as_of,
      l.batch, l.file, l."row", o.holding, m.id, o.authority, o.digest, o.updated_at,
      CASE WHEN o.digest <> l.digest THEN o.updated_at END
    FROM row_ledger_before AS l LEFT JOIN observation_before AS o USING (source, row_key)
      LEFT JOIN mapped_row AS m USING (source, row_key)""",
    """UPDATE batch SET recorded_at = f.recorded_at FROM (
      SELECT batch, max(recorded_at) AS recorded_at FROM feed_before GROUP BY batch) AS f WHERE f.batch = batch.id""",
    # What is in force was recorded when its version was opened, by a batch whose changes all have that time.
    """INSERT INTO holding (key, mapped, material, source, row_key, digest, updated_at, authority, observations, conflicting, status,
      issued_on, valid_from, valid_to, region, batch)
    SELECT h.key, m.id, h.material, h.source, h.row_key, h.digest, h.updated_at, h.authority, h.observations, h.conflicting,
      h.status, h.issued_on, h.valid_from, h.valid_to, h.region, v.batch
    FROM holding_before AS h JOIN mapped_row AS m ON m.source = h.source AND m.row_key = h.row_key JOIN holding_version_before AS v ON v.holding = h.key AND v.recorded_to IS NULL""",
    "INSERT INTO holding_holder SELECT identifier, holding, role FROM holding_holder_before",
    # A version ended when the one that followed it, or its withdrawal, became known. Its holders are those it names itself.
    """INSERT INTO holding_past (holding, recorded_from, recorded_to, material, digest, source, row_key, batch, file, "row",
      identifiers, document)
    SELECT v.holding, coalesce(b.recorded_at, v.recorded_from), coalesce(n.recorded_at, v.recorded_to), v.material, v.digest,
      v.source, coalesce(l.row_key, v.digest), v.batch, v.file, v."row", coalesce(
        (SELECT array_agg(DISTINCT keyed_hash((h ->> 'scheme') || ':' || (h ->> 'value'), :inner, :outer))
        FROM jsonb_array_elements(v.document -> 'holders') AS h WHERE h ->> 'value' IS NOT NULL), '{}'),
      v.document
    FROM holding_version_before AS v LEFT JOIN batch AS b ON b.id = v.batch
      LEFT JOIN holding_version_before AS f ON f.holding = v.holding AND f.recorded_from = v.recorded_to
      LEFT JOIN batch AS n ON n.id = f.batch
      LEFT JOIN (SELECT source, digest, min(row_key::text)::uuid AS row_key FROM row_ledger_before GROUP BY 1, 2) AS l
        ON l.source = v.source AND l.digest = v.digest
    WHERE v.recorded_to IS NOT NULL AND v.document IS NOT NULL""",
    "INSERT INTO feed SELECT position, holding, material, change, digest, batch, recorded_at FROM feed_before",
    """UPDATE feed_head SET recorded_at = f.recorded_at FROM (SELECT max(recorded_at) AS recorded_at FROM feed_before) AS f
    WHERE f.recorded_at IS NOT NULL""",
    """UPDATE source SET listed_as_of = b.as_of FROM (
      SELECT source, max(as_of) AS as_of FROM batch WHERE state = 'merged' AND extent = 'snapshot' AND kind = 'run'
        AND NOT findings @> '[{"code": "absence-unproven"}]' GROUP BY source) AS b WHERE b.source = source.name""",
)
_OBSERVATION = """
CREATE VIEW observation AS
SELECT l.source, l.row_key, l.holding, l.said_digest AS digest, l.said_at AS updated_at, l.authority, l.batch, m.file, m."row",
  m.document::jsonb AS document
FROM row_ledger AS l JOIN mapped_row AS m
  ON m.holding = l.holding AND m.id = l.mapped AND m.source = l.source AND m.row_key = l.row_key
"""
_HELD = """
CREATE VIEW held AS
SELECT h.*, m.file, m."row", m.document::jsonb AS document
FROM holding AS h JOIN mapped_row AS m ON m.holding = h.key AND m.id = h.mapped
"""
_VERSION = """
CREATE VIEW holding_version AS
SELECT holding, recorded_from, recorded_to, material, digest, source, row_key, batch, file, "row", document
FROM holding_past
UNION ALL
SELECT h.key, b.recorded_at, NULL, h.material, h.digest, h.source, h.row_key, h.batch, m.file, m."row",
  m.document::jsonb
FROM holding AS h JOIN batch AS b ON b.id = h.batch JOIN mapped_row AS m ON m.holding = h.key AND m.id = h.mapped
"""
