"""docs/protocol/50-reconciliation.md: its examples are what the code makes and verify, its tables name what the code does."""

from __future__ import annotations

import json
import re

import msgspec

from connectors import envelope, indexpages, signature
from connectors.block import Block
from hub import problems
from hub.exchange import descent, record_digests
from hub.exchange import reconciliation_messages as messages
from hub.exchange.descent import Asked, Part
from tests import examplemessages, examplepage, examplereconciliation
from tests.conftest import ROOT

TEXT = examplereconciliation.PAGE.read_text(encoding="utf-8")
SHOWN = examplemessages.known(TEXT)


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_the_examples_are_those_that_are_made() -> None:
    assert len(SHOWN) == 11 and examplereconciliation.written(TEXT) == TEXT, "python -m tests.examplereconciliation"


def test_the_question_verifies() -> None:
    question = envelope.read(SHOWN["question"].encode())
    envelope.verify(question, [signature.public_key(examplepage.public_key(examplemessages.SHANGHAI))], "sh")
    assert question.intact and json.loads(question.body) == SHOWN["question_body"]
    assert (question.envelope.kind, question.envelope.agreement) == (messages.DIGESTS, examplemessages.AGREEMENT)


def test_the_bodies_are_read_and_answer_each_other() -> None:
    asked, listing, provided = (
        msgspec.json.decode(json.dumps(SHOWN[name]).encode(), type=messages.Question)
        for name in ("question_body", "listing", "provided")
    )
    digests, records = (
        msgspec.json.decode(json.dumps(SHOWN[name]).encode(), type=messages.Digests) for name in ("digests", "records")
    )
    assert len(digests.answering(Asked(asked.within, asked.listed), "zj")) == 2 and provided.moved == digests.moved
    [(handle, part)] = records.answering(Asked(listing.within, listing.listed), "zj").items()
    assert part == Part(1, SHOWN["sum"]["records"][0]) and handle.startswith(listing.listed[0])
    assert added_up(digests.parts) == SHOWN["sum"]["part"]
    restate = msgspec.json.decode(json.dumps(SHOWN["restate"]).encode(), type=messages.Restate)
    assert [handle for handle, _ in restate.records] == restated().table["handle"].to_pylist()


def restated() -> Block:
    """The rows of the restated page that is shown, its envelope verified."""
    told = examplepage.page(examplereconciliation.restated(), to=44, head=44, restated=True)
    assert examplemessages.shown(told) == SHOWN["restated_envelope"] and told.body.decode() == SHOWN["restated"] + "\n"
    page = indexpages.opened(indexpages.verified(told.wire, examplepage.partner(), "docs"), "330000", "docs")
    assert page.frame.restated
    return indexpages.block(page, "docs")


def added_up(parts: tuple[tuple[str, int, str], ...]) -> str:
    return examplereconciliation.added(digest for _, _, digest in parts)


def test_the_digest_is_made_as_described() -> None:
    _, second, _ = examplereconciliation.entries()
    assert SHOWN["record"] == {
        "text": examplereconciliation.text(second),
        "digest": examplereconciliation.digest(second),
    }
    assert SHOWN["record"]["text"].endswith(f" {second['subjects'].split()[0]}"), "sorted, whatever the order was"


def test_the_restated_page_verifies_and_is_the_one_shown() -> None:
    assert restated().table["status"].to_pylist() == ["in_force", "withdrawn"]


def test_every_member_is_described() -> None:
    for title, forms in (
        ("Kind `reconcile.digests`", (messages.Question, messages.Digests)),
        ("Kind `reconcile.records`", (messages.Restate,)),
    ):
        described = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| `.*?\|", section(title), re.M))))
        assert described >= {name for form in forms for name in form.__struct_fields__}


def test_every_refusal_is_listed_with_its_fault() -> None:
    rows = re.findall(r"^\| (`[a-z-]+`(?:, `[a-z-]+`)*) \| (caller|hub) \|", TEXT, re.M)
    listed = {code: fault for codes, fault in rows for code in re.findall(r"`([a-z-]+)`", codes)}
    assert all(problems.KINDS[code].fault == fault for code, fault in listed.items())
    source = "".join(
        (ROOT / "hub" / "exchange" / f"{name}.py").read_text() for name in ("reconciliation_messages", "announced")
    )
    raised = set(re.findall(r'(?:UsageError|FatalError)\(\s*"([a-z-]+)"', source))
    refused = {"reconcile-answer", "reconcile-moved"}  # by the asker
    assert raised == {*listed, "message-body", *refused} and all(f"`{code}`" in TEXT for code in refused)


def test_the_limits_are_those_of_the_code() -> None:
    assert descent.WITHIN == descent.LISTED == 256 and TEXT.count("256") >= 2
    assert descent.RECORDS == 20_000 and "20,000" in TEXT and record_digests.MOVED == descent.MOST == 10_000
    assert messages.RESTATE == 1000 and "at most 1,000" in TEXT
    for kind, known in messages.KINDS.items():
        assert f"`{kind}`" in TEXT and known.mode == "index" and not known.once
    assert (messages.KINDS[messages.DIGESTS].provider, messages.KINDS[messages.RESTATED].provider) == (None, True)
