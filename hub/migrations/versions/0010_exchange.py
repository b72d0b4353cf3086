"""The exchange between hubs: peers, agreements, messages, the ledger and its chain, shares, corrections."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_table(
        "correction",
        sa.Column("id", sa.Uuid(), nullable=False, comment="the same at both hubs; sorts by time (UUID version 7)"),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("owner", sa.Boolean(), nullable=False, comment="whether this hub owns the record"),
        sa.Column("agreement", sa.Text(), nullable=False, comment="id/version"),
        sa.Column("epoch", sa.Text(), nullable=False, comment="of the index whose handle it is"),
        sa.Column(
            "handle", sa.LargeBinary(length=16), nullable=False, comment="of the certificate in the owner's index"
        ),
        sa.Column(
            "holding", sa.LargeBinary(length=16), nullable=True, comment="the owner's: what the handle stands for"
        ),
        sa.Column("material", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column(
            "version", sa.Text(), nullable=True, comment="digest of the version it is about, as the index tells it"
        ),
        sa.Column(
            "sealed", sa.LargeBinary(), nullable=False, comment="what is said of it, encrypted under keys/exchange.key"
        ),
        sa.Column("filed_by", sa.Text(), nullable=True, comment="who filed it, where that was here"),
        sa.Column("filed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_on", sa.Date(), nullable=False, comment="10 working days on (Order 809 Art 26)"),
        sa.Column(
            "state", sa.Text(), nullable=False, comment="filed, corrected, confirmed (it is right as it is), refused"
        ),
        sa.Column("sealed_reason", sa.LargeBinary(), nullable=True, comment="of the answer"),
        sa.Column("answered_by", sa.Text(), nullable=True, comment="who answered, where that was here"),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "told_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when the other hub took what was said here last; null: to be sent again",
        ),
        sa.Column(
            "seen_at", sa.DateTime(timezone=True), nullable=True, comment="when another version came through the feed"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("correction_pkey")),
        comment="Errors that one hub found in what another holds (校核).",
    )
    op.create_index("correction_handle_idx", "correction", ["handle"], unique=False)
    op.create_index(op.f("correction_peer_filed_at_idx"), "correction", ["peer", "filed_at"], unique=False)
    op.create_table(
        "exchange_agreement",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("provider", sa.Boolean(), nullable=False, comment="whether this hub gives and the peer receives"),
        sa.Column(
            "document", sa.LargeBinary(), nullable=False, comment="canonical JSON: the bytes that both sides sign"
        ),
        sa.Column("own_signature", sa.Text(), nullable=True, comment="JWS without its payload"),
        sa.Column("peer_signature", sa.Text(), nullable=True, comment="JWS without its payload"),
        sa.Column(
            "state", sa.Text(), nullable=False, comment="proposed, in_force, suspended, superseded, ended, declined"
        ),
        sa.Column(
            "suspended_by",
            postgresql.ARRAY(sa.Text()),
            server_default="{}",
            nullable=False,
            comment="hubs that suspend it now",
        ),
        sa.Column(
            "ended_by",
            postgresql.ARRAY(sa.Text()),
            server_default="{}",
            nullable=False,
            comment="hubs that want it to end: both end it",
        ),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "replaced_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when a later version that both signed takes its place",
        ),
        sa.Column(
            "changed_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "history",
            postgresql.JSONB(),
            server_default="[]",
            nullable=False,
            comment="list of {at, hub, kind, reason, actor}",
        ),
        sa.Column(
            "untold",
            postgresql.JSONB(),
            server_default="[]",
            nullable=False,
            comment="of it, {kind, at} the peer has not confirmed",
        ),
        sa.Column("epoch", sa.Text(), nullable=True, comment="of its index feed"),
        sa.Column(
            "sealed_key",
            sa.LargeBinary(),
            nullable=True,
            comment="the key of its index, encrypted under keys/index.key",
        ),
        sa.Column("bearer_hash", sa.LargeBinary(), nullable=True, comment="SHA-256 of the bearer token of its shares"),
        sa.Column("bearer_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", "version", name=op.f("exchange_agreement_pkey")),
        comment="What is exchanged with whom, signed by both: nothing else is.",
    )
    op.create_index("exchange_agreement_peer_idx", "exchange_agreement", ["peer", "provider"], unique=False)
    op.create_table(
        "exchange_chain",
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False, comment="without gaps"),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False, comment="of the record"),
        sa.Column("record", sa.Uuid(), nullable=False),
        sa.Column("entry", sa.LargeBinary(), nullable=False, comment="SHA-256 of the record"),
        sa.Column("chain", sa.LargeBinary(), nullable=False, comment="SHA-256 of the chain before and this entry"),
        sa.PrimaryKeyConstraint("position", "recorded_at", name=op.f("exchange_chain_pkey")),
        comment="The records in one order that cannot be changed unnoticed.",
        postgresql_partition_by="RANGE (recorded_at)",
    )
    op.create_index(op.f("exchange_chain_record_idx"), "exchange_chain", ["record"], unique=False)
    op.create_table(
        "exchange_checkpoint",
        sa.Column("hub", sa.Text(), nullable=False, comment="whose chain: this hub's own, or as a peer told it"),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("chain", sa.LargeBinary(), nullable=False),
        sa.Column("signed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False, comment="compact JWS over hub, position, chain and time"),
        sa.PrimaryKeyConstraint("hub", "position", name=op.f("exchange_checkpoint_pkey")),
        comment="Signed heads of chains. Those of peers are what they cannot deny.",
    )
    op.create_table(
        "exchange_head",
        sa.Column("only", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("chain", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("only", name=op.f("exchange_head_pkey")),
        comment="The end of the chain; its one row is locked by whoever lengthens it.",
    )
    op.create_table(
        "exchange_message",
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("message", sa.Uuid(), nullable=False),
        sa.Column(
            "received_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of the envelope as it came"),
        sa.Column(
            "reply",
            sa.LargeBinary(),
            nullable=True,
            comment="the reply, sealed under keys/exchange.key, for a repeat of the same message",
        ),
        sa.PrimaryKeyConstraint("peer", "message", name=op.f("exchange_message_pkey")),
        comment="Messages that were carried out: none is twice. Rows go once a message of their time is too old to be heard.",
    )
    op.create_index("exchange_message_received_at_idx", "exchange_message", ["received_at"], unique=False)
    op.create_table(
        "exchange_peer",
        sa.Column("name", sa.Text(), nullable=False, comment="what the hub calls itself"),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False, comment="six digits of GB/T 2260"),
        sa.Column(
            "addresses", postgresql.ARRAY(sa.Text()), nullable=False, comment="https://host:port, tried in this order"
        ),
        sa.Column(
            "keys",
            postgresql.JSONB(),
            nullable=False,
            comment="list of {kid, public_key, from, to}: Ed25519, base64url",
        ),
        sa.Column(
            "certificates",
            postgresql.JSONB(),
            nullable=False,
            comment="list of {fingerprint, pem, from, to}: TLS, pinned",
        ),
        sa.Column(
            "card_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="when the peer signed the card that says all this",
        ),
        sa.Column("added_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True, comment="null: a peer"),
        sa.Column(
            "told_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when this hub signed the card of its own that the peer has taken",
        ),
        sa.Column(
            "failures", sa.Integer(), server_default="0", nullable=False, comment="calls that found nobody, in a row"
        ),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True, comment="when it last answered"),
        sa.Column(
            "rests_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="it is not called before: it failed too often",
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("exchange_peer_pkey")),
        comment="Hubs that this one exchanges with, and how they are known.",
    )
    op.create_table(
        "exchange_pending",
        sa.Column("record", sa.Uuid(), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("record", name=op.f("exchange_pending_pkey")),
        comment="Records that have no place in the chain yet.",
    )
    op.create_table(
        "exchange_record",
        sa.Column("id", sa.Uuid(), nullable=False, comment="sorts by time (UUID version 7)"),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("peer", sa.Text(), nullable=False, comment="as it is known here, or as a stranger called itself"),
        sa.Column("direction", sa.Text(), nullable=False, comment="asked (by this hub), answered (by this hub), noted"),
        sa.Column("message", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("agreement", sa.Text(), nullable=True, comment="id/version"),
        sa.Column("outcome", sa.Text(), nullable=False, comment="ok, or the code of the problem"),
        sa.Column(
            "detail", sa.Text(), server_default="{}", nullable=False, comment="JSON: counts, fields; never a person"
        ),
        sa.Column("request", sa.Text(), nullable=True, comment="signed envelope as it was sent or came"),
        sa.Column("reply", sa.Text(), nullable=True, comment="signed envelope as it came or was sent"),
        sa.PrimaryKeyConstraint("id", "recorded_at", name=op.f("exchange_record_pkey")),
        comment="What was asked and answered between hubs. Written with what it is about; never changed.",
        postgresql_partition_by="RANGE (recorded_at)",
    )
    op.create_index(op.f("exchange_record_message_idx"), "exchange_record", ["message"], unique=False)
    op.create_index(
        op.f("exchange_record_peer_recorded_at_idx"), "exchange_record", ["peer", "recorded_at"], unique=False
    )
    op.create_table(
        "reconciliation",
        sa.Column("id", sa.Uuid(), nullable=False, comment="sorts by time (UUID version 7)"),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("agreement", sa.Text(), nullable=False, comment="id/version"),
        sa.Column("provider", sa.Boolean(), nullable=False, comment="whether this hub gives and the peer receives"),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column(
            "position", sa.BigInteger(), nullable=False, comment="of the feed, up to which the receiver has read"
        ),
        sa.Column("differing", sa.Integer(), nullable=False, comment="records in which the two differ, at least"),
        sa.Column(
            "amiss",
            sa.Integer(),
            nullable=False,
            comment="certificates whose index entries do not follow from what was told",
        ),
        sa.Column("left", sa.Integer(), nullable=False, comment="of both, what was not healed"),
        sa.Column("bytes", sa.BigInteger(), nullable=False, comment="of all messages, both ways"),
        sa.Column("result", postgresql.JSONB(), nullable=False, comment="as it was shown"),
        sa.PrimaryKeyConstraint("id", name=op.f("reconciliation_pkey")),
        comment="What two hubs found when they compared what they hold (对账).",
    )
    op.create_index(op.f("reconciliation_peer_started_at_idx"), "reconciliation", ["peer", "started_at"], unique=False)
    op.create_table(
        "share_file",
        sa.Column("agreement", sa.Uuid(), nullable=False),
        sa.Column("material", sa.Text(), nullable=False),
        sa.Column(
            "path", sa.Text(), nullable=False, comment="by content, in the folder of the agreement in the landing zone"
        ),
        sa.Column("from_version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column(
            "to_version", sa.BigInteger(), nullable=True, comment="first version without it; null: in the latest"
        ),
        sa.Column("kind", sa.Text(), nullable=False, comment="rows, changes (of from_version alone)"),
        sa.Column(
            "bucket", sa.Integer(), nullable=False, comment="the first bits of the holdings' keys; of changes a number"
        ),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column(
            "key_path",
            sa.Text(),
            nullable=True,
            comment="of rows: the file with the keys of their holdings, which is never served",
        ),
        sa.PrimaryKeyConstraint("agreement", "material", "path", "from_version", name=op.f("share_file_pkey")),
        comment="Files of shared tables and the versions they belong to.",
    )
    op.create_table(
        "share_version",
        sa.Column("agreement", sa.Uuid(), nullable=False),
        sa.Column("material", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False, comment="of the feed: what the version contains"),
        sa.Column(
            "store", sa.Text(), nullable=False, comment="whose feed: positions of another database mean something else"
        ),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False, comment="to the millisecond, rising"),
        sa.Column("scope", sa.Text(), nullable=False, comment="digest of fields and regions it was made under"),
        sa.Column("whole", sa.Boolean(), nullable=False, comment="made from nothing: all of its rows are new"),
        sa.Column(
            "bits",
            sa.Integer(),
            nullable=False,
            comment="its files hold the keys that begin with the same so many bits",
        ),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agreement", "material", "version", name=op.f("share_version_pkey")),
        comment="Versions of shared tables.",
    )
    op.add_column(
        "evidence",
        sa.Column(
            "receiver", sa.Text(), nullable=True, comment="partner hub that it was given to; null: a client of this one"
        ),
    )
    op.add_column(
        "evidence",
        sa.Column(
            "provider", sa.Text(), nullable=True, comment="partner hub that holds it and gave it; null: this one"
        ),
    )
    op.add_column(
        "evidence",
        sa.Column(
            "subject",
            sa.LargeBinary(length=16),
            nullable=True,
            comment="keyed hash: whose certificate it is, where a partner hub holds it",
        ),
    )
    op.alter_column(
        "evidence",
        "answer",
        existing_type=sa.UUID(),
        comment="the grant; once for each holding. To a partner hub: its message",
        existing_comment="the grant; once for each holding",
        existing_nullable=False,
    )
    op.alter_column(
        "evidence",
        "holding",
        existing_type=postgresql.BYTEA(),
        comment="from a partner hub: what it calls the certificate",
        existing_nullable=False,
    )
    op.alter_column(
        "evidence",
        "asked_at",
        existing_type=postgresql.TIMESTAMP(timezone=True),
        comment="of the answer, or the message",
        existing_comment="of the answer",
        existing_nullable=False,
    )
    op.alter_column(
        "evidence", "client", existing_type=sa.TEXT(), comment="or the partner hub that asked", existing_nullable=False
    )
    op.create_index(
        "evidence_subject_idx",
        "evidence",
        ["subject", "given_at"],
        unique=False,
        postgresql_where=sa.text("subject IS NOT NULL"),
    )
    for table in ("exchange_record", "exchange_chain"):
        op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
    op.execute("INSERT INTO exchange_head (position, chain) VALUES (0, decode(repeat('00', 32), 'hex'))")
    op.execute(_LINK)
    op.execute(_CHAINED)
    op.execute(_SUBJECTS)
    op.execute(_WORDS)


# As a window function over entries in order: the chain after each of them (NULL, NULL: none yet).
_LINK = """
CREATE FUNCTION chain_link(bytea, bytea, bytea) RETURNS bytea IMMUTABLE PARALLEL SAFE LANGUAGE sql
  RETURN sha256(coalesce($1, $3) || $2)
"""
_CHAINED = "CREATE AGGREGATE chained(entry bytea, before bytea) (SFUNC = chain_link, STYPE = bytea)"
# As functions, since a subquery of each row would keep a statement to one process. The holders of a document as the index
# feed names them, role:id in the order of bytes, each once; words of a text in the order of bytes, each once.
_SUBJECTS = """
CREATE FUNCTION announced_subjects(holders jsonb, inner_key bytea, outer_key bytea) RETURNS text STABLE PARALLEL SAFE LANGUAGE sql
  RETURN (
    SELECT string_agg(DISTINCT said COLLATE "C", ' ' ORDER BY said COLLATE "C")
    FROM jsonb_array_elements(holders) AS s, LATERAL (SELECT (s ->> 'role') || ':'
      || encode(keyed_hash((s ->> 'scheme') || ':' || (s ->> 'value'), inner_key, outer_key), 'hex') AS said) AS t)
"""
_WORDS = """
CREATE FUNCTION ordered_words(words text) RETURNS text IMMUTABLE PARALLEL SAFE LANGUAGE sql
  RETURN (
    SELECT string_agg(DISTINCT word COLLATE "C", ' ' ORDER BY word COLLATE "C")
    FROM string_to_table(words, ' ') AS word WHERE word <> '')
"""


def downgrade() -> None:
    raise NotImplementedError("what was exchanged with whom would be lost")
