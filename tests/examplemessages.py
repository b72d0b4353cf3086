"""The messages of docs/protocol/10-messages.md, made with keys that everybody knows.

``python -m tests.examplemessages`` writes the examples of the page anew; its words stay. Zhejiang signs with the key of
:mod:`tests.examplepage`, Shanghai with the private key ``40 41 … 5f``; the certificates were made once and stand in the page.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from pathlib import Path
from typing import Any

import orjson

from connectors import envelope, signature
from connectors.envelope import Message
from hub.exchange import cards
from tests import examplepage

PAGE = Path(__file__).parent.parent / "docs" / "protocol" / "10-messages.md"
SHANGHAI = bytes(range(0x40, 0x60))
ZHEJIANG = examplepage.SIGNING_KEY
AT = dt.datetime(2026, 3, 1, 8, 30, tzinfo=dt.UTC)
FROM, UNTIL = "2026-01-01T00:00:00.000000Z", "2026-04-01T00:00:00.000000Z"
AGREEMENT = "01986f00-0000-7000-8000-00000000a001/1"
BLOCK = re.compile(r"<!-- (\w+) -->\n```(json)?\n(.*?)\n```", re.DOTALL)


def key(private: bytes) -> Any:
    return examplepage.key(private)


def known(text: str) -> dict[str, Any]:
    """The examples of a page by name: JSON as values, wires as text."""
    return {name: json.loads(body) if kind else body for name, kind, body in BLOCK.findall(text)}


def card(pem: str, fingerprint: str) -> dict[str, Any]:
    """Zhejiang's card during a change of its key: the new one is announced, the old one signs."""
    new = bytes(range(0x60, 0x80))
    told = {
        "hub": "zj",
        "title": "浙江省数据局",
        "region": "330000",
        "addresses": ["https://hub.zj.example:8490"],
        "keys": [
            {"kid": key(ZHEJIANG).thumbprint(), "public_key": examplepage.public_key(ZHEJIANG), "from": FROM, "to": UNTIL},
            {"kid": key(new).thumbprint(), "public_key": examplepage.public_key(new), "from": "2026-02-28T08:00:00.000000Z",
             "to": None},
        ],
        "certificates": [{"fingerprint": fingerprint, "pem": pem, "from": FROM, "to": None}],
        "at": "2026-03-01T08:00:00.000000Z",
    }  # fmt: skip
    return {**told, "signature": signature.detached(cards._canonical(told), key(ZHEJIANG), cards.TYPE)}


def message(number: int, body: Any, private: bytes, /, **members: Any) -> Message:
    """A message with a body as it is printed in the page."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    zhejiang = private == ZHEJIANG
    told: dict[str, Any] = {
        "id": uuid.UUID(f"019ca880-4a40-7000-8000-{number:012x}"), "kind": "peer.check",
        "sender": "zj" if zhejiang else "sh", "receiver": "sh" if zhejiang else "zj",
        "at": AT + dt.timedelta(milliseconds=40 * number), "type": "application/json", **members,
    }  # fmt: skip
    return envelope.signed(envelope.of(data, **told), data, key(private))


def examples(before: dict[str, Any]) -> dict[str, Any]:
    """What the page shows, made anew; only the certificate is taken from it."""
    [entry] = before["card"]["certificates"]
    own = card(entry["pem"], entry["fingerprint"])
    asked = message(1, {}, SHANGHAI, deadline=AT + dt.timedelta(seconds=10))
    checked = {
        "hub": "zj",
        "card_at": "2026-01-05T02:00:00Z",
        "keys": [key(SHANGHAI).thumbprint()],
        "certificates": ["5c1f" + "0" * 60],
        "agreements": [
            {"agreement": AGREEMENT, "provider": "zj", "receiver": "sh", "state": "in_force",
             "valid_from": "2026-01-10T00:00:00Z", "valid_to": "2026-12-31T16:00:00Z"},
        ],
    }  # fmt: skip
    answered = message(
        2, checked, ZHEJIANG, reply_to=asked.envelope.id, request=asked.digest.hex(), status="ok",
        head={"position": 4711, "chain": "c0" * 32, "at": "2026-03-01T08:29:58.120000Z", "signature": "eyJ…"},
    )  # fmt: skip
    refused_body = {
        "code": "kind-unknown",
        "fault": "caller",
        "detail": "There is no such kind of message here; there are: peer.card, peer.check.",
        "values": {"known": "peer.card, peer.check"},
    }
    unknown = message(3, {}, SHANGHAI, kind="index.pages")
    refused = message(
        4, refused_body, ZHEJIANG, kind="index.pages", reply_to=unknown.envelope.id, request=unknown.digest.hex(),
        status="kind-unknown",
    )  # fmt: skip
    introduced = message(5, own, ZHEJIANG, kind="peer.card")
    return {
        "keys": {
            "zj": {"kid": key(ZHEJIANG).thumbprint(), "public_key": examplepage.public_key(ZHEJIANG)},
            "sh": {"kid": key(SHANGHAI).thumbprint(), "public_key": examplepage.public_key(SHANGHAI)},
        },
        "card": own,
        "question": asked.wire.decode(),
        "question_envelope": shown(asked),
        "reply": answered.wire.decode(),
        "reply_envelope": shown(answered),
        "checked": checked,
        "refusal": refused.wire.decode(),
        "refusal_body": refused_body,
        "introduction_envelope": shown(introduced),
        "taken": {"card_at": own["at"]},
    }


def shown(told: Message) -> dict[str, Any]:
    payload = told.sealed.split(".")[1]
    return dict(orjson.loads(signature.base64.urlsafe_b64decode(payload + "==")))


def written(text: str) -> str:
    """The page with its examples made anew."""
    made = examples(known(text))

    def block(found: re.Match[str]) -> str:
        value = made[found[1]]
        body = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        return f"<!-- {found[1]} -->\n```{found[2] or ''}\n{body}\n```"

    return BLOCK.sub(block, text)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
