"""The bodies of docs/protocol/60-corrections.md. ``python -m tests.examplecorrections`` writes them into the page anew."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

from hub import clock, working_days
from tests import examplepage
from tests.examplemessages import AT, BLOCK

PAGE = Path(__file__).parent.parent / "docs" / "protocol" / "60-corrections.md"
NAMED = "019ca880-4a40-7000-8000-0000000000c0"


def examples() -> dict[str, Any]:
    entry = examplepage.entry(41, digest="0f" * 16)
    certificate = {"epoch": examplepage.EPOCH, "handle": entry["handle"], "version": entry["digest"]}
    return {
        "file": {
            "correction": NAMED,
            **certificate,
            "material": entry["material"],
            "field": "valid_to",
            "said": {
                "expected": "2031-01-31",
                "why": "有效期满后已换发 renewed since; the paper was shown at the window",
                "evidence": "310117-2026-0007",
            },
        },
        "filed": {"correction": NAMED, "due_on": working_days.after(clock.today(AT), 10).isoformat()},
        "answer": {
            "correction": NAMED,
            "outcome": "corrected",
            "at": (AT + dt.timedelta(days=3)).isoformat().replace("+00:00", "Z"),
            "reason": "已按户籍档案更正 put right from the register's file",
            **certificate,
        },
        "answered": {"correction": NAMED},
    }


def written(page: str) -> str:
    made = examples()
    return BLOCK.sub(
        lambda found: f"<!-- {found[1]} -->\n```json\n{json.dumps(made[found[1]], indent=2, ensure_ascii=False)}\n```",
        page,
    )


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
