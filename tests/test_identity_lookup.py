"""A lookup by one number finds what is held under another of the same subject, and says through which rows."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from hub import answers, cli, identity_decisions, identity_lookup, pipeline, records, verify
from tests import linked, residents, stored
from tests.linked import Said

OLD, NEW = "cn.regno:310106000000000", "cn.uscc:91310106012345671D"
ITEM = "demo-food-permit"


@pytest.fixture
def licence(store: sa.Engine) -> str:
    """A licence held under the new number, and the link to the old one."""
    stored.source(store, "sh-amr-enterprises", "business-licence")
    key = stored.holding(store, "sh-amr-enterprises", "business-licence", ("holder", *NEW.split(":")))
    with store.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO landed_file (id, source, digest, name, size) OVERRIDING SYSTEM VALUE VALUES (100, 'links', 'd', 'links.csv', 1)"
            )
        )
        linked.deliver(connection, [Said(OLD, NEW)])
        connection.execute(sa.text("UPDATE mapped_row SET file = 100 WHERE source = 'links'"))
    return key


def ask(engine: sa.Engine, applicant: str) -> dict[str, Any]:
    question = answers.Question((ITEM,), applicant, "test", "test", {"legal_representative_in_person": True})
    (answer,) = answers.ask(engine, question)
    return answer


def of(answer: dict[str, Any], material: str) -> dict[str, Any]:
    return next(entry for entry in answer["requirements"] if material in entry["materials"])


def test_the_old_number_finds_what_the_new_one_holds(store: sa.Engine, licence: str) -> None:
    for number in (OLD, NEW):
        answer = ask(store, number)
        found = of(answer, "business-licence")
        assert found["disposition"] == "held" and [one["holding"] for one in found["holdings"]] == [licence]
        trace = records.explain(store, answer["answer"])["trace"]
        assert trace["identity"] == {"applicant": [{"source": "links", "file": "links.csv", "row": 2}]}
    assert "310106000000000" not in json.dumps(trace)


def test_nobody_linked_leaves_no_trace(store: sa.Engine, licence: str) -> None:
    answer = ask(store, f"cn.uscc:{stored.LICENCE_CODE}")
    assert of(answer, "business-licence")["disposition"] != "held"
    assert "identity" not in records.explain(store, answer["answer"])["trace"]


def test_a_merge_is_named_in_the_trace(store: sa.Engine, licence: str) -> None:
    other = f"cn.uscc:{stored.LICENCE_CODE}"
    with store.begin() as connection:
        done = identity_decisions.merge(connection, [OLD, other], actor="tester")
    answer = ask(store, other)
    assert of(answer, "business-licence")["disposition"] == "held"
    trace = records.explain(store, answer["answer"])["trace"]
    assert {"decision": done["decision"]} in trace["identity"]["applicant"]
    with store.begin() as connection:
        identity_decisions.split(connection, [OLD, other], actor="tester")
    assert of(ask(store, other), "business-licence")["disposition"] != "held"


def test_who_is_contradictory_is_undetermined_until_decided(store: sa.Engine, licence: str) -> None:
    with store.begin() as connection:
        linked.deliver(
            connection, [Said(OLD, NEW, born_on="1970-01-31"), Said(OLD, "cn.orgcode:012345671", born_on="1971-01-31")]
        )
    for number in (OLD, NEW):
        found = of(ask(store, number), "business-licence")
        assert (found["disposition"], found["reason_code"]) == ("undetermined", "identity-contradictory")
        assert "yici identity" in found["next_step"] and "role" not in found["reason"]
    with store.begin() as connection:
        identity_decisions.merge(connection, [OLD, NEW], actor="tester")
    assert of(ask(store, OLD), "business-licence")["disposition"] == "held"


def test_two_who_are_asked_about_may_be_one() -> None:
    one, two, three = b"1" * 16, b"2" * 16, b"3" * 16
    cluster = one.hex()
    found = {"members": [[key.hex(), cluster, "joined"] for key in (one, two, three)], "rows": [], "decisions": []}
    people = identity_lookup.people([one, two], found)
    assert people.of(three) == (one, two) and people.of(b"4" * 16) == (b"4" * 16,)


def test_the_commands(store: sa.Engine, licence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YICI_ACTOR", "tester")
    run = CliRunner()

    def yici(*words: str, stdin: str | None = None) -> Any:
        done = run.invoke(cli.app, ["identity", *words, "--json"], input=stdin, catch_exceptions=False)
        assert done.exit_code == 0
        return json.loads(done.stdout)

    shown = yici("show", "-", stdin=f"{OLD}\n")
    assert shown["state"] == "joined" and len(shown["cluster"]) == 2
    assert [row["file"] for link in shown["links"] for row in link["rows"]] == ["links.csv"]
    parted = yici("split", "-", "--note", "wrong", stdin=f"{OLD}\n{NEW}\n")
    assert len(parted["clusters"]) == 2 and yici("show", OLD)["decisions"][0]["note"] == "wrong"
    keys = [f"key:{key}" for key in shown["cluster"]]
    assert yici("merge", *keys)["ended"] == [parted["decision"]]
    assert yici("show", NEW)["cluster"] == shown["cluster"]
    assert yici("contradictions") == [] and yici("waiting") == []
    for command in (["show", OLD], ["contradictions"], ["waiting"]):
        done = run.invoke(cli.app, ["identity", *command])
        assert done.exit_code == 0 and "310106000000000" not in done.stdout


CARD = "sh-ga-residents"
NUMBER = residents.number(residents.PEOPLE[0][1])


def test_who_is_denied_by_their_own_card_is_undetermined_until_it_is_corrected(
    store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither held nor to be handed in, with what to do next; and as of then what was known then."""
    monkeypatch.setenv("YICI_ACTOR", "tester")

    def deliver(name: str, **said: str) -> dt.datetime:
        pipeline.run(CARD, input=residents.write(tmp_path / name, [residents.row(0, **said), residents.row(1)]))
        return dt.datetime.now(dt.UTC)

    def card(person: int = 0, as_of: dt.datetime | None = None) -> dict[str, Any]:
        number = residents.number(residents.PEOPLE[person][1])
        question = answers.Question(
            ("demo-teacher-qualification",), f"cn.ric:{number}", "test", "test", {}, as_of=as_of
        )
        (answer,) = answers.ask(store, question)
        assert "resident-id-card" not in answer["must_submit"]
        return of(answer, "resident-id-card")

    wrong = deliver("wrong.json", csrq="1956-09-21")
    found = card()
    assert (found["disposition"], found["reason_code"]) == ("undetermined", "identity-contradictory")
    assert "yici identity show" in found["next_step"]
    assert card(1)["disposition"] == "held", "others are as they were"
    run = CliRunner()
    shown = run.invoke(cli.app, ["identity", "show", "-", "--json"], input=f"cn.ric:{NUMBER}\n", catch_exceptions=False)
    (member,) = json.loads(shown.stdout)["members"]
    assert {row["file"] for claim in member["claims"] for row in claim["rows"]} == {"wrong.json"}
    assert run.invoke(cli.app, ["identity", "contradictions"], catch_exceptions=False).exit_code == 0
    table = run.invoke(cli.app, ["identity", "show", "-"], input=f"cn.ric:{NUMBER}\n", catch_exceptions=False)
    assert table.exit_code == 0 and NUMBER not in table.stdout
    right = deliver("right.json", gxsj="2025-02-02T08:00:00+08:00")
    assert card()["disposition"] == "held"
    assert card(as_of=wrong)["disposition"] == "undetermined" and card(as_of=right)["disposition"] == "held"
    deliver("again.json", csrq="1956-09-21", gxsj="2025-02-03T08:00:00+08:00")
    done = run.invoke(cli.app, ["identity", "merge", "-"], input=f"cn.ric:{NUMBER}\n", catch_exceptions=False)
    assert done.exit_code == 0 and card()["disposition"] == "held"
    assert verify.verify(store).differences == ()
