"""What the landing zone tells, done again in the store of this process, in the order in which it happened.

Batches that the journal knows as merged go through the pipeline once more, from the files of their manifests; what people
decided takes effect where it did. Batches that never merged, halted and not approved, failed or superseded, are not in the
journal. The source folders are those of today. What the store already has is skipped: a replay that was cut off is
continued, and one may start from a checkpoint.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import sqlalchemy as sa

from connectors import source as sources
from connectors.errors import BatchHalted, FatalError
from connectors.landing import Landing
from hub import (
    batches,
    database,
    decisions,
    deposit_review,
    identity_decisions,
    index_entries,
    journal,
    matching_decisions,
    pipeline,
    publication,
    releases,
    review,
)
from hub.decisions import Landed
from hub.journal import Entry


class Progress(Protocol):
    """Told of each step as it begins: ``done`` of ``total``."""

    def __call__(self, step: str, done: int, total: int) -> None: ...


def quiet(step: str, done: int, total: int) -> None:
    """No progress shown."""


@dataclass
class Replayed:
    """What was done. ``changed``: sources whose contract is another now than under the last batch replayed. ``idle``:
    batches that never merged. ``approved``: batches that today's gates would halt, and that are merged as they were."""

    counts: Counter[str] = field(default_factory=Counter)
    changed: set[str] = field(default_factory=set)
    approved: list[str] = field(default_factory=list)
    idle: int = 0


@dataclass(frozen=True)
class Step:
    """One merge or one decision."""

    at: dt.datetime
    what: Entry | Landed

    @property
    def name(self) -> str:
        return self.what.batch if isinstance(self.what, Entry) else str(self.what.content.get("kind"))


def replay(landing: Landing, progress: Progress = quiet, *, due: Mapping[str, int] | None = None) -> Replayed:
    """Everything of ``landing`` that the store does not have yet. Called again it does what was added meanwhile.

    ``due``: merges by source that there must be, as another witness says. FatalError ``replay-gap`` when some are missing;
    ``replay-failed``, with the batch, when a batch that was merged cannot be merged any more.
    """
    done = Replayed()
    deposit_review.restore(landing)
    merges = journal.entries(landing)
    decided = list(decisions.every(landing))
    plan = _Plan(merges, decided)
    steps = sorted((*(Step(one.known_at, one) for one in merges), *(Step(one.decided_at, one) for one in decided)),
                   key=lambda step: step.at)  # fmt: skip
    known = plan.carried_out
    done.idle = sum(source != decisions.SOURCE and batch not in known for source, batch in landing.batches())
    with database.engine().connect() as connection:
        merged = set(connection.scalars(sa.text("SELECT id FROM batch WHERE state = 'merged'")))
        taken = set(connection.scalars(sa.text("SELECT DISTINCT landed FROM decision")))
        numbers = {row.name: row.merges for row in connection.execute(sa.text("SELECT name, merges FROM source"))}
    plan.require_all(numbers, due or {})
    for place, step in enumerate(steps):
        progress(step.name, place, len(steps))
        if isinstance(step.what, Entry):
            past = step.what.kind != journal.RELEASE and step.what.number <= numbers.get(step.what.source, 0)
            if step.what.batch not in merged and not past and not plan.forgotten(step):
                _merge(landing, step.what, plan, done)
        elif step.what.digest not in taken:
            _decide(step.what, plan, done)
    with database.engine().begin() as connection:  # the next merge must not take the number of one in the journal
        for source, number in plan.numbers.items():
            connection.execute(sa.text("UPDATE source SET merges = greatest(merges, :number) WHERE name = :source"),
                               {"source": source, "number": number})  # fmt: skip
    return done


class _Plan:
    """What later decisions say of earlier steps."""

    def __init__(self, merges: list[Entry], decided: list[Landed]) -> None:
        self.releases = {one.content["batch"]: one for one in decided if one.content["kind"] in releases.KINDS}
        self.revoked = releases.revoked(decided)
        self.never = decisions.never(decided)
        self.forms = identity_decisions.forms(decided)
        self.carried_out = {one.batch for one in merges}
        self.numbers = {one.source: one.number for one in merges}  # in order: the last
        self._runs: dict[str, list[int]] = {}
        for entry in merges:
            if entry.kind != journal.RELEASE:
                self._runs.setdefault(entry.source, []).append(entry.number)
        self._forgotten: dict[str, dt.datetime] = {}
        for one in decided:
            if one.content["kind"] == "forget":
                self._forgotten[one.content["source"]] = one.decided_at

    def require_all(self, merges: dict[str, int], due: Mapping[str, int]) -> None:
        """Nothing may be missing between what the store has and what is due; forgetting moves the number too."""
        for source in sorted((self._runs.keys() | due.keys()) - self._forgotten.keys()):
            expected = merges.get(source, 0) + 1
            runs = [number for number in self._runs.get(source, []) if number >= expected]
            for number in (*runs, due.get(source, 0) + 1):
                if number > expected:
                    raise FatalError("replay-gap", source=source, first=expected, last=number - 1)
                expected = max(expected, number + 1)

    def forgotten(self, step: Step) -> bool:
        """Whether all that the step brings was dropped later: the agreement ended, its key may be gone."""
        assert isinstance(step.what, Entry)
        ended = self._forgotten.get(step.what.source)
        return ended is not None and step.at < ended


def _merge(landing: Landing, entry: Entry, plan: _Plan, done: Replayed) -> None:
    if entry.kind == journal.RELEASE:
        if (decision := plan.releases.get(entry.batch)) and entry.batch not in plan.revoked:
            with database.engine().begin() as connection:  # of an attempt that was cut off
                connection.execute(sa.text("DELETE FROM decision WHERE landed = :landed"), {"landed": decision.digest})
            with decisions.replayed(decision):
                if decision.content["kind"] == "attach":
                    matching_decisions.replay(decision, entry)
                else:
                    _release(entry, decision)
            # Nothing is left to do where another attempt had it done: counting it would mean to go on for ever.
            if _merged(entry.batch):
                done.counts["released"] += 1
        return
    manifest = landing.read_manifest(entry.source, entry.batch)
    described = sources.load(entry.source)
    try:
        fetched = pipeline.fetch(entry.source, landed=manifest)
        for chunk in fetched["chunks"]:
            pipeline.map_and_gate(entry.batch, chunk)
        try:
            pipeline.gate_batch(entry.batch)
        except BatchHalted:
            _approve(entry.batch)
            done.approved.append(entry.batch)
        pipeline.merge(entry.batch, recorded_at=entry.known_at)
        summary = pipeline.publish(entry.batch)
    except BatchHalted as error:  # columns are missing: nothing can be judged
        raise FatalError("replay-failed", batch=entry.batch, source=entry.source, reason=error.message()) from error
    done.counts["batches"] += 1
    done.counts["rows"] += int(summary["fetched"])
    then = (manifest.request.get("run") or {}).get("contract")
    if then == pipeline.contract(described):
        done.changed.discard(entry.source)
    elif then is not None:
        done.changed.add(entry.source)


def _taken(decision: Landed) -> bool:
    with database.engine().connect() as connection:
        known = sa.text("SELECT EXISTS (SELECT FROM decision WHERE landed = :landed)")
        return bool(connection.scalar(known, {"landed": decision.digest}))


def _merged(batch: str) -> bool:
    with database.engine().connect() as connection:
        known = sa.text("SELECT EXISTS (SELECT FROM batch WHERE id = :batch AND state = 'merged')")
        return bool(connection.scalar(known, {"batch": batch}))


def _approve(batch: str) -> None:
    """It was merged once: a person had approved it, or the gates were others."""
    with database.engine().begin() as connection:
        row = batches.get(connection, batch)
        if not batches.approvable(row):
            reason = ", ".join(finding["code"] for finding in row.findings if finding["severity"] == "halt")
            raise FatalError("replay-failed", batch=batch, source=row.source, reason=reason)
        batches.update(connection, batch, state="approved")


def _decide(decision: Landed, plan: _Plan, done: Replayed) -> None:
    if decision.digest in plan.never:
        return
    content = decision.content
    kind, actor, note = str(content["kind"]), str(content.get("actor", "")), str(content.get("note", ""))
    with decisions.replayed(decision):
        if kind == "forget":
            _forget(content["source"], actor, note)
        elif kind == "release":
            return  # with its merge, or not at all
        elif kind == "reject":
            with database.engine().begin() as connection:
                entries = _open(connection, content)
            if entries:
                review.reject(entries, actor=actor, note=note)
        elif kind == "approve":
            with database.engine().begin() as connection:
                decisions.record(connection, kind, content["source"], actor=actor, note=note, batch=content["batch"])
        elif kind in identity_decisions.KINDS:
            with database.engine().begin() as connection:
                landed = decisions.record_identity(connection, content, actor=actor, note=note)
                identity_decisions.carry_out(connection, landed, plan.forms)
        elif kind in matching_decisions.KINDS:
            matching_decisions.replay(decision)
        elif kind == publication.KIND:
            publication.replay(decision)
        elif kind in deposit_review.KINDS:
            deposit_review.replay(decision)
        elif kind in ("revoked-release", "revoked-attach"):
            _undo(plan.releases.get(str(content.get("batch"))))
        elif not kind.startswith("revoked-"):
            raise FatalError("replay-decision-unknown", kind=kind)
    # One that a second attempt made again finds nothing left to do: counting it would mean to go on for ever.
    if _taken(decision):
        done.counts["decisions"] += 1


def _undo(release: Landed | None) -> None:
    """A checkpoint may have seen a release that was taken back later."""
    if release is not None and not _merged(release.content["batch"]):
        with database.engine().begin() as connection:
            releases.undo(connection, release)


def _forget(source: str, actor: str, note: str) -> None:
    """What came before was not replayed; where nothing came since there is nothing to forget but the decision."""
    with database.engine().begin() as connection:
        known = connection.scalar(sa.text("SELECT 1 FROM source WHERE name = :source"), {"source": source})
        if not known:
            decisions.record(connection, "forget", source, actor=actor, note=note)
    if known:
        index_entries.forget(source, actor=actor, note=note)


def _release(entry: Entry, decision: Landed) -> None:
    """Release rows again; one that passes by itself today needs no release."""
    with database.engine().connect() as connection:
        entries = _open(connection, decision.content)
    if entries:
        content = decision.content
        review.release(entries, actor=str(content["actor"]), note=str(content["note"]), replayed=entry)


def _open(connection: sa.Connection, content: dict[str, Any]) -> list[int]:
    """Open entries of the quarantine for the versions of rows that a decision is about."""
    rows = content["rows"]
    bind = {
        "source": content["source"],
        "keys": [row["row_key"] for row in rows],
        "digests": [row["digest"] for row in rows],
    }
    return list(connection.scalars(_OPEN, bind))


_OPEN = sa.text("""
SELECT q.id FROM quarantine AS q
  JOIN unnest(cast(:keys AS uuid[]), cast(:digests AS uuid[])) AS d (row_key, digest)
    ON q.original_key = d.row_key AND q.digest = d.digest
WHERE q.source = :source AND q.state = 'open' ORDER BY q.id
""")
