"""The contract of a source folder: what is checked of every one, wherever it lies, before anybody relies on it.

The sample is read, mapped and judged as a delivery would be, and compared with the two expected files; every column is
accounted for; nothing is left open; secrets stand nowhere. ``yici sources test`` and the test suite both run this.
"""

from __future__ import annotations

import csv
import datetime as dt
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from connectors import channel, messages, source, template
from connectors.channel import Stated
from connectors.errors import FatalError, UsageError, YiciError
from connectors.source import FileOptions, Source

TODAY = dt.date(2026, 1, 1)  # samples must not age
EXPECTED, KEPT = "expected.csv", "expected_rejects.csv"
PARTNER = "partner.json"
KEPT_HEADER = ["row", "verdict", "reasons"]
HIDDEN = ("_ordinal", "_errors", "_rejects", "_reasons", "_verdict", "natural_key")
SHOWN = 5  # differences named, at most
# Words that would stand before a secret in a file of configuration.
SECRET = re.compile(r"\b(password|passwd|secret|token|api_?key|private_?key)\s*[:=]\s*\S+|://[^/\s:@]+:[^/\s@]+@", re.I)

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Finding:
    """One check of a folder. ``grave``: it fails the contract; else it is advice."""

    check: str
    ok: bool
    detail: str = ""
    grave: bool = True


def sample(described: Source) -> Path:
    """The one raw input of the folder. UsageError ``sample-missing``."""
    found = [path for path in sorted(described.sample_path.glob("input.*")) if path.is_file()]
    if len(found) != 1:
        raise UsageError("sample-missing", source=described.name, folder=str(described.sample_path), found=len(found))
    return found[0]


def outcome(described: Source) -> tuple[Rows, Rows]:
    """Accepted rows in the exchange model, and what was kept back with verdict and reasons; both by row number."""
    import numpy as np
    import pyarrow as pa

    from connectors import reading
    from connectors.block import ROW
    from connectors.landing import Landing
    from mappings import engine
    from quality import gate, suite

    mapping, material, checks = engine.mapping_of(described), engine.material_of(described), suite.load(described)
    accepted: Rows = []
    kept: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        zone, path = Landing(folder), sample(described)
        with path.open("rb") as stream:
            landed = zone.put(stream, path.name)
        for block in reading.blocks(described, landed, zone, partner=_partner(described)):
            kept += [
                {"row": str(line[ROW]), "verdict": "rejected", "reasons": line["reason"]}
                for line in block.malformed.select([ROW, "reason"]).to_pylist()
            ]
            raw = block.table.append_column("_ordinal", pa.array(np.arange(block.table.num_rows)))
            mapped = engine.map_table(described, mapping, material, raw)
            for row in gate.check(mapped, checks, today=TODAY).to_pylist():
                if row["_verdict"] == "accepted":
                    accepted.append(_written(row, ROW))
                else:
                    reasons = ";".join(row["_reasons"])
                    kept.append({"row": str(row[ROW]), "verdict": row["_verdict"], "reasons": reasons})
    return accepted, sorted(kept, key=lambda row: int(row["row"]))


def _partner(described: Source) -> Stated | None:
    """A sample of signed pages brings with it whose they are, and the public keys that verify them."""
    path = described.sample_path / PARTNER
    try:
        return channel.stated(orjson.loads(path.read_bytes()), path.name) if path.is_file() else None
    except orjson.JSONDecodeError:
        raise FatalError("index-partner-unreadable", place=path.name) from None


def _written(row: dict[str, Any], number: str) -> dict[str, str]:
    """One accepted row as text; attributes stand in ``document`` alone."""
    shown = {"row": str(row[number])}
    for name, value in row.items():
        if name in HIDDEN or name == number or name.startswith("attributes."):
            continue
        shown[name] = ";".join(value) if isinstance(value, list) else "" if value is None else str(value)
    return shown


def expect(described: Source) -> tuple[int, int]:
    """Writes what the sample becomes into the two expected files; returns how many rows each has."""
    accepted, kept = outcome(described)
    _write(described.sample_path / EXPECTED, accepted, list(accepted[0]) if accepted else ["row"])
    _write(described.sample_path / KEPT, kept, KEPT_HEADER)
    return len(accepted), len(kept)


def _write(path: Path, rows: Rows, header: list[str]) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8", newline="") as text:
            writer = csv.DictWriter(text, header, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read(path: Path) -> Rows:
    """The rows of an expected file. UsageError ``expected-missing`` when there is none."""
    if not path.is_file():
        raise UsageError("expected-missing", source=path.parent.parent.name, file=path.name)
    with path.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def check(folder: Path) -> list[Finding]:
    """Every check of one source folder, in order; without a readable description there is nothing more to check."""
    try:
        described = source.read(folder)
    except YiciError as error:
        return [Finding("description", False, str(error))]
    return [_judged(name, one, described) for name, one in CHECKS.items()]


def _judged(name: str, one: Callable[[Source], str], described: Source) -> Finding:
    try:
        fault = one(described)
    except YiciError as error:
        fault = str(error)
    return Finding(name, not fault, fault, grave=name not in ADVICE)


def _description(described: Source) -> str:
    """Nothing is left open, and the folder is where its name says."""
    found = [f"{path.name}:{number}" for path, number, _ in template.open_points(described.folder)]
    return _say("contract-open", count=len(found), places=_some(found)) if found else ""


def _columns(described: Source) -> str:
    """Every raw column is mapped, or ignored by name."""
    from mappings import engine

    if not described.options.columns:
        return _say("contract-no-columns")
    left = set(described.options.columns) ^ set(engine.mapping_of(described).columns())
    return _say("contract-columns", columns=", ".join(sorted(left))) if left else ""


def _checks(described: Source) -> str:
    """The entity is known, and its suite with the folder's own checks fits it."""
    from quality import suite

    if not described.checks_path.is_file():
        return _say("contract-no-checks")
    return "" if suite.load(described).checks else _say("contract-no-checks")


def _secrets(described: Source) -> str:
    """A connection is a name; no file of the folder holds an address with a password, a token or a key."""
    texts = [*described.folder.glob("*.yml"), *described.folder.glob("*.csv"), *described.folder.glob("codelists/*")]
    found = []
    for path in sorted(texts):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        found += [
            f"{path.name}:{number}"
            for number, line in enumerate(lines, start=1)
            if any("token_path" not in match[0] for match in SECRET.finditer(line.partition("  #")[0]))
        ]
    return _say("contract-secret", places=_some(found)) if found else ""


def _sample(described: Source) -> str:
    """The sample becomes exactly what the folder says, row by row, kept back or accepted."""
    if _formed_by_protocol(described):
        return ""
    wanted, wanted_kept = read(described.sample_path / EXPECTED), read(described.sample_path / KEPT)
    accepted, kept = outcome(described)
    found = [*_differences(wanted, accepted), *_differences(wanted_kept, kept)]
    return _say("contract-sample", count=len(found), source=described.name, places=_some(found)) if found else ""


def _differences(wanted: Rows, found: Rows) -> Iterator[str]:
    """Row number and columns of every difference; no value, a sample may have slipped through unmasked."""
    before, after = ({row["row"]: row for row in rows} for rows in (wanted, found))
    for number in sorted({*before, *after}, key=int):
        if number not in before or number not in after:
            yield f"{number} ({'+' if number in after else '-'})"
        elif changed := [
            name for name in before[number] | after[number] if before[number].get(name) != after[number].get(name)
        ]:
            yield f"{number} ({', '.join(changed)})"


def _coverage(described: Source) -> str:
    """A sample that shows accepted, flagged, quarantined and rejected rows says what becomes of each."""
    if _formed_by_protocol(described):
        return ""
    accepted, kept = read(described.sample_path / EXPECTED), read(described.sample_path / KEPT)
    shown = {row["verdict"] for row in kept} | (
        {"accepted"} if any(not row.get("_flags") for row in accepted) else set()
    )
    shown |= {"flagged"} if any(row.get("_flags") for row in accepted) else set()
    missing = [name for name in ("accepted", "flagged", "quarantined", "rejected") if name not in shown]
    numbers = sorted(int(row["row"]) for row in (*accepted, *kept))
    first = first_row(described)
    if numbers != list(range(first, first + len(numbers))):
        return _say("contract-rows", first=first)
    return _say("contract-coverage", missing=", ".join(missing)) if missing else ""


def _formed_by_protocol(described: Source) -> bool:
    """The index of a partner hub has one form for all (docs/protocol/25-index.md): its folder may come without a sample."""
    return described.connector == "hub" and not any(described.sample_path.glob("input.*"))


def first_row(described: Source) -> int:
    """The number of a sample's first row: below the header where there is one (docs/architecture.md, row identity)."""
    options = described.options
    if not isinstance(options, FileOptions) or options.format not in ("csv", "xlsx"):
        return 1
    return options.header_rows + 1 if options.format == "xlsx" else 2


CHECKS: dict[str, Callable[[Source], str]] = {
    "description": _description,
    "columns": _columns,
    "checks": _checks,
    "secrets": _secrets,
    "sample": _sample,
    "coverage": _coverage,
}
ADVICE = ("coverage",)  # of a source in another root: what this project ships must pass it too


def _say(code: str, **values: object) -> str:
    return messages.text(code, None, **values)


def _some(found: list[str]) -> str:
    return ", ".join(found[:SHOWN]) + (" …" if len(found) > SHOWN else "")


def folders(names: list[str], root: Path | None = None) -> list[Path]:
    """The folders of the sources named, all of them when none is. FatalError ``sources-none`` when there is none."""
    if names:
        return [folder_of(name, root) for name in names]
    found = [
        path.parent for place in ([root] if root else source.roots()) for path in place.glob(f"*/{source.DESCRIPTION}")
    ]
    if not found:
        raise FatalError("sources-none", roots=", ".join(str(place) for place in ([root] if root else source.roots())))
    return sorted(found, key=lambda path: path.name)


def folder_of(name: str, root: Path | None = None) -> Path:
    """The folder of one source, whether or not what is in it can be read. UsageError ``source-unknown``."""
    places = [root] if root else list(source.roots())
    found = [place / name for place in places if (place / name / source.DESCRIPTION).is_file()]
    if not found or Path(name).name != name:
        known = sorted(path.parent.name for place in places for path in place.glob(f"*/{source.DESCRIPTION}"))
        raise UsageError("source-unknown", source=name, known=", ".join(known))
    if len(found) > 1:
        raise FatalError("source-twice", source=name, folders=", ".join(str(folder) for folder in found))
    return found[0]
