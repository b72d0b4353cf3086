"""docs/protocol/25-index.md: its examples are what the code makes and verify, its tables name what the code does."""

from __future__ import annotations

import json
import re

import msgspec

from connectors import envelope, indexpages, signature
from connectors.indexframe import ENTRY, KIND, MEDIA_TYPE, STATUSES, Frame
from hub import index_feed, index_keys, problems
from hub.exchange import index_messages
from mappings import schemes
from tests import exampleindex, examplemessages, examplepage
from tests.conftest import ROOT

TEXT = exampleindex.PAGE.read_text(encoding="utf-8")
SHOWN = examplemessages.known(TEXT)


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def described(title: str) -> set[str]:
    """What the first columns of the tables of a section name."""
    return set(re.findall(r"`([\w-]+)`", "".join(re.findall(r"^\| `.*?\|", section(title), re.M))))


def test_the_examples_are_those_that_are_made() -> None:
    assert len(SHOWN) == 5 and exampleindex.written(TEXT) == TEXT, "python -m tests.exampleindex"


def test_ids_are_derived_as_described() -> None:
    told = SHOWN["ids"]
    key = index_keys.epoch_key(examplepage.AGREED_KEY, told["epoch"])
    assert key.hex() == told["epoch_key"]
    assert index_keys.subject_id(key, *told["identifier"].split(":")).hex() == told["id"]
    hashed = index_keys.KeyedHash(key)
    for text, name in (
        (told["identifier"], "id"),
        (f"holding:{told['holding']}", "handle"),
        (f"version:{told['version']}", "digest"),
    ):
        assert hashed.of(text).hex() == told[name]
    named = set(
        re.findall(
            r"`((?:cn\.)?[a-z]+)`", section("Identifiers").split("normalised identifier:")[1].split("What stands")[0]
        )
    )
    assert named == set(schemes.SCHEMES)


def test_question_and_page_verify_and_belong_together() -> None:
    question, reply = (envelope.read(SHOWN[name].encode() + end) for name, end in (("question", b""), ("page", b"\n")))
    envelope.verify(question, [signature.public_key(examplepage.public_key(examplemessages.SHANGHAI))], "sh")
    assert question.intact and question.envelope.kind == KIND
    asked = msgspec.json.decode(question.body, type=index_messages.Question)
    assert indexpages.verified(reply.wire, examplepage.partner(), "docs") == reply
    assert examplemessages.shown(reply) == SHOWN["reply_envelope"] and reply.envelope.type == MEDIA_TYPE
    assert (reply.envelope.reply_to, reply.envelope.request) == (question.envelope.id, question.digest.hex())
    page = indexpages.opened(reply, "330000", "docs")
    assert (page.frame.after, page.frame.epoch) == (asked.after, asked.epoch)
    rows = indexpages.block(page, "docs")
    assert indexpages.in_order(page, rows) and rows.table["status"].to_pylist() == ["in_force", "withdrawn"]
    assert rows.table["subjects"].to_pylist() == [f"holder:{SHOWN['ids']['id']}", None]
    assert rows.table["handle"][0].as_py() == SHOWN["ids"]["handle"]


def test_every_member_and_column_is_described() -> None:
    names = described("Kind `index.page`")
    assert names >= {*index_messages.Question.__struct_fields__, *Frame.__struct_fields__, *ENTRY}
    assert set(re.findall(r"`(\w+)`", re.search(r"^\| `status` .*$", TEXT, re.M)[0])) - {"status"} == set(STATUSES)


def test_every_refusal_is_listed() -> None:
    source = "".join((ROOT / "connectors" / name).read_text() for name in ("hub.py", "indexpages.py"))
    raised = set(re.findall(r'(?:Fatal|Retriable)Error\(\s*"(index-[a-z-]+)"', source))
    listed = {name for name in described("What a receiver refuses") if name.startswith("index-")}
    assert listed == raised - {"index-epoch-changed"}, "which is no refusal: read again"
    rows = re.findall(r"^\| `(index-[a-z-]+)` \| (caller|hub) \|", TEXT, re.M)
    assert rows == [("index-epoch-over", "caller")] and SHOWN["over"]["code"] == "index-epoch-over"
    assert all(problems.KINDS[code].fault == fault for code, fault in rows)


def test_the_example_of_a_refusal_is_what_is_said() -> None:
    document = problems.document("index-epoch-over", "en", SHOWN["over"]["values"])
    assert document["detail"] == SHOWN["over"]["detail"] and document["fault"] == SHOWN["over"]["fault"]


def test_the_limits_are_those_of_the_code() -> None:
    assert f"1 to {index_feed.LARGEST:,}; {index_feed.LIMIT:,} by default" in TEXT and f"`{MEDIA_TYPE}`" in TEXT
    [kind] = index_messages.KINDS.values()
    assert (kind.mode, kind.once, kind.provider) == ("index", False, True)


def test_the_steps_of_a_check_are_listed() -> None:
    from tests.test_exchange_checking import ALL

    steps = re.findall(
        r"`(\w+)`", "".join(re.findall(r"^\| `.*?\|", TEXT.split("`yici check SRC`")[1].split("## ")[0], re.M))
    )
    assert steps == [*ALL, "index"]


def test_no_json_is_left_out() -> None:
    assert json.loads(SHOWN["page"].splitlines()[1])["epoch"] == examplepage.EPOCH
