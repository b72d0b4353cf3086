"""The records and messages of docs/protocol/50-reconciliation.md, made with the keys of :mod:`tests.examplemessages`.

``python -m tests.examplereconciliation`` writes the examples of the page anew; its words stay.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hub.exchange.reconciliation_messages import DIGESTS
from tests import examplepage
from tests.examplemessages import AGREEMENT, BLOCK, SHANGHAI, message, shown

PAGE = Path(__file__).parent.parent / "docs" / "protocol" / "50-reconciliation.md"
Entry = dict[str, Any]


def text(entry: Entry) -> str:
    """What a record's digest is made of, by the words of the page."""
    named = sorted(set(entry["subjects"].split()))
    fields = ("handle", "material", "region", "status", "valid_from", "valid_to", "digest")
    return "|".join([*(entry[name] or "" for name in fields), " ".join(named)])


def digest(entry: Entry) -> str:
    return hashlib.sha256(text(entry).encode()).digest()[:16].hex()


def added(digests: Iterable[str]) -> str:
    """The digest of a part."""
    halves = [(int(one[:16], 16), int(one[16:], 16)) for one in digests]
    return "".join(f"{sum(half) % 2**64:016x}" for half in zip(*halves, strict=True))


def entries() -> list[Entry]:
    """What Zhejiang announces; the last one after Shanghai had read."""
    two = [
        examplepage.subject("spouse_b", "passport", "E00000000"),
        examplepage.subject("spouse_a", "cn.ric", examplepage.RESIDENT),
    ]
    first = examplepage.entry(41, digest="0f" * 16, recorded_at="2026-03-01T08:12:09.250000Z")
    second = examplepage.entry(
        42, digest="1e" * 16, recorded_at="2026-03-01T08:20:00.000000Z", subjects=" ".join(two), valid_to="2035-08-31"
    )
    return [first, second, examplepage.entry(44, digest="2d" * 16)]


def restated() -> list[Entry]:
    first, *_ = entries()
    at = {"recorded_at": "2026-03-01T08:45:00.000001Z", "position": 44}
    return [{**first, **at}, {**examplepage.entry(43, **examplepage.GONE), **at}]


def examples() -> dict[str, Any]:
    first, second, moved = entries()
    epoch = {"epoch": examplepage.EPOCH}
    asked = {**epoch, "until": 43, "within": [""]}
    parts = sorted([one["handle"][:2], 1, digest(one)] for one in (first, second))
    listing = {**epoch, "until": 43, "listed": [first["handle"][:2]]}
    told = restated()
    page = examplepage.page(told, to=44, head=44, restated=True)
    return {
        "record": {"text": text(second), "digest": digest(second)},
        "sum": {"records": [digest(first), digest(second)], "part": added([digest(first), digest(second)])},
        "question": message(1, asked, SHANGHAI, kind=DIGESTS, agreement=AGREEMENT).wire.decode(),
        "question_body": asked,
        "digests": {**epoch, "until": 43, "parts": parts, "head": 44, "moved": [moved["handle"]]},
        "listing": listing,
        "records": {**epoch, "until": 43, "parts": [[first["handle"], 1, digest(first)]], "head": 44, "moved": [moved["handle"]]},
        "provided": {**epoch, "until": 43, "within": [""], "moved": [moved["handle"]]},
        "restate": {**epoch, "records": [[first["handle"], None], [told[1]["handle"], "household-register"]]},
        "restated_envelope": shown(page),
        "restated": page.body.decode().removesuffix("\n"),
    }  # fmt: skip


def written(page: str) -> str:
    made = examples()

    def block(found: re.Match[str]) -> str:
        value = made[found[1]]
        body = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        return f"<!-- {found[1]} -->\n```{found[2] or ''}\n{body}\n```"

    return BLOCK.sub(block, page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
