"""What answers were decided under, kept once: the sources, and how fresh each of them was.

It is the same for many answers, so it is kept under its digest, before the first answer that refers to it is given. What is
read is held to that digest: of an answer whose sources are gone or altered nothing is to be taken (:func:`hub.records.trace`).
"""

from __future__ import annotations

import datetime as dt

import orjson
import sqlalchemy as sa

from hub import knowledge
from hub.holdings import Freshness
from hub.knowledge import Snapshot

# Written again on a day on which it is used, as texts are (:mod:`hub.answer_texts`).
KEEP = """
INSERT INTO answer_sources (digest, sources) VALUES ({digest}, {sources}) ON CONFLICT (digest)
DO UPDATE SET recorded_at = excluded.recorded_at WHERE answer_sources.recorded_at < excluded.recorded_at - interval '1 day'
"""


def keep(connection: sa.Connection, known: Snapshot) -> None:
    """Have the sources of ``known`` in the store when the transaction ends."""
    connection.execute(_KEEPING, {"digest": known.digest, "sources": known.text})


def read(connection: sa.Connection, digest: bytes) -> list[Freshness] | None:
    """The sources under ``digest``; None where they are gone, or not what was kept."""
    text = connection.scalar(_READ, {"digest": digest})
    if text is None or knowledge.digested(text) != digest:
        return None
    return [knowledge.restored(one) for one in orjson.loads(text)]


def forget(connection: sa.Connection, day: dt.date) -> None:
    """Drop the sources under which no answer was given from ``day`` on: what was used then was written again on its day or the one
    before, with a margin of a day between clocks.

    The newest of what is older stays: where sources were written when they changed alone, it may be what ``day`` began under.
    """
    connection.execute(_FORGET, {"day": day})


_KEEPING = sa.text(KEEP.format(digest=":digest", sources=":sources"))
_READ = sa.text("SELECT sources FROM answer_sources WHERE digest = :digest")
_FORGET = sa.text("""
DELETE FROM answer_sources WHERE recorded_at < (
  SELECT max(recorded_at) FROM answer_sources WHERE recorded_at < cast(:day AS date) - interval '3 days')
""")
