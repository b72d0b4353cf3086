"""docs/protocol/60-corrections.md: its examples are read by the code, its tables name what the code does."""

from __future__ import annotations

import json
import re

import msgspec

from hub import problems
from hub.exchange import correction_messages as messages
from tests import examplecorrections, examplemessages
from tests.conftest import ROOT

TEXT = examplecorrections.PAGE.read_text(encoding="utf-8")
SHOWN = examplemessages.known(TEXT)


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_the_examples_are_those_that_are_made() -> None:
    assert len(SHOWN) == 4 and examplecorrections.written(TEXT) == TEXT, "python -m tests.examplecorrections"


def test_the_bodies_are_read() -> None:
    for name, form in (("file", messages.Filing), ("filed", messages.Filed), ("answer", messages.Answered)):
        told = msgspec.json.decode(json.dumps(SHOWN[name]).encode(), type=form)
        assert json.loads(msgspec.json.encode(told)) == SHOWN[name]
    assert messages.due(examplemessages.AT).isoformat() == SHOWN["filed"]["due_on"]


def test_every_member_and_outcome_is_described() -> None:
    for title, form in (("Kind `correction.file`", messages.Filing), ("Kind `correction.answer`", messages.Answered)):
        described = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|.*$", section(title), re.M))))
        assert described >= set(form.__struct_fields__), title
    assert set(re.findall(r"`(\w+)`", section("Kind `correction.file`"))) >= {
        *messages.Said.__struct_fields__,
        *messages.TOLD_BY_INDEX,
    }
    states = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| `.*?\|", section("The fix"), re.M))))
    assert states == {"filed", *messages.OUTCOMES}


def test_every_refusal_is_listed_with_its_fault() -> None:
    rows = re.findall(r"^\| (`[a-z-]+`(?:, `[a-z-]+`)*) \| (caller|hub) \|", TEXT, re.M)
    listed = {code: fault for codes, fault in rows for code in re.findall(r"`([a-z-]+)`", codes)}
    assert all(problems.KINDS[code].fault == fault for code, fault in listed.items())
    source = (ROOT / "hub" / "exchange" / "correction_messages.py").read_text()
    raised = set(re.findall(r'(?:UsageError|FatalError)\(\s*"([a-z-]+)"', source))
    elsewhere = {"material-not-agreed", "field-not-agreed", "reconcile-epoch"}
    assert raised | elsewhere == set(listed)


def test_the_limits_are_those_of_the_code() -> None:
    assert messages.WORKING_DAYS == 10 and "10 working days" in TEXT
    for kind, known in messages.KINDS.items():
        assert f"`{kind}`" in TEXT and known.once
    assert messages.KINDS[messages.FILE].mode == "index" and not messages.KINDS[messages.ANSWER].needs_agreement
