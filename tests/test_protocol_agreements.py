"""docs/protocol/30-agreements.md: its examples are what the code makes and verify, its tables name what the code does."""

from __future__ import annotations

import base64
import json
import re

import msgspec
import pytest

from connectors import signature
from hub import index_keys, problems
from hub.exchange import agreement_messages, agreement_states, agreement_terms, epochs
from hub.exchange.agreement_terms import MODES, Terms
from tests import exampleagreements, examplemessages, examplepage
from tests.conftest import ROOT

TEXT = exampleagreements.PAGE.read_text(encoding="utf-8")
SHOWN = examplemessages.known(TEXT)
KEYS = {"zj": examplemessages.ZHEJIANG, "sh": examplemessages.SHANGHAI}
MODULES = ("agreement_messages", "agreement_states", "agreements", "agreement_terms")
SOURCE = "".join((ROOT / "hub" / "exchange" / f"{name}.py").read_text(encoding="utf-8") for name in MODULES)


def section(title: str) -> str:
    level = title.split(" ")[0]
    return TEXT.split(f"\n{title}\n", 1)[1].split(f"\n{level} ", 1)[0]


def test_the_examples_are_those_that_are_made() -> None:
    assert len(SHOWN) == 18 and exampleagreements.written(TEXT) == TEXT, "python -m tests.exampleagreements"


def test_both_signed_the_text_that_is_shown() -> None:
    document = SHOWN["canonical"].encode()
    assert json.loads(document) == SHOWN["document"]
    assert json.dumps(SHOWN["document"], sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == document
    assert agreement_terms.canonical(agreement_terms.parse(document)) == document
    assert agreement_terms.digest(document) == SHOWN["signatures"]["digest"]
    assert agreement_terms.flaws(agreement_terms.parse(document), {"zj": "330000", "sh": "310000"}) == []
    for hub, private in KEYS.items():
        key = signature.public_key(examplepage.public_key(private))
        signature.verify_detached(document, SHOWN["signatures"][hub], [key], "yici-agreement+jws", hub)
    assert SHOWN["propose"]["document"] == SHOWN["canonical"]
    assert SHOWN["propose"]["signature"] == SHOWN["signatures"]["zj"]
    assert SHOWN["accept"]["signature"] == SHOWN["signatures"]["sh"]
    assert agreement_terms.TYPE == "yici-agreement+jws"


@pytest.mark.parametrize(("example", "form"), [
    ("propose", agreement_messages.Proposal), ("accept", agreement_messages.Acceptance),
    ("decline", agreement_messages.Declined), ("suspend", agreement_messages.Word), ("resume", agreement_messages.Word),
    ("end", agreement_messages.Word),
])  # fmt: skip
def test_the_bodies_are_read(example: str, form: type) -> None:
    told = msgspec.json.decode(json.dumps(SHOWN[example]).encode(), type=form)
    assert {name for name in form.__struct_fields__ if getattr(told, name) is not None} == set(SHOWN[example])
    if "reason" in SHOWN[example]:
        assert agreement_messages.plain(SHOWN[example]["reason"]) == SHOWN[example]["reason"]


def test_the_key_is_derived_as_described() -> None:
    told = SHOWN["key"]
    key = base64.urlsafe_b64decode(told["key"] + "=")
    assert key == index_keys.epoch_key(examplepage.AGREED_KEY, told["epoch"]) and len(key) == 32
    scope = epochs.Scope(tuple(told["materials"]), tuple(told["regions"]))
    assert told["epoch"].endswith(scope.digest())
    assert scope.materials == agreement_terms.parse(SHOWN["canonical"].encode()).indexed()


def test_every_member_and_mode_and_state_is_described() -> None:
    described = set(re.findall(r"`(\w+)`", section("## The document")))
    assert described >= {*Terms.model_fields, *MODES}
    states = set(re.findall(r"\| `(\w+)` \|", section("## From proposal to end")))
    assert states == {"proposed", "in_force", "suspended", "superseded", "declined", "ended"}
    for number in (agreement_messages.LONGEST_REASON, agreement_states.OPEN, agreement_terms.LARGEST // 1024):
        assert str(number) in TEXT


def test_every_kind_and_every_refusal_is_listed() -> None:
    assert all(f"`{kind}`" in TEXT for kind in agreement_messages.KINDS)
    listed = re.findall(r"^\| (`[a-z-]+`(?:, `[a-z-]+`)*) \| caller \|", TEXT, re.M)
    codes = {code for cell in listed for code in re.findall(r"`([a-z-]+)`", cell)}
    admitting = set(admission())
    assert len(admitting) == 9 and all(problems.KINDS[code].fault == "caller" for code in codes | admitting)
    raised = set(re.findall(r'(?:UsageError|FatalError)\(\s*"([a-z-]+)"|"(?=agreement-)([a-z-]+)"', SOURCE))
    raised = {code for pair in raised for code in pair if code}
    local = {"agreement-none", "agreement-ambiguous", "agreement-broken"}  # never told to another hub
    assert raised - local == codes | admitting


def admission() -> list[str]:
    """What a call is refused for, in the order of the page."""
    return re.findall(r"\| `([a-z-]+)`(?:, `[a-z.]+`)? \|$", section("## What it admits"), re.M)
