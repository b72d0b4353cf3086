"""Bundles 一件事: what is refused in a file, and that asking for one asks for its items."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from connectors.errors import FatalError
from hub import agreements, catalogue
from hub.api.app import create
from mappings import bundles, items
from mappings.items import Item
from tests import stored
from tests.serving import Hub, served
from tests.test_cli_lookup import yici

KNOWN = {item.code: item for item in items.all_items()}
MOTHER = f"cn.ric:{stored.SPOUSE}"
FACTS = {"born_abroad": False, "registers_with": "applicant", "child_registered": False}


def refused(tmp_path: Path, known: dict[str, Item], name: str = "newborn", **change: Any) -> str:
    data = yaml.safe_load((bundles.FOLDER / "newborn.yml").read_text(encoding="utf-8")) | change
    path = tmp_path / f"{name}.yml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    with pytest.raises(FatalError) as caught:
        bundles.read(path, known)
    assert caught.value.code == "bundle-invalid"
    assert caught.value.values["file"] == str(path)
    return str(caught.value.values["reason"])


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("newborn", {"items": ["demo-newborn-insurance", "demo-moon"]}, "items: there is no item demo-moon"),
        ("newborn", {"items": ["demo-newborn-insurance"]}, "items"),
        ("newborn", {"items": ["demo-newborn-insurance"] * 2}, "given twice"),
        ("newborn", {"items": ["demo-newborn-insurance", "demo-food-permit"]}, "the applicant is a person in one"),
        ("newborn", {"code": "birth"}, "must be equal"),
        ("newborn", {"colour": "red"}, "colour: unknown key"),
        ("newborn", {"legal_basis": None}, "legal_basis"),
        ("demo-elder-card", {"code": "demo-elder-card"}, "already the code of an item"),
        # `moved_from` of one also takes shanghai, of the other not.
        ("newborn", {"items": ["demo-household-move", "demo-pension-transfer"]}, "fact moved_from: of another type"),
    ],
)
def test_what_is_refused(tmp_path: Path, name: str, change: dict[str, Any], reason: str) -> None:
    assert reason in refused(tmp_path, KNOWN, name, **change)


def test_facts_and_roles_mean_the_same_in_every_item(tmp_path: Path) -> None:
    item = KNOWN["demo-newborn-insurance"]
    fact = items.Fact(type="integer", question=item.facts["child_registered"].question)
    changed = item.model_copy(update={"facts": {"child_registered": fact}})
    assert "fact child_registered: of another type" in refused(tmp_path, {**KNOWN, item.code: changed})
    party = items.Party(kind="organisation", name=item.roles["child"].name)
    changed = item.model_copy(update={"roles": {"child": party}})
    assert "role child: a person in one item" in refused(tmp_path, {**KNOWN, item.code: changed})


def test_the_authored_ones() -> None:
    found = {bundle.code: bundle for bundle in bundles.all_bundles()}
    assert set(found) >= {"newborn", "start-company"}
    assert list(bundles.facts([KNOWN[code] for code in found["newborn"].items])) == list(FACTS)
    for bundle in found.values():
        day = dt.date(2026, 1, 1)
        assert all(KNOWN[code].in_force.covers(day) for code in bundle.items)


@pytest.fixture
def family(store: sa.Engine) -> sa.Engine:
    """A mother with her card, household and the child's birth certificate."""
    for source, material in (("sh-nhc-births", "birth-certificate"), ("sh-ga-households", "household-register"),
                             ("sh-ga-residents", "resident-id-card")):  # fmt: skip
        stored.source(store, source, material)
        role = {"birth-certificate": "mother"}.get(material, "holder")
        stored.holding(store, source, material, (role, "cn.ric", stored.SPOUSE), number="1")
    return store


def test_a_bundle_is_asked_on_the_command_line(family: sa.Engine) -> None:
    facts = [f"{name}={str(value).lower()}" for name, value in FACTS.items()]
    asked = [word for fact in facts for word in ("--fact", fact)]
    done = yici("lookup", "--item", "newborn", "--id", "-", "--json", *asked, stdin=MOTHER)
    assert done.returncode == 0, done.stderr
    given = json.loads(done.stdout)
    assert [answer["item"] for answer in given] == list(catalogue.bundled()["newborn"].items)
    assert all(answer["must_submit"] == [] for answer in given)
    seen = {entry["disposition"] for answer in given for entry in answer["requirements"]}
    assert seen == {"held", "not_required"}


def test_a_bundle_is_agreed_listed_and_asked_over_http(family: sa.Engine) -> None:
    app = create()
    with served(app) as base:
        hub = Hub(base, app, "newborn").sign_in()
        assert set(catalogue.bundled()["newborn"].items) < set(agreements.every()[0].items)
        listed = hub.get("/v1/items").json()
        assert [bundle["bundle"] for bundle in listed["bundles"]] == ["newborn"]
        assert set(listed["bundles"][0]["items"]) < {entry["item"] for entry in listed["items"]}
        answer = hub.lookup(items=["newborn", "demo-newborn-insurance"], id=MOTHER, facts=FACTS)
        assert answer.status_code == 200, answer.text
        codes = [entry["item"] for entry in answer.json()["answers"]]
        assert codes == list(catalogue.bundled()["newborn"].items)
        refused = hub.lookup(items=["start-company"], id=MOTHER)
        assert (refused.status_code, refused.json()["code"]) == (403, "item-not-agreed")
