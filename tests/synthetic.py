"""One folder of the generator, made once for all tests that look into it, and ways to read it."""

from __future__ import annotations

import atexit
import functools
import gzip
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from demo.synthesis import Parameters, synthesise

PARAMETERS = Parameters(people=9000, companies=2400, seed=21, dirt=0.03)


@functools.cache
def folder() -> Path:
    top = Path(tempfile.mkdtemp(prefix="yici-synthetic-"))
    atexit.register(shutil.rmtree, top, ignore_errors=True)
    return synthesise(PARAMETERS, top / "data").folder


def truth(name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder() / "truth" / f"{name}.parquet").to_pylist()


def certificates(material: str) -> list[dict[str, Any]]:
    return [row for row in truth("certificates") if row["material"] == material]


def records(pattern: str) -> dict[tuple[str, int], dict[str, Any]]:
    """Records of JSON-lines and Parquet files by file and row; lines that are no record are left out."""
    found = {}
    for path in sorted(folder().glob(pattern)):
        name = path.relative_to(folder()).as_posix()
        if path.suffix == ".parquet":
            rows: list[Any] = pq.read_table(path).to_pylist()
        else:
            raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            rows = [_record(line) for line in raw.decode().split("\n")[:-1]]
        found.update({(name, number): row for number, row in enumerate(rows, start=1) if row is not None})
    return found


def identifiers() -> dict[str, set[str]]:
    """Everything that each subject was ever known by, as ``scheme:value``."""
    known: dict[str, set[str]] = {}
    for row in truth("links"):
        known.setdefault(row["subject"], set()).add(f"{row['scheme']}:{row['value']}")
    return known


def _record(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
