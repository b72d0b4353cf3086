"""docs/protocol/20-ledger.md: its examples are what the code makes and verify as they are described."""

from __future__ import annotations

import base64
import json
import re
from hashlib import sha256
from typing import Any

import pytest

from connectors import signature
from hub.exchange import checkpoints, kinds, ledger_months, ledger_verify, proofs, witnesses
from hub.exchange.entries import DIRECTIONS, FIELDS, FORM, digest_of
from tests import exampleledger, examplemessages

TEXT = exampleledger.PAGE.read_text(encoding="utf-8")
SHOWN = examplemessages.known(TEXT)
KEYS = {
    hub: signature.public_key(told["public_key"])
    for hub, told in examplemessages.known(examplemessages.PAGE.read_text(encoding="utf-8"))["keys"].items()
}


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_the_examples_are_those_that_are_made() -> None:
    assert len(SHOWN) == 9 and exampleledger.written(TEXT) == TEXT, "python -m tests.exampleledger"


def test_an_entry_is_made_as_described() -> None:
    """By the words of the page alone."""
    lines = ["yici-record/1"]
    for name in re.findall(
        r"`(\w+)`", "".join(line.split("|")[1] for line in section("Records").splitlines() if line[:3] == "| `")
    ):
        value = SHOWN["record"][name]
        lines.append(":" if value is None else f"{len(value.encode())}:{value}")
    text = "\n".join(lines) + "\n"
    assert text == SHOWN["digested"] + "\n"
    assert sha256(text.encode()).hexdigest() == SHOWN["digest"] == digest_of(SHOWN["record"]).hex()


def test_the_chain_follows_as_described() -> None:
    before = bytes(32)
    for position, place in enumerate(SHOWN["places"], 1):
        before = sha256(before + bytes.fromhex(place["entry"])).digest()
        assert (place["position"], place["chain"]) == (position, before.hex())
    assert SHOWN["places"][0]["entry"] == SHOWN["digest"]
    assert (SHOWN["checkpoint"]["position"], SHOWN["checkpoint"]["chain"]) == (3, before.hex())


def test_the_checkpoint_is_signed_and_the_head_repeats_it() -> None:
    head = SHOWN["head"]
    assert (
        json.loads(signature.verify(head["signature"].encode(), [KEYS["zj"]], "zj", "yici-checkpoint+jws"))
        == SHOWN["checkpoint"]
    )
    assert {name: SHOWN["checkpoint"][name] for name in ("position", "chain", "at")} | {
        "signature": head["signature"]
    } == head
    found = checkpoints.opened(head["signature"], "zj", [KEYS["zj"]])
    assert found is not None and found.told() == head
    assert SHOWN["witness_told"] == {"checkpoints": [head], "more": False}


@pytest.mark.parametrize(("keys", "signed_by"), [
    (("zj", "sh"), ("sh", "zj")), (("zj",), ("zj",)), (("sh",), ("sh",)),
])  # fmt: skip
def test_the_proof_holds(keys: tuple[str, ...], signed_by: tuple[str, ...]) -> None:
    body = examplemessages.known(examplemessages.PAGE.read_text(encoding="utf-8"))["reply"].partition("\n")[2].encode()
    checked = proofs.verify_proof(SHOWN["proof"], [KEYS[hub] for hub in keys], body)
    assert checked.ok and checked.signed_by == signed_by, checked.shown()
    assert {check.result for check in checked.checks} == ({"good"} if len(keys) == 2 else {"good", "unchecked"})


def test_the_kind_takes_and_gives_what_is_shown() -> None:
    import msgspec

    kind = kinds.register()["ledger.witness"]
    assert not kind.needs_agreement and not kind.once and "Kind `ledger.witness`" in TEXT
    assert msgspec.convert(SHOWN["witness_asked"], witnesses.Asked).after == 0
    told = msgspec.convert(SHOWN["witness_told"], witnesses.Page)
    assert msgspec.to_builtins(told) == SHOWN["witness_told"]


def test_every_member_is_described() -> None:
    told: Any = SHOWN["proof"]
    assert set(re.findall(r"`(\w+)`", section("Records"))) >= {*FIELDS, *DIRECTIONS}
    assert set(re.findall(r"^\| `(\w+)` \|", section("Proofs"), re.MULTILINE)) == set(told)
    assert set(re.findall(r"`(\w+)`", section("Proofs"))) >= set(told["chain"])
    outcomes = set(re.findall(r"^\| `([a-z-]+)` \|", section("Witnesses"), re.MULTILINE))
    assert outcomes == {"outcome", checkpoints.CONTRADICTS, checkpoints.FALSE} and f"`{checkpoints.KIND}`" in section(
        "Witnesses"
    )


def test_the_limits_are_those_of_the_code() -> None:
    for name in (FORM, checkpoints.TYPE, proofs.FORM, witnesses.KIND):
        assert f"`{name}`" in TEXT
    assert ledger_months.SHORTEST == 36 and "three years" in TEXT
    assert witnesses.PAGE == checkpoints.SPARSE == 1000 and "at most 1,000" in TEXT and "every thousand" in TEXT
    assert ledger_verify.PATIENCE.total_seconds() == 600 and "ten minutes" in TEXT
    header = json.loads(base64.urlsafe_b64decode(SHOWN["head"]["signature"].split(".")[0] + "=="))
    assert header == {"alg": "Ed25519", "kid": KEYS["zj"].thumbprint(), "typ": checkpoints.TYPE}
