"""What the authored model covers: enough materials, items and kinds of rule, and nothing that cannot be justified."""

from __future__ import annotations

import itertools
import re

import pytest

from connectors.source import PACKAGED, all_sources
from hub import conditions
from mappings import bundles, items, model, regions
from mappings.items import APPLICANT, Item, Requirement

MATERIALS, ITEMS, BUNDLES = model.all_materials(), items.all_items(), bundles.all_bundles()
REQUIREMENTS = [(item, requirement) for item in ITEMS for requirement in item.requirements]
# A law by its title, in 《》 or the English name; an agreement or habit is no law.
LAW = re.compile(r"《[^》]+(?:法|法典|条例|办法|规定|意见)》")


def test_there_are_enough_of_each() -> None:
    assert len(MATERIALS) >= 10
    assert len(ITEMS) >= 10
    assert {bundle.code for bundle in BUNDLES} >= {"newborn", "start-company"}


def test_the_bundles_cover_what_they_are_named_for() -> None:
    needs = {
        bundle.code: {code for item in ITEMS if item.code in bundle.items for code in item.materials()}
        for bundle in BUNDLES
    }
    assert needs["newborn"] >= {"birth-certificate", "household-register"}
    assert needs["start-company"] >= {"business-licence", "articles-of-association", "real-estate-title"}


def test_every_kind_of_rule_occurs() -> None:
    uses = [use for item in ITEMS for _, use in item.uses()]
    assert {use.holder for use in uses} >= {APPLICANT, "spouse", "child", "legal_representative"}
    assert any(len(requirement.options) > 1 for _, requirement in REQUIREMENTS)
    assert any(len(option.materials) > 1 for _, requirement in REQUIREMENTS for option in requirement.options)
    assert {requirement.deferral.kind for _, requirement in REQUIREMENTS if requirement.deferral} == {
        "later",
        "promise",
    }
    assert any(requirement.legal_basis is None for _, requirement in REQUIREMENTS)
    forms = [requirement.when for _, requirement in REQUIREMENTS if requirement.when]
    assert any(form.all for form in forms) and any(form.any for form in forms) and any(form.not_ for form in forms)


@pytest.mark.parametrize("code", ["demo-household-move", "demo-pension-transfer"])
def test_a_move_asks_the_province_of_origin(code: str) -> None:
    item = next(item for item in ITEMS if item.code == code)
    for province, name in (("32", "jiangsu"), ("33", "zhejiang"), ("34", "anhui")):
        [when] = {
            requirement.when
            for requirement, use in item.uses()
            if use.region == province and requirement.when is not None
        }
        for origin in item.facts["moved_from"].values:
            assert conditions.evaluate(when, {"moved_from": origin}, item.facts).value is (origin == name)
    assert {use.region for _, use in item.uses() if use.region} <= set(regions.DELTA)


@pytest.mark.parametrize(("item", "requirement"), REQUIREMENTS, ids=lambda each: each.code)
def test_a_requirement_cites_a_law_and_can_arise(item: Item, requirement: Requirement) -> None:
    cited = [requirement.legal_basis, requirement.deferral.basis if requirement.deferral else None, item.legal_basis]
    assert all(LAW.search(text.zh) for text in cited if text)
    if requirement.when is None:
        return
    tried = requirement.when.combinations(item.facts)
    results = {
        conditions.evaluate(requirement.when, dict(zip(tried, values, strict=True)), item.facts).value
        for values in itertools.product(*tried.values())
    }
    assert results == {True, False}, "a condition that is always or never true is none"


@pytest.mark.parametrize("material", MATERIALS, ids=lambda each: each.code)
def test_a_material_says_who_may_have_it(material: model.Material) -> None:
    assert LAW.search(material.sharing.basis.zh) or material.sharing.class_ == "none"
    assert material.attributes
    if material.sharing.class_ == "unconditional":
        assert {attribute.sensitivity for attribute in material.attributes.values()} == {"general"}
    delivered = {source.entity for source in all_sources(PACKAGED)}
    assert material.code in delivered or any(material.code in item.materials() for item in ITEMS), "nobody needs it"


def test_what_harms_by_being_announced_is_not() -> None:
    silent = {material.code for material in MATERIALS if not material.indexed}
    assert silent >= {"marriage-certificate", "subsistence-allowance", "home-purchase-contract"}
    assert silent >= {material.code for material in MATERIALS if material.sharing.class_ == "none"}
    # What lookups in a neighbouring province have to find.
    assert not silent & {"business-licence", "household-register", "social-insurance-record"}


def test_a_material_of_another_province_is_one_that_partners_announce() -> None:
    abroad = {use.material for item in ITEMS for _, use in item.uses() if use.region not in (None, item.region[:2])}
    assert abroad and all(model.load(code).indexed for code in abroad)
