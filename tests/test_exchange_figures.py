"""hub/exchange/figures.py: what Prometheus is told of the exchange."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa

from hub import watching
from hub.api.metrics import Metrics
from hub.exchange import entries, figures, ledger
from hub.exchange.figures import Exchange
from tests import ledgers, sharing, stored
from tests.test_watching import samples

Labels = dict[str, str]


@pytest.fixture(autouse=True)
def each_scrape_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SECONDS", 0.0)


def recorded(engine: sa.Engine, *told: tuple[str, str, str, str], detail: Any = None) -> None:
    """Records (peer, direction, kind, outcome), with their places in the chain."""
    for peer, direction, kind, outcome in told:
        with engine.begin() as connection:
            entries.record(
                connection, peer=peer, direction=direction, kind=kind, outcome=outcome, detail=detail or {"fields": 1}
            )
    ledger.chain(engine)


def known(engine: sa.Engine, name: str = "zj", **members: Any) -> None:
    """A peer, as far as figures see one."""
    columns = ["name", "title", "region", "addresses", "keys", "certificates", "card_at", *members]
    values = {"name": name, "title": name, "region": "330000", "addresses": [], **members}
    said = ", ".join(
        f":{column}" if column in values else {"card_at": "now()"}.get(column, "'[]'") for column in columns
    )
    with engine.begin() as connection:
        connection.execute(sa.text(f"INSERT INTO exchange_peer ({', '.join(columns)}) VALUES ({said})"), values)


def of(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """Values of one metric by the values of its labels, these in the order of their names."""
    return {
        tuple(value for _, value in labels): figure
        for (found, labels), figure in samples(metrics.text().decode()).items()
        if found == name
    }


def test_messages_and_refusals_are_counted_once(store: sa.Engine) -> None:
    known(store)
    metrics = Metrics()
    assert of(metrics, "yici_exchange_messages_total") == {}
    recorded(
        store,
        ("zj", "asked", "evidence.request", "ok"),
        ("zj", "asked", "evidence.request", "ok"),
        ("zj", "asked", "evidence.request", "certificate-not-in-force"),
        ("zj", "answered", "index.page", "agreement-suspended"),
        ("zj", "answered", "share.query", "ok"),
    )
    wanted = {
        ("asked", "evidence.request", "ok", "zj"): 2,
        ("asked", "evidence.request", "certificate-not-in-force", "zj"): 1,
        ("answered", "index.page", "agreement-suspended", "zj"): 1,
        ("answered", "share.query", "ok", "zj"): 1,
    }
    assert of(metrics, "yici_exchange_messages_total") == wanted
    assert of(metrics, "yici_exchange_messages_total") == wanted, "another scrape counts nothing again"
    assert of(metrics, "yici_exchange_refusals_total") == {("asked", "zj"): 1, ("answered", "zj"): 1}
    recorded(store, ("zj", "asked", "evidence.request", "ok"))
    assert of(metrics, "yici_exchange_messages_total") == wanted | {("asked", "evidence.request", "ok", "zj"): 3}
    assert of(Metrics(), "yici_exchange_messages_total")[("asked", "evidence.request", "ok", "zj")] == 3


def test_what_waits_for_its_place_is_counted_when_it_has_one(store: sa.Engine) -> None:
    known(store)
    metrics = Metrics()
    ledgers.plain(store, 3)
    assert of(metrics, "yici_exchange_messages_total") == {} and of(metrics, "yici_ledger_pending_records") == {(): 3}
    ledger.chain(store)
    assert of(metrics, "yici_exchange_messages_total") == {("asked", ledgers.KIND, "ok", "zj"): 3}


def test_nothing_that_somebody_made_up_is_a_label(store: sa.Engine) -> None:
    known(store)
    number = "31010119900101" + "1234"
    recorded(
        store,
        (number, "answered", number, "peer-unknown"),
        ("certificate " + "0" * 64, "answered", "-", "message-malformed"),
        ("zj", "answered", f"x{number}", "kind-unknown"),
        ("zj", "asked", "evidence.request", f"invented-{number}"),
        detail={"known": number},
    )
    metrics = Metrics()
    assert of(metrics, "yici_exchange_messages_total") == {
        ("answered", "-", "peer-unknown", "-"): 1,
        ("answered", "-", "message-malformed", "-"): 1,
        ("answered", "-", "kind-unknown", "zj"): 1,
        ("asked", "evidence.request", "-", "zj"): 1,
    }
    assert number not in metrics.text().decode()


def test_a_long_ledger_is_counted_piece_by_piece(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "PIECE", 10)
    known(store)
    recorded(store, *[("zj", "asked", "index.page", "ok")] * 15)
    found = Exchange()

    def counted() -> float:
        with store.connect() as connection:
            messages = found.read(connection)[0]
        return sum(sample.value for sample in messages.samples)

    assert counted() == 10, "those before are long ago"
    recorded(store, *[("zj", "asked", "index.page", "ok")] * 25)
    assert [counted() for _ in range(4)] == [20, 30, 35, 35]
    ledgers.changed(store, *(f"DELETE FROM {table}" for table in ("exchange_chain", "exchange_record")))
    ledgers.changed(store, "UPDATE exchange_head SET position = 0, chain = decode(repeat('00', 32), 'hex')")
    assert counted() == 0, "another ledger is counted anew"


def test_how_old_what_was_read_is(store: sa.Engine) -> None:
    now = dt.datetime.now(dt.UTC)
    with sharing.as_zj():
        index = sharing.agree(
            store, modes=["index"], valid_from=(now - dt.timedelta(hours=5)).strftime("%Y-%m-%dT%H:00Z")
        )
        whole = sharing.agree(store, modes=["share"])
        gone = sharing.agree(store, modes=["index"])
        sharing.set_state(store, gone, state="suspended")
        given = sharing.agree(store, modes=["index", "evidence"])
    sharing.set_state(store, given, provider=False)
    metrics = Metrics()
    age = of(metrics, "yici_index_read_age_seconds")
    assert 5 * 3600 - 60 < age[(str(index), "sh", "provider")] < 6 * 3600 + 60, "never read: since it began"
    assert not {str(whole), str(gone)} & {agreement for agreement, _, _ in age}
    stored.source(store, "zj-hub-index", "index-entry", succeeded=now - dt.timedelta(minutes=7))
    ledgers.changed(
        store,
        f"""UPDATE source SET cursor = '{{"agreement": "{given}"}}' WHERE name = 'zj-hub-index'""",
        f"""INSERT INTO index_position (agreement, epoch, position, begun_at)
        VALUES ('{index}', 'e', 3, now() - interval '2 hours')""",
    )
    age = of(metrics, "yici_index_read_age_seconds")
    assert 2 * 3600 <= age[(str(index), "sh", "provider")] < 2 * 3600 + 60
    assert 7 * 60 <= age[(str(given), "sh", "receiver")] < 8 * 60


def test_peers_that_rest(store: sa.Engine) -> None:
    now = dt.datetime.now(dt.UTC)
    known(store, "zj", failures=4, rests_until=now + dt.timedelta(minutes=1))
    known(store, "js", failures=3, rests_until=now - dt.timedelta(minutes=1), answered_at=now)
    known(store, "ah", removed_at=now)
    metrics = Metrics()
    assert of(metrics, "yici_peer_resting") == {("zj",): 1, ("js",): 0}
    assert of(metrics, "yici_peer_failures") == {("zj",): 4, ("js",): 3}
    assert set(of(metrics, "yici_peer_answered_timestamp_seconds")) == {("js",)}
