"""The keys of the examples in docs/protocol.md, known to everybody, and pages signed with them.

``python -m tests.examplepage`` writes the sample of ``connectors/sources/zj-hub-index`` anew and prints the page that
stands in docs/protocol.md.
"""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import OKPKey

from connectors import signature
from connectors import source as sources
from connectors.signature import base64url
from hub import index_keys

SIGNING_KEY = bytes(range(32))
AGREED_KEY = bytes(range(32, 64))
EPOCH = "20260301T000000Z-5d1c0f2a"
RESIDENT = "11010519491231002X"  # the example of GB 11643, nobody's
LICENCE_CODE = "91310117MA1J3AJ43G"  # of a company in a public register


def key(private: bytes = SIGNING_KEY) -> OKPKey:
    """The Ed25519 key of 32 raw bytes."""
    public = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    return OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": base64url(public), "d": base64url(private)})


def public_key(private: bytes = SIGNING_KEY) -> str:
    return str(key(private).as_dict(private=False)["x"])


def connection(url: str = "https://hub.example", **extra: Any) -> dict[str, Any]:
    """The consumer's connection to the example hub."""
    agreed = {"public_key": public_key(), "index_key": base64url(AGREED_KEY), "hub": "zj"}
    return {"url": url, "username": "sh", "extra": {**agreed, **extra}}


def subject(role: str, scheme: str, value: str) -> dict[str, str]:
    return {"role": role, "id": index_keys.subject_id(index_keys.epoch_key(AGREED_KEY, EPOCH), scheme, value).hex()}


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
        "subjects": [subject("holder", "cn.ric", RESIDENT)],
    }
    return {**whole, **changes}


def frame(entries: list[Any], **changes: Any) -> dict[str, Any]:
    whole = {
        "protocol": "yici-index/0",
        "hub": "zj",
        "region": "330000",
        "peer": "sh",
        "epoch": EPOCH,
        "materials": ["business-licence", "household-register"],
        "regions": ["33"],
        "after": 0,
        "to": len(entries),
        "head": len(entries),
        "more": False,
        "issued_at": "2026-03-01T08:30:00Z",
        "entries": entries,
    }
    return {**whole, **changes}


def page(entries: list[Any], private: bytes = SIGNING_KEY, **changes: Any) -> bytes:
    """A signed page."""
    return signature.sign(json.dumps(frame(entries, **changes)).encode(), key(private)).encode()


def document_page() -> bytes:
    """The page that stands in docs/protocol.md."""
    gone = {"region": None, "status": "withdrawn", "valid_from": None, "valid_to": None, "digest": None, "subjects": []}
    held = entry(41, digest="0f" * 16, recorded_at="2026-03-01T08:12:09.250000Z")
    return page([held, entry(42, **gone, recorded_at="2026-03-01T08:20:00.000000Z")], after=40, to=42, head=42)


def _sample() -> list[Any]:
    company = [subject("holder", "cn.uscc", LICENCE_CODE)]
    gone = {"region": None, "status": "withdrawn", "valid_from": None, "valid_to": None, "digest": None, "subjects": []}
    return [
        entry(1),
        entry(2, material="business-licence", subjects=company, valid_from="2019-04-02"),
        entry(3, status="suspended", valid_to="2027-12-31"),
        entry(4, **gone),
        entry(5, subjects=[subject("spouse_a", "cn.ric", RESIDENT), subject("spouse_b", "passport", "E00000000")]),
        entry(6, region="330103"),  # a district dissolved in 2021
        entry(7, material="fishing-licence"),
        entry(8, material="Fishing Licence"),
        entry(9, handle="a certificate"),
        entry(10, region="310106", digest="a" * 32),
        entry(11, position=None, digest="b" * 32),
        entry(12, recorded_at=None, digest="c" * 32),
        "no entry",
        {"handle": "\x00"},
        entry(15, valid_from="2020-01-01", valid_to="2019-01-01", digest="f" * 32),
    ]


if __name__ == "__main__":
    folder = sources.load("zj-hub-index").sample_path
    (folder / "input.jws").write_bytes(page(_sample()) + b"\n")
    told = connection()
    del told["extra"]["index_key"]  # nothing of it is needed to read a page
    (folder / "connection.json").write_text(json.dumps(told, indent=2) + "\n", encoding="ascii")
    print(document_page().decode())
