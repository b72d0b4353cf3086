"""Two real hubs: one announces over HTTP, the other reads, refuses what is not right, and merges the rest."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from joserfc.jwk import OKPKey

from connectors import connections, hub, indexpages, signature
from connectors import source as sources
from connectors.errors import FatalError, RetriableError, YiciError
from connectors.fetched import Fetched
from connectors.landing import Landing
from connectors.signature import base64url
from connectors.source import Source
from hub import database, peers, pipeline, signing
from hub.home import Home
from tests import stored
from tests.peering import MATERIALS, PartnerHub, Wire, announce, connect, meddled, move, partner_hub, withdraw

NAME = "zj-hub-index"


@pytest.fixture(scope="module")
def served(server_home: Home) -> Iterator[tuple[PartnerHub, Wire]]:
    with partner_hub(server_home) as partner, meddled() as wire:
        yield partner, wire


@pytest.fixture
def wire(served: tuple[PartnerHub, Wire]) -> Wire:
    partner, wire = served
    wire.reset(partner.base)
    return wire


@pytest.fixture
def partner(served: tuple[PartnerHub, Wire], wire: Wire) -> PartnerHub:
    partner, _ = served
    partner.forget()
    with partner.acting() as engine:
        stored.source(engine, "zj-ga-households", MATERIALS[1], region="330000")
    return partner


@pytest.fixture
def source() -> Source:
    """Zhejiang's index as packaged, in small pages and without long pauses."""
    packaged = sources.load(NAME)
    changed = packaged.options.model_copy(update={"page_size": 3, "attempts": 2, "backoff_seconds": 0.01})
    return packaged.model_copy(update={"options": changed})


class Reader:
    """The consumer's end without a store: what ``fetch`` lands, from where it goes on."""

    def __init__(self, source: Source, folder: Path, entry: dict[str, Any], wire: Wire) -> None:
        self.source, self.folder, self.entry, self.wire = source, folder, entry, wire
        self.landing = Landing(str(folder))
        self.cursor: dict[str, Any] | None = None

    def connection(self, **extra: Any) -> connections.Connection:
        given = {**self.entry["extra"], **extra}
        return connections.from_uri("zj-hub", self.wire.base, self.entry["username"], self.entry["password"], given)

    def fetch(self) -> Fetched:
        return hub.fetch(self.source, self.connection(), self.cursor, self.landing)

    def read(self) -> list[dict[str, Any]]:
        """The rows of one read; the cursor moves, as after a merge."""
        fetched = self.fetch()
        self.cursor = fetched.cursor
        agreed = indexpages.terms(self.connection())
        rows = []
        for landed in fetched.files:
            with self.landing.open(landed) as stream:
                page = indexpages.opened(stream.read(), agreed, landed.name)
            rows += indexpages.block(page, landed.name).table.to_pylist()
        return rows

    def landed(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]


@pytest.fixture
def reader(partner: PartnerHub, wire: Wire, source: Source, tmp_path: Path) -> Reader:
    return Reader(source, tmp_path / "landing", partner.grant(), wire)


def hold(partner: PartnerHub, count: int = 1, **more: Any) -> list[str]:
    """So many certificates held and announced by the partner; their keys."""
    keys = []
    with partner.acting() as engine:
        for _ in range(count):
            holder = ("holder", "cn.ric", stored.RESIDENT)
            keys.append(
                stored.holding(engine, "zj-ga-households", MATERIALS[1], holder, **{"region": "330106", **more})
            )
            announce(engine, keys[-1])
    return keys


def positions(rows: list[dict[str, Any]]) -> list[int]:
    return [int(row["position"]) for row in rows]


def test_the_whole_feed_then_what_is_new(partner: PartnerHub, reader: Reader, wire: Wire) -> None:
    keys = hold(partner, 8)
    rows = reader.read()
    assert positions(rows) == list(range(1, 9))
    assert {(row["material"], row["status"], row["hub"]) for row in rows} == {(MATERIALS[1], "in_force", "zj")}
    assert [question.get("after") for question in wire.asked] == ["0", "3", "6"]
    assert {question.get("until") for question in wire.asked[1:]} == {"8"}
    epoch = rows[0]["epoch"]
    scope = {"materials": list(MATERIALS), "regions": ["33"]}
    assert reader.cursor == {"epoch": epoch, "position": 8, **scope}
    wire.asked.clear()
    assert reader.read() == [] and [question["after"] for question in wire.asked] == ["8"]
    with partner.acting() as engine:
        withdraw(engine, keys[0])
        move(engine, keys[1], "330203")
        move(engine, keys[2], "310101")
    hold(partner)
    assert [(int(row["position"]), row["status"], row["region"]) for row in reader.read()] == [
        (9, "withdrawn", None),
        (10, "in_force", "330203"),
        (11, "withdrawn", None),
        (12, "in_force", "330106"),
    ]


def test_a_read_ends_where_the_feed_stood_when_it_began(partner: PartnerHub, reader: Reader, wire: Wire) -> None:
    hold(partner, 5)

    def growing(page: bytes) -> bytes:
        hold(partner)
        return page

    wire.change = growing
    assert positions(reader.read()) == [1, 2, 3, 4, 5]
    wire.change = bytes
    assert positions(reader.read()) == [6, 7]


def test_a_new_epoch_is_read_from_the_beginning(partner: PartnerHub, reader: Reader, wire: Wire) -> None:
    hold(partner, 4)
    before = reader.read()
    with partner.acting():
        epoch = peers.rotate("sh")
    after = reader.read()
    assert positions(after) == positions(before) == [1, 2, 3, 4]
    assert (reader.cursor["epoch"], reader.cursor["position"]) == (epoch, 4)
    assert not {row["handle"] for row in before} & {row["handle"] for row in after}

    def rotating(page: bytes) -> bytes:
        with partner.acting():
            peers.rotate("sh")
        return page

    reader.cursor, wire.change = None, rotating
    with pytest.raises(RetriableError) as changed:
        reader.read()
    assert changed.value.code == "index-epoch-changed"


def _flipped(place: str) -> Callable[[bytes], bytes]:
    """One character of a part of the page is another one."""

    def change(page: bytes) -> bytes:
        parts = page.decode().split(".")
        which = {"header": 0, "payload": 1, "signature": 2}[place.split()[0]]
        at = -1 if place.endswith("end") else len(parts[which]) // 2
        text = list(parts[which])
        text[at] = "A" if text[at] != "A" else "B"
        parts[which] = "".join(text)
        return ".".join(parts).encode()

    return change


def _unsigned(page: bytes) -> bytes:
    header = base64url(json.dumps({"alg": "none", "typ": signature.TYPE}).encode())
    return f"{header}.{page.decode().split('.')[1]}.".encode()


def _resigned(page: bytes, kid: str | None = None) -> bytes:
    payload = page.decode().split(".")[1]
    other = OKPKey.generate_key("Ed25519")
    if kid is None:
        return signature.sign(base64.urlsafe_b64decode(payload + "=="), other).encode()
    from joserfc import jws

    header = {"alg": signature.ALGORITHM, "kid": kid, "typ": signature.TYPE}
    registry = jws.JWSRegistry(algorithms=[signature.ALGORITHM])
    return jws.serialize_compact(header, base64.urlsafe_b64decode(payload + "=="), other, registry=registry).encode()


TAMPERED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a byte of the header": (_flipped("header"), "index-signature"),
    "a byte of the payload": (_flipped("payload"), "index-signature"),
    "the payload's last byte": (_flipped("payload end"), "index-signature"),
    "a byte of the signature": (_flipped("signature"), "index-signature"),
    "the signature's last byte": (_flipped("signature end"), "index-signature"),
    "no signature": (_unsigned, "index-signature"),
    "half a page": (lambda page: page[: len(page) // 2], "index-signature"),
    "a page of the web": (lambda page: b"<html></html>", "index-signature"),
    "nothing": (lambda page: b"", "index-signature"),
    "another key": (_resigned, "index-key-unknown"),
}


def _refused(reader: Reader, subtests: pytest.Subtests, cases: dict[str, tuple[Callable[[bytes], bytes], str]]) -> None:
    for what, (change, code) in cases.items():
        with subtests.test(msg=what):
            reader.wire.change = change
            with pytest.raises(FatalError) as refused:
                reader.fetch()
            assert refused.value.code == code and reader.landed() == []
    reader.wire.change = bytes
    assert len(reader.read()) == 2, "the same page, left alone, is good"


def test_a_page_that_was_meddled_with_is_refused(
    partner: PartnerHub, reader: Reader, subtests: pytest.Subtests
) -> None:
    hold(partner, 2)
    _refused(reader, subtests, TAMPERED)


def test_a_forged_page_under_the_partners_key_id(partner: PartnerHub, reader: Reader, wire: Wire) -> None:
    hold(partner, 2)
    kid = signature.public_key(reader.entry["extra"]["public_key"]).thumbprint()
    wire.change = lambda page: _resigned(page, kid)
    with pytest.raises(FatalError) as refused:
        reader.fetch()
    assert refused.value.code == "index-signature" and reader.landed() == []


def _frames(partner: PartnerHub, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[bytes], bytes]:
    """Pages that the partner really signed, with something wrong in them."""

    def changed(page: bytes) -> bytes:
        frame = json.loads(base64.urlsafe_b64decode(page.decode().split(".")[1] + "=="))
        with partner.acting():
            return signing.sign(json.dumps({**frame, **change(frame)}).encode()).encode()

    return changed


def _moment(minutes: float) -> str:
    return (dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes)).isoformat()


WRONG: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "another version": (lambda _: {"protocol": "yici-index/1"}, "index-page-foreign"),
    "another hub": (lambda _: {"hub": "js"}, "index-page-foreign"),
    "another region": (lambda _: {"region": "320000"}, "index-page-foreign"),
    "for another peer": (lambda _: {"peer": "js"}, "index-page-foreign"),
    "regions of another province": (lambda _: {"regions": ["33", "31"]}, "index-page-foreign"),
    "the whole nation": (lambda _: {"regions": ["00"]}, "index-page-foreign"),
    "a status of its own": (
        lambda frame: {"entries": [{**frame["entries"][0], "status": "annulled"}, *frame["entries"][1:]]},
        "index-page-form",
    ),
    "not where we asked": (lambda _: {"after": 1}, "index-page-order"),
    "ends before it begins": (lambda frame: {"after": 0, "to": -1}, "index-page-form"),
    "beyond its head": (lambda frame: {"to": frame["head"] + 1}, "index-page-order"),
    "an entry beyond its end": (lambda _: {"to": 1}, "index-page-order"),
    "backwards": (lambda frame: {"entries": frame["entries"][::-1]}, "index-page-order"),
    "an entry twice": (lambda frame: {"entries": frame["entries"][:1] * 2}, "index-page-order"),
    "an hour old": (lambda _: {"issued_at": _moment(-60)}, "index-page-stale"),
    "of tomorrow": (lambda _: {"issued_at": _moment(60 * 24)}, "index-page-stale"),
    "without a zone": (lambda _: {"issued_at": "2026-03-01T08:00:00"}, "index-page-form"),
    "no entries": (lambda _: {"entries": {}}, "index-page-form"),
    "half a character": (lambda frame: {"entries": [{"handle": "\ud800"}]}, "index-page-form"),
    "no epoch": (lambda _: {"epoch": ""}, "index-page-form"),
}


def test_a_signed_page_that_breaks_the_protocol_is_refused(
    partner: PartnerHub, reader: Reader, subtests: pytest.Subtests
) -> None:
    hold(partner, 2)
    _refused(reader, subtests, {what: (_frames(partner, change), code) for what, (change, code) in WRONG.items()})


def test_pages_made_for_somebody_else(partner: PartnerHub, reader: Reader, wire: Wire) -> None:
    hold(partner, 2)
    other = Reader(reader.source, reader.folder / "js", partner.grant("js"), wire)
    kept: list[bytes] = []
    wire.change = lambda page: kept.append(page) or page  # type: ignore[func-returns-value]
    assert len(other.read()) == 2
    wire.change = lambda page: kept[0]
    with pytest.raises(FatalError) as refused:
        reader.fetch()
    assert refused.value.code == "index-page-foreign"


def test_an_old_page_played_again(partner: PartnerHub, reader: Reader, wire: Wire) -> None:
    hold(partner, 2)
    kept: list[bytes] = []
    wire.change = lambda page: kept.append(page) or page  # type: ignore[func-returns-value]
    reader.read()
    hold(partner, 2)
    wire.change = lambda page: kept[0]
    with pytest.raises(FatalError) as refused:
        reader.fetch()
    assert refused.value.code == "index-page-order", "it goes on after 0, and we are at 2"
    with partner.acting():
        peers.rotate("sh")
    wire.change = bytes
    reader.read()
    wire.change = lambda page: kept[0]
    reader.cursor = {**reader.cursor, "position": 0}  # type: ignore[dict-item]
    with pytest.raises(FatalError) as refused:
        reader.fetch()
    assert refused.value.code == "index-epoch-back"


def test_a_head_that_goes_back(partner: PartnerHub, reader: Reader, wire: Wire) -> None:
    hold(partner, 4)
    reader.read()
    with partner.acting() as engine, engine.begin() as connection:  # as after restoring yesterday's backup
        connection.execute(sa.text("DELETE FROM feed WHERE position > 2"))
        connection.execute(sa.text("UPDATE feed_head SET position = 2"))
    before = reader.landed()
    with pytest.raises(FatalError) as refused:
        reader.fetch()
    assert refused.value.code == "index-head-back" and reader.landed() == before
    with partner.acting():
        peers.rotate("sh")
    assert positions(reader.read()) == [1, 2], "the way out that the advice names"


def test_a_head_that_goes_back_while_it_is_read(partner: PartnerHub, reader: Reader, wire: Wire) -> None:
    hold(partner, 7)
    wire.change = _frames(partner, lambda frame: {"head": frame["head"] - (frame["after"] == 3)})
    with pytest.raises(FatalError) as refused:
        reader.fetch()
    assert refused.value.code == "index-page-order"
    wire.change = _frames(partner, lambda frame: {"to": 3, "entries": []} if frame["after"] == 3 else {})
    with pytest.raises(FatalError) as refused:
        reader.fetch()
    assert refused.value.code == "index-page-order", "a page that leads nowhere would be asked for for ever"


def test_revoked_at_once(partner: PartnerHub, reader: Reader, wire: Wire) -> None:
    hold(partner, 5)

    def revoking(page: bytes) -> bytes:
        with partner.acting():
            peers.revoke("sh")
        return page

    wire.change = revoking
    with pytest.raises(FatalError) as refused:
        reader.fetch()
    assert refused.value.code == "rest-forbidden", "a token in hand does not help"
    with pytest.raises(YiciError):
        reader.fetch()


def test_a_new_key_beside_the_old_one(partner: PartnerHub, reader: Reader) -> None:
    hold(partner)
    other = OKPKey.generate_key("Ed25519").as_dict(private=False)["x"]
    reader.entry["extra"]["public_key"] = [other, reader.entry["extra"]["public_key"]]
    assert len(reader.read()) == 1


@pytest.mark.parametrize(
    ("changed", "what"),
    [({"public_key": ""}, "public_key"), ({"public_key": "AAAA"}, "public_key"), ({"public_key": []}, "public_key"),
     ({"public_key": "*" * 43}, "public_key"), ({"hub": None}, "hub")],
)  # fmt: skip
def test_a_connection_that_lacks_something(reader: Reader, changed: dict[str, Any], what: str) -> None:
    with pytest.raises(FatalError) as refused:
        hub.fetch(reader.source, reader.connection(**changed), None, reader.landing)
    assert refused.value.code == "index-connection-incomplete" and refused.value.values["what"] == what


def test_check(partner: PartnerHub, reader: Reader, wire: Wire) -> None:
    hold(partner)
    steps = hub.check(reader.source, reader.connection())
    assert [step.step for step in steps] == ["name", "port", "agreement", "login", "signature", "announced", "clock"]
    assert all(step.ok for step in steps)
    assert "household-register" in steps[5].detail and "epoch" in steps[5].detail

    def last(**extra: Any) -> tuple[str, bool]:
        found = hub.check(reader.source, reader.connection(**extra))
        assert all(step.ok for step in found[:-1]) and (found[-1].ok or found[-1].advice)
        return found[-1].step, found[-1].ok

    assert last(public_key="") == ("agreement", False)
    assert last(public_key=base64url(bytes(range(32)))) == ("signature", False)
    assert last(hub="js") == ("signature", False)
    wire.change = _frames(partner, lambda _: {"issued_at": _moment(-60)})
    assert last() == ("clock", False)
    reader.entry["password"] = "wrong"
    assert last() == ("login", False)
    closed = connections.from_uri("zj-hub", "http://127.0.0.1:1")
    assert [(step.step, step.ok) for step in hub.check(reader.source, closed)] == [("name", True), ("port", False)]


# From here on with a store: whole runs of the packaged source.


@pytest.fixture
def shanghai(store: sa.Engine, partner: PartnerHub, wire: Wire, tmp_path: Path) -> dict[str, Any]:
    """Shanghai's home knows Zhejiang's hub; returned is the connection."""
    entry = {**partner.grant(), "url": wire.base}
    connect(tmp_path / "home", entry)
    return entry


def entries() -> list[tuple[Any, ...]]:
    with database.engine().connect() as connection:
        found = connection.execute(
            sa.text(
                """SELECT material, role, region, status, epoch FROM index_entry
                WHERE source = :name AND recorded_to IS NULL ORDER BY handle, identifier"""
            ),
            {"name": NAME},
        )
        return [tuple(row) for row in found]


def test_a_run_fills_the_index(partner: PartnerHub, shanghai: dict[str, Any]) -> None:
    keys = hold(partner, 5)
    summary = pipeline.run(NAME)
    assert (summary["fetched"], summary["accepted"]) == (5, 5)
    found = entries()
    assert len(found) == 5
    assert {row[:4] for row in found} == {(MATERIALS[1], "holder", "330106", "in_force")}
    assert pipeline.run(NAME)["fetched"] == 0
    with partner.acting() as engine:
        withdraw(engine, keys[0])
        move(engine, keys[1], "330203")
    assert pipeline.run(NAME)["accepted"] == 2
    assert sorted(row[2] for row in entries()) == ["330106", "330106", "330106", "330203"]
    with partner.acting():
        epoch = peers.rotate("sh")
    assert pipeline.run(NAME)["accepted"] == 5
    assert len(entries()) == 4 and {row[4] for row in entries()} == {epoch}


def test_a_refused_page_changes_nothing(
    partner: PartnerHub, shanghai: dict[str, Any], wire: Wire, tmp_path: Path
) -> None:
    hold(partner, 2)
    pipeline.run(NAME)

    def state() -> tuple[Any, ...]:
        with database.engine().connect() as connection:
            cursor = connection.scalar(sa.text("SELECT cursor FROM source WHERE name = :name"), {"name": NAME})
        return entries(), cursor, sorted(str(path) for path in (tmp_path / "home" / "landing" / "raw").rglob("*"))

    before = state()
    hold(partner, 2)
    for change, code in (TAMPERED["a byte of the payload"], TAMPERED["another key"]):
        wire.change = change
        with pytest.raises(FatalError) as refused:
            pipeline.run(NAME)
        assert refused.value.code == code and state() == before
    with partner.acting():
        peers.revoke("sh")
    wire.change = bytes
    with pytest.raises(FatalError):
        pipeline.run(NAME)
    assert state() == before, "what a partner said while it was one stays until it says otherwise or its promise ends"


def test_a_page_kept_is_verified_again(
    partner: PartnerHub, shanghai: dict[str, Any], wire: Wire, tmp_path: Path
) -> None:
    hold(partner, 2)
    kept: list[bytes] = []
    wire.change = lambda page: kept.append(page) or page  # type: ignore[func-returns-value]
    pipeline.run(NAME)
    page = tmp_path / "page.jws"
    page.write_bytes(kept[0])
    assert pipeline.run(NAME, input=page)["unchanged"] == 2
    page.write_bytes(TAMPERED["a byte of the payload"][0](kept[0]))
    with pytest.raises(FatalError) as refused:
        pipeline.run(NAME, input=page)
    assert refused.value.code == "index-signature"
    (tmp_path / "home" / "connections.json").unlink()
    with pytest.raises(FatalError) as refused:
        pipeline.run(NAME, input=page)
    assert refused.value.code == "index-connection-missing" and "YICI_CONN_ZJ_HUB" in str(refused.value)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_killed_between_two_pages(
    partner: PartnerHub, shanghai: dict[str, Any], wire: Wire, monkeypatch: pytest.MonkeyPatch, source: Source
) -> None:
    monkeypatch.setattr(sources, "load", lambda name, root=None: source)
    hold(partner, 7)
    wire.hold_after = 1
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            pipeline.run(NAME)
        os._exit(0)
    deadline = time.monotonic() + 30
    while len(wire.asked) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(wire.asked) == 2, "killed while it waited for the second page"
    assert entries() == []
    wire.hold_after = None
    assert pipeline.run(NAME)["accepted"] == 7
    assert len(entries()) == 7
