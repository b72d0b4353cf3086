"""hub/exchange/share_rows.py: agreed columns of agreed regions, each value of its type."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from hub.exchange import share_rows, shares
from hub.exchange.share_rows import CHANGED, Range
from mappings import model
from tests import stored
from tests.sharing import LICENCE, SOURCE, agree, as_zj, licence

ALL = Range(0, 0, 0)
NOW = dt.datetime.now(dt.UTC)
CERTIFICATES = [one.code for one in model.all_materials() if one.kind == "certificate" and one.sharing.class_ != "none"]
EXAMPLES: dict[str, tuple[Any, Any]] = {
    "string": ('甲"\\\n\U0001f600', '甲"\\\n\U0001f600'),
    "date": ("2026-03-01", dt.date(2026, 3, 1)),
    "integer": (-7, -7),
    "decimal": ("12.3400", Decimal("12.3400")),
    "boolean": (True, True),
    "money": ({"amount": "12.3400", "currency": "CNY"}, {"amount": Decimal("12.3400"), "currency": "CNY"}),
}


@pytest.fixture(autouse=True)
def zj() -> Iterator[None]:
    with as_zj():
        yield


def read(engine: sa.Engine, material: str = LICENCE, within: Range = ALL, **said: Any) -> share_rows.Rows:
    named = agree(engine, **said)
    with engine.connect() as connection:
        return share_rows.read(connection, shares.of(connection, named, NOW).tables[material], within, changed=False)


@pytest.mark.parametrize("code", CERTIFICATES)
def test_every_column_of_every_material(store: sa.Engine, code: str) -> None:
    """Once with a value in each, once with nothing in any."""
    material = model.load(code)
    kinds = {name: attribute.type for name, attribute in material.attributes.items()}
    holders = [(role, known.schemes[0], f"value-{role}") for role, known in material.holders.items()]
    stored.source(store, "s", code, region="330000")
    full = {name: EXAMPLES[kind][0] for name, kind in kinds.items()}
    said = {"number": "1", "name": "n", "status": "in_force", "valid_from": "2026-01-02", "valid_to": "2027-01-02"}
    one = stored.holding(store, "s", code, *holders, region="330106", attributes=full, **said)
    stored.holding(store, "s", code, region="330106", attributes=dict.fromkeys(kinds))
    found = read(store, code, materials={code: "*"})
    assert found.table.schema.names == [name for name in material.columns() if name != "updated_at"]
    assert found.table.schema == share_rows.schema(_shared(store, code))
    known, empty = sorted(found.table.to_pylist(), key=lambda row: row["certificate_number"] is None)
    for name, kind in kinds.items():
        assert (known[f"attributes.{name}"], empty[f"attributes.{name}"]) == (EXAMPLES[kind][1], None), name
    for role, scheme, value in holders:
        assert [known[f"holder.{role}.{part}"] for part in ("scheme", "value", "name")] == [scheme, value, None]
        assert empty[f"holder.{role}.value"] is None
    assert (known["valid_to"], known["name"], empty["name"]) == (dt.date(2027, 1, 2), "n", None)
    assert bytes.fromhex(one) in found.keys.to_pylist() and found.keys.to_pylist() == sorted(found.keys.to_pylist())


def _shared(engine: sa.Engine, code: str) -> shares.Shared:
    named = agree(engine, materials={code: "*"})
    with engine.connect() as connection:
        return shares.of(connection, named, NOW).tables[code]


def test_only_agreed_columns(store: sa.Engine) -> None:
    licence(store, 1)
    found = read(store, materials={LICENCE: ["attributes.registered_on", "status"]}).table
    assert found.to_pylist() == [{"status": "in_force", "attributes.registered_on": dt.date(2020, 2, 2)}]


def test_only_agreed_regions(store: sa.Engine) -> None:
    """A holding that names no region is of its source's."""
    stored.source(store, "sh", LICENCE, region="310000")
    for number, region in enumerate(("330106", "330200", "310117", "331000")):
        licence(store, number, region=region)
    for source in (SOURCE, "sh"):
        stored.holding(store, source, LICENCE, number=f"of {source}", region=None)  # type: ignore[arg-type]

    def numbers(*regions: str) -> list[str]:
        fields = {LICENCE: ["certificate_number"]}
        return sorted(read(store, regions=list(regions), materials=fields).table["certificate_number"].to_pylist())

    assert numbers("33") == ["33-0000", "33-0001", "33-0003", f"of {SOURCE}"]
    assert numbers("3301", "3310") == ["33-0000", "33-0003"]
    assert numbers("3399") == []


def test_ranges_and_what_changed(store: sa.Engine) -> None:
    keys = sorted(bytes.fromhex(licence(store, number)) for number in range(30))
    named = agree(store)
    with store.connect() as connection:
        shared = shares.of(connection, named, NOW).tables[LICENCE]
        parts = [share_rows.read(connection, shared, Range(2, number, number), changed=False) for number in range(4)]
        assert [key for part in parts for key in part.keys.to_pylist()] == keys
        connection.execute(sa.text(f"CREATE TEMP TABLE {CHANGED} (holding bytea PRIMARY KEY)"))
        picked = [*keys[::7], bytes(16)]
        connection.execute(sa.text(f"INSERT INTO {CHANGED} VALUES (:key)"), [{"key": key} for key in picked])
        changed = share_rows.read(connection, shared, ALL, changed=True)
        assert changed.keys.to_pylist() == picked[:-1]
        none = share_rows.none(shared)
        assert len(none) == 0 and none.table.schema == changed.table.schema and none.keys.type == pa.binary(16)
