"""The messages of docs/protocol/25-index.md, made with the keys of :mod:`tests.examplemessages`.

``python -m tests.exampleindex`` writes the examples of the page anew; its words stay.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from connectors.indexframe import KIND, MEDIA_TYPE
from hub import index_keys
from tests import examplepage
from tests.examplemessages import AGREEMENT, BLOCK, SHANGHAI, ZHEJIANG, message, shown
from tests.examplepage import EPOCH, GONE, entry

PAGE = Path(__file__).parent.parent / "docs" / "protocol" / "25-index.md"
HOLDING, VERSION = f"{41:032x}", "9f" * 16


def examples() -> dict[str, Any]:
    key = index_keys.epoch_key(examplepage.AGREED_KEY, EPOCH)
    subject = index_keys.subject_id(key, "cn.ric", examplepage.RESIDENT).hex()
    held = entry(41, digest="0f" * 16, recorded_at="2026-03-01T08:12:09.250000Z")
    gone = entry(42, **GONE, recorded_at="2026-03-01T08:20:00.000000Z")
    page = examplepage.body([held, gone], after=40, to=42, head=42)
    question = {"after": 40, "limit": 10000, "epoch": EPOCH}
    asked = message(8, question, SHANGHAI, kind=KIND, agreement=AGREEMENT)
    answered = message(
        9, page, ZHEJIANG, kind=KIND, agreement=AGREEMENT, type=MEDIA_TYPE, reply_to=asked.envelope.id,
        request=asked.digest.hex(), status="ok",
    )  # fmt: skip
    refused = {
        "code": "index-epoch-over",
        "fault": "caller",
        "detail": f"The index is in epoch {EPOCH} by now. All ids are new ones: read the feed from position 0.",
        "values": {"epoch": EPOCH},
    }
    return {
        "ids": {
            "epoch": EPOCH,
            "epoch_key": key.hex(),
            "identifier": f"cn.ric:{examplepage.RESIDENT}",
            "id": subject,
            "holding": HOLDING,
            "handle": index_keys.handle(key, HOLDING).hex(),
            "version": VERSION,
            "digest": index_keys.KeyedHash(key).of(f"version:{VERSION}").hex(),
        },
        "question": asked.wire.decode(),
        "page": answered.wire.decode().removesuffix("\n"),
        "reply_envelope": shown(answered),
        "over": refused,
    }


def written(text: str) -> str:
    """The page with its examples made anew."""
    made = examples()

    def block(found: re.Match[str]) -> str:
        value = made[found[1]]
        body = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        return f"<!-- {found[1]} -->\n```{found[2] or ''}\n{body}\n```"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
