"""Tables of matching: whom quarantined rows without a usable identifier may be about, and what people said of that.

Names and numbers are not in them: a candidate is a keyed hash and the holding that speaks of it. Only an attachment, a
person's decision, names the identifier, as the documents of holdings do.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from hub.schema import NOW, Timestamp, metadata

match_run = Table(
    "match_run",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("model", Text, nullable=False, comment="digest of comparisons, weights, blocks and bounds"),
    Column("weights", JSONB, nullable=False, comment="m and u of each level"),
    Column("people", BigInteger, nullable=False, comment="known and searched"),
    Column("started_at", Timestamp, nullable=False, server_default=NOW),
)

match_record = Table(
    "match_record",
    metadata,
    Column("entry", BigInteger, primary_key=True, comment="quarantine.id"),
    Column("role", Text, primary_key=True, comment="the holder whose identifier is not usable"),
    Column("run", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False, comment="of the feed: what was known when it was matched"),
    Column("state", Text, nullable=False, comment="waiting, attached, rejected"),
    Column("candidates", Integer, nullable=False, comment="in the queue"),
    Column("candidates_more", Integer, nullable=False, comment="that qualified beyond these"),
    Column("crowded", JSONB, nullable=False, comment="blocks with too many persons to be searched: rule and persons"),
    Index(None, "state"),
    comment="Rows that were matched, one for each holder in question.",
)

match_candidate = Table(
    "match_candidate",
    metadata,
    Column("entry", BigInteger, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("rank", SmallInteger, primary_key=True),
    Column("identifier", LargeBinary(16), nullable=False, comment="keyed hash of scheme:value"),
    Column("holding", LargeBinary(16), nullable=False, comment="what speaks of the person, and agreed best"),
    Column("weight", Double, nullable=False, comment="log2 of the odds that it is the one"),
    Column("probability", Double, nullable=False),
    Column("levels", ARRAY(Text), nullable=False, comment="of each comparison, in the model's order"),
    Column("weights", ARRAY(Double), nullable=False, comment="what each adds to the weight"),
)

match_attachment = Table(
    "match_attachment",
    metadata,
    Column("source", Text, primary_key=True),
    Column("digest", Uuid, primary_key=True, comment="holds for exactly this version of a row"),
    Column("role", Text, primary_key=True),
    Column("scheme", Text, nullable=False),
    Column("value", Text, nullable=False),
    comment="Identifiers that people decided rows to be about: read as if the row had said them.",
)
