"""``yici identity match``: candidates for quarantined rows without a usable identifier, put into the review queue.

Only rows that wait without candidates are matched, again when more has become known since; each part is committed by
itself, so one that is killed is continued by the next, and one too many changes nothing. Nothing is attached here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from connectors.errors import RetriableError
from hub import copying, database, home, matching_model
from hub.matching_kernel import RECORDS, Finder, Found

ROWS = 2_000  # matched and committed at once
RECORD = {
    "entry": "int8", "role": "text", "run": "int8", "position": "int8", "state": "text", "candidates": "int4",
    "candidates_more": "int4", "crowded": "jsonb",
}  # fmt: skip
CANDIDATE = {
    "entry": "int8", "role": "text", "rank": "int2", "identifier": "bytea", "holding": "bytea", "weight": "float8",
    "probability": "float8", "levels": "text[]", "weights": "float8[]",
}  # fmt: skip


class Progress(Protocol):
    """Told of each step: ``done`` of ``total`` (total 0: not known)."""

    def __call__(self, step: str, done: int, total: int) -> None: ...


def quiet(step: str, done: int, total: int) -> None:
    """No progress shown."""


def propose(progress: Progress = quiet) -> dict[str, Any]:
    """Match what waits. Returns counts: ``rows``, ``records`` (persons in question), ``matched`` (with candidates),
    ``candidates``, ``crowded`` (records with a block too large to be searched), ``people`` known.

    RetriableError ``matching-busy`` while another run matches.
    """
    from hub import matching_subjects as subjects

    counts = dict.fromkeys(("rows", "records", "matched", "candidates", "crowded", "people"), 0)
    with _alone():
        with database.engine().connect() as connection:
            position = connection.scalar(sa.text("SELECT position FROM feed_head")) or 0
            waiting = subjects.waiting(connection, position)
        total = sum(map(len, waiting.values()))
        if not total:
            return counts
        folder = home.current().work / "matching"
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        try:
            with Finder(folder) as finder:
                progress("read known people", 0, 0)
                with database.engine().connect() as connection:
                    for part in subjects.people(connection, home.keyed_hash()):
                        finder.add(part)
                counts["people"] = finder.people
                with database.engine().begin() as connection:
                    run = connection.scalar(sa.text(_RUN), _run(finder.people))
                for source, entries in waiting.items():
                    for start in range(0, len(entries), ROWS):
                        progress("match", counts["rows"], total)
                        some = entries[start : start + ROWS]
                        with database.engine().begin() as connection:
                            records = subjects.records(connection, source, some)
                            found = finder.find(records.select(RECORDS.names))
                            _write(connection, records, found, run or 0, position)
                        counts["rows"] += len(some)
                        counts["records"] += records.num_rows
                        counts["matched"] += pc.sum(pc.greater(found.records["candidates"], 0)).as_py() or 0
                        counts["candidates"] += found.candidates.num_rows
                        counts["crowded"] += pc.sum(pc.not_equal(found.records["crowded"], "[]")).as_py() or 0
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return counts


def _write(connection: sa.Connection, records: pa.Table, found: Found, run: int, position: int) -> None:
    """In place of what an earlier run found in vain."""
    connection.execute(
        sa.text("DELETE FROM match_record WHERE entry = ANY(:entries) AND state = 'waiting'"),
        {"entries": records["entry"].to_pylist()},
    )
    summed = found.records  # in the order of the records
    rows = records.num_rows
    _copy(
        connection,
        "match_record",
        RECORD,
        [records["entry"], records["role"], pa.repeat(run, rows), pa.repeat(position, rows), pa.repeat("waiting", rows),
         pc.subtract(summed["candidates"], summed["more"]), summed["more"], summed["crowded"]],
    )  # fmt: skip
    place = pc.index_in(found.candidates["record"], value_set=records["record"].combine_chunks())
    candidates = found.candidates
    levels, weights = (
        _listed([candidates[f"{one.name}{end}"] for one in matching_model.COMPARISONS]) for end in ("", "_weight")
    )
    _copy(
        connection,
        "match_candidate",
        CANDIDATE,
        [records["entry"].take(place), records["role"].take(place), candidates["rank"], candidates["person"],
         candidates["statement"], candidates["weight"], candidates["probability"], levels, weights],
    )  # fmt: skip


def _listed(parts: list[pa.ChunkedArray]) -> pa.ListArray:
    """For each row the list of its values."""
    width, rows = len(parts), len(parts[0])
    flat = pa.chunked_array([chunk for part in parts for chunk in part.chunks], parts[0].type).combine_chunks()
    by_row = np.arange(width * rows).reshape(width, rows).T.ravel()
    return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) * width, pa.int32()), flat.take(pa.array(by_row)))


def _copy(connection: sa.Connection, name: str, types: dict[str, str], columns: list[Any]) -> None:
    with copying.into(connection, name, list(types), list(types.values())) as copy:
        copy.write(pa.table(columns, list(types)))


def _run(people: int) -> dict[str, Any]:
    weights = {
        one.name: {level.code: {"m": level.m, "u": level.u} for level in one.levels}
        for one in matching_model.COMPARISONS
    }
    return {"model": matching_model.digest(), "weights": json.dumps(weights), "people": people}


_RUN = "INSERT INTO match_run (model, weights, people) VALUES (:model, cast(:weights AS jsonb), :people) RETURNING id"


@contextmanager
def _alone() -> Iterator[None]:
    """One run at a time: a session lock, which ends with the process at the latest."""
    with database.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as guard:
        if not guard.scalar(sa.text("SELECT pg_try_advisory_lock(hashtextextended('yici-matching', 0))")):
            raise RetriableError("matching-busy")
        try:
            yield
        finally:
            guard.execute(sa.text("SELECT pg_advisory_unlock(hashtextextended('yici-matching', 0))"))
