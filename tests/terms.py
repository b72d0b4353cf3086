"""Terms of agreements for tests: Zhejiang gives, Shanghai receives."""

from __future__ import annotations

import uuid
from typing import Any

from hub.exchange.agreement_terms import Draft, Terms

PARTIES = {"zj": "330000", "sh": "310000"}


def said(**changes: Any) -> dict[str, Any]:
    """What a file says, in Python."""
    return {
        "provider": "zj",
        "receiver": "sh",
        "basis": {"zh": "《政务数据共享条例》第二十条", "en": "Regulations on Government Data Sharing, Art. 20"},
        "scenario": {"zh": "跨省通办", "en": "Services across provinces"},
        "materials": {"business-licence": ["certificate_number", "name", "status"], "household-register": ["status"]},
        "regions": ["33"],
        "modes": ["index", "evidence"],
        "purposes": ["handle-application"],
        "valid_from": "2026-01-01T00:00:00Z",
        "valid_to": "2999-01-01T00:00:00Z",
        "consent": "none",
        "epoch_days": 30,
        "correction": True,
        **changes,
    }


def draft(**changes: Any) -> Draft:
    return Draft.model_validate(said(**changes))


def terms(named: uuid.UUID, version: int = 1, **changes: Any) -> Terms:
    return draft(**changes).numbered(named, version)
