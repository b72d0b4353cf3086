"""Every byte that leaves a hub through its shares, read for what no agreement covers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
import sqlalchemy as sa
from starlette.types import Message, Receive, Scope, Send

from hub.api.app import create
from hub.exchange import share_cut, share_folder, share_selection, share_tables
from tests import stored
from tests.peering import move, withdraw
from tests.serving import served
from tests.sharing import LICENCE, SOURCE, Reader, agree, as_zj, change, licence

# A certificate for each reason why something of it must stay; what must not be seen is marked in every value.
SECRET = b"GEHEIM"
AGREED = ["certificate_number", "status", "attributes.registered_on"]


class Tapped:
    """The application, and all that it sends."""

    def __init__(self) -> None:
        self.app, self.sent, self.bodies = create(), bytearray(), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tapped(message: Message) -> None:
            if message["type"] == "http.response.body":
                self.sent += message.get("body", b"")
                self.bodies += 1
            elif message["type"] == "http.response.start":
                self.sent += b"".join(name + value for name, value in message["headers"])
            await send(message)

        await self.app(scope, receive, tapped)


@pytest.fixture(scope="module")
def tap() -> Iterator[tuple[Tapped, str]]:
    tapped = Tapped()
    with served(tapped) as base:  # type: ignore[arg-type]
        yield tapped, base


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files without compression, so that what is in them can be seen in their bytes; cut in this process for the same."""
    monkeypatch.setattr(share_folder, "COMPRESSION", "none")
    monkeypatch.setattr(
        share_selection, "_run", lambda job: orjson.dumps([vars(one) for one in share_cut.cut(orjson.loads(job))])
    )


def fill(engine: sa.Engine) -> list[str]:
    """Keys of the holdings, in hex. Only the numbers, states and dates of 33-0001 to 33-0003 are anybody's to see."""
    secret = SECRET.decode()
    hidden: dict[str, Any] = {"name": f"{secret}-name", "attributes": {
        "registered_on": "2020-02-02", "enterprise_type": f"{secret}-type",
        "registered_capital": {"amount": "7.0000", "currency": f"{secret}-currency"},
    }}  # fmt: skip
    keys = [licence(engine, number, **hidden) for number in (1, 2, 3)]
    stored.source(engine, SOURCE, LICENCE, region="330000")
    keys.append(licence(engine, 4, region="310117", number=f"{secret}-elsewhere"))
    stored.source(engine, "sh", LICENCE, region="310000")
    keys.append(stored.holding(engine, "sh", LICENCE, number=f"{secret}-no-region", region=None))  # type: ignore[arg-type]
    stored.source(engine, "zj-register", "household-register", region="330000")
    keys.append(
        stored.holding(engine, "zj-register", "household-register", number=f"{secret}-material", region="330106")
    )
    gone = licence(engine, 5, number="33-0005")
    withdraw(engine, gone)
    return keys


def call_everything(reader: Reader, engine: sa.Engine, keys: list[str]) -> None:
    """All there is to ask, of the stock client and beyond, over several versions."""
    for step in range(3):
        share_tables.publish(reader.named)
        reader.client.list_all_tables()
        for delta in (False, True):
            for more in ({}, {"limit": 1}, {"version": 0}, {"jsonPredicateHints": json.dumps({"op": "isNull", "children": [
                {"op": "column", "name": "certificate_number", "valueType": "string"}]})}):  # fmt: skip
                with contextlib.suppress(requests.HTTPError):
                    reader.read(use_delta_format=delta, **more)
            with contextlib.suppress(requests.HTTPError):
                reader.changes(starting_version=0, use_delta_format=delta)
        for hint in (
            "status = 'in_force'",
            "certificate_number <> '33-0001'",
            "attributes.registered_on > '2020-01-01'",
        ):
            reader.hinted(hint)
        for wrong in (f"name = '{SECRET.decode()}-name'", f"name <> '{SECRET.decode()}'", "attributes.enterprise_type IS NOT NULL",
                      "key IS NOT NULL", "region = '310117'"):  # fmt: skip
            assert reader.query(predicateHints=[wrong]).status_code == 400
        for columns in (["certificate_number"], ["name"], ["status", "attributes.enterprise_type"]):
            answer = reader.query(columns=columns)
            for line in answer.text.splitlines()[2:] if answer.ok else ():
                requests.get(json.loads(line)["file"]["url"], timeout=30)
        for path in (
            "/shares",
            reader.at("metadata"),
            reader.at("version"),
            reader.at("metadata", "household-register"),
        ):
            reader.get(path)
        if step == 0:
            change(engine, keys[0], issuer_name=f"{SECRET.decode()}-issuer")
            change(engine, keys[1], status="revoked")
        else:
            move(engine, keys[2], "310117")
            change(engine, keys[2], region="310117", certificate_number=f"{SECRET.decode()}-moved-away")


def seen(tapped: Tapped, engine: sa.Engine, base: str, folder: Path, asked: Callable[..., None], **said: Any) -> bytes:
    """All that was sent when everything was asked under an agreement that says ``said``."""
    with as_zj():
        keys = fill(engine)
        reader = Reader(engine, agree(engine, **said), base, folder)
        tapped.sent.clear()
        asked(reader, engine, keys)
    content = bytes(tapped.sent)
    for key in keys:  # what holdings are called here is nobody's business either
        assert bytes.fromhex(key) not in content and key.encode() not in content
    assert b"33-0001" in content and tapped.bodies > 100
    return content


def test_nothing_leaves_that_is_not_agreed(store: sa.Engine, tap: tuple[Tapped, str], tmp_path: Path) -> None:
    content = seen(tap[0], store, tap[1], tmp_path, call_everything, materials={LICENCE: AGREED})
    assert SECRET not in content, content[content.index(SECRET) - 200 : content.index(SECRET) + 50]
    for other in (b"registered_capital", b"enterprise_type", b"holder.holder", b"9133", b"310117", b"CNY"):
        assert other not in content, other


@pytest.mark.parametrize(
    ("said", "markers"),
    [
        ({"materials": {LICENCE: [*AGREED, "name"]}}, {b"name"}),
        ({"materials": {LICENCE: "*"}}, {b"name", b"type", b"currency", b"issuer"}),
        ({"materials": {LICENCE: AGREED, "household-register": ["certificate_number"]}}, {b"material"}),
    ],
)
def test_what_is_agreed_would_have_been_seen(
    store: sa.Engine, tap: tuple[Tapped, str], tmp_path: Path, said: dict[str, Any], markers: set[bytes]
) -> None:
    """The test before can fail: with more agreed, exactly that more is in the bytes."""

    def asked(reader: Reader, engine: sa.Engine, keys: list[str]) -> None:
        change(engine, keys[0], issuer_name=f"{SECRET.decode()}-issuer")
        share_tables.publish(reader.named)
        for _ in range(30):
            reader.read()
        for table in said["materials"]:
            lines = reader.session.post(reader.base + reader.at("query", table), json={}, timeout=30).text.splitlines()[
                2:
            ]
            for line in lines:
                requests.get(json.loads(line)["file"]["url"], timeout=30)

    content = seen(tap[0], store, tap[1], tmp_path, asked, **said)
    names = (b"name", b"type", b"currency", b"issuer", b"material", b"elsewhere", b"no-region", b"moved-away")
    assert {name for name in names if SECRET + b"-" + name in content} == markers
