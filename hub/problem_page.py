"""``docs/problems.md``: every error a caller can be told of, and every one that only commands show, written from the codes
themselves."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

from connectors import messages
from hub import problems

PATH = "problems.md"
ROOT = Path(__file__).parents[1]
EXITS = {"UsageError": 2, "FatalError": 1, "RetriableError": 1, "BatchHalted": 3}
_TOLD = ("problem", "document")  # what tells of a code without raising it
_HEAD = """<!-- Written by `yici docs`; edit hub/problems.py and the messages of each package. -->

# Problems the API answers with 接口错误码

Problem details (RFC 9457), `application/problem+json`. `code` is stable and never taken back; `detail` is a sentence in the
language asked for and says what to do next. Of what was sent it repeats only what has the form of a code or a name of the
catalogue, never what could be the number of a person, a document or a telephone: there it has `…`. `fault` says whose it is: with
`caller` the same request will fail again, with `hub` or `partner` it may be repeated later, after `Retry-After` where there is one.

| code | status | fault | English | 中文 |
|---|---|---|---|---|
"""
_COMMANDS = """
# Errors that commands show 命令错误码

`yici … --json` prints them as `{"error": {"code": …}}`, with the exit code beside. No caller of the API is told of them: where one
of them stops a request, the answer is `store-unavailable` or `internal`.

| code | exit | English | 中文 |
|---|---|---|---|
"""


def page() -> str:
    """The page as Markdown: problems by status, then code; errors of commands by code."""
    sentences = messages.sentences()
    rows = [
        f"| `{code}` | {kind.status} | {kind.fault} | {sentences[code]['title']['en']} | {sentences[code]['title']['zh']} |\n"
        for code, kind in sorted(problems.KINDS.items(), key=lambda entry: (entry[1].status, entry[0]))
    ]
    others = [
        f"| `{code}` | {_exits(kinds)} | {_cell(sentences[code]['en'])} | {_cell(sentences[code]['zh'])} |\n"
        for code, kinds in sorted(raised().items())
        if code not in problems.KINDS
    ]
    return _HEAD + "".join(rows) + _COMMANDS + "".join(others)


@functools.cache
def raised() -> Mapping[str, Mapping[str, frozenset[str]]]:
    """Every code that the packages write out where they raise or tell of an error: code → how (:data:`EXITS`, or the
    function that tells) → the modules that do, as paths."""
    found: dict[str, dict[str, set[str]]] = {}
    for package in messages.PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for how, code in _codes(ast.parse(path.read_text(encoding="utf-8"))):
                found.setdefault(code, {}).setdefault(how, set()).add(path.relative_to(ROOT).as_posix())
    return {code: {how: frozenset(paths) for how, paths in ways.items()} for code, ways in found.items()}


def _codes(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called not in EXITS and called not in _TOLD:
            continue
        first = node.args[0]
        for given in (first.body, first.orelse) if isinstance(first, ast.IfExp) else (first,):
            if isinstance(given, ast.Constant) and isinstance(given.value, str):
                yield called, given.value


def _exits(ways: Mapping[str, object]) -> str:
    return ", ".join(sorted({str(EXITS[how]) for how in ways if how in EXITS})) or "-"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
