"""The index over real HTTP: who may read it, who may not, and what a peer may not do besides."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import requests
import sqlalchemy as sa

from connectors import signature
from hub import agreements, peers, signing, tokens
from hub.api.app import create
from hub.home import Home
from tests import stored
from tests.peering import PartnerHub, announce, partner_hub
from tests.serving import FORM, Hub, filled_hub, problem, served

INDEX = {**FORM, "scope": "index"}


@pytest.fixture(scope="module")
def partner(server_home: Home) -> Iterator[PartnerHub]:
    with partner_hub(server_home, served=False) as hub:
        yield hub


@pytest.fixture
def hub(partner: PartnerHub) -> Iterator[Hub]:
    partner.forget()
    shanghai = mock.patch.dict(os.environ, {"YICI_REGION": "310000"})
    with partner.acting() as store, shanghai, filled_hub(store) as served_hub:
        with store.connect() as connection:
            key = connection.scalar(
                sa.text("SELECT encode(key, 'hex') FROM holding WHERE material = 'business-licence'")
            )
        announce(store, key)
        yield served_hub


def sign_in(hub: Hub, peer: str = "js", **options: Any) -> str:
    """Grant, and put the peer's token into the session; its secret is returned."""
    secret = peers.grant(peer, peer, ["business-licence"], replace=True, **options).secret
    answer = hub.post("/oauth2/token", data=INDEX, auth=(peer, secret))
    assert answer.status_code == 200 and answer.json()["scope"] == "index"
    hub.session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return secret


def page(answer: requests.Response) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/jose"), answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    payload = signature.verify(answer.content, [signature.public_key(signing.public_key())], "test")
    found: dict[str, Any] = json.loads(payload)
    return found


def test_a_page(hub: Hub) -> None:
    sign_in(hub)
    found = page(hub.get("/v1/index"))
    assert (found["hub"], found["peer"], found["after"], found["to"]) == ("zj", "js", 0, 1)
    assert [entry["material"] for entry in found["entries"]] == ["business-licence"]
    assert page(hub.get("/v1/index?after=1&limit=10000&until=1"))["entries"] == []


def test_a_peer_may_ask_nothing_else(hub: Hub) -> None:
    sign_in(hub)
    for answer in (hub.lookup(), hub.get("/v1/items"), hub.get("/v1/items/demo-food-permit")):
        problem(answer, 403, "scope-insufficient")
        assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]


def test_an_intake_system_may_not_read_the_index(hub: Hub) -> None:
    hub.sign_in()
    problem(hub.get("/v1/index"), 403, "scope-insufficient")
    refused = hub.post("/oauth2/token", data=INDEX, auth=("hall-1", hub.secret))
    problem(refused, 401, "client-refused")
    hub.session.headers["Authorization"] = f"Bearer {tokens.issue('hall-1', 'index').text}"
    problem(hub.get("/v1/index"), 401, "token-invalid")


def test_a_peer_gets_no_token_for_lookups(hub: Hub) -> None:
    secret = sign_in(hub)
    for form in (FORM, {**FORM, "scope": "lookup"}):
        problem(hub.post("/oauth2/token", data=form, auth=("js", secret)), 401, "client-refused")
    for scope in ("index lookup", "everything", "index\0"):
        refused = hub.post("/oauth2/token", data={**FORM, "scope": scope}, auth=("js", secret))
        assert problem(refused, 400, "scope-unsupported")["error"] == "invalid_scope"


def test_one_name_for_both_opens_neither_with_the_others_secret(hub: Hub) -> None:
    """A client and a peer may be called the same; each has its own secret and its own scope."""
    secret = sign_in(hub, "both")
    other = agreements.add("both", None, "Both", ["demo-food-permit"], ["handle"])
    problem(hub.post("/oauth2/token", data=FORM, auth=("both", secret)), 401, "client-refused")
    problem(hub.post("/oauth2/token", data=INDEX, auth=("both", other)), 401, "client-refused")
    problem(hub.lookup(), 403, "scope-insufficient")


def test_revoked_at_once(hub: Hub) -> None:
    secret = sign_in(hub)
    peers.revoke("js")
    problem(hub.get("/v1/index"), 403, "agreement-ended")
    hub.post("/oauth2/token", data=INDEX, auth=("js", secret))
    problem(hub.get("/v1/index"), 403, "agreement-ended")


def test_a_token_of_an_agreement_that_was_made_anew_opens_nothing(hub: Hub) -> None:
    sign_in(hub)
    page(hub.get("/v1/index"))
    old = hub.session.headers["Authorization"]
    peers.revoke("js")
    sign_in(hub)
    page(hub.get("/v1/index"))
    hub.session.headers["Authorization"] = old
    problem(hub.get("/v1/index"), 401, "token-invalid")


def test_so_it_is_with_intake_systems(hub: Hub) -> None:
    old = tokens.issue("hall-7").text
    agreements.add("hall-7", None, "Hall", ["demo-food-permit"], ["handle"])
    hub.session.headers["Authorization"] = f"Bearer {old}"
    problem(hub.get("/v1/items"), 401, "token-invalid")
    hub.session.headers["Authorization"] = f"Bearer {tokens.issue('hall-7').text}"
    assert hub.get("/v1/items").status_code == 200


def test_without_a_good_token(hub: Hub) -> None:
    problem(hub.get("/v1/index"), 401, "token-missing")
    hub.session.headers["Authorization"] = f"Bearer {tokens.issue('nobody', 'index').text}"
    problem(hub.get("/v1/index"), 401, "token-invalid")


def test_wrong_parameters(hub: Hub, subtests: pytest.Subtests) -> None:
    sign_in(hub)
    for query, place in (
        ("after=-1", "after"),
        ("after=x", "after"),
        ("after=9223372036854775808", "after"),
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("until=-1", "until"),
        ("until=%00", "until"),
        (f"after={stored.LICENCE_CODE}", "after"),
    ):
        with subtests.test(msg=query):
            body = problem(hub.get(f"/v1/index?{query}"), 422, "query-invalid")
            assert [entry["place"] for entry in body["errors"]] == [place]


def test_a_hub_that_speaks_for_no_region(hub: Hub) -> None:
    sign_in(hub)
    os.environ["YICI_REGION"] = ""
    assert problem(hub.get("/v1/index"), 503, "hub-region-missing")["fault"] == "hub"


def test_it_is_documented() -> None:
    with served(create()) as base:
        document = requests.get(f"{base}/openapi.json", timeout=30).json()
    operation = document["paths"]["/v1/index"]["get"]
    assert list(operation["responses"]["200"]["content"]) == ["application/jose"]
    assert {parameter["name"] for parameter in operation["parameters"]} == {"after", "limit", "until"}
    scopes = document["components"]["securitySchemes"]["clientCredentials"]["flows"]["clientCredentials"]["scopes"]
    assert set(scopes) == {"lookup", "index"}
