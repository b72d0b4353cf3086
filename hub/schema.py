"""Tables of the store. ``hub/migrations`` brings a database to this state; a change here needs a migration beside it.

Row digests and row keys are MD5 values kept as ``uuid`` (16 bytes): they tell rows apart, they protect nothing.
Identifiers are looked up by keyed hash (:mod:`hub.home`); the values themselves stand only in ``document.holders``.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

PARTITIONS = 8  # of each table that is spread by hash
Timestamp = DateTime(timezone=True)
NOW = text("clock_timestamp()")

setting = Table(
    "setting",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    comment="What belongs to this database for its life, such as the fingerprint of the pseudonym key.",
)

source = Table(
    "source",
    metadata,
    Column("name", Text, primary_key=True),
    Column("entity", Text, nullable=False),
    Column("region", String(6), nullable=False),
    Column("authority", SmallInteger, nullable=False),
    Column("extent", Text, nullable=False),
    Column("promise_seconds", BigInteger, nullable=False),
    Column("contract", Text, comment="digest of the contract under which the cursor was made"),
    Column("cursor", JSONB),
    Column("as_of", Timestamp, comment="the latest as_of merged"),
    Column("listed_as_of", Timestamp, comment="of the latest snapshot: what it did not list is withdrawn"),
    Column("last_success_at", Timestamp, comment="end of the last run that succeeded, empty ones included"),
    Column("merges", BigInteger, nullable=False, server_default="0", comment="moves with every merge"),
    Column("hub", Text, comment="the partner hub whose index this source reads, as it calls itself"),
    comment="One row per source that ever ran: what the next run starts from, and how fresh it is.",
)

batch = Table(
    "batch",
    metadata,
    Column("id", Text, primary_key=True),
    Column("source", Text, ForeignKey("source.name"), nullable=False),
    Column("run_id", Text, comment="Airflow run, when there is one"),
    Column("state", Text, nullable=False, comment="open, gated, halted, approved, merged, failed, superseded"),
    Column("extent", Text, nullable=False),
    Column("contract", Text, nullable=False),
    Column("merges_seen", BigInteger, nullable=False, comment="source.merges when the diff was taken"),
    Column("as_of", Timestamp),
    Column("cursor", JSONB, comment="moves into source.cursor with the merge"),
    Column("fetched", BigInteger, nullable=False, server_default="0"),
    Column("unchanged", BigInteger, nullable=False, server_default="0"),
    Column("accepted", BigInteger, nullable=False, server_default="0"),
    Column("quarantined", BigInteger, nullable=False, server_default="0"),
    Column("rejected", BigInteger, nullable=False, server_default="0"),
    Column("withdrawn", BigInteger, nullable=False, server_default="0"),
    Column("flags", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("reasons", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("seconds", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("kind", Text, nullable=False, server_default="run", comment="run or release"),
    Column("findings", JSONB, nullable=False, server_default=text("'[]'::jsonb"), comment="of the batch checks"),
    Column("approved_by", Text),
    Column("started_at", Timestamp, nullable=False, server_default=NOW),
    Column("finished_at", Timestamp),
    Column("recorded_at", Timestamp, comment="when its merge became known, in the order of commits"),
    Index(None, "source", "started_at"),
    UniqueConstraint("source", "run_id"),
)

landed_file = Table(
    "landed_file",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("source", Text, nullable=False),
    Column("digest", Text, nullable=False, comment="SHA-256 of the bytes, the name in the landing zone"),
    Column("name", Text, nullable=False, comment="as the source called it"),
    Column("size", BigInteger, nullable=False),
    Column("landed_at", Timestamp, nullable=False, server_default=NOW),
    UniqueConstraint("source", "digest", "name"),
)

row_ledger = Table(
    "row_ledger",
    metadata,
    Column("source", Text, primary_key=True),
    Column("row_key", Uuid, primary_key=True),
    Column("digest", Uuid, nullable=False, comment="of the latest version seen"),
    Column("contract", Uuid, nullable=False, comment="the first half of the digest of the contract it was read under"),
    # or retracted: by a row of the source itself
    Column("verdict", Text, nullable=False, comment="accepted, quarantined, rejected, withdrawn"),
    Column(
        "in_force", Boolean, nullable=False, server_default="true", comment="false: accepted, another version stands"
    ),
    Column("timed", Boolean, nullable=False, comment="the row says itself when it was updated"),
    Column(
        "updated_at", Timestamp, nullable=False, comment="at the source; the delivery's as_of when a row says nothing"
    ),
    Column("as_of", Timestamp, nullable=False, comment="of the delivery that brought this version, or of a later one"),
    Column(
        "lacked", Timestamp, comment="latest as_of of a snapshot known to lack the row, before the versions kept here"
    ),
    Column("batch", Text, nullable=False),
    Column("file", BigInteger, nullable=False),
    Column("row", BigInteger, nullable=False),
    # What the row asserts: its latest accepted version. Null where nothing stands.
    Column("holding", LargeBinary(16)),
    Column("mapped", BigInteger, comment="with holding: the mapped row that stands"),
    Column("authority", SmallInteger),
    Column("said_digest", Uuid, comment="of the accepted raw row that was mapped"),
    Column("said_at", Timestamp, comment="when that version was updated at the source"),
    Column("said_as_of", Timestamp, comment="behind a bad version: the time by which it is weighed against others"),
    postgresql_partition_by="HASH (source, row_key)",
    comment="What is known of every row of a source, and what it asserts. Moves only in the transaction that merges.",
)

mapped_row = Table(
    "mapped_row",
    metadata,
    Column("holding", LargeBinary(16), primary_key=True),
    Column("id", BigInteger, primary_key=True, autoincrement=False, comment="block << 20 | place in the block"),
    Column("source", Text, nullable=False),
    Column("row_key", Uuid, nullable=False),
    Column("file", BigInteger, nullable=False),
    Column("row", BigInteger, nullable=False),
    # Text: reading JSON once more on its way in would be a quarter of what writing it costs.
    Column("document", Text, nullable=False, comment="JSON: envelope, holders and attributes as the source says them"),
    Column("document_digest", Uuid, comment="MD5 of the document as it was written"),
    postgresql_partition_by="HASH (holding)",
    comment="Accepted rows as they were mapped. One says something only while its ledger row refers to it.",
)

mapped_block = Table(
    "mapped_block",
    metadata,
    Column("block", BigInteger, primary_key=True, autoincrement=False),
    Column("batch", Text, nullable=False),
    Index(None, "batch"),
    comment="Mapped rows of batches that are not merged yet.",
)

holding = Table(
    "holding",
    metadata,
    Column("key", LargeBinary(16), primary_key=True, comment="keyed hash of material type and natural key"),
    Column("mapped", BigInteger, nullable=False, comment="the mapped row whose document is in force"),
    Column("material", Text, nullable=False),
    Column("source", Text, nullable=False, comment="with row_key: the ledger row that refers to it"),
    Column("row_key", Uuid, nullable=False),
    Column("digest", Uuid, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("authority", SmallInteger, nullable=False),
    Column("observations", Integer, nullable=False),
    Column("conflicting", Boolean, nullable=False, comment="observations disagree on the document"),
    Column("status", Text, nullable=False),
    Column("issued_on", Date),
    Column("valid_from", Date),
    Column("valid_to", Date),
    Column("region", String(6)),
    Column("batch", Text, nullable=False, comment="that put this version in force; its recorded_at says when"),
    postgresql_partition_by="HASH (key)",
    comment="One row per real certificate: the observation in force.",
)

holding_holder = Table(
    "holding_holder",
    metadata,
    Column("identifier", LargeBinary(16), primary_key=True, comment="keyed hash of scheme:value"),
    Column("holding", LargeBinary(16), primary_key=True),
    Column("role", Text, primary_key=True),
    postgresql_partition_by="HASH (identifier)",
)

holding_past = Table(
    "holding_past",
    metadata,
    Column("holding", LargeBinary(16), primary_key=True),
    Column("recorded_from", Timestamp, primary_key=True),
    Column("recorded_to", Timestamp, primary_key=True),
    Column("material", Text, nullable=False),
    Column("digest", Uuid, nullable=False),
    Column("source", Text, nullable=False),
    Column("row_key", Uuid, nullable=False),
    Column("batch", Text, nullable=False, comment="that had put it in force"),
    Column("file", BigInteger, nullable=False),
    Column("row", BigInteger, nullable=False),
    Column("identifiers", ARRAY(LargeBinary(16)), nullable=False, comment="of its holders, as in holding_holder"),
    Column("document", JSONB, nullable=False),
    Column("kept_digest", Uuid, comment="MD5 of all the other columns as they were kept"),
    Index(None, "identifiers", postgresql_using="gin"),
    postgresql_partition_by="RANGE (recorded_to)",
    comment="Versions that were in force, with recorded time; valid time is in the document.",
)

feed = Table(
    "feed",
    metadata,
    Column("position", BigInteger, primary_key=True),
    Column("holding", LargeBinary(16), nullable=False),
    Column("material", Text, nullable=False),
    Column("change", Text, nullable=False, comment="added, changed, withdrawn"),
    Column("digest", Uuid),
    Column("batch", Text, nullable=False),
    Column("recorded_at", Timestamp, primary_key=True, comment="never before that of an earlier position"),
    Index(None, "holding", "position", postgresql_where=text("change <> 'added'")),
    postgresql_partition_by="RANGE (recorded_at)",
)

feed_head = Table(
    "feed_head",
    metadata,
    Column("one", Boolean, primary_key=True, server_default="true"),
    Column("position", BigInteger, nullable=False),
    Column("recorded_at", Timestamp, nullable=False, server_default="-infinity", comment="of the last merge"),
    comment="The last position given out: locked at the end of a merge until it commits, so that readers miss nothing.",
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("source", Text, nullable=False),
    Column("batch", Text, nullable=False),
    Column("row_key", Uuid, nullable=False, comment="as in the ledger; of a conflicting row one per version"),
    Column("original_key", Uuid, nullable=False, comment="of the row as the source keys it"),
    Column("digest", Uuid, nullable=False),
    Column("verdict", Text, nullable=False, comment="quarantined or rejected"),
    Column("state", Text, nullable=False, comment="open, released, rejected, superseded"),
    Column("reasons", ARRAY(Text), nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("file", BigInteger, nullable=False),
    Column("row", BigInteger, nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("decided_at", Timestamp),
    Column("decided_by", Text),
    Index("quarantine_source_state_idx", "source", "state"),
    Index("quarantine_row_key_idx", "source", "row_key"),
    Index("quarantine_original_key_idx", "source", "original_key", postgresql_where=text("state = 'open'")),
    UniqueConstraint("source", "batch", "file", "row"),
)

decision = Table(
    "decision",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("kind", Text, nullable=False, comment="release, reject, approve"),
    Column("source", Text, nullable=False),
    Column("batch", Text),
    Column("row_key", Uuid),
    Column("digest", Uuid, comment="a release holds for exactly this version of the row"),
    Column("actor", Text, nullable=False),
    Column("note", Text),
    Column("landed", Text, nullable=False, comment="digest of the decision in the landing zone"),
    Column("decided_at", Timestamp, nullable=False, server_default=NOW),
    Index(None, "source", "row_key"),
)

agreement = Table(
    "agreement",
    metadata,
    Column("client", Text, primary_key=True),
    Column("secret_hash", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("items", ARRAY(Text), nullable=False),
    Column("purposes", ARRAY(Text), nullable=False),
    Column("valid_from", Timestamp, nullable=False),
    Column("valid_to", Timestamp),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column(
        "fields",
        JSONB,
        nullable=False,
        server_default=text("'{}'::jsonb"),
        comment="by material: columns that evidence may show, or *",
    ),
    Column(
        "evidence_minutes",
        Integer,
        nullable=False,
        server_default="30",
        comment="for how long an answer opens evidence",
    ),
    Column(
        "deposits",
        ARRAY(Text),
        nullable=False,
        server_default="{}",
        comment="materials that may be handed in through this client",
    ),
    Column(
        "own_view", Boolean, nullable=False, server_default="false", comment="may show people what is held about them"
    ),
    Column("rate", Integer, nullable=False, server_default="2000", comment="requests a second"),
    comment="What an intake system may ask; nothing is allowed that is not written here.",
)

answer = Table(
    "answer",
    metadata,
    Column("id", Uuid, primary_key=True, comment="sorts by time (UUID version 7)"),
    Column("asked_at", Timestamp, primary_key=True),
    Column("client", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("case", Text),
    Column("item", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("language", Text, nullable=False),
    Column("applicant", LargeBinary(16), comment="keyed hash; null in answers from before it was kept"),
    Column(
        "must_submit", ARRAY(Text), nullable=False, comment="materials asked for, less those of items asked together"
    ),
    Column("inputs_digest", LargeBinary(32), nullable=False, comment="SHA-256 of inputs"),
    Column("inputs", Text, comment="JSON: all that it was decided from, by keyed hash; null as above"),
    Column("trace", Text, comment="JSON: of why what no other answer has; all of it where rules is null"),
    Column("body", JSONB, comment="the answer as given, where its inputs were not kept"),
    Column(
        "rules", LargeBinary(16), comment="answer_text: rule by rule why; null in answers from before it was shared"
    ),
    Column("said", LargeBinary(16), comment="answer_text: what it says, in its language; null as above"),
    Column("others", ARRAY(LargeBinary(16)), comment="keyed hashes of whoever else is named; null: nobody"),
    Index(None, "applicant", "asked_at"),
    Index(
        None, "others", postgresql_using="gin", postgresql_with={"fastupdate": "off"}
    ),  # no caller waits for a list of others
    postgresql_partition_by="RANGE (asked_at)",
)

answer_sources = Table(
    "answer_sources",
    metadata,
    Column("digest", LargeBinary(16), primary_key=True),
    Column("sources", Text, nullable=False, comment="JSON: sources and how fresh they were when answers were given"),
    Column("recorded_at", Timestamp, nullable=False, server_default=NOW),
    comment="What many answers were decided under, kept once.",
)

answer_text = Table(
    "answer_text",
    metadata,
    Column("digest", LargeBinary(16), primary_key=True, comment="SHA-256 of text, cut"),
    Column("text", Text, nullable=False, comment="JSON with marks where an answer's certificates go; no identifiers"),
    Column(
        "recorded_at", Timestamp, nullable=False, server_default=NOW, comment="or when it was used again, a day later"
    ),
    comment="Why answers say what they say, and their words, kept once for all that say the same.",
)

index_entry = Table(
    "index_entry",
    metadata,
    # The identifier leads: the key is the index of a lookup. An epoch that is over costs a lookup nothing.
    Column("identifier", LargeBinary(16), primary_key=True, comment="keyed hash of index:<source>:<epoch>:<id>"),
    Column("source", Text, primary_key=True),
    Column("handle", LargeBinary(16), primary_key=True, comment="stands for one certificate of the partner hub"),
    Column("role", Text, primary_key=True),
    Column("recorded_from", Timestamp, primary_key=True),
    Column("recorded_to", Timestamp, comment="null: in force"),
    Column("material", Text, nullable=False),
    Column("region", String(6)),
    Column("status", Text, nullable=False),
    Column("valid_from", Date),
    Column("valid_to", Date),
    Column("digest", Text, comment="of the certificate's version, as the partner hub says it"),
    Column("epoch", Text, nullable=False),
    Column("batch", Text, nullable=False),
    Column("file", BigInteger, nullable=False),
    Column("row", BigInteger, nullable=False),
    Index("index_entry_open_idx", "source", "handle", postgresql_where=text("recorded_to IS NULL")),
    comment="What partner hubs say they hold: one row per identifier, never passed on.",
)

index_key = Table(
    "index_key",
    metadata,
    Column("source", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("sealed", LargeBinary, nullable=False, comment="the epoch's key, encrypted under keys/index.key"),
    comment="With it a lookup makes the ids of an applicant; the latest epoch, as text, is the one in force.",
)

index_scope = Table(
    "index_scope",
    metadata,
    Column("source", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("material", Text, primary_key=True),
    Column("province", String(2), primary_key=True),
    Column("recorded_from", Timestamp, nullable=False),
    Column(
        "regions", ARRAY(Text), nullable=False, comment="prefixes of division codes in the province; itself: all of it"
    ),
    comment="What a partner hub tells us of in an epoch: of a province of which it tells all its silence means something, and its lateness too.",
)


from hub import schema_catalogue, schema_evidence, schema_exchange, schema_identity, schema_matching  # noqa: E402, F401 - tables of the same metadata
