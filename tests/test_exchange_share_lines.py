"""hub/exchange/share_lines.py: lines that every client reads, of every material there is."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import Any

import delta_sharing
import pytest
from delta_sharing.converter import get_empty_table

from hub.exchange import share_lines, shares
from hub.exchange.agreements import Agreement
from hub.exchange.share_versions import Change, File, Version
from mappings import model
from tests.terms import terms

CERTIFICATES = [one.code for one in model.all_materials() if one.kind == "certificate" and one.sharing.class_ != "none"]
NAMED = uuid.UUID("01986f00-0000-7000-8000-00000000a001")
VERSION = Version(3, dt.datetime(2026, 3, 1, 8, 0, 0, 7000, tzinfo=dt.UTC), 9, False)
FILE = File("t/rows/00000-ab.parquet", 10, 9)


def share(code: str) -> tuple[shares.Share, shares.Shared]:
    agreed = terms(NAMED, materials={code: "*"}, modes=["share"])
    found = shares._share(Agreement(NAMED, 1, "sh", True, agreed, "in_force"), None)
    return found, found.tables[code]


def read(lines: list[bytes]) -> list[dict[str, Any]]:
    assert all(line.endswith(b"\n") and line.isascii() and len(line.decode().splitlines()) == 1 for line in lines)
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("form", ["parquet", "delta"])
@pytest.mark.parametrize("code", CERTIFICATES)
def test_metadata_of_every_material(code: str, form: share_lines.Form) -> None:
    found, table = share(code)
    protocol, metadata = read(share_lines.head(form, found, table, tuple(table.columns), VERSION, [FILE, FILE]))
    known = delta_sharing.protocol.Metadata.from_json(metadata["metaData"])
    assert delta_sharing.protocol.Protocol.from_json(protocol["protocol"]).min_reader_version == 1
    assert (known.id, known.name, known.size, known.num_files, known.version) == (
        str(uuid.uuid5(NAMED, code)),
        code,
        20,
        2,
        3,
    )
    schema = json.loads(known.schema_string)
    assert [field["name"] for field in schema["fields"]] == list(table.columns)
    assert list(get_empty_table(schema).columns) == list(table.columns)  # the client knows every type
    fewer = read(share_lines.head(form, found, table, ("status",), VERSION))[1]["metaData"]
    described = fewer.get("deltaMetadata", fewer)
    assert [field["name"] for field in json.loads(described["schemaString"])["fields"]] == [
        "status"
    ] and "size" not in fewer


def test_files() -> None:
    (line,) = read(share_lines.row_files("parquet", VERSION, [(FILE, "https://a/b")], 99))
    assert line["file"] == {
        "url": "https://a/b", "id": "00000-ab", "partitionValues": {}, "size": 10, "timestamp": 1772352000007, "version": 3,
        "expirationTimestamp": 99, "stats": '{"numRecords": 9}',
    }  # fmt: skip
    (line,) = read(share_lines.row_files("delta", VERSION, [(FILE, "https://a/b")], 99))
    action = line["file"].pop("deltaSingleAction")
    assert line["file"] == {
        "id": "00000-ab",
        "size": 10,
        "timestamp": 1772352000007,
        "version": 3,
        "expirationTimestamp": 99,
    }
    assert action == {"add": {"path": "https://a/b", "partitionValues": {}, "size": 10, "dataChange": True,
                              "modificationTime": 1772352000007, "stats": '{"numRecords": 9}'}}  # fmt: skip


def test_changes() -> None:
    changes = [(Change(VERSION, FILE, inserted), "https://a/b") for inserted in (True, False)]
    assert [list(line) for line in read(share_lines.change_files("parquet", changes, 99))] == [["add"], ["cdf"]]
    actions = [line["file"]["deltaSingleAction"] for line in read(share_lines.change_files("delta", changes, 99))]
    assert actions[1] == {"cdc": {"path": "https://a/b", "partitionValues": {}, "size": 10, "dataChange": False}}
    assert list(actions[0]) == ["add"]
