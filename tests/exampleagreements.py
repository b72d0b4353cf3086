"""The documents and bodies of docs/protocol/30-agreements.md, made with the keys of :mod:`tests.examplemessages`.

``python -m tests.exampleagreements`` writes the examples of the page anew; its words stay.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from pathlib import Path
from typing import Any

from connectors import signature
from hub import index_keys
from hub.exchange import agreement_terms, epochs
from hub.exchange.agreement_terms import Terms
from tests import examplemessages, examplepage
from tests.examplemessages import AGREEMENT, BLOCK, SHANGHAI, ZHEJIANG

PAGE = Path(__file__).parent.parent / "docs" / "protocol" / "30-agreements.md"
NAMED = uuid.UUID(AGREEMENT.partition("/")[0])
START = dt.datetime(2026, 1, 10, tzinfo=dt.UTC)


def terms() -> Terms:
    """What Zhejiang and Shanghai agreed."""
    said = {
        "provider": "zj",
        "receiver": "sh",
        "basis": {
            "zh": "《政务数据共享条例》第十五条、第二十条",
            "en": "Regulations on Government Data Sharing, Arts. 15 and 20",
        },
        "scenario": {
            "zh": "办理跨省通办事项时核验申请人已有证照",
            "en": "Checking certificates that applicants hold already, in cross-province services",
        },
        "materials": {
            "business-licence": ["certificate_number", "name", "status", "valid_to", "holder.holder"],
            "household-register": ["certificate_number", "status", "holder.holder"],
        },
        "regions": ["33"],
        "modes": ["index", "evidence"],
        "purposes": ["handle-application"],
        "valid_from": "2026-01-10T00:00:00Z",
        "valid_to": "2026-12-31T16:00:00Z",
        "consent": "none",
        "epoch_days": 30,
        "correction": True,
    }
    return agreement_terms.Draft.model_validate(said).numbered(NAMED, 1)


def examples() -> dict[str, Any]:
    document = agreement_terms.canonical(terms())
    digest = agreement_terms.digest(document)
    given, taken = (
        signature.detached(document, examplemessages.key(key), agreement_terms.TYPE) for key in (ZHEJIANG, SHANGHAI)
    )
    at = "2026-03-01T08:30:00.120000Z"
    accept = {"agreement": AGREEMENT, "digest": digest, "signature": taken, "at": "2026-01-08T02:00:00.000000Z"}
    scope = epochs.Scope(("business-licence", "household-register"), ("33",))
    name = f"20260301T000000Z-{scope.digest()}"
    told = epochs.Epoch(name, index_keys.epoch_key(examplepage.AGREED_KEY, name), scope).told()
    envelopes = {
        "accept_envelope": examplemessages.message(6, accept, SHANGHAI, kind="agreement.accept", agreement=AGREEMENT),
        "key_envelope": examplemessages.message(7, {}, SHANGHAI, kind="index.key", agreement=AGREEMENT),
    }
    refused = {
        "code": "agreement-terms",
        "fault": "caller",
        "detail": "The terms cannot be agreed: 31 is not within 33, the provider's own; food-safety-rules is not shared …",
        "values": {"reasons": "31 is not within 33, the provider's own; food-safety-rules is not shared …"},
    }
    return {
        "document": json.loads(document),
        "canonical": document.decode(),
        "signatures": {"digest": digest, "zj": given, "sh": taken},
        "propose": {"document": document.decode(), "signature": given, "at": "2026-01-07T06:30:00.000000Z"},
        "proposed": {"agreement": AGREEMENT, "state": "proposed"},
        "refused": refused,
        "accept": accept,
        "accepted": {"agreement": AGREEMENT, "state": "in_force"},
        "decline": {"agreement": AGREEMENT, "digest": digest, "reason": "scope wider than the scenario needs"},
        "declined": {"agreement": AGREEMENT, "state": "declined"},
        "suspend": {"agreement": AGREEMENT, "at": at, "reason": "queries outside the scenario"},
        "suspended": {"agreement": AGREEMENT, "state": "suspended"},
        "resume": {"agreement": AGREEMENT, "at": at.replace("08:30", "09:10")},
        "end": {
            "agreement": AGREEMENT,
            "at": at.replace("08:30", "09:20"),
            "reason": "replaced by the national interface",
        },
        "ended": {"agreement": AGREEMENT, "state": "in_force"},
        "key": json.loads(told),
        **{name: examplemessages.shown(message) for name, message in envelopes.items()},
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
