"""``yici identity``: who is whom, why, and deciding on it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

Who = Annotated[
    list[str],
    typer.Argument(
        metavar="ID…", help="SCHEME:VALUE, or key: and a key shown here; `-` reads them from stdin, one a line."
    ),
]
Note = Annotated[str, typer.Option(help="Why; kept with the decision.")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


def register(app: typer.Typer) -> None:
    commands = typer.Typer(
        help="Identity: show, merge, split, contradictions, waiting, review. 主体识别。", no_args_is_help=True
    )
    app.add_typer(commands, name="identity")

    @commands.command()
    def show(
        identifier: Annotated[str, typer.Argument(metavar="ID", help="As for merge; `-` reads it from stdin.")],
        json: Json = False,
    ) -> None:
        """Who is one subject with an identifier, and the rows, claims and decisions that say so (personal data: mind who
        looks on). 查看同一主体的全部标识及依据。

        Example: [bold]echo passport:E12345678 | yici identity show -[/]
        """
        from hub import database, identity_decisions, identity_evidence
        from hub.cli import output

        (key,) = identity_decisions.named(_read([identifier])[:1])
        with database.engine().connect() as connection:
            found = identity_evidence.show(connection, bytes.fromhex(key))
        if json:
            output.json(found)
            return
        output.table(
            ("what", "state", "about", "evidence"),
            list(identity_evidence.lines(found)),
            title=f"{found['state']} {len(found['cluster'])}",
        )

    @commands.command()
    def merge(identifiers: Who, note: Note = "", json: Json = False) -> None:
        """Say that identifiers are one subject, whatever documents claim; takes back a split of them. Of one alone that
        contradicts itself: what its documents claim is its bearer's all the same. 合并为同一主体；单个标识则为认可其矛盾记载。

        Example: [bold]yici identity merge key:3f… key:a0… --note "both passports seen at the window"[/]
        """
        from hub import identity_decisions

        _decide(identity_decisions.merge, identifiers, note, json)

    @commands.command()
    def split(identifiers: Who, note: Note = "", json: Json = False) -> None:
        """Say that two identifiers are not one subject, or one is none with all it is joined with; takes back merges of
        them, and of one alone. 拆分为不同主体。

        Example: [bold]yici identity split key:3f… key:a0… --note "typing error in the exit-entry file"[/]
        """
        from hub import identity_decisions

        _decide(identity_decisions.split, identifiers, note, json)

    @commands.command()
    def contradictions(limit: Limit = 100, json: Json = False) -> None:
        """What is linked and not joined, because it has two birth dates or sexes, and single numbers whose own documents
        deny them. 列出相互矛盾的主体。

        Example: [bold]yici identity contradictions[/], then [bold]yici identity show key:…[/]
        """
        from hub import database, identity_evidence
        from hub.cli import output

        with database.engine().connect() as connection:
            found = identity_evidence.contradictions(connection, limit)
        if json:
            output.json(found)
            return
        rows = [(f"key:{row['key']}", row["members"], ", ".join(filter(None, row["schemes"]))) for row in found]
        output.table(("show", "members", "schemes"), rows)

    @commands.command()
    def waiting(limit: Limit = 100, json: Json = False) -> None:
        """Links that would undo a decision: they wait for another, merge or split. 列出待认定的关联。"""
        from hub import database, identity_evidence
        from hub.cli import output

        with database.engine().connect() as connection:
            found = identity_evidence.waiting(connection, limit)
        if json:
            output.json(found)
            return
        rows = [
            (
                f"key:{link['one']}",
                f"key:{link['other']}",
                ", ".join(f"{row['source']} · {row['file']} · {row['row']}" for row in link["rows"]),
            )
            for link in found
        ]
        output.table(("one", "other", "rows"), rows)

    if importlib.util.find_spec("hub.cli.identity_review"):
        importlib.import_module("hub.cli.identity_review").register(commands)


def _read(identifiers: list[str]) -> list[str]:
    """Those given, or the lines of standard input: an identifier on a command line can be seen by others."""
    if identifiers != ["-"]:
        return identifiers
    from connectors.errors import UsageError

    if not (lines := [line.strip() for line in sys.stdin if line.strip()]):
        raise UsageError("identifier-absent")
    return lines


def _decide(decision: Callable[..., dict[str, Any]], identifiers: list[str], note: str, json: bool) -> None:
    from hub import database
    from hub.cli import output

    with database.engine().begin() as connection:
        result = decision(connection, _read(identifiers), actor=output.actor(), note=note)
    if json:
        output.json(result)
        return
    rows = [(cluster["state"], " ".join(f"key:{key}" for key in cluster["members"])) for cluster in result["clusters"]]
    output.table(("state", "one subject"), rows, title=f"{result['kind']} {result['decision'][:16]}")
