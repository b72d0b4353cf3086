"""Agreements between two hubs, from proposal to end: what counts on which side, whoever is away, whatever crosses."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterator

import pytest

from connectors.errors import FatalError, RetriableError, UsageError, YiciError
from hub import signing
from hub.exchange import agreement_acts, agreements
from hub.exchange.agreement_acts import Done
from hub.home import Home
from tests.twohubs import Hub, Pair, pair


@pytest.fixture(scope="module")
def made(server_home: Home, template: str) -> Iterator[Pair]:
    with pair(server_home, template) as hubs:
        yield hubs


@pytest.fixture
def hubs(made: Pair) -> Pair:
    made.forget()
    return made


def refused(code: str, act: Callable[[], object]) -> YiciError:
    """``act`` is refused, here or by the partner, with ``code``."""
    with pytest.raises(YiciError) as caught:
        act()
    assert caught.value.values.get("code", caught.value.code) == code and str(caught.value)
    return caught.value


def act(hub: Hub, what: Callable[..., Done], named: uuid.UUID, *more: object) -> Done:
    with hub.acting():
        return what(named, "tester", *more)


def named(done: Done) -> uuid.UUID:
    return uuid.UUID(done.agreement.partition("/")[0])


def test_both_sign_the_same_bytes(hubs: Pair) -> None:
    done = hubs.propose(hubs.zj, hubs.sh)
    assert (done.state, done.problem) == ("proposed", None)
    assert hubs.states(named(done)) == {"zj": {1: "proposed"}, "sh": {1: "proposed"}}
    done = act(hubs.sh, agreement_acts.accept, named(done))
    assert (done.state, done.problem) == ("in_force", None)
    [here], [there] = hubs.rows(hubs.zj, named(done)), hubs.rows(hubs.sh, named(done))
    assert bytes(here.document) == bytes(there.document)
    assert (here.own_signature, here.peer_signature) == (there.peer_signature, there.own_signature)
    assert (here.provider, there.provider) == (True, False)
    assert here.untold == there.untold == []
    assert [(entry["hub"], entry["kind"], entry["actor"]) for entry in there.history] == [
        ("zj", "agreement.propose", None), ("sh", "agreement.accept", "tester"),
    ]  # fmt: skip


def test_the_one_that_asks_for_data_may_propose_too(hubs: Pair) -> None:
    agreed = hubs.agree(hubs.sh, hubs.zj)
    assert hubs.states(agreed) == {"zj": {1: "in_force"}, "sh": {1: "in_force"}}
    assert hubs.agreement(hubs.zj, agreed).provider


def test_a_proposal_is_accepted_once_and_by_the_other_side(hubs: Pair) -> None:
    agreed = named(hubs.propose(hubs.zj, hubs.sh))
    refused("agreement-own", lambda: act(hubs.zj, agreement_acts.accept, agreed))
    act(hubs.sh, agreement_acts.accept, agreed)
    refused("agreement-accepted", lambda: act(hubs.sh, agreement_acts.accept, agreed))
    refused("agreement-accepted", lambda: act(hubs.sh, agreement_acts.decline, agreed))
    refused("agreement-accepted", lambda: act(hubs.zj, agreement_acts.decline, agreed))


def test_declined_and_withdrawn(hubs: Pair) -> None:
    declined = named(hubs.propose(hubs.zj, hubs.sh))
    act(hubs.sh, agreement_acts.decline, declined, "scope too wide")
    assert hubs.states(declined) == {"zj": {1: "declined"}, "sh": {1: "declined"}}
    assert hubs.rows(hubs.zj, declined)[0].history[-1]["reason"] == "scope too wide"
    withdrawn = named(hubs.propose(hubs.zj, hubs.sh))
    act(hubs.zj, agreement_acts.decline, withdrawn)
    assert hubs.states(withdrawn) == {"zj": {1: "declined"}, "sh": {1: "declined"}}
    for one in (declined, withdrawn):
        refused("agreement-declined", lambda one=one: act(hubs.sh, agreement_acts.accept, one))
        refused("agreement-not-in-force", lambda one=one: act(hubs.sh, agreement_acts.suspend, one))
    # Proposed again as the next version, it can be agreed.
    again = hubs.propose(hubs.zj, hubs.sh, id=str(declined))
    assert again.agreement == f"{declined}/2"
    act(hubs.sh, agreement_acts.accept, declined)
    assert hubs.states(declined)["zj"] == {1: "declined", 2: "in_force"}


def test_a_withdrawal_the_acceptor_has_not_heard_of_wins(hubs: Pair) -> None:
    agreed = named(hubs.propose(hubs.zj, hubs.sh))
    hubs.sh.away = True
    assert isinstance(act(hubs.zj, agreement_acts.decline, agreed).problem, RetriableError)
    hubs.sh.away = False
    refused("agreement-declined", lambda: act(hubs.sh, agreement_acts.accept, agreed))
    assert hubs.states(agreed) == {"zj": {1: "declined"}, "sh": {1: "declined"}}


def test_an_acceptance_counts_once_the_proposer_has_heard_it(hubs: Pair) -> None:
    agreed = named(hubs.propose(hubs.zj, hubs.sh))
    hubs.zj.away = True
    done = act(hubs.sh, agreement_acts.accept, agreed)
    assert done.state == "proposed" and done.problem is not None
    assert hubs.states(agreed) == {"zj": {1: "proposed"}, "sh": {1: "proposed"}}
    refused("agreement-accepted", lambda: act(hubs.sh, agreement_acts.decline, agreed))
    hubs.zj.away = False
    done = act(hubs.sh, agreement_acts.accept, agreed)
    assert (done.state, done.problem) == ("in_force", None)
    assert hubs.states(agreed) == {"zj": {1: "in_force"}, "sh": {1: "in_force"}}


def test_a_lost_reply_is_made_good(hubs: Pair) -> None:
    def lost(to: Hub, message: bytes, carry: Callable[[], bytes]) -> bytes:
        carry()
        raise RetriableError("partner-away", peer=to.name, reason="lost")

    hubs.fate = lost
    done = hubs.propose(hubs.zj, hubs.sh)
    assert done.problem is not None
    agreed = named(done)
    assert act(hubs.sh, agreement_acts.accept, agreed).state == "proposed"
    assert hubs.states(agreed) == {"zj": {1: "in_force"}, "sh": {1: "proposed"}}
    act(hubs.zj, agreement_acts.suspend, agreed, "checking")
    # Who speaks of it has heard the acceptance: the suspension is not lost on a hub that still waits for a word.
    assert hubs.states(agreed) == {"zj": {1: "suspended"}, "sh": {1: "suspended"}}
    hubs.forget_fate()
    for hub in (hubs.zj, hubs.sh):
        with hub.acting():
            assert set(agreement_acts.tell_all().values()) <= {None}
        assert all(row.untold == [] for row in hubs.rows(hub, agreed))
    assert hubs.states(agreed) == {"zj": {1: "suspended"}, "sh": {1: "suspended"}}


def test_suspension_counts_on_both_sides_at_once(hubs: Pair) -> None:
    agreed = hubs.agree()
    assert act(hubs.sh, agreement_acts.suspend, agreed, "misuse").problem is None
    assert hubs.states(agreed) == {"zj": {1: "suspended"}, "sh": {1: "suspended"}}
    for hub in (hubs.zj, hubs.sh):
        assert hubs.rows(hub, agreed)[0].suspended_by == ["sh"]
        assert hubs.rows(hub, agreed)[0].history[-1]["reason"] == "misuse"
    # Only who suspended it can let it go on; both may suspend.
    refused("agreement-not-suspended", lambda: act(hubs.zj, agreement_acts.resume, agreed))
    act(hubs.zj, agreement_acts.suspend, agreed)
    assert act(hubs.sh, agreement_acts.resume, agreed).state == "suspended"
    assert act(hubs.zj, agreement_acts.resume, agreed).state == "in_force"
    assert hubs.states(agreed) == {"zj": {1: "in_force"}, "sh": {1: "in_force"}}


def test_suspension_counts_here_while_the_other_is_away(hubs: Pair) -> None:
    agreed = hubs.agree()
    hubs.sh.away = True
    for _ in range(2):
        done = act(hubs.zj, agreement_acts.suspend, agreed)
        assert done.state == "suspended" and done.problem is not None
    assert hubs.states(agreed) == {"zj": {1: "suspended"}, "sh": {1: "in_force"}}
    assert len(hubs.rows(hubs.zj, agreed)[0].untold) == 1
    hubs.sh.away = False
    assert act(hubs.zj, agreement_acts.suspend, agreed).problem is None  # the same again
    assert hubs.states(agreed) == {"zj": {1: "suspended"}, "sh": {1: "suspended"}}
    hubs.sh.away = True
    act(hubs.zj, agreement_acts.resume, agreed)
    act(hubs.zj, agreement_acts.suspend, agreed)
    act(hubs.zj, agreement_acts.end, agreed)
    hubs.sh.away = False
    hubs.rested()
    with hubs.zj.acting():
        assert list(agreement_acts.tell_all("sh").values()) == [None]
    [there] = hubs.rows(hubs.sh, agreed)
    assert (there.state, there.suspended_by, there.ended_by) == ("suspended", ["zj"], ["zj"])


def test_a_word_of_before_is_not_heard_after_a_later_one(hubs: Pair) -> None:
    agreed = hubs.agree()
    held: list[Callable[[], bytes]] = []

    def delayed(to: Hub, message: bytes, carry: Callable[[], bytes]) -> bytes:
        held.append(carry)
        raise RetriableError("partner-away", peer=to.name, reason="delayed")

    act(hubs.zj, agreement_acts.suspend, agreed)
    hubs.fate = delayed
    act(hubs.zj, agreement_acts.resume, agreed)
    hubs.forget_fate()
    act(hubs.zj, agreement_acts.suspend, agreed)
    assert hubs.states(agreed) == {"zj": {1: "suspended"}, "sh": {1: "suspended"}}
    held[0]()  # the resumption arrives now
    assert hubs.states(agreed) == {"zj": {1: "suspended"}, "sh": {1: "suspended"}}
    assert hubs.outcomes(hubs.sh, "agreement.resume") == ["ok", "ok"]


def test_nobody_ends_it_alone(hubs: Pair) -> None:
    agreed = hubs.agree()
    done = act(hubs.sh, agreement_acts.end, agreed, "no longer needed")
    assert (done.state, done.problem) == ("in_force", None)
    assert hubs.states(agreed) == {"zj": {1: "in_force"}, "sh": {1: "in_force"}}
    assert hubs.rows(hubs.zj, agreed)[0].ended_by == ["sh"]
    act(hubs.sh, agreement_acts.resume, agreed)  # taken back
    assert act(hubs.zj, agreement_acts.end, agreed).state == "in_force"
    assert act(hubs.sh, agreement_acts.end, agreed).state == "ended"
    assert hubs.states(agreed) == {"zj": {1: "ended"}, "sh": {1: "ended"}}
    for what in (agreement_acts.suspend, agreement_acts.resume):
        refused("agreement-not-in-force", lambda what=what: act(hubs.sh, what, agreed))
    assert act(hubs.sh, agreement_acts.end, agreed).state == "ended"


@pytest.mark.parametrize("ahead", ["provider", "receiver"])
def test_who_signed_while_the_clock_was_ahead_may_end_it_once_it_is_right(
    hubs: Pair, monkeypatch: pytest.MonkeyPatch, ahead: str
) -> None:
    """Each word of a hub is later than its last, its signature too: an end of before the signature would not be heeded."""
    right = agreement_acts._now
    wrong = {"provider": hubs.zj, "receiver": hubs.sh}[ahead]

    def now() -> dt.datetime:
        return right() + dt.timedelta(minutes=10) * (signing.own_name() == wrong.name)

    monkeypatch.setattr(agreement_acts, "_now", now)
    agreed = hubs.agree(hubs.zj, hubs.sh)
    monkeypatch.setattr(agreement_acts, "_now", right)
    act(hubs.zj, agreement_acts.end, agreed)
    act(hubs.sh, agreement_acts.end, agreed)
    assert hubs.states(agreed) == {"zj": {1: "ended"}, "sh": {1: "ended"}}


def test_a_version_signed_after_an_end_said_by_a_clock_that_was_ahead_has_not_ended(
    hubs: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    agreed = hubs.agree(hubs.zj, hubs.sh)
    right = agreement_acts._now
    monkeypatch.setattr(agreement_acts, "_now", lambda: right() + dt.timedelta(minutes=10))
    act(hubs.zj, agreement_acts.end, agreed)
    monkeypatch.setattr(agreement_acts, "_now", right)
    again = hubs.propose(hubs.zj, hubs.sh, id=str(agreed))
    act(hubs.sh, agreement_acts.accept, named(again))
    for hub in (hubs.zj, hubs.sh):
        assert not hubs.rows(hub, agreed)[0].ended_by, "who signs a later version wants the end no more"


def test_both_ends_crossing(hubs: Pair) -> None:
    agreed = hubs.agree()
    hubs.zj.away = hubs.sh.away = True
    act(hubs.zj, agreement_acts.end, agreed)
    act(hubs.sh, agreement_acts.end, agreed)
    hubs.zj.away = hubs.sh.away = False
    for hub in (hubs.zj, hubs.sh):
        with hub.acting():
            agreement_acts.tell_all()
        assert hubs.rows(hub, agreed)[0].untold == []
    assert hubs.states(agreed) == {"zj": {1: "ended"}, "sh": {1: "ended"}}


def test_a_new_version_takes_the_place_of_the_old_one(hubs: Pair) -> None:
    agreed = hubs.agree()
    hubs.propose(hubs.zj, hubs.sh, id=str(agreed), modes=["evidence"])
    assert hubs.states(agreed) == {"zj": {1: "in_force", 2: "proposed"}, "sh": {1: "in_force", 2: "proposed"}}
    act(hubs.sh, agreement_acts.accept, agreed)
    assert hubs.states(agreed) == {"zj": {1: "superseded", 2: "in_force"}, "sh": {1: "superseded", 2: "in_force"}}
    # A proposal that is not accepted yet is replaced by its proposer's next one.
    hubs.propose(hubs.sh, hubs.zj, id=str(agreed), modes=["index"])
    hubs.propose(hubs.sh, hubs.zj, id=str(agreed), modes=["share"])
    assert hubs.states(agreed)["zj"] == {1: "superseded", 2: "in_force", 3: "superseded", 4: "proposed"}
    refused("agreement-version-old", lambda: act(hubs.zj, agreement_acts.accept, agreed, 3))


def test_a_version_for_later_leaves_no_gap(hubs: Pair) -> None:
    agreed = hubs.agree()
    start = (dt.datetime.now(dt.UTC) + dt.timedelta(days=30)).replace(second=0, microsecond=0)
    hubs.propose(hubs.zj, hubs.sh, id=str(agreed), valid_from=start.isoformat())
    act(hubs.sh, agreement_acts.accept, agreed)
    assert hubs.states(agreed) == {"zj": {1: "in_force", 2: "in_force"}, "sh": {1: "in_force", 2: "in_force"}}
    minute = dt.timedelta(minutes=1)
    for hub in (hubs.zj, hubs.sh):
        with hub.acting() as engine, engine.connect() as connection:
            for now, good, bad, code in (
                (start - minute, 1, 2, "agreement-not-in-force"), (start, 2, 1, "agreement-version-old"),
            ):  # fmt: skip
                peer = "sh" if hub is hubs.zj else "zj"
                provider = hub is hubs.zj
                agreements.admit(connection, peer, f"{agreed}/{good}", mode="index", provider=provider, now=now)
                with pytest.raises(UsageError) as caught:
                    agreements.admit(connection, peer, f"{agreed}/{bad}", mode="index", provider=provider, now=now)
                assert caught.value.code == code
    act(hubs.sh, agreement_acts.suspend, agreed)
    assert set(hubs.states(agreed)["zj"].values()) == {"suspended"}


def test_who_suspended_it_still_does_under_a_new_version(hubs: Pair) -> None:
    agreed = hubs.agree()
    hubs.sh.away = True
    act(hubs.zj, agreement_acts.suspend, agreed)
    hubs.sh.away = False
    # Shanghai has not heard; it proposes, Zhejiang accepts, and does not thereby resume.
    hubs.propose(hubs.sh, hubs.zj, id=str(agreed), modes=["evidence"])
    assert act(hubs.zj, agreement_acts.accept, agreed).state == "suspended"
    assert hubs.states(agreed) == {"zj": {1: "superseded", 2: "suspended"}, "sh": {1: "superseded", 2: "suspended"}}
    assert act(hubs.zj, agreement_acts.resume, agreed).state == "in_force"
    assert hubs.states(agreed)["sh"][2] == "in_force"


def test_crossed_proposals_are_refused(hubs: Pair) -> None:
    agreed = hubs.agree()
    hubs.zj.away = hubs.sh.away = True
    hubs.propose(hubs.zj, hubs.sh, id=str(agreed), modes=["index"])
    hubs.propose(hubs.sh, hubs.zj, id=str(agreed), modes=["evidence"])
    hubs.zj.away = hubs.sh.away = False
    with hubs.zj.acting():
        [problem] = agreement_acts.tell_all().values()
    assert problem is not None and problem.values["code"] == "agreement-crossed"
    assert hubs.states(agreed) == {"zj": {1: "in_force", 2: "declined"}, "sh": {1: "in_force", 2: "proposed"}}
    with hubs.sh.acting():
        [problem] = agreement_acts.tell_all().values()
    assert problem is not None and problem.values["code"] == "agreement-altered"
    assert hubs.states(agreed) == {"zj": {1: "in_force", 2: "declined"}, "sh": {1: "in_force", 2: "declined"}}
    hubs.propose(hubs.sh, hubs.zj, id=str(agreed), modes=["evidence"])
    refused("agreement-crossed", lambda: hubs.propose(hubs.zj, hubs.sh, id=str(agreed)))  # one of theirs waits
    act(hubs.zj, agreement_acts.accept, agreed)
    assert hubs.states(agreed)["zj"] == {1: "superseded", 2: "declined", 3: "in_force"}


def test_a_refused_proposal_keeps_no_word_back(hubs: Pair) -> None:
    agreed = hubs.agree()
    hubs.zj.away = hubs.sh.away = True
    hubs.propose(hubs.zj, hubs.sh, id=str(agreed), modes=["index"])
    hubs.propose(hubs.sh, hubs.zj, id=str(agreed), modes=["evidence"])
    hubs.zj.away = hubs.sh.away = False
    done = act(hubs.zj, agreement_acts.suspend, agreed)
    assert (done.state, done.problem) == ("suspended", None)
    assert hubs.states(agreed) == {"zj": {1: "suspended", 2: "declined"}, "sh": {1: "suspended", 2: "proposed"}}


def test_wishes_for_an_end_that_met(hubs: Pair) -> None:
    """One side takes its wish back while the other, whose own was not heard yet, has ended it."""
    agreed = hubs.agree()
    hubs.zj.away = True
    act(hubs.sh, agreement_acts.end, agreed)
    hubs.zj.away = False

    def lost(to: Hub, message: bytes, carry: Callable[[], bytes]) -> bytes:
        carry()
        raise RetriableError("partner-away", peer=to.name, reason="lost")

    hubs.fate = lost
    act(hubs.zj, agreement_acts.end, agreed)
    assert hubs.states(agreed) == {"zj": {1: "in_force"}, "sh": {1: "ended"}}
    hubs.forget_fate()
    assert act(hubs.zj, agreement_acts.resume, agreed).state == "ended"
    assert hubs.states(agreed) == {"zj": {1: "ended"}, "sh": {1: "ended"}}
    # A version that both sign afterwards brings it back, and no word of before ends that.
    hubs.propose(hubs.zj, hubs.sh, id=str(agreed))
    act(hubs.sh, agreement_acts.accept, agreed)
    assert hubs.states(agreed) == {"zj": {1: "ended", 2: "in_force"}, "sh": {1: "ended", 2: "in_force"}}
    for hub in (hubs.zj, hubs.sh):
        with hub.acting():
            agreement_acts.tell_all()
        assert hubs.rows(hub, agreed)[0].ended_by == []


def test_nobody_ends_it_by_saying_so(hubs: Pair) -> None:
    agreed = hubs.agree()

    def ended(to: Hub, message: bytes, carry: Callable[[], bytes]) -> bytes:
        with to.acting() as engine, engine.begin() as connection:
            connection.exec_driver_sql("UPDATE exchange_agreement SET state = 'ended', ended_by = '{sh,zj}'")
        return carry()

    hubs.fate = ended  # the partner alone thinks so
    assert act(hubs.zj, agreement_acts.suspend, agreed).state == "suspended"
    assert act(hubs.zj, agreement_acts.resume, agreed).state == "in_force"
    assert act(hubs.zj, agreement_acts.end, agreed).state == "ended"


def test_what_cannot_be_proposed(hubs: Pair) -> None:
    refused("peer-unknown", lambda: hubs.propose(hubs.zj, Hub("ah", {})))
    refused("agreement-file", lambda: hubs.propose(hubs.zj, hubs.sh, provider="js"))
    refused("agreement-unknown", lambda: hubs.propose(hubs.zj, hubs.sh, id=str(uuid.uuid4())))
    refused("agreement-over", lambda: hubs.propose(hubs.zj, hubs.sh, valid_to="2026-02-01"))
    agreed = hubs.agree()
    swapped = {"provider": "sh", "receiver": "zj", "regions": ["31"]}
    refused("agreement-swapped", lambda: hubs.propose(hubs.zj, hubs.sh, id=str(agreed), **swapped))
    with hubs.zj.acting():
        refused("reason-names-somebody", lambda: agreement_acts.suspend(agreed, "t", "of 11010519491231002X"))
    assert hubs.states(agreed)["zj"] == {1: "in_force"}


def test_what_is_kept_altered_is_not_signed(hubs: Pair) -> None:
    agreed = named(hubs.propose(hubs.zj, hubs.sh))
    with hubs.sh.acting() as engine, engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE exchange_agreement SET document = convert_to(replace(convert_from(document, 'UTF8'), '\"33\"', '\"3301\"'), 'UTF8')"
        )
    with pytest.raises(FatalError) as caught:
        act(hubs.sh, agreement_acts.accept, agreed)
    assert caught.value.code == "agreement-broken"
