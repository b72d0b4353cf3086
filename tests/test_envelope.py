"""Messages between hubs as bytes: sealed, read, verified, and what is none."""

from __future__ import annotations

import base64
import datetime as dt
import json
import time
import uuid
from typing import Any

import pytest

from connectors import envelope, signature
from connectors.envelope import Message
from connectors.errors import FatalError
from tests import examplepage

BODY = b'{"hello": "\xe4\xbd\xa0"}'
NOW = dt.datetime(2026, 3, 1, 8, 30, tzinfo=dt.UTC)
KEY = examplepage.key()
ID = uuid.UUID("019ca880-4a40-7000-8000-000000000007")
PUBLIC = signature.public_key(examplepage.public_key())


def message(body: bytes = BODY, key: Any = KEY, **members: Any) -> Message:
    told = {
        "id": ID, "kind": "peer.check", "sender": "sh", "receiver": "zj", "at": NOW, "type": "application/json",
        **members,
    }  # fmt: skip
    return envelope.signed(envelope.of(body, **told), body, key)


def payload(sealed: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(base64.urlsafe_b64decode(sealed.split(".")[1] + "=="))
    return told


def resealed(told: Any) -> bytes:
    """A message around any payload, signed as it should be."""
    return signature.sign(json.dumps(told).encode(), KEY, envelope.TYPE).encode() + b"\n" + BODY


def test_there_and_back() -> None:
    sent = message(agreement=f"{uuid.UUID(int=1)}/2", purpose="a purpose", deadline=NOW, head={"position": 3})
    came = envelope.read(sent.wire)
    assert came == sent and came.intact
    envelope.verify(came, [PUBLIC], "sh")
    assert envelope.seal(sent.envelope, sent.body, KEY) == sent.wire
    told = payload(sent.sealed)
    assert (told["from"], told["to"], told["protocol"], told["at"]) == ("sh", "zj", "yici/1", "2026-03-01T08:30:00Z")
    assert "reply_to" not in told and "status" not in told
    assert sent.wire.startswith(sent.sealed.encode() + b"\n") and sent.wire.endswith(BODY)


def test_a_body_of_any_bytes() -> None:
    for body in (b"", b"\n", b"\x00\n\xff", b"a" * 100_000):
        came = envelope.read(message(body).wire)
        assert came.body == body and came.intact


def test_members_of_a_later_version_are_left_alone() -> None:
    told = payload(message().sealed) | {"colour": "red", "head": {"position": 1, "more": [1, {"deep": None}]}}
    assert envelope.read(resealed(told)).envelope.sender == "sh"


def test_an_envelope_says_nothing_beside_what_is_known() -> None:
    head = {"position": 3, "chain": "0" * 64, "at": "2026-03-01T08:29:58Z", "signature": "e30.e30.AA"}
    good = message(head=head, purpose="a purpose", deadline=NOW)
    assert envelope.known(good.sealed) == good.envelope
    told = payload(good.sealed)
    for changed in (
        told | {"note": "张三"},
        told | {"head": head | {"name": "张三"}},
        told | {"head": {"name": "张三"}},
        told | {"head": head | {"at": "张三"}},
        told | {"head": head | {"signature": "张三"}},
    ):
        sealed = resealed(changed).partition(b"\n")[0].decode()
        assert envelope.read(f"{sealed}\n".encode()).envelope.sender == "sh" and envelope.known(sealed) is None, changed
    twice = signature.sign(json.dumps(told)[:-1].encode() + b',"to":"zj"}', KEY, envelope.TYPE)
    header, rest = good.sealed.split(".", 1)
    said = json.loads(base64.urlsafe_b64decode(header + "=="))
    noted = base64.urlsafe_b64encode(json.dumps({**said, "note": "a word"}).encode()).rstrip(b"=").decode()
    other = base64.urlsafe_b64encode(json.dumps({**said, "kid": "a word"}).encode()).rstrip(b"=").decode()
    for sealed in (twice, f"{noted}.{rest}", f"{other}.{rest}", good.sealed + "a-word", "", "a.b", good.sealed[:-1]):
        assert envelope.known(sealed) is None, sealed


def test_only_a_given_key_and_only_a_message() -> None:
    other = examplepage.key(bytes(range(1, 33)))
    for sealed, keys in (
        (message(key=other), [PUBLIC]),
        (message(), []),
        (Message(message().envelope, BODY, signature.sign(b"{}", KEY, "at+jwt")), [PUBLIC]),  # signed as something else
        (Message(message().envelope, BODY, message().sealed + "A"), [PUBLIC]),
    ):
        with pytest.raises(FatalError) as refusal:
            envelope.verify(sealed, keys, "sh")
        assert refusal.value.code == "message-signature"


def test_another_body_is_not_intact() -> None:
    good = message()
    for body in (BODY + b" ", BODY[:-1], b"x" * len(BODY), b""):
        assert not Message(good.envelope, body, good.sealed).intact


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("id", "7"), ("id", None), ("id", "0" * 32), ("id", "9f0e5bd4-6b0c-4f0e-8d3c-0f4a5d6c7b8a"),
        ("id", "019ca880-4a40-7000-c000-000000000007"), ("kind", "check"), ("kind", "Peer.check"), ("kind", "peer.check\n"), ("from", "sh/zj"),
        ("from", "sh\n"), ("from", "-sh"), ("to", "a" * 81), ("at", "2026-03-01T08:30:00"), ("at", "yesterday"), ("at", 5),
        ("digest", "0" * 63), ("digest", "A" * 64), ("size", -1), ("size", "5"), ("type", "text\r\nx: y"), ("type", ""),
        ("agreement", "x/1"), ("agreement", f"{uuid.UUID(int=1)}/0"), ("purpose", "a\x00b"), ("case", "x" * 201),
        ("deadline", "soon"), ("status", "Not a code"), ("head", []), ("request", "00"), ("reply_to", ""), ("protocol", None), ("protocol", "张三/1"), ("protocol", "yici/11010519491231002"),
    ],
)  # fmt: skip
def test_a_member_of_another_form(member: str, value: object) -> None:
    told = payload(message().sealed) | {member: value}
    with pytest.raises(FatalError) as refusal:
        envelope.read(resealed(told))
    assert refusal.value.code == "message-malformed"


@pytest.mark.parametrize("member", ["protocol", "id", "kind", "from", "to", "at", "digest", "size", "type"])
def test_a_member_that_is_missing(member: str) -> None:
    told = payload(message().sealed)
    del told[member]
    with pytest.raises(FatalError):
        envelope.read(resealed(told))


def test_what_is_no_message() -> None:
    good = message().wire
    header, middle, _ = message().sealed.encode().split(b".")
    deep = base64.urlsafe_b64encode(b'{"head":' + b"[" * 5000 + b"]" * 5000 + b"}").rstrip(b"=")
    for wire in (
        b"",
        message().sealed.encode(),  # no line feed
        good.replace(b"\n", b"\r\n", 1),
        b" " + good,
        b"\n" + good,
        header + b"." + middle + b"\n",
        header + b"." + middle + b".\n",
        b"a." + deep + b".b\n",
        b"a." + base64.urlsafe_b64encode(b"\xff\xfe") + b".b\n",
        b"a.e30.b\n",
        header + b"\x00." + middle + b".aa\n",
        header + b"." + b"A" * envelope.LONGEST + b".aa\n",
    ):
        with pytest.raises(FatalError) as refusal:
            envelope.read(wire)
        assert refusal.value.code == "message-malformed", wire[:50]
    with pytest.raises(FatalError):
        envelope.read(good, len(good) - 1)
    assert envelope.read(good, len(good)).intact


def test_no_form_takes_long_to_refuse() -> None:
    began = time.perf_counter()
    for member, value in (("type", "a;" * 60 + "\n"), ("kind", "a-" * 40), ("from", "a-" * 40), ("kind", "a." * 40)):
        with pytest.raises(FatalError):
            envelope.read(resealed(payload(message().sealed) | {member: value}))
    assert time.perf_counter() - began < 1


def test_times_at_the_edge_of_the_calendar() -> None:
    for text in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
        came = envelope.read(resealed(payload(message().sealed) | {"at": text, "deadline": text})).envelope
        assert abs(came.at - NOW) > envelope.SKEW
        assert (came.at <= NOW) == text.startswith("0001")
