"""Questions over real HTTP: a uvicorn server, a real store, requests as the client."""

from __future__ import annotations

import base64
import datetime as dt
import json
import random
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import requests
import sqlalchemy as sa

from hub import agreements, database, records, tokens
from tests import residents, stored
from tests.serving import FORM, ITEMS, LICENCE, LOADED, Hub, filled_hub, problem


@pytest.fixture
def hub(store: sa.Engine) -> Iterator[Hub]:
    with filled_hub(store) as served_hub:
        yield served_hub


def test_a_lookup(hub: Hub) -> None:
    answer = hub.sign_in().lookup(
        facts={"legal_representative_in_person": False}, case="31-1", purpose="handle",
        roles={"agent": f"cn.ric:{stored.RESIDENT}"},
    )  # fmt: skip
    assert answer.status_code == 200
    [found] = answer.json()["answers"]
    assert found["requirements"][0]["disposition"] == "held"
    assert found["requirements"][0]["provenance"] == [
        {"source": "sh-amr-enterprises", "file": "2019-上海.csv", "row": 2}
    ]
    assert "authorisation" in found["must_submit"]
    with database.engine().connect() as connection:
        row = connection.execute(sa.text('SELECT id::text, client, purpose, "case" FROM answer')).one()
    assert (row.client, row.purpose, row.case) == ("hall-1", "handle", "31-1")
    kept = records.explain(database.engine(), row.id)
    assert (kept["body"], kept["replay"]) == (found, "same")


def test_the_language_is_the_callers(hub: Hub) -> None:
    hub.sign_in()
    for header, word in (
        ("zh-CN,zh;q=0.9,en;q=0.8", "食品经营许可"),
        ("en", "Food"),
        ("zh;q=0.1, en", "Food"),
        ("fr", "Food"),
    ):
        answer = hub.post(
            "/v1/lookups", json={"items": ITEMS[:1], "id": LICENCE}, headers={"Accept-Language": header}
        ).json()
        assert answer["answers"][0]["item_name"].startswith(word)
    refused = hub.get("/v1/items/demo-none", headers={"Accept-Language": "zh"})
    assert refused.headers["Content-Language"] == "zh"
    assert problem(refused, 404, "item-unknown")["title"] == "事项不存在"


def test_responses_are_as_documented(hub: Hub) -> None:
    document = hub.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    flow = document["components"]["securitySchemes"]["clientCredentials"]["flows"]["clientCredentials"]
    assert flow["tokenUrl"] == "/oauth2/token"

    def check(answer: requests.Response, path: str, method: str) -> None:
        media = answer.headers["Content-Type"].partition(";")[0]
        documented = document["paths"][path][method]["responses"][str(answer.status_code)]["content"][media]["schema"]
        jsonschema.Draft202012Validator({**documented, "components": document["components"]}).validate(answer.json())

    check(hub.lookup(), "/v1/lookups", "post")
    check(hub.post("/oauth2/token", data=FORM, auth=("hall-1", "wrong")), "/oauth2/token", "post")
    check(hub.post("/oauth2/token", data=FORM, auth=("hall-1", hub.secret)), "/oauth2/token", "post")
    hub.sign_in()
    check(hub.lookup(), "/v1/lookups", "post")
    check(hub.lookup(roles={"legal_representative": f"cn.ric:{stored.RESIDENT}"}), "/v1/lookups", "post")
    check(hub.lookup(extra=1), "/v1/lookups", "post")
    check(hub.get("/v1/items"), "/v1/items", "get")
    for code in ("demo-food-permit", "demo-publication-retail", "demo-none", LOADED):
        check(hub.get(f"/v1/items/{code}"), "/v1/items/{code}", "get")
    check(hub.get("/readyz"), "/readyz", "get")
    check(hub.get("/healthz"), "/healthz", "get")


def test_credentials_in_the_header_or_the_form(hub: Hub) -> None:
    given = {"client_id": "hall-1", "client_secret": hub.secret}
    answer = hub.post("/oauth2/token", data={**FORM, **given})
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert 600 <= answer.json()["expires_in"] <= 3600
    assert tokens.client_of(answer.json()["access_token"]) == "hall-1"
    wrong: list[dict[str, Any]] = [
        {"data": FORM},
        {"data": {**FORM, **given, "client_secret": hub.secret[:-1]}},
        {"data": {**FORM, **given, "client_id": "hall-2"}},
        {"data": {**FORM, "client_id": "hall-1"}},
        {"data": {**FORM, **given}, "auth": ("hall-1", hub.secret)},
        {"data": FORM, "auth": ("hall-1", "wrong")},
        {"data": FORM, "headers": {"Authorization": "Basic ???"}},
        {"data": FORM, "headers": {"Authorization": "Basic " + base64.b64encode(b"\xff:\xff").decode()}},
        {"data": {**FORM, "client_id": "a\0", "client_secret": "b" * 24}},
    ]
    for request in wrong:
        refused = hub.post("/oauth2/token", **request)
        assert problem(refused, 401, "client-refused")["error"] == "invalid_client"
        assert "WWW-Authenticate" in refused.headers
        assert hub.secret not in refused.text
    problem(hub.post("/oauth2/token", data={"grant_type": "password", **given}), 400, "grant-unsupported")
    problem(hub.post("/oauth2/token", json={**FORM, **given}), 415, "media-type-unsupported")


def test_guessing_is_slowed_down(hub: Hub) -> None:
    answers = [hub.post("/oauth2/token", data=FORM, auth=("hall-1", f"guess-{n}")) for n in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    assert hub.post("/oauth2/token", data=FORM, auth=("hall-1", hub.secret)).status_code == 429
    elsewhere = {"X-Forwarded-For": "192.0.2.7"}  # a proxy on this machine says whom it speaks for
    assert hub.post("/oauth2/token", data=FORM, auth=("hall-1", hub.secret), headers=elsewhere).status_code == 200
    agreements.add("hall-2", "x" * 30, "Hall", ITEMS, ["handle"])
    assert hub.post("/oauth2/token", data=FORM, auth=("hall-2", "x" * 30)).status_code == 200


def test_without_a_good_token(hub: Hub) -> None:
    assert hub.lookup().headers["WWW-Authenticate"] == 'Bearer realm="yici"'
    problem(hub.lookup(), 401, "token-missing")
    hub.session.headers["Authorization"] = "Bearer x.y.z"
    answer = hub.lookup()
    problem(answer, 401, "token-invalid")
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    hub.session.headers["Authorization"] = f"Bearer {tokens.issue('hall-9').text}"  # well signed, nobody's
    problem(hub.lookup(), 401, "token-invalid")


def test_outside_the_agreement(hub: Hub) -> None:
    hub.sign_in()
    problem(hub.lookup(items=["demo-publication-retail"]), 403, "item-not-agreed")
    problem(hub.lookup(items=["demo-food-permit", "demo-publication-retail"]), 403, "item-not-agreed")
    problem(hub.get("/v1/items/demo-publication-retail"), 403, "item-not-agreed")
    problem(hub.lookup(purpose="curiosity"), 403, "purpose-not-agreed")
    assert [entry["item"] for entry in hub.get("/v1/items").json()["items"]] == sorted([*ITEMS, LOADED])
    agreements.add("hall-1", hub.secret, "Hall", ITEMS, ["handle", "check"], replace=True)
    problem(hub.lookup(), 401, "token-invalid")
    hub.sign_in()
    problem(hub.lookup(), 422, "purpose-missing")
    assert hub.lookup(purpose="check").status_code == 200
    ended = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    agreements.add("hall-1", hub.secret, "Hall", ITEMS, ["handle"], ended, replace=True)
    problem(hub.lookup(), 403, "agreement-ended")
    agreements.remove("hall-1")
    problem(hub.lookup(), 401, "token-invalid")


WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"items": ["demo-none"]}, 404, "item-unknown"),
    ({"items": [stored.RESIDENT]}, 404, "item-unknown"),
    ({"items": [LOADED]}, 422, "item-without-requirements"),
    ({"items": []}, 422, "body-invalid"),
    ({"items": "demo-food-permit"}, 422, "body-invalid"),
    ({"items": ["a\x00b"]}, 422, "body-invalid"),
    ({"items": ["demo-food-permit"] * 21}, 422, "body-invalid"),
    ({"id": None}, 422, "body-invalid"),
    ({"id": 91310117}, 422, "body-invalid"),
    ({"id": "cn.uscc:91310117MA1J3AJ43X"}, 422, "identifier-invalid"),
    ({"id": f"cn.ric:{stored.RESIDENT}"}, 422, "identifier-unfit"),
    ({"id": "\ud800"}, 400, "body-malformed"),
    ({stored.LICENCE_CODE: 1}, 422, "body-invalid"),
    ({"facts": {stored.RESIDENT: True}}, 422, "fact-unknown"),
    ({"facts": {stored.RESIDENT: {}}}, 422, "body-invalid"),
    ({"facts": {"legal_representative_in_person": "yes"}}, 422, "fact-type"),
    ({"facts": {"legal_representative_in_person": 1.5}}, 422, "body-invalid"),
    ({"facts": [1]}, 422, "body-invalid"),
    ({"roles": {stored.RESIDENT: LICENCE}}, 422, "role-unknown"),
    ({"roles": {"agent": "cn.ric:110105194912310021"}}, 422, "identifier-invalid"),
    ({"as_of": "2999-01-01T00:00:00+08:00"}, 422, "as-of-future"),
    ({"as_of": "2026-01-01T00:00:00"}, 422, "body-invalid"),
    ({"as_of": "yesterday"}, 422, "body-invalid"),
    ({"as_of": "0001-01-01T00:00:00+14:00"}, 422, "as-of-invalid"),
    ({"as_of": "9999-12-31T23:59:59-12:00"}, 422, "as-of-future"),
    ({"as_of": "2001-01-01T00:00:00Z"}, 422, "item-not-in-force"),
    ({"case": stored.RESIDENT}, 422, "case-names-somebody"),
    ({"case": "a b"}, 422, "body-invalid"),
]


def test_wrong_questions(hub: Hub, subtests: pytest.Subtests) -> None:
    hub.sign_in()
    for change, status, code in WRONG:
        with subtests.test(msg=ascii(change)):
            body = problem(hub.lookup(**change), status, code)
            if code == "body-invalid":
                assert body["errors"]
                assert all(set(entry) == {"place", "reason"} for entry in body["errors"])


@pytest.mark.parametrize("sent", ["13812345678", "138-1234-5678", "E12345678", "H1234567890", "CHN310112345678"])
def test_a_number_in_the_wrong_place_is_not_repeated(hub: Hub, sent: str) -> None:
    hub.sign_in()
    for change in ({"items": [sent]}, {"facts": {sent: True}}, {"roles": {sent: LICENCE}}, {"purpose": sent}):
        assert sent not in hub.lookup(**change).text


def test_a_time_is_asked_for_as_http_takes_it(hub: Hub) -> None:
    hub.sign_in()
    told = problem(hub.lookup(as_of="0001-01-01T00:00:00+14:00"), 422, "as-of-invalid")
    assert "with its offset" in told["detail"] and "without" not in told["detail"]


MALFORMED = [b"", b"{", b"[" * 50_000, b"\xff\xfe", b"nope", b'{"a":1}{}', b"1" * 5000]


def test_malformed_bodies(hub: Hub, subtests: pytest.Subtests) -> None:
    hub.sign_in()
    for body in MALFORMED:
        with subtests.test(msg=repr(body[:20])):
            answer = hub.post("/v1/lookups", data=body, headers={"Content-Type": "application/json"})
            problem(answer, 400, "body-malformed")


def scrap(draw: random.Random, depth: int = 0) -> Any:
    """A value that a caller may get wrong."""
    texts = [
        "",
        "\x00",
        "a" * 101,
        LICENCE,
        "cn.ric:",
        "企合苏镇分字第2005",
        "demo-food-permit",
        LOADED,
        "applicant",
        "\u202e",
        "%s",
    ]
    numbers = [0, -1, 1.5, 2**63, 10**40, float("inf"), True, None]
    if depth > 2 or draw.random() < 0.6:
        return draw.choice([*texts, *numbers])
    if draw.random() < 0.5:
        return [scrap(draw, depth + 1) for _ in range(draw.randrange(4))]
    return {draw.choice(texts): scrap(draw, depth + 1) for _ in range(draw.randrange(4))}


def test_whatever_comes_is_answered_with_a_problem_or_an_answer(hub: Hub) -> None:
    hub.sign_in()
    draw = random.Random(3)
    seen = set()
    for _ in range(400):
        body: dict[str, Any] = {"items": ["demo-food-permit"], "id": LICENCE}
        for name in draw.sample(
            ["items", "id", "facts", "roles", "purpose", "case", "as_of", "extra"], draw.randrange(3)
        ):
            body[name] = scrap(draw)
        answer = hub.post("/v1/lookups", data=json.dumps(body), headers={"Content-Type": "application/json"})
        seen.add(answer.status_code)
        assert answer.status_code < 500, (body, answer.text)
        assert answer.ok or answer.headers["Content-Type"] == "application/problem+json"
    assert seen >= {200, 403, 404, 422}


def test_other_addresses_methods_and_media(hub: Hub) -> None:
    hub.sign_in()
    problem(hub.get("/v1/nothing"), 404, "page-unknown")
    problem(hub.get("/docs"), 404, "page-unknown")
    refused = hub.get("/v1/lookups")
    problem(refused, 405, "method-not-allowed")
    assert refused.headers["Allow"] == "POST"
    problem(hub.post("/v1/lookups", data="x", headers={"Content-Type": "text/plain"}), 415, "media-type-unsupported")


def test_an_ordinary_number_of_a_case_is_taken(hub: Hub) -> None:
    """Either way, and in a batch; the number of somebody whom the question names is not, whatever it looks like."""
    hub.sign_in()
    today = f"310115{dt.date.today():%Y%m%d}"
    child = next(found for place in range(9) if (found := residents.number(f"{today}01{place}")).isdecimal())
    ordinary = ["2026-00004", "260000004", "SH2600017", child]
    named = {"roles": {"legal_representative": f"cn.ric:{child}"}, "case": f"31-{child}"}
    for on in (True, False):
        hub.app.state.hot.on = on
        for case in ordinary:
            assert hub.lookup(case=case).status_code == 200, case
        for lang, fine in (("en", "310115-20261130-0017 or a UUID"), ("zh", "日期加流水号")):
            hub.session.headers["Accept-Language"] = lang
            assert fine in problem(hub.lookup(**named), 422, "case-names-somebody")["detail"]
    subjects = [{"id": LICENCE, "case": case} for case in ordinary] + [{"id": LICENCE, **named}]
    batch = hub.post("/v1/lookups/batch", json={"items": ["demo-food-permit"], "subjects": subjects})
    *lines, last = map(json.loads, batch.text.splitlines())
    assert all("answers" in line for line in lines) and last["problem"]["code"] == "case-names-somebody"
