"""Epochs of an index under an agreement: one key for one scope and time, told to the receiver alone."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.errors import FatalError, UsageError
from connectors.signature import base64url
from hub.exchange import agreement_acts, agreement_terms, epoch_keys, epochs, kinds
from hub.exchange.agreements import Agreement
from hub.exchange.epochs import Epoch
from hub.exchange.service import Answer, Kind
from hub.home import Home
from mappings import model
from tests.twohubs import Pair, pair

DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def made(server_home: Home, template: str) -> Iterator[Pair]:
    with pair(server_home, template, ("zj", "sh")) as hubs:
        yield hubs


@pytest.fixture
def hubs(made: Pair) -> Pair:
    made.forget()
    return made


def current(hubs: Pair, agreement: Agreement, now: dt.datetime) -> Epoch:
    with hubs.zj.acting() as engine, engine.begin() as connection:
        return epochs.current(connection, agreement, now)


def test_an_epoch_lasts_as_long_as_agreed(hubs: Pair) -> None:
    agreement = hubs.agreement(hubs.zj, hubs.agree(epoch_days=30))
    start = dt.datetime(2026, 12, 1, 8, 0, 30, tzinfo=dt.UTC)
    first = current(hubs, agreement, start)
    assert first.name.startswith("20261201T080030Z-") and len(first.key) == 32
    assert current(hubs, agreement, start + 30 * DAY - dt.timedelta(seconds=1)) == first
    second = current(hubs, agreement, start + 30 * DAY)
    assert second.name > first.name and second.key != first.key and second.scope == first.scope
    assert current(hubs, agreement, start) == second  # a clock that was put back begins nothing
    with hubs.zj.acting():
        third = epochs.renew(agreement.id, start)
    assert third > second.name


def test_whoever_reads_one_agreement_after_the_other_goes_on(hubs: Pair) -> None:
    """Begun within one second, the later one is the later name, whatever its scope."""
    start = dt.datetime(2026, 12, 1, 8, 0, 30, tzinfo=dt.UTC)
    names = [current(hubs, hubs.agreement(hubs.zj, hubs.agree()), start).name for _ in range(3)]
    names.append(
        current(hubs, hubs.agreement(hubs.zj, hubs.agree(materials={"business-licence": ["name"]})), start).name
    )
    assert names == sorted(set(names)) and len(names) == 4


def test_a_feed_that_begins_anew_is_read_anew(hubs: Pair) -> None:
    read, unread, ended, broken = (hubs.agree() for _ in range(4))
    now = dt.datetime.now(dt.UTC)
    before = {named: current(hubs, hubs.agreement(hubs.zj, named), now) for named in (read, ended, broken)}
    with hubs.zj.acting() as engine, engine.begin() as connection:
        for change, named in (("state = 'ended'", ended), ("document = set_byte(document, 3, 65)", broken)):
            connection.execute(sa.text(f"UPDATE exchange_agreement SET {change} WHERE id = :id"), {"id": named})
    with hubs.zj.acting():
        [begun] = epochs.renew_all(now)
    assert begun > before[read].name and current(hubs, hubs.agreement(hubs.zj, read), now).name == begun
    assert hubs.rows(hubs.zj, unread)[0].epoch is None
    with hubs.sh.acting():
        assert epochs.renew_all(now) == []


def test_keys_rest_sealed_and_are_of_one_agreement(hubs: Pair) -> None:
    one, other = (hubs.agreement(hubs.zj, hubs.agree()) for _ in range(2))
    now = dt.datetime.now(dt.UTC)
    keys = {current(hubs, agreement, now).key for agreement in (one, other)}
    assert len(keys) == 2
    with hubs.zj.acting() as engine, engine.begin() as connection:
        rows = connection.execute(sa.text("SELECT id, sealed_key FROM exchange_agreement")).all()
        assert not any(key in bytes(row.sealed_key) for key in keys for row in rows)
        swap = "UPDATE exchange_agreement SET sealed_key = :key WHERE id = :id"
        connection.execute(sa.text(swap), {"key": rows[0].sealed_key, "id": rows[1].id})
    with pytest.raises(FatalError) as caught:
        current(hubs, one if one.id == rows[1].id else other, now)
    assert caught.value.code == "index-key-unreadable"


def test_a_scope_that_changes_begins_a_new_epoch(hubs: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    agreed = hubs.agree()
    now = dt.datetime.now(dt.UTC)
    first = current(hubs, hubs.agreement(hubs.zj, agreed), now)
    assert first.scope == epochs.Scope(("business-licence", "household-register"), ("33",))

    shareable = agreement_terms.shareable
    hidden = model.load("household-register").model_copy(update={"indexed": False})
    monkeypatch.setattr(agreement_terms, "shareable", lambda code: hidden if code == hidden.code else shareable(code))
    narrowed = current(hubs, hubs.agreement(hubs.zj, agreed), now)
    assert narrowed.scope.materials == ("business-licence",) and narrowed.name > first.name
    monkeypatch.undo()
    again = current(hubs, hubs.agreement(hubs.zj, agreed), now)
    assert again.scope == first.scope and again.name > narrowed.name and again.key not in (first.key, narrowed.key)

    # A new version with the same scope stays in the epoch, another scope begins one.
    for changes, same in (({"purposes": ["other"]}, True), ({"regions": ["3301"]}, False)):
        hubs.propose(hubs.zj, hubs.sh, id=str(agreed), **changes)
        with hubs.sh.acting():
            agreement_acts.accept(agreed, "tester")
        epoch = current(hubs, hubs.agreement(hubs.zj, agreed), now)
        assert (epoch == again) is same and epoch.name >= again.name


def test_the_receiver_is_told_the_key_of_the_epoch(hubs: Pair) -> None:
    agreed = hubs.agree()
    with hubs.sh.acting():
        told = epoch_keys.ask(hubs.agreement(hubs.sh, agreed))
    with hubs.zj.acting() as engine, engine.begin() as connection:
        mine = hubs.agreement(hubs.zj, agreed)
        assert epochs.current(connection, mine, dt.datetime.now(dt.UTC)) == told
        rows = connection.execute(sa.text("SELECT reply FROM exchange_message WHERE reply IS NOT NULL")).all()
        kept = connection.execute(sa.text("SELECT kind, agreement, detail FROM exchange_record")).all()
    assert len(rows) == 1  # of the acceptance: no reply that holds a key is kept
    assert ("index.key", f"{agreed}/1") in [(row.kind, row.agreement) for row in kept]
    assert told.key.hex() not in str(kept) and base64url(told.key) not in str(kept)


@pytest.mark.parametrize("case", ["suspended", "no index", "the provider asks", "unknown"])
def test_no_key_without_an_agreement_that_says_so(hubs: Pair, case: str) -> None:
    agreed = hubs.agree(modes=["evidence"] if case == "no index" else ["index"])
    reference, asker, told = f"{agreed}/1", hubs.sh, hubs.zj
    code = {"suspended": "agreement-suspended", "no index": "mode-not-agreed"}.get(case, "agreement-unknown")
    if case == "suspended":
        with hubs.zj.acting():
            agreement_acts.suspend(agreed, "tester")
    elif case == "the provider asks":
        asker, told = told, asker
    elif case == "unknown":
        reference = f"{agreed}/2"
    assert hubs.say(asker, told, "index.key", {}, agreement=reference)["status"] == code
    if case in ("suspended", "no index"):  # then this side does not even ask
        before = len(hubs.sent)
        with asker.acting(), pytest.raises(UsageError) as caught:
            epoch_keys.ask(hubs.agreement(asker, agreed))
        assert caught.value.code == code and len(hubs.sent) == before


@pytest.mark.parametrize(
    "told",
    [
        {"key": "AA"}, {"key": "*"}, {"materials": ["marriage-certificate"]}, {"regions": ["31"]}, {"regions": [""]},
        {"epoch": "a b"}, {"epoch": ""},
    ],
    ids=str,
)  # fmt: skip
def test_a_provider_that_tells_nonsense(hubs: Pair, told: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    agreed = hubs.agree()
    good = {"epoch": "20260301T000000Z-1", "key": "A" * 43, "materials": ["business-licence"], "regions": ["3301"]}
    answers: list[dict[str, Any]] = [good, {**good, **told}]
    known = Kind(lambda context: Answer.of(answers.pop(0)), mode="index")
    monkeypatch.setitem(kinds.register(), "index.key", known)
    with hubs.sh.acting():
        assert epoch_keys.ask(hubs.agreement(hubs.sh, agreed)).scope.regions == ("3301",)
        with pytest.raises(FatalError) as caught:
            epoch_keys.ask(hubs.agreement(hubs.sh, agreed))
    assert caught.value.code in ("index-key-form", "message-body")


def test_two_who_ask_at_once_begin_one_epoch(hubs: Pair) -> None:
    agreement = hubs.agreement(hubs.zj, hubs.agree())
    found: list[str] = []
    now = dt.datetime.now(dt.UTC)
    with hubs.zj.acting() as engine:

        def ask() -> None:
            with engine.begin() as connection:
                found.append(epochs.current(connection, agreement, now).name)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4 and len(set(found)) == 1
