"""Releases that were killed between the decision and its merge: told, taken back, and not carried out by a rebuild."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors.errors import FatalError, RetriableError
from connectors.landing import Landing
from hub import (
    checkpoint,
    database,
    decisions,
    home,
    journal,
    matching,
    matching_decisions,
    matching_queue,
    pipeline,
    quarantine,
    rebuild,
    releases,
    review,
    stages,
    state,
    verify,
)
from hub.cli import app
from tests import killed, licences, residents
from tests.test_pipeline import SH, count

RESIDENTS, HOUSEHOLDS = "sh-ga-residents", "sh-ga-households"
BAD = licences.row(4, name="")


@pytest.fixture
def entry(store: sa.Engine, tmp_path: Path) -> int:
    """Three rows are held, one waits: its entry in the quarantine."""
    deliver(tmp_path, *licences.rows(3), BAD)
    return waiting()[0]


def deliver(folder: Path, *rows: dict[str, str]) -> dict[str, Any]:
    return pipeline.run(SH, input=licences.write(folder / f"{len(list(folder.iterdir()))}.csv", rows))


def waiting() -> list[int]:
    with database.engine().connect() as connection:
        return sorted(row.id for row in quarantine.listed(connection))


def release_killed(work: Callable[[], object], module: str = "hub.merge", name: str = "merge") -> str:
    """Do ``work`` in a process that dies right after ``module.name``; the batch of the release."""
    killed.after(work, module, name)
    with database.engine().connect() as connection:
        return str(connection.scalar(sa.text("SELECT id FROM batch WHERE kind = 'release' AND state <> 'merged'")))


def released_and_killed(entry: int) -> str:
    return release_killed(partial(review.release, [entry], actor="tester"))


def kinds() -> list[str]:
    return [str(one.content["kind"]) for one in decisions.every(Landing(home.current().landing_url))]


def digest(store: sa.Engine) -> dict[str, str]:
    with state.snapshot(store) as connection:
        return state.digest(connection)


def same_when_rebuilt(store: sa.Engine, fresh: str) -> None:
    assert verify.verify(store).ok
    made = rebuild.rebuild(fresh)
    assert made.other == [] and made.digest == digest(store)
    with sa.create_engine(sa.make_url(fresh).set(drivername="postgresql+psycopg")).connect() as there:
        decided = sa.text("SELECT kind, landed FROM decision ORDER BY landed")
        with store.connect() as here:
            assert there.execute(decided).all() == here.execute(decided).all()


def other_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    was = pipeline.contract
    monkeypatch.setattr(pipeline, "contract", lambda described: was(described)[::-1])


def test_it_is_told_and_taken_back(entry: int, store: sa.Engine, fresh: str) -> None:
    batch = released_and_killed(entry)
    assert [one.batch for one in journal.entries()][-1] == batch, "a rebuild would carry it out"
    (found,) = verify.verify(store).differences
    assert (found.check, found.code, found.found, found.keys) == ("decisions", "release-unfinished", 1, (batch,))
    assert "yici verify --mend" in found.advice()
    done = CliRunner().invoke(app, ["verify", "--mend", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["ok"] is True
    assert waiting() == [entry] and kinds() == ["release", "revoked-release"] and count("decision") == 0
    assert releases.take_back(store) == 0 and len(kinds()) == 2, "once is enough"
    same_when_rebuilt(store, fresh)


def test_a_rejection_ends_it_for_good(
    entry: int, store: sa.Engine, fresh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released_and_killed(entry)
    review.reject([entry], actor="tester")
    assert kinds() == ["release", "revoked-release", "reject"]
    same_when_rebuilt(store, fresh)
    other_contract(monkeypatch)
    again = deliver(tmp_path, *licences.rows(3), BAD)
    assert (again["accepted"], again["quarantined"]) == (3, 1) and count("holding") == 3


def test_the_next_run_takes_it_back(entry: int, store: sa.Engine, fresh: str, tmp_path: Path) -> None:
    released_and_killed(entry)
    deliver(tmp_path, licences.row(9))
    assert waiting() == [entry] and count("holding") == 4
    same_when_rebuilt(store, fresh)


def test_tasks_of_a_run_take_it_back(
    entry: int, store: sa.Engine, fresh: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the tasks of a run that delivers the row once more, for what mapping accepts and for the journal."""
    other_contract(monkeypatch)
    path = licences.write(tmp_path / "b.csv", [*licences.rows(3), BAD])
    fetched = pipeline.fetch(SH, run_id="one", input=path)
    released_and_killed(entry)
    for chunk in fetched["chunks"]:
        assert pipeline.map_and_gate(fetched["batch"], chunk)["quarantined"] == 1
    assert kinds() == ["release", "revoked-release"]
    released_and_killed(entry)
    pipeline.gate_batch(fetched["batch"])
    pipeline.merge(fetched["batch"])
    assert kinds() == ["release", "revoked-release"] * 2
    assert pipeline.publish(fetched["batch"])["quarantined"] == 1
    same_when_rebuilt(store, fresh)


def test_released_again_it_counts_once(entry: int, store: sa.Engine, fresh: str) -> None:
    first = released_and_killed(entry)
    (done,) = review.release([entry], actor="tester")
    assert done["accepted"] == 1 and done["batch"] != first and count("holding") == 4
    assert kinds() == ["release", "revoked-release", "release"] and count("decision") == 1
    same_when_rebuilt(store, fresh)


def test_killed_before_its_merge_it_does_not_count(
    entry: int, store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = release_killed(partial(review.release, [entry], actor="tester"), "hub.pipeline", "map_and_gate")
    assert count("decision") == 1
    assert [(one.code, one.keys) for one in verify.verify(store).differences] == [("release-unfinished", (batch,))]
    with store.connect() as connection:
        assert releases.in_force(connection, SH, "another") == []
        assert len(releases.in_force(connection, SH, batch)) == 1
    other_contract(monkeypatch)
    assert deliver(tmp_path, *licences.rows(3), BAD)["quarantined"] == 1
    assert verify.verify(store).ok and count("decision") == 0


def test_a_checkpoint_that_saw_it_does_not_bring_it_back(entry: int, store: sa.Engine, fresh: str) -> None:
    released_and_killed(entry)
    with state.snapshot(store) as connection:
        checkpoint.write(connection, Landing(home.current().landing_url))
    review.reject([entry], actor="tester")
    made = rebuild.rebuild(fresh, from_checkpoint="latest")
    assert made.digest == digest(store)
    with sa.create_engine(sa.make_url(fresh).set(drivername="postgresql+psycopg")).connect() as there:
        assert there.scalars(sa.text("SELECT kind FROM decision")).all() == ["reject"]


def test_an_attachment_goes_with_it(store: sa.Engine, tmp_path: Path, fresh: str) -> None:
    known = residents.write(tmp_path / "known.json", [residents.row(person) for person in range(len(residents.PEOPLE))])
    pipeline.run(RESIDENTS, input=known)
    member = residents.member(1, "310104000000001", gmsfhm=None, xm="王曉華")
    pipeline.run(HOUSEHOLDS, input=residents.write(tmp_path / "member.json", [member]))
    matching.propose()
    with store.connect() as connection:
        (row,) = matching_queue.listed(connection)
    batch = release_killed(partial(matching_decisions.accept, row["entry"], 1, actor="tester"))
    assert count("match_attachment") == 1
    assert [(one.code, one.keys) for one in verify.verify(store).differences] == [("release-unfinished", (batch,))]
    assert releases.take_back(store) == 1
    assert count("match_attachment") == 0 and kinds() == ["attach", "revoked-attach"]
    same_when_rebuilt(store, fresh)
    assert matching_decisions.accept(row["entry"], 1, actor="tester")["batch"]["accepted"] == 1


def test_one_that_is_under_way_is_left_alone(entry: int, store: sa.Engine) -> None:
    released_and_killed(entry)
    with releases.locked(store, SH) as alone:
        assert alone and verify.verify(store).ok and releases.take_back(store) == 0
        with pytest.raises(RetriableError) as busy:
            review.reject([entry], actor="tester")
        assert busy.value.code == "source-busy"
    assert kinds() == ["release"] and waiting() == [entry]


def test_what_another_has_decided_meanwhile_is_not_released(entry: int, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = stages.alone

    def slow(source: str) -> Any:
        review.reject([entry], actor="another")
        return alone(source)

    monkeypatch.setattr(stages, "alone", slow)
    with pytest.raises(FatalError) as decided:
        review.release([entry], actor="tester")
    assert decided.value.code == "quarantine-decided" and kinds() == ["reject"] and count("holding") == 3


def test_a_store_that_is_behind_takes_nothing_back(entry: int, store: sa.Engine) -> None:
    """As one from a backup that was made before the release: the landing zone knows better."""
    (done,) = review.release([entry], actor="tester")
    with store.begin() as connection:
        connection.execute(sa.text("DELETE FROM batch WHERE id = :batch"), {"batch": done["batch"]})
        connection.execute(sa.text("DELETE FROM decision"))
        assert releases.unmerged(connection) == []
    assert releases.take_back(store) == 0 and kinds() == ["release"]


def test_the_last_decision_about_a_version_counts(entry: int, store: sa.Engine) -> None:
    review.release([entry], actor="tester")
    with store.begin() as connection:
        assert len(releases.in_force(connection, SH, "another")) == 1
        decisions.record_rows(connection, "reject", SH, [entry], actor="tester")
        assert releases.in_force(connection, SH, "another") == []
