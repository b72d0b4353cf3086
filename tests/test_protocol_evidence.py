"""docs/protocol/27-evidence.md: its examples are what the code makes and takes, its tables name what the code does."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors import envelope, signature
from connectors.errors import FatalError
from hub import home, index_keys, problems
from hub.api.evidence import EvidenceShown
from hub.exchange import agreement_terms, evidence, evidence_shown, service
from hub.exchange.agreements import Agreement
from hub.exchange.evidence import Consent, Holder, Question
from hub.exchange.evidence_shown import Expected, Shown, Unacceptable
from tests import exampleagreements, exampleevidence, examplemessages, examplepage
from tests.conftest import ROOT

TEXT = exampleevidence.PAGE.read_text(encoding="utf-8")
SHOWN = examplemessages.known(TEXT)
BODIES = ("question_body", "unannounced_body")


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def question(name: str = "question_body") -> Question:
    return msgspec.json.decode(json.dumps(SHOWN[name]).encode(), type=Question)


def test_the_examples_are_those_that_are_made() -> None:
    assert len(SHOWN) == 7 and exampleevidence.written(TEXT) == TEXT, "python -m tests.exampleevidence"


def test_the_question_verifies_and_names_nobody_outside_its_body() -> None:
    message = envelope.read(SHOWN["question"].encode())
    key = signature.public_key(examplepage.public_key(examplemessages.SHANGHAI))
    envelope.verify(message, [key], "sh")
    assert message.intact and json.loads(message.body) == SHOWN["question_body"]
    told = message.envelope
    assert (told.purpose, told.case) == ("handle-application", "31-2026-0001") and told.deadline and told.agreement
    assert exampleevidence.FIRM not in json.dumps(SHOWN["question_envelope"])


@pytest.mark.parametrize("name", BODIES)
def test_the_bodies_are_read_and_written(name: str) -> None:
    asked = question(name)
    assert json.loads(msgspec.json.encode(asked)) == SHOWN[name]
    assert (asked.handle is None) == (asked.epoch is None)


def test_the_handle_is_the_one_of_the_index() -> None:
    asked = question()
    assert asked.epoch is not None
    key = index_keys.epoch_key(examplepage.AGREED_KEY, asked.epoch)
    assert index_keys.handle(key, f"{1:032x}").hex() == asked.handle


def test_it_is_covered_by_the_example_of_an_agreement() -> None:
    terms = exampleagreements.terms()
    agreement = Agreement(terms.id, terms.version, "sh", True, terms, "in_force")
    asked = question()
    assert evidence.covered(agreement, asked.material, "handle-application", asked.fields) == asked.fields
    marriage = question("unannounced_body").material
    assert not agreement_terms.shareable(marriage).indexed  # type: ignore[union-attr]


def accepted(body: Any, columns: tuple[str, ...]) -> Shown:
    """What the asker takes of the reply."""
    asked, wire, told = question(), envelope.read(SHOWN["question"].encode()).envelope, SHOWN["reply_envelope"]
    assert wire.purpose and wire.case
    person = home.keyed_hash().of(home.identifier_text(asked.holders[0].scheme, asked.holders[0].value))
    wanted = Expected(
        hub="zj", client="sh", purpose=wire.purpose, case=wire.case, item=asked.item, message=wire.id,
        at=dt.datetime.fromisoformat(told["at"]), material=asked.material, handle=asked.handle, columns=columns,
        person=frozenset({person}), roles=(), regions=exampleagreements.terms().regions,
    )  # fmt: skip
    data = json.dumps(body).encode()
    shown, passed = evidence_shown.read(data, wanted)
    assert passed == data
    return shown


def test_the_reply_is_the_one_form_of_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YICI_HOME", str(tmp_path))
    body = SHOWN["reply_body"]
    EvidenceShown.model_validate(body, strict=True)
    columns = tuple(SHOWN["question_body"]["fields"])
    assert accepted(body, columns).holding == SHOWN["question_body"]["handle"]
    with pytest.raises(Unacceptable, match="evidence-columns"):
        accepted(body, columns[:-1])
    told = SHOWN["reply_envelope"]
    wire = envelope.read(SHOWN["question"].encode())
    assert (told["reply_to"], told["request"]) == (str(wire.envelope.id), wire.digest.hex())
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (told["digest"], told["size"])


def test_the_refusal_is_what_the_code_says(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = envelope.read(SHOWN["question"].encode())
    monkeypatch.setattr(service, "_sealed", lambda message, status, body, *_: json.loads(body))
    made: Any = service._problem(asked, "certificate-not-in-force", FatalError("certificate-not-in-force"), None)
    assert made == SHOWN["refused_body"]


def test_every_member_is_described() -> None:
    asked = set(re.findall(r"`(\w+)`", section("Kind `evidence.request`")))
    assert asked >= {*Question.__struct_fields__, *Consent.__struct_fields__, *Holder.__struct_fields__}
    told = set(re.findall(r"`(\w+)`", section("The reply")))
    assert told >= {
        *EvidenceShown.model_fields,
        *SHOWN["reply_body"]["given"],
        "as_of",
        "late",
        "conflicting",
        "updated_at",
    }
    assert f"1 to {evidence.IDENTIFIERS} identifiers" in TEXT


def test_every_reason_of_the_asker_is_listed() -> None:
    listed = re.findall(r"^\| `(evidence-[a-z]+)` \|", section("What the asker refuses"), re.M)
    told = vars(evidence_shown)
    reasons = {value for name, value in told.items() if name.isupper() and str(value).startswith("evidence-")}
    assert set(listed) == reasons and len(listed) == 7
    assert f"{evidence_shown.TEXT:,} long" in TEXT


def test_every_refusal_is_listed_in_its_order_with_its_fault() -> None:
    rows = re.findall(r"^\|.*\| `([a-z-]+)` \| (\w+) \|$", section("What the provider does"), re.M)
    assert len(rows) == 11
    for code, fault in rows:
        assert problems.KINDS[code].fault == fault, code
    source = (ROOT / "hub" / "exchange" / "evidence.py").read_text(encoding="utf-8")
    raised = re.findall(r'(?:UsageError|FatalError)\(\s*"([a-z-]+)"', source)
    assert set(raised) <= {code for code, _ in rows} and len(set(raised)) == 9
    assert {code for code, _ in rows} - set(raised) == {"material-not-agreed", "field-not-agreed"}
    kind = evidence.KINDS["evidence.request"]
    assert (kind.mode, kind.once, kind.provider, kind.needs_agreement) == ("evidence", True, True, True)
