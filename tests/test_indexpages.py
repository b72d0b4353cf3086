"""A page that landed, read: rows, what is no row, what is refused. Pages are signed with the keys of docs/protocol."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from connectors import channel, indexpages, reading
from connectors import source as sources
from connectors.block import ROW, Block
from connectors.errors import FatalError
from connectors.indexframe import ENTRY, STATUSES
from connectors.landing import Landing
from mappings import model
from tests import examplepage
from tests.examplepage import body, entry, message, page


def opened(told: Any) -> indexpages.Page:
    return indexpages.opened(told, "330000", "a page")


def block(entries: list[Any], **changes: Any) -> Block:
    return indexpages.block(opened(page(entries, **changes)), "a page")


def test_every_value_is_text() -> None:
    table = block([entry(1, position="7", valid_to=20301231, digest=None), entry(2, subjects=None)]).table
    assert tuple(table.column_names) == (*indexpages.COLUMNS, ROW)
    first, second = table.to_pylist()
    assert (first["position"], first["valid_to"], first["digest"], first["epoch"], first["hub"]) == (
        "7", "20301231", None, examplepage.EPOCH, "zj",
    )  # fmt: skip
    assert first["subjects"] == examplepage.subject("holder", "cn.ric", examplepage.RESIDENT)
    assert (second["subjects"], second[ROW]) == (None, 2)


GOOD = f"holder:{'1' * 32}"


@pytest.mark.parametrize(
    "changed",
    [{"status": status} for status in ("annulled", "", None, "IN_FORCE", " in_force")]
    + [{"subjects": subjects} for subjects in (
        f"Holder:{'2' * 32}", f":{'2' * 32}", f"holder{'2' * 32}", f"holder:{'2' * 31}", f"holder:{'A' * 32}",
        f"{GOOD} {GOOD}:", f"{GOOD}  {GOOD}", f" {GOOD}", f"{GOOD} ", "text", f"{GOOD};{GOOD}")],
)  # fmt: skip
def test_a_status_or_a_subject_the_protocol_does_not_have_refuses_the_page(changed: dict[str, Any]) -> None:
    assert block([entry(1, subjects=f"{GOOD} {GOOD}"), entry(2)]).table.num_rows == 2
    with pytest.raises(FatalError) as error:
        block([entry(1), entry(2, **changed), entry(3)])
    assert error.value.code == "index-page-form"


def test_the_statuses_are_those_of_the_model() -> None:
    assert set(STATUSES) == {*model.STATUSES, "withdrawn"}


@pytest.mark.parametrize(
    ("regions", "good"),
    [(["33"], True), (["330000", "3301", "330106"], True), ([], True), (["31"], False), (["00"], False),
     (["000000"], False), (["3"], False), (["33", "310115"], False)],
)  # fmt: skip
def test_no_page_is_about_other_regions_than_the_partners(regions: list[str], good: bool) -> None:
    told = page([entry(1)], regions=regions)
    if good:
        assert opened(told).frame.regions == tuple(regions)
        return
    with pytest.raises(FatalError) as error:
        opened(told)
    assert (error.value.code, error.value.values["what"]) == ("index-page-foreign", "regions")


def test_a_line_with_other_values_is_malformed() -> None:
    found = block([entry(1), "no entry", ",", entry(4, subjects=f"{GOOD},more"), entry(5)])
    assert found.table[ROW].to_pylist() == [1, 5]
    assert [(line[ROW], line["reason"]) for line in found.malformed.to_pylist()] == [
        (2, "column-count"), (3, "column-count"), (4, "column-count"),
    ]  # fmt: skip
    assert found.malformed["raw"].to_pylist()[0] == b"no entry"


@pytest.mark.parametrize(
    "lines",
    [b"", b"\n", b"handle,material\n", body([]).split(b"\n")[1], body([]).split(b"\n")[1] + b",handle\n",
     body([entry(1, region='"33"')]).partition(b"\n")[2], body([entry(1, region="33\0")]).partition(b"\n")[2],
     body([entry(1, region="33\r")]).partition(b"\n")[2], body([entry(1)]).partition(b"\n")[2][:-1],
     body([entry(1)]).partition(b"\n")[2].replace(b"330106", b"33\xff106"), b"\x1f\x8b" + bytes(30),
     body([entry(1), "", entry(3)]).partition(b"\n")[2]],
)  # fmt: skip
def test_what_is_not_plain_lines_is_refused(lines: bytes) -> None:
    frame = body([]).partition(b"\n")[0]
    with pytest.raises(FatalError) as error:
        indexpages.block(opened(message(frame + b"\n" + lines)), "a page")
    assert error.value.code == "index-page-form"


@pytest.mark.parametrize(
    "changes",
    [{"epoch": "a b"}, {"epoch": ""}, {"after": -1}, {"to": 2**63}, {"head": "1"}, {"more": 1}, {"materials": [1]},
     {"regions": [""]}, {"restated": 1}],
)  # fmt: skip
def test_a_frame_that_is_none(changes: dict[str, Any]) -> None:
    with pytest.raises(FatalError) as error:
        opened(message(body([entry(1)], **changes)))
    assert error.value.code == "index-page-form"


@pytest.mark.parametrize(
    "told",
    [message(b""), message(b"[" * 200_000), message(b"\xff{}\n"), message(body([]), type="application/json"),
     message(body([]), kind="index.key"), message(body([], restated=True)), message(body([]), kind="reconcile.records")],
)  # fmt: skip
def test_what_is_no_page(told: Any) -> None:
    with pytest.raises(FatalError) as error:
        opened(told)
    assert error.value.code == "index-page-form"


def test_an_empty_page_has_its_columns() -> None:
    found = block([])
    assert found.table.num_rows == 0 and tuple(found.table.column_names) == (*indexpages.COLUMNS, ROW)


def test_members_and_columns_of_later_versions_are_left_alone() -> None:
    header = ",".join(("evidence", *ENTRY[::-1]))
    lines = [",".join(["x", *(str(value or "") for value in list(entry(1).values())[::-1])])]
    told = message(body(lines, header=header, reconciliation={"root": "00"}))
    [row] = indexpages.block(opened(told), "a page").table.to_pylist()
    assert (row["handle"], row["position"]) == (entry(1)["handle"], "1")


def test_readable_positions() -> None:
    entries = [entry(1), entry(2, position=None), entry(3, position="x"), entry(4, position=-4), entry(5)]
    assert indexpages.positions(block(entries)).to_pylist() == [1, 5]


@pytest.mark.parametrize(
    ("entries", "frame", "good"),
    [([1, 2], {}, True), ([], {"head": 0, "to": 0}, True), ([1, 2], {"to": 5, "head": 9}, True), ([2, 1], {}, False),
     ([1, 1], {}, False), ([1, 3], {}, False), ([1], {"after": 1}, False), ([1], {"head": 0}, False),
     ([], {"after": 2, "to": 1, "head": 3}, False), ([5], {"after": 4, "to": 5, "head": 5}, True)],
)  # fmt: skip
def test_the_order_of_a_page(entries: list[int], frame: dict[str, int], good: bool) -> None:
    told = opened(page([entry(number) for number in entries], **frame))
    assert indexpages.in_order(told, indexpages.block(told, "a page")) == good


def test_a_whole_page_of_twenty_thousand() -> None:
    assert block([entry(1)] * 20_000).table.num_rows == 20_000


@pytest.fixture
def landed(tmp_path: Path) -> Any:
    zone = Landing(str(tmp_path))

    def read(wire: bytes, **changes: Any) -> list[Block]:
        partner = examplepage.partner(**changes)
        file = zone.put(wire, "page-1.msg")
        return list(reading.blocks(sources.load("zj-hub-index"), file, zone, partner=partner))

    return read


def test_a_landed_page(landed: Any) -> None:
    [found] = landed(page([entry(1), entry(2)]).wire)
    assert found.table.num_rows == 2


def test_a_landed_page_is_verified(landed: Any) -> None:
    def refused(wire: bytes, **changes: Any) -> str:
        with pytest.raises(FatalError) as error:
            landed(wire, **changes)
        return error.value.code

    good = page([entry(1)]).wire
    assert refused(good[:-2] + b"x\n") == "message-altered" == refused(good[:-1]) == refused(good + b"\n")
    assert refused(b"{}") == "message-malformed" == refused(b"")
    assert refused(page([entry(1)], bytes(32)).wire) == "message-signature"
    for what in ({"sender": "js"}, {"receiver": "js"}, {"status": "internal"}, {"status": None}):
        assert refused(message(body([entry(1)]), **what).wire) == "index-page-foreign", what
    assert refused(page([entry(1)], epoch="a b").wire) == "index-page-form"
    assert refused(good, hub="ah") == "index-page-foreign" == refused(good, own="js")
    known = examplepage.told()["keys"][0]
    ended = [{**known, "to": "2026-03-01T08:30:00Z"}]
    assert refused(good, keys=ended) == "message-signature", "the key had ended when it was signed"
    assert landed(good, keys=[{**known, "to": "2026-03-01T08:30:01Z"}]), "it has since, which changes nothing"
    assert refused(good, keys=[{**known, "from": "2026-03-01T08:30:01Z"}]) == "message-signature"
    assert refused(good, keys=[]) == "message-signature"


@pytest.mark.parametrize(
    "told",
    [None, {}, [], {"hub": "zj"}, examplepage.told(hub="ZJ"), examplepage.told(keys=[{"public_key": "AAAA", "from": "2026-01-01T00:00:00Z"}]),
     examplepage.told(keys=[{"public_key": examplepage.public_key(), "from": "2026-01-01T00:00:00"}])],
)  # fmt: skip
def test_a_partner_that_is_not_described(told: Any) -> None:
    with pytest.raises(FatalError) as error:
        channel.stated(told, "partner.json")
    assert error.value.code == "index-partner-unreadable" and "partner.json" in str(error.value)


def test_a_partner_as_it_is_written() -> None:
    assert channel.stated(json.loads(json.dumps(examplepage.told())), "x").keys_at(dt.datetime.now(dt.UTC))
