"""hub/guides.py: the guide says all of an item, the same everywhere, and text stays text."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from pydantic import ValidationError

from connectors.messages import Language
from hub import catalogue, guides
from mappings import model, wording
from mappings.items import Fact, Item
from tests.test_pages import dressed

EVERY = [item for versions in catalogue.published().values() for item in versions]
LANGUAGES: tuple[Language, ...] = ("zh", "en")
VOID = {"meta", "br"}


class Page(HTMLParser):
    """The tags of a page in order, its text, and whether every tag is closed by its own."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(page.decode())
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not {name for name, _ in attrs} & {"src", "href", "onclick", "style"}, "the page needs nothing else"
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


@pytest.mark.parametrize("item", EVERY, ids=lambda item: f"{item.code}@{item.version}")
def test_a_guide_says_all_of_it(item: Item) -> None:
    for lang in LANGUAGES:
        page, data = Page(guides.html(item, lang)), json.loads(guides.json(item, lang))
        texts = [item.name, item.legal_basis, item.applicant.name, *(fact.question for fact in item.facts.values())]
        texts += [text for each in item.requirements for text in (each.name, each.legal_basis) if text]
        texts += [step.name for step in item.guide.steps] + [each.reason for each in item.guide.exceptions]
        for text in texts:
            assert getattr(text, lang) in page.text
        for _, use in item.uses():
            assert getattr(model.load(use.material).name, lang) in page.text
            assert all(each in page.text for each in wording.wanted(use, item.parties(), lang))
        assert [each["requirement"] for each in data["requirements"]] == [each.code for each in item.requirements]
        assert [each["asked"] for each in data["requirements"]] == [
            bool(each.legal_basis) for each in item.requirements
        ]
        assert (data["item"], data["version"], data["item_name"]) == (item.code, item.version, getattr(item.name, lang))
        assert data["visits"] == item.guide.visits
        assert page.tags.count("section") == len(item.requirements)


def test_what_is_not_published_is_said_to_be_so() -> None:
    item = catalogue.published()["demo-residence-permit"][-1]
    page = Page(guides.html(item, "zh"))
    assert page.text.count("未公布") == 9 + 2  # every short statement, the process, the exceptions
    data = json.loads(guides.json(item, "zh"))
    assert (data["limits"], data["fee"], data["steps"]) == (
        {"statutory_working_days": None, "promised_working_days": None}, None, [],
    )  # fmt: skip
    whole = catalogue.published()["demo-food-permit"][-1]
    assert Page(guides.html(whole, "zh")).text.count("未公布") == 2


def test_the_successor_and_the_end_are_named() -> None:
    text = Page(guides.html(catalogue.published()["demo-elder-paper-card"][-1], "zh")).text
    assert "2013-07-01 至 2019-12-31" in text and "替代事项：demo-elder-card" in text


def test_text_stays_text() -> None:
    """An item full of markup has the structure of the same item without, and shows every character."""
    nasty = '<script>alert(1)</script> &amp; "quoted" </dd> {{ 7 * 7 }} {% raw %}'
    for code in ("demo-food-permit", "demo-home-transfer", "demo-talent-settlement"):
        raw = catalogue.published()[code][0].model_dump(by_alias=True, exclude_none=True)
        pages = [Page(guides.html(Item.model_validate(dressed(raw, words)), "en")) for words in (nasty, "plain")]
        assert pages[0].tags == pages[1].tags
        assert nasty in pages[0].text and "49" not in pages[0].text


def test_the_same_guide_is_the_same_bytes() -> None:
    item = EVERY[0]
    for lang in LANGUAGES:
        assert guides.html(item, lang) == guides.html(item, lang)
        assert guides.json(item, lang) == guides.json(item, lang)
    assert guides.html(item, "zh") != guides.html(item, "en")


def test_it_prints_and_fits_a_phone() -> None:
    page = guides.html(EVERY[0], "zh").decode()
    assert "@media print" in page and 'name="viewport"' in page and '<html lang="zh-CN">' in page


def test_nobody_reads_codes() -> None:
    """Conditions name answers in words; types of items are said in the reader's language."""
    for versions in catalogue.published().values():
        for item in versions:
            coded = [value for fact in item.facts.values() for value in fact.values]
            for lang in ("zh", "en"):
                made = guides.guide(item, lang)
                said = [each["condition"] or "" for each in made["requirements"]]
                said += [each.get("asked_if", "") for each in made["questions"].values()]
                if lang == "zh":
                    assert not [text for text in said if any(value in text for value in coded)], item.code
            assert f"<dd>{item.type}</dd>" not in guides.html(item, "en").decode()
            assert f"<dd>{item.type}</dd>" in guides.html(item, "zh").decode()


def test_words_name_every_answer_and_are_not_what_is_published() -> None:
    item = catalogue.published()["demo-household-move"][-1]
    fact = item.facts["moved_from"]
    assert (fact.words["shanghai"].zh, fact.words["shanghai"].en) == ("上海", "Shanghai")
    plain = fact.model_copy(update={"words": {}})
    assert item.model_copy(update={"facts": {**item.facts, "moved_from": plain}}).digest() == item.digest()
    said = fact.model_dump(by_alias=True, exclude_defaults=True)
    for wrong in ({"shanghai": said["words"]["shanghai"]}, {**said["words"], "beijing": said["words"]["shanghai"]}):
        with pytest.raises(ValidationError, match="words"):
            Fact.model_validate({**said, "words": wrong})
