"""Code lists: what a source's own codes and words mean in the exchange model.

One CSV file each in ``mappings/codelists/`` with the columns ``from,to``; ``from`` may hold codes and words side by side.
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path

from connectors.errors import FatalError

FOLDER = Path(__file__).parent / "codelists"
HEADER = ["from", "to"]


def path(name: str) -> Path:
    """Where the list ``name`` lives; it need not exist."""
    return FOLDER / f"{name}.csv"


def exists(name: str) -> bool:
    """Whether ``name`` is a code list; regions.csv has another form and its own module."""
    return name.replace("-", "").isalnum() and name != "regions" and path(name).is_file()


@functools.cache
def read(name: str) -> dict[str, str]:
    """The list as a mapping. FatalError ``codelist-invalid`` names file, line and reason."""
    known: dict[str, str] = {}
    with path(name).open(encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        if (header := next(reader, None)) != HEADER:
            raise _invalid(name, 1, f"the header must be {','.join(HEADER)}, not {','.join(header or [])}")
        for row in reader:
            if len(row) != 2 or not row[0] or not row[1]:
                raise _invalid(name, reader.line_num, "a line needs two filled columns")
            if row[0] in known:
                raise _invalid(name, reader.line_num, "a code is given twice")
            known[row[0]] = row[1]
    return known


def _invalid(name: str, line: int, reason: str) -> FatalError:
    return FatalError("codelist-invalid", file=str(path(name)), line=line, reason=reason)
