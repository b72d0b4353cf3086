"""Pieces of Markdown made of text that is not: whatever stands in the model shows as it is, and nothing more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# What could begin something in the middle of a line; a backslash takes its meaning away (CommonMark 2.4).
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&])")


def plain(text: str) -> str:
    """``text`` as one line that no reader of Markdown takes for markup."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """``text`` set as code; also inside a table, where only a bar has to be escaped."""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{' '.join(text.split())}{space}{fence}".replace("|", r"\|")


def link(text: str, target: str) -> str:
    """A link; ``text`` is Markdown already, ``target`` a path of our own."""
    return f"[{text}]({target})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def listed(entries: Iterable[str], *, numbered: bool = False) -> str:
    """A list whose entries are Markdown already."""
    return "\n".join(f"{f'{place}.' if numbered else '-'} {entry}" for place, entry in enumerate(entries, start=1))
