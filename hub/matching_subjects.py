"""Who is to be matched and with whom: quarantined rows as records, what is held as statements about known people.

A row is mapped once more to be read as the pipeline reads it; nothing of it is kept outside the quarantine.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json
import sqlalchemy as sa

from connectors import source as sources
from hub import copying, digests, matching_attachment
from hub.home import KeyedHash
from hub.matching_kernel import PEOPLE, RECORDS
from mappings import engine, model
from mappings.model import Material

NOBODY = "holder:missing"  # any of the roles could be the one
USABLE = ("scheme-not-accepted",)  # there is an identifier, only not one this material takes
RAW = pa.schema({"entry": pa.int64(), "digest": pa.binary(16), "reasons": pa.string(), "raw": pa.string()})
STATEMENTS = pa.schema(
    {
        "statement": pa.binary(16), "scheme": pa.string(), "number": pa.string(), "name": pa.string(),
        "born": pa.string(), "sex": pa.string(), "region": pa.string(), "address": pa.string(),
    }
)  # fmt: skip


def waiting(connection: sa.Connection, position: int) -> dict[str, list[int]]:
    """Quarantine entries by source that are to be matched: the current version of a row, without a usable identifier of a
    person, not matched yet or in vain before the feed came to ``position``, and not answered by a person."""
    found: dict[str, list[int]] = {}
    for row in connection.execute(
        sa.text(_WAITING),
        {"position": position, "unusable": rf"^({NOBODY}$|holder\.)", "usable": rf":({'|'.join(USABLE)})$"},
    ):
        if any(role.kind == "person" for role in model.load(row.entity).holders.values()):
            found[row.source] = list(row.entries)
    return found


def records(connection: sa.Connection, source: str, entries: list[int]) -> pa.Table:
    """``entry``, ``role`` and RECORDS of entries of one source, one row for each person in question that has a name."""
    described = sources.load(source)
    material, mapping = engine.material_of(described), engine.mapping_of(described)
    listing = "{" + ",".join(map(str, entries)) + "}"
    found = copying.out_of(connection, _RAW, RAW, {"entries": listing})
    raw = _columns(found["raw"])
    for column in mapping.columns():
        if column not in raw.column_names:
            raw = raw.append_column(column, pa.nulls(raw.num_rows, pa.string()))
    attached = matching_attachment.of_source(connection, source)
    mapped = engine.map_table(
        described, mapping, material, matching_attachment.completed(described, mapping, raw, found["digest"], attached)
    )
    parts = []
    for role, described_role in material.holders.items():
        if described_role.kind == "person":
            mask = _in_question(role, found["reasons"], mapped)
            parts.append(_record(role, material, mapped, found, raw, mapping).filter(mask))
    table = pa.concat_tables(parts)
    return table.append_column("record", pa.array(range(table.num_rows), pa.int64()))


def people(connection: sa.Connection, hashing: KeyedHash) -> Iterator[pa.Table]:
    """PEOPLE, in parts: what the documents in force say of each person they name."""
    claims = [(one.code, role) for one in model.all_materials() for role in one.claims]
    persons = [
        (one.code, role)
        for one in model.all_materials()
        for role, described in one.holders.items()
        if described.kind == "person"
    ]
    query = _STATEMENTS.format(persons=_pairs(persons), claims=_pairs(claims))
    for part in copying.batches_of(connection, query, STATEMENTS, {}):
        text = pc.binary_join_element_wise(part["scheme"], part["number"], ":")
        born = pc.strptime(part["born"], format="%Y-%m-%d", unit="s", error_is_null=True).cast(pa.date32())
        part = part.set_column(part.column_names.index("born"), "born", born)
        yield part.append_column("person", digests.keyed(text, hashing)).select(PEOPLE.names)


def _in_question(role: str, reasons: pa.ChunkedArray, mapped: pa.Table) -> pa.ChunkedArray:
    """Rows whose holder in this role has a name but, as the gate said and the mapping says still, no usable identifier."""
    prefix = f"holder.{role}:"
    pattern = rf"(^|,)({prefix}[^,]+|{NOBODY})(,|$)"
    wrong = pc.match_substring_regex(reasons, pattern)
    usable = pc.match_substring_regex(reasons, rf"(^|,){prefix}({'|'.join(USABLE)})(,|$)")
    notes = pa.chunked_array(
        [pc.binary_join(pa.concat_arrays(mapped[name].chunks), ",") for name in ("_errors", "_rejects")]
    )
    rows = mapped.num_rows
    still = pc.match_substring_regex(
        pc.binary_join_element_wise(notes.slice(0, rows).combine_chunks(), notes.slice(rows).combine_chunks(), ","),
        pattern,
    )
    named = mapped[f"holder.{role}.name"].is_valid()
    return pc.and_(pc.and_(pc.and_(wrong, pc.invert(usable)), still), named)


def _record(role: str, material: Material, mapped: pa.Table, found: pa.Table, raw: pa.Table, mapping: Any) -> pa.Table:
    rows = mapped.num_rows
    nothing = pa.nulls(rows, pa.string())
    about = role in material.claims
    alone = sum(one.kind == "person" for one in material.holders.values()) == 1

    def said(name: str, when: bool) -> Any:
        return mapped[name] if when and name in mapped.column_names else None

    born, sex = said("attributes.born_on", about), said("attributes.sex", about)
    address = said("attributes.address", alone)
    columns = {
        "name": mapped[f"holder.{role}.name"],
        "born": pa.nulls(rows, pa.date32()) if born is None else born,
        "sex": nothing if sex is None else sex,
        "region": mapped["region"],
        "address": nothing if address is None else address,
        "number": mapped[f"holder.{role}.value"],
    }
    table = pa.table(columns).cast(pa.schema([RECORDS.field(name) for name in columns]))
    return table.append_column("entry", found["entry"]).append_column("role", pa.repeat(role, rows))


def _columns(lines: pa.ChunkedArray) -> pa.Table:
    """Raw rows out of their JSON, every value a string; a column that a row lacks is null in it."""
    with duckdb.connect(config={"threads": 1}) as reader:
        reader.register("found", pa.table({"raw": lines}))
        names = reader.sql("SELECT DISTINCT unnest(json_keys(raw)) AS name FROM found ORDER BY name").to_arrow_table()
    text = pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], pa.concat_arrays(lines.chunks)), "\n")[
        0
    ].as_buffer()
    columns = pa.schema([(name, pa.string()) for name in names["name"].to_pylist()])
    parsing = pa_json.ParseOptions(explicit_schema=columns, unexpected_field_behavior="ignore")
    # One block however long: a record must not be cut, and a part holds a few thousand of them.
    return pa_json.read_json(io.BytesIO(text), pa_json.ReadOptions(block_size=text.size + 1), parsing)


def _pairs(values: list[tuple[str, str]]) -> str:
    """A list of (material, role) for SQL; the model's own codes, no data."""
    return ", ".join(f"('{code}', '{role}')" for code, role in values)


# What the gate rejected at once (a number ruined by a spreadsheet) nobody has decided on either.
_WAITING = """
SELECT q.source, s.entity, array_agg(q.id ORDER BY q.id) AS entries
FROM quarantine AS q JOIN source AS s ON s.name = q.source
  JOIN row_ledger AS l ON l.source = q.source AND l.row_key = q.row_key AND l.digest = q.digest
WHERE q.state IN ('open', 'rejected') AND q.decided_at IS NULL AND l.verdict IN ('quarantined', 'rejected')
  AND EXISTS (SELECT FROM unnest(q.reasons) AS reason WHERE reason ~ :unusable AND reason !~ :usable)
  AND NOT EXISTS (SELECT FROM match_record AS m WHERE m.entry = q.id
    AND (m.candidates > 0 OR m.state <> 'waiting' OR m.position >= :position))
  AND NOT EXISTS (SELECT FROM decision AS d WHERE d.source = q.source AND d.row_key = q.original_key AND d.digest = q.digest
    AND d.kind = 'no-match')
  AND q.id = (SELECT max(o.id) FROM quarantine AS o WHERE o.source = q.source AND o.row_key = q.row_key AND o.digest = q.digest)
GROUP BY q.source, s.entity ORDER BY q.source
"""
_RAW = """
SELECT id, digest, array_to_string(reasons, ','), convert_from(raw, 'UTF8') FROM quarantine
WHERE id = ANY({entries}::bigint[]) ORDER BY id
"""
_STATEMENTS = """
SELECT h.key, p ->> 'scheme', p ->> 'value', p ->> 'name',
  CASE WHEN (h.material, p ->> 'role') IN ({claims}) THEN l.document::json -> 'attributes' ->> 'born_on' END,
  CASE WHEN (h.material, p ->> 'role') IN ({claims}) THEN l.document::json -> 'attributes' ->> 'sex' END,
  h.region, CASE WHEN json_array_length(l.document::json -> 'holders') = 1 THEN l.document::json -> 'attributes' ->> 'address' END
FROM holding AS h JOIN mapped_row AS l ON l.holding = h.key AND l.id = h.mapped
  CROSS JOIN LATERAL json_array_elements(l.document::json -> 'holders') AS p
WHERE (h.material, p ->> 'role') IN ({persons}) AND p ->> 'name' IS NOT NULL
"""
