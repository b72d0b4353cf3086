"""The lines in which Delta Sharing speaks of a table: protocol, metadata, files; in its ``parquet`` form and in ``delta``.

Every line is ASCII, since clients split at whatever Unicode takes for the end of a line. Statistics are the number of rows and no
more: least and greatest values would be somebody's.

Source: PROTOCOL.md of delta-io/delta-sharing, "API Response Format" and "API Response Format in Delta".
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from hub.exchange.share_versions import Change, File, Version
from hub.exchange.shares import Share, Shared
from mappings.model import ValueType

Form = Literal["parquet", "delta"]

_SCALE = "decimal(20,4)"
_TYPES: dict[ValueType, Any] = {
    "string": "string",
    "date": "date",
    "integer": "long",
    "decimal": _SCALE,
    "boolean": "boolean",
    "money": {
        "type": "struct",
        "fields": [
            {"name": "amount", "type": _SCALE, "nullable": True, "metadata": {}},
            {"name": "currency", "type": "string", "nullable": True, "metadata": {}},
        ],
    },
}


def schema(table: Shared, columns: Sequence[str]) -> str:
    """The columns as Spark's JSON schema; what an attribute is called stands in its comment."""
    fields = [
        {"name": name, "type": _TYPES[table.columns[name]], "nullable": True, "metadata": _comment(table, name)}
        for name in columns
    ]
    return json.dumps({"type": "struct", "fields": fields})


def table_id(share: Share, table: Shared) -> str:
    """Stays the same for as long as the agreement does."""
    return str(uuid.uuid5(share.agreement.id, table.name))


def head(
    form: Form,
    share: Share,
    table: Shared,
    columns: Sequence[str],
    version: Version,
    files: Sequence[File] | None = None,
) -> list[bytes]:
    """Protocol and metadata. ``files``: those of the version, where they are known."""
    described: dict[str, Any] = {
        "id": table_id(share, table),
        "name": table.name,
        "description": f"{table.material.name.zh} {table.material.name.en}",
        "format": {"provider": "parquet"},
        "schemaString": schema(table, columns),
        "partitionColumns": [],
        "configuration": {"enableChangeDataFeed": "true"},
    }
    more: dict[str, Any] = {"version": version.number}
    if files is not None:
        more |= {"size": sum(one.size for one in files), "numFiles": len(files)}
    if form == "parquet":
        return [_line({"protocol": {"minReaderVersion": 1}}), _line({"metaData": described | more})]
    described |= {
        "format": {"provider": "parquet", "options": {}},
        "configuration": {"delta.enableChangeDataFeed": "true"},
        "createdTime": version.milliseconds,
    }
    protocol = {"minReaderVersion": 1, "minWriterVersion": 4}  # the first whose writers keep changes
    return [_line({"protocol": {"deltaProtocol": protocol}}), _line({"metaData": {"deltaMetadata": described, **more}})]


def row_files(form: Form, version: Version, files: Iterable[tuple[File, str]], expires: int) -> list[bytes]:
    """Files of rows, each with its address; ``expires``: when that ends, in milliseconds."""
    if form == "parquet":
        return [_line({"file": _parquet(one, url, version, expires, stats=True)}) for one, url in files]
    return [_delta(one, url, version, expires, "add") for one, url in files]


def change_files(form: Form, changes: Iterable[tuple[Change, str]], expires: int) -> list[bytes]:
    """Files of changes. Rows that are all new are an ``add``, as Delta itself has them."""
    lines = []
    for one, url in changes:
        if form == "parquet":
            said = _parquet(one.file, url, one.version, expires, stats=one.inserted)
            lines.append(_line({"add" if one.inserted else "cdf": said}))
        else:
            lines.append(_delta(one.file, url, one.version, expires, "add" if one.inserted else "cdc"))
    return lines


def _parquet(one: File, url: str, version: Version, expires: int, *, stats: bool) -> dict[str, Any]:
    said: dict[str, Any] = {
        "url": url,
        "id": one.id,
        "partitionValues": {},
        "size": one.size,
        "timestamp": version.milliseconds,
        "version": version.number,
        "expirationTimestamp": expires,
    }
    return {**said, "stats": _stats(one)} if stats else said


def _delta(one: File, url: str, version: Version, expires: int, action: str) -> bytes:
    said: dict[str, Any] = {"path": url, "partitionValues": {}, "size": one.size, "dataChange": action == "add"}
    if action == "add":
        said |= {"modificationTime": version.milliseconds, "stats": _stats(one)}
    wrapped = {
        "id": one.id,
        "size": one.size,
        "timestamp": version.milliseconds,
        "version": version.number,
        "expirationTimestamp": expires,
        "deltaSingleAction": {action: said},
    }
    return _line({"file": wrapped})


def _stats(one: File) -> str:
    return json.dumps({"numRecords": one.rows})


def _comment(table: Shared, name: str) -> dict[str, str]:
    group, _, rest = name.partition(".")
    said = (
        table.material.attributes.get(rest)
        if group == "attributes"
        else table.material.holders.get(rest.partition(".")[0])
    )
    return {"comment": f"{said.name.zh} {said.name.en}"} if said else {}


def _line(said: dict[str, Any]) -> bytes:
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"
