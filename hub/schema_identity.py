"""Tables of identity: who is whom, as links, claims and people's decisions say (:mod:`hub.identity`).

``identity_member`` holds only identifiers that a link or a decision names, or that contradict themselves: one that is not
there stands for itself.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, LargeBinary, SmallInteger, Table, Text, text

from hub.schema import Timestamp, metadata

identity_link = Table(
    "identity_link",
    metadata,
    Column("link", LargeBinary(16), primary_key=True, comment="key of the pair: `holding` of the rows that say it"),
    Column("one", LargeBinary(16), nullable=False, comment="keyed hash of scheme:value, as in holding_holder"),
    Column("other", LargeBinary(16), nullable=False),
    Column("state", Text, nullable=False, comment="standing; parted: a person saw and cut it; waiting: for a person"),
    Index(None, "one"),
    Index("identity_link_waiting_idx", "link", postgresql_where=text("state = 'waiting'")),
    postgresql_partition_by="HASH (link)",
    comment="Pairs of identifiers that some row says belong together.",
)

identity_claim = Table(
    "identity_claim",
    metadata,
    Column("identifier", LargeBinary(16), primary_key=True),
    Column("evidence", LargeBinary(16), primary_key=True, comment="a link, or a holding"),
    Column(
        "born_on",
        Text,
        primary_key=True,
        comment="yyyy-mm-dd; empty where it says nothing beyond the identifier itself",
    ),
    Column("sex", Text, primary_key=True),
    Index(None, "evidence"),
    postgresql_partition_by="HASH (identifier)",
    comment="What documents and links say of a member beyond its own form.",
)

identity_member = Table(
    "identity_member",
    metadata,
    Column("identifier", LargeBinary(16), primary_key=True),
    Column("scheme", Text),
    Column("born_on", Text, comment="as the identifier itself says, yyyy-mm-dd"),
    Column("sex", Text),
    Column("component", LargeBinary(16), nullable=False, comment="smallest of all that links and merges reach from it"),
    Column("cluster", LargeBinary(16), nullable=False, comment="smallest of those that are one subject with it"),
    Column("state", Text, nullable=False, comment="joined; contradictory: not joined until a person decides"),
    Column("change", BigInteger, nullable=False, comment="that put it into this cluster, in this state"),
    Index(None, "component"),
    Index("identity_member_contradictory_idx", "component", postgresql_where=text("state = 'contradictory'")),
    postgresql_partition_by="HASH (identifier)",
)

identity_change = Table(
    "identity_change",
    metadata,
    Column(
        "id",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="in order; given out under the lock of identity",
    ),
    Column("recorded_at", Timestamp, nullable=False, comment="when the merge or decision became known"),
    comment="Merges and decisions that could change who is one with whom: memberships began with one of them.",
)

identity_past = Table(
    "identity_past",
    metadata,
    Column("identifier", LargeBinary(16), primary_key=True),
    Column("cluster", LargeBinary(16), nullable=False, comment="smallest of those that were one subject with it"),
    Column("state", Text, nullable=False, comment="as in identity_member"),
    Column("recorded_from", Timestamp, nullable=False),
    Column("recorded_to", Timestamp, primary_key=True),
    Index(None, "cluster"),
    postgresql_partition_by="RANGE (recorded_to)",
    comment="Memberships that ended, with recorded time; whoever is in none at a time stood alone then.",
)

identity_decision = Table(
    "identity_decision",
    metadata,
    Column("decision", Text, primary_key=True, comment="decision.landed: who, when and why"),
    Column("member", LargeBinary(16), primary_key=True, comment="an identifier; on side 2 a link"),
    Column(
        "side", SmallInteger, primary_key=True, comment="0 and 1: kept apart; 2: a link that was seen and set aside"
    ),
    Column("kind", Text, nullable=False, comment="merge: one subject; split: the sides are two"),
    Column("ended_by", Text, comment="the later decision that took it back"),
    Index(None, "member"),
)
