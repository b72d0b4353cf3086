"""Arrow types and schemas of the exchange model; apart from :mod:`mappings.model`, which the API imports."""

from __future__ import annotations

import pyarrow as pa

from mappings.model import SYSTEM, Material, ValueType

_DECIMAL = pa.decimal128(20, 4)
TYPES: dict[ValueType, pa.DataType] = {
    "string": pa.string(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "integer": pa.int64(),
    "decimal": _DECIMAL,
    "boolean": pa.bool_(),
    "money": pa.struct([("amount", _DECIMAL), ("currency", pa.string())]),
}


def schema(material: Material) -> pa.Schema:
    """The exchange table of one entity, system columns included (see docs/architecture.md)."""
    fields = [pa.field(name, TYPES[kind]) for name, kind in material.columns().items()]
    fields.append(pa.field("_ordinal", pa.int64()))
    fields += [pa.field(name, pa.list_(pa.string())) for name in SYSTEM[1:]]
    return pa.schema(fields)
