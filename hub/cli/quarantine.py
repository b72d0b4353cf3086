"""``yici quarantine``: rows that did not pass, and deciding on them."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

State = Literal["open", "released", "rejected", "superseded", "all"]
Entries = Annotated[list[int], typer.Argument(metavar="ENTRY…", help="Entry numbers, see `yici quarantine list`.")]
Note = Annotated[str, typer.Option(help="Why; kept with the decision.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


def register(app: typer.Typer) -> None:
    commands = typer.Typer(help="Quarantine: list, show, release, reject. 隔离区。", no_args_is_help=True)
    app.add_typer(commands, name="quarantine")

    @commands.command("list")
    def list_(
        source: Annotated[str | None, typer.Option(help="Only this source.")] = None,
        batch: Annotated[str | None, typer.Option(help="Only rows of this batch.")] = None,
        reason: Annotated[str | None, typer.Option(help="Only rows with this reason.")] = None,
        state: Annotated[State, typer.Option(help="Only entries in this state.")] = "open",
        limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
        json: Json = False,
    ) -> None:
        """Entries, newest first; raw rows are shown one at a time by `show`. 列出隔离条目。

        Example: [bold]yici quarantine list --source sh-ga-residents --reason holder.holder:check-digit[/]
        """
        from hub import database, quarantine
        from hub.cli import output

        wanted = None if state == "all" else state
        with database.engine().connect() as connection:
            rows = quarantine.listed(connection, source=source, batch=batch, state=wanted, reason=reason, limit=limit)
            if len(rows) == limit:
                total = quarantine.counted(connection, source=source, batch=batch, state=wanted, reason=reason)
                output.cut(len(rows), total)
        if json:
            output.json([{str(name): value for name, value in row._mapping.items()} for row in rows])
            return
        output.table(
            ("entry", "source", "verdict", "state", "file", "row", "reasons"),
            [(row.id, row.source, row.verdict, row.state, row.file, row.row, ", ".join(row.reasons)) for row in rows],
        )

    @commands.command()
    def show(
        entry: Annotated[int, typer.Argument(metavar="ENTRY", help="Entry number.")],
        json: Json = False,
    ) -> None:
        """One entry with its raw row (personal data: mind who looks on). 查看条目及原始行。"""
        from hub import database, quarantine
        from hub.cli import output

        with database.engine().connect() as connection:
            found = quarantine.show(connection, entry)
        if json:
            output.json(found)
        else:
            output.table(("field", "value"), list(found.items()))

    @commands.command()
    def release(entries: Entries, note: Note = "", json: Json = False) -> None:
        """Let rows pass as they are. The decision holds for exactly these versions of the rows. 放行。

        Example: [bold]yici quarantine release 12 13 --note "confirmed by phone"[/]
        """
        from hub import review
        from hub.cli import output
        from hub.cli import pipeline as run_command

        summaries = review.release(entries, actor=output.actor(), note=note)
        if json:
            output.json(summaries)
            return
        for summary in summaries:
            run_command.show(summary)

    @commands.command()
    def reject(entries: Entries, note: Note = "", json: Json = False) -> None:
        """Keep rows out until the source sends another version of them. 驳回。"""
        from hub import review
        from hub.cli import output

        count = review.reject(entries, actor=output.actor(), note=note)
        if json:
            output.json({"rejected": count})
        else:
            output.console().print(f"rejected 已驳回: {count}")
