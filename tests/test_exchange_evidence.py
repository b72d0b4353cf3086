"""Evidence asked of another hub, the side that holds it: what it gives, to whom, how little of it, once, and what it says no to."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from connectors import envelope
from connectors.errors import RetriableError, UsageError, YiciError
from hub import agreements as clients
from hub import home, subject_view
from hub.api.evidence import EvidenceShown
from hub.exchange import agreement_acts, caller, peers
from hub.home import Home
from mappings import model
from tests import evidencing, exchanging, linked, stored
from tests.evidencing import CASE, FIRM, ITEM, LICENCE, OTHER, PURPOSE, Exchange
from tests.linked import Said

PERSON, PASSPORT = f"cn.ric:{stored.RESIDENT}", "passport:E12345678"
HOLDER = ("holder", "cn.uscc", FIRM)


@pytest.fixture(scope="module")
def made(server_home: Home, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    folder = tmp_path_factory.mktemp("hubs")
    with evidencing.exchange(server_home, template, folder, "tests.exchange_server") as both:
        yield both


@pytest.fixture
def hubs(made: Exchange) -> Exchange:
    made.forget()
    return made


def holders(*texts: str) -> list[dict[str, str]]:
    return [dict(zip(("scheme", "value"), text.split(":", 1), strict=True)) for text in texts]


def test_the_columns_agreed_are_given_and_both_hubs_write_it_down(hubs: Exchange) -> None:
    agreement, key = hubs.agree(), hubs.firm()
    named = hubs.handle(agreement, key)
    reply = hubs.ask(agreement, **named)
    body = json.loads(reply.body)
    EvidenceShown.model_validate(body, strict=True)
    assert body["certificate"] == {
        "certificate_number": "330106000000001", "name": "营业执照", "valid_to": "2999-01-01", "status": "in_force",
        "holders": [{"role": "holder", "scheme": "cn.uscc", "value": FIRM, "name": None}],
        "attributes": {"registered_on": "2019-08-01"},
    }  # fmt: skip
    assert (body["holding"], body["material"]) == (named["handle"], LICENCE)
    assert set(body["fields"]) == set(evidencing.COLUMNS)
    assert body["source"]["source"] == evidencing.REGISTER and not body["source"]["late"]
    given = body["given"]
    assert (given["hub"], given["client"], given["purpose"], given["case"], given["item"], given["answer"]) == (
        "zj", "sh", PURPOSE, CASE, ITEM, str(reply.envelope.reply_to),
    )  # fmt: skip
    assert key not in reply.body.decode(), "what a holding is called here is nobody's business elsewhere"

    [row] = hubs.given()
    assert (row.holding.hex(), row.client, row.receiver, row.provider, row.purpose, row.case, row.item) == (
        key, "sh", "sh", None, PURPOSE, CASE, ITEM,
    )  # fmt: skip
    assert (row.material, row.fields, row.digest) == (LICENCE, body["fields"], hashlib.sha256(reply.body).digest())
    with hubs.zj.acting():
        assert row.applicant == home.keyed_hash().of(f"cn.uscc:{FIRM}")
    for hub, direction in ((hubs.zj, "answered"), (hubs.sh, "asked")):
        *before, record = hub.rows("SELECT * FROM exchange_record WHERE kind = 'evidence.request' ORDER BY id")
        assert [one.outcome for one in before] == (["sent"] if hub is hubs.sh else []), "before it leaves"
        assert (record.direction, record.outcome, record.agreement) == (direction, "ok", agreement.reference)
        assert record.reply == reply.sealed and FIRM not in str(record)
        for sealed in (record.request, record.reply):
            told = envelope.read(f"{sealed}\n".encode()).envelope
            assert FIRM not in repr(told)
        assert envelope.read(f"{record.request}\n".encode()).envelope.case == CASE
        if hub is hubs.zj:
            assert json.loads(record.detail) == {
                "purpose": PURPOSE, "material": LICENCE, "fields": body["fields"], "item": ITEM, "case": CASE,
            }  # fmt: skip


def test_the_person_sees_that_another_hub_fetched_it_and_why(hubs: Exchange) -> None:
    agreement = hubs.agree()
    key, _ = hubs.firm(), hubs.hold(("holder", "cn.uscc", OTHER))
    hubs.ask(agreement)
    with hubs.zj.acting() as engine:
        clients.add("sh", None, "a hall called alike", [ITEM], ["handle"])
        shown = subject_view.view(engine, f"cn.uscc:{FIRM}", client="portal", purpose="own")
        other = subject_view.view(engine, f"cn.uscc:{OTHER}", client="portal", purpose="own")
    [entry] = shown["fetched"]["entries"]
    assert (entry["holding"], entry["client"], entry["client_name"]) == (key, "sh", "Hub sh")
    assert (entry["receiver"], entry["provider"], entry["purpose"], entry["case"]) == ("sh", None, PURPOSE, CASE)
    assert other["fetched"]["entries"] == []


def test_no_byte_leaves_that_was_not_asked_for_and_agreed(hubs: Exchange) -> None:
    """Every column says a word of its own: a reply has the words of the columns that were both agreed and asked for."""
    material = model.load(LICENCE)
    every = clients.columns(material)
    agreed = {name for place, name in enumerate(every) if place % 3}
    words = {name: f"word{place:03d}" for place, name in enumerate(every)}
    dates = {"issued_on", "valid_from", "valid_to", "status"}
    said: dict[str, Any] = {
        name: word for name, word in words.items() if "." not in name and name not in {*dates, "region"}
    }
    said["attributes"] = {name: words[f"attributes.{name}"] for name in material.attributes}
    said["holders"] = [
        {"role": "holder", "scheme": "cn.uscc", "value": FIRM, "name": words["holder.holder"]},
        {"role": "former", "scheme": "cn.uscc", "value": OTHER, "name": "word999"},
    ]
    said["secret"] = "word998"
    agreement, key = hubs.agree(materials={LICENCE: sorted(agreed)}), hubs.firm(valid_to=None)
    evidencing.document(hubs, key, said)
    for asked in (None, [], *([name] for name in sorted(agreed)), sorted(agreed)[:4]):
        wanted = agreed if asked is None else set(asked)
        reply = hubs.ask(agreement, **({} if asked is None else {"fields": asked})).body.decode()
        told = json.loads(reply)
        assert set(told["fields"]) == wanted
        found = {name for name, word in words.items() if word in reply}
        assert found == {name for name in wanted if name not in {*dates, "region"}}, asked
        assert {name for name in told["certificate"] if name not in ("holders", "attributes")} == {
            name for name in wanted if "." not in name
        }
        assert "word999" not in reply and "word998" not in reply and OTHER not in reply
        assert (FIRM in reply) == ("holder.holder" in wanted)
    before = len(hubs.given())
    for name in sorted(set(every) - agreed):
        with pytest.raises(YiciError) as refused:
            hubs.ask(agreement, fields=[name])
        assert refused.value.values["code"] == "field-not-agreed"
    assert len(hubs.given()) == before


def test_two_hubs_cannot_compare_what_they_were_told(hubs: Exchange) -> None:
    """What a certificate and its version are called is of one agreement."""
    hubs.firm()
    one, other = (json.loads(hubs.ask(hubs.agree()).body) for _ in range(2))
    assert one["certificate"] == other["certificate"]
    assert one["holding"] != other["holding"] and one["version"] != other["version"]


@pytest.mark.parametrize(("changes", "members", "code"), [
    ({"modes": ["index"]}, {}, "mode-not-agreed"),
    ({}, {"purpose": "curiosity"}, "purpose-not-agreed"),
    ({}, {"purpose": None}, "purpose-not-agreed"),
])  # fmt: skip
def test_what_is_not_agreed_is_not_even_asked(hubs: Exchange, changes: Any, members: Any, code: str) -> None:
    agreement = hubs.agree(**changes)
    hubs.firm()
    with pytest.raises(UsageError) as refused:
        hubs.ask(agreement, **members)
    assert refused.value.code == code
    assert hubs.zj.rows("SELECT FROM exchange_record WHERE kind = 'evidence.request'") == []


@pytest.mark.parametrize(("changes", "members", "code"), [
    ({"modes": ["index"]}, {}, "mode-not-agreed"),
    ({}, {"purpose": "curiosity"}, "purpose-not-agreed"),
    ({}, {"purpose": None}, "purpose-not-agreed"),
    ({}, {"agreement": None}, "agreement-unknown"),
    ({}, {"agreement": "01986f00-0000-7000-8000-00000000a001/1"}, "agreement-unknown"),
    ({}, {"case": None}, "case-missing"),
    ({}, {"case": stored.RESIDENT}, "case-names-somebody"),
])  # fmt: skip
def test_the_holder_checks_it_whoever_asks(hubs: Exchange, changes: Any, members: Any, code: str) -> None:
    """A hub that asks without checking first."""
    agreement = hubs.agree(**changes)
    hubs.firm()
    body = json.dumps({"material": LICENCE, "holders": holders(f"cn.uscc:{FIRM}"), "item": ITEM}).encode()
    told = {"agreement": agreement.reference, "purpose": PURPOSE, "case": CASE, **members}
    message = exchanging.question(hubs.sh, hubs.zj, "evidence.request", body, **told)
    reply = exchanging.send(hubs.sh, hubs.zj, message)
    assert reply.envelope.status == code and hubs.given() == []
    assert exchanging.problem(reply)["fault"] == "caller"
    assert hubs.zj.outcomes(message.envelope.id) == [code]
    assert FIRM not in reply.body.decode() and stored.RESIDENT not in str(hubs.zj.rows("SELECT * FROM exchange_record"))


@pytest.mark.parametrize(("members", "code"), [
    ({"material": "resident-id-card"}, "material-not-agreed"),
    ({"material": "no-such-thing"}, "material-not-agreed"),
    ({"material": "food-safety-rules"}, "material-not-agreed"),  # is not shared
    ({"fields": ["name", "attributes.enterprise_type"]}, "field-not-agreed"),
    ({"fields": ["*"]}, "field-not-agreed"),
    ({"holders": holders(f"cn.uscc:{OTHER}")}, "holding-unknown"),
    ({"holders": holders("cn.uscc:91310117MA1J3AJ43X")}, "identifier-invalid"),
    ({"holders": holders(f"cn.regno:{FIRM}")}, "identifier-invalid"),
    ({"role": "guarantor"}, "holding-unknown"),
    ({"holders": []}, "message-body"),
    ({"holders": "cn.uscc"}, "message-body"),
    ({"handle": "00" * 16}, "message-body"),
    ({"epoch": "2026"}, "message-body"),
    ({"handle": "00" * 16, "epoch": "2026"}, "holding-unknown"),
    ({"item": stored.RESIDENT}, "message-body"),
    ({"material": None}, "message-body"),
])  # fmt: skip
def test_default_deny(hubs: Exchange, members: Any, code: str) -> None:
    agreement = hubs.agree()
    hubs.firm()
    assert hubs.refused(agreement, **members)["code"] == code


def test_records_of_other_regions_are_not_even_there(hubs: Exchange) -> None:
    agreement = hubs.agree(regions=["3301"])
    key = hubs.firm(region="330203")
    assert hubs.refused(agreement)["code"] == "holding-unknown"
    assert hubs.refused(agreement, **hubs.handle(agreement, key))["code"] == "holding-unknown"
    hubs.firm(region="310101")
    assert hubs.refused(agreement)["code"] == "holding-unknown"
    hubs.firm(region=None)  # of its source's region, which is wider than what is agreed
    assert hubs.refused(agreement)["code"] == "holding-unknown"
    near = hubs.firm(region="330106")
    assert hubs.ask(agreement).envelope.status == "ok"
    assert [row.holding.hex() for row in hubs.given()] == [near]


def test_another_ones_certificate_is_not_given_for_its_handle(hubs: Exchange) -> None:
    """Shanghai knows what it is called, and asks for somebody else."""
    agreement = hubs.agree()
    key, _ = hubs.firm(), hubs.hold(("holder", "cn.uscc", OTHER))
    named = hubs.handle(agreement, key)
    assert hubs.refused(agreement, holders=holders(f"cn.uscc:{OTHER}"), **named)["code"] == "holding-unknown"
    assert hubs.ask(agreement, **named).envelope.status == "ok"


def test_a_handle_names_one_of_several_in_whatever_epoch(hubs: Exchange) -> None:
    agreement, other = hubs.agree(), hubs.agree()
    short, long = hubs.firm(valid_to="2998-01-01", number="1"), hubs.firm(valid_to="2999-01-01", number="2")
    before = hubs.handle(agreement, short)
    assert before["epoch"].endswith(hubs.handle(other, short)["epoch"][-8:])
    with hubs.zj.acting():
        from hub.exchange import epochs

        epochs.renew(agreement.id, dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
    after = hubs.handle(agreement, short)
    assert before["handle"] != after["handle"]
    for named in (before, after, hubs.handle(other, short)):  # under which agreement it was announced does not matter
        assert json.loads(hubs.ask(agreement, **named).body)["certificate"]["certificate_number"] == "1"
    assert (
        json.loads(hubs.ask(agreement, **hubs.handle(agreement, long)).body)["certificate"]["certificate_number"] == "2"
    )
    assert json.loads(hubs.ask(agreement).body)["certificate"]["certificate_number"] == "2", (
        "the one that lasts longest"
    )
    with pytest.raises(YiciError) as refused:
        hubs.ask(agreement, handle=before["handle"], epoch=after["epoch"])
    assert refused.value.values["code"] == "holding-unknown"


@pytest.mark.parametrize("more", [
    {"status": "suspended"}, {"status": "revoked"}, {"status": "cancelled"}, {"status": "expired"},
    {"valid_to": "2020-01-01"}, {"valid_from": "2998-01-01"},
])  # fmt: skip
def test_what_is_not_in_force_today_is_not_given(hubs: Exchange, more: Any) -> None:
    agreement = hubs.agree()
    key = hubs.firm(**more)
    told = hubs.refused(agreement, **hubs.handle(agreement, key))
    assert (told["code"], told["fault"]) == ("certificate-not-in-force", "caller")
    good = hubs.firm(valid_to="2997-01-01", number="77")
    assert json.loads(hubs.ask(agreement).body)["certificate"]["certificate_number"] == "77"
    assert [row.holding.hex() for row in hubs.given()] == [good]


class Test_identities:
    """Zhejiang's register of residents knows PERSON, under an older passport too."""

    @pytest.fixture
    def agreement(self, hubs: Exchange) -> Any:
        return hubs.agree(materials={"resident-id-card": ["certificate_number", "holder.holder"]})

    def ask(self, hubs: Exchange, agreement: Any, *texts: str) -> str:
        reply = hubs.ask(agreement, material="resident-id-card", holders=holders(*texts))
        return str(json.loads(reply.body)["certificate"]["certificate_number"])

    def refused(self, hubs: Exchange, agreement: Any, *texts: str) -> dict[str, Any]:
        return hubs.refused(agreement, material="resident-id-card", holders=holders(*texts))

    def card(self, hubs: Exchange, text: str, number: str) -> str:
        scheme, value = text.split(":")
        return hubs.hold(("holder", scheme, value), material="resident-id-card", number=number)

    def join(self, hubs: Exchange, *said: Said) -> None:
        with hubs.zj.acting() as engine, engine.begin() as connection:
            linked.deliver(connection, said)

    def test_all_identifiers_of_a_person_are_one(self, hubs: Exchange, agreement: Any) -> None:
        self.card(hubs, PERSON, "N1")
        assert self.refused(hubs, agreement, PASSPORT)["code"] == "holding-unknown"
        self.join(hubs, Said(PERSON, PASSPORT))
        for texts in ((PASSPORT,), (PERSON,), (PERSON, PASSPORT), ("passport:K7654321", PERSON)):
            assert self.ask(hubs, agreement, *texts) == "N1"

    def test_what_contradicts_itself_gives_nothing(self, hubs: Exchange, agreement: Any) -> None:
        self.card(hubs, PERSON, "N1")
        self.join(hubs, Said(PERSON, PASSPORT), Said(f"cn.ric:{stored.SPOUSE}", PASSPORT))  # born on other days
        for text in (PERSON, PASSPORT):
            told = self.refused(hubs, agreement, text)
            assert (told["code"], told["fault"]) == ("identity-undecided", "hub"), "the people of that hub decide it"
        attempts = hubs.sh.rows(
            "SELECT detail FROM exchange_record WHERE kind = 'evidence.request' AND outcome <> 'sent'"
        )
        assert [json.loads(row.detail)["attempts"] for row in attempts] == [1, 1]

    def test_identifiers_of_two_people_give_nothing(self, hubs: Exchange, agreement: Any) -> None:
        self.card(hubs, PERSON, "N1")
        self.card(hubs, f"cn.ric:{stored.SPOUSE}", "N2")
        assert self.refused(hubs, agreement, PERSON, f"cn.ric:{stored.SPOUSE}")["code"] == "identity-undecided"
        assert self.ask(hubs, agreement, PERSON) == "N1"

    def test_nor_where_only_one_of_them_has_it(self, hubs: Exchange, agreement: Any) -> None:
        """A list of people is no person: nobody learns which of them it is."""
        self.card(hubs, PERSON, "N1")
        spouse, theirs = f"cn.ric:{stored.SPOUSE}", "passport:K7654321"
        self.join(hubs, Said(PERSON, PASSPORT), Said(spouse, theirs))
        assert self.refused(hubs, agreement, theirs, PASSPORT)["code"] == "identity-undecided"
        assert self.ask(hubs, agreement, PASSPORT, PERSON) == "N1"


def test_a_material_that_no_index_announces_can_be_asked_for(hubs: Exchange) -> None:
    agreement = hubs.agree(
        materials={"marriage-certificate": ["certificate_number", "status", "holder.spouse_b"]}, modes=["evidence"]
    )
    key = hubs.hold(
        ("spouse_a", "cn.ric", stored.RESIDENT), ("spouse_b", "cn.ric", stored.SPOUSE), material="marriage-certificate",
        number="J330106-2019-1",
    )  # fmt: skip
    for person, role in ((stored.RESIDENT, "spouse_a"), (stored.SPOUSE, "spouse_b"), (stored.SPOUSE, None)):
        asked = {"material": "marriage-certificate", "holders": holders(f"cn.ric:{person}"), "role": role}
        body = json.loads(hubs.ask(agreement, **asked).body)
        assert body["certificate"]["holders"] == [
            {"role": "spouse_b", "scheme": "cn.ric", "value": stored.SPOUSE, "name": None}
        ]
        assert body["holding"] != key
    with pytest.raises(YiciError):
        hubs.ask(agreement, **{**asked, "role": "spouse_a"})
    assert len(hubs.given()) == 3


def test_consent_is_asked_for_where_it_is_agreed(hubs: Exchange) -> None:
    agreement = hubs.agree(consent="required")
    hubs.firm()
    now = dt.datetime.now(dt.UTC)
    good = {"reference": "31-2026-consent-7", "at": now.isoformat(), "method": "signed-form"}
    assert hubs.refused(agreement)["code"] == "consent-required"
    for wrong in (
        {"at": (now + dt.timedelta(hours=1)).isoformat()}, {"reference": f"of {stored.RESIDENT}"},
        {"method": f"form-{stored.RESIDENT.lower()}"}, {"method": "by-phone-13800138000"},
    ):  # fmt: skip
        assert hubs.refused(agreement, consent={**good, **wrong})["code"] == "consent-invalid"
    for wrong in ({"at": "today"}, {"method": "Signed Form"}, {"reference": ""}, {"at": "2026-01-01T00:00:00"}):
        assert hubs.refused(agreement, consent={**good, **wrong})["code"] == "message-body"
    assert hubs.ask(agreement, consent=good).envelope.status == "ok"
    [record] = hubs.zj.rows("SELECT detail FROM exchange_record WHERE outcome = 'ok' AND kind = 'evidence.request'")
    kept = json.loads(record.detail)["consent"]
    assert (kept["reference"], kept["method"]) == (good["reference"], "signed-form")
    assert dt.datetime.fromisoformat(kept["at"]) == now
    free = hubs.agree()
    hubs.ask(free, consent=good)  # what nobody needs is not kept
    [record] = hubs.zj.rows("SELECT detail FROM exchange_record WHERE agreement = :a AND outcome = 'ok' AND kind LIKE 'e%'",
                            a=free.reference)  # fmt: skip
    assert "consent" not in json.loads(record.detail)


def test_identifiers_are_normalised_by_who_asks(hubs: Exchange) -> None:
    agreement, _ = hubs.agree(), hubs.firm()
    for value in (FIRM.lower(), f" {FIRM}", f"{FIRM[:8]}-{FIRM[8:]}"):
        holders = [{"scheme": "cn.uscc", "value": value}]
        assert hubs.refused(agreement, holders=holders)["code"] == "identifier-invalid", value
    assert hubs.ask(agreement).envelope.status == "ok"


def test_a_file_called_after_somebody_is_not_told(hubs: Exchange) -> None:
    agreement, _ = hubs.agree(), hubs.firm()
    with hubs.zj.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("UPDATE landed_file SET name = :name"), {"name": f"of {stored.RESIDENT}.csv"})
    reply = hubs.ask(agreement)
    assert json.loads(reply.body)["source"]["file"] == "-" and stored.RESIDENT not in reply.body.decode()


def request(hubs: Exchange, agreement: Any, **members: Any) -> envelope.Message:
    body = json.dumps({"material": LICENCE, "holders": holders(f"cn.uscc:{FIRM}"), "item": ITEM}).encode()
    told = {"agreement": agreement.reference, "purpose": PURPOSE, "case": CASE, **members}
    return exchanging.question(hubs.sh, hubs.zj, "evidence.request", body, **told)


def test_the_same_message_is_carried_out_once_however_often_it_comes(hubs: Exchange) -> None:
    agreement, _ = hubs.agree(), hubs.firm()
    message = request(hubs, agreement)
    replies: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: replies.append(exchanging.send(hubs.sh, hubs.zj, message).wire))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(replies) == 6 and len(set(replies)) == 1
    assert len(hubs.given()) == 1 and hubs.zj.outcomes(message.envelope.id) == ["ok"]
    [kept] = hubs.zj.rows("SELECT reply FROM exchange_message WHERE message = :id", id=message.envelope.id)
    assert FIRM.encode() not in kept.reply, "what is kept for a repeat is sealed"
    other = envelope.signed(
        envelope.of(b"{}", **{**_members(message), "id": message.envelope.id}), b"{}", hubs.sh.key()
    )  # another message under the same id
    assert exchanging.send(hubs.sh, hubs.zj, other).envelope.status == "message-repeated"


def _members(message: envelope.Message) -> dict[str, Any]:
    told = message.envelope
    return {name: getattr(told, name) for name in
            ("kind", "sender", "receiver", "at", "type", "agreement", "purpose", "case")}  # fmt: skip


def test_killed_before_it_replied_and_asked_again_it_gave_once(hubs: Exchange, tmp_path: Path) -> None:
    agreement, _ = hubs.agree(), hubs.firm()
    (hubs.zj.home.path / "die").touch()

    def revive() -> None:
        process = hubs.zj.process
        assert process is not None
        process.wait(30)
        hubs.zj.start()

    reviving = threading.Thread(target=revive)
    reviving.start()
    reply = hubs.ask(agreement, seconds=30)
    reviving.join(60)
    assert json.loads(reply.body)["certificate"]["certificate_number"] == "330106000000001"
    assert len(hubs.given()) == 1
    [told] = hubs.sh.rows(
        "SELECT detail, message FROM exchange_record WHERE kind = 'evidence.request' AND outcome = 'ok'"
    )
    assert json.loads(told.detail)["attempts"] > 1
    assert hubs.zj.outcomes(told.message) == ["ok"], "the second time it replied with what it had kept"


def test_killed_before_it_was_recorded_nothing_was_given(hubs: Exchange) -> None:
    agreement, _ = hubs.agree(), hubs.firm()
    message = request(hubs, agreement)
    failures: list[str] = []

    def send() -> None:
        try:
            exchanging.send(hubs.sh, hubs.zj, message)
        except RetriableError as error:
            failures.append(error.code)

    with hubs.zj.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("LOCK TABLE evidence IN EXCLUSIVE MODE"))
        asking = threading.Thread(target=send)
        asking.start()
        _until(engine, "SELECT 1 FROM pg_locks WHERE NOT granted")
        hubs.zj.stop(kill=True)
        asking.join(30)
    assert failures == ["partner-away"]
    assert hubs.given() == [] and hubs.zj.rows("SELECT FROM exchange_record WHERE kind = 'evidence.request'") == []
    hubs.zj.start()
    assert exchanging.send(hubs.sh, hubs.zj, message).envelope.status == "ok"
    assert len(hubs.given()) == 1


def _until(engine: sa.Engine, query: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        with engine.connect() as connection:
            if connection.execute(sa.text(query)).first():
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_nothing_is_given_after_the_deadline(hubs: Exchange) -> None:
    agreement, _ = hubs.agree(), hubs.firm()
    now = dt.datetime.now(dt.UTC)
    over = request(hubs, agreement, deadline=now - dt.timedelta(seconds=1))
    assert exchanging.send(hubs.sh, hubs.zj, over).envelope.status == "deadline-over"
    with hubs.zj.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("LOCK TABLE evidence IN EXCLUSIVE MODE"))
        began = time.monotonic()
        late = request(hubs, agreement, deadline=dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1))
        assert exchanging.send(hubs.sh, hubs.zj, late).envelope.status == "deadline-over"
        assert time.monotonic() - began < 5
    assert hubs.given() == [] and hubs.zj.outcomes(late.envelope.id) == ["deadline-over"]
    with hubs.zj.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("LOCK TABLE evidence IN EXCLUSIVE MODE"))
        with pytest.raises(RetriableError) as away:
            hubs.ask(agreement, seconds=1)
        assert away.value.code in ("partner-away", "partner-refused", "partner-failed", "deadline-over")
    time.sleep(0.5)
    assert hubs.given() == []


@pytest.mark.parametrize("by", ["zj", "sh"])
def test_a_suspended_agreement_gives_nothing_from_that_moment(hubs: Exchange, by: str) -> None:
    agreement, _ = hubs.agree(), hubs.firm()
    assert hubs.ask(agreement).envelope.status == "ok"
    with getattr(hubs, by).acting():
        agreement_acts.suspend(agreement.id, "tester")
    with pytest.raises(UsageError) as refused:  # this side knows
        hubs.ask(agreement)
    assert refused.value.code == "agreement-suspended"
    told = request(hubs, agreement)  # a hub that does not look
    assert exchanging.send(hubs.sh, hubs.zj, told).envelope.status == "agreement-suspended"
    assert len(hubs.given()) == 1
    with getattr(hubs, by).acting():
        agreement_acts.resume(agreement.id, "tester")
    assert hubs.ask(agreement).envelope.status == "ok"


@pytest.mark.parametrize("by", ["zj", "sh"])
def test_what_was_answered_is_not_given_out_again_while_it_is_suspended(hubs: Exchange, by: str) -> None:
    agreement, _ = hubs.agree(), hubs.firm()
    message = request(hubs, agreement)
    first = exchanging.send(hubs.sh, hubs.zj, message)
    assert first.envelope.status == "ok" and FIRM.encode() in first.body
    assert exchanging.send(hubs.sh, hubs.zj, message).wire == first.wire
    with getattr(hubs, by).acting():
        agreement_acts.suspend(agreement.id, "tester")
    reply = exchanging.send(hubs.sh, hubs.zj, message)
    assert reply.envelope.status == "agreement-suspended" and FIRM.encode() not in reply.body
    assert hubs.zj.outcomes(message.envelope.id) == ["ok", "agreement-suspended"]  # the refusal is recorded
    with getattr(hubs, by).acting():
        agreement_acts.resume(agreement.id, "tester")
    assert exchanging.send(hubs.sh, hubs.zj, message).wire == first.wire  # and nothing is carried out twice
    assert len(hubs.given()) == 1 and hubs.zj.outcomes(message.envelope.id) == ["ok", "agreement-suspended"]


def test_nor_after_the_version_was_replaced(hubs: Exchange) -> None:
    agreement, _ = hubs.agree(), hubs.firm()
    message = request(hubs, agreement)
    assert exchanging.send(hubs.sh, hubs.zj, message).envelope.status == "ok"
    later = hubs.agree(id=str(agreement.id), materials={LICENCE: ["status"]})
    assert later.reference == f"{agreement.id}/2"
    reply = exchanging.send(hubs.sh, hubs.zj, message)
    assert reply.envelope.status == "agreement-version-old" and FIRM.encode() not in reply.body
    assert hubs.zj.outcomes(message.envelope.id) == ["ok", "agreement-version-old"] and len(hubs.given()) == 1


@pytest.mark.slow
def test_it_ends_with_the_minute(hubs: Exchange) -> None:
    now = dt.datetime.now(dt.UTC)
    ends = now.replace(second=0, microsecond=0) + dt.timedelta(minutes=6)
    agreement, _ = hubs.agree(valid_to=ends.isoformat()), hubs.firm()
    hubs.zj.stop()
    ahead = ends - dt.datetime.now(dt.UTC) - dt.timedelta(seconds=9)
    hubs.zj.variables[exchanging.exchange_server.CLOCK] = str(ahead.total_seconds() / 60)
    try:
        hubs.zj.start()
        there = dt.datetime.now(dt.UTC) + ahead
        assert there < ends - dt.timedelta(seconds=2), "the machine is too slow for this test"
        assert hubs.ask(agreement, seconds=2).envelope.status == "ok"
        before = request(hubs, agreement)
        assert exchanging.send(hubs.sh, hubs.zj, before).envelope.status == "ok"
        time.sleep((ends - ahead - dt.datetime.now(dt.UTC)).total_seconds() + 0.05)
        reply = exchanging.send(hubs.sh, hubs.zj, request(hubs, agreement))
        assert reply.envelope.status == "agreement-not-in-force"
        again = exchanging.send(hubs.sh, hubs.zj, before)
        assert again.envelope.status == "agreement-not-in-force" and FIRM.encode() not in again.body
        assert len(hubs.given()) == 2
    finally:
        hubs.zj.stop()
        del hubs.zj.variables[exchanging.exchange_server.CLOCK]
        hubs.zj.start()


def test_who_is_no_peer_any_more_gets_nothing(hubs: Exchange) -> None:
    agreement, _ = hubs.agree(), hubs.firm()
    with hubs.zj.acting() as engine, engine.begin() as connection:
        peers.remove(connection, "sh")
    with pytest.raises(YiciError):
        hubs.ask(agreement, seconds=3)
    assert hubs.given() == []


def test_the_reply_verifies_with_the_key_of_the_hub_alone(hubs: Exchange) -> None:
    agreement, _ = hubs.agree(), hubs.firm()
    reply = hubs.ask(agreement)
    kept = envelope.read(reply.sealed.encode() + b"\n" + reply.body)
    envelope.verify(kept, peers.keys_at(hubs.sh.peer("zj"), kept.envelope.at), "zj")
    assert kept.intact
    altered = envelope.read(reply.sealed.encode() + b"\n" + reply.body.replace(b"2999", b"2998"))
    assert not altered.intact
    assert caller.decoded(reply, dict[str, Any])["given"]["client"] == "sh"


def test_each_request_costs_few_statements(hubs: Exchange) -> None:
    """In the receiver's transaction; all of them by key."""
    from hub.exchange import service

    agreement, key = hubs.agree(), hubs.firm()
    message = exchanging.question(
        hubs.sh, hubs.zj, "evidence.request",
        json.dumps({"material": LICENCE, "holders": holders(f"cn.uscc:{FIRM}"), "item": ITEM, **hubs.handle(agreement, key)}).encode(),
        agreement=agreement.reference, purpose=PURPOSE, case=CASE,
    )  # fmt: skip
    statements: list[str] = []
    fingerprint = peers.fingerprints(hubs.zj.peer("sh"), dt.datetime.now(dt.UTC))[0]
    with hubs.zj.acting() as engine:
        listener = lambda *call: statements.append(call[2])  # noqa: E731
        sa.event.listen(engine, "before_cursor_execute", listener)
        try:
            reply = envelope.read(service.receive(engine, message.wire, fingerprint))
        finally:
            sa.event.remove(engine, "before_cursor_execute", listener)
    assert reply.envelope.status == "ok"
    of_evidence = [one for one in statements if "evidence" in one or "holding_holder" in one or "sealed_key" in one]
    assert len(of_evidence) <= 4 and len(statements) <= 12, statements
