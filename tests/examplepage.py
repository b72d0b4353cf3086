"""The keys of the examples in docs/protocol, known to everybody, and pages of an index signed with them.

``python -m tests.examplepage`` writes the sample of ``connectors/sources/zj-hub-index`` anew.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import OKPKey

from connectors import channel, envelope
from connectors import source as sources
from connectors.channel import Stated
from connectors.envelope import Message
from connectors.indexframe import ENTRY, KIND, MEDIA_TYPE, RESTATED
from connectors.signature import base64url
from hub import index_keys

SIGNING_KEY = bytes(range(32))
AGREED_KEY = bytes(range(32, 64))
EPOCH = "20260301T000000Z-a1e8a263"
AGREEMENT = "01986f00-0000-7000-8000-00000000a001/1"
AT = dt.datetime(2026, 3, 1, 8, 30, tzinfo=dt.UTC)
RESIDENT = "11010519491231002X"  # the example of GB 11643, nobody's
LICENCE_CODE = "91310117MA1J3AJ43G"  # of a company in a public register


def key(private: bytes = SIGNING_KEY) -> OKPKey:
    """The Ed25519 key of 32 raw bytes."""
    public = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    return OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": base64url(public), "d": base64url(private)})


def public_key(private: bytes = SIGNING_KEY) -> str:
    return str(key(private).as_dict(private=False)["x"])


def told(**changes: Any) -> dict[str, Any]:
    """Zhejiang, as it is written beside the pages it gave to Shanghai."""
    known = {"public_key": public_key(), "from": "2026-01-01T00:00:00Z", "to": None}
    return {"hub": "zj", "own": "sh", "keys": [known], **changes}


def partner(**changes: Any) -> Stated:
    return channel.stated(told(**changes), "test")


def subject(role: str, scheme: str, value: str) -> str:
    """An announced subject: ``role:id``."""
    return f"{role}:{index_keys.subject_id(index_keys.epoch_key(AGREED_KEY, EPOCH), scheme, value).hex()}"


def entry(number: int, /, **changes: Any) -> dict[str, Any]:
    """An announcement of a certificate that the applicant of the examples holds."""
    epoch_key = index_keys.epoch_key(AGREED_KEY, EPOCH)
    whole = {
        "handle": index_keys.handle(epoch_key, f"{number:032x}").hex(),
        "material": "household-register",
        "region": "330106",
        "status": "in_force",
        "valid_from": "2015-09-01",
        "valid_to": None,
        "digest": f"{number:x}" * 32,
        "recorded_at": f"2026-03-01T08:00:{number:02d}.000000Z",
        "position": number,
        "subjects": subject("holder", "cn.ric", RESIDENT),
    }
    return {**whole, **changes}


GONE = {"region": None, "status": "withdrawn", "valid_from": None, "valid_to": None, "digest": None, "subjects": None}


def frame(count: int, **changes: Any) -> dict[str, Any]:
    whole = {
        "epoch": EPOCH,
        "materials": ["business-licence", "household-register"],
        "regions": ["33"],
        "after": 0,
        "to": count,
        "head": count,
        "more": False,
    }
    return {**whole, **changes}


def line(found: dict[str, Any] | str) -> str:
    """An entry as a line of a page; text stands for itself."""
    if isinstance(found, str):
        return found
    return ",".join("" if value is None else str(value) for value in found.values())


def body(entries: list[Any], header: str = ",".join(ENTRY), **changes: Any) -> bytes:
    lines = [json.dumps(frame(len(entries), **changes), separators=(",", ":")), header, *map(line, entries)]
    return "".join(f"{one}\n" for one in lines).encode()


def message(data: bytes, private: bytes = SIGNING_KEY, /, **members: Any) -> Message:
    """Zhejiang's reply to Shanghai with a page in it."""
    said: dict[str, Any] = {
        "id": uuid.UUID("019ca880-4a40-7000-8000-000000000009"), "kind": KIND, "sender": "zj", "receiver": "sh", "at": AT,
        "type": MEDIA_TYPE, "agreement": AGREEMENT, "reply_to": uuid.UUID("019ca880-4a40-7000-8000-000000000008"),
        "request": "5a" * 32, "status": "ok", **members,
    }  # fmt: skip
    return envelope.signed(envelope.of(data, **said), data, key(private))


def page(entries: list[Any], private: bytes = SIGNING_KEY, **changes: Any) -> Message:
    """A signed page; ``changes``: of its frame."""
    return message(body(entries, **changes), private, **({"kind": RESTATED} if changes.get("restated") else {}))


def _sample() -> list[Any]:
    company = subject("holder", "cn.uscc", LICENCE_CODE)
    spouses = f"{subject('spouse_a', 'cn.ric', RESIDENT)} {subject('spouse_b', 'passport', 'E00000000')}"
    return [
        entry(1),
        entry(2, material="business-licence", subjects=company, valid_from="2019-04-02"),
        entry(3, status="suspended", valid_to="2027-12-31"),
        entry(4, **GONE),
        entry(5, subjects=spouses),
        entry(6, region="330103"),  # a district dissolved in 2021
        entry(7, material="fishing-licence"),
        entry(8, material="Fishing Licence"),
        entry(9, handle="a certificate"),
        entry(10, region="310106", digest="a" * 32),
        entry(11, position=None, digest="b" * 32),
        entry(12, recorded_at=None, digest="c" * 32),
        "no entry",
        line(entry(14)) + ",further",
        entry(15, valid_from="2020-01-01", valid_to="2019-01-01", digest="f" * 32),
    ]


if __name__ == "__main__":
    folder = sources.load("zj-hub-index").sample_path
    (folder / "input.msg").write_bytes(page(_sample()).wire)
    (folder / "partner.json").write_text(json.dumps(told(), indent=2) + "\n", encoding="ascii")
