"""Rows without a usable identifier, from the quarantine into the review queue and out of it on a person's word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connectors import source as sources
from connectors.errors import FatalError, RetriableError, UsageError
from hub import database, matching, matching_attachment, matching_decisions, matching_queue, pipeline
from tests import residents

RESIDENTS, HOUSEHOLDS, BIRTHS = "sh-ga-residents", "sh-ga-households", "sh-nhc-births"


@pytest.fixture
def known(store: sa.Engine, tmp_path: Path) -> None:
    """Six residents are held."""
    path = residents.write(tmp_path / "known.json", [residents.row(person) for person in range(len(residents.PEOPLE))])
    assert pipeline.run(RESIDENTS, input=path)["accepted"] == len(residents.PEOPLE)


@pytest.fixture
def deliver(known: None, tmp_path: Path):
    numbers = iter(range(100))

    def run(*rows: dict[str, str | None], source: str = RESIDENTS) -> dict[str, Any]:
        return pipeline.run(source, input=residents.write(tmp_path / f"delivery-{next(numbers)}.json", list(rows)))

    return run


def queue(**filters: Any) -> list[dict[str, Any]]:
    with database.engine().connect() as connection:
        return matching_queue.listed(connection, **filters)


def shown(entry: int) -> dict[str, Any]:
    with database.engine().connect() as connection:
        (one,) = matching_queue.shown(connection, entry)
    return one


def scalar(query: str, **bind: Any) -> Any:
    with database.engine().connect() as connection:
        return connection.scalar(sa.text(query), bind)


def test_each_spelling_finds_its_person(deliver) -> None:
    deliver(
        residents.row(0, gmsfhm=None, xm="張國榮"),
        residents.row(1, gmsfhm="3.10E+17", xm="WANG XIAOHUA", csrq="1980-05-03"),
        residents.row(2, gmsfhm=residents.number(residents.PEOPLE[2][1])[:-1] + "?", xm="李明", xb=None),
        residents.row(4, gmsfhm=None, xm="欧阳修文", csrq="1969-02-15", xzqh="310115"),
    )
    counts = matching.propose()
    assert counts["records"] == counts["matched"] == 4
    found = {row["row"]: shown(row["entry"])["candidates"][0] for row in queue()}
    wanted = {row: residents.PEOPLE[person] for row, person in ((1, 0), (2, 1), (3, 2), (4, 4))}
    assert {row: one["says"]["number"] for row, one in found.items()} == {
        row: residents.number(person[1]) for row, person in wanted.items()
    }
    levels = {row: {name: held["level"] for name, held in one["agreement"].items()} for row, one in found.items()}
    assert levels[1]["name"] == "folded" and levels[1]["born"] == "exact"
    assert levels[2]["name"] == "pinyin" and levels[2]["born"] == "swapped"
    assert levels[3]["sex"] == "missing"
    assert levels[4]["born"] == "digit" and levels[4]["region"] == "city"


def test_what_a_document_says_of_others_is_not_shown_of_the_candidate(deliver) -> None:
    """A birth certificate names the mother; the birth date and the sex in it are the child's. Her number has hers."""
    pipeline.run(BIRTHS, input=sources.load(BIRTHS).folder / "sample" / "input.parquet")
    deliver(
        residents.row(0, gmsfhm=None, xm="示例甲", xb="2", csrq="1995-03-07", xzqh="310115"),
        residents.row(1, gmsfhm=None),
    )
    matching.propose()
    waiting = sorted(queue(source=RESIDENTS), key=lambda row: row["row"])
    mother, resident = (shown(row["entry"])["candidates"][0] for row in waiting)
    assert (mother["material"], mother["says"]["name"], mother["says"]["number"]) == (
        "birth-certificate", "示例甲", "310115199503078015"
    )  # fmt: skip
    assert (mother["says"]["born"], mother["says"]["sex"], mother["says"]["address"]) == ("1995-03-07", "男", None)
    assert {name: mother["agreement"][name]["level"] for name in ("born", "sex")} == {
        "born": "exact",
        "sex": "different",
    }
    assert (resident["says"]["born"], resident["says"]["sex"]) == ("1980-03-05", "女")


def test_again_is_nothing_and_more_known_is_tried_again(deliver) -> None:
    deliver(residents.row(5, gmsfhm=None), {**residents.row(5, gmsfhm=None), "xm": "孙不二", "csrq": "1950-01-01"})
    assert matching.propose()["matched"] == 1
    assert matching.propose()["rows"] == 0
    runs = scalar("SELECT count(*) FROM match_run")
    deliver({**residents.row(5), "xm": "孙不二", "csrq": "1950-01-01", "gmsfhm": residents.number("31010119500101003")})
    again = matching.propose()
    assert again["rows"] == again["matched"] == 1
    assert scalar("SELECT count(*) FROM match_run") == runs + 1


def test_accepting_releases_the_row_with_the_identifier(deliver) -> None:
    deliver(residents.member(1, "310104000000001", gmsfhm=None, xm="王曉華"), source=HOUSEHOLDS)
    matching.propose()
    (row,) = queue()
    done = matching_decisions.accept(row["entry"], 1, actor="tester", note="seen")
    assert done["waits_for"] == [] and done["batch"]["accepted"] == 1
    holder = scalar(
        "SELECT l.document::json -> 'holders' -> 0 ->> 'value' FROM holding AS h JOIN mapped_row AS l ON l.holding = h.key"
        " AND l.id = h.mapped WHERE h.material = 'household-register'"
    )
    assert holder == residents.number(residents.PEOPLE[1][1])
    assert scalar("SELECT state FROM quarantine") == "released" and queue() == []
    assert scalar("SELECT kind FROM decision") == "attach"
    again = deliver(residents.member(1, "310104000000001", gmsfhm=None, xm="王曉華"), source=HOUSEHOLDS)
    assert (again["unchanged"], again["quarantined"]) == (1, 0)
    with pytest.raises(FatalError) as refused:
        matching_decisions.accept(row["entry"], 1, actor="tester")
    assert refused.value.code == "match-decided"


def test_a_row_rejected_at_once_is_attached_too(deliver) -> None:
    deliver(residents.member(2, "310115000000009", gmsfhm="3.10E+17", xm="李明", xzqh="310115"), source=HOUSEHOLDS)
    assert scalar("SELECT state FROM quarantine") == "rejected"
    matching.propose()
    (row,) = queue()
    assert row["candidates"] == 1  # of two of that name, the one of that district
    assert matching_decisions.accept(row["entry"], 1, actor="tester")["batch"]["accepted"] == 1
    with database.engine().connect() as connection:
        assert matching_attachment.of_source(connection, HOUSEHOLDS).num_rows == 1


def test_the_list_names_nobody_and_a_rejected_version_is_not_asked_about_again(deliver) -> None:
    deliver(residents.row(3, gmsfhm=None), residents.row(0, zt="不明"))
    assert matching.propose()["rows"] == 1  # another fault is none of its business
    (row,) = queue()
    assert row["candidates"] == 1 and row["probability"] > 0.9
    assert matching_queue.agreement(row["levels"], "en").startswith("name: the same")
    assert not any(secret in str(row) for secret in residents.PEOPLE[3][:2])
    matching_decisions.reject(row["entry"], actor="tester", note="another")
    assert queue() == [] and scalar("SELECT kind FROM decision") == "no-match"
    assert scalar("SELECT state FROM quarantine WHERE id = :entry", entry=row["entry"]) == "open"
    with database.engine().begin() as connection:
        connection.execute(sa.text("DELETE FROM match_record"))  # as of a rebuild: the decision alone says so
    assert matching.propose()["rows"] == 0


def test_what_cannot_be_read_even_so_is_taken_back(deliver, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(residents.member(1, "310104000000001", gmsfhm=None), source=HOUSEHOLDS)
    matching.propose()
    (row,) = queue()
    monkeypatch.setattr(matching_attachment, "completed", lambda source, mapping, raw, digests, attached: raw)
    with pytest.raises(FatalError) as refused:
        matching_decisions.accept(row["entry"], 1, actor="tester")
    assert refused.value.code == "attach-unmappable"
    assert scalar("SELECT count(*) FROM match_attachment") == 0 and scalar("SELECT count(*) FROM decision") == 0
    assert [one["entry"] for one in queue()] == [row["entry"]]


def test_unknown_and_busy(store: sa.Engine) -> None:
    with pytest.raises(UsageError) as unknown:
        matching_decisions.accept(99, 1, actor="tester")
    assert unknown.value.code == "match-unknown"
    with database.engine().connect() as connection:
        connection.execute(sa.text("SELECT pg_advisory_lock(hashtextextended('yici-matching', 0))"))
        with pytest.raises(RetriableError) as busy:
            matching.propose()
    assert busy.value.code == "matching-busy"
