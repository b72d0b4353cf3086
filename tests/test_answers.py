"""Questions against a real store: what is found, in which language, and what is kept of it."""

from __future__ import annotations

import datetime as dt
import json

import pytest
import sqlalchemy as sa

from connectors.errors import UsageError
from hub import answers, catalogue, notices, records, rendering
from hub.answers import Question
from hub.api.lookups import Answers
from tests import stored

LICENCE = f"cn.uscc:{stored.LICENCE_CODE}"
PERSON = f"cn.ric:{stored.RESIDENT}"


def ask(engine: sa.Engine, *items: str, applicant: str = LICENCE, **more: object) -> list[dict]:
    return answers.ask(engine, Question(items, applicant, "test", "test", **more))  # type: ignore[arg-type]


def by_code(answer: dict) -> dict[str, dict]:
    return {entry["requirement"]: entry for entry in answer["requirements"]}


@pytest.fixture
def licence(store: sa.Engine) -> str:
    stored.source(store, "sh-amr-enterprises", "business-licence")
    return stored.holding(
        store, "sh-amr-enterprises", "business-licence", ("holder", "cn.uscc", stored.LICENCE_CODE),
        file="2019-上海.csv", row=2,
    )  # fmt: skip


def test_a_held_licence_comes_with_its_provenance(store: sa.Engine, licence: str) -> None:
    facts, roles = {"legal_representative_in_person": False}, {"agent": PERSON}
    [answer] = ask(store, "demo-food-permit", facts=facts, roles=roles, language="zh")
    found = by_code(answer)
    assert answer["item_name"] == "食品经营许可（设立）"
    assert found["business-licence"]["disposition"] == "held"
    assert found["business-licence"]["provenance"] == [
        {"source": "sh-amr-enterprises", "file": "2019-上海.csv", "row": 2}
    ]
    assert found["business-licence"]["holdings"][0]["holding"] == licence
    assert "营业执照" in found["business-licence"]["reason"]
    assert found["authorisation"]["disposition"] == "submit"
    assert answer["must_submit"] == ["authorisation", "resident-id-card", "premises-proof", "food-safety-rules"]


def test_a_company_in_no_file_must_submit(store: sa.Engine, licence: str) -> None:
    [answer] = ask(store, "demo-food-permit", applicant="cn.uscc:91440300708461136T")
    assert by_code(answer)["business-licence"]["disposition"] == "submit"
    assert by_code(answer)["business-licence"]["reason_code"] == "absent", "the item's own register would know"
    assert "business-licence" in answer["must_submit"]


def test_the_missing_fact_is_asked_for(store: sa.Engine, licence: str) -> None:
    found = by_code(ask(store, "demo-food-permit")[0])["authorisation"]
    assert found["disposition"] == "undetermined"
    assert found["question"] == {
        "fact": "legal_representative_in_person",
        "type": "boolean",
        "text": "Does the legal representative apply in person?",
    }


def test_everything_that_decides_is_asked_for_at_once(store: sa.Engine) -> None:
    """Fact after fact, then the role, would be three rounds."""
    [answer] = ask(store, "demo-household-move", applicant=PERSON)
    found = by_code(answer)["spouse-household"]
    assert [each["fact"] for each in found["questions"]] == ["married", "ground"]
    assert found["question"] == found["questions"][0] and found["questions"][1]["values"] == ["spouse", "work", "study"]
    assert [each["role"] for each in found["roles_needed"]] == ["spouse"]
    assert "Is the applicant married?" in found["needed_if"] and "spouse" in found["needed_if"]
    given = {"answers": [answer]}
    assert Answers.model_validate(given).model_dump(exclude_unset=True) == given, "as the OpenAPI document says"
    facts = {"married": True, "ground": "spouse", "moved_from": "shanghai"}
    [known] = ask(store, "demo-household-move", applicant=PERSON, facts=facts)
    for entry in by_code(known)["spouse-household"], by_code(known)["marriage"]:
        assert [each["role"] for each in entry["roles_needed"]] == ["spouse"] and "questions" not in entry
    [whole] = ask(store, "demo-household-move", applicant=PERSON, facts=facts, roles={"spouse": SPOUSE})
    assert not [entry for entry in whole["requirements"] if "questions" in entry or "roles_needed" in entry]


def test_several_items_ask_once(store: sa.Engine, licence: str) -> None:
    given = ask(store, "demo-food-permit", "demo-publication-retail", "demo-food-permit")
    assert [answer["item"] for answer in given] == ["demo-food-permit", "demo-publication-retail"]
    assert "premises-proof" in given[0]["must_submit"]
    assert given[1]["must_submit"] == []
    assert by_code(given[1])["premises"]["disposition"] == "submit"


def test_of_two_people_it_says_whose_paper_lacks(store: sa.Engine) -> None:
    stored.source(store, "sh-ga-residents", "resident-id-card")
    stored.holding(store, "sh-ga-residents", "resident-id-card", ("holder", "cn.ric", stored.RESIDENT))
    buyer, facts = {"buyer": f"cn.ric:{stored.SPOUSE}"}, {"ground": "gift"}
    for language, begins, name in (
        ("en", "New owner: sh-ga-residents", "Resident identity card of the New owner"),
        ("zh", "受让方：sh-ga-residents", "受让方的居民身份证"),
    ):
        [answer] = ask(store, "demo-home-transfer", applicant=PERSON, roles=buyer, facts=facts, language=language)
        both = by_code(answer)["identities"]
        assert both["reason"].startswith(begins) and both["reason_code"] == "absent"
        assert both["lacking"] == [{"material": "resident-id-card", "holder": "buyer", "name": name, "region": None}]
        assert [one["holder"] for one in both["holdings"]] == ["applicant"]
        assert "whose" not in both and ":" not in by_code(answer)["title"]["reason"].partition("sh-")[0]


def test_papers_of_two_people_are_asked_for_apart(store: sa.Engine) -> None:
    """The applicant's card by both items, the legal representative's by the second alone: the same material, not the same paper."""
    stored.source(store, "sh-ga-residents", "resident-id-card")
    other = f"cn.ric:{stored.SPOUSE}"
    facts = {"founder_is_legal_representative": False, "company_registered": False}
    items = ("demo-tax-registration", "demo-company-establishment")
    for who, again in ((other, True), (PERSON, False)):
        first, second = ask(store, *items, applicant=PERSON, roles={"legal_representative": who}, facts=facts)
        asked = [one for entry in second["requirements"] for one in entry.get("lacking", ())]
        assert ("resident-id-card", "legal_representative") in {(one["material"], one["holder"]) for one in asked}
        assert "resident-id-card" in first["must_submit"]
        assert ("resident-id-card" in second["must_submit"]) is again, "one person in two roles has one card"
        for answer in (first, second):
            kept = records.explain(store, answer["answer"])
            assert (kept["replay"], kept["body"]) == ("same", answer)


def test_the_paper_of_one_province_is_asked_for_in_the_place_of_any_whatever_the_order_of_items(
    store: sa.Engine,
) -> None:
    items = ["demo-newborn-registration", "demo-household-move"]
    facts = {
        "moved_from": "zhejiang",
        "married": False,
        "ground": "work",
        "registers_with": "applicant",
        "born_abroad": False,
    }
    told = []
    for order in (items, items[::-1]):
        given = ask(store, *order, applicant=PERSON, facts=facts)
        told.append({answer["item"]: set(answer["must_submit"]) for answer in given})
        kept = [records.explain(store, answer["answer"]) for answer in given]
        assert [(one["replay"], one["body"]) for one in kept] == [("same", answer) for answer in given]
        made = notices.notice(store, given[0]["answer"], "en")
        assert [item["item"] for item in made["items"]] == order
        [register] = [one["text"] for one in made["must_submit"] if one["material"] == "household-register"]
        assert "province 33" in register
    for asked in told:
        assert [item for item, codes in asked.items() if "household-register" in codes] == ["demo-household-move"]
    assert set().union(*told[0].values()) == set().union(*told[1].values())


def test_what_was_asked_for_before_papers_were_told_apart_is_read_as_it_was(store: sa.Engine) -> None:
    stored.source(store, "sh-ga-residents", "resident-id-card")
    facts = {"founder_is_legal_representative": False, "company_registered": False}
    roles = {"legal_representative": f"cn.ric:{stored.SPOUSE}"}
    items = ("demo-tax-registration", "demo-company-establishment")
    answer = ask(store, *items, applicant=PERSON, roles=roles, facts=facts)[1]
    with store.begin() as connection:
        inputs = json.loads(
            connection.scalar(sa.text("SELECT inputs FROM answer WHERE id = :id"), {"id": answer["answer"]})
        )
        inputs["asked_for"] = [one.partition(" ")[0] for one in inputs["asked_for"]]
        assert "resident-id-card" in inputs["asked_for"]
        connection.execute(
            sa.text("UPDATE answer SET inputs = :inputs WHERE id = :id"),
            {"inputs": json.dumps(inputs, sort_keys=True), "id": answer["answer"]},
        )
    kept = records.explain(store, answer["answer"])["body"]
    assert "resident-id-card" not in kept["must_submit"] and kept["requirements"] == answer["requirements"]


def test_roles_are_looked_up(store: sa.Engine, licence: str) -> None:
    stored.source(store, "sh-ga-residents", "resident-id-card", region="110000")
    stored.holding(
        store, "sh-ga-residents", "resident-id-card", ("holder", "cn.ric", stored.RESIDENT), valid_to="2999-01-01"
    )
    facts = {"legal_representative_in_person": True}
    without = by_code(ask(store, "demo-food-permit", facts=facts)[0])["legal-representative-identity"]
    assert without["disposition"] == "undetermined"
    assert "legal_representative" in without["next_step"]
    named = by_code(ask(store, "demo-food-permit", facts=facts, roles={"legal_representative": PERSON})[0])
    assert named["legal-representative-identity"]["disposition"] == "held"
    assert named["legal-representative-identity"]["holdings"][0]["holder"] == "legal_representative"
    assert named["authorisation"]["disposition"] == "not_required"


def test_an_old_number_finds_the_new_one(store: sa.Engine) -> None:
    stored.source(store, "bj-ga-residents", "resident-id-card", region="110000")
    stored.holding(store, "bj-ga-residents", "resident-id-card", ("holder", "cn.ric", stored.RESIDENT))
    old = stored.RESIDENT[:6] + stored.RESIDENT[8:17]
    for text in (old, f"cn.ric:{old}", f"CN.RIC: {stored.RESIDENT.lower()}"):
        assert by_code(ask(store, "demo-elder-card", applicant=text)[0])["age"]["disposition"] == "held"


def test_a_late_source_leaves_absence_open(store: sa.Engine) -> None:
    stored.source(store, "sh-amr-enterprises", "business-licence", succeeded=stored.NOW - dt.timedelta(days=3))
    found = by_code(ask(store, "demo-food-permit")[0])["business-licence"]
    assert (found["disposition"], found["reason_code"]) == ("undetermined", "source-late")
    assert "sh-amr-enterprises" in found["next_step"]
    elsewhere = by_code(ask(store, "demo-food-permit", applicant="cn.uscc:91440300708461136T")[0])["business-licence"]
    assert elsewhere["disposition"] == "undetermined", "the item's own register would know"


def test_what_was_known_then(store: sa.Engine) -> None:
    before = stored.NOW - dt.timedelta(days=20)
    stored.source(store, "sh-amr-enterprises", "business-licence")
    stored.holding(
        store, "sh-amr-enterprises", "business-licence", ("holder", "cn.uscc", stored.LICENCE_CODE),
        recorded_at=stored.NOW - dt.timedelta(days=10), row=7,
    )  # fmt: skip
    [then] = ask(store, "demo-food-permit", as_of=before)
    assert by_code(then)["business-licence"]["disposition"] == "submit"
    [later] = ask(store, "demo-food-permit", as_of=stored.NOW - dt.timedelta(days=9))
    assert by_code(later)["business-licence"]["disposition"] == "held"
    assert by_code(later)["business-licence"]["provenance"] == [
        {"source": "sh-amr-enterprises", "file": "2019.csv", "row": 7}
    ]
    with store.begin() as connection:  # withdrawn since: gone from the holders' index, not from the past
        stored.end(connection)
        connection.execute(sa.text("DELETE FROM holding_holder"))
        connection.execute(sa.text("DELETE FROM holding"))
    [still] = ask(store, "demo-food-permit", as_of=stored.NOW - dt.timedelta(days=9))
    assert by_code(still)["business-licence"]["disposition"] == "held"
    [now] = ask(store, "demo-food-permit")
    assert by_code(now)["business-licence"]["disposition"] == "submit"


def test_the_answer_is_stored_with_digest_and_trace_but_no_identifier(store: sa.Engine, licence: str) -> None:
    [first] = ask(store, "demo-food-permit", case="31-2026-0001")
    [again] = ask(store, "demo-food-permit")
    [other] = ask(store, "demo-food-permit", applicant="cn.uscc:91440300708461136T")
    kept = records.explain(store, first["answer"])
    assert kept["body"] == first
    assert kept["case"] == "31-2026-0001"
    assert kept["inputs_digest"] == records.explain(store, again["answer"])["inputs_digest"]
    assert kept["inputs_digest"] != records.explain(store, other["answer"])["inputs_digest"]
    rules = {entry["requirement"]: entry for entry in kept["trace"]["requirements"]}
    assert rules["business-licence"]["options"][0][0]["holdings"][0]["holding"] == licence
    assert rules["authorisation"]["condition"] == {"value": None, "deciding": ["legal_representative_in_person"]}
    assert stored.LICENCE_CODE not in json.dumps(kept)


def test_a_replay_differs_when_what_the_answer_says_has_changed(
    store: sa.Engine, licence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision is the same in each case; only the words behind it are others."""
    [zh] = ask(store, "demo-food-permit", language="zh")
    for lang in ("zh", "en"):
        assert records.explain(store, zh["answer"], lang)["replay"] == "same"
    published = dict(catalogue.published())
    [item] = published["demo-food-permit"]
    first = item.requirements[0]
    name = first.name.model_copy(update={"zh": "另一名称"})
    for update in (
        {"requirements": (first.model_copy(update={"name": name}), *item.requirements[1:])},
        {"legal_basis": name},  # of the item: no answer repeats it
    ):
        changed = item.model_copy(update=update)
        with monkeypatch.context() as patch:
            patch.setattr(catalogue, "published", lambda: {**published, item.code: (changed,)})  # noqa: B023
            assert records.explain(store, zh["answer"])["replay"] == "differs", update
            assert records.explain(store, zh["answer"], "en")["replay"] == "differs"
    with monkeypatch.context() as patch:
        words = rendering.requirement
        patch.setattr(rendering, "requirement", lambda *given: {**words(*given), "reason": "?"})
        assert records.explain(store, zh["answer"])["replay"] == "differs", "another sentence"
    ended = item.model_copy(update={"in_force": item.in_force.model_copy(update={"to": dt.date(2099, 1, 1)})})
    monkeypatch.setattr(catalogue, "published", lambda: {**published, item.code: (ended,)})
    assert records.explain(store, zh["answer"])["replay"] == "same", "a last day may be said later"


def test_what_may_follow_later_is_named_but_not_asked_for_now(store: sa.Engine, licence: str) -> None:
    [answer] = ask(store, "demo-branch-registration", language="zh")
    premises = by_code(answer)["premises"]
    assert (premises["disposition"], premises["reason_code"]) == ("deferred", "deferred-later")
    assert premises["deferral"] == {
        "kind": "later", "within_days": 20, "materials": ["premises-proof"],
        "basis": "《上海市优化营商环境条例》第二十四条（办事指南载明的容缺受理）",
    }  # fmt: skip
    assert "20 日" in premises["reason"] and "第二十四条" in premises["reason"]
    assert "premises-proof" not in answer["must_submit"]
    both = ask(store, "demo-branch-registration", "demo-food-permit")
    assert "premises-proof" in both[1]["must_submit"], "deferred for one item, due for the other"
    given = {"answers": both}
    assert Answers.model_validate(given).model_dump(exclude_unset=True) == given, "as the OpenAPI document says"


def test_a_late_source_of_what_may_follow_later_offers_both(store: sa.Engine, licence: str) -> None:
    stored.source(store, "sh-premises", "premises-proof", succeeded=stored.NOW - dt.timedelta(days=3))
    found = by_code(ask(store, "demo-branch-registration")[0])["premises"]
    assert (found["disposition"], found["reason_code"]) == ("undetermined", "source-late")
    assert "sh-premises" in found["next_step"] and "20 days" in found["next_step"] and "Art. 24" in found["next_step"]
    assert "deferral" not in found


SPOUSE, STRANGER, CHILD = f"cn.ric:{stored.SPOUSE}", "cn.ric:310115199503078015", "cn.ric:310115202501020017"


@pytest.fixture
def family(store: sa.Engine) -> sa.Engine:
    """A couple with a child, and a stranger with a marriage of their own."""
    resident, spouse, stranger, child = (one.partition(":")[2] for one in (PERSON, SPOUSE, STRANGER, CHILD))
    for source, material, *holders in (
        ("sh-mca-marriages", "marriage-certificate", ("spouse_a", resident), ("spouse_b", spouse)),
        ("sh-mca-marriages", "marriage-certificate", ("spouse_a", "310101198506150024"), ("spouse_b", stranger)),
        ("sh-nhc-births", "birth-certificate", ("mother", spouse), ("father", resident), ("child", child)),
        *(("sh-ga-households", "household-register", ("holder", one)) for one in (resident, spouse, stranger, child)),
    ):
        stored.source(store, source, material)
        stored.holding(
            store, source, material, *((role, "cn.ric", value) for role, value in holders), number=holders[0][1]
        )
    return store


MOVE = {"married": True, "ground": "spouse", "moved_from": "shanghai"}
BORN = {"child_registered": True}


@pytest.mark.parametrize(("item", "facts", "role", "right", "wrong", "requirement"), [
    ("demo-household-move", MOVE, "spouse", SPOUSE, STRANGER, "marriage"),
    ("demo-residence-permit", {"lives_with_spouse": True}, "spouse", SPOUSE, STRANGER, "home"),
    ("demo-newborn-registration", {"registers_with": "spouse"}, "spouse", SPOUSE, STRANGER, "other-parent-household"),
    ("demo-newborn-insurance", BORN, "child", CHILD, STRANGER, "birth-registered"),
    ("demo-newborn-social-card", BORN, "child", CHILD, STRANGER, "birth-registered"),
    ("demo-newborn-insurance", {"child_registered": False}, "child", CHILD, STRANGER, "birth"),
])  # fmt: skip
def test_a_certificate_names_those_whom_it_relates(
    family: sa.Engine, item: str, facts: dict, role: str, right: str, wrong: str, requirement: str
) -> None:
    for named, dispositions in ((right, {"held"}), (wrong, {"submit"})):
        for as_of in (None, dt.datetime.now(dt.UTC)):
            [answer] = ask(family, item, applicant=PERSON, facts=facts, roles={role: named}, as_of=as_of)
            found = by_code(answer)[requirement]
            assert {found["disposition"]} == dispositions, (named, found["reason"])
            kept = records.explain(family, answer["answer"])
            assert kept["replay"] == "same" and kept["body"] == answer
    nobody = by_code(ask(family, item, applicant=PERSON, facts=facts)[0])[requirement]
    if facts == {"child_registered": False}:
        assert nobody["disposition"] == "held", "who is not registered has no number yet"
    else:
        assert (nobody["disposition"], nobody["reason_code"]) == ("undetermined", "role-missing")
    with pytest.raises(UsageError) as caught:
        ask(family, item, applicant=PERSON, facts=facts, roles={role: PERSON})
    assert caught.value.code == "role-same"


def test_who_may_be_the_same_is_not_refused(family: sa.Engine) -> None:
    """A founder is often the legal representative."""
    roles = {"legal_representative": PERSON}
    assert ask(family, "demo-company-establishment", applicant=PERSON, roles=roles)


WRONG: list[tuple[dict, str]] = [
    ({"items": ("demo-none",)}, "item-unknown"),
    ({"applicant": "cn.uscc:91310117MA1J3AJ43X"}, "identifier-invalid"),
    ({"applicant": "whoever:1"}, "identifier-invalid"),
    ({"applicant": PERSON}, "identifier-unfit"),
    ({"roles": {"legal_representative": "cn.ric:110105194912310021"}}, "identifier-invalid"),
    ({"roles": {"legal_representative": LICENCE}}, "identifier-unfit"),
    ({"roles": {"cousin": PERSON}}, "role-unknown"),
    ({"roles": {"applicant": LICENCE}}, "role-unknown"),
    ({"facts": {"weather": True}}, "fact-unknown"),
    ({"facts": {"legal_representative_in_person": 1}}, "fact-type"),
    ({"facts": {stored.RESIDENT: True}}, "fact-unknown"),
    ({"as_of": stored.NOW + dt.timedelta(days=1)}, "as-of-future"),
    ({"as_of": dt.datetime(2001, 1, 1, tzinfo=dt.UTC)}, "item-not-in-force"),
]


def test_what_is_wrong_with_a_question(store: sa.Engine, subtests: pytest.Subtests) -> None:
    for question, code in WRONG:
        with subtests.test(msg=code):
            full = {"items": ("demo-food-permit",), "applicant": LICENCE, **question}
            with pytest.raises(UsageError) as caught:
                ask(store, *full.pop("items"), **full)
            assert caught.value.code == code
            said = caught.value.message("zh") + caught.value.message("en") + caught.value.advice("en")
            for value in (stored.RESIDENT, stored.LICENCE_CODE[:12], "110105194912310021"):
                assert value not in said
    with store.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM answer")) == 0


def test_an_item_loaded_by_name_only_has_no_answer(store: sa.Engine) -> None:
    stored.source(store, "sc-guangan-items", "service-item", region="511602")
    stored.holding(store, "sc-guangan-items", "service-item", number="511Z07001006-511602000000", name="项目备案")
    with pytest.raises(UsageError) as caught:
        ask(store, "511Z07001006-511602000000")
    assert caught.value.code == "item-without-requirements"


def test_an_unknown_answer(store: sa.Engine) -> None:
    for text in ("nothing", "00000000-0000-4000-8000-000000000000"):
        with pytest.raises(UsageError, match="no stored answer"):
            records.explain(store, text)
