"""What became of each mapped row: one record per row, in the form the merge copies into the database.

Columns: ``ordinal``, ``row_key``, ``digest``, ``file``, ``row``, ``verdict``, ``reasons`` and ``flags`` (codes joined by
a comma), ``raw`` (hex of the raw row as JSON, only where the verdict is not accepted), ``updated_at``, ``natural_key``,
and of an accepted row ``status``, ``issued_on``, ``valid_from``, ``valid_to``, ``region``, ``document`` (JSON).
"""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from mappings.model import Material

CONFLICTING = "conflicting-duplicate"
SCHEMA = pa.schema(
    {
        "ordinal": pa.int64(),
        "row_key": pa.string(),
        "original_key": pa.string(),
        "digest": pa.string(),
        "file": pa.int64(),
        "row": pa.int64(),
        "verdict": pa.string(),
        "reasons": pa.string(),
        "flags": pa.string(),
        "raw": pa.string(),
        "updated_at": pa.timestamp("us", "UTC"),
        "natural_key": pa.string(),
        "status": pa.string(),
        "issued_on": pa.date32(),
        "valid_from": pa.date32(),
        "valid_to": pa.date32(),
        "region": pa.string(),
        "document": pa.string(),
    }
)
ENVELOPE = ("certificate_identifier", "certificate_number", "name", "issuer_code", "issuer_name", "region", "issued_on",
            "valid_from", "valid_to", "status")  # fmt: skip
SYSTEM = ("_row", "_ordinal", "_row_key", "_digest", "_seen_at", "_file", "_ledger_key", "_conflicting")


def of_rows(material: Material, raw: pa.Table, gated: pa.Table, released: pa.Array) -> pa.Table:
    """Outcome of gated rows. ``raw``: the rows before mapping, in the same order; ``released``: digests of row versions
    that an operator let pass: accepted unless they cannot be read at all."""
    holders = ", ".join(
        f"""{{'role': '{role}', 'scheme': "holder.{role}.scheme", 'value': "holder.{role}.value",
            'name': "holder.{role}.name"}}"""
        for role in material.holders
    )
    holders = f"list_filter([{holders}], lambda h: h.value IS NOT NULL)" if holders else "[]::VARCHAR[]"
    envelope = ", ".join(f"'{name}': \"{name}\"" for name in ENVELOPE)
    with duckdb.connect(config={"threads": 1}) as engine:
        engine.execute("SET TimeZone = 'UTC'")
        engine.register("gated", _with_raw(raw, gated))
        engine.register("released", pa.table({"digest": released}))
        return engine.sql(_OUTCOME.format(envelope=envelope, holders=holders)).to_arrow_table().cast(SCHEMA)


def of_malformed(table: pa.Table) -> pa.Table:
    """Outcome of lines that are no rows: rejected, with their bytes. ``table``: a chunk of malformed lines."""
    with duckdb.connect(config={"threads": 1}) as engine:
        engine.register("lines", table)
        found = engine.sql(
            """SELECT _ordinal AS ordinal, _row_key AS row_key, _row_key AS original_key, _digest AS digest,
               _file AS file, _row AS row, 'rejected' AS verdict, reason AS reasons, '' AS flags, hex(raw) AS raw
               FROM lines ORDER BY _ordinal"""
        ).to_arrow_table()
    for field in SCHEMA:
        if field.name not in found.column_names:
            found = found.append_column(field, pa.nulls(found.num_rows, field.type))
    return found.select(SCHEMA.names).cast(SCHEMA)


def counts(table: pa.Table, column: str) -> dict[str, int]:
    """How often each comma-joined code occurs in ``column``."""
    codes = pc.list_flatten(pc.split_pattern(pc.drop_null(table[column]), ","))
    codes = codes.filter(pc.not_equal(codes, ""))
    if isinstance(codes, pa.ChunkedArray):
        codes = codes.combine_chunks()
    found = pc.value_counts(codes)
    return dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True))


def _with_raw(raw: pa.Table, gated: pa.Table) -> pa.Table:
    """The gated table with the raw row as JSON in ``_raw``; order is the same, and checked."""
    assert raw["_ordinal"].equals(gated["_ordinal"]), "mapping changed the order of rows"
    names = [name for name in raw.column_names if name not in SYSTEM]
    pairs = ", ".join(f"{_literal(name)}: {_quoted(name)}" for name in names)
    with duckdb.connect(config={"threads": 1}) as engine:
        engine.register("raw", raw)
        texts = engine.sql(f"SELECT to_json({{{pairs}}})::VARCHAR AS t FROM raw").to_arrow_table()
    return gated.append_column("_raw", texts["t"])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"


_OUTCOME = """
WITH judged AS (
  SELECT *,
    CASE
      WHEN _verdict = 'rejected' OR natural_key IS NULL AND _verdict = 'quarantined' THEN _verdict
      WHEN _digest IN (SELECT digest FROM released) THEN 'accepted'
      WHEN _conflicting THEN 'quarantined'
      ELSE _verdict
    END AS verdict
  FROM gated
)
SELECT
  _ordinal AS ordinal, _ledger_key AS row_key, _row_key AS original_key, _digest AS digest, _file AS file, _row AS row,
  verdict,
  CASE WHEN verdict = 'accepted' THEN ''
       ELSE array_to_string(list_distinct(_reasons || CASE WHEN _conflicting AND verdict = 'quarantined' THEN ['conflicting-duplicate'] ELSE [] END), ',')
  END AS reasons,
  array_to_string(list_distinct(_flags), ',') AS flags,
  CASE WHEN verdict <> 'accepted' THEN hex(_raw) END AS raw,
  updated_at, natural_key, status, issued_on, valid_from, valid_to, region,
  CASE WHEN verdict = 'accepted' THEN to_json({{
    {envelope}, 'updated_at': strftime(updated_at, '%Y-%m-%dT%H:%M:%S.%fZ'), 'holders': {holders},
    'attributes': document::JSON
  }})::VARCHAR END AS document
FROM judged ORDER BY _ordinal
"""
