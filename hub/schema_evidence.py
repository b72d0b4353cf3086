"""Tables of what follows an answer: evidence that was fetched, documents that applicants handed in, views of one's own.

Identifiers stand in them as keyed hashes; the values are in ``deposit.document`` alone, as they are in ``mapped_row.document``.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Identity,
    Index,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from hub.schema import NOW, Timestamp, metadata

evidence = Table(
    "evidence",
    metadata,
    # The answer's time leads nowhere by itself: it is here so that the key holds within a month's partition.
    Column("answer", Uuid, primary_key=True, comment="the grant; once for each holding. To a partner hub: its message"),
    Column("holding", LargeBinary(16), primary_key=True, comment="from a partner hub: what it calls the certificate"),
    Column("asked_at", Timestamp, primary_key=True, comment="of the answer, or the message"),
    Column("given_at", Timestamp, nullable=False),
    Column("client", Text, nullable=False, comment="or the partner hub that asked"),
    Column("purpose", Text, nullable=False),
    Column("case", Text),
    Column("item", Text, nullable=False),
    Column("applicant", LargeBinary(16), nullable=False, comment="keyed hash: whose matter it was"),
    Column("material", Text, nullable=False),
    Column("fields", ARRAY(Text), nullable=False, comment="columns of the exchange table that were given"),
    Column("digest", LargeBinary(32), nullable=False, comment="SHA-256 of the bytes given"),
    Column("receiver", Text, comment="partner hub that it was given to; null: a client of this one"),
    Column("provider", Text, comment="partner hub that holds it and gave it; null: this one"),
    Column("subject", LargeBinary(16), comment="keyed hash: whose certificate it is, where a partner hub holds it"),
    Column("message", Uuid, comment="between the hubs, where a partner hub gave or got it: both ledgers have it"),
    Index(None, "holding", "given_at"),
    Index("evidence_subject_idx", "subject", "given_at", postgresql_where=text("subject IS NOT NULL")),
    postgresql_partition_by="RANGE (asked_at)",
    comment="Who was given which fields of which certificate, for what. Written before the bytes leave.",
)

deposit = Table(
    "deposit",
    metadata,
    Column("id", Uuid, primary_key=True, comment="sorts by time (UUID version 7)"),
    Column("received_at", Timestamp, nullable=False),
    Column("client", Text, nullable=False),
    Column("key", Text, nullable=False, comment="the client's Idempotency-Key"),
    Column("content", LargeBinary(32), nullable=False, comment="SHA-256 of what was said and of the file"),
    Column("answer", Uuid, nullable=False, comment="that asked for it"),
    Column("purpose", Text, nullable=False),
    Column("case", Text),
    Column("item", Text, nullable=False),
    Column("material", Text, nullable=False),
    Column("holders", ARRAY(LargeBinary(16)), nullable=False, comment="keyed hashes of everybody it names"),
    Column("document", Text, nullable=False, comment="JSON: what was said, as it was landed"),
    Column("landed", Text, nullable=False, comment="of that in the landing zone: its path"),
    Column("file", Text, nullable=False, comment="of the scan in the landing zone: its path"),
    Column("file_digest", Text, nullable=False, comment="SHA-256"),
    Column("file_size", BigInteger, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("signature", Text, nullable=False, comment="unsigned, valid, valid-untrusted, invalid, unchecked"),
    Column("signatures", JSONB, nullable=False, comment="one entry for each signature in the file"),
    Column("state", Text, nullable=False, comment="waiting, verified, rejected"),
    Column("decided_at", Timestamp),
    Column("decided_by", Text),
    Column("note", Text),
    UniqueConstraint("client", "key"),
    Index(None, "holders", postgresql_using="gin"),
    Index("deposit_state_idx", "state", "received_at"),
    comment="What applicants handed in. The bytes lie in the landing zone, never here.",
)

subject_view = Table(
    "subject_view",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("viewed_at", Timestamp, nullable=False, server_default=NOW),
    Column("subject", LargeBinary(16), nullable=False, comment="keyed hash of the identifier asked with"),
    Column("client", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Index(None, "subject", "viewed_at"),
    comment="Who was shown what is held about somebody: that too belongs in the view.",
)
