"""What commands print: one JSON value on standard output with ``--json``, tables for people otherwise."""

from __future__ import annotations

import contextlib
import getpass
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from connectors.errors import UsageError


def console() -> Console:
    """Standard output for people; wide where no terminal sets the width."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def messages() -> Console:
    """Everything that is not the result goes to standard error."""
    return Console(stderr=True, highlight=False)


def json(value: Any) -> None:
    """Exactly one JSON value on standard output."""
    sys.stdout.write(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode() + "\n")


@contextlib.contextmanager
def whole(out: Path) -> Iterator[Path]:
    """A draft beside ``out`` that takes its place once it is written. UsageError ``out-unwritable``."""
    half = out.with_name(f".{out.name}.half")
    try:
        yield half
        half.replace(out)
    except OSError as error:
        with contextlib.suppress(OSError):
            half.unlink()
        raise UsageError("out-unwritable", file=str(out), reason=error.strerror or type(error).__name__) from None


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """A table whose last columns wrap; numbers to the right."""
    shown = Table(title=title, title_justify="left", header_style="bold")
    rows = [[("" if cell is None else cell) for cell in row] for row in rows]
    for place, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[place], int | float) for row in rows)
        shown.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=place == 0)
    for row in rows:
        shown.add_row(*(str(cell) for cell in row))
    console().print(shown)


def cut(shown: int, total: int) -> None:
    """Say on standard error that a list goes on, where it does."""
    from connectors import messages as sentences

    if total > shown:
        said = sentences.text("list-cut", shown=shown, more=total - shown, total=total)
        messages().print(said, markup=False, soft_wrap=True)


def actor() -> str:
    """Who decides: ``YICI_ACTOR``, else the user of this machine."""
    return os.environ.get("YICI_ACTOR") or getpass.getuser()
