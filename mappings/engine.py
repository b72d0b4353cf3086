"""The mapping engine: one block of raw string columns into one block of the exchange model.

Row order and row count never change: what cannot be mapped is noted beside the row, so that nothing is lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from connectors.errors import FatalError
from connectors.source import Source
from mappings import cleaning, codes, jsoncolumns, model
from mappings import mapping as mappings
from mappings.arrow import TYPES
from mappings.mapping import Line, Mapping
from mappings.model import Material
from mappings.transforms import Call, Note, Result, Severity, cleaned

# Raised by hand when the engine or a transform reads the same raw row differently: every contract changes with it.
ENGINE_VERSION = "1"
LINK_VERSION = "2"  # of what is read for links alone

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
    notes += _nobody(columns, notes, material) + _kinds(columns, material)
    keys, documents = _derived(columns, material, raw.num_rows)
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


def _nobody(columns: dict[str, pa.Array], notes: Sequence[Note], material: Material) -> list[Note]:
    """Where each single role is optional, a certificate without any holder is still an error, unless a role said why."""
    if not material.holders or not all(role.optional for role in material.holders.values()):
        return []
    told = [note.mask for note in notes if note.severity != "flag" and note.code.startswith("holder.")]
    held = [columns[f"holder.{role}.value"].is_valid().to_numpy(zero_copy_only=False) for role in material.holders]
    missing = ~np.logical_or.reduce([*told, *held])
    return [Note("error", "holder:missing", missing)] if missing.any() else []


def _kinds(columns: dict[str, pa.Array], material: Material) -> list[Note]:
    """A link between a person and an organisation is none: they are two, whatever connects them."""
    if material.kind != "link":
        return []
    known = pa.array(model.ORGANISATION_SCHEMES)
    schemes = [columns[f"holder.{role}.scheme"] for role in material.holders]
    one, other = (pc.is_in(scheme, known) for scheme in schemes)
    both = pc.and_(*(scheme.is_valid() for scheme in schemes))
    differ = pc.and_(both, pc.not_equal(one, other)).to_numpy(zero_copy_only=False)
    return [Note("error", "holder:kinds-differ", differ)] if differ.any() else []


def _typed(array: pa.Array | pa.ChunkedArray | None, kind: pa.DataType, rows: int) -> pa.Array:
    if array is None:
        return pa.nulls(rows, kind)
    array = cleaning.whole(array)
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


def _derived(columns: dict[str, pa.Array], material: Material, rows: int) -> tuple[pa.Array, pa.Array]:
    """Natural key (null when a part is missing) and the attributes as JSON text, nulls left out."""
    parts = [columns[name].cast(pa.string()) for name in material.natural_key]
    keys = pc.binary_join_element_wise(*parts, SEPARATOR) if len(parts) > 1 else parts[0]
    attributes = {name: columns[f"attributes.{name}"] for name in material.attributes}
    pieces = ["{", *jsoncolumns.members(attributes, nulls=False), "}"]
    return keys, jsoncolumns.joined(pieces, rows)


def contract_digest(source: Source) -> str:
    """SHA-256 of all that decides how a raw row of ``source`` is read: a change makes every row be mapped again.

    Source folder, material, code lists used (division codes always), engine version.
    """
    sealed = hashlib.sha256()
    material = material_of(source)
    lists = [codes.path(name, source.folder) for name in ("regions", *mapping_of(source).codelists())]
    version = f"{ENGINE_VERSION}.{LINK_VERSION}" if material.kind == "link" else ENGINE_VERSION
    for part in (f"engine {version}".encode(), material.digest().encode()):
        sealed.update(len(part).to_bytes(8, "big") + part)
    for path in (*source.contract_files(), *lists):
        content = path.read_bytes()
        sealed.update(f"{path.name}\0".encode() + len(content).to_bytes(8, "big") + content)
    return sealed.hexdigest()
