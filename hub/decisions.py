"""Decisions of people: landed as a source of their own before they take effect, so that a rebuild can replay them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from connectors.errors import FatalError
from connectors.landing import Landing
from hub import home, schema

SOURCE = "decisions"


@dataclass(frozen=True)
class Landed:
    """A decision as it lies in the landing zone. ``content``: kind, actor, note and what it is about."""

    digest: str
    decided_at: dt.datetime
    content: dict[str, Any]


_replayed: ContextVar[Landed | None] = ContextVar("replayed", default=None)


@contextmanager
def replayed(decision: Landed) -> Iterator[None]:
    """What is recorded inside is ``decision``, which was landed long ago: nothing is landed again, its time is kept."""
    token = _replayed.set(decision)
    try:
        yield
    finally:
        _replayed.reset(token)


def every(landing: Landing, known: Collection[str] = ()) -> Iterator[Landed]:
    """All decisions of a landing zone, in the order in which they were taken; of those of ``known`` digests none is read."""
    named = {digest[:8] for digest in known}
    for source, batch in landing.batches():
        if source != SOURCE or batch.rpartition("-")[2] in named:
            continue
        manifest = landing.read_manifest(SOURCE, batch)
        for file in manifest.files:
            with landing.open(file) as stream:
                yield Landed(file.digest, manifest.fetched_at, orjson.loads(stream.read()))


def readable(landing: Landing) -> Iterator[Landed]:
    """As :func:`every`, without those that cannot be read."""
    for source, batch in landing.batches():
        if source == SOURCE:
            with suppress(FatalError, OSError, ValueError):
                manifest = landing.read_manifest(SOURCE, batch)
                for file in manifest.files:
                    with landing.open(file) as stream:
                        yield Landed(file.digest, manifest.fetched_at, orjson.loads(stream.read()))


def record(
    connection: sa.Connection, kind: str, source: str, *, actor: str, note: str = "", batch: str | None = None
) -> None:
    """A decision about a batch."""
    landed = _land({"kind": kind, "source": source, "batch": batch, "actor": actor, "note": note})
    connection.execute(
        sa.insert(schema.decision).values(
            kind=kind,
            source=source,
            batch=batch,
            actor=actor,
            note=note,
            landed=landed.digest,
            decided_at=landed.decided_at,
        )
    )


def about(connection: sa.Connection, batch: str) -> list[dict[str, object]]:
    """Who decided what about a batch, when and why, in order; decisions about its rows counted by kind."""
    rows = connection.execute(
        sa.text(
            """SELECT kind, actor, note, min(decided_at) AS decided_at, count(digest) AS rows FROM decision
            WHERE batch = :batch GROUP BY kind, actor, note, landed ORDER BY 4"""
        ),
        {"batch": batch},
    )
    return [dict(row) for row in rows.mappings()]


def record_rows(
    connection: sa.Connection,
    kind: str,
    source: str,
    entries: list[int],
    *,
    actor: str,
    note: str = "",
    batch: str | None = None,
    said: dict[str, str] | None = None,
    decided_at: dt.datetime | None = None,
) -> Landed:
    """A decision about quarantined rows: it holds for exactly these versions of them (key and digest). ``batch``: the
    one that carries it out; ``said``: what else is landed with it; ``decided_at``: in UTC, now without it."""
    bind = {"kind": kind, "source": source, "entries": entries, "actor": actor, "note": note}
    versions = connection.execute(
        sa.text(
            "SELECT original_key::text AS row_key, digest::text AS digest FROM quarantine WHERE id = ANY(:entries)"
        ),
        bind,
    ).mappings()
    rows = [dict(row) for row in versions]
    content = {"kind": kind, "source": source, "batch": batch, "rows": rows, "actor": actor, "note": note}
    landed = _land({**content, **(said or {})}, decided_at)
    connection.execute(
        sa.text(
            """INSERT INTO decision (kind, source, batch, row_key, digest, actor, note, landed, decided_at)
            SELECT :kind, :source, batch, original_key, digest, :actor, :note, :landed, :decided_at
            FROM quarantine WHERE id = ANY(:entries)"""
        ),
        {**bind, "landed": landed.digest, "decided_at": landed.decided_at},
    )
    return landed


def record_identity(
    connection: sa.Connection,
    content: dict[str, Any],
    *,
    actor: str,
    note: str = "",
    decided_at: dt.datetime | None = None,
) -> Landed:
    """A decision about who is whom: ``content`` says its kind and its whole effect (:mod:`hub.identity_decisions`).
    ``decided_at``: in UTC, now without it."""
    landed = _land({**content, "actor": actor, "note": note}, decided_at)
    connection.execute(
        sa.insert(schema.decision).values(
            kind=content["kind"],
            source="identity",
            actor=actor,
            note=note,
            landed=landed.digest,
            decided_at=landed.decided_at,
        )
    )
    return landed


def record_catalogue(connection: sa.Connection, content: dict[str, Any], *, actor: str, note: str = "") -> Landed:
    """What was published of the catalogue: ``content`` says its kind and every change (:mod:`hub.publication`)."""
    landed = _land({**content, "actor": actor, "note": note})
    connection.execute(
        sa.insert(schema.decision).values(
            kind=content["kind"],
            source="catalogue",
            actor=actor,
            note=note,
            landed=landed.digest,
            decided_at=landed.decided_at,
        )
    )
    return landed


def record_deposits(connection: sa.Connection, kind: str, deposits: list[str], *, actor: str, note: str = "") -> Landed:
    """What was decided of ``deposits``, by id (:mod:`hub.deposit_review`)."""
    landed = _land({"kind": kind, "deposits": deposits, "actor": actor, "note": note})
    connection.execute(
        sa.insert(schema.decision).values(
            kind=kind,
            source="deposits",
            actor=actor,
            note=note,
            landed=landed.digest,
            decided_at=landed.decided_at,
        )
    )
    return landed


def unfinished(connection: sa.Connection, kinds: Collection[str]) -> list[Landed]:
    """Decisions of ``kinds`` that are landed, and neither known to the store nor taken back: of an attempt that is under way,
    or was cut off before its commit."""
    known = connection.scalars(sa.select(schema.decision.c.landed).distinct()).all()
    landed = list(every(Landing(home.current().landing_url), known))
    over = never(landed)
    return [one for one in landed if one.content["kind"] in kinds and one.digest not in over]


def revoke_unfinished(connection: sa.Connection, kinds: Collection[str]) -> int:
    """Take back :func:`unfinished` decisions: a rebuild must not carry out what never was in force. The caller holds the lock
    under which decisions of ``kinds`` are taken. Returns how many there were."""
    if _replayed.get():
        return 0
    found = unfinished(connection, kinds)
    for one in found:
        _land({"kind": f"revoked-{one.content['kind']}", "decision": one.digest})
    return len(found)


def altered(connection: sa.Connection, landing: Landing) -> list[str]:
    """Digests of decisions that the store tells of otherwise than they were landed: of which kind, about what, by whom, when. Those
    whose file is gone are not among them."""
    told: dict[str, list[sa.Row]] = {}
    for row in connection.execute(sa.text(_TOLD)):
        told.setdefault(row.landed, []).append(row)
    found = []
    for landed in readable(landing):
        content = landed.content
        same: dict[str, Any] = {"note": content.get("note") or "", "decided_at": landed.decided_at}
        same |= {name: content[name] for name in ("kind", "source", "batch", "actor") if name in content}
        about: list[tuple[str | None, str | None]] = [(None, None)]
        if "rows" in content:  # which are told of with the batch that they came with
            about = sorted((one["row_key"], one["digest"]) for one in content["rows"])
            del same["batch"]
        rows = told.get(landed.digest, [])
        if rows and (
            [(row.row_key, row.digest) for row in rows] != about
            or any(getattr(row, name) != value for row in rows for name, value in same.items())
        ):
            found.append(landed.digest)
    return found


def never(landed: Iterable[Landed]) -> set[str]:
    """Digests of decisions that were landed and taken back before they were in force."""
    return {str(one.content["decision"]) for one in landed if "decision" in one.content}


def revoke(decision: Landed) -> None:
    """Land that ``decision`` never came into force; the attempt and its revocation stay in the landing zone."""
    content = decision.content
    _land({"kind": f"revoked-{content['kind']}", "source": content["source"], "batch": content["batch"],
           "decision": decision.digest})  # fmt: skip


def _land(content: dict[str, object], decided_at: dt.datetime | None = None) -> Landed:
    if known := _replayed.get():
        return known
    decided_at = decided_at or dt.datetime.now(dt.UTC)
    body = orjson.dumps({**content, "decided_at": decided_at}, option=orjson.OPT_SORT_KEYS)
    landing = Landing(home.current().landing_url)
    landed = landing.put(body, f"{decided_at:%Y%m%dT%H%M%S%f}-{content['kind']}.json")
    landing.write_manifest(SOURCE, f"{decided_at:%Y%m%dT%H%M%S%f}-{landed.digest[:8]}", [landed], fetched_at=decided_at)
    return Landed(landed.digest, decided_at, content)


_TOLD = """
SELECT landed, kind, source, batch, actor, coalesce(note, '') AS note, decided_at, row_key::text AS row_key, digest::text AS digest
FROM decision ORDER BY landed, row_key, digest
"""
