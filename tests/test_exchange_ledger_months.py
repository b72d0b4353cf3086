"""Retention of the ledger: whole months go, never before three years, and what is left is as provable as before."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors.errors import UsageError
from connectors.landing import Landing
from hub import home, partitions, retention
from hub.cli import app
from hub.exchange import entries, keys, ledger, ledger_verify, proofs
from hub.exchange.proofs import verify_proof
from hub.retention import Item, Keep
from tests import ledgers

MARCH, APRIL = dt.date(2021, 3, 1), dt.date(2021, 4, 1)


@pytest.fixture
def hub(store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    """A hub whose ledger goes back to March 2021; a record of that month committed in April."""
    monkeypatch.setenv("YICI_HUB", "sh")
    monkeypatch.setenv("YICI_REGION", "310000")
    with store.begin() as connection:
        ledgers.partner(connection, tmp_path / "zj")

    def at(moment: str, count: int) -> None:
        with ledgers.living(moment):
            ledgers.plain(store, count)
            ledger.chain(store)

    at("2021-03-05T00:00:00Z", 3)
    at("2021-03-20T00:00:00Z", 2)
    with store.connect() as late:
        with ledgers.living("2021-03-31T23:59:59.9Z"):
            entries.record(late, peer="zj", direction="asked", kind="index.page", outcome="ok")
        at("2021-04-01T00:00:01Z", 1)  # position 6
        late.commit()
    at("2021-04-02T00:00:00Z", 2)  # the late one at 7
    ledgers.plain(store, 2)
    ledger.chain(store)  # 11
    yield store


def planned(hub: sa.Engine, keep: Keep = Keep()) -> dict[str, Item]:
    with hub.connect() as connection:
        items = retention.plan(connection, Landing(home.current().landing_url), keep)
    return {item.name: item for item in items if item.kind == "exchange"}


def applied(keep: Keep = Keep()) -> list[str]:
    done = retention.apply(Landing(home.current().landing_url), keep)
    return [item.name for item in done if item.kind == "exchange"]


def until(month: dt.date) -> Keep:
    """Keeps what is younger than ``month``."""
    today = dt.datetime.now(dt.UTC).date()
    return Keep(exchange=(today.year - month.year) * 12 + today.month - month.month - 1)


def rows(hub: sa.Engine, query: str) -> list[Any]:
    with hub.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


POSITIONS = "SELECT position FROM exchange_chain ORDER BY position"


def settled(hub: sa.Engine) -> None:
    with hub.begin() as connection:
        partitions.settle(connection)


def test_the_law_is_the_least(hub: sa.Engine) -> None:
    assert Keep().exchange == Keep(exchange=36).exchange == 36
    with pytest.raises(UsageError) as refused:
        Keep(exchange=35)
    assert refused.value.code == "retention-exchange-short"
    done = CliRunner().invoke(app, ["retention", "apply", "--keep-exchange", "2y"])
    assert isinstance(done.exception, UsageError) and done.exception.code == "retention-exchange-short"
    assert len(rows(hub, POSITIONS)) == 11


def test_a_month_goes_and_what_is_left_begins_at_a_signed_place(hub: sa.Engine) -> None:
    assert ledger_verify.verify(hub, ask=()).ok
    settled(hub)
    before = planned(hub, until(MARCH))
    assert before["2021-03"].due and not before["2021-04"].old
    assert applied(until(MARCH)) == ["2021-03"]
    assert [row[0] for row in rows(hub, POSITIONS)] == [6, 7, 8, 9, 10, 11], "the late one stays with what is around it"
    assert rows(hub, "SELECT count(*) FROM exchange_record") == [(6,)]
    assert rows(hub, "SELECT min(position) FROM exchange_checkpoint WHERE hub = 'sh'") == [(5,)]
    report = ledger_verify.verify(hub, ask=())
    assert report.ok, report.shown()
    assert (report.first, report.last, report.records) == (6, 11, 6)
    assert applied(until(MARCH)) == [] and ledger_verify.verify(hub, ask=()).ok


def test_all_that_is_old_goes(hub: sa.Engine) -> None:
    assert applied() == ["2021-03", "2021-04"]
    assert [row[0] for row in rows(hub, POSITIONS)] == [10, 11]
    report = ledger_verify.verify(hub, ask=())
    assert report.ok and (report.first, report.records) == (10, 2)
    ledgers.plain(hub, 1)
    ledger.chain(hub)
    assert ledger_verify.verify(hub, ask=()).records == 3


def test_what_is_left_is_guarded_as_before(hub: sa.Engine) -> None:
    applied()
    ledgers.changed(
        hub, "UPDATE exchange_record SET outcome = 'internal' WHERE id IN (SELECT record FROM exchange_chain)"
    )
    assert [one.code for one in ledger_verify.verify(hub, ask=()).differences] == ["chain-record-altered"]


@pytest.mark.parametrize(("statement", "code"), [
    ("DELETE FROM exchange_checkpoint WHERE position = 9", "chain-start-unproved"),
    ("UPDATE exchange_checkpoint SET chain = sha256(chain) WHERE position = 9", "chain-start-unproved"),
    ("DELETE FROM exchange_chain WHERE position = 10", "chain-start-unproved"),
])  # fmt: skip
def test_its_beginning_is_guarded_too(hub: sa.Engine, statement: str, code: str) -> None:
    applied()
    ledgers.changed(hub, statement)
    assert code in {one.code for one in ledger_verify.verify(hub, ask=()).differences}


def test_the_first_that_is_left_can_be_proved(hub: sa.Engine, tmp_path: Path) -> None:
    own, other = ledgers.key_of(home.current().path), ledgers.key_of(tmp_path / "zj")
    ledgers.changed(
        hub, "DELETE FROM exchange_record WHERE id IN (SELECT record FROM exchange_chain WHERE position > 9)"
    )
    ledgers.changed(
        hub, "DELETE FROM exchange_chain WHERE position > 9"
    )  # so that the next is the first after the old ones
    ledgers.changed(hub, "DELETE FROM exchange_checkpoint WHERE position > 9")
    ledgers.changed(
        hub,
        "UPDATE exchange_head SET (position, chain) = (SELECT position, chain FROM exchange_chain WHERE position = 9)",
    )
    with hub.begin() as connection:
        named = ledgers.exchanged(connection, own, other, 1)
    ledger.chain(hub)
    applied()
    with hub.connect() as connection:
        proof = proofs.export(connection, str(named))
    assert proof["chain"]["position"] == 10
    assert verify_proof(proof, keys.own().public()).ok


def test_without_a_checkpoint_that_is_old_enough_nothing_goes(hub: sa.Engine) -> None:
    ledgers.changed(hub, "UPDATE exchange_checkpoint SET signed_at = now() WHERE position < 10")
    settled(hub)
    held = planned(hub)["2021-03"].held
    assert held is not None and held.code == "retention-held-unsigned" and held.sentence()
    assert applied() == [] and len(rows(hub, POSITIONS)) == 11


def test_what_still_waits_for_its_place_stays(hub: sa.Engine) -> None:
    with ledgers.living("2021-03-06T00:00:00Z"):
        ledgers.plain(hub, 1)
    assert applied() == ["2021-03", "2021-04"]
    [(waiting,)] = rows(hub, "SELECT record FROM exchange_pending")
    assert (waiting,) in rows(hub, "SELECT id FROM exchange_record")
    ledger.chain(hub)
    report = ledger_verify.verify(hub, ask=())
    assert report.ok and report.records == 3
    assert applied() == [], "it goes with what has its place around it"


def test_of_what_peers_signed_the_last_stays(hub: sa.Engine, tmp_path: Path) -> None:
    from hub.exchange.checkpoints import made

    key = ledgers.key_of(tmp_path / "zj")
    with hub.begin() as connection:
        for position, day in ((3, "2021-03-01"), (2000, "2021-03-02"), (4000, "2021-03-03")):
            one = made("zj", position, bytes(32), dt.datetime.fromisoformat(f"{day}T00:00:00+00:00"), key)
            connection.execute(
                sa.text("INSERT INTO exchange_checkpoint VALUES ('zj', :position, :chain, :at, :signature)"),
                {"position": one.position, "chain": one.chain, "at": one.at, "signature": one.signature},
            )
    applied()
    assert rows(hub, "SELECT position FROM exchange_checkpoint WHERE hub = 'zj'") == [(4000,)]
    assert ledger_verify.verify(hub, ask=()).ok


def test_sparse_checkpoints_do_not_take_the_beginning_away(hub: sa.Engine) -> None:
    """What retention begins at is what is left of the checkpoints of its time."""
    from hub.exchange import checkpoints

    applied()
    with hub.begin() as connection:
        checkpoints.thin(connection)
    assert ledger_verify.verify(hub, ask=()).ok


def test_the_month_of_a_record_is_told_by_its_id(hub: sa.Engine) -> None:
    """Ids sort by time: what is read by id is read along the months."""
    found = rows(hub, "SELECT id, recorded_at FROM exchange_record ORDER BY id")
    for named, at in found:
        assert isinstance(named, uuid.UUID)
        assert abs((named.int >> 80) / 1000 - at.timestamp()) < 0.002
