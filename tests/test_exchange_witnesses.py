"""Kind ``ledger.witness`` between two real hubs: what one cannot see in its own store, the other knows."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.errors import FatalError
from hub.exchange import caller, checkpoints, kinds, ledger, ledger_verify, witnesses
from hub.exchange.service import Context
from hub.home import Home
from tests import ledgers
from tests.exchanging import Hub, two_hubs

Hubs = tuple[Hub, Hub]


@pytest.fixture(scope="module")
def hubs(server_home: Home, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hubs]:
    with two_hubs(server_home, template, tmp_path_factory.mktemp("hubs")) as both, both[1].serving():
        yield both


@pytest.fixture(autouse=True)
def acting(hubs: Hubs, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    """This process is Shanghai's hub."""
    monkeypatch.setattr(checkpoints, "FRESH", 0.0)
    with hubs[0].acting() as engine:
        ledgers.changed(engine, "UPDATE exchange_peer SET failures = 0, rests_until = NULL")
        yield engine


def talked(engine: sa.Engine, times: int = 3) -> None:
    """Questions to Zhejiang, each chained before the next, so that it hears of it."""
    for number in range(times):
        caller.ask("zj", "test.echo", {"n": number})
        ledger.chain(engine)


def heard(zj: Hub) -> dict[int, bytes]:
    query = "SELECT position, chain FROM exchange_checkpoint WHERE hub = 'sh'"
    return {row.position: row.chain for row in zj.rows(query)}


@pytest.mark.slow
def test_every_message_carries_the_end_of_the_chain_and_both_sides_keep_it(hubs: Hubs, acting: sa.Engine) -> None:
    zj = hubs[1]
    talked(acting)
    with acting.connect() as connection:
        own = {row.position: row.chain for row in connection.execute(
            sa.text("SELECT position, chain FROM exchange_checkpoint WHERE hub = 'sh'")
        )}  # fmt: skip
    told = heard(zj)
    assert len(told) >= 2 and told.items() <= own.items()
    deadline = time.monotonic() + 30  # its own chain grows in the background
    while not hubs[0].rows("SELECT FROM exchange_checkpoint WHERE hub = 'zj'"):
        assert time.monotonic() < deadline, zj.log()
        time.sleep(0.5)
        talked(acting, 1)
    theirs = {row.position: row.chain for row in hubs[0].rows("SELECT * FROM exchange_checkpoint WHERE hub = 'zj'")}
    signed = {row.position: row.chain for row in zj.rows("SELECT * FROM exchange_checkpoint WHERE hub = 'zj'")}
    assert theirs.items() <= signed.items()


def test_a_peer_is_asked_what_it_heard(hubs: Hubs, acting: sa.Engine) -> None:
    talked(acting, 2)
    report = ledger_verify.verify()
    assert report.ok, report.shown()
    [told] = report.witnesses
    assert (told.peer, told.why, told.false) == ("zj", None, 0)
    assert told.checkpoints == heard(hubs[1])
    asked = hubs[0].rows("SELECT * FROM exchange_record WHERE kind = 'ledger.witness'")[-1]
    assert (asked.direction, asked.outcome) == ("asked", "ok")
    [answered] = hubs[1].rows("SELECT * FROM exchange_record WHERE message = :id", id=asked.message)
    assert json.loads(answered.detail) == {"checkpoints": len(told.checkpoints)}


def test_a_ledger_written_anew_and_signed_again_is_found_and_the_peer_notes_it(hubs: Hubs, acting: sa.Engine) -> None:
    """By who has the key: the store itself tells nothing of it."""
    talked(acting)
    caller.ask("zj", "test.echo", b"{}")  # with the latest end
    tables = ("exchange_record", "exchange_chain", "exchange_checkpoint", "exchange_head", "exchange_pending")
    ledgers.changed(acting, *(f"CREATE TABLE kept_{table} AS TABLE {table}" for table in tables))
    ledgers.changed(
        acting,
        """UPDATE exchange_record SET outcome = 'internal' WHERE id =
        (SELECT record FROM exchange_chain ORDER BY position DESC OFFSET 2 LIMIT 1)""",
    )
    ledgers.written_anew(acting)
    assert ledger_verify.verify(ask=()).ok
    report = ledger_verify.verify()
    [difference] = report.differences
    assert difference.code == "chain-witness-differs" and difference.keys[0].startswith("zj: positions ")
    noted = "SELECT outcome FROM exchange_record WHERE direction = 'noted'"
    assert hubs[1].rows(noted) == [], "the question itself tells nothing of the chain"
    caller.ask("zj", "test.echo", {})
    assert [row.outcome for row in hubs[1].rows(noted)] == ["checkpoint-contradicts"]
    ledgers.changed(acting, *(f"DELETE FROM {table}" for table in tables))
    ledgers.changed(acting, *(f"INSERT INTO {table} TABLE kept_{table}; DROP TABLE kept_{table}" for table in tables))
    assert ledger_verify.verify().ok


def test_what_the_question_itself_brought_is_no_witness(hubs: Hubs, acting: sa.Engine) -> None:
    """The end is cut back to where this hub signed, and the peer's memory emptied: the peer says nothing that counts."""
    zj = hubs[1]
    talked(acting, 4)
    tables = ledgers.TABLES
    ledgers.changed(acting, *(f"CREATE TABLE kept_{table} AS TABLE {table}" for table in tables))
    with zj.acting() as engine:
        ledgers.changed(engine, "CREATE TABLE kept_checkpoint AS TABLE exchange_checkpoint",
                        "DELETE FROM exchange_checkpoint WHERE hub = 'sh'")  # fmt: skip
    ledgers.changed(
        acting,
        """DELETE FROM exchange_checkpoint WHERE hub = 'sh' AND position > (
          SELECT position FROM exchange_checkpoint WHERE hub = 'sh' ORDER BY position DESC OFFSET 1 LIMIT 1)""",
        """DELETE FROM exchange_record WHERE id NOT IN (SELECT record FROM exchange_chain WHERE position <= (
          SELECT max(position) FROM exchange_checkpoint WHERE hub = 'sh'))""",
        "DELETE FROM exchange_pending",
        "DELETE FROM exchange_chain WHERE position > (SELECT max(position) FROM exchange_checkpoint WHERE hub = 'sh')",
        """UPDATE exchange_head SET (position, chain) =
          (SELECT position, chain FROM exchange_chain ORDER BY position DESC LIMIT 1)""",
    )
    try:
        report = ledger_verify.verify()
        assert report.ok and not report.complete and report.witnessed is None, report.shown()
        [told] = report.witnesses
        assert told.checkpoints == {} and told.empty and "zj" in (told.message() or "")
        assert told.shown()["code"] == "witness-empty" and told.shown()["asked"]
        talked(acting, 2)  # from now on it is a witness again, of what it hears now
        report = ledger_verify.verify()
        assert report.complete and report.witnessed == max(heard(zj))
        assert report.shown()["witnesses"][0]["first"] == min(heard(zj))
    finally:
        ledgers.changed(acting, *(f"DELETE FROM {table}" for table in tables))
        ledgers.changed(
            acting, *(f"INSERT INTO {table} TABLE kept_{table}; DROP TABLE kept_{table}" for table in tables)
        )
        with zj.acting() as engine:
            ledgers.changed(engine, "DELETE FROM exchange_checkpoint",
                            "INSERT INTO exchange_checkpoint TABLE kept_checkpoint; DROP TABLE kept_checkpoint")  # fmt: skip


def test_a_peer_that_was_told_nothing_yet_can_know_nothing(hubs: Hubs, acting: sa.Engine) -> None:
    with acting.begin() as connection:
        assert witnesses.told_before(connection, "zj") and not witnesses.told_before(connection, "js")
    report = ledger_verify.verify()
    asked = hubs[0].rows("SELECT request FROM exchange_record WHERE kind = 'ledger.witness' ORDER BY id DESC LIMIT 1")
    assert report.complete and not witnesses._carries_head(asked[0].request)


def test_a_peer_that_is_away_is_said_and_changes_nothing(hubs: Hubs, acting: sa.Engine) -> None:
    zj = hubs[1]
    zj.stop()
    try:
        ledgers.changed(acting, "UPDATE exchange_peer SET failures = 99, rests_until = now() + interval '1 minute'")
        report = ledger_verify.verify()
        assert report.ok
        [told] = report.witnesses
        assert told.why == "partner-resting" and told.sentence and told.checkpoints == {}
    finally:
        zj.start()


def test_pages(hubs: Hubs, acting: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it comes, page by page; what a peer makes up is counted and ends it."""
    talked(acting, 4)
    monkeypatch.setattr(witnesses, "PAGE", 2)
    zj, asked = hubs[1], []
    whole = heard(zj)
    forged: list[dict[str, Any]] = []

    def ask(peer: str, kind: str, body: dict[str, Any], **more: Any) -> Any:
        asked.append(body["after"])
        with zj.acting() as engine, engine.connect() as connection:
            data = json.dumps(body).encode()
            now = dt.datetime.now(dt.UTC)
            context = Context(connection, zj.peer("sh"), None, data, None, now, now)  # type: ignore[arg-type]
            answer = kinds.register()[kind].handler(context)
        page = json.loads(answer.body)
        page["checkpoints"] += forged
        return SimpleNamespace(body=json.dumps(page).encode())

    monkeypatch.setattr(caller, "ask", ask)
    assert len(whole) > 4
    assert witnesses.ask("zj").checkpoints == whole
    assert len(asked) == -(-len(whole) // 2) and asked == sorted(set(asked))
    later = sorted(whole)[2]
    assert witnesses.ask("zj", later).checkpoints == {
        position: chain for position, chain in whole.items() if position > later
    }
    position = max(whole) + 1
    for lie in (
        checkpoints.made("sh", position, bytes(32), dt.datetime.now(dt.UTC), zj.key()).told(),  # another's key
        {**checkpoints.made("sh", position, bytes(32), dt.datetime.now(dt.UTC), hubs[0].key()).told(), "position": 1},
        {"position": 1, "chain": "", "at": "", "signature": "a.b.c"},
        {"position": "x"},
    ):
        forged[:] = [lie]
        asked.clear()
        told = witnesses.ask("zj")
        assert told.false == 1 and len(asked) == 1 and told.checkpoints.items() <= whole.items()


def test_what_is_no_question(hubs: Hubs) -> None:
    for body in ({"after": "x"}, {"after": None}, []):
        with pytest.raises(FatalError) as refused:
            caller.ask("zj", "ledger.witness", json.dumps(body).encode())
        assert refused.value.values["code"] == "message-body"
    plain, later = (
        json.loads(caller.ask("zj", "ledger.witness", {"after": 0, **more}).body) for more in ({}, {"later": 1})
    )
    assert later["checkpoints"][: len(plain["checkpoints"])] == plain["checkpoints"], "a member of a later version"
