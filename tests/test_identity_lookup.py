"""A lookup by one number finds what is held under another of the same subject, and says through which rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from hub import answers, cli, identity_decisions, identity_lookup, records
from tests import linked, stored
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
