"""Files in a drop folder, local or on any fsspec URL.

Cursor: ``{file name: [size, modification stamp]}`` of the files already merged. What is new or changed is landed; what is
still being written is left for the next run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from connectors import reading
from connectors.connections import Connection
from connectors.errors import FatalError, RetriableError, UsageError, YiciError
from connectors.fetched import Cursor, Diagnosis, Fetched, Progress, columns_expected, failed
from connectors.landing import LandedFile, Landing
from connectors.source import FileOptions, FilesOptions, Source

UNFINISHED = (".part", ".tmp", ".filepart", ".crdownload")
Stamp = list[Any]


def fetch(
    source: Source, connection: Connection, cursor: Cursor | None, landing: Landing, progress: Progress | None = None
) -> Fetched:
    """Lands every matching file that is not in ``cursor``. An empty folder is a success with no file."""
    options = _options(source)
    fs, root = _folder(connection)
    known = cursor or {}
    present = _listing(fs, root, options, source, connection)
    fresh = {path: stamp for path, stamp in present.items() if known.get(_name(path)) != stamp}
    settled = _settled(fs, fresh, options.settle_seconds)
    kept = {_name(path): stamp for path, stamp in present.items() if path not in fresh}
    landed = []
    for number, (path, stamp) in enumerate(sorted(settled.items()), start=1):
        file = _land(fs, path, landing)
        if _stamp(fs, path) == stamp:  # else it was written to while it was read: the next run takes it
            if not file.size:
                raise FatalError("file-empty", file=file.name)
            landed.append(file)
            kept[file.name] = stamp
        if progress:
            progress(number, len(settled))
    request = {"pattern": options.pattern, "found": len(present), "new": len(fresh), "taken": len(landed)}
    return Fetched(landed, kept, 0, request)


def land_input(source: Source, path: str, landing: Landing, progress: Progress | None = None) -> Fetched:
    """Lands one file, or the matching files of a folder, given by hand; the cursor is neither used nor moved.

    UsageError ``input-not-found``; FatalError ``file-empty``.
    """
    fs, root = fsspec.url_to_fs(path)
    if not fs.exists(root):
        raise UsageError("input-not-found", path=path)
    if fs.isdir(root):
        options = source.options
        pattern = options.pattern if isinstance(options, FileOptions) else "*"
        paths = [item for item in _files(fs, root) if matches(_name(item), pattern)]
    else:
        paths = [root]
    landed = []
    for number, item in enumerate(sorted(paths), start=1):
        file = _land(fs, item, landing)
        if not file.size:
            raise FatalError("file-empty", file=file.name)
        landed.append(file)
        if progress:
            progress(number, len(paths))
    return Fetched(landed, None, 0, {"input": [file.name for file in landed]})


def check(source: Source, connection: Connection) -> list[Diagnosis]:
    """Is the folder there, does a file match, does its header hold the columns expected?"""
    options = _options(source)
    try:
        fs, root = _folder(connection)
        present = _listing(fs, root, options, source, connection)
    except YiciError as error:
        return [failed("folder", error)]
    steps = [Diagnosis("folder", True, connection.url)]
    if not present:
        return [*steps, Diagnosis("files", True, f"0 × {options.pattern}")]
    steps.append(Diagnosis("files", True, f"{len(present)} × {options.pattern}"))
    newest = max(present, key=lambda path: str(present[path][1]))
    try:
        rows = reading.file_blocks(lambda: fs.open(newest, "rb"), _name(newest), options)
        names = next(rows).table.column_names[:-1]
        rows.close()  # type: ignore[attr-defined]
    except YiciError as error:
        return [*steps, failed("content", error)]
    return [*steps, columns_expected(source, names)]


def _options(source: Source) -> FilesOptions:
    assert isinstance(source.options, FilesOptions)
    return source.options


def _folder(connection: Connection) -> tuple[Any, str]:
    secrets = {"username": connection.username, "password": connection.password}
    options = {**connection.extra, **{key: value for key, value in secrets.items() if value is not None}}
    try:
        fs, root = fsspec.url_to_fs(connection.url, **options)
    except (ImportError, ValueError) as error:
        raise FatalError("folder-url", connection=connection.name, reason=str(error)) from None
    return fs, str(root)


def _listing(fs: Any, root: str, options: FilesOptions, source: Source, connection: Connection) -> dict[str, Stamp]:
    try:
        names = [path for path in _files(fs, root) if matches(_name(path), options.pattern)]
        return {path: _stamp(fs, path) for path in names}
    except FileNotFoundError:
        raise FatalError("folder-missing", source=source.name, folder=connection.url) from None
    except PermissionError:
        raise FatalError("folder-refused", source=source.name, folder=connection.url) from None
    except OSError as error:
        raise RetriableError(
            "folder-unreachable", source=source.name, folder=connection.url, reason=type(error).__name__
        ) from error


def _files(fs: Any, root: str) -> list[str]:
    fs.invalidate_cache()
    return [entry["name"] for entry in fs.ls(root, detail=True) if entry["type"] == "file"]


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def matches(name: str, pattern: str) -> bool:
    """Whether a file of that name is meant: packed or not, but neither hidden nor still being written."""
    if name.startswith((".", "~")) or name.lower().endswith(UNFINISHED):
        return False
    return fnmatchcase(name.lower(), pattern.lower()) or fnmatchcase(name.lower(), f"{pattern.lower()}.gz")


def _stamp(fs: Any, path: str) -> Stamp:
    """Size and modification stamp: nanoseconds on local disks, whatever the store calls it elsewhere."""
    if isinstance(fs, LocalFileSystem):
        status = Path(path).stat()
        return [status.st_size, status.st_mtime_ns]
    fs.invalidate_cache()
    entry = fs.info(path)
    keys = ("mtime", "LastModified", "last_modified", "modified", "updated", "ETag", "created")
    stamp = next((entry[key] for key in keys if entry.get(key) is not None), None)
    return [entry["size"], stamp if isinstance(stamp, int) else str(stamp)]


def _settled(fs: Any, fresh: dict[str, Stamp], seconds: float, sleep: Callable[[float], None] = time.sleep) -> Any:
    """Those that did not change for ``seconds``. Waits, once for all, when some are younger than that."""
    ages = [_age(fs, stamp) for stamp in fresh.values()]
    wait = max((seconds - age for age in ages), default=0.0)
    if wait > 0:
        sleep(min(wait, seconds))
        return {path: stamp for path, stamp in fresh.items() if fs.exists(path) and _stamp(fs, path) == stamp}
    return fresh


def _age(fs: Any, stamp: Stamp) -> float:
    """Seconds since the last change; none where clocks may differ (remote) or run ahead."""
    if not isinstance(fs, LocalFileSystem):
        return 0.0
    return max(0.0, time.time() - float(stamp[1]) / 1e9)


def _land(fs: Any, path: str, landing: Landing) -> LandedFile:
    try:
        with fs.open(path, "rb") as stream:
            return landing.put(stream, _name(path))
    except PermissionError:
        raise FatalError("file-refused", file=_name(path)) from None
    except FileNotFoundError:
        raise RetriableError("file-gone", file=_name(path)) from None
