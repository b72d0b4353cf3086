"""docs/protocol.md: it leads to every section and names every kind of message, as the code has them."""

from __future__ import annotations

import re

import pytest

from connectors.envelope import PROTOCOL
from hub.exchange import kinds, wire
from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "protocol"
TEXT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in TEXT.split("## Kinds of messages")[1].splitlines()
    if re.match(r"\| `", line)
]
SAID = {kind: row[1:] for row in ROWS for kind in re.findall(r"`([a-z.]+)`", row[0])}


def test_every_section_is_led_to() -> None:
    found = sorted(path.name for path in FOLDER.glob("*.md"))
    assert len(found) >= 8
    assert re.findall(r"^\| \[\d\d · [^]]+\]\(protocol/([^)]+)\) \|", TEXT, re.M) == found


def test_every_kind_is_named_as_it_is() -> None:
    known = kinds.register()
    assert set(SAID) == {kind for kind in known if not kind.startswith("test.")} and len(SAID) > 10
    for name, (mode, once, section) in SAID.items():
        kind = known[name]
        allowed = kind.mode or ("any" if kind.needs_agreement else "")
        assert (mode, once) == (allowed, "yes" if kind.once else ""), name
        [page] = FOLDER.glob(f"{section}-*.md")
        assert f"`{name}`" in page.read_text(encoding="utf-8"), name


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*.md")), ids=lambda page: page.name)
def test_links_between_sections_lead_somewhere(page) -> None:
    for target in re.findall(r"\]\(([\w./-]+\.md)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).resolve().is_file(), target


def test_names_are_those_of_the_code() -> None:
    assert f"Protocol `{PROTOCOL}`" in TEXT and f"`POST {wire.PATH}`" in TEXT
