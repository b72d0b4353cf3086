"""A page that landed, read: rows, what is no row, what is refused. Pages are signed with the key of docs/protocol.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from connectors import indexpages, reading, signature
from connectors import source as sources
from connectors.block import ROW, Block
from connectors.errors import FatalError
from connectors.indexpages import Terms
from connectors.landing import Landing
from mappings.model import STATUSES
from tests import examplepage
from tests.examplepage import entry, page

TERMS = Terms((signature.public_key(examplepage.public_key()),), "zj", "sh")


def block(entries: list[Any]) -> Block:
    return indexpages.block(indexpages.opened(page(entries), TERMS, "a page"), "a page")


def test_every_value_is_text() -> None:
    table = block([entry(1, position="7", valid_to=20301231, digest=None), entry(2, subjects=[])]).table
    assert tuple(table.column_names) == (*indexpages.COLUMNS, ROW)
    first, second = table.to_pylist()
    assert (first["position"], first["valid_to"], first["digest"], first["epoch"]) == (
        "7", "20301231", None, examplepage.EPOCH,
    )  # fmt: skip
    assert first["subjects"] == f"holder:{examplepage.subject('holder', 'cn.ric', examplepage.RESIDENT)['id']}"
    assert (second["subjects"], second[ROW]) == ("", 2)


def test_several_subjects() -> None:
    subjects = [{"role": "spouse_a", "id": "1" * 32, "later": 1}, {"role": "b", "id": "a" * 32}]
    [row] = block([entry(1, subjects=subjects)]).table.to_pylist()
    assert row["subjects"] == f"spouse_a:{'1' * 32} b:{'a' * 32}"


GOOD = {"role": "holder", "id": "1" * 32}


@pytest.mark.parametrize(
    "changed",
    [{"status": status} for status in ("annulled", "", None, 5, "IN_FORCE")]
    + [{"subjects": [GOOD, {**GOOD, **bad}]} for bad in (
        {"role": f"holder:{'2' * 32} spouse"}, {"role": "Holder"}, {"role": ""}, {"role": None}, {"id": "1" * 31},
        {"id": f"{'1' * 32} holder:{'2' * 32}"}, {"id": "A" * 32}, {"id": None}, {"id": "1" * 32 + "\n"})]
    + [{"subjects": [GOOD, None]}, {"subjects": [GOOD, "text"]}],
)  # fmt: skip
def test_a_status_or_a_subject_the_protocol_does_not_have_refuses_the_page(changed: dict[str, Any]) -> None:
    assert block([entry(1, subjects=[GOOD]), entry(2)]).table.num_rows == 2
    with pytest.raises(FatalError) as error:
        block([entry(1), entry(2, **changed), entry(3)])
    assert error.value.code == "index-page-form"


def test_the_statuses_are_those_of_the_model() -> None:
    assert set(indexpages.STATUSES) == {*STATUSES, "withdrawn"}


@pytest.mark.parametrize(
    ("regions", "good"),
    [(["33"], True), (["330000", "3301", "330106"], True), ([], True), (["31"], False), (["00"], False),
     (["000000"], False), (["3"], False), (["33", "310115"], False)],
)  # fmt: skip
def test_no_page_is_about_other_regions_than_the_publishers(regions: list[str], good: bool) -> None:
    body = page([entry(1)], regions=regions)
    if good:
        assert indexpages.opened(body, TERMS, "a page").regions == tuple(regions)
        return
    with pytest.raises(FatalError) as error:
        indexpages.opened(body, TERMS, "a page")
    assert (error.value.code, error.value.values["what"]) == ("index-page-foreign", "regions")


def test_no_hub_speaks_for_the_nation() -> None:
    with pytest.raises(FatalError) as error:
        indexpages.opened(page([], region="000000", regions=["00"]), TERMS, "a page")
    assert error.value.code == "index-page-form"


def test_what_is_no_entry_is_malformed() -> None:
    found = block([entry(1), "text", None, 5, [entry(2)], {"handle": "a\0b"}, {"status": "expired"}, entry(8)])
    assert found.table[ROW].to_pylist() == [1, 7, 8]
    assert [(line[ROW], line["reason"]) for line in found.malformed.to_pylist()] == [
        (2, "not-an-object"), (3, "not-an-object"), (4, "not-an-object"), (5, "not-an-object"), (6, "nul-character"),
    ]  # fmt: skip
    assert found.malformed["raw"].to_pylist()[0] == b'"text"'


def test_an_empty_page_has_its_columns() -> None:
    found = block([])
    assert found.table.num_rows == 0 and tuple(found.table.column_names) == (*indexpages.COLUMNS, ROW)


def test_members_of_later_versions_are_left_alone() -> None:
    body = page([entry(1, evidence={"href": "x"})], reconciliation={"root": "00"})
    assert indexpages.block(indexpages.opened(body, TERMS, "a page"), "a page").table.num_rows == 1


def test_readable_positions() -> None:
    entries = [entry(1), entry(2, position=None), entry(3, position="x"), entry(4, position=-4), entry(5)]
    assert indexpages.positions(block(entries)).to_pylist() == [1, 5]


def test_a_whole_page_of_ten_thousand_in_bounded_time() -> None:
    assert block([entry(1)] * 10_000).table.num_rows == 10_000


@pytest.fixture
def landed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    zone = Landing(str(tmp_path))
    monkeypatch.setenv("YICI_HOME", str(tmp_path))
    monkeypatch.setenv("YICI_CONN_ZJ_HUB", json.dumps(examplepage.connection()))

    def read(body: bytes) -> list[Block]:
        return list(reading.blocks(sources.load("zj-hub-index"), zone.put(body, "page-1.jws"), zone))

    return read


def test_a_landed_page(landed: Any) -> None:
    [found] = landed(page([entry(1), entry(2)]) + b"\n")
    assert found.table.num_rows == 2


def refused(read: Any, body: bytes) -> str:
    with pytest.raises(FatalError) as error:
        read(body)
    assert "page-1.jws" in str(error.value)
    return error.value.code


def test_a_landed_page_is_verified(landed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    good = page([entry(1)])
    assert refused(landed, good[:-1] + (b"A" if good[-1:] != b"A" else b"B")) == "index-signature"
    assert refused(landed, b"{}") == "index-signature"
    assert refused(landed, page([entry(1)], private=bytes(32))) == "index-key-unknown"
    assert refused(landed, page([entry(1)], peer="js")) == "index-page-foreign"
    assert refused(landed, page([entry(1)], epoch="a b")) == "index-page-form"
    monkeypatch.setenv("YICI_CONN_ZJ_HUB", json.dumps(examplepage.connection(hub="ah")))
    assert refused(landed, good) == "index-page-foreign"
    monkeypatch.delenv("YICI_CONN_ZJ_HUB")
    assert refused(landed, good) == "index-connection-missing"


def test_a_page_beyond_the_limit(landed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = sources.load("zj-hub-index")
    small = packaged.model_copy(update={"options": packaged.options.model_copy(update={"page_bytes": 500})})
    monkeypatch.setattr(sources, "load", lambda name: small)
    assert refused(landed, page([entry(1)])) == "index-page-form"
