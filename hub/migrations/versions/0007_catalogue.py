"""The catalogue's changes, as they were published."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

TEXT = sa.Text()


def upgrade() -> None:
    op.create_table(
        "catalogue_change",
        sa.Column(
            "position",
            sa.BigInteger(),
            nullable=False,
            autoincrement=False,
            comment="without gaps, in the order of commits",
        ),
        sa.Column("item", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("kind", TEXT, nullable=False, comment="added, changed, ended, retired"),
        sa.Column("effective_on", sa.Date(), nullable=False, comment="the first day on which it is so"),
        sa.Column("successor", TEXT, comment="of an item retired: the code to ask for instead"),
        sa.Column("digest", sa.LargeBinary(32), nullable=False, comment="of what the version says, its end left out"),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("catalogue_change_pkey")),
        sa.UniqueConstraint(
            "item",
            "version",
            "kind",
            "effective_on",
            "successor",
            name="catalogue_change_once",
            postgresql_nulls_not_distinct=True,
        ),
        comment="Changes of the catalogue as they were published.",
    )


def downgrade() -> None:
    op.drop_table("catalogue_change")
