"""Attachments of rows with several holders, what a rebuild makes of decisions, and the commands."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors.errors import UsageError
from hub import database, matching, matching_decisions, matching_queue, pipeline, rebuild, state
from hub.cli import app
from tests import residents

RESIDENTS, MARRIAGES = "sh-ga-residents", "sh-mca-marriages"
COUPLE = {
    "djzh": "J310104-2005-0000001", "nf_xm": "張國榮", "nf_sfzh": "", "nvf_xm": "WANG XIAOHUA", "nvf_sfzh": "",
    "djrq": "2005-05-20", "djjg": "上海市民政局", "djjg_dm": "11310000002422821P", "xzqh": "310104", "zt": "有效",
    "gxsj": "2025-01-02T08:00:00+08:00",
}  # fmt: skip


@pytest.fixture
def couple(store: sa.Engine, tmp_path: Path) -> int:
    """Six residents are held, a marriage of two of them waits without numbers. The quarantine entry."""
    people = [residents.row(person) for person in range(len(residents.PEOPLE))]
    people.append(residents.row(3, gmsfhm=None))
    pipeline.run(RESIDENTS, input=residents.write(tmp_path / "known.json", people))
    path = tmp_path / "marriages.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COUPLE)
        writer.writeheader()
        writer.writerow(COUPLE)
    pipeline.run(MARRIAGES, input=path)
    matching.propose()
    return int(queue(source=MARRIAGES)[0]["entry"])


def queue(**filters: Any) -> list[dict[str, Any]]:
    with database.engine().connect() as connection:
        return matching_queue.listed(connection, **filters)


@pytest.mark.slow
def test_both_holders_are_named_before_the_row_passes_and_a_rebuild_repeats_it(
    couple: int, store: sa.Engine, fresh: str
) -> None:
    assert [row["role"] for row in sorted(queue(source=MARRIAGES), key=lambda row: row["role"])] == [
        "spouse_a",
        "spouse_b",
    ]
    with pytest.raises(UsageError) as unsaid:
        matching_decisions.accept(couple, 1, actor="tester")
    assert unsaid.value.code == "match-role"
    first = matching_decisions.accept(couple, 1, actor="tester", role="spouse_b")
    assert first["waits_for"] == ["spouse_a"] and first["batch"] is None
    second = matching_decisions.accept(couple, 1, actor="tester")
    assert second["role"] == "spouse_a" and second["batch"]["accepted"] == 1
    (left,) = queue()
    matching_decisions.reject(left["entry"], actor="tester")
    with store.connect() as connection:
        holders = connection.scalar(
            sa.text("SELECT document -> 'holders' FROM observation WHERE source = :source"), {"source": MARRIAGES}
        )
        before = state.digest(connection)
    assert [one["value"] for one in holders] == [residents.number(residents.PEOPLE[person][1]) for person in (0, 1)]
    made = rebuild.rebuild(fresh)
    assert made.digest == before
    with sa.create_engine(fresh).connect() as connection:
        kinds = connection.scalars(sa.text("SELECT kind FROM decision ORDER BY kind")).all()
        assert kinds == ["attach", "attach-part", "no-match"]
        assert connection.scalar(sa.text("SELECT count(*) FROM match_attachment")) == 2


def test_commands(couple: int) -> None:
    def yici(*arguments: str) -> Any:
        run = CliRunner().invoke(app, ["identity", *arguments, "--json"])
        assert run.exit_code == 0, run.output
        return json.loads(run.stdout)

    assert yici("match")["rows"] == 0
    listed = CliRunner().invoke(app, ["identity", "review", "list"]).stdout
    assert str(couple) in listed and not any(name in listed for name in ("張國榮", "张国荣", residents.PEOPLE[0][1]))
    assert len(yici("review", "list", "--source", MARRIAGES)) == 2
    told = CliRunner().invoke(app, ["identity", "review", "show", str(couple), "--role", "spouse_a"])
    assert told.exit_code == 0, told.output
    assert "張國榮" in told.stdout and "张国荣" in told.stdout and "simplified" in told.stdout
    done = yici(
        "review", "accept", str(couple), "--candidate", "1", "--role", "spouse_a", "--by", "Li Na", "--note", "seen"
    )
    assert done["waits_for"] == ["spouse_b"]
    assert yici("review", "reject", str(couple)) == {"rejected": couple}
    assert queue(source=MARRIAGES) == []
