"""docs/protocol.md: its examples verify, its tables name what the code does."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from connectors import indexpages, signature
from connectors.indexpages import Page, Terms
from hub import index_feed, index_keys, problems
from mappings.model import STATUSES
from tests import examplepage
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
EXAMPLES: list[dict[str, Any]] = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", TEXT, re.S)]
[SIGNED] = re.findall(r"```\n(ey[\w.-]+)\n```", TEXT)


def example(member: str) -> dict[str, Any]:
    [found] = [block for block in EXAMPLES if member in block]
    return found


def test_the_keys_are_those_they_are_said_to_be() -> None:
    keys = example("kid")
    assert keys["public_key"] == examplepage.public_key()
    assert signature.public_key(keys["public_key"]).thumbprint() == keys["kid"]
    assert base64.urlsafe_b64decode(keys["index_key"] + "=") == examplepage.AGREED_KEY == bytes(range(0x20, 0x40))
    assert bytes(range(0x20)) == examplepage.SIGNING_KEY


def test_the_id_is_derived_as_described() -> None:
    told = example("epoch_key")
    key = index_keys.epoch_key(examplepage.AGREED_KEY, told["epoch"])
    assert key.hex() == told["epoch_key"]
    assert index_keys.subject_id(key, *told["identifier"].split(":")).hex() == told["id"]
    assert example("entries")["entries"][0]["subjects"] == [{"role": "holder", "id": told["id"]}]


def test_the_signed_page_verifies_and_is_the_one_shown() -> None:
    keys = example("kid")
    terms = Terms((signature.public_key(keys["public_key"]),), keys["hub"], "sh")
    page = indexpages.opened(SIGNED.encode(), terms, "docs/protocol.md")
    shown = example("entries")
    assert json.loads(bytes(page.entries)) == shown["entries"]
    assert (page.region, page.epoch, page.head) == (keys["region"], shown["epoch"], shown["head"])
    assert indexpages.block(page, "docs/protocol.md").table["status"].to_pylist() == ["in_force", "withdrawn"]
    payload = base64.urlsafe_b64decode(SIGNED.split(".")[1] + "==")
    assert json.loads(payload) == shown


def _section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_every_member_is_described() -> None:
    described = set(re.findall(r"`(\w+)`", _section("The page")))
    assert described >= {*Page.__struct_fields__, *example("entries")["entries"][0], *STATUSES, "withdrawn"}


def test_every_refusal_and_every_problem_is_listed() -> None:
    refusals = set(re.findall(r"\| `(index-[a-z-]+)` \|", _section("What a consumer refuses")))
    source = "".join((ROOT / "connectors" / name).read_text() for name in ("hub.py", "indexpages.py", "signature.py"))
    raised = set(re.findall(r'FatalError\(\s*"(index-[a-z-]+)"', source))
    assert refusals == {code for code in raised if not code.startswith("index-connection-")}
    errors = [line.split("|") for line in _section("Errors of the publisher").splitlines() if re.match(r"\| \d", line)]
    assert len(errors) == 8
    for _, status, codes, fault, *_ in errors:
        for code in re.findall(r"`([a-z-]+)`", codes):
            assert problems.KINDS[code] == problems.Kind(int(status), fault.strip()), code  # type: ignore[arg-type]


def test_the_limits_are_those_of_the_code() -> None:
    assert f"{index_feed.LARGEST:,}; {index_feed.LIMIT:,} by default" in TEXT
    for name in (signature.PROTOCOL, signature.TYPE, signature.ALGORITHM, signature.MEDIA_TYPE):
        assert f"`{name}`" in TEXT
