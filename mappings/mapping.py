"""``mapping.csv``: which raw column(s) fill which field of the exchange model, and which are ignored by name.

One line per field: ``field,from,transform,note``. ``field`` is a column of the model, a holder (``holder.<role>``,
which fills scheme and value), or ``-`` for a raw column that is left out on purpose, with the reason as note. ``from``
names raw columns joined with ``|``, or is ``=text`` for a constant. Everything is checked before any data is read.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from connectors.errors import FatalError
from mappings import codes
from mappings.model import Material
from mappings.schemes import SCHEMES
from mappings.transforms import REGISTRY, SERIAL, Transform

HEADER = ["field", "from", "transform", "note"]
IGNORED = "-"


@dataclass(frozen=True)
class Line:
    """One field and what fills it: raw ``columns`` or a ``constant``."""

    number: int
    field: str
    columns: tuple[str, ...]
    constant: str | None
    transform: str
    parameter: str | None

    def implementation(self) -> Transform:
        return REGISTRY[self.transform]

    def outputs(self) -> tuple[str, ...]:
        """The model columns it fills."""
        holder = self.implementation().kind is None
        return (f"{self.field}.scheme", f"{self.field}.value") if holder else (self.field,)


@dataclass(frozen=True)
class Mapping:
    """A whole mapping.csv. ``ignored``: raw columns left out on purpose."""

    path: Path
    lines: tuple[Line, ...]
    ignored: tuple[str, ...]

    def columns(self) -> tuple[str, ...]:
        """Every raw column accounted for, mapped first, each once."""
        used = (column for line in self.lines for column in line.columns)
        return tuple(dict.fromkeys([*used, *self.ignored]))

    def codelists(self) -> tuple[str, ...]:
        """The code lists it depends on."""
        named = {line.parameter for line in self.lines if line.parameter}
        return tuple(sorted(name for name in named if codes.exists(name, self.path.parent)))


def read(path: Path, material: Material, columns: Sequence[str] = ()) -> Mapping:
    """The mapping at ``path`` into ``material``; with ``columns``, the raw columns it must account for one by one.

    FatalError ``mapping-invalid`` names file and line; ``mapping-column-unaccounted`` the columns left over.
    """
    lines: list[Line] = []
    ignored: list[str] = []
    filled: dict[str, int] = {}
    for number, row in _rows(path):
        if row["field"] == IGNORED:
            if not row["note"]:
                raise _invalid(path, number, "an ignored column needs a note saying why")
            ignored.extend(_named(path, number, row["from"], columns))
            continue
        line = _line(path, number, row, material, columns)
        for column in line.outputs():
            if column in filled:
                raise _invalid(path, number, f"{column} is already filled by line {filled[column]}")
            filled[column] = number
        lines.append(line)
    mapping = Mapping(path, tuple(lines), tuple(ignored))
    mapped = {column for line in lines for column in line.columns}
    if both := sorted(mapped & set(ignored)):
        raise _invalid(path, 1, f"both mapped and ignored: {', '.join(both)}")
    if left := [column for column in columns if column not in mapping.columns()]:
        raise FatalError("mapping-column-unaccounted", file=str(path), columns=", ".join(left))
    if empty := [column for column in material.natural_key if column not in filled]:
        raise _invalid(path, 1, f"nothing fills the natural key: {', '.join(empty)}")
    return mapping


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text)
            if next(reader, None) != HEADER:
                raise _invalid(path, 1, f"the header must be {','.join(HEADER)}")
            for row in reader:
                if len(row) != len(HEADER):
                    raise _invalid(path, reader.line_num, f"{len(row)} columns instead of {len(HEADER)}")
                yield reader.line_num, {name: value.strip() for name, value in zip(HEADER, row, strict=True)}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _invalid(path, 0, str(error)) from error


def _named(path: Path, number: int, given: str, columns: Sequence[str]) -> list[str]:
    names = [name.strip() for name in given.split("|")]
    if not all(names):
        raise _invalid(path, number, "`from` is empty")
    if unknown := [name for name in names if columns and name not in columns]:
        raise _invalid(path, number, f"not among the source's columns: {', '.join(unknown)}")
    return names


def _line(path: Path, number: int, row: dict[str, str], material: Material, columns: Sequence[str]) -> Line:
    constant = row["from"][1:] if row["from"].startswith("=") else None
    name, _, parameter = row["transform"].partition(":")
    line = Line(
        number=number,
        field=row["field"],
        columns=() if constant is not None else tuple(_named(path, number, row["from"], columns)),
        constant=constant,
        transform=name,
        parameter=parameter or None,
    )
    if reason := _fault(line, material, path.parent):
        raise _invalid(path, number, reason)
    return line


def _fault(line: Line, material: Material, folder: Path) -> str | None:
    """What is wrong with one line, in words."""
    if line.transform not in REGISTRY:
        return f"unknown transform {line.transform!r}; known: {', '.join(sorted(REGISTRY))}"
    transform = line.implementation()
    if transform.inputs is not None and len(line.columns) + (line.constant is not None) != transform.inputs:
        return f"{line.transform} takes {transform.inputs} column"
    if reason := _parameter_fault(line, transform, material, folder):
        return reason
    if transform.kind is None:
        kinds = {"person": "person", "organisation": "organisation"}
        role = material.holders.get(line.field.removeprefix("holder."))
        if not line.field.startswith("holder.") or role is None or role.kind not in (kinds[line.transform], "subject"):
            return f"{line.field} is no holder of {material.code} that {line.transform} can fill"
        return None
    kind = material.columns().get(line.field)
    if kind is None:
        return f"{material.code} has no field {line.field}"
    if kind != transform.kind:
        return f"{line.field} is of type {kind}, {line.transform} yields {transform.kind}"
    return None


def _parameter_fault(line: Line, transform: Transform, material: Material, folder: Path) -> str | None:
    parameter = line.parameter
    if transform.parameter == "none":
        return f"{line.transform} takes no parameter" if parameter else None
    if transform.parameter == "code list" or (line.transform == "status" and parameter):
        return None if parameter and codes.exists(parameter, folder) else f"there is no code list {parameter}"
    if line.transform in ("date", "timestamp") and parameter not in (None, SERIAL):
        return f"{line.transform} knows the parameter {SERIAL}, not {parameter}"
    if line.transform == "region" and parameter not in (None, "organisation"):
        return f"region knows the parameter organisation, not {parameter}"
    if transform.parameter == "scheme" and len(line.columns) != 1:
        return _kinds_fault(line, folder)
    if transform.parameter == "scheme" and parameter:
        known = {scheme for role in material.holders.values() for scheme in role.schemes}
        return None if parameter in known else f"no holder of {material.code} has the scheme {parameter}"
    return None


def _kinds_fault(line: Line, folder: Path) -> str | None:
    """Number and kind of number in two columns: the parameter is the code list from kinds to schemes."""
    if len(line.columns) != 2:
        return f"{line.transform} takes a number and, if need be, the column that says what kind of number it is"
    if not line.parameter or not codes.exists(line.parameter, folder):
        return f"there is no code list {line.parameter}"
    unknown = sorted(set(codes.read(line.parameter, folder).values()) - set(SCHEMES))
    return f"code list {line.parameter}: not a scheme: {', '.join(unknown)}" if unknown else None


def _invalid(path: Path, line: int, reason: str) -> FatalError:
    return FatalError("mapping-invalid", file=str(path), line=line, reason=reason)
