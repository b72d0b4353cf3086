"""One-time notices: everything that is missing, as the guide says it, on one sheet, about nobody."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors.errors import UsageError
from hub import answers, catalogue, guides, notices
from hub.answers import Question
from hub.cli import app
from hub.home import Home
from tests import linked, peering, stored
from tests.emptying import empty

LICENCE = f"cn.uscc:{stored.LICENCE_CODE}"
PERSON = f"cn.ric:{stored.RESIDENT}"
SPOUSE = f"cn.ric:{stored.SPOUSE}"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def migrated(server_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    yield from linked.store(server_home, tmp_path_factory.mktemp("notices"))


@pytest.fixture
def store(migrated: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    """One store for all tests of the module, empty for each."""
    monkeypatch.setenv("YICI_LANG", "en")
    with migrated.begin() as connection:
        empty(connection, f"{peering.STORE}, answer, agreement")
    return migrated


def ask(store: sa.Engine, *items: str, applicant: str = LICENCE, **more: object) -> list[str]:
    given = answers.ask(store, Question(catalogue.expand(items), applicant, "hall", "handle", **more))  # type: ignore[arg-type]
    return [answer["answer"] for answer in given]


def by_code(part: list[dict]) -> dict[str, dict]:
    return {entry["requirement"]: entry for entry in part}


def test_all_that_is_missing_with_what_would_do(store: sa.Engine) -> None:
    stored.source(store, "sh-amr-enterprises", "business-licence")
    stored.holding(store, "sh-amr-enterprises", "business-licence", ("holder", "cn.uscc", stored.LICENCE_CODE))
    [answer] = ask(store, "demo-branch-registration", case="31-2026-0001", language="zh")
    made = notices.notice(store, answer, "en")
    assert made["case"] == "31-2026-0001"
    assert [each["material"] for each in made["held"]] == ["business-licence"]
    # Whether an authorisation is needed is not known yet: it is a question, nothing to hand in.
    assert by_code(made["open"])["authorisation"]["question"].startswith("Is the application signed online")
    assert made["must_submit"] == []
    premises = by_code(made["deferred"])["premises"]
    assert "20 days" in premises["terms"] and "Art. 24" in premises["terms"]
    assert by_code(made["open"])["branch-head-identity"]["next_step"]
    [more] = ask(
        store, "demo-branch-registration", facts={"signed_electronically": False}, roles={"branch_head": PERSON}
    )
    made = notices.notice(store, more, "zh")
    assert [each["name"] for each in made["must_submit"]] == ["居民身份证", "授权委托书"]
    identity = by_code(made["missing"])["branch-head-identity"]
    assert identity["materials"] == [
        {
            "material": "resident-id-card",
            "name": "居民身份证",
            "holder": "branch_head",
            "text": "分公司负责人的居民身份证",
        }
    ]
    assert "30" in identity["options"][0][0]["wanted"][0]


def test_what_is_open_says_all_that_decides_it(store: sa.Engine) -> None:
    [answer] = ask(store, "demo-household-move", applicant=PERSON)
    made = notices.notice(store, answer, "en")
    spouse = by_code(made["open"])["spouse-household"]
    assert len(spouse["questions"]) == 2 and spouse["question"] == spouse["questions"][0]
    assert spouse["roles_needed"] == [{"role": "spouse", "name": "Spouse"}]
    page = html.unescape(notices.html(made, "en").decode())
    for text in (*spouse["questions"], f"Needed if: {spouse['needed_if']}", "To be named: Spouse"):
        assert text in page


def test_it_says_what_the_guide_says(store: sa.Engine) -> None:
    for item in catalogue.published().values():
        item = item[-1] if item[-1].in_force.covers(catalogue.today()) else item[0]
        if not item.in_force.covers(catalogue.today()):
            continue
        applicant = LICENCE if item.applicant.kind == "organisation" else PERSON
        for lang in ("zh", "en"):
            [answer] = ask(store, item.code, applicant=applicant)
            made = notices.notice(store, answer, lang)
            published = by_code(guides.guide(item, lang)["requirements"])
            parts = [entry for part in ("missing", "deferred", "open") for entry in made[part]]
            assert parts, item.code
            for entry in parts:
                guide = published[entry["requirement"]]
                assert (entry["options"], entry["legal_basis"], entry["name"]) == (
                    guide["options"], guide["legal_basis"], guide["name"],
                )  # fmt: skip
            said = html.unescape(notices.html(made, lang).decode())
            assert all(entry["name"] in said for entry in parts)


def test_of_items_asked_together_each_material_is_asked_for_once(store: sa.Engine) -> None:
    facts = {"child_registered": True, "born_abroad": False, "registers_with": "applicant"}
    given = ask(store, "newborn", applicant=PERSON, roles={"child": SPOUSE}, facts=facts)
    assert len(given) == 3
    made = [notices.notice(store, answer, "en") for answer in given]
    assert made[0] == made[1] == made[2], "one notice, whichever answer it is asked for by"
    assert [item["item"] for item in made[0]["items"]] == [
        "demo-newborn-registration", "demo-newborn-insurance", "demo-newborn-social-card",
    ]  # fmt: skip
    papers = [(each["material"], each["holder"]) for each in made[0]["must_submit"]]
    assert len(papers) == len(set(papers)) and ("birth-certificate", "applicant") in papers
    assert {("resident-id-card", "applicant"), ("resident-id-card", "child")} <= set(papers), "two people's are two"
    wanting = {(entry["item"], entry["requirement"]) for entry in made[0]["missing"]}
    assert {("demo-newborn-registration", "birth"), ("demo-newborn-social-card", "birth-registered")} <= wanting
    # Asked apart they are apart.
    [alone] = ask(store, "demo-newborn-social-card", applicant=PERSON)
    assert [item["item"] for item in notices.notice(store, alone, "en")["items"]] == ["demo-newborn-social-card"]


def test_of_an_option_that_is_half_held_only_the_other_half_is_asked_for(store: sa.Engine) -> None:
    stored.source(store, "sh-ga-residents", "resident-id-card")
    stored.holding(store, "sh-ga-residents", "resident-id-card", ("holder", "cn.ric", stored.RESIDENT))
    [answer] = ask(store, "demo-home-transfer", applicant=PERSON, roles={"buyer": SPOUSE}, facts={"ground": "gift"})
    made = notices.notice(store, answer, "zh")
    buyers = {"material": "resident-id-card", "name": "居民身份证", "holder": "buyer", "text": "受让方的居民身份证"}
    own = {**buyers, "holder": "applicant", "text": "申请人的居民身份证"}
    assert buyers in made["must_submit"] and own not in made["must_submit"]
    both = by_code(made["missing"])["identities"]
    assert both["materials"] == [buyers]
    assert [[use["text"] for use in option] for option in both["options"]] == [["受让方的居民身份证"]]
    assert made["held"] == [own]
    page = html.unescape(notices.html(made, "zh").decode())
    missing, _, held = page.partition("政府已掌握")
    assert "受让方的居民身份证" in missing and "申请人的居民身份证" not in missing and "申请人的居民身份证" in held


def test_what_is_needed_of_somebody_not_named_is_not_told_as_depending(store: sa.Engine) -> None:
    stored.source(store, "sh-ga-residents", "resident-id-card")
    [answer] = ask(store, "demo-food-permit", facts={"legal_representative_in_person": True})
    made = notices.notice(store, answer, "en")
    certain, depends = notices.unnamed(made["open"])
    assert [each["requirement"] for each in certain] == ["legal-representative-identity"]
    assert certain[0]["reason"] == "It is not yet known whose it would be."
    page = html.unescape(notices.html(made, "en").decode())
    needed = page.partition("Needed, of somebody not yet named")[2].partition("Still open")[0]
    assert "Legal representative" in needed and ("Still open" in page) is bool(depends)
    [answer] = ask(store, "demo-food-permit")  # whether it is needed at all, a fact decides
    made = notices.notice(store, answer, "zh")
    assert notices.unnamed(made["open"])[0] == []
    assert "尚未提供当事方标识" not in notices.html(made, "zh").decode()


def test_the_records_of_two_provinces_are_two(store: sa.Engine) -> None:
    for name, region in (("sh-hrss-insurance", "310000"), ("js-hrss-insurance", "320000")):
        stored.source(store, name, "social-insurance-record", region=region)
    facts = {"moved_from": "jiangsu", "sex": "male", "age": 30}
    [answer] = ask(store, "demo-pension-transfer", applicant=PERSON, facts=facts)
    made = notices.notice(store, answer, "zh")
    texts = [each["text"] for each in made["must_submit"] if each["material"] == "social-insurance-record"]
    assert len(texts) == 2 and "上海市" in texts[0] and "江苏省" in texts[1]
    english = [each["text"] for each in notices.notice(store, answer, "en")["must_submit"]]
    assert "Social insurance record of the applicant (issued in province 32 (江苏省))" in english


def test_it_speaks_to_the_applicant(store: sa.Engine) -> None:
    """No wording for staff, no name of a source."""
    stored.source(store, "sh-amr-enterprises", "business-licence")
    stored.source(store, "sh-ga-residents", "resident-id-card", succeeded=None)
    for code in catalogue.published():
        item = catalogue.in_force(code, catalogue.today())
        if item is None:
            continue
        applicant = LICENCE if item.applicant.kind == "organisation" else PERSON
        for lang in ("zh", "en"):
            said = notices.html(notices.notice(store, ask(store, code, applicant=applicant)[0], lang), lang).decode()
            for word in (
                "sh-amr",
                "sh-ga",
                "hub-deposits",
                "询问申请人",
                "重新查询",
                "数源",
                "Ask the question",
                "ook up again",
            ):
                assert word not in said, (code, lang, word)


def test_items_stand_in_the_order_asked(store: sa.Engine) -> None:
    codes = ["demo-residence-permit", "demo-elder-card", "demo-talent-settlement", "demo-household-move"]
    for order in (codes, codes[::-1]):
        made = notices.notice(store, ask(store, *order, applicant=PERSON)[2], "en")
        assert [item["item"] for item in made["items"]] == order


def test_it_names_nobody(store: sa.Engine) -> None:
    stored.source(store, "sh-ga-residents", "resident-id-card", region="110000")
    stored.holding(
        store,
        "sh-ga-residents",
        "resident-id-card",
        ("holder", "cn.ric", stored.RESIDENT),
        name="某某",
        valid_to="2000-01-01",
    )
    [answer] = ask(store, "demo-elder-card", applicant=PERSON, case="31-7")
    for lang in ("zh", "en"):
        made = notices.notice(store, answer, lang)
        for text in (notices.json(made).decode(), notices.html(made, lang).decode()):
            assert "31-7" in text
            assert stored.RESIDENT not in text and "某某" not in text
            assert not re.search(r"\d{17}[\dX]", text)


def test_what_it_is_made_of_can_be_gone(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    [answer] = ask(store, "demo-elder-card", applicant=PERSON)
    published = dict(catalogue.published())
    del published["demo-elder-card"]
    monkeypatch.setattr(catalogue, "published", lambda: published)
    with pytest.raises(UsageError) as caught:
        notices.notice(store, answer, "en")
    assert caught.value.code == "notice-impossible"
    with pytest.raises(UsageError, match="no stored answer"):
        notices.notice(store, "nothing", "en")


def test_the_command(store: sa.Engine, tmp_path: Path) -> None:
    [answer] = ask(store, "demo-elder-card", applicant=PERSON)
    run = CliRunner().invoke
    done = run(app, ["notice", answer, "--lang", "zh", "--json"])
    assert json.loads(done.stdout) == notices.notice(store, answer, "zh")
    out = tmp_path / "notice.html"
    assert run(app, ["notice", answer, "--lang", "zh", "--out", str(out)]).exit_code == 0
    assert "一次性告知书" in out.read_text(encoding="utf-8")
    said = run(app, ["notice", answer, "--lang", "en"])
    assert said.exit_code == 0 and "One-time notice" in said.stdout
    assert run(app, ["notice", answer, "--lang", "fr"]).exit_code == 2
    for name in ("notice.pdf", "notice", "notice.htm"):
        assert run(app, ["notice", answer, "--out", str(tmp_path / name)]).exit_code == 2
        assert not (tmp_path / name).exists()
    gone = run(app, ["notice", answer, "--out", str(tmp_path / "nowhere" / "notice.html")])
    assert isinstance(gone.exception, UsageError) and gone.exception.code == "out-unwritable"
    assert "No such file" in gone.exception.message()


@pytest.mark.slow
def test_each_prints_on_one_sheet(store: sa.Engine, tmp_path: Path) -> None:
    """Every item and bundle with nothing known and nothing said, so that all of it is missing or open; all items of persons at once
    take two at most."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no chromium here: that notices print on one sheet of A4 is NOT checked")
    today = catalogue.today()
    singles = [code for code in catalogue.published() if catalogue.in_force(code, today)] + list(catalogue.bundled())
    persons = ["demo-household-move", "demo-home-transfer"]
    every = [
        code for code in catalogue.published()
        if (item := catalogue.in_force(code, today)) is not None and item.applicant.kind == "person"
    ]  # fmt: skip
    for codes in (*([code] for code in singles), persons, [*catalogue.bundled()], every):
        item = catalogue.in_force(catalogue.expand(codes)[0], today)
        assert item is not None
        applicant = LICENCE if item.applicant.kind == "organisation" else PERSON
        for lang in ("zh", "en"):
            page, sheet = tmp_path / "notice.html", tmp_path / "notice.pdf"
            page.write_bytes(
                notices.html(notices.notice(store, ask(store, *codes, applicant=applicant)[0], lang), lang)
            )
            subprocess.run(
                [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", f"--print-to-pdf={sheet}",
                 page.as_uri()], check=True, capture_output=True, timeout=60,
            )  # fmt: skip
            pages = len(re.findall(rb"/Type\s*/Page\b", sheet.read_bytes()))
            assert pages <= (2 if codes is every else 1), (codes, lang, pages)
