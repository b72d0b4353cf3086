"""Two hubs: one announces, the other reads over messages, refuses what is not right, and merges the rest."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from joserfc.jwk import OKPKey

from connectors import channel, envelope, hub, indexpages
from connectors import source as sources
from connectors.envelope import Message
from connectors.errors import FatalError, RetriableError, UsageError, YiciError
from connectors.fetched import Fetched
from connectors.indexframe import KIND
from connectors.landing import Landing
from connectors.signature import base64url
from connectors.source import Source
from hub import index_keys, pipeline
from hub.exchange import agreement_acts, caller, epochs, index_channel, peers
from hub.exchange import keys as own_keys
from hub.home import Home
from tests import stored
from tests.peering import announce, move, withdraw
from tests.reconciling import MATERIAL, REGISTER, SOURCE, Exchange
from tests.twohubs import Hub, introduce, pair

Change = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def both(server_home: Home, template: str) -> Iterator[Exchange]:
    with pair(server_home, template) as made:
        yield Exchange(made)


@pytest.fixture
def exchange(both: Exchange) -> Exchange:
    both.begin(materials={MATERIAL: [], "business-licence": []}, modes=["index"])
    return both


@pytest.fixture
def source() -> Source:
    """Zhejiang's index as packaged, in small pages, one after the other: both hubs live in this process."""
    packaged = sources.load(SOURCE)
    return packaged.model_copy(update={"options": packaged.options.model_copy(update={"page_size": 3, "streams": 1})})


class Reader:
    """The consumer's end without a store of its own: what ``fetch`` lands, from where it goes on."""

    def __init__(self, exchange: Exchange, source: Source, folder: Path, own: Hub | None = None) -> None:
        self.exchange, self.source, self.folder, self.own = exchange, source, folder, own or exchange.sh
        self.landing = Landing(str(folder))
        self.cursor: dict[str, Any] | None = None

    def fetch(self) -> Fetched:
        with self.own.acting():
            way = index_channel.of(self.source)
            return way.completed(hub.fetch(self.source, way, self.cursor, self.landing))

    def read(self) -> list[dict[str, Any]]:
        """The rows of one read; the cursor moves, as after a merge."""
        fetched = self.fetch()
        self.cursor = fetched.cursor
        with self.own.acting():
            way = index_channel.of(self.source)
            blocks = [next(indexpages.blocks(self.source, file, self.landing, way)) for file in fetched.files]
        return [row for block in blocks for row in block.table.to_pylist()]

    def landed(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def records(self, direction: str = "noted") -> list[str]:
        """Outcomes of what the ledger of the consumer says of pages."""
        query = "SELECT outcome FROM exchange_record WHERE kind = :kind AND direction = :direction ORDER BY recorded_at"
        return [row[0] for row in self.exchange.sql(self.own, query, kind=KIND, direction=direction)]


@pytest.fixture
def reader(exchange: Exchange, source: Source, tmp_path: Path) -> Reader:
    return Reader(exchange, source, tmp_path / "landing")


def positions(rows: list[dict[str, Any]]) -> list[int]:
    return [int(row["position"]) for row in rows]


def asked(exchange: Exchange) -> list[dict[str, Any]]:
    """The questions for pages so far."""
    read = [envelope.read(wire) for _, wire in exchange.pair.sent]
    return [json.loads(message.body) for message in read if message.envelope.kind == KIND]


def meddle(exchange: Exchange, change: Change) -> None:
    """What becomes of the pages that Zhejiang gives."""

    def fate(to: Hub, wire: bytes, carry: Callable[[], bytes]) -> bytes:
        return change(carry()) if envelope.read(wire).envelope.kind == KIND else carry()

    exchange.pair.fate = fate


def renew(exchange: Exchange) -> str:
    with exchange.zj.acting():
        return epochs.renew(exchange.named, dt.datetime.now(dt.UTC))


def test_the_whole_feed_then_what_is_new(exchange: Exchange, reader: Reader) -> None:
    keys = exchange.hold(8)
    rows = reader.read()
    assert positions(rows) == list(range(1, 9))
    assert {(row["material"], row["status"], row["hub"]) for row in rows} == {(MATERIAL, "in_force", "zj")}
    epoch = rows[0]["epoch"]
    on = {"limit": 3, "to": 8, "until": 8, "epoch": epoch}
    assert asked(exchange) == [{"limit": 3, "after": 0}, {**on, "after": 3}, {**on, "after": 6}]
    key = reader.cursor.pop("key")
    scope = {"materials": ["business-licence", MATERIAL], "regions": ["33"], "agreement": str(exchange.named)}
    assert reader.cursor == {"epoch": epoch, "position": 8, **scope}
    with exchange.sh.acting():
        unsealed = index_keys.unseal(
            Home(Path(os.environ["YICI_HOME"])), index_keys.of_cursor({"key": key}), f"{SOURCE} {epoch}"
        )
    assert index_keys.subject_id(unsealed, "cn.ric", stored.RESIDENT).hex() == rows[0]["subjects"].partition(":")[2]
    reader.cursor["key"] = key
    exchange.pair.sent.clear()
    assert reader.read() == []
    assert asked(exchange) == [{"limit": 3, "after": 8, "epoch": epoch}] and len(exchange.pair.sent) == 1, (
        "it has the key"
    )
    with exchange.zj.acting() as engine:
        withdraw(engine, keys[0])
        move(engine, keys[1], "330203")
        move(engine, keys[2], "310101")
    exchange.hold()
    assert [(int(row["position"]), row["status"], row["region"]) for row in reader.read()] == [
        (9, "withdrawn", None),
        (10, "in_force", "330203"),
        (11, "withdrawn", None),
        (12, "in_force", "330106"),
    ]


def test_both_ledgers_say_what_was_read(exchange: Exchange, reader: Reader) -> None:
    exchange.hold(4)
    rows = reader.read()
    told = exchange.sql(
        exchange.zj, "SELECT detail, agreement FROM exchange_record WHERE kind = :kind ORDER BY recorded_at", kind=KIND
    )
    epoch = rows[0]["epoch"]
    assert [json.loads(row.detail) for row in told] == [
        {"epoch": epoch, "after": 0, "to": 3, "entries": 3},
        {"epoch": epoch, "after": 3, "to": 4, "entries": 1},
    ]
    assert {row.agreement for row in told} == {f"{exchange.named}/1"}
    assert reader.records("asked") == ["ok", "ok"] and reader.records() == []


def test_a_read_ends_where_the_feed_stood_when_it_began(exchange: Exchange, reader: Reader) -> None:
    exchange.hold(5)

    def growing(page: bytes) -> bytes:
        exchange.hold()
        return page

    meddle(exchange, growing)
    assert positions(reader.read()) == [1, 2, 3, 4, 5]
    exchange.pair.forget_fate()
    assert positions(reader.read()) == [6, 7]


def test_a_new_epoch_is_read_from_the_beginning(exchange: Exchange, reader: Reader) -> None:
    exchange.hold(4)
    before = reader.read()
    epoch = renew(exchange)
    after = reader.read()
    assert positions(after) == positions(before) == [1, 2, 3, 4]
    assert (reader.cursor["epoch"], reader.cursor["position"]) == (epoch, 4)
    assert not {row["handle"] for row in before} & {row["handle"] for row in after}
    assert exchange.pair.outcomes(exchange.zj, KIND)[2] == "index-epoch-over"

    def renewing(page: bytes) -> bytes:
        renew(exchange)
        return page

    reader.cursor = None
    meddle(exchange, renewing)
    with pytest.raises(RetriableError) as changed:
        reader.read()
    assert changed.value.code == "index-epoch-changed"
    exchange.pair.forget_fate()
    reader.source = reader.source.model_copy(
        update={"options": reader.source.options.model_copy(update={"page_size": 9})}
    )
    meddle(exchange, renewing)
    with pytest.raises(RetriableError) as changed:  # between the last page and the key
        reader.read()
    assert changed.value.code == "index-epoch-changed"


def _flipped(place: str) -> Change:
    """One character of a part of the message is another one."""

    def change(wire: bytes) -> bytes:
        sealed, _, body = wire.decode().partition("\n")
        parts = [*sealed.split("."), body]
        which = {"header": 0, "payload": 1, "signature": 2, "body": 3}[place.split()[0]]
        at = -1 if place.endswith("end") else len(parts[which]) // 2
        text = list(parts[which])
        text[at] = "A" if text[at] != "A" else "B"
        parts[which] = "".join(text)
        return f"{'.'.join(parts[:3])}\n{parts[3]}".encode()

    return change


def _unsigned(wire: bytes) -> bytes:
    header = base64url(json.dumps({"alg": "none", "typ": envelope.TYPE}).encode())
    sealed, _, body = wire.partition(b"\n")
    return f"{header}.{sealed.decode().split('.')[1]}.".encode() + b"\n" + body


def _forged(wire: bytes) -> bytes:
    """What an attacker makes of it, whose key nobody knows."""
    message = envelope.read(wire)
    return envelope.seal(message.envelope, message.body, OKPKey.generate_key("Ed25519"))


TAMPERED: dict[str, tuple[Change, str]] = {
    "a byte of the header": (_flipped("header"), "message-signature"),
    "the signature's last byte": (_flipped("signature end"), "message-signature"),
    "a byte of the signature": (_flipped("signature"), "message-signature"),
    "a byte of the page": (_flipped("body"), "message-altered"),
    "the page's last byte": (_flipped("body end"), "message-altered"),
    "no signature": (_unsigned, "message-malformed"),
    "half a page": (lambda wire: wire[: len(wire) * 3 // 4], "message-altered"),
    "a page of the web": (lambda wire: b"<html></html>", "message-malformed"),
    "nothing": (lambda wire: b"", "message-malformed"),
    "another key": (_forged, "message-signature"),
}


def _refused(reader: Reader, subtests: pytest.Subtests, cases: dict[str, tuple[Change, str]], recorded: str) -> None:
    for what, (change, code) in cases.items():
        with subtests.test(msg=what):
            meddle(reader.exchange, change)
            reader.exchange.pair.rested()
            with pytest.raises(FatalError) as refused:
                reader.fetch()
            assert refused.value.code == code and reader.landed() == []
            assert reader.records(recorded)[-1] == code
    reader.exchange.pair.forget_fate()
    reader.exchange.pair.rested()
    assert len(reader.read()) == 2, "the same page, left alone, is good"


def test_a_page_that_was_meddled_with_is_refused(exchange: Exchange, reader: Reader, subtests: pytest.Subtests) -> None:
    exchange.hold(2)
    _refused(reader, subtests, TAMPERED, "asked")


def signed(exchange: Exchange, wire: bytes, body: bytes | None = None, **members: Any) -> bytes:
    """The reply with another body or other members, as Zhejiang itself would sign it."""
    told = envelope.read(wire)
    said = {name: getattr(told.envelope, name) for name in told.envelope.__struct_fields__} | members
    data = told.body if body is None else body
    for name in ("protocol", "digest", "size"):
        said.pop(name)
    with exchange.zj.acting():
        return envelope.seal(envelope.of(data, **said), data, peers.own_key())


def _framed(exchange: Exchange, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    """Pages that the partner really signed, with something wrong in the frame."""

    def changed(wire: bytes) -> bytes:
        line, _, lines = envelope.read(wire).body.partition(b"\n")
        frame = json.loads(line)
        return signed(exchange, wire, orjson.dumps({**frame, **change(frame)}) + b"\n" + lines)

    return changed


def _lines(exchange: Exchange, change: Callable[[list[bytes]], list[bytes]]) -> Change:
    """… and with something wrong below it; ``change`` is given the lines of the entries."""

    def changed(wire: bytes) -> bytes:
        frame, header, *entries = envelope.read(wire).body.splitlines(keepends=True)
        return signed(exchange, wire, b"".join((frame, header, *change(entries))))

    return changed


FRAMES: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "regions of another province": (lambda _: {"regions": ["33", "31"]}, "index-page-foreign"),
    "the whole nation": (lambda _: {"regions": ["00"]}, "index-page-foreign"),
    "a material that was not agreed": (
        lambda frame: {"materials": [*frame["materials"], "resident-id-card"]},
        "index-page-beyond",
    ),
    "a material that is never announced": (
        lambda frame: {"materials": [*frame["materials"], "marriage-certificate"]},
        "index-page-beyond",
    ),
    "less than its entries": (lambda _: {"materials": ["business-licence"]}, "index-page-beyond"),
    "a part, and entries of the rest": (lambda _: {"regions": ["3302"]}, "index-page-beyond"),
    "nowhere": (lambda _: {"regions": []}, "index-page-beyond"),
    "not where we asked": (lambda _: {"after": 1}, "index-page-order"),
    "ends before it begins": (lambda _: {"after": 0, "to": -1}, "index-page-form"),
    "leads nowhere": (lambda _: {"to": 0}, "index-page-order"),
    "beyond its head": (lambda frame: {"to": frame["head"] + 1}, "index-page-order"),
    "an entry beyond its end": (lambda _: {"to": 1}, "index-page-order"),
    "no epoch": (lambda _: {"epoch": ""}, "index-page-form"),
    "outside the order of the feed": (lambda _: {"restated": True}, "index-page-form"),
}
LINES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "a status of its own": (lambda lines: [lines[0].replace(b"in_force", b"annulled"), lines[1]], "index-page-form"),
    "a subject of its own": (lambda lines: [lines[0].replace(b"holder:", b"Holder:"), lines[1]], "index-page-form"),
    "another material": (
        lambda lines: [lines[0].replace(MATERIAL.encode(), b"social-insurance-record"), lines[1]],
        "index-page-beyond",
    ),
    "no code of a material": (
        lambda lines: [lines[0].replace(MATERIAL.encode(), b"Household Register"), lines[1]],
        "index-page-beyond",
    ),
    "another province": (lambda lines: [lines[0].replace(b"330106", b"310106"), lines[1]], "index-page-beyond"),
    "another material, withdrawn": (
        lambda lines: [
            lines[0].replace(MATERIAL.encode(), b"resident-id-card").replace(b"in_force", b"withdrawn"),
            lines[1],
        ],
        "index-page-beyond",
    ),
    "backwards": (lambda lines: lines[::-1], "index-page-order"),
    "an entry twice": (lambda lines: lines[:1] * 2, "index-page-order"),
    "no end": (lambda lines: [lines[0], lines[1][:-1]], "index-page-form"),
    "half a character": (lambda lines: [lines[0].replace(b"330106", b"3301\xe4"), lines[1]], "index-page-form"),
    "a quote": (lambda lines: [lines[0].replace(b"330106", b'"33"'), lines[1]], "index-page-form"),
    "a NUL": (lambda lines: [lines[0].replace(b"330106", b"33\0"), lines[1]], "index-page-form"),
}


def test_a_signed_page_that_breaks_the_protocol_is_refused(
    exchange: Exchange, reader: Reader, subtests: pytest.Subtests
) -> None:
    exchange.hold(2)
    cases = {what: (_framed(exchange, change), code) for what, (change, code) in FRAMES.items()}
    cases |= {what: (_lines(exchange, change), code) for what, (change, code) in LINES.items()}
    cases["no lines at all"] = (lambda wire: signed(exchange, wire, wire.splitlines()[1]), "index-page-form")
    cases["of another type"] = (lambda wire: signed(exchange, wire, type="application/json"), "index-page-form")
    _refused(reader, subtests, cases, "noted")


def test_what_goes_beyond_a_part_of_the_province_is_refused(
    both: Exchange, source: Source, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """Of whole pages: what they say they tell of, what they tell, and an entry that names no region and so may be of any."""
    both.begin(materials={MATERIAL: []}, modes=["index"], regions=["3301", "330203"])
    both.hold(1, region="330106")
    both.hold(1, region="330203")
    both.hold(1, region="330212")  # never announced
    reader = Reader(both, source, tmp_path)
    cases = {
        what: (_framed(both, lambda _, told=told: {"regions": told}), "index-page-beyond")  # type: ignore[misc]
        for what, told in {
            "the province": ["33"], "the province as a code": ["330000"], "more of the city": ["3301", "3302"], "the district beside": ["330212"],
        }.items()
    }  # fmt: skip
    for what, other in {"beside it": b"330206", "none": b"", "the province alone": b"330000"}.items():
        cases[f"an entry, {what}"] = (
            _lines(both, lambda lines, other=other: [lines[0].replace(b"330106", other), *lines[1:]]),  # type: ignore[misc]
            "index-page-beyond",
        )
    _refused(reader, subtests, cases, "noted")
    assert reader.cursor["regions"] == ["3301", "330203"]


def test_whose_fault_it_is_stands_in_the_error_and_nothing_of_it_is_merged(exchange: Exchange) -> None:
    exchange.hold(2)
    exchange.read()
    kept = "SELECT cursor::text, (SELECT count(*) FROM index_entry), (SELECT count(*) FROM index_scope) FROM source"
    [before] = exchange.sql(exchange.sh, kept)
    exchange.hold(3)
    meddle(exchange, _framed(exchange, lambda frame: {"materials": [*frame["materials"], "marriage-certificate"]}))
    with pytest.raises(FatalError) as refused:
        exchange.read()
    said = str(refused.value)
    assert refused.value.code == "index-page-beyond" and "The fault is zj's" in said
    assert "marriage-certificate" in said and f"{exchange.named}/1" in said and MATERIAL in said
    assert exchange.sql(exchange.sh, kept) == [before]
    [noted] = exchange.sql(exchange.sh, "SELECT outcome, agreement FROM exchange_record WHERE direction = 'noted'")
    assert tuple(noted) == ("index-page-beyond", f"{exchange.named}/1")
    exchange.pair.forget_fate()
    assert exchange.read()["accepted"] == 3


def test_what_was_taken_in_before_pages_were_held_to_the_agreement_goes(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries with healing, the scope with the next read of the epoch."""
    exchange.hold(2)

    def beyond(wire: bytes) -> bytes:
        frame, header, first, *rest = envelope.read(wire).body.splitlines(keepends=True)
        frame = frame.replace(b'"materials":[', b'"materials":["marriage-certificate",')
        first = first.replace(MATERIAL.encode(), b"marriage-certificate")
        return signed(exchange, wire, b"".join((frame, header, first, *rest)))

    with monkeypatch.context() as before:
        before.setattr(indexpages, "require_agreed", lambda *given: None)
        meddle(exchange, beyond)
        exchange.read()
    exchange.pair.forget_fate()
    materials = "SELECT DISTINCT material FROM {} ORDER BY material"
    entries, scope = materials.format("index_entry WHERE recorded_to IS NULL"), materials.format("index_scope")
    assert [row[0] for row in exchange.sql(exchange.sh, entries)] == [MATERIAL, "marriage-certificate"]
    assert len(exchange.sql(exchange.sh, scope)) == 3
    assert exchange.reconcile(heal=True).equal
    exchange.read()
    assert [row[0] for row in exchange.sql(exchange.sh, entries)] == [MATERIAL]
    assert [row[0] for row in exchange.sql(exchange.sh, scope)] == ["business-licence", MATERIAL]
    assert exchange.reconcile().equal


def test_an_epoch_has_one_scope(exchange: Exchange, reader: Reader) -> None:
    """Of a read the first page's scope is kept: another one later would make its silence mean more, or less."""
    exchange.hold(7)
    meddle(exchange, _framed(exchange, lambda frame: {"materials": [MATERIAL]} if frame["after"] else {}))
    with pytest.raises(FatalError) as refused:
        reader.fetch()
    assert (refused.value.code, refused.value.values["what"]) == ("index-page-foreign", "scope")


def test_a_narrower_version_is_read_anew_and_what_it_leaves_out_goes(exchange: Exchange) -> None:
    """What came under the version before was right then; it stays until the new epoch is read, and not longer."""
    exchange.hold(1, region="330106")
    exchange.hold(1, region="330212")
    exchange.read()
    in_force = "SELECT region FROM index_entry WHERE recorded_to IS NULL ORDER BY region"
    terms = {"materials": {MATERIAL: []}, "modes": ["index"], "regions": ["3301"]}
    replaced: list[int] = []

    def narrowing(page: bytes) -> bytes:
        if not replaced:
            replaced.append(1)
            exchange.pair.agree(id=str(exchange.named), **terms)
        return page

    exchange.hold(1, region="330106")
    meddle(exchange, narrowing)
    with contextlib.suppress(
        YiciError
    ):  # under way: what is asked next, page or key, is asked under the version of before
        exchange.read()
    assert [row[0] for row in exchange.sql(exchange.sh, in_force)] in (
        ["330106", "330212"],
        ["330106", "330106", "330212"],
    )
    exchange.pair.forget_fate()
    exchange.read()
    assert [row[0] for row in exchange.sql(exchange.sh, in_force)] == ["330106", "330106"]
    scope = "SELECT material, regions FROM index_scope WHERE epoch = (SELECT max(epoch) FROM index_key)"
    assert [tuple(row) for row in exchange.sql(exchange.sh, scope)] == [(MATERIAL, ["3301"])]


def test_pages_made_for_somebody_else(exchange: Exchange, reader: Reader, source: Source, tmp_path: Path) -> None:
    exchange.hold(2)
    js = exchange.pair.js
    exchange.pair.agree(exchange.zj, js, receiver="js", modes=["index"])
    other = Reader(exchange, source, tmp_path / "js", js)
    kept: list[bytes] = []
    meddle(exchange, lambda page: kept.append(page) or page)  # type: ignore[func-returns-value]
    assert len(other.read()) == 2
    meddle(exchange, lambda page: kept[0])
    with pytest.raises(FatalError) as refused:
        reader.fetch()
    assert refused.value.code == "message-foreign" and reader.records("asked") == ["message-foreign"]


def test_an_old_page_played_again(exchange: Exchange, reader: Reader) -> None:
    exchange.hold(2)
    kept: list[bytes] = []
    meddle(exchange, lambda page: kept.append(page) or page)  # type: ignore[func-returns-value]
    reader.read()
    exchange.hold(2)
    meddle(exchange, lambda page: kept[0])
    with pytest.raises(FatalError) as refused:
        reader.fetch()
    assert refused.value.code == "reply-foreign", "it answers another question"


def test_an_epoch_that_was_before(exchange: Exchange, reader: Reader) -> None:
    exchange.hold(2)
    reader.read()
    reader.cursor = {**reader.cursor, "epoch": "29990101T000000Z-00000000"}
    with pytest.raises(FatalError) as refused:
        reader.read()
    assert refused.value.code == "index-epoch-back" and reader.records() == ["index-epoch-back"]


def test_a_head_that_goes_back(exchange: Exchange, reader: Reader) -> None:
    exchange.hold(4)
    reader.read()
    exchange.sql(exchange.zj, "DELETE FROM feed WHERE position > 2")  # as after restoring yesterday's backup
    exchange.sql(exchange.zj, "UPDATE feed_head SET position = 2")
    before = reader.landed()
    with pytest.raises(FatalError) as refused:
        reader.fetch()
    assert refused.value.code == "index-head-back" and reader.landed() == before
    renew(exchange)
    assert positions(reader.read()) == [1, 2], "the way out that the advice names"


def test_what_goes_wrong_while_it_is_read(exchange: Exchange, reader: Reader) -> None:
    exchange.hold(7)

    def later(change: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda frame: change if frame["after"] == 3 else {}

    for change, code in (
        ({"head": 6}, "index-head-back"),
        ({"epoch": "20250101T000000Z-00000000"}, "index-page-foreign"),
        ({"to": 3}, "index-page-order"),  # it would be asked for for ever
        ({"to": 8, "head": 8}, "index-page-order"),
    ):
        meddle(exchange, _framed(exchange, later(change)))
        with pytest.raises(FatalError) as refused:
            reader.fetch()
        assert refused.value.code == code


def test_suspended_at_once(exchange: Exchange, reader: Reader) -> None:
    exchange.hold(5)

    def suspending(page: bytes) -> bytes:
        with exchange.zj.acting() as engine, engine.begin() as connection:  # Shanghai has not heard of it yet
            connection.execute(sa.text("UPDATE exchange_agreement SET state = 'suspended', suspended_by = '{zj}'"))
        return page

    meddle(exchange, suspending)
    with pytest.raises(FatalError) as refused:
        reader.fetch()
    assert refused.value.values["code"] == "agreement-suspended", "whoever has begun to read does not read on"
    with exchange.sh.acting():
        agreement_acts.suspend(exchange.named, "tester")
    with pytest.raises(UsageError) as here:
        reader.fetch()
    assert here.value.code == "agreement-suspended", "nor does this side ask"


def test_without_an_agreement_nothing_is_asked(both: Exchange, source: Source, tmp_path: Path) -> None:
    both.begin(modes=["evidence"])
    reader = Reader(both, source, tmp_path)
    both.pair.sent.clear()
    with pytest.raises(UsageError) as refused:
        reader.fetch()
    assert refused.value.code == "mode-not-agreed" and both.pair.sent == []
    reader.source = source.model_copy(update={"connection": "peer:ah"})
    with pytest.raises(UsageError) as unknown:
        reader.fetch()
    assert unknown.value.code == "peer-unknown"
    reader.source = source.model_copy(update={"region": "340000"})
    with pytest.raises(FatalError) as foreign:
        reader.fetch()
    assert (foreign.value.code, foreign.value.values["what"]) == ("index-page-foreign", "region")


def test_the_agreement_that_was_read_under_is_kept_to(exchange: Exchange, reader: Reader) -> None:
    """Another one, later and as good, has an index of its own."""
    exchange.hold(2)
    reader.read()
    other = exchange.pair.agree(modes=["index"], materials={MATERIAL: []})
    exchange.hold()
    assert positions(reader.read()) == [3] and reader.cursor["agreement"] == str(exchange.named)
    for side in (exchange.sh, exchange.zj):
        with side.acting():
            agreement_acts.end(exchange.named, "tester")
    assert positions(reader.read()) == [1, 2, 3] and reader.cursor["agreement"] == str(other)


def test_another_source_reads_the_agreement_that_none_reads(exchange: Exchange, reader: Reader) -> None:
    exchange.hold(2)
    exchange.read()
    reader.source = reader.source.model_copy(update={"name": "zj-hub-index-more"})
    reader.read()
    assert reader.cursor["agreement"] == str(exchange.named), "there is no other"
    older = exchange.pair.agree(modes=["index"], materials={MATERIAL: []})
    exchange.sql(
        exchange.sh, "UPDATE exchange_agreement SET changed_at = now() - interval '1 day' WHERE id = :id", id=older
    )
    reader.cursor = None
    assert len(reader.read()) == 2 and reader.cursor["agreement"] == str(older)


def test_a_new_version_of_the_agreement_reads_on(exchange: Exchange, reader: Reader) -> None:
    exchange.hold(2)
    reader.read()
    terms = {"materials": {MATERIAL: [], "business-licence": []}, "modes": ["index"]}
    exchange.pair.agree(id=str(exchange.named), **terms, purposes=["handle-application", "statistics"])
    exchange.hold()
    assert positions(reader.read()) == [3], "what is announced is the same: so is the epoch"
    assert {row[0] for row in exchange.sql(exchange.sh, "SELECT agreement FROM exchange_record WHERE kind = :k", k=KIND)} == {
        f"{exchange.named}/1", f"{exchange.named}/2"
    }  # fmt: skip


def test_what_was_landed_verifies_after_the_partner_changed_its_key(exchange: Exchange, reader: Reader) -> None:
    exchange.hold(2)
    fetched = reader.fetch()
    with exchange.zj.acting():
        own_keys.rotate(dt.timedelta(0))
    introduce(exchange.pair.hubs)
    with exchange.sh.acting():
        way = index_channel.of(reader.source)
        assert len(way.keys_at(dt.datetime.now(dt.UTC))) == 1 < len(way.peer.keys)
        [block] = indexpages.blocks(reader.source, fetched.files[0], reader.landing, way)
        assert block.table.num_rows == 2
        with reader.landing.open(fetched.files[0]) as stream:
            old = envelope.read(stream.read())
        late = envelope.of(old.body, **{**_said(old), "at": dt.datetime.now(dt.UTC)})
    with exchange.zj.acting():  # who stole the old key cannot use it any more
        first = own_keys._private(own_keys.own().home, own_keys.own().keys[0].file)
        forged = envelope.seal(late, old.body, first)
    with exchange.sh.acting(), pytest.raises(FatalError) as refused:
        indexpages.verified(forged, way, "test")
    assert refused.value.code == "message-signature"
    stated = channel.stated(json.loads(json.dumps(fetched.request["partner"])), "test")
    assert indexpages.verified(old.wire, stated, "test").intact, "the manifest says enough to verify it without a store"


def _said(message: Message) -> dict[str, Any]:
    told = message.envelope
    names = set(told.__struct_fields__) - {"protocol", "digest", "size"}
    return {name: getattr(told, name) for name in names}


# From here on with a store: whole runs of the packaged source.


def entries(exchange: Exchange) -> list[tuple[Any, ...]]:
    return [
        tuple(row)
        for row in exchange.sql(
            exchange.sh,
            """SELECT material, role, region, status, epoch FROM index_entry
            WHERE source = :name AND recorded_to IS NULL ORDER BY handle, identifier""",
            name=SOURCE,
        )
    ]


def test_a_run_fills_the_index(exchange: Exchange) -> None:
    keys = exchange.hold(5)
    summary = exchange.read()
    assert (summary["fetched"], summary["accepted"]) == (5, 5)
    found = entries(exchange)
    assert len(found) == 5
    assert {row[:4] for row in found} == {(MATERIAL, "holder", "330106", "in_force")}
    assert exchange.read()["fetched"] == 0
    with exchange.zj.acting() as engine:
        withdraw(engine, keys[0])
        move(engine, keys[1], "330203")
    assert exchange.read()["accepted"] == 2
    assert sorted(row[2] for row in entries(exchange)) == ["330106", "330106", "330106", "330203"]
    epoch = renew(exchange)
    assert exchange.read()["accepted"] == 5
    assert len(entries(exchange)) == 4 and {row[4] for row in entries(exchange)} == {epoch}


def test_a_refused_page_changes_nothing(exchange: Exchange) -> None:
    exchange.hold(2)
    exchange.read()
    landing = Path(exchange.sh.variables["YICI_HOME"]) / "landing" / "raw"

    def state() -> tuple[Any, ...]:
        cursor = exchange.sql(exchange.sh, "SELECT cursor FROM source WHERE name = :name", name=SOURCE)
        return entries(exchange), cursor, sorted(str(path) for path in landing.rglob("*"))

    before = state()
    exchange.hold(2)
    for change, code in (TAMPERED["a byte of the page"], TAMPERED["another key"]):
        meddle(exchange, change)
        with pytest.raises(FatalError) as refused:
            exchange.read()
        assert refused.value.code == code and state() == before
    exchange.pair.forget_fate()
    exchange.pair.rested()
    with exchange.zj.acting():
        agreement_acts.suspend(exchange.named, "tester")
    with pytest.raises(YiciError):
        exchange.read()
    assert state() == before, "what a partner said while it might stays until it says otherwise or its promise ends"


def test_a_page_kept_is_verified_again(exchange: Exchange, tmp_path: Path) -> None:
    exchange.hold(2)
    kept: list[bytes] = []
    meddle(exchange, lambda page: kept.append(page) or page)  # type: ignore[func-returns-value]
    exchange.read()
    page = tmp_path / "page.msg"
    page.write_bytes(kept[0])
    with exchange.sh.acting():
        assert pipeline.run(SOURCE, input=page)["unchanged"] == 2
        page.write_bytes(TAMPERED["a byte of the page"][0](kept[0]))
        with pytest.raises(FatalError) as refused:
            pipeline.run(SOURCE, input=page)
        assert refused.value.code == "message-altered"
        page.write_bytes(kept[0])
        with sa.create_engine(os.environ["YICI_DATABASE_URL"]).begin() as connection:
            peers.remove(connection, "zj")
        assert pipeline.run(SOURCE, input=page)["unchanged"] == 2, "removed as a peer, its word is still its word"


def test_pages_of_a_later_epoch_come_with_its_key_or_not_at_all(exchange: Exchange, tmp_path: Path) -> None:
    """A page by itself would end the epoch that can be looked up, for one that cannot."""
    exchange.hold(2)
    exchange.read()
    before = entries(exchange)
    renew(exchange)
    with exchange.sh.acting():
        agreement = exchange.agreement(exchange.sh)
        page = caller.ask("zj", KIND, {"after": 0}, agreement=agreement)
        (tmp_path / "page.msg").write_bytes(page.wire)
        with pytest.raises(FatalError) as refused:
            pipeline.run(SOURCE, input=tmp_path / "page.msg")
    assert refused.value.code == "index-key-missing" and entries(exchange) == before


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_killed_between_two_pages(
    exchange: Exchange, source: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sources, "load", lambda name, root=None: source)
    exchange.hold(7)
    waiting = tmp_path / "waiting"

    def held(to: Hub, wire: bytes, carry: Callable[[], bytes]) -> bytes:
        if json.loads(envelope.read(wire).body).get("after") == 3:
            waiting.touch()
            time.sleep(30)
        return carry()

    exchange.pair.fate = held
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            exchange.read()
        os._exit(0)
    deadline = time.monotonic() + 30
    while not waiting.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert waiting.exists(), "killed while it waited for the second page"
    assert entries(exchange) == []
    exchange.pair.forget_fate()
    assert exchange.read()["accepted"] == 7
    assert [row.state for row in exchange.sql(exchange.sh, "SELECT state FROM batch ORDER BY started_at")][
        -1
    ] == "merged"


def test_registers_are_not_what_is_read(exchange: Exchange) -> None:
    """What is read over the index is never announced again."""
    exchange.hold(2)
    exchange.read()
    with exchange.sh.acting() as engine:
        announced = exchange.sql(exchange.sh, "SELECT count(*) FROM feed")
        held = exchange.sql(exchange.sh, "SELECT count(*) FROM holding")
        assert engine and (announced, held) == ([(0,)], [(0,)])
    assert REGISTER not in json.dumps(asked(exchange)) and announce
