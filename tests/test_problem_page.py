"""No problem code without its line in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from connectors.errors import RetriableError
from hub import problem_page, problems

PAGE = Path(__file__).parents[1] / "docs" / problem_page.PATH


def test_every_code_is_documented() -> None:
    said = dict(re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert said == {code: str(kind.status) for code, kind in problems.KINDS.items()}, "run `yici docs`"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == problem_page.page(), "run `yici docs`"


def test_a_landing_zone_that_is_full_or_away_is_a_store_that_is() -> None:
    for code in ("landing-full", "landing-unreachable"):
        told = problems.of(RetriableError(code, landing="s3://secret-bucket", reason="x"), "en")
        assert (told["status"], told["code"], told["fault"]) == (503, "store-unavailable", "hub")
        assert "secret-bucket" not in str(told)
