"""Evidence that a partner hub holds, fetched through this hub's API: whom an answer opens it for, how much of it, once; whose fault
it is when it does not come."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors import envelope, signature
from hub import agreements as clients
from hub import answers, cli, home, records, signing, subject_view
from hub.answers import Question
from hub.api.answers import StoredAnswer
from hub.api.app import create
from hub.api.evidence import EvidenceShown
from hub.exchange import agreement_acts, evidence_asking, ledger_view, peers, reach
from hub.home import Home
from tests import evidencing, partner, serving, stored
from tests.conftest import ROOT
from tests.evidencing import CASE, FIRM, LICENCE, OTHER, PURPOSE, Exchange
from tests.serving import FORM, served

ITEMS = ["demo-food-permit", "demo-household-move"]
SHOWN = {
    LICENCE: ["certificate_number", "status", "valid_from", "valid_to", "holder.holder", "attributes.registered_on",
              "attributes.enterprise_type"],
}  # fmt: skip
MARRIAGE = "marriage-certificate"
PERSON = f"cn.ric:{stored.RESIDENT}"
HOLDER = ("holder", "cn.uscc", FIRM)
Json = dict[str, Any]


@pytest.fixture(scope="module")
def made(server_home: Home, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    folder = tmp_path_factory.mktemp("hubs")
    with evidencing.exchange(server_home, template, folder, "tests.evidence_server") as both:
        yield both


@pytest.fixture
def hubs(made: Exchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exchange]:
    made.forget()
    partner.folder(tmp_path / "sources", monkeypatch)
    yield made
    (made.zj.home.path / "lie.json").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def base(made: Exchange) -> Iterator[str]:
    """Shanghai's API. It is the hub of this process whenever that is Shanghai's."""
    with made.sh.acting(), served(create()) as address:
        yield address


class Hall:
    """A client of Shanghai with a token."""

    def __init__(self, hubs: Exchange, base: str, client: str = "hall-1", **agreed: Any) -> None:
        with hubs.sh.acting():
            secret = clients.add(client, None, client, ITEMS, [PURPOSE, "other"], **{"fields": SHOWN, **agreed})
        self.hubs, self.base, self.session = hubs, base, requests.Session()
        self.session.trust_env = False
        with hubs.sh.acting():
            token = self.session.post(f"{base}/oauth2/token", data=FORM, auth=(client, secret), timeout=30).json()
        self.session.headers["Authorization"] = f"Bearer {token['access_token']}"
        self.session.headers["Accept-Language"] = "en"

    def post(self, path: str, body: Any, **headers: str) -> requests.Response:
        with self.hubs.sh.acting():
            return self.session.post(f"{self.base}{path}", json=body, headers=headers, timeout=90)

    def get(self, path: str) -> requests.Response:
        with self.hubs.sh.acting():
            return self.session.get(f"{self.base}{path}", timeout=90)

    def look_up(self, **more: Any) -> Json:
        """The answer, its requirements by code."""
        body = {"items": ITEMS[:1], "id": f"cn.uscc:{FIRM}", "case": CASE, "purpose": PURPOSE, **more}
        found = self.post("/v1/lookups", body)
        assert found.status_code == 200, found.text
        [answer] = found.json()["answers"]
        return {**answer, **{one["requirement"]: one for one in answer["requirements"]}}

    def ask(self, **more: Any) -> str:
        return str(self.look_up(**more)["answer"])

    def fetch(self, handle: str, grant: str, id_: Any = f"cn.uscc:{FIRM}", **more: Any) -> requests.Response:
        return self.post(f"/v1/evidence/{handle}", {"id": id_, **more}, **{"Yici-Grant": grant})


def problem(answer: requests.Response, status: int, code: str) -> Json:
    assert FIRM not in answer.text and OTHER not in answer.text
    return serving.problem(answer, status, code)


@pytest.fixture
def announced(hubs: Exchange, monkeypatch: pytest.MonkeyPatch) -> str:
    """Zhejiang holds the licence, both agreed, and Shanghai read so: what it is called there."""
    agreement, key = hubs.agree(), hubs.firm()
    return hubs.announce(monkeypatch, agreement, key, HOLDER, valid_to="2999-01-01")["handle"]


def fetched(hubs: Exchange) -> list[Any]:
    """What Shanghai wrote down of what it passed on."""
    return hubs.sh.rows("SELECT * FROM evidence ORDER BY given_at")


def asked(hubs: Exchange) -> list[str]:
    """What became of Shanghai's questions; each was recorded before it left."""
    rows = hubs.sh.rows("SELECT message, outcome FROM exchange_record WHERE kind LIKE 'evidence.%' ORDER BY id")
    sent = {row.message for row in rows if row.outcome == "sent"}
    assert sent == {row.message for row in rows}
    return [row.outcome for row in rows if row.outcome != "sent"]


def test_what_is_held_elsewhere_is_fetched_from_there(hubs: Exchange, base: str, announced: str) -> None:
    hall = Hall(hubs, base)
    answer = hall.look_up()
    assert answer[LICENCE]["disposition"] == "held_elsewhere"
    assert "POST /v1/evidence/" in answer[LICENCE]["next_step"] and "Yici-Grant" in answer[LICENCE]["next_step"]
    [there] = answer[LICENCE]["elsewhere"]
    assert (there["hub"], there["handle"]) == ("zj", announced)
    found = hall.fetch(there["handle"], answer["answer"], seconds=17)
    assert found.status_code == 200, found.text
    assert (found.headers["Cache-Control"], found.headers["Content-Type"]) == ("no-store", "application/json")
    body = found.json()
    EvidenceShown.model_validate(body, strict=True)
    assert body["certificate"] == {  # what the client may see, as far as the hubs agreed
        "certificate_number": "330106000000001", "valid_to": "2999-01-01", "status": "in_force",
        "holders": [{"role": "holder", "scheme": "cn.uscc", "value": FIRM, "name": None}],
        "attributes": {"registered_on": "2019-08-01"},
    }  # fmt: skip
    assert (body["holding"], body["given"]["hub"], body["given"]["client"]) == (announced, "zj", "sh")
    assert (body["given"]["purpose"], body["given"]["case"]) == (PURPOSE, CASE)

    digest = hashlib.sha256(found.content).digest()
    assert found.headers["Content-Digest"] == f"sha-256=:{base64.b64encode(digest).decode()}:"
    kept = envelope.read(found.headers["Yici-Envelope"].encode() + b"\n" + found.content)
    with hubs.sh.acting():
        envelope.verify(kept, peers.keys_at(hubs.sh.peer("zj"), kept.envelope.at), "zj")
    assert kept.intact and (kept.envelope.sender, kept.envelope.receiver, kept.envelope.status) == ("zj", "sh", "ok")

    [row] = fetched(hubs)
    assert (str(row.answer), row.holding.hex(), row.client, row.purpose, row.case) == (
        answer["answer"], announced, "hall-1", PURPOSE, CASE,
    )  # fmt: skip
    assert (row.provider, row.receiver, row.digest, row.fields) == ("zj", None, digest, body["fields"])
    [there_too] = hubs.given()
    assert (there_too.digest, there_too.fields, there_too.receiver) == (digest, body["fields"], "sh")
    assert asked(hubs) == ["ok"]
    _, record = hubs.sh.rows("SELECT request FROM exchange_record WHERE kind LIKE 'evidence.%' ORDER BY id")
    told = envelope.read(f"{record.request}\n".encode()).envelope
    assert told.deadline is not None and 10 < (told.deadline - told.at).total_seconds() <= 17, (
        "as long as the client waits"
    )
    assert told.id == row.message == there_too.message == uuid.UUID(body["given"]["answer"]), "one message, for both"
    kept_answer = hall.get(f"/v1/answers/{answer['answer']}").json()
    StoredAnswer.model_validate(kept_answer, strict=True)
    [fetched_under] = kept_answer["evidence"]
    assert fetched_under == {
        "holding": announced, "material": LICENCE, "fields": body["fields"], "at": row.given_at.isoformat(), "provider": "zj",
        "message": str(told.id),
    }  # fmt: skip
    assert kept_answer["replay"] == "same"
    problem(hall.fetch(announced, answer["answer"]), 409, "grant-used")
    assert len(hubs.given()) == 1 and hall.fetch(announced, hall.ask()).status_code == 200, (
        "a new answer is a new grant"
    )


def test_both_views_show_it(hubs: Exchange, base: str, announced: str) -> None:
    hall = Hall(hubs, base)
    assert hall.fetch(announced, hall.ask()).status_code == 200
    for hub, hubs_named, name in ((hubs.sh, ("hall-1", None, "zj"), "hall-1"), (hubs.zj, ("sh", "sh", None), "Hub sh")):
        with hub.acting() as engine:
            shown = subject_view.view(engine, f"cn.uscc:{FIRM}", client="portal", purpose="own")
            other = subject_view.view(engine, f"cn.uscc:{OTHER}", client="portal", purpose="own", section="fetched")
        [entry] = shown["fetched"]["entries"]
        assert (entry["client"], entry["receiver"], entry["provider"]) == hubs_named
        assert (entry["client_name"], entry["purpose"], entry["case"]) == (name, PURPOSE, CASE)
        assert other["fetched"]["entries"] == []
        page = None
        with hub.acting() as engine:
            page = subject_view.view(engine, f"cn.uscc:{FIRM}", client="p", purpose="own", section="fetched", limit=1)
        assert page["fetched"]["next"] is None


def test_the_grant_is_this_clients_of_now_and_of_what_it_found(hubs: Exchange, base: str, announced: str) -> None:
    hall, other = Hall(hubs, base), Hall(hubs, base, "hall-2")
    grant = hall.ask()
    for wrong in ("", "nothing", "00000000-0000-4000-8000-000000000000"):
        problem(hall.fetch(announced, wrong), 403, "grant-unknown")
    problem(other.fetch(announced, grant), 403, "grant-unknown")
    for handle in ("0" * 32, "x", "%20"):
        problem(hall.fetch(handle, grant), 403, "grant-not-for-holding")
    problem(hall.fetch(announced, hall.ask(id=f"cn.uscc:{OTHER}")), 403, "grant-not-for-holding")
    then = hall.ask(as_of=dt.datetime.now(dt.UTC).isoformat())
    problem(hall.fetch(announced, then), 403, "grant-not-for-holding")
    assert asked(hubs) == [] and hubs.given() == []
    with hubs.sh.acting() as engine, engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE answer SET asked_at = asked_at - interval '31 minutes' WHERE id = :id"), {"id": grant}
        )
        connection.execute(sa.text("UPDATE agreement SET valid_from = valid_from - interval '1 hour'"))
    assert "30 minutes" in problem(hall.fetch(announced, grant), 403, "grant-expired")["detail"]
    assert fetched(hubs) == []


@pytest.mark.parametrize(("column", "value", "code"), [
    ("items", "{demo-elder-card}", "item-not-agreed"),
    ("purposes", "{other}", "purpose-not-agreed"),
    ("valid_to", "2020-01-01", "agreement-ended"),
])  # fmt: skip
def test_the_agreement_with_the_client_counts_first(
    hubs: Exchange, base: str, announced: str, column: str, value: str, code: str
) -> None:
    hall = Hall(hubs, base)
    grant = hall.ask()
    with hubs.sh.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE agreement SET {column} = :value"), {"value": value})
    problem(hall.fetch(announced, grant), 403, code)
    assert asked(hubs) == [] and hubs.given() == []


def test_it_is_for_whom_the_answer_was_about(hubs: Exchange, base: str, announced: str) -> None:
    hall = Hall(hubs, base)
    grant = hall.ask()
    problem(hall.fetch(announced, grant, f"cn.uscc:{OTHER}"), 422, "evidence-not-party")
    problem(hall.fetch(announced, grant, {"applicant": f"cn.uscc:{OTHER}"}), 422, "evidence-not-party")
    problem(hall.fetch(announced, grant, {"spouse": f"cn.uscc:{FIRM}"}), 422, "evidence-not-party")
    problem(hall.fetch(announced, grant, "cn.uscc:91310117MA1J3AJ43X"), 422, "identifier-invalid")
    for wrong in ({}, [], "", {"applicant": 1}, None):
        problem(hall.fetch(announced, grant, wrong), 422, "body-invalid")
    assert asked(hubs) == [], "nobody was asked about anybody else"
    assert hall.fetch(announced, grant, {"applicant": f"cn.uscc:{FIRM}"}).status_code == 200


def test_fields_are_what_the_client_may_see_and_the_hubs_agreed(hubs: Exchange, base: str, announced: str) -> None:
    hall = Hall(hubs, base)
    grant = hall.ask()
    told = problem(hall.fetch(announced, grant, fields=["name"]), 403, "field-not-agreed")
    assert "enterprise_type" in told["detail"], "what this client may see"
    told = problem(hall.fetch(announced, grant, fields=["attributes.enterprise_type"]), 403, "field-not-agreed")
    assert "enterprise_type" not in told["detail"], "what Zhejiang shows"
    assert asked(hubs) == []
    narrow = hall.fetch(announced, grant, fields=["status", "attributes.registered_on"])
    assert narrow.json()["certificate"] == {"status": "in_force", "attributes": {"registered_on": "2019-08-01"}}
    assert FIRM not in narrow.text and hubs.given()[0].fields == narrow.json()["fields"]
    strict = Hall(hubs, base, "hall-2", fields={LICENCE: ["status"]})
    assert strict.fetch(announced, strict.ask()).json()["certificate"] == {"status": "in_force"}
    before = len(asked(hubs))
    for number, shown in (
        (3, {}),
        (4, {LICENCE: ["attributes.enterprise_type"]}),
    ):  # nothing, and nothing of what Zhejiang shows
        bare = Hall(hubs, base, f"hall-{number}", fields=shown)
        problem(bare.fetch(announced, bare.ask()), 403, "field-not-agreed")
    assert len(asked(hubs)) == before


def test_what_changed_in_the_index_is_asked_about_anew(
    hubs: Exchange, base: str, announced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = Hall(hubs, base)
    grant = hall.ask()
    with hubs.sh.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("UPDATE index_entry SET valid_to = '2998-01-01'"))
    problem(hall.fetch(announced, grant), 409, "holding-changed")
    with hubs.sh.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("UPDATE index_entry SET recorded_to = now()"))
    problem(hall.fetch(announced, grant), 409, "holding-changed")
    assert asked(hubs) == []


def test_a_case_is_needed(hubs: Exchange, base: str, announced: str) -> None:
    hall = Hall(hubs, base)
    problem(hall.fetch(announced, hall.ask(case=None)), 422, "case-missing")
    problem(hall.fetch(announced, hall.ask(purpose="other")), 403, "purpose-not-agreed")
    assert asked(hubs) == []


def test_nothing_agreed_nothing_asked(hubs: Exchange, base: str, announced: str) -> None:
    hall = Hall(hubs, base)
    grant = hall.ask()
    with hubs.sh.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("UPDATE index_entry SET region = '310101'"))
    with hubs.sh.acting() as engine:
        [agreed] = hubs.sh.rows("SELECT id FROM exchange_agreement")
        agreement_acts.suspend(agreed.id, "tester")
    problem(hall.fetch(announced, grant), 403, "agreement-suspended")
    with hubs.sh.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE exchange_agreement"))
    problem(hall.fetch(announced, grant), 403, "agreement-none")
    with hubs.sh.acting() as engine, engine.begin() as connection:
        peers.remove(connection, "zj")
    problem(hall.fetch(announced, grant), 403, "peer-unknown")
    assert asked(hubs) == [] and hubs.given() == []


def test_another_region_than_agreed_is_not_asked_for(
    hubs: Exchange, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agreement, key = hubs.agree(regions=["3301"]), hubs.firm(region="330203")
    row = hubs.announce(monkeypatch, agreement, key, HOLDER, valid_to="2999-01-01", region="330203")
    hall = Hall(hubs, base)
    problem(hall.fetch(row["handle"], hall.ask()), 403, "region-not-agreed")
    assert asked(hubs) == []


def test_consent_goes_with_the_question(hubs: Exchange, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agreement, key = hubs.agree(consent="required"), hubs.firm()
    handle = hubs.announce(monkeypatch, agreement, key, HOLDER, valid_to="2999-01-01")["handle"]
    hall = Hall(hubs, base)
    grant = hall.ask()
    problem(hall.fetch(handle, grant), 403, "consent-required")
    now = dt.datetime.now(dt.UTC)
    consent = {"reference": "31-2026-consent-7", "at": now.isoformat(), "method": "signed-form"}
    ahead = {**consent, "at": (now + dt.timedelta(hours=1)).isoformat()}
    problem(hall.fetch(handle, grant, consent=ahead), 422, "consent-invalid")
    problem(hall.fetch(handle, grant, consent={**consent, "reference": stored.RESIDENT}), 422, "consent-invalid")
    problem(hall.fetch(handle, grant, consent={**consent, "more": 1}), 422, "body-invalid")
    assert asked(hubs) == []
    assert hall.fetch(handle, grant, consent=consent).status_code == 200
    [record] = hubs.zj.rows("SELECT detail FROM exchange_record WHERE kind LIKE 'evidence.%'")
    assert json.loads(record.detail)["consent"]["reference"] == "31-2026-consent-7"


def test_the_partner_refuses_and_says_why(hubs: Exchange, base: str, announced: str) -> None:
    """What the index said is no longer so, and Shanghai has not read it yet."""
    hall = Hall(hubs, base)
    grant = hall.ask()
    with hubs.zj.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("UPDATE holding SET status = 'revoked'"))
    told = problem(hall.fetch(announced, grant), 502, "partner-refused")
    assert told["fault"] == "partner"
    assert told["partner"] == {"hub": "zj", "code": "certificate-not-in-force", "fault": "caller"}
    assert "in force today" in told["detail"]
    hall.session.headers["Accept-Language"] = "zh"
    assert "有效状态" in problem(hall.fetch(announced, grant), 502, "partner-refused")["detail"]
    assert asked(hubs) == ["certificate-not-in-force"] * 2 and fetched(hubs) == []
    with hubs.zj.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("UPDATE holding SET status = 'in_force'"))
    assert hall.fetch(announced, grant).status_code == 200, "a refusal used nothing up"


def test_a_partner_that_is_away_uses_nothing_up_and_is_left_to_rest(hubs: Exchange, base: str, announced: str) -> None:
    hall = Hall(hubs, base)
    grant = hall.ask()
    hubs.zj.stop()
    try:
        for _ in range(reach.ENOUGH):
            away = hall.fetch(announced, grant, seconds=1)
            assert problem(away, 503, "partner-away")["fault"] == "partner" and int(away.headers["Retry-After"]) > 0
        began = time.monotonic()
        resting = hall.fetch(announced, grant)
        assert problem(resting, 503, "partner-resting")["fault"] == "partner" and time.monotonic() - began < 2
        assert 1 <= int(resting.headers["Retry-After"]) <= 10
        assert fetched(hubs) == [] and hubs.given() == []
    finally:
        hubs.zj.start(module="tests.evidence_server")
    with hubs.sh.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("UPDATE exchange_peer SET failures = 0, rests_until = NULL"))
    assert hall.fetch(announced, grant).status_code == 200
    assert len(fetched(hubs)) == len(hubs.given()) == 1


def test_killed_while_it_answers_it_gives_once(hubs: Exchange, base: str, announced: str) -> None:
    hall = Hall(hubs, base)
    grant = hall.ask()
    (hubs.zj.home.path / "die").touch()

    def revive() -> None:
        assert hubs.zj.process is not None
        hubs.zj.process.wait(30)
        hubs.zj.start(module="tests.evidence_server")

    reviving = threading.Thread(target=revive)
    reviving.start()
    found = hall.fetch(announced, grant, seconds=40)
    reviving.join(60)
    assert found.status_code == 200, found.text
    assert len(hubs.given()) == len(fetched(hubs)) == 1 and asked(hubs) == ["ok"]


def holder(**changes: Any) -> Json:
    return {"holders": [{"role": "holder", "scheme": "cn.uscc", "value": FIRM, "name": None, **changes}]}


SPEAKING = f"张三 {stored.RESIDENT} 13800138000"
LIES: list[tuple[str, Any]] = [
    ("columns", {"certificate": {"name": "营业执照"}}),  # not asked for
    ("columns", {"certificate": {"name": "营业执照"}, "fields": ["name"]}),
    ("columns", {"certificate": {"attributes": {"enterprise_type": "有限责任公司"}}}),
    ("columns", {"certificate": {"attributes": {"home": "somewhere"}}}),
    ("columns", {"certificate": {"remark": SPEAKING}}),
    ("columns", {"certificate": {"status": None}, "fields": ["certificate_number"]}),  # less than was asked for
    ("columns", {"certificate": {"certificate_number": None}}),  # it is left out
    ("form", {"certificate": holder(address="…")}),
    ("columns", {"certificate": {"holders": [*holder()["holders"], *holder()["holders"]]}}),
    ("form", {"certificate": {"holders": "everybody"}}),
    ("form", {"certificate": None}),
    ("form", {"certificate": []}),
    ("form", "nothing"),
    ("columns", {"fields": ["certificate_number", "name"]}),
    # about somebody else
    ("columns", {"certificate": holder(role="guarantor")}),
    ("holder", {"certificate": {**holder(value=OTHER, name="别人有限公司"), "certificate_number": OTHER}}),
    ("holder", {"certificate": holder(scheme="cn.regno", value="330106000000001")}),
    ("form", {"certificate": holder(scheme="cn.ric", value=stored.RESIDENT)}),  # of a firm
    ("holder", {"certificate": {"holders": []}}),
    # not in force
    ("status", {"certificate": {"status": "revoked"}}),
    ("status", {"certificate": {"status": "suspended"}}),
    ("status", {"certificate": {"valid_to": "2020-01-01"}}),
    # of another form than the columns have
    ("form", {"certificate": holder(name={"home": "杭州市西湖区1号"})}),
    ("form", {"certificate": {"attributes": {"registered_on": "杭州市西湖区1号"}}}),
    ("form", {"certificate": {"attributes": {"registered_on": {"phone": "13800138000"}}}}),
    ("form", {"certificate": {"certificate_number": ["1", "2"]}}),
    ("form", {"certificate": {"certificate_number": "1\x1b]2;x"}}),
    ("form", {"certificate": {"certificate_number": "1" * 10_001}}),
    ("form", {"certificate": {"valid_to": "2999-13-01"}}),
    ("form", {"version": SPEAKING}),
    ("other", {"material": "resident-id-card"}),
    ("other", {"holding": "0" * 32}),
    # given to somebody else, for something else, at another time, with more words
    ("given", {"given": {"purpose": "other"}}),
    ("given", {"given": {"case": "31-2026-0002"}}),
    ("given", {"given": {"client": "js"}}),
    ("given", {"given": {"hub": "js"}}),
    ("given", {"given": {"item": "demo-household-move"}}),
    ("given", {"given": {"answer": "019ca880-4a40-7000-8000-000000000008"}}),
    ("given", {"given": {"at": "2026-03-01T08:30:00+00:00"}}),
    ("form", {"given": {"remark": SPEAKING}}),
    ("form", {"given": {"at": SPEAKING}}),
    ("form", {"source": {"remark": SPEAKING}}),
    ("form", {"source": {"source": SPEAKING}}),
    ("form", {"source": {"file": SPEAKING}}),
    ("form", {"source": {"row": SPEAKING}}),
    ("form", {"source": {"updated_at": SPEAKING}}),
    ("form", {"source": {"late": SPEAKING}}),
]


@pytest.mark.parametrize(("reason", "lie"), LIES)
def test_more_or_other_than_was_asked_for_is_not_passed_on(
    hubs: Exchange, base: str, announced: str, reason: str, lie: Any
) -> None:
    hall = Hall(hubs, base)
    grant = hall.ask()
    (hubs.zj.home.path / "lie.json").write_text(json.dumps(lie))
    told = problem(hall.fetch(announced, grant), 502, "partner-reply")
    assert told["fault"] == "partner" and "zj" in told["detail"] and f"evidence-{reason}" in told["detail"]
    assert "张三" not in str(told) and stored.RESIDENT not in str(told)
    assert fetched(hubs) == []
    assert sorted(asked(hubs)) == ["ok", "partner-reply"], "that it was refused is recorded beside that it came"
    [noted] = hubs.sh.rows("SELECT * FROM exchange_record WHERE outcome = 'partner-reply'")
    assert (noted.direction, json.loads(noted.detail)) == ("noted", {"reason": f"evidence-{reason}"})
    claimed = envelope.read(f"{noted.reply}\n".encode()).envelope
    assert (claimed.sender, claimed.reply_to) == ("zj", noted.message), (
        "with what the partner says it gave, by its digest"
    )
    (hubs.zj.home.path / "lie.json").unlink()
    assert hall.fetch(announced, grant).status_code == 200, "the lie used nothing up"


def test_a_member_said_twice_is_not_passed_on(hubs: Exchange, base: str, announced: str) -> None:
    """One reader takes the first, another the last."""
    hall = Hall(hubs, base)
    grant = hall.ask()
    (hubs.zj.home.path / "twice").write_text('"status"')
    try:
        told = problem(hall.fetch(announced, grant), 502, "partner-reply")
    finally:
        (hubs.zj.home.path / "twice").unlink()
    assert "evidence-form" in told["detail"] and fetched(hubs) == []


def test_what_a_later_version_says_beside_is_left_out(hubs: Exchange, base: str, announced: str) -> None:
    hall = Hall(hubs, base)
    plain = hall.fetch(announced, hall.ask())
    assert "Yici-Signature" not in plain.headers
    (hubs.zj.home.path / "lie.json").write_text(json.dumps({"later": {"of": [SPEAKING]}}))
    found = hall.fetch(announced, hall.ask())
    assert found.status_code == 200 and "later" not in found.json() and "张三" not in found.text
    assert found.json().keys() == plain.json().keys() and "Yici-Envelope" not in found.headers, "that is of other bytes"
    with hubs.sh.acting():
        own = [signature.public_key(signing.public_key())]
        signature.verify_detached(found.content, found.headers["Yici-Signature"], own, signature.EVIDENCE, "evidence")
    digest = hashlib.sha256(found.content).digest()
    assert found.headers["Content-Digest"] == f"sha-256=:{base64.b64encode(digest).decode()}:"
    assert fetched(hubs)[-1].digest == digest, "what was passed on"
    assert asked(hubs) == ["ok", "ok"]


def test_a_number_that_is_known_to_be_the_same_persons_will_do(
    hubs: Exchange, base: str, announced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner knows the firm by another number: whoever asks takes it where it knows that number as well."""
    hall = Hall(hubs, base)
    other = "330106000000001"
    lie = {"certificate": holder(scheme="cn.regno", value=other)}
    (hubs.zj.home.path / "lie.json").write_text(json.dumps(lie))
    problem(hall.fetch(announced, hall.ask()), 502, "partner-reply")
    with hubs.sh.acting() as engine, engine.begin() as connection:
        hashing = home.keyed_hash()
        both = [hashing.of(f"cn.uscc:{FIRM}"), hashing.of(f"cn.regno:{other}")]
        for one, state in zip(both, ("joined", "contradictory"), strict=True):
            connection.execute(
                sa.text("INSERT INTO identity_member (identifier, component, cluster, state, change) VALUES (:one, :all, :all, :state, 0)"),
                {"one": one, "all": min(both), "state": state},
            )  # fmt: skip
    problem(hall.fetch(announced, hall.ask()), 502, "partner-reply")
    with hubs.sh.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("UPDATE identity_member SET state = 'joined'"))
    found = hall.fetch(announced, hall.ask())
    assert found.status_code == 200 and found.json()["certificate"]["holders"][0]["value"] == other
    with hubs.sh.acting() as engine, engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE identity_member"))
    (hubs.zj.home.path / "lie.json").write_text(json.dumps({"certificate": {"holders": None}}))
    told = hall.fetch(announced, hall.ask(), fields=["status"])
    assert told.json()["certificate"] == {"status": "in_force"}, "without the holder the owner answers for whose it is"


def test_of_many_at_once_one_gets_it(hubs: Exchange, base: str, announced: str) -> None:
    hall = Hall(hubs, base)
    grant = hall.ask()
    found: list[tuple[int, str]] = []
    with hubs.sh.acting():

        def fetch() -> None:
            answer = requests.post(f"{base}/v1/evidence/{announced}", json={"id": f"cn.uscc:{FIRM}"}, timeout=60,
                                   headers={**hall.session.headers, "Yici-Grant": grant})  # fmt: skip
            found.append((answer.status_code, answer.json().get("code", "")))

        threads = [threading.Thread(target=fetch) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert sorted(status for status, _ in found) == [200, *[409] * 7]
    assert {code for _, code in found} <= {"", "grant-used", "evidence-under-way"}
    assert len(hubs.given()) == len(fetched(hubs)) == 1


def test_it_may_end_while_the_partner_is_asked(
    hubs: Exchange, base: str, announced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = Hall(hubs, base)
    grant = hall.ask()
    ask = evidence_asking.caller.ask

    def ending(*arguments: Any, **members: Any) -> Any:
        reply = ask(*arguments, **members)
        clients.remove("hall-1")
        return reply

    monkeypatch.setattr(evidence_asking.caller, "ask", ending)
    problem(hall.fetch(announced, grant), 403, "agreement-ended")
    assert fetched(hubs) == [], "it was given to this hub, and not passed on"


def test_what_is_held_here_and_there_is_fetched_here_and_there(
    hubs: Exchange, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option of two materials, one of each: the one that is held here opens as well."""
    from hub import evidence

    rule = {
        "disposition": "held_elsewhere", "reason": "elsewhere", "condition": {"value": True, "deciding": []},
        "options": [
            [{"material": "a", "holder": "applicant", "state": "held", "holdings": [{"holding": "1"}]},
             {"material": "b", "holder": "applicant", "state": "missing"}],
            [{"material": "a", "holder": "applicant", "state": "held", "holdings": [{"holding": "2"}]},
             {"material": "c", "holder": "applicant", "state": "elsewhere", "entries": [{"entry": "3"}]}],
        ],
    }  # fmt: skip
    assert list(evidence.opened({"requirements": [rule]})) == ["2"]
    assert list(evidence.opened({"requirements": [{**rule, "disposition": "undetermined"}]})) == []


def test_what_a_partner_holds_of_papers_to_be_completed_is_opened_once_it_is_known_to_apply() -> None:
    from hub import evidence
    from hub.exchange import evidence_grants

    rule = {
        "disposition": "submit", "reason": "absent", "condition": {"value": True, "deciding": []},
        "options": [[{"material": LICENCE, "holder": "applicant", "state": "elsewhere", "entries": [{"entry": "7"}]},
                     {"material": LICENCE, "holder": "buyer", "state": "missing"}]],
    }  # fmt: skip
    assert [use["holder"] for use in evidence_grants._found(rule)] == ["applicant"]
    unknown = {
        **rule, "disposition": "held_elsewhere", "reason": "elsewhere", "condition": {"value": None, "deciding": ["a", "b"]},
        "options": [rule["options"][0][:1]],  # type: ignore[index]
    }  # fmt: skip
    assert list(evidence_grants._found(unknown)) == []
    refused = evidence.refusal([unknown], "7")
    assert (refused.code, refused.values["facts"]) == ("grant-fact-missing", "a, b")
    assert evidence.refusal([unknown, rule], "8").code == "grant-not-for-holding"


class Test_what_no_index_tells_of:
    """Marriages are announced to nobody: an answer asks to submit the certificate, or is open."""

    @pytest.fixture
    def agreed(self, hubs: Exchange) -> Any:
        shown = ["certificate_number", "status", "holder.spouse_a"]
        hubs.hold(
            ("spouse_a", "cn.ric", stored.RESIDENT), ("spouse_b", "cn.ric", stored.SPOUSE), material=MARRIAGE,
            number="J330106-2019-1",
        )  # fmt: skip
        return hubs.agree(materials={MARRIAGE: shown, LICENCE: ["status"]})

    def look_up(self, hall: Hall, **more: Any) -> Json:
        facts = {"married": True, "ground": "spouse", "moved_from": "zhejiang"}
        return hall.look_up(
            items=["demo-household-move"], id=PERSON, facts=facts, roles={"spouse": f"cn.ric:{stored.SPOUSE}"}, **more
        )

    def ask(self, hall: Hall, grant: str, id_: Any = PERSON, **more: Any) -> requests.Response:
        return hall.post(
            "/v1/evidence", {"hub": "zj", "material": MARRIAGE, "id": id_, **more}, **{"Yici-Grant": grant}
        )

    def test_it_is_asked_for_by_hub_and_material(self, hubs: Exchange, base: str, agreed: Any) -> None:
        hall = Hall(hubs, base, fields={MARRIAGE: ["*"]})
        answer = self.look_up(hall)
        assert answer["marriage"]["disposition"] == "submit"
        found = self.ask(hall, answer["answer"])
        assert found.status_code == 200, found.text
        certificate = found.json()["certificate"]
        assert set(certificate) == {"certificate_number", "status", "holders"}
        assert [holder["role"] for holder in certificate["holders"]] == ["spouse_a"]
        [row] = fetched(hubs)
        assert (row.provider, row.material, str(row.answer)) == ("zj", MARRIAGE, answer["answer"])
        problem(self.ask(hall, answer["answer"]), 409, "grant-used")
        assert len(hubs.given()) == 1
        with hubs.sh.acting() as engine:
            shown = subject_view.view(engine, PERSON, client="portal", purpose="own", section="fetched")
        assert [entry["provider"] for entry in shown["fetched"]["entries"]] == ["zj"]

    def test_only_what_the_answer_left_open_for_that_party(self, hubs: Exchange, base: str, agreed: Any) -> None:
        hall = Hall(hubs, base)
        grant = self.look_up(hall)["answer"]
        problem(self.ask(hall, grant, f"cn.ric:{stored.SPOUSE}"), 422, "evidence-not-party")
        for material in (LICENCE, "birth-certificate", "no-such-thing", "12345678901234567x"):
            problem(self.ask(hall, grant, material=material), 403, "grant-not-for-material")
        for hub in ("js", "110105194912310021"):
            told = problem(self.ask(hall, grant, hub=hub), 403, "peer-unknown")
            assert hub not in told["detail"]
        problem(self.ask(hall, grant, hub="ZJ!"), 422, "body-invalid")
        unmarried = hall.look_up(items=["demo-household-move"], id=PERSON, facts={"married": False})
        problem(self.ask(hall, unmarried["answer"]), 403, "grant-not-for-material")
        unsaid = hall.look_up(items=["demo-household-move"], id=PERSON)
        assert unsaid["marriage"]["reason_code"] == "fact-missing"
        problem(self.ask(hall, unsaid["answer"]), 403, "grant-not-for-material")
        assert asked(hubs) == []

    @pytest.mark.parametrize(
        "unsure",
        ["UPDATE source SET last_success_at = now() - interval '9 days'", "UPDATE index_scope SET regions = '{3301}'"],
        ids=["behind", "a part"],
    )
    def test_where_its_index_would_have_told_it_is_not_asked(
        self, hubs: Exchange, base: str, agreed: Any, monkeypatch: pytest.MonkeyPatch, unsure: str
    ) -> None:
        """Zhejiang announces licences, and none of this firm. Behind its promise, or of one city alone, it would not have told."""
        key = hubs.hold(("holder", "cn.uscc", OTHER))
        hubs.announce(monkeypatch, agreed, key, ("holder", "cn.uscc", OTHER))
        hall = Hall(hubs, base)

        def ask() -> requests.Response:
            grant = hall.ask()
            body = {"hub": "zj", "material": LICENCE, "id": f"cn.uscc:{FIRM}"}
            return hall.post("/v1/evidence", body, **{"Yici-Grant": grant})

        problem(ask(), 403, "grant-not-for-material")
        assert asked(hubs) == []
        with hubs.sh.acting() as engine, engine.begin() as connection:
            connection.execute(sa.text(unsure))
        assert problem(ask(), 502, "partner-refused")["partner"]["code"] == "holding-unknown"
        hubs.firm()
        assert ask().json()["certificate"] == {"status": "in_force"}


def test_a_certificate_whose_text_decides_is_fetched_to_be_read(
    hubs: Exchange, base: str, announced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partner announced it, and nobody here can tell what it says: the answer names the hub to ask."""
    from hub.exchange import evidence_grants

    rule = {
        "disposition": "undetermined", "reason": "attribute-untold", "condition": {"value": True, "deciding": []},
        "options": [[{"material": LICENCE, "holder": "applicant", "state": "untold", "entries": [{"entry": "7"}]}]],
    }  # fmt: skip
    assert [use["material"] for use in evidence_grants._found(rule)] == [LICENCE]
    assert list(evidence_grants._found({**rule, "reason": "fact-missing"})) == []
    assert list(evidence_grants._found({**rule, "disposition": "not_required"})) == []
    hall = Hall(hubs, base)
    grant = hall.ask()
    with hubs.sh.acting() as engine, engine.begin() as connection:
        trace = records.trace(connection, records.found(connection, grant))
        for one in trace["requirements"]:
            if one["requirement"] == LICENCE:
                one |= {"disposition": "undetermined", "reason": "attribute-untold"}
                one["options"][0][0]["state"] = "untold"
        connection.execute(
            sa.text("UPDATE answer SET trace = :trace, rules = NULL WHERE id = :id"),
            {"id": grant, "trace": json.dumps(trace)},
        )
    assert hall.fetch(announced, grant).status_code == 200


def test_a_wrong_body_is_named(hubs: Exchange, base: str, announced: str) -> None:
    hall = Hall(hubs, base)
    grant = hall.ask()
    for body in (
        {},
        {"id": FIRM * 9},
        {"id": f"cn.uscc:{FIRM}", "seconds": 0},
        {"id": f"cn.uscc:{FIRM}", "seconds": 999},
        [],
    ):
        problem(hall.post(f"/v1/evidence/{announced}", body, **{"Yici-Grant": grant}), 422, "body-invalid")
    problem(hall.post("/v1/evidence", {"id": f"cn.uscc:{FIRM}"}, **{"Yici-Grant": grant}), 422, "body-invalid")
    with hubs.sh.acting():
        raw = hall.session.post(f"{base}/v1/evidence/{announced}", data=b"{", timeout=30,
                                headers={"Content-Type": "application/json"})  # fmt: skip
        plain = hall.session.post(f"{base}/v1/evidence/{announced}", data=b"{}", timeout=30)
    problem(raw, 400, "body-malformed")
    problem(plain, 415, "media-type-unsupported")


class Test_the_command:
    def ask(self, hubs: Exchange, *arguments: str, text: str = f"cn.uscc:{FIRM}\n") -> Any:
        with hubs.sh.acting():
            return CliRunner().invoke(cli.app, ["evidence", "ask", *arguments, "--id", "-"], input=text)

    def answer(self, hubs: Exchange, **more: Any) -> str:
        said = {"purpose": PURPOSE, "case": CASE, **more}
        with hubs.sh.acting() as engine:
            [found] = answers.ask(engine, Question(("demo-food-permit",), f"cn.uscc:{FIRM}", "yici-cli", **said))
        return str(found["answer"])

    def test_it_asks_for_what_an_answer_found(self, hubs: Exchange, announced: str) -> None:
        grant = self.answer(hubs)
        done = self.ask(hubs, "zj", "--answer", grant, "--handle", announced, "--json")
        assert done.exit_code == 0, done.output
        shown = json.loads(done.stdout)
        assert set(shown) == {"hub", "evidence", "digest", "envelope"}
        assert shown["evidence"]["certificate"]["name"] == "营业执照", "all that the hubs agreed"
        told = envelope.read(f"{shown['envelope']}\n".encode()).envelope
        assert told.digest == shown["digest"]
        [row] = fetched(hubs)
        assert (row.client, row.provider) == ("yici-cli", "zj")
        again = self.ask(hubs, "zj", "--answer", grant, "--handle", announced)
        assert again.exit_code != 0 and again.exception.code == "grant-used"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_interrupted_it_leaves_a_record_of_what_was_given(
        self, hubs: Exchange, announced: str, number: int
    ) -> None:
        slow, slowly = hubs.zj.home.path / "slow", hubs.zj.home.path / "slowly"
        slow.touch()
        command = [sys.executable, "-m", "hub", "evidence", "ask", "zj", "--answer", self.answer(hubs), "--handle", announced,
                   "--id", "-"]  # fmt: skip
        environment = {**os.environ, **hubs.sh.variables, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)) as asking:  # fmt: skip
            assert asking.stdin is not None
            asking.stdin.write(f"cn.uscc:{FIRM}\n")
            asking.stdin.close()
            asking.stdin = None
            try:
                deadline = time.monotonic() + 60
                while not slowly.exists() and time.monotonic() < deadline and asking.poll() is None:
                    time.sleep(0.05)
                assert slowly.exists(), asking.communicate()
                asking.send_signal(number)
                said = asking.communicate(timeout=30)[1]
            finally:
                asking.kill()
                slow.unlink()
                slowly.unlink(missing_ok=True)
        deadline = time.monotonic() + 20
        while not hubs.given() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(hubs.given()) == 1 and fetched(hubs) == [], "it was given, and passed on to nobody"
        records = hubs.sh.rows("SELECT * FROM exchange_record WHERE kind LIKE 'evidence.%' ORDER BY id")
        assert {record.message for record in records} == {hubs.given()[0].message}
        told = envelope.read(f"{records[0].request}\n".encode()).envelope
        assert (told.id, told.case, records[0].reply) == (hubs.given()[0].message, CASE, None)
        wanted = ["sent", "interrupted"] if number == signal.SIGINT else ["sent"]
        assert [record.outcome for record in records] == wanted
        with hubs.sh.acting() as engine, engine.connect() as connection:
            listed = ledger_view.listed(connection, refused=True, kind="evidence.request")
        assert [one["outcome"] for one in listed] == wanted[-1:], "nothing was heard of it any more"
        if number == signal.SIGINT:
            assert asking.returncode == 130
            assert "zj was asked and may have done it" in said and "half-done" not in said

    def test_people_read_it(self, hubs: Exchange, announced: str) -> None:
        done = self.ask(hubs, "zj", "--answer", self.answer(hubs), "--handle", announced, "--fields", "status, name")
        assert done.exit_code == 0, done.output
        assert "营业执照" in done.stdout and "in_force" in done.stdout and "330106000000001" not in done.stdout

    @pytest.mark.parametrize(("arguments", "code"), [
        (("js", "--handle"), "grant-not-for-holding"),
        (("zj",), "evidence-which"),
        (("zj", "--material", LICENCE, "--handle"), "evidence-which"),
        (("zj", "--material", LICENCE), "grant-not-for-material"),
        (("zj", "--fields", "issuer_name", "--handle"), "field-not-agreed"),
        (("zj", "--handle"), "purpose-not-agreed"),
    ])  # fmt: skip
    def test_what_it_refuses(self, hubs: Exchange, announced: str, arguments: tuple[str, ...], code: str) -> None:
        more = {"purpose": "operator"} if code == "purpose-not-agreed" else {}
        handle = (announced,) if arguments[-1] == "--handle" else ()
        done = self.ask(hubs, *arguments, *handle, "--answer", self.answer(hubs, **more))
        assert done.exit_code != 0 and done.exception.code == code, done.output
        assert asked(hubs) == []

    def test_an_answer_of_a_client_is_no_grant_of_the_operator(self, hubs: Exchange, base: str, announced: str) -> None:
        done = self.ask(hubs, "zj", "--answer", Hall(hubs, base).ask(), "--handle", announced)
        assert done.exception.code == "grant-unknown"

    def test_consent_on_the_command_line(self, hubs: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
        agreement, key = hubs.agree(consent="required"), hubs.firm()
        handle = hubs.announce(monkeypatch, agreement, key, HOLDER, valid_to="2999-01-01")["handle"]
        arguments = ("zj", "--answer", self.answer(hubs), "--handle", handle)
        assert self.ask(hubs, *arguments).exception.code == "consent-required"
        done = self.ask(hubs, *arguments, "--consent", "31-77", "--consent-at", "2026-01-02T10:00", "--json")
        assert done.exit_code == 0, done.output

    def test_a_lookup_here_can_say_what_for(self, hubs: Exchange, announced: str) -> None:
        asked = ["lookup", "--item", "demo-food-permit", "--id", "-", "--purpose", PURPOSE, "--case", CASE, "--json"]
        with hubs.sh.acting():
            found = json.loads(CliRunner().invoke(cli.app, asked, input=f"cn.uscc:{FIRM}").stdout)
        done = self.ask(hubs, "zj", "--answer", found["answer"], "--handle", announced, "--json")
        assert json.loads(done.stdout)["evidence"]["given"]["case"] == CASE
        with hubs.sh.acting():
            named = CliRunner().invoke(cli.app, [*asked[:-2], stored.RESIDENT], input=f"cn.uscc:{FIRM}")
        assert named.exception.code == "case-names-somebody"
