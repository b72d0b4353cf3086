"""docs/protocol/40-shares.md: its examples are what a hub answers, its tables name what the code does."""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from hub import problems
from hub.api import shares as routes
from hub.api import sharing
from hub.api.app import create
from hub.exchange import share_files, share_tables, shares
from tests.conftest import ROOT
from tests.serving import served
from tests.sharing import LICENCE, Reader, agree, as_zj, change, licence

PAGE = ROOT / "docs" / "protocol" / "40-shares.md"
EXAMPLE = re.compile(r"<!-- ([\w ]+) -->\n```json\n(.*?)```", re.S)
NAMED = uuid.UUID("01986f00-0000-7000-8000-00000000a001")
MADE = dt.datetime(2026, 3, 1, 8, tzinfo=dt.UTC)


def examples() -> dict[str, Any]:
    return {name: json.loads(text) for name, text in EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))}


def shortened(said: Any) -> Any:
    """What depends on the moment, the library and the key, the same every time."""
    if isinstance(said, dict):
        return {name: _fixed(name, value) for name, value in said.items()}
    return [shortened(one) for one in said] if isinstance(said, list) else said


def _fixed(name: str, value: Any) -> Any:
    if name in ("size", "expirationTimestamp"):
        return {"size": 1234, "expirationTimestamp": 1772353800000}[name]
    if name == "bearerToken":
        return "m1XG…"
    if name == "id" and isinstance(value, str) and re.fullmatch(r"\d{5}-[0-9a-f]{64}", value):
        return f"{value[:6]}9f86d0…"
    if name in ("url", "path"):
        path = re.sub(r"[0-9a-f]{64}\.parquet\?.*", "9f86d0….parquet?until=20260301T083000Z&sp=r&sig=5e884…", value)
        return re.sub(
            r"^http://[^/]*|answers/[^/]*",
            lambda found: "https://zj.example" if found[0].startswith("http") else "answers/20260301T083100Z",
            path,
        )
    return shortened(value)


@pytest.fixture
def answers(store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What a hub answers now to what the page shows."""
    fields = ["certificate_number", "name", "status", "attributes.registered_on"]
    with as_zj(), served(create()) as base:
        keys = [licence(store, number) for number in (1, 2)]
        agree(store, NAMED, materials={LICENCE: fields})
        for minutes in (0, 30):
            monkeypatch.setattr(share_tables, "_now", lambda minutes=minutes: MADE + dt.timedelta(minutes=minutes))
            share_tables.publish(NAMED)
            change(store, keys[0], name="改名")
        reader = Reader(store, NAMED, base, tmp_path)
        profile = {
            **reader.profile,
            "endpoint": "https://zj.example/delta",
            "expirationTime": "2026-05-30T08:30:00.000Z",
        }

        def lines(text: str) -> list[Any]:
            return [json.loads(line) for line in text.splitlines()]

        question = examples()["question"]
        delta = {"delta-sharing-capabilities": "responseformat=delta"}
        asked = reader.session.post(reader.base + reader.at("query"), json={"version": 0}, headers=delta, timeout=30)
        yield {
            "profile": profile,
            "tables": reader.get(f"/shares/{NAMED}/all-tables").json(),
            "metadata": lines(reader.get(reader.at("metadata")).text)[1],
            "question": question,
            "query": lines(reader.query(**question).text),
            "query delta": lines(asked.text),
            "changes": lines(reader.get(reader.at("changes") + "?startingVersion=0").text)[2:],
            "error": reader.query(predicateHints=["name LIKE '%'"]).json(),
        }


def test_the_examples_are_what_a_hub_answers(answers: dict[str, Any]) -> None:
    assert shortened(answers) == examples()


def test_every_code_is_described() -> None:
    text = PAGE.read_text(encoding="utf-8")
    described = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", text.split("\n## Errors\n", 1)[1]))
    assert {code for code in problems.KINDS if code.startswith("share-")} <= described
    assert described - set(problems.KINDS) == set()
    for status, codes in re.findall(r"^\| (\d{3}) \| (.*?) \|", text, re.M):
        for code in re.findall(r"`([a-z-]+)`", codes):
            assert problems.KINDS[code].status == int(status), code


def test_what_the_page_says_in_numbers() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"good for {share_files.MINUTES} minutes" in text and f"{sharing.RATE} questions a second" in text
    assert f"the last {share_tables.KEPT.days} days" in text and f"`{shares.SCHEMA}`" in text
    for name in routes.Question.model_fields:
        assert f"`{name}`" in text
    kinds = {f"share.{route.name}" for route in create().routes if getattr(route, "path", "").startswith("/delta/")}
    assert len(kinds) == 7 and all(f"`{kind}`" in text for kind in kinds)
