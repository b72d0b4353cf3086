"""Tables of the exchange between hubs (docs/protocol.md): peers, agreements, messages, the ledger, shares, corrections.

No identifier of a person stands in them: bodies of messages are kept nowhere but sealed, for as long as a repeat may come.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Date,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB

from hub.schema import NOW, Timestamp, metadata

exchange_peer = Table(
    "exchange_peer",
    metadata,
    Column("name", Text, primary_key=True, comment="what the hub calls itself"),
    Column("title", Text, nullable=False),
    Column("region", Text, nullable=False, comment="six digits of GB/T 2260"),
    Column("addresses", ARRAY(Text), nullable=False, comment="https://host:port, tried in this order"),
    Column("keys", JSONB, nullable=False, comment="list of {kid, public_key, from, to}: Ed25519, base64url"),
    Column("certificates", JSONB, nullable=False, comment="list of {fingerprint, pem, from, to}: TLS, pinned"),
    Column("card_at", Timestamp, nullable=False, comment="when the peer signed the card that says all this"),
    Column("added_at", Timestamp, nullable=False, server_default=NOW),
    Column("removed_at", Timestamp, comment="null: a peer"),
    Column("told_at", Timestamp, comment="when this hub signed the card of its own that the peer has taken"),
    Column("failures", Integer, nullable=False, server_default="0", comment="calls that found nobody, in a row"),
    Column("answered_at", Timestamp, comment="when it last answered"),
    Column("rests_until", Timestamp, comment="it is not called before: it failed too often"),
    comment="Hubs that this one exchanges with, and how they are known.",
)

exchange_agreement = Table(
    "exchange_agreement",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("peer", Text, nullable=False),
    Column("provider", Boolean, nullable=False, comment="whether this hub gives and the peer receives"),
    Column("document", LargeBinary, nullable=False, comment="canonical JSON: the bytes that both sides sign"),
    Column("own_signature", Text, comment="JWS without its payload"),
    Column("peer_signature", Text, comment="JWS without its payload"),
    Column("state", Text, nullable=False, comment="proposed, in_force, suspended, superseded, ended, declined"),
    Column("suspended_by", ARRAY(Text), nullable=False, server_default="{}", comment="hubs that suspend it now"),
    Column(
        "ended_by", ARRAY(Text), nullable=False, server_default="{}", comment="hubs that want it to end: both end it"
    ),
    Column("valid_from", Timestamp, nullable=False),
    Column("valid_to", Timestamp, nullable=False),
    Column("replaced_at", Timestamp, comment="when a later version that both signed takes its place"),
    Column("changed_at", Timestamp, nullable=False, server_default=NOW),
    Column("history", JSONB, nullable=False, server_default="[]", comment="list of {at, hub, kind, reason, actor}"),
    Column(
        "untold", JSONB, nullable=False, server_default="[]", comment="of it, {kind, at} the peer has not confirmed"
    ),
    Column("epoch", Text, comment="of its index feed"),
    Column("sealed_key", LargeBinary, comment="the key of its index, encrypted under keys/index.key"),
    Column("bearer_hash", LargeBinary, comment="SHA-256 of the bearer token of its shares"),
    Column("bearer_until", Timestamp),
    Index("exchange_agreement_peer_idx", "peer", "provider"),
    comment="What is exchanged with whom, signed by both: nothing else is.",
)

index_position = Table(
    "index_position",
    metadata,
    Column("agreement", Uuid, primary_key=True),
    Column("epoch", Text, nullable=False),
    Column("position", BigInteger, nullable=False, comment="of this hub's feed: after it the last read began"),
    Column("begun_at", Timestamp, nullable=False, server_default=NOW),
    comment="How far the receivers of agreements have taken in the index feed of this hub.",
)

exchange_message = Table(
    "exchange_message",
    metadata,
    Column("peer", Text, primary_key=True),
    Column("message", Uuid, primary_key=True),
    Column("received_at", Timestamp, nullable=False, server_default=NOW),
    Column("digest", LargeBinary, nullable=False, comment="SHA-256 of the envelope as it came"),
    Column("reply", LargeBinary, comment="the reply, sealed under keys/exchange.key, for a repeat of the same message"),
    Index("exchange_message_received_at_idx", "received_at"),
    comment="Messages that were carried out: none is twice. Rows go once a message of their time is too old to be heard.",
)

exchange_record = Table(
    "exchange_record",
    metadata,
    Column("id", Uuid, primary_key=True, comment="sorts by time (UUID version 7)"),
    Column("recorded_at", Timestamp, primary_key=True),
    Column("peer", Text, nullable=False, comment="as it is known here, or as a stranger called itself"),
    Column("direction", Text, nullable=False, comment="asked (by this hub), answered (by this hub), noted"),
    Column("message", Uuid),
    Column("kind", Text, nullable=False),
    Column("agreement", Text, comment="id/version"),
    Column("outcome", Text, nullable=False, comment="ok, or the code of the problem"),
    # Text, since its digest is of what was written, not of how a release of PostgreSQL shows it.
    Column("detail", Text, nullable=False, server_default="{}", comment="JSON: counts, fields; never a person"),
    Column("request", Text, comment="signed envelope as it was sent or came"),
    Column("reply", Text, comment="signed envelope as it came or was sent"),
    Index(None, "peer", "recorded_at"),
    Index(None, "message"),
    postgresql_partition_by="RANGE (recorded_at)",
    comment="What was asked and answered between hubs. Written with what it is about; never changed.",
)

exchange_pending = Table(
    "exchange_pending",
    metadata,
    Column("record", Uuid, primary_key=True),
    Column("recorded_at", Timestamp, nullable=False),
    comment="Records that have no place in the chain yet.",
)

exchange_chain = Table(
    "exchange_chain",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False, comment="without gaps"),
    Column("recorded_at", Timestamp, primary_key=True, comment="of the record"),
    Column("record", Uuid, nullable=False),
    Column("entry", LargeBinary, nullable=False, comment="SHA-256 of the record"),
    Column("chain", LargeBinary, nullable=False, comment="SHA-256 of the chain before and this entry"),
    Index(None, "record"),
    postgresql_partition_by="RANGE (recorded_at)",
    comment="The records in one order that cannot be changed unnoticed.",
)

exchange_checkpoint = Table(
    "exchange_checkpoint",
    metadata,
    Column("hub", Text, primary_key=True, comment="whose chain: this hub's own, or as a peer told it"),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("chain", LargeBinary, nullable=False),
    Column("signed_at", Timestamp, nullable=False),
    Column("signature", Text, nullable=False, comment="compact JWS over hub, position, chain and time"),
    comment="Signed heads of chains. Those of peers are what they cannot deny.",
)

exchange_head = Table(
    "exchange_head",
    metadata,
    Column("only", Boolean, primary_key=True, server_default="true"),
    Column("position", BigInteger, nullable=False),
    Column("chain", LargeBinary, nullable=False),
    comment="The end of the chain; its one row is locked by whoever lengthens it.",
)

correction = Table(
    "correction",
    metadata,
    Column("id", Uuid, primary_key=True, comment="the same at both hubs; sorts by time (UUID version 7)"),
    Column("peer", Text, nullable=False),
    Column("owner", Boolean, nullable=False, comment="whether this hub owns the record"),
    Column("agreement", Text, nullable=False, comment="id/version"),
    Column("epoch", Text, nullable=False, comment="of the index whose handle it is"),
    Column("handle", LargeBinary(16), nullable=False, comment="of the certificate in the owner's index"),
    Column("holding", LargeBinary(16), comment="the owner's: what the handle stands for"),
    Column("material", Text, nullable=False),
    Column("field", Text, nullable=False),
    Column("version", Text, comment="digest of the version it is about, as the index tells it"),
    Column("sealed", LargeBinary, nullable=False, comment="what is said of it, encrypted under keys/exchange.key"),
    Column("filed_by", Text, comment="who filed it, where that was here"),
    Column("filed_at", Timestamp, nullable=False),
    Column("due_on", Date, nullable=False, comment="10 working days on (Order 809 Art 26)"),
    Column("state", Text, nullable=False, comment="filed, corrected, confirmed (it is right as it is), refused"),
    Column("sealed_reason", LargeBinary, comment="of the answer"),
    Column("answered_by", Text, comment="who answered, where that was here"),
    Column("answered_at", Timestamp),
    Column("told_at", Timestamp, comment="when the other hub took what was said here last; null: to be sent again"),
    Column("seen_at", Timestamp, comment="when another version came through the feed"),
    Index(None, "peer", "filed_at"),
    Index("correction_handle_idx", "handle"),
    comment="Errors that one hub found in what another holds (校核).",
)

reconciliation = Table(
    "reconciliation",
    metadata,
    Column("id", Uuid, primary_key=True, comment="sorts by time (UUID version 7)"),
    Column("peer", Text, nullable=False),
    Column("agreement", Text, nullable=False, comment="id/version"),
    Column("provider", Boolean, nullable=False, comment="whether this hub gives and the peer receives"),
    Column("started_at", Timestamp, nullable=False),
    Column("finished_at", Timestamp, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("position", BigInteger, nullable=False, comment="of the feed, up to which the receiver has read"),
    Column("differing", Integer, nullable=False, comment="records in which the two differ, at least"),
    Column(
        "amiss", Integer, nullable=False, comment="certificates whose index entries do not follow from what was told"
    ),
    Column("left", Integer, nullable=False, comment="of both, what was not healed"),
    Column("bytes", BigInteger, nullable=False, comment="of all messages, both ways"),
    Column("result", JSONB, nullable=False, comment="as it was shown"),
    Index(None, "peer", "started_at"),
    comment="What two hubs found when they compared what they hold (对账).",
)

share_version = Table(
    "share_version",
    metadata,
    Column("agreement", Uuid, primary_key=True),
    Column("material", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, nullable=False, comment="of the feed: what the version contains"),
    Column("store", Text, nullable=False, comment="whose feed: positions of another database mean something else"),
    Column("made_at", Timestamp, nullable=False, comment="to the millisecond, rising"),
    Column("scope", Text, nullable=False, comment="digest of fields and regions it was made under"),
    Column("whole", Boolean, nullable=False, comment="made from nothing: all of its rows are new"),
    Column("bits", Integer, nullable=False, comment="its files hold the keys that begin with the same so many bits"),
    Column("rows", BigInteger, nullable=False),
    comment="Versions of shared tables.",
)

share_file = Table(
    "share_file",
    metadata,
    Column("agreement", Uuid, primary_key=True),
    Column("material", Text, primary_key=True),
    Column("path", Text, primary_key=True, comment="by content, in the folder of the agreement in the landing zone"),
    Column("from_version", BigInteger, primary_key=True, autoincrement=False),
    Column("to_version", BigInteger, comment="first version without it; null: in the latest"),
    Column("kind", Text, nullable=False, comment="rows, changes (of from_version alone)"),
    Column("bucket", Integer, nullable=False, comment="the first bits of the holdings' keys; of changes a number"),
    Column("size", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("key_path", Text, comment="of rows: the file with the keys of their holdings, which is never served"),
    comment="Files of shared tables and the versions they belong to.",
)
