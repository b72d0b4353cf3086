"""What people decide about candidates: this one is whom the row is about, or none of them is.

Landed first, as decisions of the kinds ``attach`` (the row is released with it), ``attach-part`` (another holder of the same
row is still in question) and ``no-match``. A rebuild repeats them (:func:`replay`).
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from connectors.errors import FatalError, UsageError
from hub import database, decisions, matching_attachment, matching_queue, quarantine, review
from hub.journal import Entry
from hub.matching_attachment import Attachment

KINDS = ("attach", "attach-part", "no-match")


def accept(entry: int, candidate: int, *, actor: str, note: str = "", role: str | None = None) -> dict[str, Any]:
    """The row is about ``candidate`` (its number in the queue). Released with it, unless another holder is in question.

    Returns ``entry``, ``role``, ``waits_for`` (roles still in question) and, when released, ``batch``: the summary.
    UsageError ``match-unknown``, ``match-role``, ``match-candidate``; FatalError ``match-decided``, ``match-gone`` when the
    candidate is held no more, ``attach-unmappable`` when the row is not readable even so.
    """
    with database.engine().connect() as connection:
        rows = _open(connection, entry, role)
        if len(rows) > 1:
            raise UsageError("match-role", entry=entry, roles=", ".join(sorted(row.role for row in rows)))
        chosen = rows[0].role
        found = matching_queue.candidate(connection, entry, chosen, candidate)
        if found is None:
            raise UsageError("match-candidate", entry=entry, candidate=candidate)
        if found.value is None:
            raise FatalError("match-gone", entry=entry, candidate=candidate)
        attached = matching_attachment.roles(connection, entry)
        others = sorted(row.role for row in _open(connection, entry) if row.role != chosen and row.role not in attached)
    summary = attach(entry, Attachment(chosen, found.scheme, found.value), waits=bool(others), actor=actor, note=note)
    return {"entry": entry, "role": chosen, "waits_for": others, "batch": summary}


def attach(
    entry: int, attachment: Attachment, *, waits: bool, actor: str, note: str = "", replayed: Entry | None = None
) -> dict[str, Any] | None:
    """Carry out an attachment; with ``waits`` it is only kept. Returns the summary of the batch that released the row."""
    if not waits:
        summary = review.attach(entry, attachment, actor=actor, note=note, replayed=replayed)
    with database.engine().begin() as connection:
        if waits:
            source = _source(connection, entry)
            decisions.record_rows(
                connection, "attach-part", source, [entry], actor=actor, note=note, said=attachment.said()
            )
            matching_attachment.keep(connection, entry, attachment)
        connection.execute(sa.text(_ATTACHED), {"entry": entry, "role": attachment.role})
    return None if waits else summary


def reject(entry: int, *, actor: str, note: str = "") -> None:
    """None of the candidates is whom the row is about: it stays where it is, and this version of it is not asked about
    again. UsageError ``match-unknown``, FatalError ``match-decided``."""
    with database.engine().begin() as connection:
        _open(connection, entry)
        _reject(connection, entry, actor, note)


def _reject(connection: sa.Connection, entry: int, actor: str, note: str) -> None:
    source = _source(connection, entry)
    decisions.record_rows(connection, "no-match", source, [entry], actor=actor, note=note)
    connection.execute(sa.text(_REJECTED), {"entry": entry})


def replay(decision: decisions.Landed, replayed: Entry | None = None) -> None:
    """Carry out a landed decision again, inside :func:`hub.decisions.replayed`; a version of the row that is not in
    quarantine any more needs none. ``replayed``: the merge that released the row."""
    content = decision.content
    actor, note = str(content["actor"]), str(content["note"])
    with database.engine().connect() as connection:
        entry = connection.scalar(sa.text(_VERSION), {"source": content["source"], **content["rows"][0]})
    if entry is None:
        return
    if content["kind"] == "no-match":
        with database.engine().begin() as connection:
            _reject(connection, entry, actor, note)
        return
    attachment = Attachment(*(str(content[name]) for name in ("role", "scheme", "value")))
    if content["kind"] == "attach-part" or replayed is not None:
        attach(entry, attachment, waits=replayed is None, actor=actor, note=note, replayed=replayed)


def _source(connection: sa.Connection, entry: int) -> str:
    return str(quarantine.show(connection, entry)["source"])


def _open(connection: sa.Connection, entry: int, role: str | None = None) -> list[sa.Row]:
    """Roles of a row that are still in question."""
    found = connection.execute(sa.text(_ROLES), {"entry": entry, "role": role}).all()
    if not found:
        raise UsageError("match-unknown", entry=entry)
    open_ = [row for row in found if row.state == "waiting" and row.open]
    if not open_:
        raise FatalError("match-decided", entry=entry)
    return open_


_ROLES = """
SELECT m.role, m.state, q.state IN ('open', 'rejected') AND q.decided_at IS NULL AS open
FROM match_record AS m JOIN quarantine AS q ON q.id = m.entry
WHERE m.entry = :entry AND (cast(:role AS text) IS NULL OR m.role = :role)
"""
_ATTACHED = "UPDATE match_record SET state = 'attached' WHERE entry = :entry AND role = :role"
_REJECTED = "UPDATE match_record SET state = 'rejected' WHERE entry = :entry"
_VERSION = """
SELECT max(id) FROM quarantine WHERE source = :source AND original_key = cast(:row_key AS uuid) AND digest = cast(:digest AS uuid)
  AND state IN ('open', 'rejected') AND decided_at IS NULL
"""
