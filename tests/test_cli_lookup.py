"""``yici lookup`` and ``yici explain`` as a user runs them."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
import sqlalchemy as sa

from hub import cli
from tests import stored

LICENCE = f"cn.uscc:{stored.LICENCE_CODE}"


def yici(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hub", *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def filled(store: sa.Engine) -> sa.Engine:
    stored.source(store, "sh-amr-enterprises", "business-licence")
    stored.holding(
        store,
        "sh-amr-enterprises",
        "business-licence",
        ("holder", "cn.uscc", stored.LICENCE_CODE),
        file="2019-上海.csv",
    )
    return store


def test_one_item_prints_one_object_and_explains_itself(filled: sa.Engine) -> None:
    done = yici("lookup", "--item", "demo-food-permit", "--id", LICENCE, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["item"] == "demo-food-permit"
    assert list(answer) == ["answer", "item", "item_name", "asked_at", "as_of", "requirements", "must_submit"]
    first = answer["requirements"][0]
    assert (first["materials"], first["disposition"]) == (["business-licence"], "held")
    assert first["provenance"] == [{"source": "sh-amr-enterprises", "file": "2019-上海.csv", "row": 2}]

    shown = yici("explain", answer["answer"])
    assert shown.returncode == 0
    assert "authorisation → undetermined" in shown.stdout
    assert "open: legal_representative_in_person" in shown.stdout
    trace = json.loads(yici("explain", answer["answer"], "--json").stdout)
    assert trace["body"] == answer
    assert stored.LICENCE_CODE not in shown.stdout + json.dumps(trace)


def test_several_items_facts_roles_and_standard_input(filled: sa.Engine) -> None:
    done = yici(
        "lookup", "--item", "demo-food-permit", "--item", "demo-publication-retail", "--id", "-", "--json", "--lang", "zh",
        "--fact", "legal_representative_in_person=true", "--role", f"legal_representative=cn.ric:{stored.RESIDENT}",
        stdin=LICENCE + "\n",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    permit, retail = json.loads(done.stdout)
    found = {entry["requirement"]: entry for entry in permit["requirements"]}
    assert found["authorisation"]["disposition"] == "not_required"
    assert found["legal-representative-identity"]["disposition"] == "submit"
    assert retail["must_submit"] == []
    assert permit["item_name"].startswith("食品经营许可")
    more = yici("lookup", "--id", LICENCE, "--json", "--item", "demo-food-permit", "demo-publication-retail")
    assert [answer["item"] for answer in json.loads(more.stdout)] == ["demo-food-permit", "demo-publication-retail"]


def test_people_read_a_table(filled: sa.Engine) -> None:
    done = yici("lookup", "--item", "demo-food-permit", "--id", LICENCE, "--lang", "zh")
    assert done.returncode == 0
    for word in ("已有", "需提交", "仍需提交", "授权委托书"[:2]):
        assert word in done.stdout
    assert stored.LICENCE_CODE not in done.stdout


WRONG = [
    (("--item", "demo-none", "--id", LICENCE), "demo-none"),
    (("--item", "demo-none", "--id", LICENCE, "--fact", "a=true"), "demo-none"),
    (("--item", "demo-food-permit", "--id", "cn.uscc:91310117MA1J3AJ43X"), "check-digit"),
    (("--item", "demo-food-permit", "--id", "-"), "no identifier"),
    (("--item", "demo-food-permit", "--id", LICENCE, "--fact", "legal_representative_in_person=maybe"), "boolean"),
    (("--item", "demo-food-permit", "--id", LICENCE, "--fact", "weather=wet"), "legal_representative_in_person"),
    (("--item", "demo-food-permit", "--id", LICENCE, "--fact", "true"), "NAME=VALUE"),
    (("--item", "demo-food-permit", "--id", LICENCE, "--role", "cousin=passport:E12345678"), "cousin"),
    (("--item", "demo-food-permit", "--id", LICENCE, "--as-of", "2999-01-01T00:00:00+08:00"), "still to come"),
    (("--item", "demo-food-permit", "--id", LICENCE, "--as-of", "yesterday"), "ISO 8601"),
    (("--item", "demo-food-permit", "--id", LICENCE, "--lang", "fr"), "zh or en"),
    (("--id", LICENCE), "--item"),
]


def test_wrong_words_are_usage_errors(
    store: sa.Engine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    for arguments, word in WRONG:
        with subtests.test(msg=word):
            monkeypatch.setattr("sys.argv", ["yici", "lookup", *arguments, "--json"])
            monkeypatch.setattr("sys.stdin", io.StringIO())
            with pytest.raises(SystemExit) as caught:
                cli.main()
            out, err = capfd.readouterr()
            assert caught.value.code == 2
            assert out == "" or word in json.loads(out)["error"]["message"] + json.loads(out)["error"]["advice"]
            assert word in err
            assert "91310117MA1J3AJ43" not in err + out
            assert "E12345678" not in err + out


def test_an_unknown_answer_is_a_usage_error(store: sa.Engine) -> None:
    done = yici("explain", "nothing")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
