"""Objects under a prefix of a bucket, in S3 or a store that speaks its protocol.

Cursor: ``{key: [size, etag]}`` of the objects already merged. What is new or changed is landed; what changes while it is
read is left for the next run. Names that begin with a dot or an underscore, and all below such a folder, are work in
progress of the writer.
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

from connectors import bucket, reach, reading
from connectors.bucket import Bucket, Changed, Entry
from connectors.connections import Connection
from connectors.errors import FatalError, RetriableError, YiciError
from connectors.fetched import Cursor, Diagnosis, Fetched, Progress, columns_expected, failed
from connectors.files import UNFINISHED
from connectors.landing import Landing
from connectors.source import S3Options, Source


def fetch(
    source: Source, connection: Connection, cursor: Cursor | None, landing: Landing, progress: Progress | None = None
) -> Fetched:
    """Lands every matching object that is not in ``cursor``. A prefix without objects is a success with no file.

    Errors are those of :class:`connectors.bucket.Bucket`, and ``file-empty``.
    """
    options = _options(source)
    known = cursor or {}
    with Bucket(source, connection) as store:
        present = [entry for entry in store.listing() if _taken(entry, store.prefix, options.pattern)]
        fresh = sorted((entry for entry in present if known.get(entry.key) != entry.stamp), key=lambda entry: entry.key)
        kept = {entry.key: entry.stamp for entry in present if known.get(entry.key) == entry.stamp}
        landed = []
        for number, entry in enumerate(fresh, start=1):
            name = entry.key.removeprefix(store.prefix)
            if not entry.size:
                raise FatalError("file-empty", file=name)
            try:
                landed.append(store.land(entry, landing, name))
                kept[entry.key] = entry.stamp
            except Changed:
                pass  # the next run takes it as it is then
            if progress:
                progress(number, len(fresh))
        request = {
            "bucket": store.name, "prefix": store.prefix, "pattern": options.pattern, "found": len(present),
            "new": len(fresh), "taken": len(landed),
        }  # fmt: skip
        return Fetched(landed, kept, store.requests, request)


def check(source: Source, connection: Connection) -> list[Diagnosis]:
    """Name, port, certificate, login, bucket, objects, the columns of the newest; stops at the first that fails."""
    try:
        store = Bucket(source, connection)
    except YiciError as error:
        return [failed("address", error)]
    with store:
        steps: list[Diagnosis] = []
        if not connection.extra.get("proxy"):  # behind a proxy only the proxy can be reached
            steps += reach.steps(source, replace(connection, url=store.endpoint), store.options.connect_seconds)
            if not steps[-1].ok:
                return steps
        step = "login"
        try:
            store.probe()
            steps.append(Diagnosis("login", True, connection.name))
            steps.append(Diagnosis("bucket", True, f"s3://{store.name}/{store.prefix}"))
            step = "files"
            return [*steps, *_content(store)]
        except YiciError as error:
            if step == "login" and isinstance(error, FatalError) and error.code not in bucket.LOGIN:
                steps.append(Diagnosis("login", True, connection.name))  # it knows us; what it refuses is the bucket
                step = "bucket"
            return [*steps, failed(step, error)]


def _content(store: Bucket) -> list[Diagnosis]:
    pattern = store.options.pattern
    present = [entry for entry in store.listing() if _taken(entry, store.prefix, pattern)]
    found = Diagnosis("files", True, f"{len(present)} × {pattern}")
    if not present:
        return [found]
    newest = max(present, key=lambda entry: entry.modified)
    name = newest.key.removeprefix(store.prefix)
    try:
        rows = reading.file_blocks(lambda: store.open(newest), name, store.options)
        names = next(rows).table.column_names[:-1]
        rows.close()  # type: ignore[attr-defined]
    except Changed:
        return [found, failed("content", RetriableError("file-gone", file=name))]
    except YiciError as error:
        return [found, failed("content", error)]
    return [found, columns_expected(store.source, names)]


def _options(source: Source) -> S3Options:
    assert isinstance(source.options, S3Options)
    return source.options


def _taken(entry: Entry, prefix: str, pattern: str) -> bool:
    parts = entry.key.removeprefix(prefix).lower().split("/")
    name, wanted = parts[-1], pattern.lower()
    if any(part.startswith((".", "_", "~")) for part in parts) or name.endswith(UNFINISHED):
        return False
    return fnmatchcase(name, wanted) or fnmatchcase(name, f"{wanted}.gz")
