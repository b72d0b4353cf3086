"""What many answers say is kept once, and comes back whole for each of them."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from connectors.errors import UsageError
from hub import answer_texts, answers, catalogue, evidence, notices, records, sketches
from hub.answer_texts import Kept
from hub.answers import Question
from tests import stored

LICENCE = f"cn.uscc:{stored.LICENCE_CODE}"
OTHER = "cn.uscc:91440300708461136T"


def shape(material: str, valid_to: str | None = None) -> list[Any]:
    return [material, "s", "in_force", None, valid_to, None, False, None, None, None, None, [], ["holder"]]


KNOWN = {
    "applicant": [
        ["aa", shape("a", "2030-01-31"), [["s", "f", 2], ["s", "f", 1]]],
        ["bb", shape("b"), []],
        ["cc", shape("a"), [["s", 'g"', 9]]],
    ],
    "spouse": [["aa", shape("a", "2030-01-31"), []]],
}


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ((b'{"x":"plain"}',), '{"x":"plain"}'),
        ((b'{"x":"', 0, b'","y":"', 1, b'"}'), '{"x":"aa","y":"cc"}'),
        ((b'{"x":"until ', "0", b'."}'), '{"x":"until 2030-01-31."}'),
        ((b'{"x":', (1, 0), b"}"), '{"x":[{"source":"s","file":"f","row":1},{"source":"s","file":"f","row":2},'
                                  '{"source":"s","file":"g\\"","row":9}]}'),
        ((b'{"x":', (), b',"y":"', 2, b'"}'), '{"x":[],"y":"aa"}'),
        ((b'{"x":"\\u0001kzzz\\u0001","y":"', 0, b'"}'), '{"x":"\\u0001kzzz\\u0001","y":"aa"}'),
        ((b'{"x":"\\u0001kapplicant/a/0\\u0001 \\u0001"}',), '{"x":"\\u0001kapplicant/a/0\\u0001 \\u0001"}'),
        ((b'{"x":["\\u0001rapplicant/a/0\\u0001"]}',), '{"x":["\\u0001rapplicant/a/0\\u0001"]}'),
        ((b'{"x":"\\\\u0001kabc', 0, b'"}'), '{"x":"\\\\u0001kabcaa"}'),
        ((b'{"x":"\\u0001u\\u0001', 0, b'"}'), '{"x":"\\u0001u\\u0001aa"}'),
        ((b'{"x":"\\\\u0001kapplicant/a/0\\\\u0001"}',), '{"x":"\\\\u0001kapplicant/a/0\\\\u0001"}'),
    ],
)  # fmt: skip
def test_a_text_filled_is_what_was_said(parts: tuple[Any, ...], whole: str) -> None:
    names = [answer_texts.name(*of) for of in (("applicant", "a", 0), ("applicant", "a", 1), ("spouse", "a", 0))]
    text = answer_texts.marked(parts, names)
    json.loads(text)  # also unfilled: the ledger reads it as it is
    assert answer_texts.filled(text.decode(), KNOWN).decode() == whole


@pytest.mark.parametrize(
    "text", ['["\\u0001kzzz\\u0001"]', '["\\u0001dapplicant/b/7\\u0001"]', '["\\u0001rzz,y\\u0001"]']
)
def test_a_mark_that_names_nothing_stays_as_it_stands(text: str) -> None:
    assert answer_texts.filled(text, KNOWN).decode() == text


def ask(engine: sa.Engine, applicant: str = LICENCE, **more: Any) -> dict[str, Any]:
    return answers.ask(engine, Question(("demo-food-permit",), applicant, "test", "handle", **more))[0]


@pytest.fixture
def licences(store: sa.Engine) -> list[str]:
    stored.source(store, "sh-amr-enterprises", "business-licence")
    return [
        stored.holding(store, "sh-amr-enterprises", "business-licence", ("holder", "cn.uscc", code), row=row)
        for code, row in ((stored.LICENCE_CODE, 7), (OTHER.split(":")[1], 8))
    ]


def test_answers_alike_share_their_texts(store: sa.Engine, licences: list[str]) -> None:
    given = [ask(store), ask(store, OTHER), ask(store), ask(store, language="zh")]
    with store.connect() as connection:
        rows = connection.execute(sa.text("SELECT rules, said, trace FROM answer ORDER BY id")).all()
        texts = connection.execute(sa.text("SELECT digest, text FROM answer_text")).all()
    assert {row.trace for row in rows} == {None}
    assert len({row.rules for row in rows}) == 1 and len({row.said for row in rows[:3]}) == 1
    assert rows[3].said != rows[0].said, "the words are those of a language"
    assert len(texts) == 3
    for digest, text in texts:
        assert Kept(text.encode()).digest == digest
        assert not any(secret in text for secret in (*licences, stored.LICENCE_CODE, "2019.csv"))
    for answer, licence in zip(given, (licences[0], licences[1], licences[0], licences[0]), strict=True):
        kept = records.explain(store, answer["answer"])
        assert (kept["replay"], kept["body"]) == ("same", answer)
        [use] = kept["trace"]["requirements"][0]["options"][0]
        assert [one["holding"] for one in use["holdings"]] == [licence]
        said = orjson.dumps(answer["requirements"])
        assert kept["trace"]["said"] == records.said(said, answer["must_submit"])


def test_an_answer_of_before_texts_were_shared_is_read_as_ever(store: sa.Engine, licences: list[str]) -> None:
    answer = ask(store)
    before = records.explain(store, answer["answer"])
    whole = {name: before["trace"][name] for name in ("requirements", "said")}
    with store.begin() as connection:
        connection.execute(
            sa.text("UPDATE answer SET trace = :trace, rules = NULL, said = NULL"),
            {"trace": orjson.dumps(whole).decode()},
        )
        connection.execute(sa.text("TRUNCATE answer_text"))
    assert records.explain(store, answer["answer"]) == before
    assert list(evidence.opened(before["trace"])) == [licences[0]]


def test_an_answer_whose_text_is_gone_proves_nothing(store: sa.Engine, licences: list[str]) -> None:
    answer = ask(store)
    with store.begin() as connection:
        connection.execute(sa.text("TRUNCATE answer_text"))
    kept = records.explain(store, answer["answer"])
    assert kept["replay"] == "differs" and kept["trace"]["requirements"] == [] == list(evidence.opened(kept["trace"]))
    with pytest.raises(UsageError) as caught:
        notices.notice(store, answer["answer"], "en")
    assert caught.value.code == "notice-impossible"


@pytest.mark.parametrize("table", ["rules", "said"])
def test_a_text_that_was_altered_shows(store: sa.Engine, licences: list[str], table: str) -> None:
    answer = ask(store)
    with store.begin() as connection:
        done = connection.execute(
            sa.text(
                "UPDATE answer_text SET text = replace(text, 'held', 'submit')"
                f" WHERE digest = (SELECT {table} FROM answer) AND text LIKE '%held%'"
            )
        )
        assert done.rowcount == 1
    kept = records.explain(store, answer["answer"])
    assert kept["replay"] == "differs"
    assert (kept["trace"]["requirements"], kept["trace"]["said"])[table == "said"] in ([], ""), "as if it were gone"


def test_texts_go_when_no_answer_needs_them(store: sa.Engine, licences: list[str]) -> None:
    ask(store)
    today = dt.datetime.now(dt.UTC).date()
    age = sa.text("UPDATE answer_text SET recorded_at = now() - interval '40 days'")
    count = sa.text("SELECT count(*), count(*) FILTER (WHERE recorded_at > now() - interval '1 hour') FROM answer_text")
    with store.begin() as connection:
        answer_texts.forget(connection, today)
        assert connection.execute(count).one() == (2, 2), "of today"
        connection.execute(age)
    ask(store)  # used again: written again
    with store.begin() as connection:
        assert connection.execute(count).one() == (2, 2)
        answer_texts.forget(connection, today)
        assert connection.execute(count).one() == (2, 2)
        connection.execute(age)
        answer_texts.forget(connection, today)
        assert connection.execute(count).one() == (0, 0)


def test_a_sketch_that_is_made_anew_is_no_other_text(store: sa.Engine, licences: list[str]) -> None:
    """What is kept in memory between answers goes by the number of a sketch, which no other ever has."""
    item = catalogue.published()["demo-food-permit"][0]
    numbers = {sketches.Sketch("held", (), (), (), None, item).number for _ in range(100)}  # type: ignore[arg-type]
    assert len(numbers) == 100
