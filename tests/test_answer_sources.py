"""What answers were decided under is kept once, held to its digest, and stays as long as it is used."""

from __future__ import annotations

import datetime as dt
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from connectors.errors import UsageError
from hub import agreements, answer_sources, answers, evidence, notices, records, sketches
from hub.answers import Question
from tests import stored
from tests.serving import LICENCE, filled_hub

FIELDS = {"business-licence": ["status"]}


@pytest.fixture
def licence(store: sa.Engine) -> str:
    stored.source(store, "sh-amr-enterprises", "business-licence")
    return stored.holding(store, "sh-amr-enterprises", "business-licence", ("holder", "cn.uscc", stored.LICENCE_CODE))


def ask(engine: sa.Engine, **more: Any) -> str:
    question = Question(("demo-food-permit",), LICENCE, "hall-1", "handle", **more)
    return str(answers.ask(engine, question)[0]["answer"])


def under(engine: sa.Engine, answer: str) -> bytes:
    """Digest of the sources that ``answer`` was decided under."""
    with engine.connect() as connection:
        return bytes.fromhex(orjson.loads(records.found(connection, answer).inputs)["sources"])


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM answer_sources",
        "UPDATE answer_sources SET sources = '[]'",
        # An hour earlier: nothing else in the answer would come out otherwise.
        """UPDATE answer_sources SET sources = jsonb_set(sources::jsonb, '{0,3}',
             to_jsonb(((sources::jsonb -> 0 ->> 3)::timestamptz - interval '1 hour')::text))::text""",
        """UPDATE answer SET inputs = replace(inputs, '"facts":{}', '"facts":{"legal_representative_in_person":true}')""",
    ],
    ids=["gone", "emptied", "an hour", "inputs"],
)
def test_an_answer_whose_sources_or_inputs_are_not_what_was_kept_proves_nothing(
    store: sa.Engine, licence: str, harm: str
) -> None:
    agreements.add("hall-1", None, "Hall", ["demo-food-permit"], ["handle"], fields=FIELDS)
    answer = ask(store)
    before = records.explain(store, answer)
    assert (before["replay"], list(evidence.opened(before["trace"]))) == ("same", [licence])
    assert before["trace"]["sources"] and notices.notice(store, answer, "en")
    with store.begin() as connection:
        assert connection.exec_driver_sql(harm).rowcount == 1
    after = records.explain(store, answer)
    assert (after["replay"], after["trace"]["requirements"]) == ("differs", [])
    assert after["trace"]["sources"] == (before["trace"]["sources"] if "inputs" in harm else [])
    with pytest.raises(UsageError) as caught:
        notices.notice(store, answer, "en")
    assert caught.value.code == "notice-impossible"
    with pytest.raises(UsageError) as caught:
        evidence.fetch(store, "hall-1", licence, answer)
    assert caught.value.code == "grant-not-for-holding"
    with store.begin() as connection:
        connection.execute(sa.text("DELETE FROM answer_sources"))
    assert records.explain(store, ask(store))["replay"] == "same", "the next one keeps them again"


def aged(connection: sa.Connection, digest: bytes, days: int) -> None:
    connection.execute(
        sa.text("UPDATE answer_sources SET recorded_at = now() - make_interval(days => :days) WHERE digest = :digest"),
        {"digest": digest, "days": days},
    )


@pytest.mark.parametrize("way", ["alone", "served"])
def test_what_is_in_use_stays_whatever_was_written_later(
    store: sa.Engine, licence: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No source ran for 20 days; five days ago somebody asked about the past, which has other sources."""
    with filled_hub(store) as hub:
        hub.sign_in()

        def asked() -> str:
            return str(hub.lookup().json()["answers"][0]["answer"]) if way == "served" else ask(store)

        used = under(store, asked())
        past = under(store, ask(store, as_of=dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)))
        with store.begin() as connection:
            if past == used:  # of the same minute: the sources of then are made up
                past = b"past" * 4
                connection.execute(
                    sa.text("INSERT INTO answer_sources (digest, sources) VALUES (:digest, '[]')"), {"digest": past}
                )
            aged(connection, used, 20)
            aged(connection, past, 5)
        monkeypatch.setattr(sketches.Moment, "holds", lambda *_: False)  # midnight has passed
        given = asked()
        assert under(store, given) == used
        with store.begin() as connection:
            answer_sources.forget(connection, dt.datetime.now(dt.UTC).date())
        assert records.explain(store, given)["replay"] == "same"


def test_sources_go_when_no_answer_needs_them(store: sa.Engine, licence: str) -> None:
    used, today = under(store, ask(store)), dt.datetime.now(dt.UTC).date()
    left = sa.text("SELECT digest FROM answer_sources ORDER BY recorded_at")
    with store.begin() as connection:
        for number, days in ((b"1", 40), (b"2", 30), (b"3", 2)):
            connection.execute(
                sa.text("INSERT INTO answer_sources (digest, sources) VALUES (:digest, '[]')"), {"digest": number * 16}
            )
            aged(connection, number * 16, days)
        answer_sources.forget(connection, today)
        assert [bytes(one) for one in connection.scalars(left)] == [b"2" * 16, b"3" * 16, used]
