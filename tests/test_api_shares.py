"""Bulk shares over real HTTP, read by the stock Delta Sharing client."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from hub.api.app import create
from hub.exchange import share_tables
from tests.serving import served
from tests.sharing import LICENCE, Reader, agree, as_zj, change, licence


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with served(create()) as address:
        yield address


@pytest.fixture
def reader(store: sa.Engine, base: str, tmp_path: Path) -> Iterator[Reader]:
    """A share with three licences of Zhejiang in its first version, beside one of Shanghai."""
    with as_zj():
        for number in (1, 2, 3):
            licence(store, number)
        licence(store, 9, region="310117")
        named = agree(store)
        share_tables.publish(named)
        yield Reader(store, named, base, tmp_path)


def test_the_stock_client_lists_and_reads(reader: Reader) -> None:
    shares = reader.client.list_shares()
    assert [share.name for share in shares] == [str(reader.named)]
    assert [schema.name for schema in reader.client.list_schemas(shares[0])] == ["materials"]
    tables = reader.client.list_all_tables()
    assert [(table.share, table.schema, table.name) for table in tables] == [(str(reader.named), "materials", LICENCE)]
    found = reader.read().sort_values("certificate_number")
    assert list(found.columns) == [
        "certificate_number", "name", "region", "valid_from", "status", "holder.holder.scheme", "holder.holder.value",
        "holder.holder.name", "attributes.registered_capital", "attributes.registered_on",
    ]  # fmt: skip
    assert list(found["certificate_number"]) == ["33-0001", "33-0002", "33-0003"]
    assert found["attributes.registered_capital"].iloc[1] == {"amount": Decimal("2.5000"), "currency": "CNY"}


@pytest.mark.parametrize("delta", [False, True])
def test_versions_and_changes(reader: Reader, store: sa.Engine, delta: bool) -> None:
    key = licence(store, 4)
    change(store, key, name="改名")
    share_tables.publish(reader.named)
    assert len(reader.read(use_delta_format=delta)) == 4
    assert len(reader.read(version=0, use_delta_format=delta)) == 3
    found = reader.changes(starting_version=0, use_delta_format=delta)
    assert sorted(found["_change_type"]) == ["insert"] * 4
