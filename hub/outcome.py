"""What became of each mapped row: one record per row, in the form the merge copies into the database.

Keys and digests are 16 bytes. ``reasons`` and ``flags`` are codes joined by a comma; ``raw`` is the row as JSON, or the
line as it came, where the row is kept back. A row by which its source takes a row back is ``retracted`` and says nothing
else. Of an accepted row alone: ``holding`` (keyed hash of material type and
natural key), ``document`` (JSON), and of every holder in it one
of ``identifiers`` (keyed hash of ``scheme:value``) with one of ``roles``; and whether it ``denies`` what an identifier in it
says itself (:mod:`hub.identity_claims`). What a partner hub announces has no holders, but subjects, and more columns beside
(:mod:`hub.index_direct`).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from connectors.source import Retracts
from hub import digests, identity_claims, index_direct
from hub.home import KeyedHash
from mappings import cleaning, jsoncolumns
from mappings.model import Material

BLOCK = 16_384  # rows: texts of a larger block cost the system more, in pages, than it takes to write them
CONFLICTING = "conflicting-duplicate"
RETRACTED = "retracted"
KEY = pa.binary(16)
SCHEMA = pa.schema(
    {
        "ordinal": pa.int64(),
        "row_key": KEY,
        "original_key": KEY,
        "digest": KEY,
        "file": pa.int64(),
        "row": pa.int64(),
        "verdict": pa.string(),
        "reasons": pa.string(),
        "flags": pa.string(),
        "raw": pa.binary(),
        "updated_at": pa.timestamp("us", "UTC"),
        "natural_key": pa.string(),
        "holding": KEY,
        "status": pa.string(),
        "issued_on": pa.date32(),
        "valid_from": pa.date32(),
        "valid_to": pa.date32(),
        "region": pa.string(),
        "identifiers": pa.list_(KEY),
        "roles": pa.list_(pa.string()),
        "denies": pa.bool_(),
        "document": pa.string(),
    }
)
ENVELOPE = ("certificate_identifier", "certificate_number", "name", "issuer_code", "issuer_name", "region", "issued_on",
            "valid_from", "valid_to", "status")  # fmt: skip
HOLDER = ("scheme", "value", "name")
SYSTEM = ("_row", "_ordinal", "_row_key", "_digest", "_seen_at", "_file", "_ledger_key", "_conflicting")

Mask = NDArray[np.bool_]


def of_rows(
    material: Material,
    raw: pa.Table,
    gated: pa.Table,
    released: pa.Array,
    hashing: KeyedHash,
    source: str,
    retracts: Retracts | None = None,
) -> pa.Table:
    """Outcome of gated rows of ``source``, as :data:`SCHEMA`, by ordinal. ``raw``: the rows before mapping, in the same order;
    ``released``: digests of row versions that an operator let pass: accepted unless they cannot be read at all;
    ``retracts``: which rows take a row back, whatever else is right or wrong with them."""
    assert raw["_ordinal"].equals(gated["_ordinal"]), "mapping changed the order of rows"
    parts = [
        _block(material, raw.slice(start, BLOCK), gated.slice(start, BLOCK), released, hashing, source, retracts)
        for start in range(0, gated.num_rows, BLOCK)
    ]
    return _ordered(pa.concat_tables(parts) if parts else SCHEMA.empty_table())


def _block(
    material: Material,
    raw: pa.Table,
    gated: pa.Table,
    released: pa.Array,
    hashing: KeyedHash,
    source: str,
    retracts: Retracts | None,
) -> pa.Table:
    columns = {name: cleaning.whole(gated[name]) for name in gated.column_names}
    verdict = _retracted(_verdicts(columns, released), raw, retracts)
    accepted = _true(pc.equal(verdict, "accepted"))
    kept = ~accepted & ~_true(pc.equal(verdict, RETRACTED))
    conflicting = _true(pc.and_(columns["_conflicting"], pc.equal(verdict, "quarantined")))
    document = _documents(material, columns)
    keys = jsoncolumns.joined([f"{material.code}\x1f", pc.fill_null(columns["natural_key"], "")], len(accepted))
    identifiers, roles = _holders(material, columns, accepted, hashing)
    found = columns | {
        "ordinal": columns["_ordinal"],
        "row_key": columns["_ledger_key"],
        "original_key": columns["_row_key"],
        "digest": columns["_digest"],
        "file": columns["_file"],
        "row": columns["_row"],
        "verdict": verdict,
        "reasons": _codes(columns["_reasons"], kept, conflicting),
        "flags": _codes(columns["_flags"], np.ones_like(accepted), np.zeros_like(accepted)),
        "raw": _raw(raw, kept),
        "holding": _where(accepted, digests.keyed(keys, hashing)),
        "identifiers": identifiers,
        "roles": roles,
        "denies": _where(accepted, pa.array(identity_claims.denying(material, columns, len(accepted)))),
        "document": _where(accepted, document),
    }
    schema = SCHEMA
    if material.kind == "index":
        found |= index_direct.said(columns, accepted, source, hashing)
        schema = pa.schema([*SCHEMA, *index_direct.SAID])
    return pa.table({name: found[name] for name in schema.names}).cast(schema)


def of_malformed(table: pa.Table) -> pa.Table:
    """Outcome of lines that are no rows: rejected, with their bytes. ``table``: a chunk of malformed lines."""
    found = {
        "ordinal": table["_ordinal"],
        "row_key": table["_row_key"],
        "original_key": table["_row_key"],
        "digest": table["_digest"],
        "file": table["_file"],
        "row": table["_row"],
        "verdict": pa.repeat("rejected", table.num_rows),
        "reasons": table["reason"],
        "flags": pa.repeat("", table.num_rows),
        "raw": table["raw"],
    }
    nothing = {field.name: pa.nulls(table.num_rows, field.type) for field in SCHEMA}
    return _ordered(pa.table({name: (nothing | found)[name] for name in SCHEMA.names}).cast(SCHEMA))


def counts(table: pa.Table, column: str) -> dict[str, int]:
    """How often each comma-joined code occurs in ``column``."""
    codes = pc.list_flatten(pc.split_pattern(pc.drop_null(table[column]), ","))
    codes = codes.filter(pc.not_equal(codes, ""))
    if isinstance(codes, pa.ChunkedArray):
        codes = codes.combine_chunks()
    found = pc.value_counts(codes)
    return dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True))


def _ordered(table: pa.Table) -> pa.Table:
    ordinals = table["ordinal"].to_numpy()
    return table if (np.diff(ordinals) > 0).all() else table.take(pa.array(np.argsort(ordinals, kind="stable")))


def _verdicts(columns: dict[str, pa.Array], released: pa.Array) -> pa.StringArray:
    """The gate's verdict, unless a person released the version, or another one of the same delivery contradicts it."""
    verdict = columns["_verdict"]
    keyless = pc.and_(columns["natural_key"].is_null(), pc.equal(verdict, "quarantined"))
    final = pc.or_(pc.equal(verdict, "rejected"), keyless)
    let_pass = pc.is_in(columns["_digest"], value_set=released)
    otherwise = pc.if_else(let_pass, "accepted", pc.if_else(columns["_conflicting"], "quarantined", verdict))
    return pc.if_else(final, verdict, otherwise)


def _retracted(verdict: pa.StringArray, raw: pa.Table, retracts: Retracts | None) -> pa.StringArray:
    if retracts is None or retracts.column not in raw.column_names:
        return verdict
    said = pc.is_in(cleaning.whole(raw[retracts.column]), value_set=pa.array(retracts.values, pa.string()))
    return pc.if_else(said, RETRACTED, verdict)


def _codes(lists: pa.ListArray, told: Mask, conflicting: Mask) -> pa.StringArray:
    """The codes of the rows that are ``told``, each once, joined by commas."""
    parents = pc.list_parent_indices(lists).to_numpy()
    kept = np.flatnonzero(told[parents])
    more = np.flatnonzero(conflicting)
    rows = np.concatenate([parents[kept], more])
    codes = pa.concat_arrays([pc.list_flatten(lists).take(pa.array(kept)), pa.repeat(CONFLICTING, len(more))])
    if not len(rows):
        return pa.repeat("", len(told))
    encoded = codes.dictionary_encode()
    pairs = rows * len(encoded.dictionary) + encoded.indices.to_numpy()
    first = np.unique(pairs, return_index=True)[1]
    first = first[np.lexsort((first, rows[first]))]
    return pc.binary_join(pa.ListArray.from_arrays(_offsets(rows[first], len(told)), codes.take(pa.array(first))), ",")


def _raw(raw: pa.Table, kept: Mask) -> pa.BinaryArray:
    """The raw row as JSON where it is kept."""
    rows = np.flatnonzero(kept)
    columns = raw.select([name for name in raw.column_names if name not in SYSTEM]).take(pa.array(rows))
    members = jsoncolumns.members({name: cleaning.whole(columns[name]) for name in columns.column_names})
    texts = jsoncolumns.joined(["{", *members, "}"], len(rows)).cast(pa.binary())
    places = np.zeros(len(kept), dtype=np.int64)
    places[rows] = np.arange(len(rows))
    return texts.take(pa.array(places, mask=~kept))


def _documents(material: Material, columns: dict[str, pa.Array]) -> pa.StringArray:
    """JSON of every row, keys always in the same order."""
    parts = {role: {part: columns[f"holder.{role}.{part}"] for part in HOLDER} for role in material.holders}
    holders = [
        (
            [f'{{"role":{jsoncolumns.text(role)},', *jsoncolumns.members(held), "}"],
            _true(held["value"].is_valid()) if held["value"].null_count else None,
        )
        for role, held in parts.items()
    ]
    attributes = columns["document"]
    envelope = jsoncolumns.members({name: columns[name] for name in ENVELOPE})
    pieces = ["{", *envelope, ',"holders":[', *jsoncolumns.listed(holders), '],"attributes":', attributes]
    time = jsoncolumns.members({"updated_at": columns["updated_at"]})
    return jsoncolumns.joined([*pieces, ",", *time, "}"], len(attributes))


def _holders(
    material: Material, columns: dict[str, pa.Array], accepted: Mask, hashing: KeyedHash
) -> tuple[pa.ListArray, pa.ListArray]:
    """Keyed identifiers of each accepted row and their roles; one that was released without a scheme has none."""
    texts, rows = [pa.array([], pa.string())], [np.zeros(0, dtype=np.int64)]
    for role in material.holders:
        text = jsoncolumns.joined(
            [columns[f"holder.{role}.scheme"], ":", columns[f"holder.{role}.value"]], len(accepted)
        )
        present = accepted & _true(text.is_valid())
        texts.append(text if present.all() else text.filter(pa.array(present)))
        rows.append(np.flatnonzero(present))
    role_of = np.repeat(np.arange(len(material.holders)), [len(part) for part in rows[1:]])
    place = np.concatenate(rows)
    order = pa.array(np.argsort(place, kind="stable"))
    offsets, missing = _offsets(place, len(accepted)), pa.array(~accepted)
    identifiers = digests.keyed(pa.concat_arrays(texts), hashing).take(order)
    roles = pa.array(list(material.holders), pa.string()).take(pa.array(role_of).take(order))
    return tuple(pa.ListArray.from_arrays(offsets, values, mask=missing) for values in (identifiers, roles))


def _offsets(rows: NDArray[np.int64], total: int) -> pa.Int32Array:
    """Where the list of each of ``total`` rows begins, given the rows of all entries."""
    return pa.array(np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=total)))).astype(np.int32))


def _where(mask: Mask, values: pa.Array) -> pa.Array:
    return values if mask.all() else pc.if_else(pa.array(mask), values, pa.scalar(None, values.type))


def _true(values: pa.BooleanArray) -> Mask:
    return values.to_numpy(zero_copy_only=False)
