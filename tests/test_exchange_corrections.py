"""Corrections between two hubs: filed once, counted in working days, answered, and the fix seen coming back."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from connectors.errors import FatalError, RetriableError, UsageError
from hub import clock, database, records, watching, working_days
from hub.exchange import agreement_acts, corrections, epochs, upkeep
from hub.exchange import correction_messages as messages
from hub.exchange.caller import PartnerProblem
from hub.exchange.correction_messages import Said
from hub.exchange.corrections import Correction
from hub.home import Home
from hub.working_days import Calendar
from tests import stored
from tests.peering import announce, withdraw
from tests.reconciling import MATERIAL, Exchange
from tests.twohubs import pair

SAID = Said(
    "2031-01-31", "张三 showed the paper, 11010519491231002X", found="2030-01-31", evidence="case 310117-2026-7"
)


def fresh() -> str:
    """The id of a correction."""
    return str(records.key(dt.datetime.now(dt.UTC)))


@pytest.fixture(scope="module")
def served(server_home: Home, template: str) -> Iterator[Exchange]:
    with pair(server_home, template, ("zj", "sh")) as made:
        yield Exchange(made)


@pytest.fixture
def exchange(served: Exchange) -> Exchange:
    """Two certificates that Shanghai has been told of."""
    served.begin()
    served.hold(2)
    served.read()
    return served


def file(exchange: Exchange, field: str = "valid_to", said: Said = SAID, place: int = 0, **more: Any) -> Correction:
    with exchange.sh.acting():
        return corrections.file("zj", exchange.handles()[place], field, said, actor="wang", **more)


def answer(exchange: Exchange, one: Correction, outcome: str = "corrected", reason: str | None = None) -> Correction:
    with exchange.zj.acting():
        return corrections.answer(one.id, outcome, reason, actor="li")


def both(exchange: Exchange, one: Correction) -> tuple[Correction, Correction]:
    """As Shanghai, which filed it, and Zhejiang keep it."""
    found = []
    for hub in (exchange.sh, exchange.zj):
        with hub.acting():
            found.append(corrections.show(one.id)[0])
    return found[0], found[1]


def correct(exchange: Exchange, place: int = 0) -> None:
    """The register brings another version, which the feed announces."""
    key = exchange.sql(exchange.zj, "SELECT encode(holding, 'hex') FROM feed WHERE position = :at", at=place + 1)[0][0]
    exchange.sql(
        exchange.zj, "UPDATE holding SET digest = gen_random_uuid(), valid_to = '2031-01-31' WHERE encode(key, 'hex') = :key",
        key=key,
    )  # fmt: skip
    with exchange.zj.acting() as engine:
        announce(engine, key, "changed")


def test_filed_with_the_owner_within_the_law(exchange: Exchange) -> None:
    one = file(exchange)
    here, there = both(exchange, one)
    day = working_days.after(clock.today(dt.datetime.now(dt.UTC)), 10)
    assert (here.state, here.due_on, here.told, here.owner, here.filed_by, here.problem) == (
        "filed",
        day,
        True,
        False,
        "wang",
        None,
    )
    assert (there.state, there.due_on, there.owner, there.peer, there.filed_by) == ("filed", day, True, "sh", None)
    assert (there.material, there.field, there.handle, there.agreement) == (
        MATERIAL,
        "valid_to",
        here.handle,
        here.agreement,
    )
    [(key,)] = exchange.sql(exchange.zj, "SELECT encode(holding, 'hex') FROM feed WHERE position = 1")
    assert there.holding == key and here.holding is None
    for hub in (exchange.sh, exchange.zj):
        with hub.acting():
            assert corrections.show(one.id)[1].said == SAID


def test_what_is_said_of_somebody_is_sealed_and_in_no_ledger(exchange: Exchange) -> None:
    one = file(exchange)
    answer(exchange, one, "confirmed", "李四 looked it up")
    for hub in (exchange.sh, exchange.zj):
        rows = exchange.sql(hub, "SELECT c::text, r::text FROM correction AS c, exchange_record AS r")
        text = "".join(str(part) for row in rows for part in row)
        assert (
            rows
            and SAID.expected not in text
            and stored.RESIDENT not in text
            and "张三" not in text
            and "李四" not in text
        )
        details = exchange.sql(
            hub, "SELECT detail FROM exchange_record WHERE kind LIKE 'correction.%' AND direction = 'answered'"
        )
        assert details and all(
            set(orjson.loads(row[0])) <= {"correction", "material", "field", "due_on", "outcome"} for row in details
        )


def test_the_same_again_is_filed_once(exchange: Exchange) -> None:
    one = file(exchange)
    assert file(exchange).id == one.id
    with pytest.raises(UsageError) as refused:
        file(exchange, said=Said("2032-01-31", "another view"))
    assert refused.value.code == "correction-open" and str(one.id) in str(refused.value)
    assert file(exchange, "status", Said("revoked", "why")).id != one.id
    assert exchange.sql(exchange.zj, "SELECT count(*) FROM correction") == [(2,)]


def test_a_lost_reply_files_once(exchange: Exchange) -> None:
    """The message arrives, what is replied does not; it goes out again, under another id of a message too."""
    lost = iter([True])

    def fate(to: Any, wire: bytes, carry: Any) -> bytes:
        reply = carry()
        if next(lost, False):
            raise RetriableError("partner-away", peer=to.name, reason="lost")
        return reply

    exchange.pair.fate = fate
    one = file(exchange)
    assert not one.told and one.problem and one.problem.code == "partner-away"
    assert exchange.sql(exchange.zj, "SELECT count(*) FROM correction") == [(1,)]
    exchange.pair.rested()
    again = file(exchange)
    assert again.id == one.id and again.told and both(exchange, one)[0].due_on == both(exchange, one)[1].due_on
    assert exchange.sql(exchange.zj, "SELECT count(*) FROM correction") == [(1,)]


def test_the_owner_is_away_and_hears_later(exchange: Exchange) -> None:
    exchange.zj.away = True
    one = file(exchange)
    assert not one.told and exchange.sql(exchange.zj, "SELECT count(*) FROM correction") == [(0,)]
    exchange.zj.away = False
    exchange.pair.rested()
    with exchange.sh.acting():
        assert corrections.tell_all() == {str(one.id): "ok"} and corrections.tell_all() == {}
    assert both(exchange, one)[1].state == "filed"
    exchange.sh.away = True
    told = answer(exchange, one, "confirmed", "as the paper says")
    assert told.state == "confirmed" and not told.told and both(exchange, one)[0].state == "filed"
    exchange.sh.away = False
    exchange.pair.rested()
    with exchange.zj.acting():
        assert corrections.tell_all() == {str(one.id): "ok"}
    assert both(exchange, one)[0].state == "confirmed"


def test_a_copy_that_comes_when_the_filing_was_refused_is_answered_all_the_same(exchange: Exchange) -> None:
    """The network keeps the first message back; the next is refused, for a version that is not the one in force just then."""
    kept: list[Any] = []

    def fate(to: Any, wire: bytes, carry: Any) -> bytes:
        kept.append(carry)
        raise RetriableError("partner-away", peer=to.name, reason="kept back")

    exchange.pair.fate = fate
    one = file(exchange)
    exchange.pair.forget_fate()
    exchange.pair.rested()
    was = exchange.sql(exchange.zj, "SELECT key, digest FROM holding")
    correct(exchange)
    with exchange.sh.acting():
        assert corrections.tell_all() == {str(one.id): "correction-version-old"}
        assert corrections.show(one.id)[0].state == "refused"
    for key, digest in was:
        exchange.sql(exchange.zj, "UPDATE holding SET digest = :digest WHERE key = :key", key=key, digest=digest)
    kept[0]()
    told = answer(exchange, one, "confirmed", "as the paper says")
    assert told.told and both(exchange, one)[0].state == "confirmed"
    body = {"correction": str(one.id), "outcome": "refused", "at": "2026-01-01T00:00:00Z", "reason": "x"}
    assert exchange.pair.say(exchange.zj, exchange.sh, messages.ANSWER, body)["status"] == "correction-answered"


def rotate(exchange: Exchange) -> str:
    with exchange.zj.acting():
        return epochs.renew(exchange.named, dt.datetime.now(dt.UTC))


def told(exchange: Exchange) -> dict[str, str]:
    exchange.zj.away = False
    exchange.pair.rested()
    with exchange.sh.acting():
        return corrections.tell_all()


def test_a_new_epoch_begins_before_the_owner_hears_of_it(exchange: Exchange) -> None:
    """It waits until this side has read the epoch, and is filed in its words, under the id that it has."""
    exchange.hold(2)  # alike in all that an index tells
    exchange.read()
    [(key,)] = exchange.sql(exchange.zj, "SELECT encode(holding, 'hex') FROM feed WHERE position = 3")
    exchange.zj.away = True
    one = file(exchange, place=2)
    epoch = rotate(exchange)
    assert told(exchange) == {str(one.id): "reconcile-epoch"} == told(exchange)
    with exchange.sh.acting():
        [waiting] = corrections.every(open_=True)
    assert (waiting.id, waiting.state, waiting.told) == (one.id, "filed", False)
    assert exchange.sql(exchange.zj, "SELECT count(*) FROM correction") == [(0,)]
    exchange.read()
    assert told(exchange) == {str(one.id): "ok"} and told(exchange) == {}
    here, there = both(exchange, one)
    assert there.holding == key and here.handle == there.handle != one.handle, "the certificate that was meant"
    assert (here.state, here.told, here.due_on) == ("filed", True, there.due_on)
    with exchange.zj.acting():
        assert corrections.show(one.id)[1].said == SAID
    assert exchange.sql(exchange.sh, "SELECT epoch FROM correction") == [(epoch,)]
    answer(exchange, one)
    correct(exchange, place=2)
    exchange.read()
    assert both(exchange, one)[0].seen_at, "and the fix is seen coming back"


@pytest.mark.parametrize("change", ["changed", "withdrawn"])
def test_what_was_announced_anew_in_a_new_epoch_is_not_guessed(exchange: Exchange, change: str) -> None:
    exchange.zj.away = True
    one = file(exchange)
    rotate(exchange)
    if change == "changed":
        correct(exchange)
    else:
        [(key,)] = exchange.sql(exchange.zj, "SELECT encode(holding, 'hex') FROM feed WHERE position = 1")
        with exchange.zj.acting() as engine:
            withdraw(engine, key)
    exchange.zj.away = False
    exchange.pair.rested()
    exchange.read()
    assert told(exchange) == {str(one.id): "correction-epoch-over"} and told(exchange) == {}
    with exchange.sh.acting():
        found, content = corrections.show(one.id)
    assert found.state == "refused" and "announced anew or no more" in str(content.reason)
    assert exchange.sql(exchange.zj, "SELECT count(*) FROM correction") == [(0,)]


def test_what_the_owner_took_before_a_new_epoch_is_not_filed_twice(exchange: Exchange) -> None:
    """Its reply was lost: the owner knows it by its id, in the words of whichever epoch."""

    def fate(to: Any, wire: bytes, carry: Any) -> bytes:
        carry()
        raise RetriableError("partner-away", peer=to.name, reason="lost")

    exchange.pair.fate = fate
    one = file(exchange)
    exchange.pair.forget_fate()
    rotate(exchange)
    exchange.read()
    assert told(exchange) == {str(one.id): "ok"}
    here, there = both(exchange, one)
    assert here.told and here.handle == there.handle == one.handle
    assert exchange.sql(exchange.zj, "SELECT count(*) FROM correction") == [(1,)]


def test_the_upkeep_of_the_exchange_tells_it(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange.zj.away = True
    one = file(exchange)
    exchange.zj.away = False
    exchange.pair.rested()
    turns = iter([False, True])
    beside = upkeep.Upkeep()
    monkeypatch.setattr(beside._ended, "wait", lambda seconds: next(turns))
    with exchange.sh.acting():
        beside._run()
    assert both(exchange, one)[0].told


@pytest.mark.parametrize("outcome", ["confirmed", "refused"])
def test_answered_with_a_reason(exchange: Exchange, outcome: str) -> None:
    one = file(exchange)
    with pytest.raises(UsageError) as unreasoned:
        answer(exchange, one, outcome, " ")
    assert unreasoned.value.code == "correction-reason"
    done = answer(exchange, one, outcome, "checked against the paper register")
    here, there = both(exchange, one)
    assert (here.state, there.state, done.told, there.answered_by) == (outcome, outcome, True, "li")
    assert here.answered_at == there.answered_at
    for hub in (exchange.sh, exchange.zj):
        with hub.acting():
            assert corrections.show(one.id)[1].reason == "checked against the paper register"
    assert answer(exchange, one, outcome, "again").state == outcome, "the same answer again changes nothing"
    with pytest.raises(UsageError) as answered:
        answer(exchange, one, "corrected")
    assert answered.value.code == "correction-answered"


def test_the_fix_comes_back_through_the_feed(exchange: Exchange) -> None:
    one, other = file(exchange), file(exchange, place=1)
    answer(exchange, one)
    answer(exchange, other)
    exchange.read()
    assert both(exchange, one)[0].seen_at is None, "nothing else was announced yet"
    correct(exchange)
    exchange.read()
    here, _ = both(exchange, one)
    assert here.state == "corrected" and here.seen_at is not None
    assert both(exchange, other)[0].seen_at is None


def test_the_fix_may_come_before_the_answer(exchange: Exchange) -> None:
    one = file(exchange)
    correct(exchange)
    exchange.read()
    assert both(exchange, one)[0].seen_at is None, "no one has said so"
    answer(exchange, one)
    assert both(exchange, one)[0].seen_at is not None


def test_a_certificate_that_is_withdrawn_for_it_is_a_fix_too(exchange: Exchange) -> None:
    one = file(exchange)
    [(key,)] = exchange.sql(exchange.zj, "SELECT encode(holding, 'hex') FROM feed WHERE position = 1")
    answer(exchange, one)
    with exchange.zj.acting() as engine:
        withdraw(engine, key)
    exchange.read()
    assert both(exchange, one)[0].seen_at is not None


def test_in_another_epoch_the_answer_names_the_certificate_anew(exchange: Exchange) -> None:
    one = file(exchange)
    with exchange.zj.acting():
        epochs.renew(exchange.named, dt.datetime.now(dt.UTC))
    exchange.read()
    assert both(exchange, one)[0].handle not in exchange.handles()[-2:]
    answer(exchange, one)
    here, there = both(exchange, one)
    assert here.handle in exchange.handles() and here.seen_at is None and there.handle != here.handle
    correct(exchange)
    exchange.read()
    assert both(exchange, one)[0].seen_at is not None


def test_only_what_is_announced_agreed_and_as_it_is_now(exchange: Exchange) -> None:
    handle = exchange.handles()[0]
    refusals = []
    with exchange.sh.acting():
        for named, field, said in (
            ("0" * 32, "valid_to", SAID), ("xyz", "valid_to", SAID), (handle, "colour", SAID), (handle, "name", SAID),
            (handle, "valid_to", Said("", "why")), (handle, "valid_to", Said("x", "y" * 4001)),
        ):  # fmt: skip
            with pytest.raises(UsageError) as refused:
                corrections.file("zj", named, field, said, actor="wang")
            refusals.append(refused.value.code)
    assert refusals == ["correction-record-untold", "correction-record-untold", "correction-field", "field-not-agreed", "correction-said",
                        "correction-said"]  # fmt: skip
    correct(exchange)
    with pytest.raises(PartnerProblem) as old:
        file(exchange)
    assert old.value.values["code"] == "correction-version-old"
    exchange.read()
    assert file(exchange).told
    assert exchange.sql(exchange.sh, "SELECT count(*) FROM correction") == [(1,)], (
        "what was refused at once is not kept"
    )
    with exchange.zj.acting():
        epochs.renew(exchange.named, dt.datetime.now(dt.UTC))
    with pytest.raises(PartnerProblem) as epoch:
        file(exchange, place=1)
    assert epoch.value.values["code"] == "reconcile-epoch"


def test_an_agreement_may_not_say_corrections(served: Exchange) -> None:
    served.begin(correction=False)
    served.hold(1)
    served.read()
    with pytest.raises(UsageError) as refused:
        file(served)
    assert refused.value.code == "correction-not-agreed"
    body = filing(served)
    said = served.pair.say(served.sh, served.zj, messages.FILE, body, agreement=served.agreement(served.sh).reference)
    assert said["status"] == "correction-not-agreed"


def filing(exchange: Exchange, **changes: Any) -> dict[str, Any]:
    [(epoch, handle, version)] = exchange.sql(
        exchange.sh,
        "SELECT epoch, encode(handle, 'hex'), digest FROM index_entry WHERE recorded_to IS NULL ORDER BY handle LIMIT 1",
    )
    body = {"correction": fresh(), "epoch": epoch, "handle": handle, "version": version, "material": MATERIAL,
            "field": "valid_to", "said": {"expected": "2031-01-31", "why": "paper"}, **changes}  # fmt: skip
    return {name: value for name, value in body.items() if value is not None}


def test_what_the_owner_refuses(exchange: Exchange) -> None:
    reference = exchange.agreement(exchange.sh).reference

    def say(**changes: Any) -> str:
        return str(
            exchange.pair.say(
                exchange.sh, exchange.zj, messages.FILE, filing(exchange, **changes), agreement=reference
            )["status"]
        )

    for changes, code in (
        ({"correction": "1"}, "message-body"), ({"said": {"expected": "x"}}, "message-body"), ({"field": "x; y"}, "message-body"),
        ({"handle": "0" * 32}, "correction-record-unknown"), ({"material": "business-licence"}, "correction-record-unknown"),
        ({"material": "marriage-certificate"}, "material-not-agreed"), ({"field": "name"}, "field-not-agreed"),
        ({"version": "0" * 32}, "correction-version-old"), ({"epoch": "20200101T000000Z-00000000"}, "reconcile-epoch"),
    ):  # fmt: skip
        assert say(**changes) == code, changes
    for odd in (str(uuid.uuid4()), str(uuid.UUID(int=0))):
        assert say(correction=odd) == "message-body"
    named = fresh()
    assert (say(correction=named), say(correction=named), say(correction=named, field="status")) == (
        "ok",
        "ok",
        "correction-taken",
    )
    assert say(correction=named, version="0" * 32) == "correction-taken", "of another version it is something else"
    assert say(correction=named, handle="0" * 32) == "correction-taken"
    assert say(correction=named, said={"expected": "x", "why": "y"}) == "correction-taken"
    assert say(correction=named) == "ok"
    assert exchange.sql(exchange.zj, "SELECT count(*) FROM correction") == [(1,)]


def test_filed_again_in_a_new_epoch_it_is_the_same(exchange: Exchange) -> None:
    """All ids are others then; the owner knows what they stand for."""
    named, reference = fresh(), exchange.agreement(exchange.sh).reference

    def say(**changes: Any) -> dict[str, Any]:
        told = filing(exchange, correction=named, **changes)
        return dict(exchange.pair.say(exchange.sh, exchange.zj, messages.FILE, told, agreement=reference))

    first = filing(exchange)
    assert say()["status"] == "ok"
    with exchange.zj.acting():
        epochs.renew(exchange.named, dt.datetime.now(dt.UTC))
    assert say()["status"] == "ok" and say(version="0" * 32)["status"] == "correction-taken", (
        "in the words it was filed in"
    )
    exchange.read()
    entries = exchange.sql(
        exchange.sh, "SELECT encode(handle, 'hex'), digest FROM index_entry WHERE recorded_to IS NULL"
    )
    assert len(entries) > 1 and first["handle"] not in [handle for handle, _ in entries]
    told = [say(handle=handle, version=version)["status"] for handle, version in entries]
    assert sorted(told) == ["correction-taken"] * (len(entries) - 1) + ["ok"], (
        "and in those of the epoch that it is in now"
    )
    handle = entries[told.index("ok")][0]
    assert say(handle=handle, version="0" * 32)["status"] == "correction-taken"
    assert exchange.sql(exchange.zj, "SELECT count(*) FROM correction") == [(1,)]


def test_the_same_is_not_filed_again_under_other_ids(exchange: Exchange) -> None:
    """A peer that does not look: each would begin a clock of ten days."""
    reference = exchange.agreement(exchange.sh).reference

    def say(**changes: Any) -> dict[str, Any]:
        told = filing(exchange, **changes)
        return dict(exchange.pair.say(exchange.sh, exchange.zj, messages.FILE, told, agreement=reference))

    first = fresh()
    assert say(correction=first)["status"] == "ok"
    assert {say(correction=fresh())["status"] for _ in range(5)} == {"correction-filed"}
    other = {"expected": "2033-01-31", "why": "another view"}
    assert say(correction=fresh(), said=other)["status"] == "ok"
    assert say(correction=fresh(), field="status")["status"] == "ok"
    assert exchange.sql(exchange.zj, "SELECT count(*) FROM correction") == [(3,)]
    with exchange.zj.acting(), pytest.raises(PartnerProblem):  # which Shanghai did not keep
        corrections.answer(uuid.UUID(first), "confirmed", "it is right", actor="li")
    assert say(correction=fresh())["status"] == "ok", "what is answered may be filed anew"


def test_no_peer_has_more_than_so_many_open(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "OPEN", 2)
    first, second = file(exchange), file(exchange, "status", Said("revoked", "why"))
    with pytest.raises(PartnerProblem) as refused:
        file(exchange, place=1)
    assert refused.value.values["code"] == "correction-too-many"
    assert file(exchange).id == first.id, "what is there is still answered"
    answer(exchange, second)
    assert file(exchange, place=1).told
    assert exchange.sql(exchange.zj, "SELECT count(*) FROM correction") == [(3,)]


def test_who_did_not_file_it_hears_no_answer(exchange: Exchange) -> None:
    one = file(exchange)
    body = {"correction": str(one.id), "outcome": "confirmed", "at": "2026-01-01T00:00:00Z", "reason": "x"}
    assert exchange.pair.say(exchange.sh, exchange.zj, messages.ANSWER, body)["status"] == "correction-unknown", (
        "not to the owner"
    )
    stranger = {**body, "correction": fresh()}
    assert exchange.pair.say(exchange.zj, exchange.sh, messages.ANSWER, stranger)["status"] == "correction-unknown"
    assert (
        exchange.pair.say(exchange.zj, exchange.sh, messages.ANSWER, {**body, "outcome": "maybe"})["status"]
        == "message-body"
    )
    for unsaid in (
        {"reason": None},
        {"reason": "  "},
        {"outcome": "refused", "reason": None},
        {"correction": str(uuid.uuid4())},
    ):
        told = {name: value for name, value in {**body, **unsaid}.items() if value is not None}
        assert exchange.pair.say(exchange.zj, exchange.sh, messages.ANSWER, told)["status"] == "message-body", unsaid
    with exchange.sh.acting(), pytest.raises(UsageError) as foreign:
        corrections.answer(one.id, "confirmed", "x", actor="wang")
    assert foreign.value.code == "correction-not-ours"
    future = {**body, "at": "2199-01-01T00:00:00Z"}
    assert exchange.pair.say(exchange.zj, exchange.sh, messages.ANSWER, future)["status"] == "ok"
    second = file(exchange, place=1)
    past = {**body, "correction": str(second.id), "at": "0001-01-01T00:00:00+14:00"}
    assert exchange.pair.say(exchange.zj, exchange.sh, messages.ANSWER, past)["status"] == "ok"
    long_ago = both(exchange, second)[0].answered_at
    assert long_ago and long_ago > dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    answered_at = both(exchange, one)[0].answered_at
    assert answered_at and answered_at < dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    other = {**body, "outcome": "refused"}
    assert exchange.pair.say(exchange.zj, exchange.sh, messages.ANSWER, other)["status"] == "correction-answered"


def test_what_was_filed_is_answered_after_the_agreement_stopped(exchange: Exchange) -> None:
    one = file(exchange)
    with exchange.sh.acting():
        agreement_acts.suspend(exchange.named, "misuse", "tester")
    with pytest.raises(UsageError) as stopped:
        file(exchange, place=1)
    assert stopped.value.code == "agreement-suspended"
    assert answer(exchange, one, "confirmed", "right as it is").told and both(exchange, one)[0].state == "confirmed"


def test_a_year_without_calendar_files_nothing_and_says_what_to_update(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = working_days._calendar().works
    monkeypatch.setattr(working_days, "_calendar", lambda: Calendar(2004, 2020, works))
    with pytest.raises(FatalError) as refused:
        file(exchange)
    assert refused.value.code == "calendar-year-missing" and "chinesecalendar" in str(refused.value)
    reference = exchange.agreement(exchange.sh).reference
    said = exchange.pair.say(exchange.sh, exchange.zj, messages.FILE, filing(exchange), agreement=reference)
    assert (said["status"], said["fault"]) == ("correction-calendar", "hub")
    for hub in (exchange.sh, exchange.zj):
        assert exchange.sql(hub, "SELECT count(*) FROM correction") == [(0,)]


def test_what_is_overdue_is_shown(exchange: Exchange) -> None:
    one, other = file(exchange), file(exchange, "status", Said("revoked", "why"))
    for hub in (exchange.sh, exchange.zj):
        exchange.sql(hub, "UPDATE correction SET due_on = due_on - 60 WHERE id = :id", id=one.id)
        with hub.acting():
            assert [each.id for each in corrections.every()] == [one.id, other.id], "the most urgent first"
            assert [each.id for each in corrections.every(overdue=True)] == [one.id]
            registry = CollectorRegistry()
            registry.register(watching.Store(database.engine))
            text = generate_latest(registry).decode()
        side, peer = ("filer", "zj") if hub is exchange.sh else ("owner", "sh")
        assert f'yici_corrections_overdue{{peer="{peer}",side="{side}"}} 1.0' in text
        assert f'yici_corrections_open{{peer="{peer}",side="{side}"}} 2.0' in text
    answer(exchange, one)
    with exchange.zj.acting():
        assert corrections.every(overdue=True) == [] and [each.id for each in corrections.every(open_=True)] == [
            other.id
        ]
        assert corrections.every(peer="js") == [] and corrections.named(str(one.id)[-8:]) == one.id
        for text, code in (("", "correction-unknown"), ("zzz", "correction-unknown"), ("0", "correction-ambiguous")):
            with pytest.raises(UsageError) as refused:
                corrections.named(text)
            assert refused.value.code == code
