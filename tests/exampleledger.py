"""Records, checkpoints and the proof of docs/protocol/20-ledger.md, made with the keys of :mod:`tests.examplemessages`.

``python -m tests.exampleledger`` writes the examples of the page anew; its words stay.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from hashlib import sha256
from pathlib import Path
from typing import Any

from connectors import signature
from hub.exchange import checkpoints
from hub.exchange.checkpoints import made
from hub.exchange.entries import FIELDS, FORM, digest_of
from hub.exchange.proofs import FORM as PROOF
from tests import examplemessages
from tests.examplemessages import AT, BLOCK, SHANGHAI, ZHEJIANG, message

PAGE = Path(__file__).parent.parent / "docs" / "protocol" / "20-ledger.md"
START = bytes(checkpoints.CHAIN_BYTES)


def record(number: int, **fields: str | None) -> dict[str, str | None]:
    """A record of Zhejiang's about Shanghai."""
    told = {
        "id": f"019ca880-4b{number}0-7000-8000-0000000000a{number}",
        "recorded_at": f"2026-03-01T08:30:00.{number}20000Z",
        "peer": "sh",
        "direction": "answered",
        "outcome": "ok",
        "detail": "{}",
        **fields,
    }
    return {name: told.get(name) for name in FIELDS}


def malformed() -> dict[str, str | None]:
    return record(1, kind="-", outcome="message-malformed", detail='{"bytes":127}')


def checked() -> dict[str, str | None]:
    """About the question and the reply that 10-messages.md shows."""
    return record(2, **_envelopes("question", "reply"))


def unknown() -> dict[str, str | None]:
    """About the refusal there."""
    asked = message(3, {}, SHANGHAI, kind="index.pages")
    told = {"message": str(asked.envelope.id), "kind": "index.pages", "request": asked.sealed}
    return record(3, outcome="kind-unknown", **{**_envelopes("question", "refusal"), **told})


def _envelopes(asked: str, answered: str) -> dict[str, str | None]:
    page = examplemessages.known(examplemessages.PAGE.read_text(encoding="utf-8"))
    told = page["question_envelope"]
    request, reply = (page[wire].partition("\n")[0] for wire in (asked, answered))
    return {"message": told["id"], "kind": told["kind"], "request": request, "reply": reply}


def text_of(one: dict[str, str | None]) -> str:
    """What is digested."""
    fields = [one[name] for name in FIELDS]
    return "\n".join([FORM, *(":" if field is None else f"{len(field.encode())}:{field}" for field in fields)])


def chains(records: list[dict[str, str | None]]) -> list[bytes]:
    found = [START]
    for one in records:
        found.append(sha256(found[-1] + digest_of(one)).digest())
    return found[1:]


def examples() -> dict[str, Any]:
    records = [malformed(), checked(), unknown()]
    entries = [digest_of(one) for one in records]
    ends = chains(records)
    at = AT + dt.timedelta(seconds=4, microseconds=120)
    signed = made("zj", 3, ends[2], at, examplemessages.key(ZHEJIANG))
    payload = signed.signature.split(".")[1]
    return {
        "record": records[0],
        "digested": text_of(records[0]),
        "digest": entries[0].hex(),
        "places": [
            {"position": place, "record": one["id"], "entry": entry.hex(), "chain": chain.hex()}
            for place, (one, entry, chain) in enumerate(zip(records, entries, ends, strict=True), 1)
        ],
        "checkpoint": json.loads(signature.base64.urlsafe_b64decode(payload + "==")),
        "head": signed.told(),
        "witness_asked": {"after": 0},
        "witness_told": {"checkpoints": [signed.told()], "more": False},
        "proof": {
            "protocol": PROOF,
            "hub": "zj",
            "record": records[1],
            "chain": {"position": 2, "before": ends[0].hex(), "entries": [entries[2].hex()]},
            "checkpoint": signed.told(),
        },
    }


def written(text: str) -> str:
    """The page with its examples made anew."""
    made_now = examples()

    def block(found: re.Match[str]) -> str:
        value = made_now[found[1]]
        body = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        return f"<!-- {found[1]} -->\n```{found[2] or ''}\n{body}\n```"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    assert uuid.UUID(malformed()["id"] or "").version == 7
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
