"""What another hub may say of agreements, and what is refused however well it is signed."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from connectors import signature
from hub.exchange import (
    agreement_acts,
    agreement_messages,
    agreement_states,
    agreement_terms,
    agreements,
    caller,
    epochs,
    keys,
)
from hub.exchange.agreement_terms import Terms
from hub.home import Home
from tests import terms
from tests.twohubs import Hub, Pair, pair


@pytest.fixture(scope="module")
def made(server_home: Home, template: str) -> Iterator[Pair]:
    with pair(server_home, template) as hubs:
        yield hubs


@pytest.fixture
def hubs(made: Pair) -> Pair:
    made.forget()
    return made


AT = "2026-03-01T00:00:00Z"


def signed(hub: Hub, document: bytes, kind: str = agreement_terms.TYPE) -> str:
    with hub.acting():
        return signature.detached(document, keys.own().signing(agreement_acts._now()), kind)


def proposal(signer: Hub, told: Terms | bytes) -> dict[str, str]:
    document = told if isinstance(told, bytes) else agreement_terms.canonical(told)
    return {"document": document.decode(), "signature": signed(signer, document), "at": AT}


def count(hub: Hub) -> int:
    with hub.acting() as engine, engine.connect() as connection:
        return len(agreements.every(connection))


def test_a_time_outside_of_all_years_is_no_fault_of_this_hub(hubs: Pair) -> None:
    told = {**proposal(hubs.zj, terms.terms(NAMED)), "at": "0001-01-01T00:00:00+14:00"}
    assert hubs.say(hubs.zj, hubs.sh, "agreement.propose", told)["status"] == "message-body"
    assert count(hubs.sh) == 0


def test_a_proposal_is_taken_once_and_may_be_repeated(hubs: Pair) -> None:
    body = proposal(hubs.zj, terms.terms(named := uuid.uuid4()))
    for _ in range(2):
        assert hubs.say(hubs.zj, hubs.sh, "agreement.propose", body) == {
            "status": "ok", "agreement": f"{named}/1", "state": "proposed",
        }  # fmt: skip
    assert count(hubs.sh) == 1
    # Where the proposer knows of no such proposal, an acceptance brings nothing into force.
    with hubs.sh.acting(), pytest.raises(caller.PartnerProblem) as caught:
        agreement_acts.accept(named, "tester")
    assert caught.value.values["code"] == "agreement-unknown"
    assert hubs.states(named) == {"zj": {}, "sh": {1: "declined"}}


NAMED = uuid.UUID("0199c0de-0000-7000-8000-00000000000a")
FORGED: dict[str, tuple[str, Callable[[Pair], dict[str, Any]]]] = {
    "another hub's signature": ("agreement-signature", lambda hubs: proposal(hubs.js, terms.terms(NAMED))),
    "the receiver's own signature": ("agreement-signature", lambda hubs: proposal(hubs.sh, terms.terms(NAMED))),
    "signed as something else": ("agreement-signature", lambda hubs: {
        **proposal(hubs.zj, document := agreement_terms.canonical(terms.terms(NAMED))),
        "signature": signed(hubs.zj, document, signature.EVIDENCE),
    }),
    "no signature": ("agreement-signature", lambda hubs: {**proposal(hubs.zj, terms.terms(NAMED)), "signature": ""}),
    "terms altered after signing": ("agreement-signature", lambda hubs: {
        **proposal(hubs.zj, terms.terms(NAMED, regions=["33"])),
        "document": agreement_terms.canonical(terms.terms(NAMED, regions=["3301"])).decode(),
    }),
    "roles swapped after signing": ("agreement-signature", lambda hubs: {
        **proposal(hubs.zj, terms.terms(NAMED)),
        "document": agreement_terms.canonical(
            terms.terms(NAMED, provider="sh", receiver="zj", regions=["31"])).decode(),
    }),
    "between others": ("agreement-foreign", lambda hubs: proposal(hubs.zj, terms.terms(NAMED, receiver="js"))),
    "for another": ("agreement-foreign", lambda hubs: proposal(
        hubs.zj, terms.terms(NAMED, provider="js", receiver="sh", regions=["32"]))),
    "not canonical": ("agreement-document", lambda hubs: proposal(
        hubs.zj, agreement_terms.canonical(terms.terms(NAMED)).replace(b":", b": ", 1))),
    "a member more": ("agreement-document", lambda hubs: proposal(
        hubs.zj, agreement_terms.canonical(terms.terms(NAMED)).replace(b"{", b'{"a":1,', 1))),
    "beyond the provider's region": ("agreement-terms", lambda hubs: proposal(
        hubs.zj, terms.terms(NAMED, regions=["31"]))),
    "not shared at all": ("agreement-terms", lambda hubs: proposal(
        hubs.zj, terms.terms(NAMED, materials={"food-safety-rules": "*"}))),
    "fields nobody knows": ("agreement-terms", lambda hubs: proposal(
        hubs.zj, terms.terms(NAMED, materials={"business-licence": ["attributes.salary"]}))),
    "over": ("agreement-over", lambda hubs: proposal(hubs.zj, terms.terms(NAMED, valid_to="2026-02-01"))),
    "no form": ("message-body", lambda hubs: {"document": 7}),
}  # fmt: skip


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_proposal_is_refused_and_recorded(hubs: Pair, how: str) -> None:
    code, make = FORGED[how]
    told = hubs.say(hubs.zj, hubs.sh, "agreement.propose", make(hubs))
    assert (told["status"], told["code"], told["fault"]) == (code, code, "caller") and told["detail"]
    assert count(hubs.sh) == 0
    assert hubs.outcomes(hubs.sh, "agreement.propose") == [code]


def test_all_reasons_against_the_terms_are_told_at_once(hubs: Pair) -> None:
    body = proposal(hubs.zj, terms.terms(NAMED, regions=["31"], materials={"food-safety-rules": "*", "passport": "*"}))
    reasons = hubs.say(hubs.zj, hubs.sh, "agreement.propose", body)["values"]["reasons"]
    assert [part in reasons for part in ("31 is not within 33", "food-safety-rules", "passport")] == [True] * 3


def test_an_id_is_one_agreement_with_one_hub_in_one_direction(hubs: Pair) -> None:
    agreed = hubs.agree()
    other = terms.terms(agreed, 2, provider="js", regions=["32"])
    assert hubs.say(hubs.js, hubs.sh, "agreement.propose", proposal(hubs.js, other))["status"] == "agreement-taken"
    first = terms.terms(agreed, 1, provider="js", regions=["32"])
    assert hubs.say(hubs.js, hubs.sh, "agreement.propose", proposal(hubs.js, first))["status"] == "agreement-taken"
    swapped = terms.terms(agreed, 2, provider="sh", receiver="zj", regions=["31"])
    assert hubs.say(hubs.zj, hubs.sh, "agreement.propose", proposal(hubs.zj, swapped))["status"] == "agreement-swapped"
    for kind, body in (
        ("agreement.suspend", {"agreement": f"{agreed}/1", "at": "2026-03-01T00:00:00Z"}),
        ("agreement.end", {"agreement": f"{agreed}/1", "at": "2026-03-01T00:00:00Z"}),
        ("agreement.decline", {"agreement": f"{agreed}/1", "digest": "0" * 64}),
        ("agreement.accept", {"agreement": f"{agreed}/1", "digest": "0" * 64, "signature": "a..b", "at": AT}),
    ):
        assert hubs.say(hubs.js, hubs.sh, kind, body)["status"] == "agreement-unknown"
    assert hubs.states(agreed) == {"zj": {1: "in_force"}, "sh": {1: "in_force"}}


def test_what_was_said_before_is_not_taken_again(hubs: Pair) -> None:
    agreed = hubs.agree()
    first = hubs.rows(hubs.zj, agreed)[0]
    replayed = {"document": bytes(first.document).decode(), "signature": first.own_signature, "at": AT}
    accepted = {"at": AT, "agreement": f"{agreed}/1", "digest": agreement_terms.digest(bytes(first.document))}
    assert hubs.say(hubs.zj, hubs.sh, "agreement.propose", replayed)["status"] == "agreement-accepted"
    other = terms.terms(agreed, 1, modes=["share"])
    assert hubs.say(hubs.zj, hubs.sh, "agreement.propose", proposal(hubs.zj, other))["status"] == "agreement-altered"
    again = {**accepted, "signature": first.peer_signature}
    assert hubs.say(hubs.sh, hubs.zj, "agreement.accept", again)["status"] == "agreement-accepted"

    hubs.propose(hubs.zj, hubs.sh, id=str(agreed), modes=["evidence"])
    with hubs.sh.acting():
        agreement_acts.accept(agreed, "tester")
    for body in (replayed, proposal(hubs.zj, other)):
        assert hubs.say(hubs.zj, hubs.sh, "agreement.propose", body)["status"] == "agreement-version-old"
    assert hubs.say(hubs.sh, hubs.zj, "agreement.accept", again)["status"] == "agreement-version-old"
    assert hubs.states(agreed) == {"zj": {1: "superseded", 2: "in_force"}, "sh": {1: "superseded", 2: "in_force"}}


def test_an_acceptance_has_to_be_the_other_sides_and_of_these_terms(hubs: Pair) -> None:
    done = hubs.propose(hubs.zj, hubs.sh)
    agreed = uuid.UUID(done.agreement.partition("/")[0])
    [row] = hubs.rows(hubs.zj, agreed)
    document = bytes(row.document)
    said = {"agreement": done.agreement, "digest": agreement_terms.digest(document), "at": AT}
    other = agreement_terms.canonical(terms.terms(agreed, 1, regions=["3301"]))
    for body, code in (
        ({**said, "signature": signed(hubs.zj, document)}, "agreement-signature"),
        ({**said, "signature": signed(hubs.js, document)}, "agreement-signature"),
        ({**said, "signature": signed(hubs.sh, other)}, "agreement-signature"),
        ({**said, "signature": signed(hubs.sh, other), "digest": agreement_terms.digest(other)}, "agreement-altered"),
        ({**said, "signature": signed(hubs.sh, document), "agreement": f"{agreed}/2"}, "agreement-unknown"),
    ):
        assert hubs.say(hubs.sh, hubs.zj, "agreement.accept", body)["status"] == code
    # Nobody accepts what it proposed itself.
    own = {**said, "signature": row.own_signature}
    assert hubs.say(hubs.zj, hubs.sh, "agreement.accept", own)["status"] == "agreement-own"
    assert hubs.states(agreed) == {"zj": {1: "proposed"}, "sh": {1: "proposed"}}
    good = {**said, "signature": signed(hubs.sh, document)}
    assert hubs.say(hubs.sh, hubs.zj, "agreement.accept", good)["state"] == "in_force"


def test_a_decline_is_of_the_terms_that_were_seen(hubs: Pair) -> None:
    done = hubs.propose(hubs.zj, hubs.sh)
    agreed = uuid.UUID(done.agreement.partition("/")[0])
    said = {"agreement": done.agreement, "digest": "0" * 64}
    assert hubs.say(hubs.sh, hubs.zj, "agreement.decline", said)["status"] == "agreement-altered"
    said["digest"] = agreement_terms.digest(bytes(hubs.rows(hubs.zj, agreed)[0].document))
    for _ in range(2):
        assert hubs.say(hubs.sh, hubs.zj, "agreement.decline", said)["status"] == "ok"
    assert hubs.states(agreed)["zj"] == {1: "declined"}
    agreed = hubs.agree()
    said = {"agreement": f"{agreed}/1", "digest": agreement_terms.digest(bytes(hubs.rows(hubs.zj, agreed)[0].document))}
    assert hubs.say(hubs.sh, hubs.zj, "agreement.decline", said)["status"] == "agreement-accepted"


def test_a_suspension_counts_whatever_its_reason_says(hubs: Pair) -> None:
    agreed = hubs.agree()
    for place, reason in enumerate(("of 11010519491231002X", "\x1b[2J", "x" * 501, "", "misuse")):
        said = {"agreement": f"{agreed}/1", "at": f"2026-03-01T00:00:0{place}Z", "reason": reason, "later": ["member"]}
        assert hubs.say(hubs.sh, hubs.zj, "agreement.suspend", said)["state"] == "suspended"
    kept = [entry["reason"] for entry in hubs.rows(hubs.zj, agreed)[0].history if entry["hub"] == "sh"]
    assert kept == [None, None, None, None, None, "misuse"]  # the first is of the acceptance
    assert hubs.rows(hubs.zj, agreed)[0].suspended_by == ["sh"]


def test_an_end_from_before_the_signature_is_not_heeded(hubs: Pair) -> None:
    agreed = hubs.agree()
    signed_at = hubs.rows(hubs.zj, agreed)[0].history[-1]["at"]
    said = {"agreement": f"{agreed}/1", "at": signed_at}
    assert hubs.say(hubs.sh, hubs.zj, "agreement.end", said)["state"] == "in_force"
    assert hubs.rows(hubs.zj, agreed)[0].ended_by == []
    # A suspension of before does count: signing takes none back.
    assert hubs.say(hubs.sh, hubs.zj, "agreement.suspend", {**said, "at": AT})["state"] == "suspended"
    later = dt.datetime.fromisoformat(signed_at) + dt.timedelta(seconds=1)
    assert hubs.say(hubs.sh, hubs.zj, "agreement.end", {**said, "at": later.isoformat()})["state"] == "suspended"
    assert hubs.rows(hubs.zj, agreed)[0].ended_by == ["sh"]


def test_the_history_is_bounded_and_keeps_what_matters(hubs: Pair) -> None:
    agreed = hubs.agree()
    for number in range(2 * agreement_states.KEPT):
        kind = ("agreement.suspend", "agreement.resume")[number % 2]
        at = f"2026-03-01T00:00:{number % 60:02}.{number:06}Z" if number < 60 else f"2026-03-01T00:01:00.{number:06}Z"
        hubs.say(hubs.sh, hubs.zj, kind, {"agreement": f"{agreed}/1", "at": at})
    [row] = hubs.rows(hubs.zj, agreed)
    mine = [entry for entry in row.history if entry["hub"] == "sh"]
    assert len(mine) == agreement_states.KEPT and mine[0]["kind"] == "agreement.accept"
    assert row.history[0]["hub"] == "zj" and agreement_states.proposed_here(row)
    early = {"agreement": f"{agreed}/1", "at": "2026-02-01T00:00:00Z"}
    assert hubs.say(hubs.sh, hubs.zj, "agreement.suspend", early)["state"] == row.state == "in_force"


def test_proposals_that_wait_are_bounded(hubs: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement_states, "OPEN", 2)
    told = [
        hubs.say(hubs.zj, hubs.sh, "agreement.propose", proposal(hubs.zj, terms.terms(uuid.uuid4())))["status"]
        for _ in range(3)
    ]
    assert told == ["ok", "ok", "agreement-too-many"]
    assert hubs.propose(hubs.sh, hubs.zj).problem is None


def test_the_ledger_says_what_was_decided(hubs: Pair) -> None:
    agreed = hubs.agree()
    with hubs.sh.acting():
        agreement_acts.suspend(agreed, "tester", "misuse of the scope")
    query = (
        "SELECT kind, agreement, outcome, detail FROM exchange_record WHERE direction = :way ORDER BY recorded_at, id"
    )
    said = {}
    for hub, way in ((hubs.sh, "asked"), (hubs.zj, "answered")):
        with hub.acting() as engine, engine.connect() as connection:
            said[hub.name] = connection.exec_driver_sql(query.replace(":way", f"'{way}'")).all()
    assert [(row.kind, row.agreement, row.outcome) for row in said["zj"]] == [
        ("agreement.accept", f"{agreed}/1", "ok"), ("agreement.suspend", f"{agreed}/1", "ok"),
    ]  # fmt: skip
    assert [(row.kind, row.outcome) for row in said["sh"]] == [
        ("agreement.accept", "sent"), ("agreement.accept", "ok"), ("agreement.suspend", "sent"), ("agreement.suspend", "ok"),
    ]  # fmt: skip
    assert orjson.loads(said["zj"][1].detail) == {"agreement": f"{agreed}/1", "state": "suspended"}
    assert "misuse" not in str(said)


def test_every_kind_is_answered() -> None:
    named = {getattr(agreement_states, name) for name in ("PROPOSE", "ACCEPT", "DECLINE", "SUSPEND", "RESUME", "END")}
    assert set(agreement_messages.KINDS) == {*named, epochs.KIND}
    for name, kind in agreement_messages.KINDS.items():
        assert (kind.once, kind.needs_agreement) == (name in named, name not in named)
