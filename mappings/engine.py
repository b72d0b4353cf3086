"""The mapping engine: one block of raw string columns into one block of the exchange model.

Row order and row count never change: what cannot be mapped is noted beside the row, so that nothing is lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa

from connectors.errors import FatalError
from connectors.source import Source
from mappings import codes, model
from mappings import mapping as mappings
from mappings.arrow import TYPES
from mappings.mapping import Line, Mapping
from mappings.model import Material
from mappings.transforms import Call, Note, Result, Severity, cleaned

# Raised by hand when the engine or a transform reads the same raw row differently: every contract changes with it.
ENGINE_VERSION = "1"

SEPARATOR = "\x1f"  # ASCII unit separator: cannot stand in a code or number
NOTES: dict[Severity, str] = {"flag": "_flags", "error": "_errors", "reject": "_rejects"}


def material_of(source: Source) -> Material:
    """The material type or entity whose records ``source`` delivers."""
    return model.load(source.entity)


def mapping_of(source: Source) -> Mapping:
    """The source's mapping.csv, checked against its model and against every column the source names."""
    return mappings.read(source.mapping_path, material_of(source), source.options.columns)


def map_table(source: Source, mapping: Mapping, material: Material, raw: pa.Table) -> pa.Table:
    """The rows of ``raw`` in the exchange model.

    ``raw``: string columns plus columns whose names begin with ``_``, which pass through unchanged. Returned: the
    columns of ``material.columns()`` in order, ``natural_key`` and ``document`` (strings), the system columns that
    came in, then ``_flags _errors _rejects``. FatalError ``mapping-column-absent`` when ``raw`` lacks a mapped column.
    """
    if absent := [name for name in mapping.columns() if name not in raw.column_names and name not in mapping.ignored]:
        raise FatalError("mapping-column-absent", source=source.name, columns=", ".join(absent))
    inputs = {name: cleaned(raw.column(name)) for line in mapping.lines for name in line.columns}
    results = [_applied(line, inputs, source, material, raw.num_rows) for line in mapping.lines]
    filled = {name: array for result in results for name, array in result.columns.items()}
    notes = [note for result in results for note in result.notes]
    columns = {name: _typed(filled.get(name), TYPES[kind], raw.num_rows) for name, kind in material.columns().items()}
    system = {
        name: raw.column(name) for name in raw.column_names if name.startswith("_") and name not in NOTES.values()
    }
    notes += _nobody(columns, notes, material)
    keys, documents = _derived(pa.table(columns), material)
    return pa.table(
        columns
        | {"natural_key": keys, "document": documents}
        | system
        | {column: listed([n for n in notes if n.severity == kind], raw.num_rows) for kind, column in NOTES.items()}
    )


def _applied(line: Line, inputs: dict[str, pa.Array], source: Source, material: Material, rows: int) -> Result:
    arrays = tuple(inputs[name] for name in line.columns)
    if line.constant is not None:
        arrays = (pa.repeat(pa.scalar(line.constant, pa.string()), rows),)
    call = Call(line.field, arrays, line.parameter, source.region, material, source.folder)
    return line.implementation().apply(call)


def _nobody(columns: dict[str, pa.Array | pa.ChunkedArray], notes: Sequence[Note], material: Material) -> list[Note]:
    """Where each single role is optional, a certificate without any holder is still an error, unless a role said why."""
    if not material.holders or not all(role.optional for role in material.holders.values()):
        return []
    told = [note.mask for note in notes if note.severity != "flag" and note.code.startswith("holder.")]
    held = [columns[f"holder.{role}.value"].is_valid().to_numpy(zero_copy_only=False) for role in material.holders]
    missing = ~np.logical_or.reduce([*told, *held])
    return [Note("error", "holder:missing", missing)] if missing.any() else []


def _typed(array: pa.Array | pa.ChunkedArray | None, kind: pa.DataType, rows: int) -> pa.Array | pa.ChunkedArray:
    if array is None:
        return pa.nulls(rows, kind)
    return array if array.type == kind else array.cast(kind)


def listed(notes: Sequence[Note], rows: int) -> pa.Array:
    """list<string> of the codes that hold for each row, in the order of ``notes``, each once; an empty list, not null."""
    masks: dict[str, np.ndarray] = {}
    for note in notes:
        masks[note.code] = masks[note.code] | note.mask if note.code in masks else note.mask
    if not masks:
        return pa.ListArray.from_arrays(pa.array(np.zeros(rows + 1, np.int32)), pa.array([], pa.string()))
    matrix = np.stack(list(masks.values()), axis=1)  # rows × codes; a few dozen codes at most
    offsets = np.concatenate(([0], np.cumsum(matrix.sum(axis=1)))).astype(np.int32)
    _, which = np.nonzero(matrix)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(list(masks), pa.string()).take(pa.array(which)))


def _derived(table: pa.Table, material: Material) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Natural key (null when a part is missing) and the attributes as JSON text, nulls left out."""
    parts = f" || '{SEPARATOR}' || ".join(f'"{name}"::varchar' for name in material.natural_key)
    fields = ", ".join(f"'{name}': {_json(name, kind.type)}" for name, kind in material.attributes.items())
    # A merge patch (RFC 7396) onto an empty object is the shortest way to drop nulls.
    document = f"json_merge_patch('{{}}', to_json({{{fields}}}))::varchar" if fields else "'{}'"
    # Order is kept with one thread; a thread pool for each of several workers would only compete.
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("mapped", table)
        derived = connection.sql(f"select {parts} as natural_key, {document} as document from mapped")
        answer: pa.Table = derived.to_arrow_table()
    return answer.column("natural_key").cast(pa.string()), answer.column("document").cast(pa.string())


def _json(name: str, kind: str) -> str:
    """An attribute as a DuckDB expression; dates and decimals as text, which no reader can round."""
    column = f'"attributes.{name}"'
    if kind == "money":
        money = f"{{'amount': {column}.amount::varchar, 'currency': {column}.currency}}"
        return f"case when {column} is null then null else {money} end"
    return f"{column}::varchar" if kind in ("date", "decimal") else column


def contract_digest(source: Source) -> str:
    """SHA-256 of all that decides how a raw row of ``source`` is read: a change makes every row be mapped again.

    Source folder, material, code lists used (division codes always), engine version.
    """
    sealed = hashlib.sha256()
    material = material_of(source)
    lists = [codes.path(name, source.folder) for name in ("regions", *mapping_of(source).codelists())]
    for part in (f"engine {ENGINE_VERSION}".encode(), material.digest().encode()):
        sealed.update(len(part).to_bytes(8, "big") + part)
    for path in (*source.contract_files(), *lists):
        content = path.read_bytes()
        sealed.update(f"{path.name}\0".encode() + len(content).to_bytes(8, "big") + content)
    return sealed.hexdigest()
