"""One's own view: all that is held of a person under any of their identifiers, who asked, and nothing of anybody else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from connectors.errors import UsageError
from hub import agreements, answers, evidence, subject_view
from hub.answers import Question
from hub.api.app import create
from hub.home import Home
from tests import linked, stored
from tests.linked import Said
from tests.serving import FORM, LICENCE, problem, served

OTHER = "cn.uscc:91440300708461136T"
PERSON, PASSPORT = f"cn.ric:{stored.RESIDENT}", "passport:E12345678"


def view(engine: sa.Engine, text: str = LICENCE, **more: Any) -> dict[str, Any]:
    return subject_view.view(engine, text, client="portal", purpose="own", **more)


@pytest.fixture
def licence(store: sa.Engine) -> str:
    stored.source(store, "sh-amr-enterprises", "business-licence")
    stored.holding(store, "sh-amr-enterprises", "business-licence", ("holder", "cn.uscc", OTHER.split(":")[1]))
    return stored.holding(
        store,
        "sh-amr-enterprises",
        "business-licence",
        ("holder", "cn.uscc", stored.LICENCE_CODE),
        file="2019-上海.csv",
    )


def ask(engine: sa.Engine, applicant: str = LICENCE, **more: Any) -> str:
    return str(answers.ask(engine, Question(("demo-food-permit",), applicant, "hall-1", "handle", **more))[0]["answer"])


def test_what_is_held_from_whom_and_who_asked(store: sa.Engine, licence: str) -> None:
    shown = {"business-licence": ["valid_from", "valid_to", "status"]}
    agreements.add("hall-1", None, "一号大厅", ["demo-food-permit"], ["handle"], fields=shown)
    mine = ask(store, case="31-7")
    evidence.fetch(store, "hall-1", licence, mine)
    theirs = ask(store, OTHER)
    shown = view(store, lang="zh")
    assert shown["identity"] == "clear"
    [held] = shown["held"]["entries"]
    assert (held["holding"], held["material_name"], held["as"]) == (licence, "营业执照", ["holder"])
    assert held["owner"] == "上海市市场监督管理局" and held["as_of"]
    assert held["provenance"] == [{"source": "sh-amr-enterprises", "file": "2019-上海.csv", "row": 2}]
    [asked] = shown["asked"]["entries"]
    assert (asked["answer"], asked["client_name"], asked["purpose"], asked["case"]) == (
        mine,
        "一号大厅",
        "handle",
        "31-7",
    )
    assert asked["item_name"] == "食品经营许可（设立）"
    [fetched] = shown["fetched"]["entries"]
    assert (fetched["holding"], fetched["client"], fetched["case"]) == (licence, "hall-1", "31-7")
    assert fetched["fields"] == ["valid_from", "valid_to", "status"]
    assert shown["deposits"] == shown["views"] == {"entries": [], "next": None}
    assert theirs not in json.dumps(shown)
    [seen] = view(store)["views"]["entries"]
    assert (seen["client"], seen["purpose"]) == ("portal", "own")


def test_who_was_named_beside_the_applicant_sees_that_and_no_more(store: sa.Engine, licence: str) -> None:
    agreements.add("hall-1", None, "一号大厅", ["demo-food-permit"], ["handle"])
    for named in (PERSON, f"cn.ric:{stored.SPOUSE}"):
        ask(store, case="31-7", roles={"legal_representative": named})
    mine = ask(store, case="31-8")
    [seen] = view(store, PERSON)["asked"]["entries"]
    assert (seen["as"], seen["client_name"], seen["purpose"], seen["item"]) == (
        ["legal_representative"], "一号大厅", "handle", "demo-food-permit",
    )  # fmt: skip
    assert seen["case"] is seen["must_submit"] is None
    assert stored.LICENCE_CODE not in json.dumps(seen) and licence not in json.dumps(seen)
    theirs = view(store)["asked"]["entries"]
    assert [(one["as"], one["case"]) for one in theirs] == [(["applicant"], case) for case in ("31-8", "31-7", "31-7")]
    assert theirs[0]["answer"] == mine and "premises-proof" in theirs[0]["must_submit"]
    with store.begin() as connection:  # under any number that is theirs
        linked.deliver(connection, [Said(PERSON, PASSPORT)])
    assert view(store, PASSPORT)["asked"]["entries"] == [seen]


def test_who_holds_a_certificate_with_the_applicant_does_not_see_their_case(store: sa.Engine) -> None:
    spouse = f"cn.ric:{stored.SPOUSE}"
    agreements.add(
        "hall-1", None, "一号大厅", ["demo-household-move"], ["handle"], fields={"marriage-certificate": ["status"]}
    )
    stored.source(store, "sh-mca-marriages", "marriage-certificate")
    marriage = stored.holding(
        store, "sh-mca-marriages", "marriage-certificate", ("spouse_a", "cn.ric", stored.RESIDENT),
        ("spouse_b", "cn.ric", stored.SPOUSE),
    )  # fmt: skip
    facts = {"married": True, "ground": "spouse", "moved_from": "shanghai"}
    for applicant, other, case in ((PERSON, spouse, "31-7"), (spouse, PERSON, "31-8")):
        question = Question(
            ("demo-household-move",), applicant, "hall-1", "handle", case=case, facts=facts, roles={"spouse": other}
        )
        evidence.fetch(store, "hall-1", marriage, answers.ask(store, question)[0]["answer"])
    for who, cases in ((PERSON, [None, "31-7"]), (spouse, ["31-8", None])):
        shown = view(store, who)
        assert [one["case"] for one in shown["fetched"]["entries"]] == cases
        assert [one["case"] for one in shown["asked"]["entries"]] == cases
        assert {(one["client"], one["purpose"]) for one in shown["fetched"]["entries"]} == {("hall-1", "handle")}
    with store.begin() as connection:  # under any number that is theirs
        linked.deliver(connection, [Said(PERSON, PASSPORT)])
    assert [one["case"] for one in view(store, PASSPORT)["fetched"]["entries"]] == [None, "31-7"]


def test_pages_end_and_leave_nothing_out(store: sa.Engine, licence: str) -> None:
    given = [ask(store) for _ in range(5)]
    found: list[str] = []
    after = None
    for _ in range(4):
        page = view(store, section="asked", after=after, limit=2)["asked"]
        found += [entry["answer"] for entry in page["entries"]]
        if (after := page["next"]) is None:
            break
    assert found == given[::-1]
    begun = [None, "2024-05-01", "2026-01-01", None, "2024-05-01"]
    more = {
        stored.holding(
            store, "sh-amr-enterprises", "premises-proof", ("holder", "cn.uscc", stored.LICENCE_CODE), valid_from=day
        ): day or "" for day in begun
    }  # fmt: skip
    keys, after = [], None
    for _ in range(9):
        page = view(store, section="held", limit=1, after=after)["held"]
        keys += [entry["holding"] for entry in page["entries"]]
        if (after := page["next"]) is None:
            break
    with store.connect() as connection:
        own = connection.scalar(
            sa.text("SELECT valid_from FROM holding WHERE encode(key, 'hex') = :key"), {"key": licence}
        )
    days = more | {licence: own.isoformat() if own else ""}
    assert keys == sorted(days, key=lambda key: (days[key], key), reverse=True), "the newest first, on whatever page"
    assert keys[0] == next(key for key, day in more.items() if day == "2026-01-01") or days[keys[0]] > "2026-01-01"
    for wrong in (licence, "zz", "2026-1-1~x", "soon~x"):
        with pytest.raises(UsageError, match="position"):
            view(store, section="held", after=wrong)
    for wrong in ("soon", "2026-01-01T00:00:00~x", "2026-01-01T00:00:00+00:00", "~", "0001-01-01T00:00:00+23:59~x"):
        with pytest.raises(UsageError, match="position"):
            view(store, section="asked", after=wrong)
    assert view(store, section="asked", after="2026-01-01T00:00:00+23:59~x")["asked"] == {"entries": [], "next": None}
    with pytest.raises(UsageError, match="position"):
        view(store, after=licence)
    with pytest.raises(UsageError, match="identifier"):
        view(store, "cn.uscc:91310117MA1J3AJ43X")


def test_all_identifiers_of_a_person_and_none_of_a_contradictory_one(store: sa.Engine) -> None:
    stored.source(store, "sh-ga-residents", "resident-id-card", region="110000")
    card = stored.holding(store, "sh-ga-residents", "resident-id-card", ("holder", "cn.ric", stored.RESIDENT))
    degree = stored.holding(store, "sh-ga-residents", "degree-certificate", ("holder", "passport", "E12345678"))
    with store.begin() as connection:
        linked.deliver(connection, [Said(PERSON, PASSPORT)])
    for one in (PERSON, PASSPORT):
        assert {entry["holding"] for entry in view(store, one)["held"]["entries"]} == {card, degree}
    ask_id = answers.ask(store, Question(("demo-elder-card",), PERSON, "hall-1", "handle"))[0]["answer"]
    assert view(store, PASSPORT)["asked"]["entries"][0]["answer"] == ask_id
    spouse = f"cn.ric:{stored.SPOUSE}"  # born on another day: both cannot be one person
    with store.begin() as connection:
        linked.deliver(connection, [Said(spouse, PASSPORT)])
    doubtful = view(store, PASSPORT)
    assert doubtful["identity"] == "contradictory"
    assert [entry["holding"] for entry in doubtful["held"]["entries"]] == [degree]
    assert doubtful["asked"]["entries"] == []


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


def test_over_http_only_who_agreed_on_it(store: sa.Engine, base: str, licence: str) -> None:
    tokens = {}
    for client, agreed in (("portal", True), ("hall-1", False)):
        secret = agreements.add(client, None, client, ["demo-food-permit"], ["own"], own_view=agreed)
        token = requests.post(f"{base}/oauth2/token", data=FORM, auth=(client, secret), timeout=30).json()
        tokens[client] = {"Authorization": f"Bearer {token['access_token']}"}

    def post(client: str, **more: Any) -> requests.Response:
        return requests.post(f"{base}/v1/subjects/view", headers=tokens[client], timeout=30, **more)

    shown = post("portal", json={"id": LICENCE})
    assert shown.status_code == 200 and shown.headers["Cache-Control"] == "no-store"
    assert shown.json()["held"]["entries"][0]["holding"] == licence
    assert stored.LICENCE_CODE not in shown.text
    problem(post("hall-1", json={"id": LICENCE}), 403, "own-view-not-agreed")
    problem(post("portal", json={"id": LICENCE, "purpose": "other"}), 403, "purpose-not-agreed")
    problem(post("portal", json={"id": "cn.uscc:91310117MA1J3AJ43X"}), 422, "identifier-invalid")
    problem(post("portal", json={"id": LICENCE, "section": "asked", "after": "x"}), 422, "position-invalid")
    for body in ({}, {"id": LICENCE, "section": "all"}, {"id": LICENCE, "limit": 0}, {"id": LICENCE, "more": 1}):
        problem(post("portal", json=body), 422, "body-invalid")
    for kind, status, code in (
        ("application/json", 400, "body-malformed"),
        ("text/plain", 415, "media-type-unsupported"),
    ):
        headers = {**tokens["portal"], "Content-Type": kind}
        sent = requests.post(f"{base}/v1/subjects/view", data=b"{", timeout=30, headers=headers)
        problem(sent, status, code)
    with store.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM subject_view")) == 1


def test_the_command_reads_the_identifier_from_standard_input(store: sa.Engine, licence: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hub", "subject", "view", "--id", "-", "--json"], input=f"{LICENCE}\n",
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["held"]["entries"][0]["holding"] == licence
