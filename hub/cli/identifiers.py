"""``yici id``: judge identifiers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from connectors.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 65_536  # values judged and printed at a time


def register(app: typer.Typer) -> None:
    @app.command("id")
    def identifiers(
        values: Annotated[
            list[str] | None, typer.Argument(metavar="VALUE…", help="VALUE or SCHEME:VALUE.", show_default=False)
        ] = None,
        file: Annotated[
            Path | None, typer.Option("--file", "-f", help="One value a line, UTF-8; - is standard input.")
        ] = None,
        json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
    ) -> None:
        """Judge identifiers: normalised form, verdict and reason of each, in the order given. 校验证件号码。

        Schemes: cn.ric (居民身份证), cn.permit (港澳台居民居住证), cn.fpr (外国人永久居留身份证), passport, cn.uscc
        (统一社会信用代码), cn.regno (注册号), cn.orgcode (组织机构代码), cn.tax (纳税人识别号). Without one the form decides.

        A terminal gets one readable line a value; a file or pipe gets one JSON object a line; --json gives one array.
        An invalid identifier is an answer, not a failure: the exit code is 0.

        Examples:

          yici id 440524188001010014 91310117MA1J3AJ43G

          yici id --json cn.ric:610104620927690

          yici id --file numbers.txt > verdicts.jsonl
        """
        if not values and file is None:
            raise UsageError("identifier-nothing-given")
        with _lines(file) as lines:
            # An argument may hold bytes that are no text; Arrow takes text only.
            given = (value.encode("utf-8", "replace").decode() for value in values or ())
            _print(_judged(chain(given, lines)), array=json)


@contextmanager
def _lines(file: Path | None) -> Iterator[Iterator[str]]:
    """Lines of the file that are not blank."""
    if file is None:
        yield iter(())
        return
    try:
        if str(file) == "-":
            yield _filled(sys.stdin)
        else:
            with file.open(encoding="utf-8-sig") as text:
                yield _filled(text)
    except UnicodeDecodeError as error:
        raise UsageError("identifier-file-unreadable", file=file, problem=error.reason) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError("identifier-file-unreadable", file=file, problem=error.strerror) from None


def _filled(text: IO[str]) -> Iterator[str]:
    return (line.rstrip("\r\n") for line in text if line.strip())


def _judged(values: Iterator[str]) -> Iterator[pa.Table]:
    """Tables of value, scheme, normalised, verdict, reason, a block of values at a time."""
    import pyarrow as pa

    from mappings import identifiers

    while block := list(islice(values, BLOCK)):
        schemes, bare = identifiers.split(pa.array(block, pa.string()))
        yield identifiers.check(bare, schemes).add_column(0, "value", bare)


def _print(tables: Iterator[pa.Table], *, array: bool) -> None:
    import orjson

    opened = False
    if array or not sys.stdout.isatty():
        for table in tables:
            # Printing is where columns end: a block at a time becomes Python objects.
            lines = [orjson.dumps(row).decode() for row in table.to_pylist()]
            if array:
                typer.echo(("," if opened else "[") + ",\n".join(lines))
            else:
                typer.echo("\n".join(lines))
            opened = True
        if array:
            typer.echo("]" if opened else "[]")
        return
    for table in tables:
        for row in table.to_pylist():
            typer.echo(_readable(row))


def _readable(row: dict[str, str | None]) -> str:
    from connectors import messages

    reasons = (row["reason"] or "").split(";")
    sentences = " ".join(messages.text(f"identifier-{reason}") for reason in reasons if reason)
    colour = {"valid": typer.colors.GREEN, "flagged": typer.colors.YELLOW}.get(row["verdict"] or "", typer.colors.RED)
    verdict = typer.style(f"{row['verdict']:<8}", fg=colour)
    return f"{verdict} {row['scheme'] or '-':<10} {row['normalised'] or row['value']}  {sentences}".rstrip()
