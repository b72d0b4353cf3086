"""Every code that is raised has its sentence in both languages, and the sentence can be filled."""

from __future__ import annotations

import re
import string

import pytest

from connectors import messages
from connectors.errors import FatalError
from tests.conftest import ROOT

RAISED = re.compile(r"(?:FatalError|RetriableError|UsageError|BatchHalted)\(\s*\"([a-z0-9-]+)\"", re.S)
CODES = sorted(
    {
        code
        for package in messages.PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for code in RAISED.findall(path.read_text(encoding="utf-8"))
    }
)


def test_codes_were_found() -> None:
    assert len(CODES) > 20


@pytest.mark.parametrize("code", CODES)
def test_a_raised_code_has_sentences(code: str) -> None:
    texts = messages.sentences()[code]
    assert texts["zh"] and texts["en"] and texts["zh"] != texts["en"]
    assert set(texts.get("advice", {"zh": 0, "en": 0})) == {"zh", "en"}


@pytest.mark.parametrize("code", sorted(messages.sentences()))
def test_both_languages_use_the_same_values(code: str) -> None:
    texts = messages.sentences()[code]
    values = [{name for _, name, _, _ in string.Formatter().parse(texts[lang]) if name} for lang in ("zh", "en")]
    assert values[0] == values[1]


def test_the_language_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    error = FatalError("batch-overtaken", batch="b1", source="s1")
    monkeypatch.setenv("YICI_LANG", "zh")
    assert "台账" in str(error)
    monkeypatch.setenv("YICI_LANG", "en")
    assert "ledger" in str(error) and "Run s1 again" in str(error)
