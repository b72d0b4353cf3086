"""Why answers say what they say, and their words, kept once for all that say the same."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "answer_text",
        sa.Column("digest", sa.LargeBinary(length=16), nullable=False, comment="SHA-256 of text, cut"),
        sa.Column(
            "text",
            sa.Text(),
            nullable=False,
            comment="JSON with marks where an answer's certificates go; no identifiers",
        ),
        sa.Column(
            "recorded_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("clock_timestamp()"),
            comment="or when it was used again, a day later",
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("answer_text_pkey")),
        comment="Why answers say what they say, and their words, kept once for all that say the same.",
    )
    op.add_column(
        "answer",
        sa.Column(
            "rules",
            sa.LargeBinary(length=16),
            nullable=True,
            comment="answer_text: rule by rule why; null in answers from before it was shared",
        ),
    )
    op.add_column(
        "answer",
        sa.Column(
            "said",
            sa.LargeBinary(length=16),
            nullable=True,
            comment="answer_text: what it says, in its language; null as above",
        ),
    )
    op.add_column(
        "answer",
        sa.Column(
            "others",
            postgresql.ARRAY(sa.LargeBinary(length=16)),
            nullable=True,
            comment="keyed hashes of whoever else is named; null: nobody",
        ),
    )
    op.execute(_NAMED)
    op.create_index(
        op.f("answer_others_idx"),
        "answer",
        ["others"],
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
    )
    op.alter_column(
        "answer",
        "trace",
        existing_type=sa.Text(),
        nullable=True,
        comment="JSON: of why what no other answer has; all of it where rules is null",
        existing_comment="JSON: rule by rule why; holding keys, no identifiers",
    )


_NAMED = """
UPDATE answer AS a SET others = p.others FROM (
  SELECT o.id, o.asked_at, array_agg(DISTINCT decode(named ->> 0, 'hex')) AS others
  FROM answer AS o CROSS JOIN LATERAL (SELECT o.inputs::jsonb -> 'parties' AS said OFFSET 0) AS n
    CROSS JOIN LATERAL jsonb_each(CASE WHEN jsonb_typeof(n.said) = 'object' THEN n.said END) AS k (role, named)
  WHERE decode(named ->> 0, 'hex') <> o.applicant GROUP BY o.id, o.asked_at) AS p
WHERE (a.id, a.asked_at) = (p.id, p.asked_at)
"""


def downgrade() -> None:
    if op.get_bind().scalar(sa.text("SELECT EXISTS (SELECT FROM answer WHERE rules IS NOT NULL)")):
        raise NotImplementedError("why answers say what they say would be lost")
    op.drop_index(op.f("answer_others_idx"), "answer")
    for column in ("others", "said", "rules"):
        op.drop_column("answer", column)
    op.drop_table("answer_text")
    op.alter_column("answer", "trace", existing_type=sa.Text(), nullable=False)
