"""Code lists: what a source's own codes and words mean in the exchange model.

One CSV file each with the columns ``from,to``; ``from`` may hold codes and words side by side. Those that several sources
share are in ``mappings/codelists/``; one that a single source uses lies in ``codelists/`` of its own folder, and goes before
a shared one of the same name.
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path

from connectors.errors import FatalError

FOLDER = Path(__file__).parent / "codelists"
OWN = "codelists"
HEADER = ["from", "to"]


def path(name: str, source: Path | None = None) -> Path:
    """Where the list ``name`` lives, for the source of that folder if one is given; it need not exist."""
    own = source / OWN / f"{name}.csv" if source else None
    return own if own and own.is_file() else FOLDER / f"{name}.csv"


def exists(name: str, source: Path | None = None) -> bool:
    """Whether ``name`` is a code list; regions.csv has another form and its own module."""
    return name.replace("-", "").isalnum() and name != "regions" and path(name, source).is_file()


def read(name: str, source: Path | None = None) -> dict[str, str]:
    """The list as a mapping. FatalError ``codelist-invalid`` names file, line and reason."""
    place = path(name, source)
    return _read(place, place.stat().st_mtime_ns if place.is_file() else 0)


@functools.cache
def _read(place: Path, changed: int) -> dict[str, str]:
    known: dict[str, str] = {}
    with place.open(encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        if (header := next(reader, None)) != HEADER:
            raise _invalid(place, 1, f"the header must be {','.join(HEADER)}, not {','.join(header or [])}")
        for row in reader:
            if len(row) != 2 or not row[0] or not row[1]:
                raise _invalid(place, reader.line_num, "a line needs two filled columns")
            if row[0] in known:
                raise _invalid(place, reader.line_num, "a code is given twice")
            known[row[0]] = row[1]
    return known


def _invalid(place: Path, line: int, reason: str) -> FatalError:
    return FatalError("codelist-invalid", file=str(place), line=line, reason=reason)
