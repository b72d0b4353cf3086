"""``yici deposits``: what applicants handed in, and a person's word on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Ids = Annotated[list[str], typer.Argument(metavar="ID…", help="Of deposits, see `yici deposits list`.")]
Actor = Annotated[
    str | None, typer.Option(help="Who decides, a person or a department; YICI_ACTOR or this user otherwise.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


def register(app: typer.Typer) -> None:
    commands = typer.Typer(help="Deposits: list, show, verify, reject. 申请人提交件。", no_args_is_help=True)
    app.add_typer(commands, name="deposits")

    @commands.command("list")
    def list_(
        state: Annotated[
            Literal["waiting", "verified", "held", "overruled", "rejected", "all"], typer.Option(help="Only these.")
        ] = "waiting",
        limit: Annotated[int, typer.Option(min=1, help="At most so many, the oldest first.")] = 50,
        json: Json = False,
    ) -> None:
        """Those that wait for a person, or others by state. 列出提交件。

        Example: [bold]yici deposits list --state waiting[/]
        """
        from connectors import messages
        from hub import database, deposits
        from hub.cli import output

        lang: Any = messages.language()
        with database.engine().connect() as connection:
            found = [
                deposits.shown(row, lang)
                for row in deposits.listed(connection, None if state == "all" else state, limit)
            ]
        if json:
            output.json(found)
        else:
            _table(found)

    @commands.command()
    def show(
        deposit: Annotated[str, typer.Argument(metavar="ID", help="As `yici deposits list` shows it.")],
        file: Annotated[Path | None, typer.Option("--file", help="Write the scan to this new file.")] = None,
        json: Json = False,
    ) -> None:
        """What a deposit says (personal data: mind who looks on), what its signatures are worth; with --file the scan.
        查看提交件。

        Example: [bold]yici deposits show 0f3c… --file scan.pdf[/]
        """
        from connectors import messages
        from hub import database, deposits
        from hub.cli import output

        lang: Any = messages.language()
        with database.engine().connect() as connection:
            row = deposits.get(connection, deposit)
            shown = {**deposits.shown(row, lang), **deposits.told(row)}
        if file is not None:
            deposits.write_file(row, file)
        if json:
            output.json(shown)
            return
        output.table(("what", "value"), [(name, _cell(value)) for name, value in shown.items()])

    @commands.command()
    def verify(
        deposits: Ids,
        actor: Actor = None,
        note: Annotated[str, typer.Option(help="How it was verified; kept with the decision.")] = "",
        json: Json = False,
    ) -> None:
        """Say that deposits are what they say: they go through the gates and are held. 核验通过。

        Example: [bold]yici deposits verify 0f3c… --actor "real estate registry" --note "original seen"[/]
        """
        _decide("verify-deposit", deposits, actor, note, json)

    @commands.command()
    def reject(
        deposits: Ids,
        reason: Annotated[str, typer.Option(help="Why; kept with the decision.")],
        actor: Actor = None,
        json: Json = False,
    ) -> None:
        """Say that deposits do not count, also when they were held already. 驳回。

        Example: [bold]yici deposits reject 0f3c… --reason "the lease has no stamp"[/]
        """
        _decide("reject-deposit", deposits, actor, reason, json)


def _decide(kind: str, named: list[str], actor: str | None, note: str, json: bool) -> None:
    from connectors import messages
    from hub import deposit_review
    from hub.cli import output

    lang: Any = messages.language()
    done = deposit_review.decide(kind, named, actor=actor or output.actor(), note=note, lang=lang)
    if json:
        output.json(done)
    else:
        _table(done)


def _table(found: list[dict[str, Any]]) -> None:
    from hub.cli import output

    columns = ("deposit", "state", "material", "received_at", "signature", "case")
    rows = [[entry[name] for name in columns] + [_why(entry)] for entry in found]
    output.table((*columns, "reasons"), rows)


def _why(entry: dict[str, Any]) -> str:
    return entry["overruled"]["advice"] if entry["overruled"] else ", ".join(entry["reasons"])


def _cell(value: Any) -> object:
    import orjson

    return orjson.dumps(value).decode() if isinstance(value, dict | list) else value
