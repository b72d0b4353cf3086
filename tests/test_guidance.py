"""mappings/guidance.py and guide_words.py: what a guide may say, and that what is not published is not said."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mappings import guide_words
from mappings.guidance import Guidance

TEXT = {"zh": "文", "en": "text"}
STEP = {"name": TEXT, "who": "applicant", "at": ["online"]}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"limits": {}}, "at least one"),
        ({"limits": {"statutory": 5, "promised": 6}}, "longer than"),
        ({"limits": {"promised": -1}}, "greater than or equal"),
        ({"visits": 2}, "exception to `one-visit`"),
        ({"visits": 2, "exceptions": [{"to": "deferral", "reason": TEXT}]}, "exception to `one-visit`"),
        ({"fee": {"amount": "0.01"}}, "needs its `basis`"),
        ({"fee": {"amount": "-1"}}, "greater than or equal"),
        ({"steps": [{**STEP, "parallel": True}]}, "none before it"),
        ({"steps": [{**STEP, "at": []}]}, "at least 1 item"),
        ({"channels": ["post"]}, "Input should be"),
    ],
)
def test_what_is_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Guidance.model_validate(given)


def test_what_is_not_published_is_not_said() -> None:
    for lang in ("zh", "en"):
        assert {text for _, text in guide_words.facts(Guidance(), lang)} == {None}


def test_what_is_published_is_said_in_both_languages() -> None:
    guide = Guidance.model_validate(
        {
            "body": {"zh": "登记局", "en": "Registry"},
            "limits": {"statutory": 20, "promised": 0},
            "visits": 2,
            "fee": {"amount": "80.5", "basis": {"zh": "《办法》", "en": "Measures"}},
            "channels": ["window", "online"],
            "contact": {"address": {"zh": "一号", "en": "No. 1"}, "phone": "12345"},
            "exceptions": [{"to": "one-visit", "reason": {"zh": "现场核验", "en": "checked in person"}}],
            "steps": [STEP, {**STEP, "who": "authority", "days": 3, "body": {"zh": "税务局", "en": "Tax office"}, "parallel": True}],
        }
    )  # fmt: skip
    zh, en = (dict(guide_words.facts(guide, lang)) for lang in ("zh", "en"))
    assert zh == {
        "实施主体": "登记局", "法定办结时限": "20 个工作日", "承诺办结时限": "即办", "到办事现场次数": "2 次",
        "办理形式": "窗口、网上", "收费": "80.5 元；《办法》", "办理地点": "一号", "咨询电话": "12345", "办理时间": None,
    }  # fmt: skip
    assert en["Visits by the applicant"] == "2 times"
    assert en["Fee"] == "80.5 yuan; Measures"
    assert guide_words.step(guide.steps[1], "zh") == "文（税务局，网上，3 个工作日，与上一环节并联）"
    assert guide_words.step(guide.steps[0], "en") == "text (the applicant, online)"
    assert guide_words.exception(guide.exceptions[0], "zh") == "“最多跑一次”例外：现场核验"


@pytest.mark.parametrize(("visits", "zh"), [(0, "0 次（零跑动）"), (1, "最多 1 次（最多跑一次）")])
def test_at_most_one_visit_is_named_so(visits: int, zh: str) -> None:
    assert zh in [text for _, text in guide_words.facts(Guidance(visits=visits, fee={"amount": 0}), "zh")]  # type: ignore[arg-type]
    assert "不收费" in [text for _, text in guide_words.facts(Guidance(fee={"amount": 0}), "zh")]  # type: ignore[arg-type]
