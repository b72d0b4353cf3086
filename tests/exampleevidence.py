"""The messages of docs/protocol/27-evidence.md, made with the keys of :mod:`tests.examplemessages`.

``python -m tests.exampleevidence`` writes the examples of the page anew; its words stay.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hub import index_keys
from tests import exampleagreements, examplemessages, examplepage, licences
from tests.examplemessages import AGREEMENT, BLOCK, SHANGHAI, ZHEJIANG

PAGE = Path(__file__).parent.parent / "docs" / "protocol" / "27-evidence.md"
FIRM = licences.credit_code(1, region="330106", subject="MA2B")  # invented
KIND = "evidence.request"


def examples() -> dict[str, Any]:
    epoch = exampleagreements.examples()["key"]["epoch"]
    key = index_keys.epoch_key(examplepage.AGREED_KEY, epoch)
    question = {
        "material": "business-licence",
        "holders": [{"scheme": "cn.uscc", "value": FIRM}],
        "item": "demo-food-permit",
        "handle": index_keys.handle(key, f"{1:032x}").hex(),
        "epoch": epoch,
        "fields": ["certificate_number", "valid_to", "status", "holder.holder"],
    }
    asked = examplemessages.message(
        8, question, SHANGHAI, kind=KIND, agreement=AGREEMENT, purpose="handle-application", case="31-2026-0001",
        deadline=examplemessages.AT + examplemessages.dt.timedelta(seconds=20),
    )  # fmt: skip
    given = {
        "holding": question["handle"],
        "material": "business-licence",
        "certificate": {
            "certificate_number": "330106000000001",
            "valid_to": "2999-01-01",
            "status": "in_force",
            "holders": [{"role": "holder", "scheme": "cn.uscc", "value": FIRM, "name": "示例食品（杭州）有限公司"}],
        },
        "fields": question["fields"],
        "version": "7d1c0b5a" * 4,
        "source": {
            "source": "zj-amr-enterprises",
            "file": "2026-02.csv",
            "row": 40217,
            "updated_at": "2026-02-20T02:11:09+00:00",
            "as_of": "2026-02-28T18:00:04+00:00",
            "late": False,
            "conflicting": False,
        },
        "given": {
            "hub": "zj",
            "client": "sh",
            "purpose": "handle-application",
            "case": "31-2026-0001",
            "item": "demo-food-permit",
            "answer": str(asked.envelope.id),
            "at": "2026-03-01T08:30:00.350000+00:00",
        },
    }
    reply = examplemessages.message(
        9, given, ZHEJIANG, kind=KIND, agreement=AGREEMENT, reply_to=asked.envelope.id, request=asked.digest.hex(),
        status="ok",
    )  # fmt: skip
    unannounced = {
        "material": "marriage-certificate",
        "holders": [{"scheme": "cn.ric", "value": examplepage.RESIDENT}],
        "item": "demo-household-move",
        "role": "spouse_a",
        "consent": {"reference": "31-2026-0007/2", "at": "2026-03-01T08:12:00Z", "method": "signed-form"},
    }
    refused = {
        "code": "certificate-not-in-force",
        "fault": "caller",
        "detail": "The hub holds such a certificate of this holder, but none that is in force today. Look up again once the index"
        " was read; the applicant may need a new one.",
        "values": {},
    }
    return {
        "question": asked.wire.decode(),
        "question_envelope": examplemessages.shown(asked),
        "question_body": question,
        "unannounced_body": unannounced,
        "reply_envelope": examplemessages.shown(reply),
        "reply_body": given,
        "refused_body": refused,
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
