"""docs/protocol/10-messages.md: its examples are what the code makes and verify, its tables name what the code does."""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
from typing import Any
from unittest import mock

import pytest

from connectors import envelope, signature
from connectors.envelope import Envelope
from hub import problems
from hub.exchange import caller, cards, certificates, keys, kinds, peers, serve, service
from hub.exchange.peer_messages import Checked
from tests import examplemessages, examplepage
from tests.conftest import ROOT

TEXT = examplemessages.PAGE.read_text(encoding="utf-8")
SHOWN = examplemessages.known(TEXT)
KEYS = {hub: signature.public_key(told["public_key"]) for hub, told in SHOWN["keys"].items()}


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def payload(sealed: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(base64.urlsafe_b64decode(sealed.split(".")[1] + "=="))
    return told


def test_the_examples_are_those_that_are_made() -> None:
    assert len(SHOWN) == 11 and examplemessages.written(TEXT) == TEXT, "python -m tests.examplemessages"


def test_the_keys_are_those_they_are_said_to_be() -> None:
    assert bytes(range(0x20)) == examplepage.SIGNING_KEY and bytes(range(0x40, 0x60)) == examplemessages.SHANGHAI
    for told in SHOWN["keys"].values():
        assert signature.public_key(told["public_key"]).thumbprint() == told["kid"]


def test_the_card_is_one() -> None:
    text = json.dumps(SHOWN["card"]).encode()
    card = cards.read(text)
    assert cards.signer(card) == KEYS["zj"].thumbprint()
    cards.verify(text, card, card.keys)
    assert certificates.fingerprint(card.certificates[0].pem) == card.certificates[0].fingerprint
    told = {name: value for name, value in SHOWN["card"].items() if name != "signature"}
    plain = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    signature.verify_detached(plain, card.signature, [KEYS["zj"]], "yici-card+jws", "zj")


@pytest.mark.parametrize(("wire", "sender"), [("question", "sh"), ("reply", "zj"), ("refusal", "zj")])
def test_the_messages_verify(wire: str, sender: str) -> None:
    message = envelope.read(SHOWN[wire].encode())
    envelope.verify(message, [KEYS[sender]], sender)
    assert message.intact and message.envelope.sender == sender
    if wire != "refusal":
        assert payload(message.sealed) == SHOWN[f"{wire}_envelope"]


def test_the_reply_is_one_to_the_question() -> None:
    question, reply = (envelope.read(SHOWN[name].encode()) for name in ("question", "reply"))
    known: Any = type("Known", (), {"name": "zj", "keys": cards.read(json.dumps(SHOWN["card"]).encode()).keys})
    caller.verify(known, question, reply, examplemessages.AT)
    assert json.loads(reply.body) == SHOWN["checked"]
    told = caller.decoded(reply, Checked)
    assert told.hub == "zj" and told.agreements[0].state == "in_force"


def test_the_refusal_is_what_the_code_makes_of_one() -> None:
    refusal = envelope.read(SHOWN["refusal"].encode())
    assert json.loads(refusal.body) == SHOWN["refusal_body"]
    error = caller.problem("zj", refusal)
    assert isinstance(error, caller.PartnerProblem)
    assert (error.values["code"], error.values["fault"]) == ("kind-unknown", "caller")
    cause = service.FatalError("kind-unknown", known="peer.card, peer.check")
    question = envelope.read(SHOWN["question"].encode())
    with mock.patch.object(service, "_sealed", lambda message, status, body, *_: json.loads(body)):
        assert service._problem(question, "kind-unknown", cause, None) == SHOWN["refusal_body"]


def test_every_member_is_described() -> None:
    fields = set(Envelope.__struct_encode_fields__)
    assert (
        set(re.findall(r"`(\w+)`", "".join(line for line in section("A message").splitlines() if line[:1] == "|")))
        >= fields
    )
    described = set(re.findall(r"`(\w+)`", section("Hubs and cards")))
    assert described >= {*cards.Card.__struct_encode_fields__, *cards.Key.__struct_encode_fields__}
    assert described >= set(cards.Certificate.__struct_encode_fields__) - {"pem"}


def test_every_refusal_is_listed_with_its_fault() -> None:
    listed: dict[str, str] = {}
    for text in (section("What a receiver does"), section("Kind `peer.card`"), section("Transport")):
        for line in text.splitlines():
            if line.startswith("|"):
                fault = next(
                    (cell.strip() for cell in line.split("|") if cell.strip() in ("caller", "hub", "partner")), ""
                )
                listed |= dict.fromkeys(re.findall(r"`([a-z]+-[a-z-]+|internal)`", line), fault)
    for code, fault in listed.items():
        assert problems.KINDS[code].fault == fault, code
    raised = {
        code
        for name in ("service.py", "peers.py", "cards.py", "peer_messages.py", "../../connectors/envelope.py")
        for code in re.findall(r'FatalError\(\s*"([a-z-]+)"', (ROOT / "hub" / "exchange" / name).read_text())
    }
    assert raised <= listed.keys()
    order = re.findall(r"\| `([a-z-]+)` \| caller \|$", section("What a receiver does"), re.MULTILINE)
    assert order[:12] == [
        "message-malformed", "peer-unknown", "certificate-foreign", "message-signature", "message-foreign",
        "protocol-unknown", "message-stale", "message-altered", "case-names-somebody", "message-repeated", "kind-unknown",
        "deadline-over",
    ]  # fmt: skip


def test_every_reply_that_is_refused_is_listed() -> None:
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", section("What an asker does"), re.MULTILINE))
    source = "".join((ROOT / "hub" / "exchange" / name).read_text() for name in ("caller.py", "wire.py"))
    raised = set(re.findall(r'FatalError\(\s*"([a-z-]+)"', source)) - {
        "kind-unknown",
        "body-too-large",
    }  # before anything is sent
    assert listed == raised | {"message-malformed", "message-signature"}


def test_the_limits_are_those_of_the_code() -> None:
    assert dt.timedelta(minutes=10) == envelope.SKEW and "within 10 minutes" in TEXT
    assert envelope.LIMIT == 8 << 20 and "8 MiB" in TEXT and envelope.LONGEST == 16 << 10 and "16 KiB" in TEXT
    assert dt.timedelta(minutes=20) == peers.MARGIN and "20 minutes more or less" in TEXT
    assert dt.timedelta(days=14) == keys.OVERLAP and "14 days" in TEXT and keys.MOST == 8
    assert serve.BODY_SECONDS == 20 and "20 s" in TEXT
    for name in (envelope.PROTOCOL, envelope.MEDIA_TYPE, envelope.TYPE, cards.TYPE, serve.PATH):
        assert name in TEXT
    known = kinds.register()
    for kind in ("peer.check", "peer.card"):
        told = section(f"Kind `{kind}`")
        assert not known[kind].needs_agreement and ("*once*" in told) == known[kind].once
