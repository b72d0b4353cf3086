"""What a question selects of a version: its files as they are, or files made for this question alone.

A question names columns, a condition and a limit; all three are kept exactly, so that what goes out is what was asked for and
no more. Cutting is done by a process of its own (:mod:`hub.exchange.share_cut`), bounded in time; what it wrote can be read for
as long as the addresses of its files are good, and goes after that.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from connectors.errors import RetriableError, UsageError
from hub import home
from hub.exchange import share_files
from hub.exchange.share_predicates import Node
from hub.exchange.share_versions import File
from hub.exchange.shares import Share, Shared

SECONDS = 120
log = logging.getLogger("yici.shares")


@dataclass(frozen=True)
class Selection:
    """``columns`` in the order of the table; ``predicate``: of :mod:`hub.exchange.share_predicates`; ``limit``: rows."""

    columns: tuple[str, ...]
    predicate: Node | None = None
    limit: int | None = None


def columns(table: Shared, asked: Sequence[str] | None) -> tuple[str, ...]:
    """The agreed columns that are asked for, all without ``asked``. UsageError ``share-columns``."""
    if asked is None:
        return tuple(table.columns)
    if not asked or any(name not in table.columns for name in asked):
        raise UsageError("share-columns", known=", ".join(table.columns))
    return tuple(name for name in table.columns if name in asked)


def selected(
    share: Share, table: Shared, files: Sequence[File], wanted: Selection, now: dt.datetime
) -> tuple[list[File], bool]:
    """The files with exactly what is ``wanted`` of ``files``, and whether they were made for it.

    RetriableError ``share-slow`` or ``share-unavailable``.
    """
    rows = sum(one.rows for one in files)
    if wanted.limit == 0 or not rows:
        return [], False
    every = wanted.columns == tuple(table.columns) and wanted.predicate is None
    if every and (wanted.limit is None or wanted.limit >= rows):
        return list(files), False
    zone = share_files.zone()
    share_files.drop_answered(zone, share.name, now)
    job = {
        "landing": home.current().landing_url,
        "place": share_files.folder(share.name),
        "into": share_files.answers(now).split("/"),
        "files": [one.path for one in files],
        "columns": wanted.columns,
        "predicate": wanted.predicate,
        "limit": wanted.limit,
    }
    return [File(**one) for one in orjson.loads(_run(orjson.dumps(job)))], True


def _run(job: bytes) -> bytes:
    command = [sys.executable, "-m", "hub.exchange.share_cut"]
    here = Path(__file__).parent.parent.parent
    paths = os.pathsep.join(part for part in (str(here), os.environ.get("PYTHONPATH", "")) if part)
    try:
        done = subprocess.run(
            command,
            input=job,
            capture_output=True,
            timeout=SECONDS,
            env={**os.environ, "PYTHONPATH": paths},
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise RetriableError("share-slow", seconds=SECONDS) from None
    except (subprocess.SubprocessError, OSError) as error:
        # Of what it wrote to its standard error only what kind of error it was: the rest could quote a condition.
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().rpartition("\n")[2]
        log.error("share-cut %s", said.partition(":")[0][:80] or type(error).__name__)
        raise RetriableError("share-unavailable") from None
    return done.stdout
