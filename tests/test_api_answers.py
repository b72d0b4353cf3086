"""Stored answers and notices over HTTP: to whom they were given, and to nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import requests
import sqlalchemy as sa

from hub import agreements, notices, records
from tests import stored
from tests.serving import FORM, Hub, filled_hub, problem


@pytest.fixture
def hub(store: sa.Engine) -> Iterator[Hub]:
    with filled_hub(store) as found:
        yield found.sign_in()


def check(hub: Hub, answer: requests.Response, path: str) -> None:
    """``answer`` is as the OpenAPI document says."""
    document = hub.get("/openapi.json").json()
    media = answer.headers["Content-Type"].partition(";")[0]
    schema = document["paths"][path]["get"]["responses"][str(answer.status_code)]["content"][media]["schema"]
    if media != "text/html":
        jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(answer.json())


def test_an_answer_with_its_trace(hub: Hub, store: sa.Engine) -> None:
    given = hub.lookup(case="31-1").json()["answers"][0]
    shown = hub.get(f"/v1/answers/{given['answer']}")
    assert (shown.status_code, shown.headers["Cache-Control"]) == (200, "no-store")
    check(hub, shown, "/v1/answers/{answer}")
    body = shown.json()
    assert body == records.explain(store, given["answer"])
    assert (body["body"], body["replay"], body["case"], body["client"]) == (given, "same", "31-1", "hall-1")
    assert body["trace"]["requirements"][0]["options"][0][0]["state"] == "held"
    assert stored.LICENCE_CODE not in shown.text


def closed(schema: Any) -> Any:
    """``schema`` with no member let through that it does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(one) for name, one in schema.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


def test_a_trace_holds_nothing_that_is_not_documented(hub: Hub, store: sa.Engine) -> None:
    """Of items with two parties, of which a certificate has to name both, or both where both are named."""
    items = ["demo-household-move", "demo-newborn-insurance"]
    secret = agreements.add("hall-2", None, "Another hall", items, ["handle"])
    token = hub.post("/oauth2/token", data=FORM, auth=("hall-2", secret)).json()["access_token"]
    hub.session.headers["Authorization"] = f"Bearer {token}"
    person, spouse, child = f"cn.ric:{stored.RESIDENT}", f"cn.ric:{stored.SPOUSE}", "cn.ric:310115202501020017"
    stored.source(store, "sh-mca-marriages", "marriage-certificate")
    stored.holding(
        store, "sh-mca-marriages", "marriage-certificate", ("spouse_a", "cn.ric", stored.RESIDENT),
        ("spouse_b", "cn.ric", stored.SPOUSE),
    )  # fmt: skip
    document = hub.get("/openapi.json").json()
    content = document["paths"]["/v1/answers/{answer}"]["get"]["responses"]["200"]["content"]
    schema = {**content["application/json"]["schema"], "components": closed(document["components"])}
    seen: set[str] = set()
    for item, facts, roles in (
        (items[0], {"married": True, "ground": "spouse", "moved_from": "shanghai"}, {"spouse": spouse}),
        (items[1], {"child_registered": False}, {"child": child}),
    ):
        given = hub.lookup(items=[item], id=person, facts=facts, roles=roles).json()["answers"][0]
        trace = hub.get(f"/v1/answers/{given['answer']}").json()
        jsonschema.Draft202012Validator(schema).validate(trace)
        uses = [use for rule in trace["trace"]["requirements"] for option in rule["options"] for use in option]
        seen |= {name for use in uses for name in use}
    assert {"with", "with_named", "holdings"} <= seen and trace["trace"]["said"]


def test_only_to_the_client_it_was_given_to(hub: Hub) -> None:
    answer = hub.lookup().json()["answers"][0]["answer"]
    other = Hub.__new__(Hub)
    other.base, other.session = hub.base, requests.Session()
    other.session.trust_env = False
    secret = agreements.add("hall-2", None, "Another hall", ["demo-food-permit"], ["handle"])
    token = other.post("/oauth2/token", data=FORM, auth=("hall-2", secret)).json()["access_token"]
    other.session.headers["Authorization"] = f"Bearer {token}"
    strangers = [
        (other, answer), (hub, "00000000-0000-4000-8000-000000000000"), (hub, "nothing"), (hub, "%00"), (hub, "1" * 60),
    ]  # fmt: skip
    for client, number in strangers:
        for path in ("", "/notice"):
            problem(client.get(f"/v1/answers/{number}{path}"), 404, "answer-unknown")
    problem(hub.get(f"/v1/answers/{'1' * 65}"), 422, "body-invalid")


def test_a_notice_as_page_and_as_data(hub: Hub, store: sa.Engine) -> None:
    answer = hub.lookup(case="31-1").json()["answers"][0]["answer"]
    path = f"/v1/answers/{answer}/notice"
    data = hub.get(path, headers={"Accept-Language": "zh"})
    check(hub, data, "/v1/answers/{answer}/notice")
    assert data.json() == notices.notice(store, answer, "zh")
    page = hub.get(path, headers={"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "Accept-Language": "en"})
    assert page.headers["Content-Type"].startswith("text/html") and page.headers["Content-Language"] == "en"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "One-time notice" in page.text and stored.LICENCE_CODE not in page.text
    assert hub.get(f"{path}?format=html").text.startswith("<!doctype html>")
    assert hub.get(f"{path}?format=json", headers={"Accept": "text/html"}).json()["case"] == "31-1"
    problem(hub.get(f"{path}?format=pdf"), 422, "query-invalid")


def sign_in(hub: Hub, *arguments: Any, **more: Any) -> None:
    secret = agreements.add("hall-2", None, "Another hall", *arguments, **more)
    token = hub.post("/oauth2/token", data=FORM, auth=("hall-2", secret)).json()["access_token"]
    hub.session.headers["Authorization"] = f"Bearer {token}"


def test_what_the_agreement_names_no_more_is_not_shown(hub: Hub) -> None:
    food, card = "demo-food-permit", "demo-elder-card"
    sign_in(hub, [food, card], ["handle"])
    first = hub.lookup().json()["answers"][0]["answer"]
    other = hub.lookup(items=[card], id=f"cn.ric:{stored.RESIDENT}").json()["answers"][0]["answer"]
    sign_in(hub, [food], ["handle"], replace=True)
    for path in ("", "/notice"):
        assert hub.get(f"/v1/answers/{first}{path}").status_code == 200, "the same client's still"
        problem(hub.get(f"/v1/answers/{other}{path}"), 403, "item-not-agreed")
    sign_in(hub, [food, card], ["check"], replace=True)
    for path in ("", "/notice"):
        problem(hub.get(f"/v1/answers/{first}{path}"), 403, "purpose-not-agreed")


def test_a_notice_tells_of_no_item_that_the_agreement_does_not_name(hub: Hub) -> None:
    items = ["demo-food-permit", "demo-publication-retail"]
    sign_in(hub, items, ["handle"])
    first = hub.lookup(items=items).json()["answers"][0]["answer"]
    assert len(hub.get(f"/v1/answers/{first}/notice?format=json").json()["items"]) == 2
    sign_in(hub, items[:1], ["handle"], replace=True)
    assert hub.get(f"/v1/answers/{first}").status_code == 200
    problem(hub.get(f"/v1/answers/{first}/notice"), 403, "item-not-agreed")


def test_another_client_of_the_same_name_sees_nothing_of_the_former(hub: Hub) -> None:
    sign_in(hub, ["demo-food-permit"], ["handle"])
    answer = hub.lookup().json()["answers"][0]["answer"]
    agreements.remove("hall-2")
    sign_in(hub, ["demo-food-permit"], ["handle"])
    own = hub.lookup().json()["answers"][0]["answer"]
    sign_in(hub, ["demo-food-permit"], ["handle"], replace=True)
    for path in ("", "/notice"):
        problem(hub.get(f"/v1/answers/{answer}{path}"), 404, "answer-unknown")
        assert hub.get(f"/v1/answers/{own}{path}").status_code == 200
