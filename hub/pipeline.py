"""The pipeline: fetch → map and gate chunks → gate the batch → merge → publish.

The only module that calls connectors, mappings, quality and the store. The command line and the Airflow tasks call
these functions and pass references between them, never data. Each stage can be killed and called again: it starts from
what is landed or recorded and ends in the same state; only :func:`merge` changes what is held, in one transaction.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections import Counter
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from connectors import source as sources
from connectors.errors import BatchHalted, FatalError, RetriableError
from connectors.fetched import Fetched
from connectors.landing import Landing, Manifest
from connectors.source import Source
from hub import batch_findings, batches, clock, database, deliveries, failures, forks, home, releases, stages
from hub.workspace import Workspace

OPEN_END = "file-without-last-line-end"


@failures.named
def run(
    source: str, *, input: Path | None = None, as_of: str | None = None, progress: stages.Progress = stages.quiet
) -> dict[str, Any]:
    """One whole run of a source in this process. Returns the summary of :func:`hub.batches.summary`.

    One run of a source at a time: RetriableError ``source-busy`` otherwise. BatchHalted when a gate stops it.
    """
    with stages.alone(source):
        fetched = fetch(source, input=input, as_of=as_of, progress=progress)
        batch, chunks = fetched["batch"], fetched["chunks"]
        progress("map and gate", 0, len(chunks))
        if len(chunks) > 1:
            import great_expectations  # noqa: F401 - slow to load: once, before processes are forked
        forks.each(
            functools.partial(map_and_gate, batch), chunks, lambda done: progress("map and gate", done, len(chunks))
        )
        progress("gate the batch", 0, 1)
        gate_batch(fetched["batch"])
        progress("merge", 0, 1)
        merge(fetched["batch"])
        return publish(fetched["batch"])


@failures.named
def fetch(
    source: str,
    *,
    run_id: str | None = None,
    input: Path | None = None,
    as_of: str | None = None,
    landed: Manifest | None = None,
    progress: stages.Progress = stages.quiet,
) -> dict[str, Any]:
    """Pull and land what is new, stage it and compare it with the row ledger.

    Returns references: ``{"batch": id, "chunks": [numbers of chunks with rows to map]}``. ``run_id``: the Airflow run, so
    that a retried task continues its batch. ``input``: a file or folder instead of the source; its cursor stays.
    ``landed``: a batch as it once was landed, instead of all this (:mod:`hub.rebuild`).
    """
    from connectors import connect
    from hub import diff, partitions, staging

    described = sources.load(source)
    was = landed.request.get("run", {}) if landed else {}
    # What once was taken is taken again, whatever was allowed then.
    under, stated = contract(described), deliveries.time_of(was.get("as_of")) if landed else deliveries.stated(as_of)
    landing = Landing(home.current().landing_url)
    with database.engine().begin() as connection:
        partitions.ensure(connection)
    with database.engine().begin() as connection:
        if landed:
            batch = batches.begin(
                connection, described, under, was.get("run_id"), id=landed.batch,
                started_at=was.get("started_at") or landed.fetched_at,
            )  # fmt: skip
        else:
            batch = batches.begin(connection, described, under, run_id)
        known = connection.execute(
            sa.text("SELECT cursor, contract FROM source WHERE name = :name"), {"name": source}
        ).one()
    if batch.state == "merged":
        return {"batch": batch.id, "chunks": []}
    # A cursor made under another contract would leave rows unmapped that the new contract wants mapped again.
    cursor = known.cursor if known.contract == under else None
    with stages.recorded(batch.id):
        with stages.timed(batch.id, "fetch"):
            progress("fetch", 0, 0)
            if landed:
                fetched = Fetched(list(landed.files), was.get("cursor"), request=landed.request)
            else:
                channel = deliveries.channel(described)
                fetched = connect.fetch(
                    described, cursor=cursor, landing=landing, input=input, progress=None, channel=channel
                )
                fetched = channel.completed(fetched) if channel else fetched
                # What a rebuild has to know of the run beside its bytes.
                run = {"cursor": fetched.cursor, "as_of": stated.isoformat() if stated else None, "run_id": run_id,
                       "contract": under, "row_key": described.row_key, "started_at": batch.started_at}  # fmt: skip
                landing.write_manifest(
                    source,
                    batch.id,
                    fetched.files,
                    fetched_at=dt.datetime.now(dt.UTC),
                    request={**fetched.request, "run": run},
                )
        with stages.timed(batch.id, "diff"), database.engine().begin() as connection:
            progress("read and compare", 0, len(fetched.files))
            files = deliveries.register(connection, source, fetched.files)
            partner = deliveries.partner(described, landed)
            staged = staging.stage(
                described, batch.id, files, landing, stated, now=batch.started_at, partner=partner
            )  # fmt: skip
            batch_findings.check_columns(described, batch.id, staged)
            found = diff.diff(connection, described, batch.id, under, whole=not staged.unread)
            reasons = {"repeated": found.repeated, "older": found.older}
            batches.update(
                connection,
                batch.id,
                fetched=staged.fetched,
                unchanged=found.unchanged,
                # a date said of a delivery that did not come is nothing's date
                as_of=staged.as_of or (stated if deliveries.delivered(described, batch.id) else None),
                cursor=sa.null() if fetched.cursor is None else fetched.cursor,  # None would be stored as JSON null
                reasons={code: count for code, count in reasons.items() if count},
                flags={OPEN_END: staged.open_ends} if staged.open_ends else {},
                findings=[
                    {"code": code, "severity": "info", "values": {"rows": rows}}
                    for code, rows in (
                        ("conflicting", found.conflicting),
                        ("malformed", staged.malformed),
                        ("keyless", staged.keyless),
                        (diff.UNPROVEN, staged.unread if described.extent == "snapshot" else 0),
                    )
                    if rows
                ],
            )
    return {"batch": batch.id, "chunks": found.chunks}


@failures.named
def map_and_gate(batch: str, chunk: int) -> dict[str, Any]:
    """Map the rows that the ledger does not know, of one chunk or of several that have few, and check them. Returns counts by
    verdict."""
    import pyarrow as pa

    from hub import mapped_rows, matching_attachment, outcome

    pa.set_memory_pool(
        pa.system_memory_pool()
    )  # returns what it no longer needs, and is faster for short-lived columns
    with database.engine().connect() as connection:
        row = batches.get(connection, batch)
        batches.require(row, "open", "gated")
        stages.take_back(connection, row.source)
        released = releases.in_force(connection, row.source, batch)
        attached = matching_attachment.of_source(connection, row.source)
    workspace = Workspace(batch)
    with stages.recorded(batch), stages.timed(batch, "map and gate"):
        needed = workspace.read("needed", chunk)
        parts, raw = [], []
        for number in needed["chunk"].unique().to_pylist():
            if workspace.has("malformed", number):
                parts.append(outcome.of_malformed(_needed(workspace.read("malformed", number), needed)))
            if workspace.has("raw", number):
                raw.append(_needed(workspace.read("raw", number), needed))
        rows = pa.concat_tables(raw, promote_options="default") if raw else None
        if rows is not None and rows.num_rows:
            parts.append(_map_rows(sources.load(row.source), rows, _digests(released), attached, row.started_at))
        if not parts:
            raise RetriableError("chunk-missing", batch=batch, chunk=chunk)
        done = pa.concat_tables(parts, promote_options="default")
        if done.num_rows != needed.num_rows:
            raise FatalError("chunk-rows", batch=batch, chunk=chunk, expected=needed.num_rows, found=done.num_rows)
        workspace.write("mapped", chunk, mapped_rows.write(row, done))
    return {"batch": batch, "chunk": chunk, **outcome.counts(done, "verdict")}


@failures.named
def gate_batch(batch: str) -> dict[str, Any]:
    """Check the batch as a whole. Raises BatchHalted (exit code 3) with nothing merged; the batch stays to be approved."""
    from hub import diff, outcome

    with database.engine().begin() as connection:
        row = batches.get(connection, batch)
        if row.state in ("merged", "approved"):
            return batches.summary(row)
        batches.require(row, "open", "gated", "halted")
        described = sources.load(row.source)
        usual = batches.usual_sizes(connection, row.source)
        absence = diff.absent(connection, row)
        delivered = deliveries.delivered(described, batch)
        keys = batch_findings.keys(connection, described)
    with stages.recorded(batch), stages.timed(batch, "gate the batch"):
        verdicts: Counter[str] = Counter()
        reasons: Counter[str] = Counter(
            {code: row.reasons[code] for code in ("repeated", "older") if code in row.reasons}
        )
        flags: Counter[str] = Counter({code: row.flags[code] for code in (OPEN_END,) if code in row.flags})
        for table in Workspace(batch).each("mapped", ["verdict", "reasons", "flags"]):
            verdicts.update(outcome.counts(table, "verdict"))
            reasons.update(outcome.counts(table, "reasons"))
            flags.update(outcome.counts(table, "flags"))
        counts = {name: verdicts.get(name, 0) for name in ("accepted", "quarantined", "rejected")}
        counts["accepted"] += verdicts.get(outcome.RETRACTED, 0)
        counts |= {"fetched": row.fetched, "unchanged": row.unchanged}
        informative = [finding for finding in row.findings if finding["severity"] == "info"]
        conflicting = sum(finding["values"]["rows"] for finding in informative if finding["code"] == "conflicting")
        findings = [*keys, *batch_findings.judge(described, counts, flags, usual, conflicting, absence, delivered)]
        failed = [finding for finding in findings if finding.severity == "halt"]
        with database.engine().begin() as connection:
            batches.update(
                connection,
                batch,
                state="halted" if failed else "gated",
                accepted=counts["accepted"],
                quarantined=counts["quarantined"],
                rejected=counts["rejected"],
                withdrawn=absence.rows,
                flags=dict(flags),
                reasons=dict(reasons),
                findings=informative
                + [
                    {"code": finding.code, "severity": finding.severity, "values": dict(finding.values)}
                    for finding in findings
                ],
            )
        if failed:
            raise BatchHalted(failed[0].code, **{**failed[0].values, "batch": batch, "source": row.source})
    return {"batch": batch, **counts}


@failures.named
def merge(batch: str, *, recorded_at: dt.datetime | None = None) -> dict[str, Any]:
    """Merge a gated or approved batch; one that is merged already is left as it is. ``recorded_at``: when it became known
    the first time, of a batch that is replayed."""
    from hub import journal
    from hub import merge as merging
    from mappings import model

    with stages.recorded(batch), stages.timed(batch, "merge"), database.engine().begin() as connection:
        connection.execute(sa.text(stages.SOURCE_FIRST), {"batch": batch})
        row = batches.get(connection, batch, alone=True)
        if row.state == "merged":
            return {"batch": batch, "holdings_changed": 0}
        stages.take_back(connection, row.source)
        batches.require(row, "gated", "approved")
        described = sources.load(row.source)
        material = model.load(described.entity)
        if material.kind == "index" and described.extent == "snapshot":
            raise FatalError("index-snapshot", source=described.name)
        with journal.noted(connection, row, recorded_at) as entry:
            merged = merging.merge(
                connection,
                row,
                material.code,
                described.authority,
                home.keyed_hash(),
                kind=material.kind,
                recorded_at=recorded_at,
            )
        reasons = Counter(row.reasons)
        if merged.older:
            reasons["older"] += merged.older
        findings = [*row.findings, *batch_findings.merged(row, merged)]
        if row.kind == "run":
            batches.keep_key(connection, described)
        if row.kind == "run" and (halted := batches.supersede_halted(connection, row.source)):
            values = {"batches": ", ".join(halted)}
            findings.append({"code": "halted-superseded", "severity": "warn", "values": values})
        batches.update(
            connection,
            batch,
            state="merged",
            accepted=merged.accepted,
            quarantined=merged.quarantined,
            rejected=merged.rejected,
            unchanged=row.unchanged + merged.older,
            withdrawn=merged.withdrawn,
            reasons=dict(reasons),
            findings=findings,
            flags=row.flags | ({"tied": merged.tied} if merged.tied else {}),
            recorded_at=merged.recorded_at,
            finished_at=merged.recorded_at,
        )
    journal.complete(entry, merged.recorded_at)
    return {"batch": batch, "holdings_changed": merged.holdings_changed}


@failures.named
def publish(batch: str) -> dict[str, Any]:
    """Clean up after a merged batch and return its summary, the counts checked once more."""
    from hub import mapped_rows

    with database.engine().connect() as connection:
        row = batches.get(connection, batch)
    batches.require(row, "merged")
    parts = {name: getattr(row, name) for name in ("unchanged", "accepted", "quarantined", "rejected")}
    if row.fetched != sum(parts.values()):
        raise FatalError(
            "batch-rows-not-conserved", batch=batch, fetched=row.fetched, counted=sum(parts.values()), **parts
        )
    with database.engine().begin() as connection:
        ended = batches.without_workspace(connection, row.source)
        mapped_rows.clear(connection, ended)
    for done in ended:
        Workspace(done).clear()
    return batches.summary(row)


def contract(described: Source) -> str:
    """Digest of all that decides how a row of the source is read and judged."""
    from quality import suite

    return suite.contract_digest(described)


def summary(batch: str) -> dict[str, Any]:
    """Counts of a batch as they stand."""
    with database.engine().connect() as connection:
        return batches.summary(batches.get(connection, batch))


def _map_rows(described: Source, rows: Any, released: Any, attached: Any, started_at: dt.datetime) -> Any:
    """Map and check rows of a chunk; the gate is imported only here, it is slow to load. What must lie before today lies
    before the day on which the batch was begun, whenever it is done again."""
    from hub import matching_attachment, outcome
    from mappings import engine as mapping_engine
    from quality import gate, suite

    material, mapping = mapping_engine.material_of(described), mapping_engine.mapping_of(described)
    raw = rows.drop_columns([name for name in outcome.SYSTEM if name in rows.column_names and name != "_ordinal"])
    raw = matching_attachment.completed(described, mapping, raw, rows["_digest"], attached)
    mapped = mapping_engine.map_table(described, mapping, material, raw)
    gated = gate.check(mapped, suite.load(described), today=clock.today(started_at))
    for name in outcome.SYSTEM:
        if name in rows.column_names and name not in gated.column_names:
            gated = gated.append_column(name, rows[name])
    return outcome.of_rows(material, rows, gated, released, home.keyed_hash(), described.name, described.retracts)


def _needed(table: Any, needed: Any) -> Any:
    """The rows of a chunk that are to be mapped, with their key in the ledger and whether they conflict."""
    import numpy as np
    import pyarrow as pa

    wanted = needed["ordinal"].to_numpy()
    places = np.searchsorted(wanted, table["_ordinal"].to_numpy())
    found = (places < len(wanted)) & (wanted[np.minimum(places, max(len(wanted) - 1, 0))] == table["_ordinal"].to_numpy()) \
        if len(wanted) else np.zeros(table.num_rows, dtype=bool)  # fmt: skip
    kept = table.filter(pa.array(found))
    picked = pa.array(places[found])
    return kept.append_column("_ledger_key", needed["row_key"].take(picked)).append_column(
        "_conflicting", needed["conflicting"].take(picked)
    )


def _digests(values: Any) -> Any:
    """Digests as the database writes them, as :mod:`hub.digests` makes them."""
    import pyarrow as pa

    return pa.array([bytes.fromhex(value.replace("-", "")) for value in values], pa.binary(16))
