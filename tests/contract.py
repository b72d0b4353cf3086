"""The contract of one source folder: its sample read, mapped and gated, in the form its expectations are written in.

``python -m tests.contract SOURCE…`` writes ``expected.csv`` and ``expected_rejects.csv`` anew: read the difference
before keeping it.
"""

from __future__ import annotations

import csv
import datetime as dt
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from connectors import reading
from connectors import source as sources
from connectors.block import ROW
from connectors.landing import Landing
from connectors.source import Source
from mappings import engine
from quality import gate, suite

TODAY = dt.date(2026, 1, 1)  # samples must not age
HIDDEN = ("_ordinal", "_errors", "_rejects", "_reasons", "_verdict", "natural_key")
Rows = list[dict[str, str]]


def sample(source: Source) -> Path:
    """The one raw input of the folder."""
    (path,) = source.sample_path.glob("input.*")
    return path


def outcome(source: Source, landing: Path) -> tuple[Rows, Rows]:
    """Accepted rows in the exchange model, and what was kept back with verdict and reasons; both by row number."""
    zone = Landing(str(landing))
    path = sample(source)
    landed = zone.put(path.read_bytes(), path.name)
    accepted: Rows = []
    kept: Rows = []
    for block in reading.blocks(source, landed, zone):
        kept += [
            {"row": str(line[ROW]), "verdict": "rejected", "reasons": line["reason"]}
            for line in block.malformed.to_pylist()
        ]
        raw = block.table.append_column("_ordinal", pa.array(np.arange(block.table.num_rows)))
        mapped = engine.map_table(source, engine.mapping_of(source), engine.material_of(source), raw)
        for row in gate.check(mapped, suite.load(source), today=TODAY).to_pylist():
            if row["_verdict"] == "accepted":
                accepted.append(_written(row))
            else:
                reasons = ";".join(row["_reasons"])
                kept.append({"row": str(row[ROW]), "verdict": row["_verdict"], "reasons": reasons})
    return accepted, sorted(kept, key=lambda row: int(row["row"]))


def _written(row: dict[str, Any]) -> dict[str, str]:
    """One accepted row as text; attributes stand in ``document`` alone."""
    shown = {"row": str(row[ROW])}
    for name, value in row.items():
        if name in HIDDEN or name == ROW or name.startswith("attributes."):
            continue
        shown[name] = ";".join(value) if isinstance(value, list) else "" if value is None else str(value)
    return shown


def read(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def _write(path: Path, rows: Rows, header: list[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(names: list[str]) -> None:
    for name in names:
        source = sources.load(name)
        with tempfile.TemporaryDirectory() as folder:
            accepted, kept = outcome(source, Path(folder))
        _write(source.sample_path / "expected.csv", accepted, list(accepted[0]))
        _write(source.sample_path / "expected_rejects.csv", kept, ["row", "verdict", "reasons"])
        print(f"{name}: {len(accepted)} accepted, {len(kept)} kept back")


if __name__ == "__main__":
    main(sys.argv[1:])
