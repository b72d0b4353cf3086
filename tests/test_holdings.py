"""hub/holdings.py: what the store knew at a time, down to what its certificates said."""

from __future__ import annotations

import datetime as dt
import json

import sqlalchemy as sa

from hub import answers, records
from hub.answers import Question
from tests import stored

PERSON = f"cn.ric:{stored.RESIDENT}"


def test_what_a_certificate_said_counts_in_the_past_too(store: sa.Engine) -> None:
    long_ago, since = stored.NOW - dt.timedelta(days=6), stored.NOW - dt.timedelta(days=5)
    stored.source(store, "sh-mnr-titles", "real-estate-title")
    key = stored.holding(
        store, "sh-mnr-titles", "real-estate-title", ("owner_person", "cn.ric", stored.RESIDENT), recorded_at=long_ago
    )
    with store.begin() as connection:
        document = connection.scalar(
            sa.text("SELECT document FROM mapped_row WHERE holding = decode(:key, 'hex')"), {"key": key}
        )
        said = json.dumps({**json.loads(document), "attributes": {"state": "现势"}})
        connection.execute(
            sa.text("UPDATE mapped_row SET document = :said WHERE holding = decode(:key, 'hex')"),
            {"said": said, "key": key},
        )
    for as_of in (since, None):
        question = Question(("demo-home-transfer",), PERSON, "test", "test", as_of=as_of)
        [answer] = answers.ask(store, question)
        title = next(entry for entry in answer["requirements"] if entry["requirement"] == "title")
        assert (as_of, title["disposition"]) == (as_of, "held")
        assert records.explain(store, answer["answer"])["replay"] == "same"
