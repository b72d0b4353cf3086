"""``/v1/items``: pages, ETags, days, guides and changes, over HTTP from a hub with a store."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import orjson
import pytest
import sqlalchemy as sa

from hub import catalogue, guides, publication
from hub.api.app import create
from hub.api.items import prefers_html
from tests import stored
from tests.serving import LOADED, Hub, problem, served
from tests.test_cli_lookup import yici

ITEMS = ["demo-home-transfer", "demo-elder-paper-card", "demo-company-establishment"]


@pytest.fixture
def reader(store: sa.Engine) -> Iterator[Hub]:
    """A client that may ask about several items, one of them retired, one loaded by name only."""
    stored.source(store, "sc-guangan-items", "service-item", region="511602")
    stored.holding(store, "sc-guangan-items", "service-item", number=LOADED, name="项目备案")
    app = create()
    with served(app) as base:
        yield Hub(base, app, LOADED, *ITEMS).sign_in()


def test_the_list_is_read_page_by_page_and_as_of_a_day(reader: Hub) -> None:
    whole = reader.get("/v1/items").json()
    assert whole["next"] is None
    codes, path, pages = [], "/v1/items?limit=2", 0
    while path:
        page = reader.get(path).json()
        codes += [entry["item"] for entry in page["items"]]
        path = f"/v1/items?limit=2&after={page['next']}" if page["next"] else ""
        pages += 1
    assert (codes, pages) == ([entry["item"] for entry in whole["items"]], 3)
    assert codes == sorted(codes) and len(codes) == 6
    state = {entry["item"]: (entry["state"], entry["version"], entry["successor"]) for entry in whole["items"]}
    assert state["demo-elder-paper-card"] == ("retired", None, "demo-elder-card")
    assert state["demo-home-transfer"] == ("in_force", 1, None)
    assert state[LOADED] == ("listed", None, None)
    early = {entry["item"]: entry for entry in reader.get("/v1/items?on=2019-06-01").json()["items"]}
    assert early["demo-elder-paper-card"]["state"] == "in_force"
    assert early["demo-food-permit"]["state"] == "not_in_force"


def test_an_item_is_shown_in_the_version_of_the_day(reader: Hub) -> None:
    path = "/v1/items/demo-home-transfer"
    now, later = reader.get(path).json(), reader.get(f"{path}?on=2027-07-01").json()
    assert (now["version"], later["version"]) == (1, 2)
    assert {each["requirement"] for each in now["requirements"]} - {
        e["requirement"] for e in later["requirements"]
    } == {"marriage"}
    [title] = [each for each in now["requirements"] if each["requirement"] == "title"]
    assert title["options"] == [
        [{"material": "real-estate-title", "holder": "applicant", "region": "31", "as": ["owner_person"],
          "where": [{"attribute": "state", "is": "现势"}]}]
    ]  # fmt: skip
    problem(reader.get(f"{path}?on=2019-03-23"), 422, "item-not-in-force")
    for tail in ("", "/guide", "?on=2020-01-01"):
        gone = problem(reader.get(f"/v1/items/demo-elder-paper-card{tail}"), 422, "item-retired")
        assert gone["successor"] == "demo-elder-card"
        assert "demo-elder-card" in gone["detail"] and "2019-12-31" in gone["detail"]
    assert reader.get("/v1/items/demo-elder-paper-card?on=2019-12-31").json()["state"] == "in_force"
    assert reader.get(f"/v1/items/{LOADED}").json()["state"] == "listed"
    problem(reader.get(f"/v1/items/{LOADED}/guide"), 422, "item-without-requirements")
    problem(reader.get("/v1/items/demo-none/guide"), 404, "item-unknown")
    problem(reader.get("/v1/items/demo-publication-retail/guide"), 403, "item-not-agreed")


def test_a_day_that_is_none(reader: Hub) -> None:
    days = ("0", "1700000000", "2026-2-1", "2026-02-30", "yesterday", "2026-01-01T00:00:00")
    paths = ("/v1/items", "/v1/items/demo-food-permit", "/v1/items/demo-food-permit/guide")
    for on, path in itertools.product(days, paths):
        body = problem(reader.get(path, params={"on": on}), 422, "query-invalid")
        assert [error["place"] for error in body["errors"]] == ["on"]


def test_every_read_of_the_catalogue_may_be_kept(reader: Hub) -> None:
    publication.publish("wang")
    paths = ("/v1/items", "/v1/items/demo-food-permit", f"/v1/items/{LOADED}", "/v1/items/demo-food-permit/guide",
             "/v1/items/demo-food-permit/guide?format=html", "/v1/items/changes")  # fmt: skip
    for path in paths:
        first = reader.get(path)
        assert first.status_code == 200, (path, first.text)
        tag = first.headers["ETag"]
        assert re.fullmatch(r'"[0-9a-f]{32}"', tag)
        assert first.headers["Cache-Control"] == "private, no-cache"
        for known in (tag, f'"other", W/{tag}', "*"):
            again = reader.get(path, headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag), (path, known)
            assert again.headers["Vary"] == first.headers["Vary"]
        assert reader.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
        other = reader.get(path, headers={"Accept-Language": "zh", "If-None-Match": tag})
        assert (other.status_code, other.headers["Content-Language"]) == (200, "zh"), path


def test_changes_are_read_on_from_a_position(reader: Hub) -> None:
    assert reader.get("/v1/items/changes").json() == {"changes": [], "next": 0, "more": False}
    published = publication.publish("wang")
    found: list[dict[str, Any]] = []
    page = {"next": 0, "more": True}
    while page["more"]:
        page = reader.get(f"/v1/items/changes?after={page['next']}&limit=8").json()
        found += page["changes"]
    assert [change["position"] for change in found] == [change["position"] for change in published]
    assert found[-1]["digest"] == published[-1]["digest"]
    for query in ("after=-1", "limit=0", "limit=1001", f"after={2**63}", "after=x"):
        problem(reader.get(f"/v1/items/changes?{query}"), 422, "query-invalid")


def test_a_guide_is_the_same_online_and_at_the_window(reader: Hub, store: sa.Engine) -> None:
    item = catalogue.published()["demo-home-transfer"]
    path = "/v1/items/demo-home-transfer/guide"
    for lang in ("zh", "en"):
        page = reader.get(path, headers={"Accept": "text/html", "Accept-Language": lang})
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert page.content == guides.html(item[0], lang)  # type: ignore[arg-type]
        data = reader.get(path, headers={"Accept-Language": lang})
        assert data.headers["Content-Type"] == "application/json"
        assert data.content == guides.json(item[0], lang)  # type: ignore[arg-type]
        assert data.headers["Vary"] == "Accept, Accept-Language"
    written = yici("items", "guide", "demo-home-transfer", "--lang", "zh", "--html", "--on", "2027-07-01")
    assert written.returncode == 0, written.stderr
    later = reader.get(f"{path}?on=2027-07-01&format=html", headers={"Accept-Language": "zh"})
    assert written.stdout == later.text
    problem(reader.get(f"{path}?format=pdf"), 422, "query-invalid")


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("text/html", True), ("text/*", True), ("application/json, text/html;q=0.5", False),
        ("application/json", False), ("*/*", False), ("", False), ("text/html;q=x, application/json;q=0", False),
    ],
)  # fmt: skip
def test_what_accept_prefers(accept: str, html: bool) -> None:
    assert prefers_html(accept) == html


def sent(body: Any) -> Any:
    """As it comes over the wire."""
    return orjson.loads(orjson.dumps(body))


def test_every_item_and_guide_is_as_the_openapi_document_says(reader: Hub, subtests: pytest.Subtests) -> None:
    """Each member is named there, and nothing else is given: a schema that would pass anything says nothing."""
    paths = create().openapi()["paths"]
    schemas = {
        path: jsonschema.Draft202012Validator(
            paths[path]["get"]["responses"]["200"]["content"]["application/json"]["schema"],
            format_checker=jsonschema.FormatChecker(),
        )
        for path in ("/v1/items", "/v1/items/{code}", "/v1/items/{code}/guide", "/v1/items/changes")
    }
    tried = 0
    for versions in catalogue.published().values():
        for item in versions:
            for lang in ("zh", "en"):
                with subtests.test(item=item.code, version=item.version, lang=lang):
                    schemas["/v1/items/{code}"].validate(sent(catalogue.described(item, lang)))
                    schemas["/v1/items/{code}/guide"].validate(sent(guides.guide(item, lang)))
                    tried += 1
    assert tried > 20
    schemas["/v1/items/{code}"].validate(reader.get(f"/v1/items/{LOADED}").json())
    schemas["/v1/items"].validate(reader.get("/v1/items").json())
    shown = sent(catalogue.described(catalogue.published()["demo-food-permit"][0], "en"))
    flawed: list[dict[str, Any]] = [
        {**shown, "more": 1}, {**shown, "region": "31"}, {**shown, "facts": {"x": {"type": "text", "question": "?"}}},
        {**shown, "requirements": []}, {**shown, "roles": {"x": None}}, {**shown, "state": "listed"},
        {**shown, "requirements": [{**shown["requirements"][0], "options": [[{"material": "x"}]]}]},
        {name: value for name, value in shown.items() if name != "digest"},
    ]  # fmt: skip
    for wrong in flawed:
        assert not schemas["/v1/items/{code}"].is_valid(wrong), wrong
