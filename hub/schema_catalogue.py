"""The table of the catalogue's changes: what was published, in the order in which every channel reads it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Date, Integer, LargeBinary, Table, Text, UniqueConstraint

from hub.schema import Timestamp, metadata

catalogue_change = Table(
    "catalogue_change",
    metadata,
    Column(
        "position", BigInteger, primary_key=True, autoincrement=False, comment="without gaps, in the order of commits"
    ),
    Column("item", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("kind", Text, nullable=False, comment="added, changed, ended, retired"),
    Column("effective_on", Date, nullable=False, comment="the first day on which it is so"),
    Column("successor", Text, comment="of an item retired: the code to ask for instead"),
    Column("digest", LargeBinary(32), nullable=False, comment="of what the version says, its end left out"),
    Column("published_at", Timestamp, nullable=False),
    # Each change is published once, whoever publishes at the same time.
    UniqueConstraint(
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
