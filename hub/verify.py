"""Recomputes what the store holds from its ledger, and compares; the landing zone is checked against the batches.

Everything is read as of one moment (:func:`hub.state.snapshot`), so that a running hub is neither stopped nor
misjudged. Each check is one statement that gives a row for each difference: its code, whose sentence and advice are in
``messages/verify.yml``, and a key that names no person. At most :data:`SHOWN` keys of a kind are kept.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa

from connectors import messages
from connectors.errors import FatalError
from connectors.landing import LandedFile, Landing
from hub import (
    database,
    decisions,
    home,
    identity_decisions,
    journal,
    kept_rows,
    partitions,
    releases,
    state,
    verify_identity,
    verify_sql,
)
from mappings import model

SHOWN = 5


class Progress(Protocol):
    """Told of each check as it begins: ``done`` of ``total``."""

    def __call__(self, check: str, done: int, total: int) -> None: ...


def quiet(check: str, done: int, total: int) -> None:
    """No progress shown."""


@dataclass(frozen=True)
class Difference:
    """What is not as it should be: how many, and keys of some."""

    check: str
    code: str
    found: int
    keys: tuple[str, ...]

    def sentence(self) -> str:
        return messages.text(self.code, found=self.found)

    def advice(self) -> str:
        return messages.advice(self.code, found=self.found)

    def shown(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "code": self.code,
            "found": self.found,
            "keys": list(self.keys),
            "message": self.sentence(),
            "advice": self.advice(),
        }


@dataclass(frozen=True)
class Report:
    """``checked``: the names of the checks made, in order."""

    at: dt.datetime
    digest: dict[str, str]
    checked: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def ok(self) -> bool:
        return not self.differences

    def shown(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "at": self.at.isoformat(),
            "digest": self.digest[state.ALL],
            "checked": list(self.checked),
            "differences": [one.shown() for one in self.differences],
        }


def verify(engine: sa.Engine | None = None, *, read_bytes: bool = False, progress: Progress = quiet) -> Report:
    """Every check of the store and of the landing zone. ``read_bytes``: landed files are read and their SHA-256 compared,
    not only their size."""
    landing = Landing(home.current().landing_url)
    names = [*verify_sql.CHECKS, "journal", "landing", "digest", "decisions"]
    found: list[Difference] = []
    with state.snapshot(engine, temporary=True) as connection:
        at = connection.scalar(sa.text("SELECT now()"))
        found += of_store(connection, lambda check, done, total: progress(check, done, len(names)))
        progress("journal", len(names) - 4, len(names))
        found += _gathered("journal", _journal(connection, landing))
        progress("landing", len(names) - 3, len(names))
        since = partitions.since(connection, "landing")
        merged = connection.execute(sa.text(_MERGED), {"since": since})
        batches = [(row.source, row.id) for row in merged]
        taken = set(connection.scalars(sa.text(_DECIDED), {"since": since}))
        lying = _landed(landing, batches + _decided(landing), taken, read_bytes)
        found += _gathered("landing", itertools.chain(lying, _deposited(connection, landing, read_bytes)))
        progress("digest", len(names) - 2, len(names))
        digest = state.digest(connection)
        altered = [("decision-altered", landed) for landed in decisions.altered(connection, landing)]
    progress("decisions", len(names) - 1, len(names))
    engine = engine or database.engine()
    about_identity = (("decision-unfinished", landed) for landed in identity_decisions.unfinished(engine))
    about_rows = (("release-unfinished", batch) for batch in releases.unfinished(engine))
    found += _gathered("decisions", itertools.chain(altered, about_identity, about_rows))
    return Report(at, digest, tuple(names), tuple(found))


def of_store(connection: sa.Connection, progress: Progress = quiet) -> list[Difference]:
    """Every check that only reads the store, within the caller's transaction, in which temporary tables can be made."""
    connection.execute(sa.text("SET LOCAL work_mem = '256MB'"))
    bind = _bind()
    found: list[Difference] = []
    for done, (name, statement) in enumerate(verify_sql.CHECKS.items()):
        progress(name, done, len(verify_sql.CHECKS))
        if name == "identity":
            verify_identity.anew(connection)
        found += _compared(connection, name, statement, bind)
        if name == "quarantine":
            found += _gathered(name, (("quarantine-altered", str(entry)) for entry in kept_rows.altered(connection)))
    verify_identity.forget(connection)
    return found


def _bind() -> dict[str, object]:
    hashing = home.keyed_hash()
    entities = model.all_entities()
    return {
        "inner": hashing.inner,
        "outer": hashing.outer,
        # What becomes a holding: certificates, and items of a catalogue; links and index entries do not.
        "certificates": [entity.code for entity in entities if entity.kind in ("certificate", "catalogue")],
    }


def _compared(connection: sa.Connection, name: str, statement: str, bind: dict[str, object]) -> list[Difference]:
    rows = connection.execute(sa.text(verify_sql.SAMPLED.format(statement=statement, shown=SHOWN)), bind)
    return [Difference(name, row.code, row.found, tuple(row.keys)) for row in rows]


def _gathered(check: str, differences: Iterator[tuple[str, str]]) -> list[Difference]:
    """(code, key) pairs counted by code."""
    counts: dict[str, int] = {}
    keys: dict[str, list[str]] = {}
    for code, key in differences:
        counts[code] = counts.get(code, 0) + 1
        if counts[code] <= SHOWN:
            keys.setdefault(code, []).append(key)
    return [Difference(check, code, count, tuple(keys[code])) for code, count in counts.items()]


def _journal(connection: sa.Connection, landing: Landing) -> Iterator[tuple[str, str]]:
    try:
        yield from (("journal-missing", entry.batch) for entry in journal.missing(connection, landing))
    except FatalError as error:
        yield "journal-unreadable", str(error.values["entry"])


def _decided(landing: Landing) -> list[tuple[str, str]]:
    return [(source, batch) for source, batch in landing.batches() if source == decisions.SOURCE]


def _landed(
    landing: Landing, merged: list[tuple[str, str]], decided: set[str], read_bytes: bool
) -> Iterator[tuple[str, str]]:
    """The manifest of every merged batch and decision, and the files they name. ``decided``: digests of decisions that the
    store knows."""
    seen: set[str] = set()
    for source, batch in merged:
        try:
            manifest = landing.read_manifest(source, batch)
        except FatalError as error:
            yield f"landing-{error.code}", batch
            continue
        for file in manifest.files:
            if file.path not in seen:
                seen.add(file.path)
                if code := _altered(landing, file, read_bytes):
                    yield code, file.path
                decided.discard(file.digest)
    yield from (("landing-file-missing", digest) for digest in sorted(decided))


def _deposited(connection: sa.Connection, landing: Landing, read_bytes: bool) -> Iterator[tuple[str, str]]:
    """What applicants handed in: the file, and what was said of it."""
    for row in connection.execute(
        sa.text("SELECT file, file_digest, file_size, landed FROM deposit ORDER BY received_at")
    ):
        if code := _altered(landing, LandedFile(row.file_digest, row.file_digest, row.file_size, row.file), read_bytes):
            yield code, row.file
        if landing.zone.size(row.landed) is None:
            yield "landing-file-missing", row.landed


def _altered(landing: Landing, file: LandedFile, read_bytes: bool) -> str | None:
    size = landing.zone.size(file.path)
    if size is None:
        return "landing-file-missing"
    if size != file.size:
        return "landing-file-altered"
    if read_bytes:
        try:
            landing.verify(file)
        except FatalError:
            return "landing-file-altered"
    return None


_DECIDED = """
SELECT DISTINCT landed FROM decision
WHERE CAST(:since AS date) IS NULL OR decided_at >= CAST(:since AS date)::timestamp AT TIME ZONE 'UTC'
"""
# Of the months that retention left.
_MERGED = """
SELECT source, id FROM batch WHERE state = 'merged' AND kind = 'run'
  AND (CAST(:since AS date) IS NULL OR started_at >= CAST(:since AS date)::timestamp AT TIME ZONE 'UTC')
ORDER BY started_at
"""
