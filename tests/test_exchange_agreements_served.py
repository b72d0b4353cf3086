"""Agreements over the real transport: two listeners, mutual TLS, signed messages; one of them comes and goes."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest
import sqlalchemy as sa

from connectors import signature
from connectors.errors import UsageError, YiciError
from hub.exchange import agreement_acts, agreement_terms, agreements, caller, epoch_keys, epochs
from hub.exchange.upkeep import Upkeep
from hub.home import Home
from tests import exchanging, terms
from tests.exchanging import Hub


@pytest.fixture(scope="module")
def hubs(server_home: Home, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Hub]]:
    with (
        exchanging.two_hubs(server_home, template, tmp_path_factory.mktemp("hubs")) as (sh, zj),
        sh.serving(),
        zj.serving(),
    ):
        yield sh, zj


def propose(by: Hub, to: Hub, folder: Path) -> uuid.UUID:
    file = folder / "agreement.yml"
    file.write_bytes(orjson.dumps(terms.said()))
    with by.acting():
        done = agreement_acts.propose(to.name, file, "tester")
    assert done.problem is None, done.problem
    return uuid.UUID(done.agreement.partition("/")[0])


def state(hub: Hub, named: uuid.UUID) -> str:
    with hub.acting() as engine, engine.connect() as connection:
        return str(agreements.versions(connection, named)[0].state)


def test_from_proposal_to_the_key_of_the_index(hubs: tuple[Hub, Hub], tmp_path: Path) -> None:
    sh, zj = hubs
    named = propose(zj, sh, tmp_path)
    with sh.acting() as engine:
        assert agreement_acts.accept(named, "tester").state == "in_force"
        with engine.connect() as connection:
            agreement = agreements.opened(agreements.versions(connection, named)[0])
        told = epoch_keys.ask(agreement)
    assert state(zj, named) == "in_force"
    with zj.acting() as engine, engine.begin() as connection:
        mine = agreements.opened(agreements.versions(connection, named)[0])
        assert epochs.current(connection, mine, dt.datetime.now(dt.UTC)) == told

    with zj.acting():
        assert agreement_acts.suspend(named, "tester", "checking").problem is None
    assert state(sh, named) == "suspended"
    with sh.acting(), pytest.raises(UsageError) as caught:
        epoch_keys.ask(agreement)
    assert caught.value.code == "agreement-suspended"
    # The other side refuses as well, were it asked.
    reply = exchanging.send(sh, zj, exchanging.question(sh, zj, "index.key", agreement=agreement.reference))
    assert exchanging.problem(reply)["code"] == "agreement-suspended"


def test_a_forged_proposal_does_not_get_in(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    document = agreement_terms.canonical(terms.terms(named := uuid.uuid4())).decode()
    body = orjson.dumps(
        {"document": document, "signature": "eyJhbGciOiJFZDI1NTE5In0..AAAA", "at": "2026-03-01T00:00:00Z"}
    )
    reply = exchanging.send(zj, sh, exchanging.question(zj, sh, "agreement.propose", body))
    assert exchanging.problem(reply)["code"] == "agreement-signature"
    with sh.acting() as engine, engine.connect() as connection:
        assert agreements.versions(connection, named) == []
    assert sh.outcomes(reply.envelope.reply_to) == ["agreement-signature"]


def test_what_was_decided_while_the_other_was_away_reaches_it(
    hubs: tuple[Hub, Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sh, zj = hubs
    named = propose(zj, sh, tmp_path)
    with sh.acting():
        agreement_acts.accept(named, "tester")
    zj.stop(kill=True)
    monkeypatch.setattr(caller, "ATTEMPTS", 1)
    with sh.acting():
        done = agreement_acts.suspend(named, "tester")
    assert done.state == "suspended" and done.problem is not None and done.problem.code == "partner-away"
    assert state(zj, named) == "in_force"
    upkeep = Upkeep(0.1)
    with sh.acting():
        upkeep.start()
        try:
            time.sleep(0.5)
            zj.start()
            with sh.acting() as engine, engine.begin() as connection:
                connection.execute(sa.text("UPDATE exchange_peer SET rests_until = NULL, failures = 0"))
            deadline = time.monotonic() + 30
            while state(zj, named) != "suspended" and time.monotonic() < deadline:
                with sh.acting():
                    time.sleep(0.1)
        finally:
            upkeep.stop()
            upkeep._thread.join(30)
    assert state(zj, named) == "suspended"


def together(*acts: Callable[[], object]) -> list[object]:
    """What each brings, or the code it is refused with, all at once."""

    def done(act: Callable[[], object]) -> object:
        try:
            return act()
        except YiciError as error:
            return error.values.get("code", error.code)

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(done, acts))


def test_many_operators_at_once_decide_one_thing(hubs: tuple[Hub, Hub], tmp_path: Path) -> None:
    sh, zj = hubs
    named = propose(zj, sh, tmp_path)
    with sh.acting():
        told = together(*[lambda: agreement_acts.accept(named, "tester").state] * 4)
        assert "in_force" in told and set(told) <= {"in_force", "agreement-accepted"}
        together(*[lambda: agreement_acts.suspend(named, "tester")] * 4)
        together(*[lambda: agreement_acts.end(named, "tester")] * 4)
    for hub in (sh, zj):
        with hub.acting() as engine, engine.connect() as connection:
            [row] = agreements.versions(connection, named)
        assert (row.state, row.suspended_by, row.ended_by, row.untold) == ("suspended", ["sh"], ["sh"], [])
        kinds = [entry["kind"] for entry in row.history]
        assert sorted(kinds) == ["agreement.accept", "agreement.end", "agreement.propose", "agreement.suspend"]


def test_of_proposals_that_come_at_once_one_is_taken(hubs: tuple[Hub, Hub]) -> None:
    sh, zj = hubs
    named = uuid.uuid4()

    def said(days: int) -> Callable[[], object]:
        document = agreement_terms.canonical(terms.terms(named, epoch_days=days))
        beside = signature.detached(document, zj.key(), agreement_terms.TYPE)
        body = orjson.dumps({"document": document.decode(), "signature": beside, "at": "2026-03-01T00:00:00Z"})
        asked = exchanging.question(zj, sh, "agreement.propose", body)
        return lambda: exchanging.send(zj, sh, asked).envelope.status

    told = together(*[said(days) for days in range(1, 7)])
    assert sorted(map(str, told)) == ["agreement-altered"] * 5 + ["ok"]
