"""The burden ledger: what is demanded, held, deferred and really asked for, each matter once."""

from __future__ import annotations

import csv
import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors.errors import UsageError
from hub import agreements, answers, burden, catalogue
from hub.answers import Question
from hub.cli import app
from hub.home import Home
from tests import linked, peering, stored
from tests.emptying import empty
from tests.serving import FORM, filled_hub, problem

LICENCE = f"cn.uscc:{stored.LICENCE_CODE}"
PERSON = f"cn.ric:{stored.RESIDENT}"
SPOUSE = f"cn.ric:{stored.SPOUSE}"
ALL = burden.Scope()


@pytest.fixture(scope="module")
def migrated(server_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    yield from linked.store(server_home, tmp_path_factory.mktemp("burden"))


@pytest.fixture
def store(migrated: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    """One store for all tests of the module, empty for each."""
    monkeypatch.setenv("YICI_LANG", "en")
    with migrated.begin() as connection:
        empty(connection, f"{peering.STORE}, answer, agreement")
    return migrated


def ask(store: sa.Engine, *items: str, applicant: str = LICENCE, client: str = "hall", **more: Any) -> list[dict]:
    return answers.ask(store, Question(catalogue.expand(items), applicant, client, "handle", **more))


def apart(store: sa.Engine, code: str, case: str, facts: dict[str, Any], **roles: str) -> None:
    """One of several items, with what it knows of facts and roles."""
    item = catalogue.in_force(code, catalogue.today())
    assert item is not None
    own = [
        {name: value for name, value in each.items() if name in known}
        for each, known in ((facts, item.facts), (roles, item.roles))
    ]
    ask(store, code, applicant=PERSON, case=case, facts=own[0], roles=own[1])


def ledger(store: sa.Engine, by: burden.By = "item", scope: burden.Scope = ALL) -> dict[Any, dict]:
    with store.connect() as connection:
        return {row[by]: row for row in burden.ledger(connection, by, scope, "en")}


def still(store: sa.Engine) -> list[dict]:
    with store.connect() as connection:
        return burden.still(connection, ALL)


@pytest.fixture
def licence(store: sa.Engine) -> str:
    stored.source(store, "sh-amr-enterprises", "business-licence")
    return stored.holding(store, "sh-amr-enterprises", "business-licence", ("holder", "cn.uscc", stored.LICENCE_CODE))


def test_materials_by_what_became_of_them(store: sa.Engine, licence: str) -> None:
    ask(store, "demo-branch-registration", facts={"signed_electronically": True}, roles={"branch_head": PERSON})
    [row] = ledger(store).values()
    assert row == {
        "item": "demo-branch-registration", "answers": 1, "demanded": 3, "held": 1, "alternative_held": 0,
        "held_elsewhere": 0, "undetermined": 0, "deferred": 1, "expired": 0, "submit": 1, "asked": 1, "open": 0,
        "not_required": 1, "ratio": round(1 / 3, 4),
    }  # fmt: skip
    ask(store, "demo-branch-registration", client="kiosk")  # no fact, no head: one is open, one undetermined
    both = ledger(store, "client")
    assert (both["kiosk"]["open"], both["kiosk"]["undetermined"], both["kiosk"]["demanded"]) == (1, 1, 3)
    assert (both["kiosk"]["asked"], both["hall"]["asked"]) == (0, 1)
    materials = ledger(store, "material")
    assert (materials["premises-proof"]["deferred"], materials["premises-proof"]["answers"]) == (2, 2)
    assert materials["business-licence"]["held"] == 2
    total = burden.total(list(both.values()))
    assert (total["answers"], total["demanded"], total["asked"]) == (2, 6, 1)


def test_a_matter_counts_once(store: sa.Engine, licence: str) -> None:
    for _ in range(3):
        ask(store, "demo-food-permit", case="c-1")
    assert ledger(store)["demo-food-permit"]["answers"] == 1
    ask(store, "demo-food-permit", case="c-1", facts={"legal_representative_in_person": False})
    last = ledger(store)["demo-food-permit"]
    assert (last["answers"], last["open"], last["asked"]) == (1, 0, 2), "the last answer counts"
    ask(store, "demo-food-permit", case="c-2")
    ask(store, "demo-food-permit", case="c-1", client="kiosk")
    assert ledger(store)["demo-food-permit"]["answers"] == 3
    for _ in range(3):
        ask(store, "demo-food-permit")  # no case: once a day
    assert ledger(store)["demo-food-permit"]["answers"] == 4
    ask(store, "demo-food-permit", applicant="cn.uscc:91440300708461136T")
    assert ledger(store)["demo-food-permit"]["answers"] == 5
    ask(store, "demo-food-permit", case="c-9", as_of=stored.NOW - dt.timedelta(days=1))
    assert ledger(store)["demo-food-permit"]["answers"] == 5, "a question about the past is no matter"
    with store.begin() as connection:
        connection.execute(sa.text("UPDATE answer SET asked_at = asked_at - interval '26 hours' WHERE \"case\" IS NULL"
                                   " AND id = (SELECT max(id::text)::uuid FROM answer WHERE \"case\" IS NULL AND item = 'demo-food-permit'"
                                   " AND applicant = (SELECT applicant FROM answer WHERE \"case\" = 'c-2'))"))  # fmt: skip
    assert ledger(store)["demo-food-permit"]["answers"] == 6, "another day is another visit"


def test_items_asked_together_ask_once(store: sa.Engine, licence: str) -> None:
    ask(store, "demo-food-permit", "demo-publication-retail", facts={"legal_representative_in_person": True})
    rows = ledger(store)
    assert (rows["demo-food-permit"]["submit"], rows["demo-food-permit"]["asked"]) == (2, 2)
    assert (rows["demo-publication-retail"]["submit"], rows["demo-publication-retail"]["asked"]) == (1, 0)
    assert rows["demo-publication-retail"]["ratio"] == 0


def test_a_paper_is_asked_for_once_in_a_matter_however_it_is_looked_up(store: sa.Engine, licence: str) -> None:
    """Two items together, then one of them again: one lease of one applicant in one case."""
    facts = {"legal_representative_in_person": True}
    both = ("demo-food-permit", "demo-publication-retail")
    ask(store, *both, facts=facts, case="X-1")
    before = ledger(store)
    assert burden.total(list(before.values()))["asked"] == 2
    ask(store, "demo-publication-retail", case="X-1")
    assert ledger(store) == before
    ask(store, "demo-food-permit", case="X-1", facts=facts)  # now that one is the later
    again = ledger(store)
    assert burden.total(list(again.values())) == burden.total(list(before.values()))
    assert again["demo-publication-retail"]["asked"] == 1
    assert {row["material"]: row["asked"] for row in ledger(store, "material").values()}["premises-proof"] == 1
    ask(store, "demo-publication-retail", case="X-2")  # another matter
    ask(store, "demo-publication-retail", case="X-1", client="kiosk")
    assert ledger(store, "material")["premises-proof"]["asked"] == 3
    ask(store, "demo-publication-retail")
    ask(store, "demo-food-permit", facts=facts)
    assert ledger(store, "material")["premises-proof"]["asked"] == 4, "no case: once a day"
    # Which items are looked at changes nothing of what they are counted for.
    whole = ledger(store)
    for item in both:
        assert ledger(store, scope=burden.Scope(items=[item])) == {item: whole[item]}


def test_papers_of_two_people_and_two_provinces_count_apart(store: sa.Engine) -> None:
    stored.source(store, "sh-ga-residents", "resident-id-card")
    facts = {"founder_is_legal_representative": False, "company_registered": False}
    items = ("demo-tax-registration", "demo-company-establishment")
    cards = []
    for case, who in (("a", f"cn.ric:{stored.SPOUSE}"), ("b", PERSON)):
        for item in items:
            apart(store, item, case, facts, legal_representative=who)
        cards.append(ledger(store, "material")["resident-id-card"]["asked"])
    assert cards == [2, 3], "the applicant's and the other's; then one of one person in two roles"
    for order in (1, -1):
        facts = {
            "moved_from": "zhejiang",
            "married": False,
            "ground": "work",
            "registers_with": "applicant",
            "born_abroad": False,
        }
        for item in ["demo-newborn-registration", "demo-household-move"][::order]:
            apart(store, item, f"register {order}", facts)
    rows = ledger(store)
    assert ledger(store, "material")["household-register"]["asked"] == 2, "of the province alone, once in each case"
    assert rows["demo-newborn-registration"]["submit"] >= 2


def test_by_department_region_and_month(store: sa.Engine, licence: str) -> None:
    ask(store, "demo-food-permit")
    ask(store, "demo-branch-registration")
    ask(store, "demo-medical-aid", applicant=PERSON)
    bodies = ledger(store, "department")
    assert set(bodies) == {"District market regulation bureau", "District civil affairs bureau", None}
    assert {region: row["answers"] for region, row in ledger(store, "region").items()} == {"310000": 2, "310115": 1}
    today = catalogue.today()
    assert list(ledger(store, "month")) == [f"{today:%Y-%m}"]
    yesterday = today - dt.timedelta(days=1)
    assert ledger(store, "item", burden.days(None, yesterday)) == {}
    assert len(ledger(store, "item", burden.days(today, today))) == 3
    assert list(ledger(store, "item", burden.days(today, today, ["demo-food-permit"]))) == ["demo-food-permit"]


def test_what_is_held_and_asked_for_all_the_same(store: sa.Engine) -> None:
    stored.source(store, "sh-ga-residents", "resident-id-card", region="110000")
    ends = catalogue.today() + dt.timedelta(days=10)
    stored.holding(
        store, "sh-ga-residents", "resident-id-card", ("holder", "cn.ric", stored.RESIDENT), valid_to=ends.isoformat()
    )
    ask(store, "demo-residence-permit", applicant=PERSON, facts={"lives_with_spouse": False})  # wants 30 days more
    ask(store, "demo-elder-card", applicant=PERSON, facts={"registered_in_city": True})  # held
    ask(store, "demo-elder-card", applicant=SPOUSE, facts={"registered_in_city": True})  # nobody has it: rightly asked
    assert still(store) == [{
        "item": "demo-residence-permit", "requirement": "identity", "material": "resident-id-card", "asked": 1,
        "held_unfit": 1, "held_same_day": 0, "held_later": 0,
    }]  # fmt: skip
    # The spouse's card arrives: another answer of the day finds it, and one of another day does too.
    stored.holding(store, "sh-ga-residents", "resident-id-card", ("holder", "cn.ric", stored.SPOUSE))
    ask(store, "demo-medical-aid", applicant=SPOUSE)
    found = {row["item"]: row for row in still(store)}
    assert (found["demo-elder-card"]["held_same_day"], found["demo-elder-card"]["held_later"]) == (1, 0)
    with store.begin() as connection:
        connection.execute(
            sa.text("UPDATE answer SET asked_at = asked_at - interval '2 days' WHERE item = 'demo-elder-card'")
        )
    found = {row["item"]: row for row in still(store)}
    assert (found["demo-elder-card"]["held_same_day"], found["demo-elder-card"]["held_later"]) == (0, 1)


def test_a_certificate_of_another_province_is_held_but_unfit(store: sa.Engine) -> None:
    stored.source(store, "zj-mnr-titles", "real-estate-title", region="330000")
    stored.holding(
        store, "zj-mnr-titles", "real-estate-title", ("owner_person", "cn.ric", stored.RESIDENT), region="330100"
    )
    ask(store, "demo-home-transfer", applicant=PERSON)
    assert [(row["requirement"], row["held_unfit"]) for row in still(store)] == [("title", 1)]


def test_the_command(store: sa.Engine, licence: str, tmp_path: Path) -> None:
    ask(store, "demo-food-permit")
    run = CliRunner().invoke
    found = json.loads(run(app, ["burden", "--still", "--json"]).stdout)
    assert found["rows"][0]["item"] == "demo-food-permit" and found["still"] == []
    assert found["total"]["answers"] == 1
    for name in ("rows.csv", "rows.parquet"):
        assert run(app, ["burden", "--by", "material", "--out", str(tmp_path / name)]).exit_code == 0
        gone = run(app, ["burden", "--out", str(tmp_path / "nowhere" / name)]).exception
        assert isinstance(gone, UsageError) and gone.code == "out-unwritable"
    with (tmp_path / "rows.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [line["material"] for line in lines] == [row["material"] for row in rows]
    assert {row["material"]: row["asked"] for row in rows}["premises-proof"] == 1
    assert "demo-food-permit" in run(app, ["burden"]).stdout
    for wrong in (["--by", "weather"], ["--out", "x.xlsx"], ["--from", "2026-02-01", "--to", "2026-01-01"]):
        assert run(app, ["burden", *wrong]).exit_code == 2


def test_over_http_for_agreements_that_name_it(store: sa.Engine) -> None:
    with filled_hub(store) as hub:
        hub.sign_in()
        hub.lookup()
        problem(hub.get("/v1/burden"), 403, "purpose-not-agreed")
        secret = agreements.add("office", None, "Data office", ["demo-food-permit"], ["burden"])
        token = hub.post("/oauth2/token", data=FORM, auth=("office", secret)).json()["access_token"]
        hub.session.headers["Authorization"] = f"Bearer {token}"
        found = hub.get("/v1/burden?still=true").json()
        assert found["rows"][0]["answers"] == 1 and found["still"] == []
        assert found["total"]["demanded"] == found["rows"][0]["demanded"]
        ask(store, "demo-elder-card", applicant=PERSON)
        materials = hub.get("/v1/burden?by=material").json()["rows"]
        assert "household-register" not in {row["material"] for row in materials}, "an item outside the agreement"
        problem(hub.get("/v1/burden?by=weather"), 422, "query-invalid")
        problem(hub.get("/v1/burden?since=2026-1-1"), 422, "query-invalid")
        for query in ("since=2026-12-31&until=2026-01-01", "since=9999-12-31"):
            problem(hub.get(f"/v1/burden?{query}"), 422, "period-invalid")
        assert hub.get("/v1/burden?since=2026-01-01&until=2026-01-01").json()["rows"] == []
        document = hub.get("/openapi.json").json()
        schema = document["paths"]["/v1/burden"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        for query in (*(f"by={by}&still=true" for by in burden.BY), "since=0001-01-01&until=9999-12-31"):
            answer = hub.get(f"/v1/burden?{query}")
            assert answer.status_code == 200
            jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(answer.json())
            assert answer.json()["total"]["answers"] >= 1
