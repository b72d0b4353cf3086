"""Answers by month, with all that they were decided from."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"

TEXT = sa.Text()
TIMESTAMP = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.execute("DROP INDEX answer_asked_at_idx")
    op.execute("ALTER TABLE answer RENAME CONSTRAINT answer_pkey TO answer_before_pkey")
    op.rename_table("answer", "answer_before")
    op.create_table(
        "answer",
        sa.Column("id", sa.Uuid(), nullable=False, comment="sorts by time (UUID version 7)"),
        sa.Column("asked_at", TIMESTAMP, nullable=False),
        sa.Column("client", TEXT, nullable=False),
        sa.Column("purpose", TEXT, nullable=False),
        sa.Column("case", TEXT, nullable=True),
        sa.Column("item", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("language", TEXT, nullable=False),
        sa.Column(
            "applicant",
            sa.LargeBinary(length=16),
            nullable=True,
            comment="keyed hash; null in answers from before it was kept",
        ),
        sa.Column(
            "must_submit",
            postgresql.ARRAY(TEXT),
            nullable=False,
            comment="materials asked for, less those of items asked together",
        ),
        sa.Column("inputs_digest", sa.LargeBinary(length=32), nullable=False, comment="SHA-256 of inputs"),
        sa.Column(
            "inputs", TEXT, nullable=True, comment="JSON: all that it was decided from, by keyed hash; null as above"
        ),
        sa.Column("trace", TEXT, nullable=False, comment="JSON: rule by rule why; holding keys, no identifiers"),
        sa.Column(
            "body", postgresql.JSONB(), nullable=True, comment="the answer as given, where its inputs were not kept"
        ),
        sa.PrimaryKeyConstraint("id", "asked_at", name=op.f("answer_pkey")),
        postgresql_partition_by="RANGE (asked_at)",
    )
    op.create_index(op.f("answer_applicant_asked_at_idx"), "answer", ["applicant", "asked_at"])
    op.execute("CREATE TABLE answer_default PARTITION OF answer DEFAULT")
    op.create_table(
        "answer_sources",
        sa.Column("digest", sa.LargeBinary(length=16), nullable=False),
        sa.Column(
            "sources", TEXT, nullable=False, comment="JSON: sources and how fresh they were when answers were given"
        ),
        sa.Column("recorded_at", TIMESTAMP, nullable=False, server_default=sa.text("clock_timestamp()")),
        sa.PrimaryKeyConstraint("digest", name=op.f("answer_sources_pkey")),
        comment="What many answers were decided under, kept once.",
    )
    op.execute(_MOVED)
    op.drop_table("answer_before")


# Which language they were given in was not kept; their words are.
_MOVED = """
INSERT INTO answer (id, asked_at, client, purpose, "case", item, version, language, must_submit, inputs_digest, trace, body)
SELECT id, asked_at, client, purpose, "case", item, (trace ->> 'version')::int, 'en',
  ARRAY(SELECT jsonb_array_elements_text(body -> 'must_submit')), inputs_digest, trace::text, body
FROM answer_before
"""


def downgrade() -> None:
    raise NotImplementedError("what answers were decided from would be lost")
