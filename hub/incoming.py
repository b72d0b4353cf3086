"""The long way into the store: rows that the ledger knows, or that did not pass.

Each is compared with what is known: it may be older, it may stand behind a bad version, it may say the same again, it may take
back what was said. Of versions of one time the one that takes back counts. All in
SQL over the temporary table ``incoming``; which holdings are touched then follows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from hub import copying, diff, joining
from hub.joining import Join
from hub.workspace import Workspace

COLUMNS = {
    "ordinal": "int8", "row_key": "uuid", "original_key": "uuid", "digest": "uuid", "file": "int8", "row": "int8",
    "verdict": "text", "reasons": "text", "raw": "bytea", "timed": "bool", "updated_at": "timestamptz",
    "as_of": "timestamptz", "said_at": "timestamptz", "seen_at": "timestamptz", "holding": "bytea", "mapped": "int8",
}  # fmt: skip


class Run(Protocol):
    """Runs one statement with the batch's values and more; returns the rows touched."""

    def __call__(self, statement: str, **more: object) -> int: ...


def prepare(run: Run) -> None:
    """The temporary tables of one merge."""
    for statement in _TABLES:
        run(statement)


def add(connection: sa.Connection, rows: pa.Table, keys: pa.Table) -> None:
    """Rows of one chunk. ``keys``: with ``ordinal`` and ``seen_at``, which tells versions of one time apart."""
    if rows.num_rows:
        places = pc.index_in(rows["ordinal"].combine_chunks(), keys["ordinal"].combine_chunks())
        rows = rows.append_column("seen_at", keys["seen_at"].take(places))
        with copying.into(connection, "incoming", list(COLUMNS), list(COLUMNS.values())) as copy:
            copy.write(rows.select(list(COLUMNS)))


def add_again(connection: sa.Connection, run: Run, workspace: Workspace) -> None:
    """Known rows that a later delivery brought again: they are as new as that before any version is weighed against them."""
    with copying.into(connection, "again", ["row_key", "as_of"], ["uuid", "timestamptz"]) as copy:
        for rows in workspace.each("again"):
            copy.write(rows)
    if rows := joining.count(connection, "again"):
        run("ANALYZE again")
        with joining.looked_up(connection, rows):
            run(_AGAIN)


def reserved(connection: sa.Connection, source: str) -> pa.Array:
    """Keys of rows whose conflicting versions wait in quarantine: an accepted row of that key settles them. And keys that
    a release settled: it may have come after the diff, which knew nothing of them."""
    found = copying.out_of(connection, _RESERVED, pa.schema({"key": pa.binary(16)}), {"source": source})
    return pc.unique(found["key"])


def judge(connection: sa.Connection, run: Run, *, forced: bool) -> None:
    """Give each row its fate: ``older`` than what is known, ``behind`` a bad version, else none; and whether what it says
    stands. ``forced``: on a person's word, which wins over age."""
    run("ANALYZE incoming")
    with joining.joined(connection, joining.count(connection, "incoming")) as join:
        run(_known(join))
    if not forced:
        run(_OLDER)
        run(_OLDER_HERE)
        run(_COVERED)
    run(_SAYS, forced=forced)


def quarantine(run: Run) -> None:
    """Close entries that a newer version supersedes, open those of rows that did not pass."""
    run(_QUARANTINE_CLOSED)
    run(_QUARANTINE_SETTLED)
    run(_QUARANTINE_OPENED)


def touch(connection: sa.Connection, run: Run, *, withdraws: bool, several: bool = False) -> None:
    """``touched (holding)``: what may change because of these rows, those in ``shared``, and absence. ``several``: the batch has
    whole snapshots before its latest, see :func:`deny`."""
    with joining.joined(connection, joining.count(connection, "again")) as join:
        run(_touched(join))
    if withdraws:
        run(_TOUCHED_BY_ABSENCE)
    if several:
        run(_TOUCHED_BY_EARLIER)
    run("CREATE INDEX ON touched (holding)")
    run("ANALYZE touched")


def settle(connection: sa.Connection, run: Run, *, withdraws: bool) -> tuple[int, int]:
    """Move the ledger; returns rows whose version ties with one that stands, and rows withdrawn."""
    with joining.looked_up(connection, joining.count(connection, "incoming")):
        run(_LEDGER)
        run(_LEDGER_NEW)
        run(_SAID_BEHIND)
    run(_UNSAID)
    taken_back = connection.scalar(sa.text(_TAKEN_BACK)) or 0
    tied = run("UPDATE incoming SET fate = 'tied' WHERE fate IS NULL AND known AND verdict = 'accepted' AND NOT says")
    if not withdraws:
        return tied, taken_back
    run(_UNSAID_ABSENT)
    withdrawn = taken_back + run(_ABSENT)
    run(_LACKED)
    run(_QUARANTINE_GONE)
    return tied, withdrawn


def deny(connection: sa.Connection, run: Run, batch: str, earlier: Mapping[dt.datetime, list[int]]) -> None:
    """What the whole snapshots of :func:`hub.diff.earlier` leave out stands no longer behind a bad version, as if each had been
    fetched by itself."""
    for as_of, chunks in earlier.items():
        diff.listed_in(connection, batch, chunks)
        run(_UNSAID_DENIED, as_of=as_of)
        run(_LACKED, as_of=as_of)


def forget(connection: sa.Connection, run: Run) -> None:
    """Remove mapped rows that nothing refers to any more; called when nobody asks what was."""
    if rows := joining.count(connection, "unsaid"):
        run("ANALYZE unsaid")
        with joining.looked_up(connection, rows, "mapped_row"):
            run(_FORGOTTEN)


_TABLES = (
    """CREATE TEMP TABLE incoming (
      ordinal bigint, row_key uuid, original_key uuid, digest uuid, file bigint, "row" bigint, verdict text, reasons text,
      raw bytea, timed boolean, updated_at timestamptz, as_of timestamptz, said_at timestamptz, seen_at timestamptz, holding bytea, mapped bigint,
      known boolean NOT NULL DEFAULT false, was text, was_digest uuid, was_as_of timestamptz, was_lacked timestamptz,
      was_updated_at timestamptz, was_holding bytea, was_mapped bigint, was_said uuid, was_said_as_of timestamptz,
      fate text, says boolean NOT NULL DEFAULT false
    ) ON COMMIT DROP""",
    "CREATE TEMP TABLE again (row_key uuid, as_of timestamptz) ON COMMIT DROP",
    "CREATE TEMP TABLE shared (holding bytea) ON COMMIT DROP",
    "CREATE TEMP TABLE unsaid (holding bytea, mapped bigint) ON COMMIT DROP",
)
_RESERVED = """
SELECT original_key FROM quarantine WHERE source = {source} AND state = 'open' AND original_key <> row_key
UNION SELECT row_key FROM decision WHERE source = {source} AND kind IN ('release', 'attach') AND row_key IS NOT NULL
"""


# What the ledger knows of the row, read once. The same version mapped again, under another contract or out of an older file,
# keeps the latest time it was seen; what a snapshot listed is as new as it.
def _known(join: Join) -> str:
    return f"""
UPDATE incoming AS i SET known = true, was = l.verdict, was_digest = l.digest, was_as_of = l.as_of, was_lacked = l.lacked,
  was_updated_at = greatest(l.updated_at, CAST(:listed_as_of AS timestamptz)),
  was_holding = l.holding, was_mapped = l.mapped, was_said = l.said_digest, was_said_as_of = l.said_as_of,
  updated_at = CASE WHEN l.digest = i.digest AND l.verdict <> 'withdrawn' AND (:snapshot OR NOT i.timed AND NOT l.timed)
    THEN greatest(l.updated_at, i.updated_at) ELSE i.updated_at END,
  said_at = CASE WHEN l.digest = i.digest AND l.verdict <> 'withdrawn' AND NOT i.timed AND NOT l.timed
    THEN greatest(l.said_at, i.said_at) ELSE i.said_at END
FROM incoming AS j {join("row_ledger", "l", "l.source = :source AND l.row_key = j.row_key")}
WHERE j.ordinal = i.ordinal
"""


# What a snapshot did not list is withdrawn as of then: a row comes back, or comes at all, only with a delivery that is no
# older.
_OLDER = """
UPDATE incoming SET fate = 'older' WHERE CASE coalesce(was, 'withdrawn')
  WHEN 'withdrawn' THEN greatest(was_as_of, CAST(:listed_as_of AS timestamptz)) > as_of
  WHEN 'retracted' THEN was_digest <> digest AND was_updated_at >= updated_at
  ELSE was_digest <> digest AND was_updated_at > updated_at END
"""
# Of versions of one row in one batch the latest is the row's.
_OLDER_HERE = """
UPDATE incoming AS i SET fate = 'older' FROM (
  SELECT ordinal, row_number() OVER (PARTITION BY row_key
    ORDER BY updated_at DESC, verdict = 'retracted' DESC, seen_at DESC NULLS LAST, digest DESC) AS place
  FROM incoming WHERE fate IS NULL) AS r
WHERE i.ordinal = r.ordinal AND r.place > 1
"""
# An accepted version older than a bad one, but newer than the last accepted one, still says what is held: unless a
# snapshot in between lacked the row. One that takes the row back still takes it back.
_COVERED = """
UPDATE incoming AS i SET fate = 'behind' FROM (
  SELECT DISTINCT ON (j.row_key) j.ordinal
  FROM incoming AS j LEFT JOIN incoming AS w ON w.row_key = j.row_key AND w.fate IS NULL
  WHERE j.fate = 'older' AND j.verdict IN ('accepted', 'retracted') AND coalesce(w.verdict, j.was) IN ('quarantined', 'rejected')
    AND (j.was_holding IS NULL AND coalesce(CASE WHEN j.was = 'retracted' THEN j.was_updated_at ELSE j.was_said_as_of END < j.updated_at, true)
      OR j.verdict = 'retracted' AND coalesce(j.was_said_as_of, j.was_updated_at) <= j.updated_at
      OR j.was_holding IS NOT NULL AND (coalesce(j.was_said_as_of, j.was_updated_at), j.was_said) < (j.updated_at, j.digest)
      OR j.was_said = j.digest AND j.was_said_as_of IS NOT NULL)
    AND j.as_of >= coalesce(CASE WHEN j.was = 'withdrawn' THEN greatest(j.was_as_of, CAST(:listed_as_of AS timestamptz))
      WHEN NOT j.known THEN CAST(:listed_as_of AS timestamptz) ELSE j.was_lacked END, '-infinity')
  ORDER BY j.row_key, j.updated_at DESC, j.verdict = 'retracted' DESC, j.seen_at DESC NULLS LAST, j.digest DESC) AS b
WHERE i.ordinal = b.ordinal
"""
# What is behind was chosen as what stands. Of versions of one time the greater digest stands, whichever was delivered last.
_SAYS = """
UPDATE incoming SET says = true WHERE verdict = 'retracted' AND (fate IS NULL OR fate = 'behind') OR verdict = 'accepted' AND (fate = 'behind' OR fate IS NULL AND (
  :forced OR was_holding IS NULL OR was_said = digest OR was <> 'accepted' OR updated_at > was_updated_at OR digest > was_said))
"""
# Versions that contradict each other are settled by an accepted one that is no older than they are, whichever comes first.
_QUARANTINE_CLOSED = """
UPDATE quarantine AS q SET state = 'superseded', decided_at = now() FROM incoming AS i
WHERE q.source = :source AND q.state = 'open' AND i.fate IS NULL AND q.row_key = i.row_key
"""
_QUARANTINE_SETTLED = """
UPDATE quarantine AS q SET state = 'superseded', decided_at = now() FROM incoming AS i
WHERE q.source = :source AND q.state = 'open' AND q.original_key <> q.row_key AND i.fate IS NULL
  AND q.original_key = i.original_key AND i.verdict = 'accepted' AND i.updated_at >= (
    SELECT l.updated_at FROM row_ledger AS l WHERE l.source = :source AND l.row_key = q.row_key)
"""
_QUARANTINE_OPENED = """
INSERT INTO quarantine (source, batch, row_key, original_key, digest, verdict, state, reasons, raw, file, "row")
SELECT :source, :batch, row_key, original_key, digest, verdict, CASE
    WHEN verdict = 'rejected' THEN 'rejected'
    WHEN original_key <> row_key AND EXISTS (
      SELECT FROM row_ledger AS l WHERE l.source = :source AND l.row_key = incoming.original_key AND l.verdict = 'accepted'
        AND l.updated_at >= incoming.updated_at) THEN 'superseded'
    ELSE 'open' END,
  string_to_array(reasons, ','), raw, file, "row"
FROM incoming WHERE verdict IN ('quarantined', 'rejected') AND fate IS NULL
ON CONFLICT (source, batch, file, "row") DO NOTHING
"""


def _touched(join: Join) -> str:
    return f"""
CREATE TEMP TABLE touched ON COMMIT DROP AS
SELECT holding FROM shared
UNION
SELECT holding FROM incoming WHERE says AND verdict = 'accepted'
UNION
SELECT was_holding FROM incoming WHERE says AND was_holding IS NOT NULL
UNION
SELECT l.holding FROM again AS a {join("row_ledger", "l", "l.source = :source AND l.row_key = a.row_key")}
WHERE NOT l.timed AND l.holding IS NOT NULL
"""


# What takes back says nothing any more.
_OWN = "CASE WHEN i.verdict = 'accepted' THEN {} END"
_SAID = f"""
  holding = CASE WHEN i.says THEN i.holding ELSE l.holding END,
  authority = CASE WHEN i.says THEN {_OWN.format("CAST(:authority AS smallint)")} ELSE l.authority END,
  said_digest = CASE WHEN i.says THEN {_OWN.format("i.digest")} ELSE l.said_digest END,
  said_at = CASE WHEN i.says THEN {_OWN.format("i.said_at")} ELSE l.said_at END,
  mapped = CASE WHEN i.says THEN i.mapped ELSE l.mapped END
"""
# A version behind a bad one is weighed by the time it had while it was the row's; what a snapshot lacked stays known.
_LEDGER = f"""
UPDATE row_ledger AS l SET
  digest = i.digest, contract = :contract, verdict = i.verdict, in_force = i.verdict <> 'accepted' OR i.says, timed = i.timed,
  updated_at = i.updated_at, as_of = greatest(l.as_of, i.as_of), batch = :batch, file = i.file, "row" = i."row",
  lacked = CASE WHEN l.verdict = 'withdrawn' THEN greatest(l.lacked, l.as_of, CAST(:listed_as_of AS timestamptz)) ELSE l.lacked END,
  said_as_of = CASE WHEN i.says OR i.verdict = 'accepted' THEN NULL
    WHEN l.verdict = 'retracted' THEN l.updated_at WHEN l.holding IS NULL THEN l.said_as_of
    ELSE coalesce(l.said_as_of, greatest(l.updated_at, CAST(:listed_as_of AS timestamptz))) END,
  {_SAID}
FROM incoming AS i WHERE l.source = :source AND l.row_key = i.row_key AND i.fate IS NULL
"""
_SAID_BEHIND = f"""
UPDATE row_ledger AS l SET said_as_of = greatest(i.updated_at, CASE WHEN l.said_digest = i.digest THEN l.said_as_of END), {_SAID}
FROM incoming AS i WHERE l.source = :source AND l.row_key = i.row_key AND i.fate = 'behind'
"""
_LEDGER_NEW = """
INSERT INTO row_ledger (source, row_key, digest, contract, verdict, timed, updated_at, as_of, lacked, batch, file, "row",
  holding, authority, said_digest, said_at, mapped)
SELECT :source, row_key, digest, :contract, verdict, timed, updated_at, as_of, CAST(:listed_as_of AS timestamptz), :batch, file,
  "row", CASE WHEN says THEN holding END, CASE WHEN holding IS NOT NULL AND says THEN CAST(:authority AS smallint) END,
  CASE WHEN holding IS NOT NULL AND says THEN digest END, CASE WHEN holding IS NOT NULL AND says THEN said_at END,
  CASE WHEN says THEN mapped END
FROM incoming WHERE NOT known AND fate IS NULL ORDER BY row_key
"""
# Rows that came again unchanged in a later delivery are as new as that, where they carry no time of their own.
_AGAIN = """
UPDATE row_ledger AS l SET as_of = a.as_of,
  updated_at = CASE WHEN l.timed AND NOT :snapshot THEN l.updated_at ELSE greatest(l.updated_at, a.as_of) END,
  said_at = CASE WHEN NOT l.timed AND l.said_digest = l.digest THEN greatest(l.said_at, a.as_of) ELSE l.said_at END
FROM again AS a WHERE l.source = :source AND l.row_key = a.row_key AND l.as_of < a.as_of
"""
# Behind a bad version: what the snapshot denies, though it may not be the latest.
_DENIED = """l.source = :source AND l.verdict IN ('quarantined', 'rejected')
  AND NOT EXISTS (SELECT FROM listed AS s WHERE s.row_key = l.row_key)"""
_TOUCHED_BY_ABSENCE = f"""
INSERT INTO touched
(SELECT l.holding FROM row_ledger AS l WHERE l.source = :source AND l.holding IS NOT NULL AND {diff.UNLISTED}
UNION
SELECT l.holding FROM row_ledger AS l WHERE l.holding IS NOT NULL AND l.said_as_of < :as_of AND {_DENIED})
EXCEPT SELECT holding FROM touched
"""
# Of these :func:`deny` may take away what stands behind.
_TOUCHED_BY_EARLIER = """
INSERT INTO touched
(SELECT holding FROM row_ledger WHERE source = :source AND holding IS NOT NULL AND verdict IN ('quarantined', 'rejected')
UNION
SELECT was_holding FROM incoming WHERE was_holding IS NOT NULL AND verdict IN ('quarantined', 'rejected'))
EXCEPT SELECT holding FROM touched
"""
# What the source no longer lists need not be decided.
_QUARANTINE_GONE = """
UPDATE quarantine AS q SET state = 'superseded', decided_at = now() FROM row_ledger AS l
WHERE q.source = :source AND q.state = 'open' AND l.source = :source AND l.row_key = q.row_key AND l.verdict = 'withdrawn'
"""
_LACKED = f"""
UPDATE row_ledger AS l SET lacked = greatest(l.lacked, :as_of),
  (holding, authority, said_digest, said_at, said_as_of, mapped) = (
    SELECT l.holding, l.authority, l.said_digest, l.said_at, l.said_as_of, l.mapped WHERE l.said_as_of >= :as_of)
WHERE {_DENIED}
"""
_ABSENT = f"""
UPDATE row_ledger AS l SET verdict = 'withdrawn', as_of = :as_of, updated_at = :as_of, batch = :batch, holding = NULL,
  authority = NULL, said_digest = NULL, said_at = NULL, said_as_of = NULL, mapped = NULL
WHERE l.source = :source AND l.verdict <> 'withdrawn' AND {diff.UNLISTED}
"""
_TAKEN_BACK = "SELECT count(*) FROM incoming WHERE verdict = 'retracted' AND says AND was_holding IS NOT NULL"
# Mapped rows that nothing refers to any more: versions that were replaced or withdrawn, and those that do not stand.
_UNSAID = """
INSERT INTO unsaid
SELECT was_holding, was_mapped FROM incoming WHERE says AND was_mapped IS NOT NULL
UNION ALL
SELECT holding, mapped FROM incoming WHERE NOT says AND mapped IS NOT NULL
"""
_DENIED_MAPPED = f"SELECT l.holding, l.mapped FROM row_ledger AS l WHERE l.mapped IS NOT NULL AND l.said_as_of < :as_of AND {_DENIED}"
_UNSAID_DENIED = f"INSERT INTO unsaid {_DENIED_MAPPED}"
_UNSAID_ABSENT = f"""
INSERT INTO unsaid
SELECT l.holding, l.mapped FROM row_ledger AS l
WHERE l.source = :source AND l.mapped IS NOT NULL AND l.verdict <> 'withdrawn' AND {diff.UNLISTED}
UNION
{_DENIED_MAPPED}
"""
_FORGOTTEN = "DELETE FROM mapped_row AS m USING unsaid AS u WHERE m.holding = u.holding AND m.id = u.mapped"
