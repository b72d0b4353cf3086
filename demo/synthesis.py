"""One folder of synthetic departments' files and the truth about them, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from connectors.errors import UsageError
from demo import documents, enterprises, population
from demo.truth import TABLES
from demo.writers import Parquet, digest

FORM = 3  # of what is written; a folder made by another form is not taken for the same
MANIFEST = "synth.json"
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Parameters:
    """What a folder follows from."""

    people: int
    companies: int
    seed: int
    dirt: float = 0.01
    form: int = field(default=FORM, init=False)

    def check(self) -> None:
        if not 0 < self.people <= population.LIMIT:
            raise UsageError("synth-people-out-of-range", limit=f"{population.LIMIT:,}")
        if not 0 <= self.companies <= population.LIMIT:
            raise UsageError("synth-companies-out-of-range", limit=f"{population.LIMIT:,}")
        if not 0 <= self.dirt <= 0.5:
            raise UsageError("synth-dirt-out-of-range")
        if self.seed < 0:
            raise UsageError("synth-seed-negative")


@dataclass(frozen=True)
class Result:
    """``made`` is false when the folder was there already. ``records``: rows made, repeats not counted."""

    folder: Path
    made: bool
    records: int
    seconds: float
    files: dict[str, dict[str, Any]]


def synthesise(parameters: Parameters, folder: Path, progress: Progress = lambda done: None) -> Result:
    """Write the folder, or find that it is there already.

    ``progress`` is told how many more records were written. Raises UsageError for parameters out of range and for a
    folder that holds anything else; then nothing is touched.
    """
    parameters.check()
    folder = folder.absolute()
    if found := _existing(parameters, folder):
        return found
    started = time.perf_counter()
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        records = _write(parameters, partial, progress)
        files = {
            path.relative_to(partial).as_posix(): {"bytes": path.stat().st_size, "sha256": digest(path)}
            for path in sorted(partial.rglob("*"))
            if path.is_file()
        }
        manifest = {"parameters": asdict(parameters), "records": records, "files": files}
        (partial / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        try:
            partial.rename(folder)  # takes the place of an empty folder, of no other
        except OSError as error:
            raise UsageError("synth-folder-not-its-own", folder=folder) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Result(folder, True, records, time.perf_counter() - started, files)


def _existing(parameters: Parameters, folder: Path) -> Result | None:
    """What an earlier run left, None when there is nothing; UsageError when it is something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        made_with, files, records = manifest["parameters"], manifest["files"], manifest["records"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError("synth-folder-not-its-own", folder=folder) from error
    if made_with != asdict(parameters):
        raise UsageError("synth-other-parameters", folder=folder)
    for name, about in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != about["bytes"]:
            raise UsageError("synth-folder-damaged", folder=folder, file=name)
    return Result(folder, False, records, 0.0, files)


def _sweep(folder: Path) -> None:
    """Remove what killed runs left behind."""
    for left in folder.parent.glob(f".{folder.name}.*.partial"):
        owner = left.name.split(".")[-2]
        with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
            if int(owner) != os.getpid():
                os.kill(int(owner), 0)
                continue
        shutil.rmtree(left, ignore_errors=True)


def _write(parameters: Parameters, folder: Path, progress: Progress) -> int:
    with ExitStack() as stack:
        truth: dict[str, Parquet] = {}
        for name, schema in TABLES.items():
            truth[name] = Parquet(folder, f"truth/{name}.parquet", schema)
            stack.callback(truth[name].close)
        records, pool = enterprises.write(parameters.people, parameters.companies, parameters.seed, parameters.dirt,
                                        folder, truth, progress)  # fmt: skip
        return records + documents.write(
            parameters.people, parameters.seed, parameters.dirt, pool, folder, truth, progress
        )
