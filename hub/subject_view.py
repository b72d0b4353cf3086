"""One's own view 办事人档案: what is held about somebody, from whom, who asked and why, what was fetched and handed in.

Over all identifiers that are one with the one asked with; where these contradict each other it stands alone. Every view is
recorded, and is itself part of the next. No value of a certificate is in it, and nobody else's name.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import sqlalchemy as sa

from connectors.errors import UsageError
from connectors.messages import Language
from hub import catalogue, deposit_sources, deposits, home, knowledge
from hub.home import identifier_text
from hub.knowledge import Found, Snapshot
from hub.schema_evidence import subject_view
from mappings import model, scalars

Section = Literal["held", "asked", "fetched", "deposits", "views"]
SECTIONS: tuple[Section, ...] = get_args(Section)
LIMIT, LARGEST = 100, 500
_END = "~"  # between the parts of a position


def view(
    engine: sa.Engine,
    text: str,
    *,
    client: str,
    purpose: str,
    section: Section | None = None,
    after: str | None = None,
    limit: int = LIMIT,
    lang: Language = "en",
) -> dict[str, Any]:
    """``{section: {"entries": […], "next": position or null}}`` of whom ``text`` (scheme:value) names, newest first.

    ``section``: this one alone, and then ``after`` the position that the page before gave as ``next``. UsageError
    ``identifier-invalid``, ``position-invalid``.
    """
    if after is not None and section is None:
        raise UsageError("position-invalid")
    found = scalars.parse(text)
    if found.verdict == "invalid" or found.scheme is None or not found.normalised:
        raise UsageError("identifier-invalid", who="applicant", reasons=found.reason or "-")
    digest = home.keyed_hash().of(identifier_text(found.scheme, found.normalised))
    with engine.begin() as connection:
        gathered, known = knowledge.current(
            connection, {digest: (found.scheme, found.normalised)}, [one.code for one in model.all_materials()]
        )
        subject = gathered.subject(digest)
        cluster, state = gathered.cluster.get(digest, (b"", "alone"))
        alone = state != "joined"
        members = [digest] if alone else gathered.members[cluster]
        asked = sa.insert(subject_view).values(subject=digest, client=client, purpose=purpose)
        pages: dict[Section, Callable[[], dict[str, Any]]] = {
            "held": lambda: _held(subject.found, known, after, limit, lang),
            "asked": lambda: _page(connection, _ASKED, members, after, limit, functools.partial(_asked, lang=lang)),
            "fetched": lambda: _page(
                connection, _FETCHED, members, after, limit, functools.partial(_fetched, lang=lang)
            ),
            "deposits": lambda: _page(
                connection, _deposits(), members, after, limit, functools.partial(deposits.shown, lang=lang)
            ),
            "views": lambda: _page(connection, _VIEWS, members, after, limit, _viewed),
        }
        shown: dict[str, Any] = {name: pages[name]() for name in ([section] if section else SECTIONS)}
        connection.execute(asked)  # each page too: a position can be made up
    return {"identity": "contradictory" if state == "contradictory" else "clear", **shown}


def _held(found: Sequence[Found], known: Snapshot, after: str | None, limit: int, lang: Language) -> dict[str, Any]:
    """All is read already: of one subject it is little."""
    heard = {one.source: one for one in known.sources}
    behind = None if after is None else _place(after)
    rest = sorted((one for one in found if behind is None or _begun(one) < behind), key=_begun, reverse=True)
    entries = []
    for one in rest[:limit]:
        shape, owner = one.shape, deposit_sources.owners().get(one.shape.source)
        last = heard[shape.source].last_success_at if shape.source in heard else None
        if shape.source.startswith(deposit_sources.PREFIX):  # nobody is heard of again
            last = None
        entries.append(
            {
                "holding": one.key,
                "material": shape.material,
                "material_name": getattr(model.load(shape.material).name, lang),
                "as": list(shape.roles),
                "status": shape.status,
                "valid_from": _text(shape.valid_from),
                "valid_to": _text(shape.valid_to),
                "region": shape.region,
                "conflicting": shape.conflicting,
                "hub": shape.hub,
                "source": shape.source,
                "owner": getattr(owner, lang) if owner else None,
                "as_of": _text(last),
                "provenance": [{"source": source, "file": file, "row": row} for source, file, row in one.rows],
            }
        )
    return {"entries": entries, "next": _END.join(_begun(rest[limit - 1])) if len(rest) > limit else None}


def _begun(one: Found) -> tuple[str, str]:
    """What certificates are in order by: since when one is valid, those that do not say last; and its key."""
    return _text(one.shape.valid_from) or "", one.key


def _place(after: str) -> tuple[str, str]:
    """A position among certificates."""
    day, end, key = after.partition(_END)
    try:
        if not end or (day and dt.date.fromisoformat(day).isoformat() != day):
            raise UsageError("position-invalid")
    except ValueError:
        raise UsageError("position-invalid") from None
    return day, key


def _asked(row: Any, *, lang: Language) -> dict[str, Any]:
    versions = catalogue.published().get(row.item, ())
    item = next((one for one in versions if one.version == row.version), None)
    about = "applicant" in row.named
    return {
        "answer": str(row.id),
        "as": sorted(row.named),
        "at": _text(row.at),
        "client": row.client,
        "client_name": row.client_name,
        "purpose": row.purpose,
        # Of somebody else's matter: that one was named in it, as what and why, and nothing of what it is about.
        "case": row.case if about else None,
        "item": row.item,
        "item_name": getattr(item.name, lang) if item else None,
        "must_submit": list(row.must_submit) if about else None,
    }


def _fetched(row: Any, *, lang: Language) -> dict[str, Any]:
    return {
        "holding": row.holding.hex(),
        "material": row.material,
        "material_name": getattr(model.load(row.material).name, lang),
        "fields": list(row.fields),
        "at": _text(row.at),
        "client": row.client,
        "client_name": row.receiver_name if row.receiver else row.client_name,
        "receiver": row.receiver,
        "provider": row.provider,
        "purpose": row.purpose,
        "case": row.case if row.own else None,  # as in :func:`_asked`
        "item": row.item,
        "answer": str(row.answer),
        "message": str(row.message) if row.message else None,
    }


def _viewed(row: Any) -> dict[str, Any]:
    return {"at": _text(row.at), "client": row.client, "client_name": row.client_name, "purpose": row.purpose}


def _text(value: Any) -> str | None:
    """A day or a moment, as JSON has it."""
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat()
    return value.isoformat() if isinstance(value, dt.date) else value


def _page(
    connection: sa.Connection,
    query: str,
    members: Sequence[bytes],
    after: str | None,
    limit: int,
    shown: Callable[[Any], dict[str, Any]],
) -> dict[str, Any]:
    """Rows of ``query`` (with ``at`` and ``name``, by which it is in order) behind the position ``after``."""
    at, name = _position(after)
    bind = {"members": list(members), "at": at, "name": name, "limit": limit + 1}
    rows = connection.execute(sa.text(f"{_OF} {query} {_AFTER}"), bind).all()
    last = rows[limit - 1] if len(rows) > limit else None
    return {
        "entries": [shown(row) for row in rows[:limit]],
        "next": f"{last.at.astimezone(dt.UTC).isoformat()}{_END}{last.position}" if last is not None else None,
    }


def _position(after: str | None) -> tuple[dt.datetime | None, str]:
    if after is None:
        return None, ""
    time, end, name = after.partition(_END)
    try:
        at = dt.datetime.fromisoformat(time)
        if at.tzinfo is None or not end or "\0" in name:
            raise UsageError("position-invalid")
        return at.astimezone(dt.UTC), name
    except (ValueError, OverflowError):
        raise UsageError("position-invalid") from None


_OF = "SELECT v.*, (SELECT name FROM agreement AS g WHERE g.client = v.client) AS client_name FROM ("
_AFTER = """) AS v WHERE CAST(:at AS timestamptz) IS NULL OR (v.at, v.position) < (CAST(:at AS timestamptz), :name)
ORDER BY v.at DESC, v.position DESC LIMIT :limit"""
# As what: by the parties of the inputs; answers of before these were kept are about an applicant alone.
_ASKED = """
SELECT id, asked_at AS at, id::text AS position, client, purpose, "case", item, version, must_submit, coalesce(
  (SELECT array_agg(role) FROM jsonb_each(inputs::jsonb -> 'parties') AS p (role, named)
    WHERE decode(named ->> 0, 'hex') = ANY(:members)), '{applicant}') AS named
FROM answer WHERE applicant = ANY(:members) OR others && CAST(:members AS bytea[])
"""
_GIVEN = """
SELECT e.holding, e.material, e.fields, e.given_at AS at, e.answer || encode(e.holding, 'hex') AS position, e.client, e.purpose,
  e."case", e.item, e.answer, e.receiver, e.provider, e.message, e.applicant = ANY(:members) AS own,
  (SELECT title FROM exchange_peer AS p WHERE p.name = e.receiver) AS receiver_name
FROM evidence AS e WHERE"""
# What partner hubs hold is known by whose it is; what it is called there changes with every epoch.
_FETCHED = f"""
{_GIVEN} e.holding IN (
  SELECT holding FROM holding_holder WHERE identifier = ANY(:members)
  UNION SELECT holding FROM holding_past WHERE identifiers && CAST(:members AS bytea[]))
UNION ALL {_GIVEN} e.subject IS NOT NULL AND e.subject = ANY(:members)
"""


def _deposits() -> str:
    query = f"{deposits.query()} WHERE d.holders && CAST(:members AS bytea[])"
    return f"SELECT d.*, d.received_at AS at, d.id::text AS position FROM ({query}) AS d"


_VIEWS = """
SELECT viewed_at AS at, lpad(id::text, 20, '0') AS position, client, purpose FROM subject_view WHERE subject = ANY(:members)
"""
