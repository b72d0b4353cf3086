"""No problem code without its line in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from hub import problem_page, problems

PAGE = Path(__file__).parents[1] / "docs" / problem_page.PATH


def test_every_code_is_documented() -> None:
    said = dict(re.findall(r"^\| `([a-z-]+)` \| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert said == {code: str(kind.status) for code, kind in problems.KINDS.items()}, "run `yici docs`"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == problem_page.page(), "run `yici docs`"
