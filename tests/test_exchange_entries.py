"""hub/exchange/entries.py: a record is what was given, its digest the same here and in SQL."""

from __future__ import annotations

import json
import uuid

import pytest
import sqlalchemy as sa

from hub.exchange import entries
from tests import examplemessages, ledgers

SEALED = examplemessages.message(1, {}, examplemessages.SHANGHAI, kind="peer.check").sealed


def kept(store: sa.Engine, named: uuid.UUID) -> sa.Row:  # type: ignore[type-arg]
    query = f"SELECT {entries.columns('r')}, {entries.digest('r')} AS digest FROM exchange_record AS r WHERE r.id = :id"
    with store.connect() as connection:
        return connection.execute(sa.text(query), {"id": named}).one()


@pytest.mark.parametrize(("peer", "detail", "asked", "reply"), [
    ("zj", {}, None, None),
    ("zj", {"fields": ["姓名", "a:b\n"], "n": 1.50, "nul": "\x00"}, SEALED, None),
    ("", {"purpose": "一件事"}, None, SEALED),
    ("浙江", {"at": "5:zj\n"}, SEALED, SEALED),
])  # fmt: skip
def test_the_digest_is_the_same_here_and_in_the_store(
    store: sa.Engine, peer: str, detail: dict[str, object], asked: str | None, reply: str | None
) -> None:
    message = uuid.uuid4() if reply else None
    with store.begin() as connection:
        named = entries.record(
            connection, peer=peer, direction="asked", kind="index.page", outcome="ok", message=message,
            agreement=f"{uuid.uuid4()}/1" if asked else None, detail=detail, request=asked, reply=reply,
        )  # fmt: skip
        connection.execute(sa.text("SET LOCAL TIME ZONE 'Asia/Shanghai'"))
        connection.execute(sa.text("SET LOCAL DateStyle = 'German'"))
        query = sa.text(f"SELECT {entries.digest('r')} FROM exchange_record AS r WHERE r.id = :id")
        elsewhere = connection.scalar(query, {"id": named})
    row = kept(store, named)
    assert row.digest == entries.digest_of(row._mapping) == elsewhere
    assert (row.peer, json.loads(row.detail), row.request, row.reply) == (peer, detail, asked, reply)
    assert (row.id, row.message) == (str(named), str(message) if message else None)


@pytest.mark.parametrize("said", [
    {"case": "of 11010519491231002X"}, {"purpose": "call 13800138000"}, {"type": "text/13800138000"},
    {"sender": "11010519491231002x"}, {"receiver": "13800138000"}, {"status": "of-13800138000"},
])  # fmt: skip
def test_an_envelope_that_names_somebody_is_not_kept(store: sa.Engine, said: dict[str, str]) -> None:
    sealed = examplemessages.message(1, {}, examplemessages.SHANGHAI, **{"kind": "peer.check", **said}).sealed
    free = f"{SEALED[:-86]}{'of-13800138000-':A<86}"  # where a signature that holds would stand
    for text in (sealed, free, "e.y.J", "", "a.b.c"):
        with store.begin() as connection:
            named = entries.record(
                connection, peer="zj", direction="asked", kind="peer.check", outcome="ok", request=text, reply=text
            )
        row = kept(store, named)
        assert (row.request, row.reply) == (None, None), text


def test_no_field_passes_for_another() -> None:
    whole = dict.fromkeys(entries.FIELDS, "x") | {"id": "i" * 36, "recorded_at": "r" * 27, "message": "m" * 36}
    digests = {entries.digest_of(whole)}
    for name in entries.FIELDS:
        for other in (None, "", str(whole[name]) + "\n", "1:x"):
            digests.add(entries.digest_of({**whole, name: other}))
    digests.add(entries.digest_of({**whole, "request": "x\n1:x", "reply": None}))
    assert len(digests) == 2 + 4 * len(entries.FIELDS)


def test_what_a_stranger_says_is_kept_as_text_that_can_be_shown(store: sa.Engine) -> None:
    with store.begin() as connection:
        named = entries.record(
            connection, peer="\x1b[31mzj\x00\ud800" + "x" * 300, direction="answered", kind="a\nb", outcome="message-malformed",
            request="two\nlines", reply="\x00",
        )  # fmt: skip
    row = kept(store, named)
    assert row.peer.startswith("\ufffd[31mzj\ufffd\ufffdxxx") and len(row.peer) == entries.LONGEST
    assert (row.kind, row.request, row.reply) == ("a\ufffdb", None, None)
    with pytest.raises(ValueError, match="sideways"), store.begin() as connection:
        entries.record(connection, peer="zj", direction="sideways", kind="a.b", outcome="ok")


def test_a_record_goes_and_comes_with_its_transaction(store: sa.Engine) -> None:
    with store.connect() as connection:
        entries.record(connection, peer="zj", direction="asked", kind="a.b", outcome="ok")
        connection.rollback()
    ledgers.plain(store, 1)
    with store.connect() as connection:
        counts = connection.execute(
            sa.text("SELECT (SELECT count(*) FROM exchange_record), (SELECT count(*) FROM exchange_pending)")
        )
        assert counts.one() == (1, 1)
