"""Evidence: what an answer opens, to whom, for how long, how much of it, once; and that it is recorded before it leaves."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from connectors import envelope, signature
from connectors.errors import FatalError
from hub import agreements, problems, records, signing
from hub.api.app import create
from hub.home import Home, keyed_hash
from hub.schema_evidence import evidence
from tests import linked, stored
from tests.conftest import ROOT
from tests.serving import FORM, LICENCE, problem, served

ITEMS = ["demo-food-permit"]
SHOWN = {
    "business-licence": ["certificate_number", "status", "valid_from", "valid_to", "holder.holder", "attributes.registered_on"],
}  # fmt: skip
SAID = {"registered_on": "2019-08-01", "enterprise_type": "有限责任公司"}


class Hall:
    """A client with a token; ``ask`` gives the id of an answer."""

    def __init__(self, base: str, client: str, **agreed: Any) -> None:
        secret = agreements.add(client, None, client, ITEMS, ["handle"], **{"fields": SHOWN, **agreed})
        self.base, self.session = base, requests.Session()
        self.session.trust_env = False
        token = self.session.post(f"{base}/oauth2/token", data=FORM, auth=(client, secret), timeout=30).json()
        self.session.headers["Authorization"] = f"Bearer {token['access_token']}"

    def ask(self, **more: Any) -> str:
        body = {"items": ITEMS, "id": LICENCE, "case": "31-2026-0001", **more}
        answer = self.session.post(f"{self.base}/v1/lookups", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["answers"][0]["answer"])

    def fetch(self, holding: str, grant: str, **query: str) -> requests.Response:
        headers = {"Yici-Grant": grant}
        return self.session.get(f"{self.base}/v1/evidence/{holding}", headers=headers, params=query, timeout=30)


@pytest.fixture
def licence(store: sa.Engine) -> str:
    stored.source(store, "sh-amr-enterprises", "business-licence")
    key = stored.holding(
        store, "sh-amr-enterprises", "business-licence", ("holder", "cn.uscc", stored.LICENCE_CODE),
        number="310000000000001", name="营业执照", valid_to="2999-01-01", file="2019-上海.csv",
    )  # fmt: skip
    said(store, key, attributes=SAID)
    return key


@pytest.fixture(scope="module")
def engine(server_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    yield from linked.store(server_home, tmp_path_factory.mktemp("state"))


@pytest.fixture
def store(engine: sa.Engine) -> sa.Engine:
    return stored.emptied(engine)


@pytest.fixture(scope="module")
def base(engine: sa.Engine) -> Iterator[str]:
    with served(create()) as address:
        yield address


def said(engine: sa.Engine, key: str, **members: Any) -> None:
    """What the document of a holding says, changed."""
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE mapped_row SET document = cast(cast(document AS jsonb) || cast(:said AS jsonb) AS text)"
                    " WHERE holding = decode(:key, 'hex')"),
            {"key": key, "said": json.dumps(members)},
        )  # fmt: skip


def written(engine: sa.Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(sa.select(evidence)))


def age(engine: sa.Engine, answer: str, minutes: int) -> None:
    """The answer was given that long ago."""
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE answer SET asked_at = asked_at - make_interval(mins => :minutes) WHERE id = cast(:id AS uuid)"),
            {"id": answer, "minutes": minutes},
        )  # fmt: skip
        connection.execute(sa.text("UPDATE agreement SET valid_from = valid_from - interval '1 hour'"))


def test_the_fields_agreed_are_given_signed_and_recorded(store: sa.Engine, base: str, licence: str) -> None:
    hall = Hall(base, "hall-1")
    grant = hall.ask()
    answer = hall.fetch(licence, grant)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["certificate"] == {
        "certificate_number": "310000000000001", "valid_from": None, "valid_to": "2999-01-01", "status": "in_force",
        "holders": [{"role": "holder", "scheme": "cn.uscc", "value": stored.LICENCE_CODE, "name": None}],
        "attributes": {"registered_on": "2019-08-01"},
    }  # fmt: skip
    assert (body["holding"], body["material"]) == (licence, "business-licence")
    assert (body["source"]["source"], body["source"]["file"], body["source"]["row"]) == (
        "sh-amr-enterprises", "2019-上海.csv", 2,
    )  # fmt: skip
    assert not body["source"]["late"]
    assert body["given"]["case"] == "31-2026-0001"
    assert (answer.headers["Cache-Control"], answer.headers["Content-Type"]) == ("no-store", "application/json")

    [row] = written(store)
    assert (str(row.answer), row.holding.hex(), row.client, row.purpose, row.case) == (
        grant, licence, "hall-1", "handle", "31-2026-0001",
    )  # fmt: skip
    assert row.fields == body["fields"] and "attributes.registered_on" in row.fields
    assert row.digest == hashlib.sha256(answer.content).digest()
    assert answer.headers["Content-Digest"] == f"sha-256=:{base64.b64encode(row.digest).decode()}:"
    assert row.asked_at < row.given_at

    keys = [signature.public_key(signing.public_key())]
    beside = answer.headers["Yici-Signature"]
    signature.verify_detached(answer.content, beside, keys, signature.EVIDENCE, "evidence")
    for payload, kind in ((answer.content + b" ", signature.EVIDENCE), (answer.content, envelope.TYPE)):
        with pytest.raises(FatalError, match="signature"):
            signature.verify_detached(payload, beside, keys, kind, "evidence")


def test_nothing_agreed_shows_nothing(store: sa.Engine, base: str, licence: str) -> None:
    hall = Hall(base, "hall-1", fields={"resident-id-card": ["*"]})
    grant = hall.ask()
    for more in ({}, {"fields": "status"}, {"fields": "valid_from,valid_to"}):
        told = problem(hall.fetch(licence, grant, **more), 403, "field-not-agreed")
        assert "2999" not in json.dumps(told) and "in_force" not in json.dumps(told)
    assert written(store) == []
    agreements.add("hall-1", None, "hall-1", ITEMS, ["handle"], fields={"business-licence": ["name"]}, replace=True)
    with store.begin() as connection:  # of the same agreement
        connection.execute(sa.text("UPDATE agreement SET valid_from = now() - interval '1 hour'"))
    assert hall.fetch(licence, grant).json()["certificate"] == {"name": "营业执照"}


def test_everything_has_to_be_written_out(store: sa.Engine, base: str, licence: str) -> None:
    hall = Hall(base, "hall-1", fields={"business-licence": ["*"]})
    whole = hall.fetch(licence, hall.ask()).json()
    assert whole["certificate"]["attributes"] == SAID
    narrow = hall.fetch(licence, hall.ask(), fields="attributes.registered_on,status").json()
    assert narrow["certificate"] == {"status": "in_force", "attributes": {"registered_on": "2019-08-01"}}
    assert narrow["fields"] == ["status", "attributes.registered_on"]
    assert whole["version"] == narrow["version"]
    said(store, licence, attributes={**SAID, "enterprise_type": "股份有限公司"})
    assert hall.fetch(licence, hall.ask(), fields="status").json()["version"] != whole["version"]


def test_a_field_that_was_not_agreed_is_refused_and_nothing_recorded(store: sa.Engine, base: str, licence: str) -> None:
    hall = Hall(base, "hall-1")
    grant = hall.ask()
    for fields in ("attributes.enterprise_type", "status,attributes.none"):
        problem(hall.fetch(licence, grant, fields=fields), 403, "field-not-agreed")
    for nothing in ("", " ", ",", ", ,"):
        problem(hall.fetch(licence, grant, fields=nothing), 422, "query-invalid")
    assert written(store) == []
    assert hall.fetch(licence, grant).status_code == 200, "what was refused used nothing up"


def test_a_grant_is_for_once_for_its_client_and_for_what_it_found(store: sa.Engine, base: str, licence: str) -> None:
    hall, other = Hall(base, "hall-1"), Hall(base, "hall-2")
    grant = hall.ask()
    for wrong in ("", "nothing", "00000000-0000-4000-8000-000000000000"):
        problem(hall.fetch(licence, wrong), 403, "grant-unknown")
    problem(other.fetch(licence, grant), 403, "grant-unknown")
    stranger = stored.holding(
        store, "sh-amr-enterprises", "business-licence", ("holder", "cn.uscc", "91440300708461136T")
    )
    for key in (stranger, "0" * 32, "x"):
        problem(hall.fetch(key, grant), 403, "grant-not-for-holding")
    nobody = hall.ask(id="cn.uscc:91350211M000100Y43")
    problem(hall.fetch(licence, nobody), 403, "grant-not-for-holding")
    then = hall.ask(as_of=dt.datetime.now(dt.UTC).isoformat())
    problem(hall.fetch(licence, then), 403, "grant-not-for-holding")
    assert hall.fetch(licence, grant).status_code == 200
    problem(hall.fetch(licence, grant), 409, "grant-used")
    assert len(written(store)) == 1


def test_of_many_at_once_one_gets_it(store: sa.Engine, base: str, licence: str) -> None:
    hall = Hall(base, "hall-1")
    grant = hall.ask()
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(hall.fetch(licence, grant).status_code)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(statuses) == [200, *[409] * 7]
    assert len(written(store)) == 1


def test_minutes_and_agreement_end_it(store: sa.Engine, base: str, licence: str) -> None:
    hall = Hall(base, "hall-1", evidence_minutes=10)
    old, young = hall.ask(), hall.ask()
    age(store, old, 11)
    age(store, young, 9)
    assert "10 minutes" in problem(hall.fetch(licence, old), 403, "grant-expired")["detail"]
    for column, value, code in (
        ("items", "{demo-elder-card}", "item-not-agreed"),
        ("purposes", "{other}", "purpose-not-agreed"),
    ):
        with store.begin() as connection:
            before = connection.scalar(sa.text(f"SELECT {column} FROM agreement"))
            connection.execute(sa.text(f"UPDATE agreement SET {column} = :value"), {"value": value})
        problem(hall.fetch(licence, young), 403, code)
        with store.begin() as connection:
            connection.execute(sa.text(f"UPDATE agreement SET {column} = :value"), {"value": before})
    with store.begin() as connection:
        connection.execute(sa.text("UPDATE agreement SET valid_to = now()"))
    problem(hall.fetch(licence, young), 403, "agreement-ended")
    assert written(store) == []


def test_who_agrees_anew_cannot_use_what_was_opened_before(store: sa.Engine, base: str, licence: str) -> None:
    grant = Hall(base, "hall-1").ask()
    agreements.remove("hall-1")
    problem(Hall(base, "hall-1").fetch(licence, grant), 403, "grant-expired")
    assert written(store) == []


def test_what_changed_since_has_to_be_asked_anew(store: sa.Engine, base: str, licence: str) -> None:
    hall = Hall(base, "hall-1")
    for change in (
        "UPDATE holding SET status = 'suspended'", "UPDATE holding SET status = 'in_force', valid_to = '2020-01-01'",
        "DELETE FROM holding",
    ):  # fmt: skip
        grant = hall.ask()
        with store.begin() as connection:
            connection.execute(sa.text("CREATE TABLE IF NOT EXISTS kept AS SELECT * FROM holding"))
            connection.execute(sa.text(change))
        problem(hall.fetch(licence, grant), 409, "holding-changed")
        with store.begin() as connection:
            connection.execute(sa.text("DELETE FROM holding"))
            connection.execute(sa.text("INSERT INTO holding SELECT * FROM kept"))
    assert written(store) == []


def test_what_turned_out_to_be_somebody_elses_is_not_given(store: sa.Engine, base: str, licence: str) -> None:
    """The register corrects the holder while the grant is good; all that is compared of the certificate is as it was."""
    hall = Hall(base, "hall-1")
    grant = hall.ask()
    with store.begin() as connection:
        other = hashing_of("cn.uscc:91440300708461136T")
        connection.execute(
            sa.text("UPDATE holding_holder SET identifier = :other WHERE holding = decode(:key, 'hex')"),
            {"other": other, "key": licence},
        )
    problem(hall.fetch(licence, grant), 409, "holding-changed")
    assert written(store) == []


def hashing_of(text: str) -> bytes:
    return keyed_hash().of(text)


def test_only_what_satisfies_a_requirement_is_opened(store: sa.Engine, licence: str) -> None:
    from hub import answers
    from hub.answers import Question
    from hub.evidence import opened

    [answer] = answers.ask(store, Question(("demo-food-permit",), LICENCE, "test", "test"))
    trace = records.explain(store, answer["answer"])["trace"]
    assert list(opened(trace)) == [licence]
    for rule in trace["requirements"]:
        if rule["disposition"] == "held":
            rule["disposition"] = "not_required"  # looked at, and not needed
    assert list(opened(trace)) == []


HOME = {"items": ["demo-home-transfer"], "roles": {"buyer": f"cn.ric:{stored.SPOUSE}"}, "facts": {"ground": "gift"}}


def test_what_is_held_of_papers_to_be_completed_is_opened(
    store: sa.Engine, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seller's identity card, while the buyer's lacks: it applies, and the applicant is asked for the rest."""
    monkeypatch.setattr("tests.test_evidence.ITEMS", HOME["items"])
    stored.source(store, "sh-ga-residents", "resident-id-card")
    stored.source(store, "sh-ga-households", "household-register")
    card = stored.holding(store, "sh-ga-residents", "resident-id-card", ("holder", "cn.ric", stored.RESIDENT))
    other = stored.holding(store, "sh-ga-households", "household-register", ("holder", "cn.ric", stored.RESIDENT))
    hall = Hall(base, "hall-1", fields={"resident-id-card": ["status"], "household-register": ["status"]})
    grant = hall.ask(id=f"cn.ric:{stored.RESIDENT}", **HOME)
    [rule, *_] = records.explain(store, grant)["trace"]["requirements"]
    assert (rule["disposition"], rule["must_submit"]) == ("submit", ["resident-id-card"])
    given = hall.fetch(card, grant)
    assert given.status_code == 200 and given.json()["certificate"] == {"status": "in_force"}
    problem(hall.fetch(card, grant), 409, "grant-used")
    problem(hall.fetch(other, grant), 403, "grant-not-for-holding")
    assert records.explain(store, grant)["replay"] == "same"


def test_of_other_options_nothing_is_opened() -> None:
    from hub.evidence import opened

    def use(key: str, state: str) -> dict[str, Any]:
        return {"material": "m", "holder": "h", "state": state, "holdings": [{"holding": key}]}

    rule = {
        "disposition": "submit", "condition": {"value": True, "deciding": []},
        "options": [[use("1", "held"), use("2", "expired"), use("3", "late")], [use("4", "held"), use("5", "missing")]],
    }  # fmt: skip
    for disposition, keys in {
        "submit": ["1"], "expired": ["1"], "deferred": ["1"], "undetermined": [], "not_required": [],
    }.items():  # fmt: skip
        assert list(opened({"requirements": [{**rule, "disposition": disposition}]})) == keys
    unknown = {"value": None, "deciding": ["a"]}
    assert list(opened({"requirements": [{**rule, "condition": unknown}]})) == []


def test_who_leaves_facts_out_is_shown_no_more(store: sa.Engine, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held is said to be, but whether it is needed depends on facts: only once they are stated it is shown, if it is."""
    item = ["demo-household-move"]
    monkeypatch.setattr("tests.test_evidence.ITEMS", item)
    stored.source(store, "sh-ga-households", "household-register")
    stored.source(store, "sh-mca-marriages", "marriage-certificate")
    for who in (stored.RESIDENT, stored.SPOUSE):
        stored.holding(store, "sh-ga-households", "household-register", ("holder", "cn.ric", who))
    with store.connect() as connection:
        own = {"key": hashing_of(f"cn.ric:{stored.SPOUSE}")}
        key = connection.scalar(sa.text("SELECT holding FROM holding_holder WHERE identifier = :key"), own).hex()
    hall = Hall(base, "hall-1", fields={"household-register": ["status"]})
    parties = {"id": f"cn.ric:{stored.RESIDENT}", "roles": {"spouse": f"cn.ric:{stored.SPOUSE}"}}
    grant = hall.ask(**parties)
    [rule] = [
        one
        for one in records.explain(store, grant)["trace"]["requirements"]
        if one["requirement"] == "spouse-household"
    ]
    assert rule["disposition"] == "held" and rule["condition"]["value"] is None
    refused = hall.fetch(key, grant)
    problem(refused, 403, "grant-fact-missing")
    assert all(fact in refused.text for fact in rule["condition"]["deciding"])
    assert written(store) == []
    stated = {"married": True, "ground": "spouse"}
    problem(hall.fetch(key, hall.ask(**parties, facts={**stated, "married": False})), 403, "grant-not-for-holding")
    assert hall.fetch(key, hall.ask(**parties, facts=stated)).status_code == 200


def test_the_page_lists_every_problem_with_its_status() -> None:
    text = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d{3}) \| (.+) \| (\w+) \|$", text, re.M)
    listed = {code: (int(status), fault) for status, codes, fault in rows for code in re.findall(r"`([a-z-]+)`", codes)}
    for code, (status, fault) in listed.items():
        assert problems.KINDS[code] == problems.Kind(status, fault), code  # type: ignore[arg-type]
    names = ("evidence", "deposits", "handed_in", "subject_view", "api/evidence", "api/deposits", "api/subjects",
             "exchange/evidence_asking", "exchange/evidence_grants")  # fmt: skip
    source = "".join((ROOT / "hub" / f"{name}.py").read_text(encoding="utf-8") for name in names)
    raised = set(re.findall(r'(?:UsageError|FatalError|problem)\(\s*"([a-z-]+)"', source))
    assert len(raised) > 20
    assert raised - {"deposit-file-exists"} <= set(listed)  # that one is the command's
